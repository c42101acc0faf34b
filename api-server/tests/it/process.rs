//! The program as a process: started, stopped, killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::ADMIN;

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-api-server"));
    command.args(arguments).env_clear();
    command
}

pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How long a server may take to find something out by itself, on a machine that many tests share.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How a server ended.
#[derive(Debug)]
pub struct Ended {
    /// None: by a signal.
    pub code: Option<i32>,
    pub log: String,
}

/// A started server; killed when dropped.
pub struct Process {
    pub child: Child,
    /// Where it listens.
    pub address: String,
    /// Where its probes and metrics are.
    pub probes: String,
    /// What it logs behind the line that says so.
    pub log: Option<std::thread::JoinHandle<String>>,
}

impl Process {
    /// Starts it and waits until its log says where it listens.
    pub fn start(command: &mut Command) -> Self {
        Self::try_start(command).unwrap_or_else(|ended| panic!("it ended before it listened: {ended:?}"))
    }

    /// As [`Process::start`], of a server that may not come to listen.
    pub fn try_start(command: &mut Command) -> Result<Self, Ended> {
        // For the client that is to call it, whichever test is the first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let mut address = |words: &str| loop {
            let at = said.len();
            if log.read_line(&mut said).unwrap() == 0 {
                break None;
            }
            if let Some((_, rest)) = said[at..].split_once(words) {
                break Some(rest.split_whitespace().next().unwrap().to_owned());
            }
        };
        let probes = address("serving probes and metrics address=");
        let (Some(probes), Some(address)) = (probes, address(" serving address=")) else {
            let status = child.wait().unwrap();
            return Err(Ended {
                code: status.code(),
                log: said,
            });
        };
        // What else it logs must not fill the pipe.
        let log = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes).unwrap();
            text(&bytes)
        });
        Ok(Self {
            child,
            address,
            probes,
            log: Some(log),
        })
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let log = self.log.take().unwrap().join().unwrap();
        Ended { code, log }
    }

    /// What its readiness probe answers.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}/readyz", self.probes)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Asks its readiness probe until the answer is this.
    pub async fn wait_for(&self, is: impl Fn(u16, &str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let (status, text) = self.readiness().await;
            if is(status, &text) {
                return text;
            }
            assert!(since.elapsed() < PATIENCE, "{status}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it with SIGTERM and returns what it has logged.
    pub fn stop_for_log(mut self) -> String {
        let log = self.log.take().unwrap();
        self.stop();
        log.join().unwrap()
    }

    /// Asks it to end, by SIGTERM.
    pub fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Ends it with SIGTERM and returns its exit code and how long that took.
    pub fn stop(mut self) -> (Option<i32>, Duration) {
        let since = Instant::now();
        self.signal();
        (self.child.wait().unwrap().code(), since.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server for trying out, which makes its own keys.
pub fn dev(directory: &Path) -> Command {
    let mut dev = command(&[
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    dev.arg(directory);
    dev
}

/// A server as it runs in earnest, with its database and keys in this directory.
pub fn serve(directory: &Path) -> Command {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (master, admin) = (path("master.key"), path("admin.key"));
    if !directory.join("master.key").exists() {
        std::fs::write(&master, text(&run(&["key", "generate"]).stdout)).unwrap();
        std::fs::write(&admin, ADMIN).unwrap();
    }
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    serve
        .env("SEALPOD_DATABASE_URL", format!("sqlite:{}", path("sealpod.db")))
        .env("SEALPOD_MASTER_KEY_FILE", master)
        .env("SEALPOD_ADMIN_API_KEY_FILE", admin);
    serve
}

/// Its exit code and text, for the database and keys that [`serve`] keeps in this directory.
pub fn maintain(directory: &Path, arguments: &[&str]) -> Output {
    let url = format!("sqlite:{}", directory.join("sealpod.db").display());
    let master = directory.join("master.key").to_str().unwrap().to_owned();
    run(&[arguments, &["--database-url", &url, "--master-key-file", &master]].concat())
}
