//! What an administrator asks of the server under measurement.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, RequestBuilder};
use sealpod_core::wire::backups::{Backup, RestoredBackup};
use sealpod_core::wire::keys::{Keys, MasterKeyState, RotationState};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::server::{Launch, Server};

/// A backup of a large database takes its time.
const PATIENCE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(50);

pub struct Plane<'a> {
    runtime: &'a Runtime,
    client: Client,
    url: String,
    admin_key: String,
}

impl<'a> Plane<'a> {
    pub fn new(runtime: &'a Runtime, launch: &Launch, server: &Server) -> Result<Self> {
        let client = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        Ok(Self {
            runtime,
            client,
            url: server.url(),
            admin_key: launch.admin_key.clone(),
        })
    }

    pub fn back_up(&self) -> Result<Backup> {
        self.call(Method::POST, "/api/backups")
    }

    pub fn restore(&self, backup: &Backup) -> Result<RestoredBackup> {
        self.call(Method::POST, &format!("/api/backups/{}/restore", backup.id))
    }

    /// Has the server read its key file; returns once nothing needs any key but the first.
    pub fn rotate(&self) -> Result<()> {
        let mut keys: Keys = self.call(Method::POST, "/api/keys/rotate")?;
        loop {
            let rotation = &keys.rotation;
            match rotation.state {
                RotationState::Failed => bail!("the rotation failed: {}", rotation.problem.as_deref().unwrap_or("?")),
                RotationState::Idle if keys.keys.iter().all(|key| is_done(key.state)) => return Ok(()),
                _ => {}
            }
            std::thread::sleep(POLL);
            keys = self.call(Method::GET, "/api/keys")?;
        }
    }

    /// Deletes what is at the path for good.
    pub fn purge(&self, path: &str) -> Result<()> {
        let call = self.client.delete(format!("{}{path}?purge=true", self.url));
        self.send(call.bearer_auth(&self.admin_key)).map(drop)
    }

    /// Signs in and out again, as a person does who reads the code in a mail: `read` waits for that.
    pub fn visit(&self, email: &str, read: impl FnOnce() -> Result<String>) -> Result<()> {
        let post = |path: &str| self.client.post(format!("{}{path}", self.url));
        self.send(post("/api/auth/login").json(&json!({"email": email})))?;
        let code = read()?;
        let verified = self.send(post("/api/auth/verify").json(&json!({"email": email, "code": code})))?;
        let verified: Value = serde_json::from_slice(&verified)?;
        let token = verified["token"].as_str().context("whoever signs in gets a token")?;
        self.send(self.client.get(format!("{}/api/auth/me", self.url)).bearer_auth(token))?;
        let logout = self.client.delete(format!("{}/api/auth/logout", self.url));
        self.send(logout.bearer_auth(token)).map(drop)
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let call = self.client.request(method, format!("{}{path}", self.url));
        let body = self.send(call.bearer_auth(&self.admin_key))?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn send(&self, call: RequestBuilder) -> Result<Vec<u8>> {
        self.runtime.block_on(async {
            let answer = call.send().await.context("the server does not answer")?;
            let (status, path) = (answer.status(), answer.url().path().to_owned());
            if !status.is_success() {
                bail!("{path} is {status}: {}", answer.text().await.unwrap_or_default());
            }
            Ok(answer.bytes().await?.to_vec())
        })
    }
}

fn is_done(state: MasterKeyState) -> bool {
    matches!(state, MasterKeyState::Current | MasterKeyState::Unused)
}
