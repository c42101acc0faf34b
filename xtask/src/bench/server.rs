//! The server under measurement.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::seed::Seed;
use crate::process::Failure;

const START_WITHIN: Duration = Duration::from_secs(30);

/// Killed when dropped: nothing of it is kept but the database, which survives that.
#[derive(Debug)]
pub struct Server {
    pub url: String,
    pub admin_key: String,
    child: Child,
}

impl Server {
    pub fn start(program: &std::path::Path, seed: &Seed) -> Result<Self> {
        let log = seed.database.with_file_name("server.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut admin_key = [0; 24];
        getrandom::fill(&mut admin_key)?;
        let admin_key = data_encoding::HEXLOWER.encode(&admin_key);
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.env_clear().envs([
            ("SEALPOD_DATABASE_URL", format!("sqlite:{}", seed.database.display())),
            ("SEALPOD_MASTER_KEY_FILE", seed.master_key.display().to_string()),
            ("SEALPOD_ADMIN_API_KEY", admin_key.clone()),
            // The bench is one caller that asks as fast as it can, which nobody else may.
            ("SEALPOD_RATE_PER_KEY", "0".to_owned()),
            ("SEALPOD_SMTP_URL", "log".to_owned()),
            // So that logins can come from many networks.
            ("SEALPOD_TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Self {
            url: String::new(),
            admin_key,
            child,
        };
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((_, rest)) = text.split_once("serving address=") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                server.url = format!("http://{address}");
                return Ok(server);
            }
            let ended = server.child.try_wait()?.is_some();
            if ended || began.elapsed() > START_WITHIN {
                return Err(Failure::new("the server does not serve").log(&log).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
