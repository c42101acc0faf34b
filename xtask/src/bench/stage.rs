//! A server of ours with 10,000 secrets, and who may read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sealpod_client::{Client as Api, Credential};
use sealpod_core::SecretText;
use sealpod_core::wire::management::{CreateApplication, CreateEnvironment};
use sealpod_core::wire::org::{CreateAclRule, CreateServiceAccount, Permission, SubjectType};
use sealpod_core::wire::quotas::SetQuotas;
use tokio::runtime::Runtime;

use super::client::{Client, Request};
use super::server::{Launch, Server};
use super::wrk::Plan;
use crate::process;
use crate::progress::Step;

pub const SECRETS: usize = 10_000;
const VALUE_BYTES: usize = 100;
/// One of them may have as many polls open as wait for a change at the most, divided by five.
const WAITING_ACCOUNTS: usize = 10;
/// Changes on their way at a time, while the secrets are loaded.
const AT_ONCE: usize = 32;
pub const ORGANIZATION: &str = "default";
pub const PROJECT: &str = "shop";
pub const ENVIRONMENT: &str = "prod";

/// The name of the n-th secret; `{n}` in a plan is the same five digits.
pub fn key(n: usize) -> String {
    format!("key-{n:05}")
}

/// A value of 100 bytes.
pub fn value(n: usize) -> String {
    format!("{:x<VALUE_BYTES$}", format!("value-{n}-"))
}

#[derive(Debug)]
pub struct Stage {
    pub launch: Launch,
    /// Of a service account that may read and write every secret of the project.
    pub account: String,
    /// Of the project as an application.
    pub application: String,
    /// Of service accounts that may read every secret of the project.
    pub waiting: Vec<String>,
}

impl Stage {
    /// On a new database in `directory`. Its server is stopped.
    pub fn prepare(program: &Path, client: &Client, directory: &Path, runtime: &Runtime, step: &Step) -> Result<Self> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let master = process::capture(Command::new(program).args(["key", "generate"]))?;
        let launch = Launch::new(program, directory)?;
        fs::write(&launch.master_key, master)?;
        let server = launch.start()?;
        let api = Api::builder(server.url())
            .credential(Credential::Admin(SecretText::new(&launch.admin_key)))
            .build()?;
        let mut stage = Self {
            launch,
            account: String::new(),
            application: String::new(),
            waiting: Vec::new(),
        };
        runtime.block_on(stage.admit(&api))?;
        step.follow(&format!("{SECRETS} secrets"));
        let requests: Vec<_> = (0..SECRETS).map(|n| stage.put(n)).collect();
        client.ask(server.address, AT_ONCE, 0, &requests)?;
        server.process.stop()?;
        Ok(stage)
    }

    async fn admit(&mut self, api: &Api) -> Result<()> {
        let quotas = SetQuotas {
            secrets: Some(2 * SECRETS as u64),
            value_bytes: Some(1 << 40),
            ..SetQuotas::default()
        };
        api.org(ORGANIZATION).set_quotas(&quotas).await?;
        self.application = project(api).await?;
        self.account = account(api, "bench".to_owned(), Permission::Write).await?;
        for n in 0..WAITING_ACCOUNTS {
            let key = account(api, format!("bench-{n}"), Permission::Read).await?;
            self.waiting.push(key);
        }
        Ok(())
    }

    fn environment() -> String {
        format!("/api/orgs/{ORGANIZATION}/projects/{PROJECT}/envs/{ENVIRONMENT}")
    }

    fn as_account(&self) -> Vec<(&'static str, String)> {
        vec![("x-api-key", self.account.clone())]
    }

    /// Sets the n-th secret, to what it is already or will be.
    pub fn put(&self, n: usize) -> Request {
        Request {
            method: "PUT",
            path: format!("{}/secrets/{}", Self::environment(), key(n)),
            headers: self.as_account(),
            body: Some(format!("{{\"value\":\"{}\"}}", value(n))),
        }
    }

    /// A bundle of the first secrets.
    pub fn bundle(keys: usize) -> String {
        let names: Vec<_> = (0..keys).map(|n| format!("key={}", key(n))).collect();
        format!("{}/bundle?{}", Self::environment(), names.join("&"))
    }

    pub fn read(&self, server: &Server) -> Plan {
        Plan {
            name: "read",
            address: server.address,
            method: "GET",
            path: format!("{}/secrets/key-{{n}}", Self::environment()),
            keys: SECRETS,
            headers: self.as_account(),
            body: None,
            expect: 200,
        }
    }

    pub fn read_by_application(&self, server: &Server) -> Plan {
        Plan {
            name: "read by an application",
            path: format!("/api/consumer/secrets/key-{{n}}?environment={ENVIRONMENT}"),
            headers: vec![("x-api-key", self.application.clone())],
            ..self.read(server)
        }
    }

    pub fn write(&self, server: &Server) -> Plan {
        Plan {
            name: "write",
            method: "PUT",
            body: self.put(0).body,
            ..self.read(server)
        }
    }
}

/// Makes the project and its environment; answers its key as an application.
pub async fn project(api: &Api) -> Result<String> {
    let application = CreateApplication {
        name: PROJECT.to_owned(),
        description: None,
        slug: None,
        labels: [].into(),
    };
    let made = api.management().create_application(&application).await?;
    let environment = CreateEnvironment {
        name: ENVIRONMENT.to_owned(),
        slug: None,
        labels: [].into(),
    };
    api.management().create_environment(PROJECT, &environment).await?;
    Ok(made.plain_api_key.expose().to_owned())
}

/// Makes an account with one rule, for every secret of the project; answers its key.
pub async fn account(api: &Api, name: String, permission: Permission) -> Result<String> {
    let org = api.org(ORGANIZATION);
    let body = CreateServiceAccount {
        name,
        project: None,
        expires_at: None,
        labels: [].into(),
    };
    let made = org.create_service_account(&body).await?;
    let rule = CreateAclRule {
        subject_type: SubjectType::ServiceAccount,
        subject_id: Some(made.id),
        email: None,
        project_pattern: PROJECT.parse()?,
        env_pattern: ENVIRONMENT.parse()?,
        key_pattern: "*".parse()?,
        configurations: false,
        permission,
    };
    org.grant(&rule).await?;
    Ok(made.api_key.expose().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_hundred_bytes() {
        assert!([0, 7, SECRETS - 1].iter().all(|n| value(*n).len() == VALUE_BYTES));
        assert!(value(12).starts_with("value-12-x"));
        assert_eq!(key(42), "key-00042");
    }
}
