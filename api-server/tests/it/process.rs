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
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let mut address = |words: &str| loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some((_, rest)) = line.split_once(words) {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        let probes = address("serving probes and metrics address=");
        let address = address(" serving address=");
        // What else it logs must not fill the pipe.
        let log = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes).unwrap();
            text(&bytes)
        });
        Self {
            child,
            address,
            probes,
            log: Some(log),
        }
    }

    /// Ends it with SIGTERM and returns what it has logged.
    pub fn stop_for_log(mut self) -> String {
        let log = self.log.take().unwrap();
        self.stop();
        log.join().unwrap()
    }

    /// Ends it with SIGTERM and returns its exit code and how long that took.
    pub fn stop(mut self) -> (Option<i32>, Duration) {
        let since = Instant::now();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
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
