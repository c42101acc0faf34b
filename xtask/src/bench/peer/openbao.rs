//! OpenBao, set up as somebody would who asks of it what we promise: on a disk, with a file of audit entries.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::child::{self, Running};
use super::super::client::{Client, Request};
use super::super::stage::{SECRETS, key, value};
use super::super::{http, wrk::Plan};
use crate::process::{self, Failure};
use crate::progress::{Progress, Step};
use crate::python;
use crate::workspace::Workspace;

const START_WITHIN: Duration = Duration::from_mins(1);
/// Changes on their way at a time, while the secrets are loaded.
const AT_ONCE: usize = 32;

/// The program.
pub fn install(workspace: &Workspace, progress: &mut Progress) -> Result<PathBuf> {
    let requirements = workspace.root.join("xtask/openbao/requirements.txt");
    let folder = workspace.target.join("openbao");
    python::install("OpenBao", "bao", &requirements, &folder, progress)
}

/// `OpenBao v2.7.2`
pub fn version(program: &Path) -> Result<String> {
    let text = process::capture(Command::new(program).arg("version"))?;
    Ok(text.split(" (").next().unwrap_or_default().trim().to_owned())
}

/// Its data on disk, and who may read it.
#[derive(Debug)]
pub struct OpenBao {
    program: PathBuf,
    directory: PathBuf,
    unseal_key: String,
    /// Of a service token with one policy.
    pub token: String,
}

/// Killed when dropped.
#[derive(Debug)]
pub struct Bao {
    pub address: SocketAddr,
    pub process: Running,
}

impl OpenBao {
    /// With new data in `directory`, of which it is stopped again.
    pub fn prepare(
        program: PathBuf,
        client: &Client,
        directory: PathBuf,
        runtime: &Runtime,
        step: &Step,
    ) -> Result<Self> {
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("raft")).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut openbao = Self {
            program,
            directory,
            unseal_key: String::new(),
            token: String::new(),
        };
        let bao = openbao.launch()?;
        runtime.block_on(openbao.admit(bao.address))?;
        step.follow(&format!("{SECRETS} secrets"));
        let requests: Vec<_> = (0..SECRETS).map(|n| openbao.put(n)).collect();
        client.ask(bao.address, AT_ONCE, 0, &requests)?;
        bao.process.stop()?;
        Ok(openbao)
    }

    pub fn start(&self, runtime: &Runtime) -> Result<Bao> {
        let bao = self.launch()?;
        runtime.block_on(async {
            let call = Call::new(bao.address, "");
            call.until_taken(Method::PUT, "sys/unseal", &json!({ "key": self.unseal_key }))
                .await?;
            self.until_active(&call).await
        })?;
        Ok(bao)
    }

    /// Sets the value of one more secret.
    pub async fn set(&self, bao: &Bao, name: &str, value: &str) -> Result<()> {
        let body = json!({ "data": { "value": value } });
        let call = Call::new(bao.address, &self.token);
        call.call(Method::POST, &format!("kv/data/{name}"), &body)
            .await
            .map(drop)
    }

    fn launch(&self) -> Result<Bao> {
        let ((_held, address), (_also, cluster)) = (http::free_address()?, http::free_address()?);
        let configuration = self.directory.join("bao.hcl");
        fs::write(&configuration, self.configuration(address, cluster))?;
        let log = self.log();
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = child::command(&self.program);
        command
            .arg("server")
            .arg(format!("-config={}", configuration.display()));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Bao {
            address,
            process: Running::start(&mut command)?,
        })
    }

    fn log(&self) -> PathBuf {
        self.directory.join("bao.log")
    }

    fn configuration(&self, address: SocketAddr, cluster: SocketAddr) -> String {
        let directory = self.directory.display();
        format!(
            r#"storage "raft" {{
  path = "{directory}/raft"
  node_id = "bench"
}}
listener "tcp" {{
  address = "{address}"
  tls_disable = true
}}
audit "file" "bench" {{
  description = "as ours"
  options = {{ file_path = "{directory}/audit.log" }}
}}
api_addr = "http://{address}"
cluster_addr = "https://{cluster}"
disable_mlock = true
log_level = "error"
"#
        )
    }

    async fn admit(&mut self, address: SocketAddr) -> Result<()> {
        let nobody = Call::new(address, "");
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = nobody.until_taken(Method::PUT, "sys/init", &shares).await?;
        self.unseal_key = text(&made["keys_base64"][0])?;
        let root = Call::new(address, &text(&made["root_token"])?);
        root.call(Method::PUT, "sys/unseal", &json!({ "key": self.unseal_key }))
            .await?;
        self.until_active(&root).await?;
        let engine = json!({ "type": "kv", "options": { "version": "2" } });
        root.call(Method::POST, "sys/mounts/kv", &engine).await?;
        let policy = r#"path "kv/*" { capabilities = ["create", "read", "update", "delete", "list"] }"#;
        root.call(Method::PUT, "sys/policies/acl/bench", &json!({ "policy": policy }))
            .await?;
        let token = json!({ "policies": ["bench"], "type": "service" });
        let token = root.call(Method::POST, "auth/token/create", &token).await?;
        self.token = text(&token["auth"]["client_token"])?;
        // A new engine is not there at once.
        let first = json!({ "data": { "value": "first" } });
        Call::new(address, &self.token)
            .until_taken(Method::POST, "kv/data/first", &first)
            .await?;
        Ok(())
    }

    /// It answers for others than itself a while after it was unsealed.
    async fn until_active(&self, call: &Call) -> Result<()> {
        let active = call.until_taken(Method::GET, "sys/health", &Value::Null).await;
        active.map(drop).map_err(|error| {
            let failure = Failure::new(format!("OpenBao does not become active: {error:#}"));
            failure.log(&self.log()).into()
        })
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![("X-Vault-Token", self.token.clone())]
    }

    fn put(&self, n: usize) -> Request {
        Request {
            method: "POST",
            path: format!("/v1/kv/data/{}", key(n)),
            headers: self.headers(),
            body: Some(format!("{{\"data\":{{\"value\":\"{}\"}}}}", value(n))),
        }
    }

    pub fn read(&self, bao: &Bao) -> Plan {
        Plan {
            name: "read from OpenBao",
            address: bao.address,
            method: "GET",
            path: "/v1/kv/data/key-{n}".to_owned(),
            keys: SECRETS,
            headers: self.headers(),
            body: None,
            expect: 200,
        }
    }

    pub fn write(&self, bao: &Bao) -> Plan {
        Plan {
            name: "write to OpenBao",
            method: "POST",
            body: self.put(0).body,
            ..self.read(bao)
        }
    }
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .context("OpenBao does not answer as it should")
}

/// Calls of its API.
struct Call {
    client: reqwest::Client,
    url: String,
    token: String,
}

impl Call {
    fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client needs nothing of the system"),
            url: format!("http://{address}/v1"),
            token: token.to_owned(),
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let request = self.client.request(method, format!("{}/{path}", self.url));
        let response = request.header("X-Vault-Token", &self.token).json(body).send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            return Err(Failure::new(format!("OpenBao's {path} is {status}: {text}")).into());
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn until_taken(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let began = Instant::now();
        loop {
            match self.call(method.clone(), path, body).await {
                Err(_) if began.elapsed() < START_WITHIN => tokio::time::sleep(Duration::from_millis(100)).await,
                answered => return answered,
            }
        }
    }
}
