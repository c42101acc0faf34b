//! An api-server with a little of everything in it, and the credentials of every kind of caller.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::process::Failure;
use crate::workspace::Workspace;

const START_WITHIN: Duration = Duration::from_secs(30);
/// The owner of the organization `acme`.
const OWNER: &str = "ada@example.com";
const MANAGEMENT: &str = "/api/management/applications";

/// As whom calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Admin,
    /// The owner of an organization, who signed in.
    Session,
    /// A service account with a rule.
    Account,
    Application,
    Nobody,
}

impl Caller {
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Session => "session",
            Self::Account => "account",
            Self::Application => "application",
            Self::Nobody => "nobody",
        }
    }

    /// The security scheme of its credential in the description.
    pub fn scheme(self) -> Option<&'static str> {
        match self {
            Self::Admin => Some("admin_key"),
            Self::Session => Some("session"),
            Self::Account => Some("service_account_key"),
            Self::Application => Some("application_key"),
            Self::Nobody => None,
        }
    }
}

/// Killed when dropped.
pub struct Server {
    pub url: String,
    pub metrics_url: String,
    pub admin: String,
    child: Child,
    log: PathBuf,
    runtime: Runtime,
    client: reqwest::Client,
}

impl Server {
    /// Starts the debug build on a new database in `folder`.
    pub fn start(workspace: &Workspace, folder: &Path) -> Result<Self> {
        // What an earlier run left.
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = folder.join("server.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let (master, admin) = (random_key()?, random_key()?);
        let mut command = Command::new(workspace.target.join("debug/sealpod-api-server"));
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
            "--docs",
            "on",
        ]);
        command.env_clear().envs([
            (
                "SEALPOD_DATABASE_URL",
                format!("sqlite:{}", folder.join("sealpod.db").display()),
            ),
            ("SEALPOD_MASTER_KEY", master),
            (
                "SEALPOD_BACKUP_URL",
                format!("file://{}", folder.join("backups").display()),
            ),
            ("SEALPOD_ADMIN_API_KEY", admin.clone()),
            ("SEALPOD_SMTP_URL", "log".to_owned()),
            // One program makes more calls here than any other is meant to.
            ("SEALPOD_RATE_PER_KEY", "0".to_owned()),
            // Every call says that it comes from another address: see xtask/schemathesis/hooks.py.
            ("SEALPOD_TRUSTED_PROXIES", "127.0.0.1".to_owned()),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().context("cannot start the api-server's debug build")?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut server = Self {
            url: String::new(),
            metrics_url: String::new(),
            admin,
            child,
            log,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            client: reqwest::Client::builder().no_proxy().build()?,
        };
        server.url = format!("http://{}", server.wait_for("serving address=", START_WITHIN)?);
        server.metrics_url = format!("http://{}/metrics", server.wait_for("metrics address=", START_WITHIN)?);
        Ok(server)
    }

    /// The word behind `text` in the server's log.
    fn wait_for(&mut self, text: &str, within: Duration) -> Result<String> {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            // A line without its end may be one that is still being written.
            let line = log.split_once(text).and_then(|(_, rest)| rest.split_once('\n'));
            if let Some(word) = line.and_then(|(line, _)| line.split_whitespace().next()) {
                return Ok(word.trim_matches('"').to_owned());
            }
            if self.child.try_wait()?.is_some() || began.elapsed() > within {
                return Err(Failure::new(format!("the api-server does not say `{text}`"))
                    .log(&self.log)
                    .into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Calls with the admin key; null for an empty answer.
    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        self.runtime.block_on(async {
            let request = self.client.request(method, format!("{}{path}", self.url));
            let response = request.bearer_auth(&self.admin).json(body).send().await?;
            let status = response.status();
            let text = response.text().await?;
            if !status.is_success() {
                return Err(Failure::new(format!("{path}: {status}: {text}")).log(&self.log).into());
            }
            Ok(serde_json::from_str(&text).unwrap_or_default())
        })
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, body)
    }

    /// The metrics as text.
    pub fn metrics(&self) -> Result<String> {
        Ok(self
            .runtime
            .block_on(async { self.client.get(&self.metrics_url).send().await?.text().await })?)
    }

    /// Makes what the examples of the description name, and returns the caller's credential.
    pub fn populate(&mut self, caller: Caller) -> Result<Option<String>> {
        let application = self.post(MANAGEMENT, &json!({"name": "Payments API", "slug": "payments-api"}))?;
        let shop = format!("{MANAGEMENT}/payments-api");
        self.post(
            &format!("{shop}/environments"),
            &json!({"name": "Production", "slug": "prod"}),
        )?;
        self.post(&format!("{shop}/secrets"), &json!({"name": "db-password"}))?;
        let value = json!({"environmentSlug": "prod", "value": "EXAMPLE"});
        let values = json!([value, value, value, value]);
        self.post(&format!("{shop}/secrets/db-password/values"), &values)?;
        let configuration = json!({"environmentSlug": "prod", "key": "Logging:Level", "value": "Information"});
        self.post(&format!("{shop}/configurations"), &configuration)?;

        self.post("/api/orgs", &json!({"name": "acme"}))?;
        self.post("/api/orgs/acme/projects", &json!({"name": "payments-api"}))?;
        let secret = "/api/orgs/acme/projects/payments-api/envs/prod/secrets/db-password";
        for _ in 0..4 {
            self.call(Method::PUT, secret, &json!({"value": "EXAMPLE"}))?;
        }
        self.post("/api/orgs/acme/members", &json!({"email": OWNER, "role": "owner"}))?;
        let account = self.post("/api/orgs/acme/service-accounts", &json!({"name": "ci-deploy"}))?;
        let rule = json!({
            "subject_type": "service_account", "subject_id": account["id"], "project_pattern": "*",
            "env_pattern": "*", "configurations": true, "permission": "write",
        });
        self.post("/api/orgs/acme/acl", &rule)?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(match caller {
            Caller::Admin => Some(self.admin.clone()),
            Caller::Session => Some(self.sign_in()?),
            Caller::Account => text(&account["api_key"]),
            Caller::Application => text(&application["plainApiKey"]),
            Caller::Nobody => None,
        })
    }

    /// By the code that the log shows.
    fn sign_in(&mut self) -> Result<String> {
        self.post("/api/auth/login", &json!({"email": OWNER}))?;
        let code = self.wait_for(&format!("login code to={OWNER} code="), START_WITHIN)?;
        let session = self.post("/api/auth/verify", &json!({"email": OWNER, "code": code}))?;
        session["token"]
            .as_str()
            .map(str::to_owned)
            .context("a session has a token")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn random_key() -> Result<String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(HEXLOWER.encode(&key))
}
