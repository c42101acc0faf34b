//! A server of Sealpod for tests, in memory: applications, environments, configurations and their keys; accounts, keys
//! and rules; and a count of what was done to it.

mod management;
mod organization;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::problem;
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::binding::world::{Death, Effects};

pub use organization::Account;

const TIME: &str = "2026-01-01T00:00:00Z";

/// Clones are the same server.
#[derive(Clone)]
pub struct Sealpod(Arc<Mutex<State>>, Effects);

#[derive(Default)]
pub struct State {
    pub applications: BTreeMap<String, Value>,
    /// By application and slug.
    pub environments: BTreeMap<(String, String), Value>,
    /// By application, environment and key.
    pub configurations: BTreeMap<(String, String, String), Value>,
    /// Keys of applications that work, with the overlap that they got when a later one was made.
    pub application_keys: Vec<(String, Option<u64>)>,
    pub accounts: BTreeMap<Uuid, Account>,
    pub rules: BTreeMap<Uuid, Value>,
    /// Values of every environment.
    pub secrets: BTreeMap<&'static str, &'static str>,
    /// Named, and never made.
    pub missing: BTreeSet<&'static str>,
    /// The last instant of the versions of these.
    pub ends: BTreeMap<&'static str, Time>,
    /// How reads are answered that are not answered as they should be.
    pub failing: Option<Failing>,
    pub calls: Vec<Call>,
    made: u128,
}

pub struct Call {
    /// `METHOD /path`, without what all paths of a plane begin with. A bundle with its values ends with `?values`.
    pub line: String,
    /// Whether the admin key was on it.
    pub by_admin: bool,
}

/// What answers instead of the server, as it should.
#[derive(Clone)]
pub struct Failing {
    /// One read alone, as in [`Call::line`]; else all of them.
    pub only: Option<String>,
    pub status: u16,
    pub media_type: &'static str,
    pub body: String,
}

type Answer = (u16, Value);

impl Sealpod {
    pub async fn start(on: &MockServer, effects: Effects) -> Self {
        let server = Self(Arc::default(), effects);
        server.state().secrets.insert("password", "hunter2");
        Mock::given(any()).respond_with(server.clone()).mount(on).await;
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What has been asked to be changed since the last time.
    pub fn take_changes(&self) -> Vec<String> {
        let calls = std::mem::take(&mut self.state().calls);
        let lines = calls.into_iter().map(|call| call.line);
        lines.filter(|line| !line.starts_with("GET ")).collect()
    }
}

impl Respond for Sealpod {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.state();
        let is_read = request.method.as_str() == "GET";
        let line = line(request);
        let by_admin = request.headers.contains_key("authorization");
        state.calls.push(Call {
            line: line.clone(),
            by_admin,
        });
        let failing = state.failing.as_ref().filter(|_| is_read);
        if let Some(failing) = failing.filter(|failing| failing.only.as_ref().is_none_or(|only| *only == line)) {
            return ResponseTemplate::new(failing.status).set_body_raw(failing.body.clone(), failing.media_type);
        }
        let (status, body) = state.answer(request);
        drop(state);
        let mut answer = ResponseTemplate::new(status).insert_header("etag", "\"1\"");
        if status != 204 {
            let media_type = if status < 400 {
                "application/json"
            } else {
                problem::CONTENT_TYPE
            };
            answer = answer.set_body_raw(body.to_string(), media_type);
        }
        match (!is_read).then(|| self.1.happened()).flatten() {
            None => answer,
            // Its caller never learns of it.
            Some(Death::Killed) => answer.set_delay(Duration::from_secs(5)),
            Some(Death::Unheard) => ResponseTemplate::new(503),
        }
    }
}

/// The path without what all of its plane begin with.
fn path(request: &Request) -> &str {
    let path = request.url.path();
    ["/api/orgs/default", "/api/management/applications"]
        .iter()
        .find_map(|plane| path.strip_prefix(plane))
        .unwrap_or(path)
}

fn line(request: &Request) -> String {
    let path = path(request);
    let reads_values = path.ends_with("/bundle") && !request.url.query().unwrap_or_default().contains("values=false");
    let values = if reads_values { "?values" } else { "" };
    format!("{} {path}{values}", request.method)
}

/// The server's own word for what it does not do.
fn refused(status: u16, code: &str) -> Answer {
    let body = json!({"type": "about:blank", "title": "", "status": status, "detail": "", "code": code});
    (status, body)
}

fn found(object: Option<&Value>) -> Answer {
    object.map_or_else(|| refused(404, "not_found"), |object| (200, object.clone()))
}

fn gone<T>(object: Option<T>) -> Answer {
    object.map_or_else(|| refused(404, "not_found"), |_| (204, Value::Null))
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        let parts: Vec<&str> = path(request).split('/').skip(1).collect();
        let on_management = request.url.path().starts_with("/api/management/applications");
        let is_consumer = request.url.path().starts_with("/api/consumer/");
        let body = serde_json::from_slice(&request.body).unwrap_or_default();
        match request.method.as_str() {
            "GET" if is_consumer => self.read_by_application(request),
            "GET" if on_management => self.read_application(&parts, request),
            _ if on_management => self.change_application(request.method.as_str(), &parts, &body),
            _ => self.in_organization(&parts, request, body),
        }
    }

    fn new_id(&mut self) -> Uuid {
        self.made += 1;
        Uuid::from_u128(1_000 + self.made)
    }
}

fn query(request: &Request) -> BTreeMap<String, String> {
    request.url.query_pairs().into_owned().collect()
}
