//! The directories of one pod, as kubelet and operator make them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealpod_core::injection::{MountedBinding, PodIdentity, SidecarSettings};
use sealpod_runtime::telemetry::Format;
use sealpod_sidecar::agent::Until;
use sealpod_sidecar::commands;
use sealpod_sidecar::config::Config;
use sealpod_sidecar::notify;
use sealpod_sidecar::pace::Timing;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fake::{Fake, KEY};

pub const TIMING: Timing = Timing {
    credentials: Duration::from_millis(20),
    backoff: Duration::from_millis(20),
    backoff_cap: Duration::from_millis(200),
    settle: Duration::from_millis(5),
    grace: Duration::from_millis(50),
    soonest_change: Duration::from_secs(1),
    first_cap: Duration::from_millis(200),
    restart: Duration::from_mins(1),
    restart_cap: Duration::from_millis(200),
    away_cap: Duration::from_millis(200),
    hurry: Duration::from_millis(500),
    notify: notify::Timing {
        quiet: Duration::from_millis(30),
        latest: Duration::from_millis(200),
        retry: Duration::from_millis(20),
        retry_cap: Duration::from_millis(100),
        give_up: Duration::from_secs(2),
        call: Duration::from_millis(500),
    },
};

pub struct Pod {
    directory: tempfile::TempDir,
    pub config: Config,
}

/// A running `run` or `init`.
pub struct Running {
    task: JoinHandle<ExitCode>,
    shutdown: CancellationToken,
}

impl Pod {
    /// One binding, `db`, of all keys.
    pub fn new(server_url: &str) -> Self {
        Self::with(server_url, &["db"], &binding(Value::Null))
    }

    pub fn with(server_url: &str, names: &[&str], binding: &Value) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = |kind: &str, name: &str| directory.path().join(kind).join(name).to_str().unwrap().to_owned();
        let bindings: Vec<_> = names
            .iter()
            .map(|name| MountedBinding {
                name: (*name).to_owned(),
                mount_path: path("mount", name),
                credentials: path("credentials", name),
                size_limit: 1 << 20,
            })
            .collect();
        let settings = SidecarSettings {
            exec_directory: None,
            server_url: server_url.to_owned(),
            pod: PodIdentity {
                namespace: "team".to_owned(),
                name: "app-0".to_owned(),
                uid: "5d6ac5bc".to_owned(),
                node: "node".to_owned(),
            },
            health_port: None,
            bindings,
        };
        let pod = Self {
            directory,
            config: Config {
                settings,
                log: "info".to_owned(),
                log_format: Format::Text,
                versions: false,
            },
        };
        for name in names {
            fs::create_dir_all(pod.mount(name)).unwrap();
            fs::create_dir_all(pod.credentials(name)).unwrap();
            pod.write_key(name, KEY, None, binding);
        }
        pod
    }

    pub fn mount(&self, name: &str) -> PathBuf {
        self.directory.path().join("mount").join(name)
    }

    fn credentials(&self, name: &str) -> PathBuf {
        self.directory.path().join("credentials").join(name)
    }

    /// A new state of the key Secret, swapped in as the kubelet does it.
    pub fn write_key(&self, name: &str, key: &str, ca: Option<&str>, binding: &Value) {
        let directory = self.credentials(name);
        let stamp = format!("..{}", jiff::Timestamp::now().as_nanosecond());
        let generation = directory.join(&stamp);
        fs::create_dir(&generation).unwrap();
        fs::write(generation.join("api-key"), key).unwrap();
        fs::write(generation.join("binding.json"), binding.to_string()).unwrap();
        if let Some(ca) = ca {
            fs::write(generation.join("ca.crt"), ca).unwrap();
        }
        symlink(&stamp, directory.join("..tmp")).unwrap();
        fs::rename(directory.join("..tmp"), directory.join("..data")).unwrap();
        for file in ["api-key", "binding.json", "ca.crt"] {
            if fs::symlink_metadata(directory.join(file)).is_err() {
                symlink(format!("..data/{file}"), directory.join(file)).unwrap();
            }
        }
    }

    pub fn start(&self, until: Until) -> Running {
        self.start_with(until, &TIMING)
    }

    pub fn start_with(&self, until: Until, timing: &Timing) -> Running {
        let shutdown = CancellationToken::new();
        let (config, token, timing) = (self.config.clone(), shutdown.clone(), *timing);
        let port = config.settings.health_port;
        let task = tokio::spawn(async move { commands::work(&config, until, port, timing, token).await });
        Running { task, shutdown }
    }

    /// `init`, which has to end by itself.
    pub async fn init(&self) -> bool {
        self.start(Until::Complete).ended().await
    }

    /// The content of a file of `db`; none where it is not there.
    pub fn file(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.mount("db").join(path)).ok()
    }

    pub async fn shows(&self, path: &str, content: Option<&str>) {
        eventually(&format!("{path} to be {content:?}"), || {
            self.file(path).as_deref() == content
        })
        .await;
    }

    pub fn is_open(&self) -> bool {
        sealpod_sidecar::handover::is_open(&self.mount("db"))
    }
}

impl Running {
    /// Waits for the end; gives whether the exit code was 0.
    pub async fn ended(self) -> bool {
        let code = tokio::time::timeout(Duration::from_secs(20), self.task).await;
        format!("{:?}", code.expect("it ends in time").unwrap()) == format!("{:?}", ExitCode::SUCCESS)
    }

    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    pub async fn stop(self) -> bool {
        self.shutdown.cancel();
        self.ended().await
    }
}

/// A `binding.json` that selects `secrets`, or all keys.
pub fn binding(secrets: Value) -> Value {
    let mut binding = json!({
        "organization": "default", "project": "shop", "environment": "prod",
        "mode": 0o440, "refreshInterval": 30, "watch": true,
    });
    if !secrets.is_null() {
        binding["secrets"] = secrets;
    }
    binding
}

pub fn required(name: &str) -> Value {
    json!({"name": name, "optional": false})
}

/// A test that cannot be made here. Where everything is to be there, that is a failure.
pub fn passed_over(why: &str) {
    let complete = std::env::var_os("CI").is_some() && rustix::process::geteuid().is_root();
    assert!(!complete, "a test would be passed over: {why}");
    eprintln!("passed over: {why}");
}

pub async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the server has been asked `count` more questions.
pub async fn questions(fake: &Fake, count: usize) {
    let already = fake.seen().len();
    eventually(&format!("{count} questions"), || fake.seen().len() >= already + count).await;
}
