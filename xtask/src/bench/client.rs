//! The release build's client (`api-server/examples/bench_client`), which says what it is told to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::child;
use super::conversation::Conversation;

#[derive(Debug, Clone, Serialize)]
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// In microseconds.
#[derive(Debug, Clone, Deserialize)]
pub struct Micros {
    answers: u32,
    p50: u64,
    p99: u64,
    max: u64,
    took: u64,
}

/// How long answers took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    pub answers: u32,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
    /// From the first question to the last answer.
    pub took: Duration,
}

impl From<Micros> for Times {
    fn from(micros: Micros) -> Self {
        let [p50, p99, max, took] = [micros.p50, micros.p99, micros.max, micros.took].map(Duration::from_micros);
        Self {
            answers: micros.answers,
            p50,
            p99,
            max,
            took,
        }
    }
}

impl Times {
    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.answers) / self.took.as_secs_f64().max(f64::EPSILON)
    }
}

/// Where those that wait connect to.
#[derive(Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// A file that vouches for the server's certificate: over TLS.
    pub ca: Option<PathBuf>,
    pub http2: bool,
}

/// The program, and where it leaves what it complains of.
#[derive(Debug, Clone)]
pub struct Client {
    pub program: PathBuf,
    pub log: PathBuf,
}

impl Client {
    /// Asks for each of `requests` once, by so many callers at a time. The first ones warm up and are not measured.
    pub fn ask(&self, address: SocketAddr, callers: usize, warm_up: usize, requests: &[Request]) -> Result<Times> {
        let order = json!({
            "address": address, "ask": { "callers": callers, "warm_up": warm_up, "requests": requests },
        });
        let mut conversation = self.begin(&order)?;
        conversation.hear::<Micros>().map(Times::from)
    }

    /// Returns when so many connections wait for the bundle at `path` to change, by as many for each of `keys`.
    pub fn wait(
        &self,
        target: &Target,
        (keys, waiting): (&[String], usize),
        path: &str,
        change: &Request,
    ) -> Result<Waiting> {
        let order = json!({
            "address": target.address, "ca": target.ca, "http2": target.http2,
            "wait": { "keys": keys, "waiting": waiting, "path": path, "change": change },
        });
        let mut conversation = self.begin(&order)?;
        conversation.hear::<Value>()?;
        Ok(Waiting(conversation))
    }

    /// Asks for `requests` in turn, so many a second, until what it answers is dropped.
    pub fn load(&self, address: SocketAddr, (callers, per_second): (usize, u32), requests: &[Request]) -> Result<Load> {
        let order = json!({
            "address": address,
            "load": { "callers": callers, "per_second": per_second, "requests": requests },
        });
        self.begin(&order).map(Load)
    }

    fn begin(&self, order: &Value) -> Result<Conversation> {
        let mut command = child::command(&self.program);
        command.env_clear();
        let mut conversation = Conversation::begin(command, &self.log)?;
        conversation.say(&order.to_string())?;
        Ok(conversation)
    }
}

/// Connections that wait until this is dropped.
#[derive(Debug)]
pub struct Waiting(Conversation);

impl Waiting {
    /// How long after a change each had the new bundle. Returns when all wait again.
    pub fn change(&mut self) -> Result<Times> {
        self.0.say("change")?;
        self.0.hear::<Micros>().map(Times::from)
    }
}

/// Requests that go on until this is dropped.
#[derive(Debug)]
pub struct Load(Conversation);

impl Load {
    /// How long the answers took since this was last asked, or since it began; an error if one was no success.
    pub fn since_last(&mut self) -> Result<Times> {
        self.0.say("tell")?;
        self.0.hear::<Micros>().map(Times::from)
    }
}
