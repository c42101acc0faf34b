//! A server with 20 secrets, and sidecars as in pods of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use sealpod_client::{Client as Api, Credential};
use sealpod_core::injection::{
    API_KEY_FILE, BINDING_FILE, MountedBinding, PodIdentity, SETTINGS_VARIABLE, SidecarSettings,
};
use sealpod_core::wire::org::{Permission, PutSecret};
use sealpod_core::{Encoding, SecretText};
use serde_json::json;
use tokio::runtime::Runtime;

use super::super::cgroup::Group;
use super::super::child::{self, Running as Process};
use super::super::http;
use super::super::server::{Launch, Server};
use super::super::stage::{self, ENVIRONMENT, ORGANIZATION, PROJECT};
use super::value;
use crate::process;

const SECRETS: usize = 20;
const SIZE_LIMIT: u64 = 16 << 20;

/// A program that keeps files, and those of them that are looked at.
#[derive(Debug)]
pub struct Running {
    pub process: Process,
    pub files: Vec<PathBuf>,
    /// Where a sidecar tells its metrics.
    pub health: Option<SocketAddr>,
    /// Removed with it.
    _directory: tempfile::TempDir,
    /// None where it is not counted by itself.
    pub group: Option<Group>,
}

impl Running {
    pub fn new(process: Process, files: Vec<PathBuf>, directory: tempfile::TempDir) -> Self {
        Self {
            process,
            files,
            health: None,
            _directory: directory,
            group: None,
        }
    }

    pub fn in_group(self, group: Option<Group>) -> Self {
        Self { group, ..self }
    }

    /// Answers of the server that a sidecar has counted, by its metrics.
    pub fn polls(&self) -> Result<usize> {
        let health = self.health.context("it has a health port")?;
        let (_, metrics) = http::get(health, "/metrics")?;
        let counts = metrics.lines().filter_map(|line| {
            let count = line.strip_prefix("sealpod_sidecar_fetch_total{")?;
            count.rsplit_once(' ')?.1.parse::<usize>().ok()
        });
        Ok(counts.sum())
    }
}

/// A directory in memory, as a pod's volume is.
pub fn directory() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.context("cannot make a directory for a pod")
}

#[derive(Debug)]
pub struct Pods {
    program: PathBuf,
    server: Server,
    api: Api,
    key: String,
    made: AtomicUsize,
}

impl Pods {
    pub fn new(server: &Path, program: &Path, directory: &Path, runtime: &Runtime) -> Result<Self> {
        let launch = Launch::new(server, directory)?;
        let master = process::capture(Command::new(server).args(["key", "generate"]))?;
        fs::write(&launch.master_key, master)?;
        let server = launch.start()?;
        let api = Api::builder(server.url())
            .credential(Credential::Admin(SecretText::new(&launch.admin_key)))
            .build()?;
        let key = runtime.block_on(async {
            stage::project(&api).await?;
            stage::account(&api, "bench".to_owned(), Permission::Read).await
        })?;
        let pods = Self {
            program: program.to_owned(),
            server,
            api,
            key,
            made: AtomicUsize::new(0),
        };
        for n in 0..SECRETS {
            pods.set(runtime, n, &value(0))?;
        }
        Ok(pods)
    }

    /// The secret that is looked at gets its next value.
    pub fn change(&self, runtime: &Runtime, number: usize) -> Result<()> {
        self.set(runtime, 0, &value(number))
    }

    fn set(&self, runtime: &Runtime, n: usize, value: &str) -> Result<()> {
        let body = PutSecret {
            value: SecretText::new(value),
            description: None,
            encoding: Encoding::Utf8,
            expires_at: None,
            not_before: None,
        };
        let org = self.api.org(ORGANIZATION);
        runtime.block_on(org.put_secret(PROJECT, ENVIRONMENT, &name(n), &body))?;
        Ok(())
    }

    /// One more sidecar, with one binding.
    pub fn start(&self, form: &str) -> Result<Running> {
        self.start_by(child::command(&self.program), form, 1, None)
    }

    /// One more sidecar, with so many bindings of all secrets each, and a health port as in a pod; in `group`.
    pub fn start_apart(&self, bindings: usize, group: Option<&Group>) -> Result<Running> {
        let command = group.map_or_else(|| child::command(&self.program), |group| group.command(&self.program));
        self.start_by(command, "run", bindings, Some(http::free_address()?.1))
    }

    fn start_by(&self, mut command: Command, form: &str, count: usize, health: Option<SocketAddr>) -> Result<Running> {
        let directory = directory()?;
        let path = |name: &str| directory.path().join(name);
        let binding = json!({
            "organization": ORGANIZATION, "project": PROJECT, "environment": ENVIRONMENT,
            "mode": 0o440, "refreshInterval": 30, "watch": true,
        });
        let mut bindings = Vec::new();
        for n in 0..count {
            let [mount, credentials] = ["mount", "credentials"].map(|part| path(&format!("{part}-{n}")));
            fs::create_dir(&mount)?;
            fs::create_dir(&credentials)?;
            fs::write(credentials.join(API_KEY_FILE), &self.key)?;
            fs::write(credentials.join(BINDING_FILE), binding.to_string())?;
            bindings.push(MountedBinding {
                name: format!("db-{n}"),
                mount_path: mount.display().to_string(),
                credentials: credentials.display().to_string(),
                size_limit: SIZE_LIMIT,
            });
        }
        let files = (0..count).map(|n| path(&format!("mount-{n}")).join(name(0))).collect();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let settings = SidecarSettings {
            server_url: self.server.url(),
            pod: PodIdentity {
                namespace: "bench".to_owned(),
                name: format!("pod-{number}"),
                uid: format!("uid-{number}"),
                node: "node".to_owned(),
            },
            health_port: health.map(|address| address.port()),
            bindings,
            exec_directory: None,
        };
        command.arg(form).env_clear();
        command.env(SETTINGS_VARIABLE, serde_json::to_string(&settings)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running::new(Process::start(&mut command)?, files, directory);
        Ok(Running { health, ..running })
    }
}

fn name(n: usize) -> String {
    format!("key-{n:02}")
}
