//! A server with 20 secrets, and sidecars as in pods of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use sealpod_client::{Client as Api, Credential};
use sealpod_core::injection::{
    API_KEY_FILE, BINDING_FILE, MountedBinding, PodIdentity, SETTINGS_VARIABLE, SidecarSettings,
};
use sealpod_core::wire::management::{CreateApplication, CreateEnvironment};
use sealpod_core::wire::org::{CreateAclRule, CreateServiceAccount, Permission, PutSecret, SubjectType};
use sealpod_core::{Encoding, SecretText};
use serde_json::json;
use tokio::runtime::Runtime;

use super::super::child::{self, Running as Process};
use super::super::server::{Launch, Server};
use super::value;
use crate::process;

const SECRETS: usize = 20;
const ORGANIZATION: &str = "default";
const PROJECT: &str = "shop";
const ENVIRONMENT: &str = "prod";
const SIZE_LIMIT: u64 = 16 << 20;

/// A program that keeps a file, and the file.
#[derive(Debug)]
pub struct Running {
    pub process: Process,
    pub file: PathBuf,
    /// Removed with it.
    _directory: tempfile::TempDir,
}

impl Running {
    pub fn new(process: Process, file: PathBuf, directory: tempfile::TempDir) -> Self {
        Self {
            process,
            file,
            _directory: directory,
        }
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
        let key = runtime.block_on(admit(&api))?;
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

    /// One more sidecar.
    pub fn start(&self, form: &str) -> Result<Running> {
        let directory = directory()?;
        let path = |name: &str| directory.path().join(name);
        for part in ["mount", "credentials"] {
            fs::create_dir(path(part))?;
        }
        let binding = json!({
            "organization": ORGANIZATION, "project": PROJECT, "environment": ENVIRONMENT,
            "mode": 0o440, "refreshInterval": 30, "watch": true,
        });
        fs::write(path("credentials").join(API_KEY_FILE), &self.key)?;
        fs::write(path("credentials").join(BINDING_FILE), binding.to_string())?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let settings = SidecarSettings {
            server_url: self.server.url(),
            pod: PodIdentity {
                namespace: "bench".to_owned(),
                name: format!("pod-{number}"),
                uid: format!("uid-{number}"),
                node: "node".to_owned(),
            },
            health_port: None,
            bindings: vec![MountedBinding {
                name: "db".to_owned(),
                mount_path: path("mount").display().to_string(),
                credentials: path("credentials").display().to_string(),
                size_limit: SIZE_LIMIT,
            }],
            exec_directory: None,
        };
        let mut command = child::command(&self.program);
        command.arg(form).env_clear();
        command.env(SETTINGS_VARIABLE, serde_json::to_string(&settings)?);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let file = path("mount").join(name(0));
        Ok(Running::new(Process::start(&mut command)?, file, directory))
    }
}

fn name(n: usize) -> String {
    format!("key-{n:02}")
}

/// Makes what is read, and an account that may; answers its key.
async fn admit(api: &Api) -> Result<String> {
    let application = CreateApplication {
        name: PROJECT.to_owned(),
        description: None,
        slug: None,
        labels: [].into(),
    };
    api.management().create_application(&application).await?;
    let environment = CreateEnvironment {
        name: ENVIRONMENT.to_owned(),
        slug: None,
        labels: [].into(),
    };
    api.management().create_environment(PROJECT, &environment).await?;
    let org = api.org(ORGANIZATION);
    let account = CreateServiceAccount {
        name: "bench".to_owned(),
        project: None,
        expires_at: None,
        labels: [].into(),
    };
    let made = org.create_service_account(&account).await?;
    let rule = CreateAclRule {
        subject_type: SubjectType::ServiceAccount,
        subject_id: Some(made.id),
        email: None,
        project_pattern: PROJECT.parse()?,
        env_pattern: ENVIRONMENT.parse()?,
        key_pattern: "*".parse()?,
        configurations: false,
        permission: Permission::Read,
    };
    org.grant(&rule).await?;
    Ok(made.api_key.expose().to_owned())
}
