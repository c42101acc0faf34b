//! The database, written by the store's own code.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::super::Programs;
use super::super::client::Request;
use crate::process;
use crate::progress::Step;

const VALUE_BYTES: usize = 1_024;
/// What else there is: a bench of the log has more of it.
const AUDIT_ROWS: usize = 0;
const MEMBERS: usize = 1;

/// Where the secrets are, and who may read and write them.
#[derive(Debug, Deserialize)]
pub struct Seed {
    organization: String,
    project: String,
    environment: String,
    /// Of a session of the organization's owner.
    token: String,
    secrets: usize,
}

impl Seed {
    pub fn prepare(programs: &Programs, directory: &Path, secrets: u32, step: &Step) -> Result<Self> {
        let key = process::capture(Command::new(&programs.server).args(["key", "generate"]))?;
        fs::write(directory.join("master.key"), key)?;
        step.follow(&format!("{secrets} secrets"));
        let mut command = Command::new(&programs.seed);
        command.args([directory.join("sealpod.db"), directory.join("master.key")]);
        command.args([AUDIT_ROWS.to_string(), secrets.to_string()]);
        command.args([MEMBERS.to_string(), VALUE_BYTES.to_string()]);
        let text = process::capture(&mut command)?;
        serde_json::from_str(&text).context("seed_org did not print what it made")
    }

    /// The path of the project that holds them all.
    pub fn project(&self) -> String {
        format!("/api/orgs/{}/projects/{}", self.organization, self.project)
    }

    pub fn read(&self, n: usize) -> Request {
        self.request("GET", n, None)
    }

    /// A new version of the same size.
    pub fn write(&self, n: usize) -> Request {
        let value = format!("{:y<VALUE_BYTES$}", format!("value-{n}"));
        self.request("PUT", n, Some(format!("{{\"value\":\"{value}\"}}")))
    }

    fn request(&self, method: &'static str, n: usize, body: Option<String>) -> Request {
        // All over the database: this prime divides no round number.
        let key = n * 7_919 % self.secrets;
        Request {
            method,
            path: format!("{}/envs/{}/secrets/key-{key:05}", self.project(), self.environment),
            headers: vec![("authorization", format!("Bearer {}", self.token))],
            body,
        }
    }
}
