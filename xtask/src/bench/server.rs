//! The server under measurement.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::child::{self, Running};
use super::http;
use crate::process::Failure;

const START_WITHIN: Duration = Duration::from_secs(30);
/// What the server says behind a purge, and how long it may take for that.
const SHRUNK: &str = "purged the trash";
const SHRUNK_WITHIN: Duration = Duration::from_mins(5);

/// How it is started.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub database: PathBuf,
    pub master_key: PathBuf,
    pub admin_key: String,
    /// Files of the certificate and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Folder of the backups; without it there are none.
    pub backups: Option<PathBuf>,
    /// What else it is told.
    pub settings: Vec<(&'static str, String)>,
}

/// Killed when dropped: nothing of it is kept but the database, which survives that.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    /// From the start of the process until it said that it can do its work.
    pub ready_after: Duration,
    pub process: Running,
    /// Where it says what it does.
    log: PathBuf,
}

impl Launch {
    /// For a new database beside `master_key`, or one that is there.
    pub fn new(program: &Path, directory: &Path) -> Result<Self> {
        let mut admin_key = [0; 24];
        getrandom::fill(&mut admin_key)?;
        Ok(Self {
            program: program.to_owned(),
            database: directory.join("sealpod.db"),
            master_key: directory.join("master.key"),
            admin_key: data_encoding::HEXLOWER.encode(&admin_key),
            tls: None,
            backups: None,
            settings: Vec::new(),
        })
    }

    pub fn start(&self) -> Result<Server> {
        let log = self.database.with_file_name("server.log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let ((_held, address), (_also, metrics)) = (http::free_address()?, http::free_address()?);
        let mut command = child::command(&self.program);
        command.arg("serve").env_clear().envs([
            ("SEALPOD_LISTEN", address.to_string()),
            ("SEALPOD_METRICS_LISTEN", metrics.to_string()),
            ("SEALPOD_DATABASE_URL", format!("sqlite:{}", self.database.display())),
            ("SEALPOD_MASTER_KEY_FILE", self.master_key.display().to_string()),
            ("SEALPOD_ADMIN_API_KEY", self.admin_key.clone()),
            // The bench is one caller that asks as fast as it can, which nobody else may.
            ("SEALPOD_RATE_PER_KEY", "0".to_owned()),
            ("SEALPOD_SMTP_URL", "log".to_owned()),
            // So that logins can come from many networks.
            ("SEALPOD_TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
        ]);
        if let Some((certificate, key)) = &self.tls {
            command.env("SEALPOD_TLS_CERT", certificate).env("SEALPOD_TLS_KEY", key);
        }
        if let Some(folder) = &self.backups {
            command.env("SEALPOD_BACKUP_URL", format!("file://{}", folder.display()));
        }
        command.envs(self.settings.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let began = Instant::now();
        let mut process = Running::start(&mut command)?;
        while !matches!(http::get(metrics, "/readyz"), Ok((200, _))) {
            if process.has_ended() || began.elapsed() > START_WITHIN {
                return Err(Failure::new("the server does not become ready").log(&log).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Server {
            address,
            metrics,
            ready_after: began.elapsed(),
            process,
            log,
        })
    }
}

impl Server {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Long polls that wait.
    pub fn open_polls(&self) -> Result<usize> {
        let (_, metrics) = http::get(self.metrics, "/metrics")?;
        open_polls(&metrics).context("the metrics do not say how many polls wait")
    }

    /// What the writer did since it was started.
    pub fn slices(&self) -> Result<Slices> {
        let (_, metrics) = http::get(self.metrics, "/metrics")?;
        let read = |name| Counted::read(&metrics, name).with_context(|| format!("the metrics lack {name}"));
        Ok(Slices {
            transactions: read("sealpod_store_transaction_duration_seconds")?,
            log: read("sealpod_store_log_duration_seconds")?,
        })
    }

    /// Waits until the server has given back what a purge left empty; `said`: how much it had said before.
    pub fn until_shrunk(&self, said: usize) -> Result<()> {
        let began = Instant::now();
        // It says so once per purge, behind the last page.
        while !self.says()?.get(said..).is_some_and(|new| new.contains(SHRUNK)) {
            if began.elapsed() > SHRUNK_WITHIN {
                return Err(Failure::new("the server does not say that it is done with the purge")
                    .log(&self.log)
                    .into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its log so far.
    pub fn says(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }
}

/// What others wait for, by histograms of the metrics.
#[derive(Debug)]
pub struct Slices {
    /// Transactions, without their commit.
    pub transactions: Counted,
    /// Copies of the log by the writer itself, with the flush of the database, and waits for those of somebody else.
    pub log: Counted,
}

/// How many took at most so many seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted(Vec<(f64, u64)>);

impl Counted {
    fn read(metrics: &str, name: &str) -> Option<Self> {
        let lines = metrics.lines();
        let buckets = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix("_bucket{le=\""));
        let read = |bucket: &str| -> Option<_> {
            let (bound, count) = bucket.split_once("\"} ")?;
            Some((bound.parse().ok()?, count.parse().ok()?))
        };
        let buckets = buckets.map(read).collect::<Option<Vec<_>>>()?;
        (!buckets.is_empty()).then_some(Self(buckets))
    }

    /// In milliseconds: the least bound that is above all of those since then. No bound where there was none at all: that
    /// proves nothing, and no bar holds.
    pub fn longest_since(&self, before: &Self) -> f64 {
        let since: Vec<_> = self
            .0
            .iter()
            .zip(&before.0)
            .map(|((bound, now), (_, then))| (*bound, now - then))
            .collect();
        let all = since.last().map_or(0, |(_, count)| *count);
        if all == 0 {
            return f64::INFINITY;
        }
        let bound = since.into_iter().find(|(_, count)| *count == all);
        1_000.0 * bound.map_or(f64::INFINITY, |(bound, _)| bound)
    }
}

fn open_polls(metrics: &str) -> Option<usize> {
    let mut lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.find_map(|line| {
        let (name, count) = line.split_once(' ')?;
        name.ends_with("open_polls").then(|| count.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polls_that_wait_are_read_from_the_metrics() {
        let metrics = "# TYPE sealpod_open_polls gauge\nsealpod_polls 7\nsealpod_open_polls 9000\n# EOF\n";
        assert_eq!(open_polls(metrics), Some(9_000));
        assert_eq!(open_polls("# EOF\n"), None);
    }

    #[test]
    fn the_longest_transaction_of_a_time_is_below_the_bound_that_holds_all_of_it() {
        let metrics = |counts: [u32; 3]| {
            let line = |(bound, count)| {
                format!("sealpod_of_another_bucket{{le=\"{bound}\"}} 7\nsealpod_of_bucket{{le=\"{bound}\"}} {count}\n")
            };
            let lines = ["0.005", "0.05", "+Inf"].into_iter().zip(counts).map(line);
            Counted::read(&lines.collect::<String>(), "sealpod_of").unwrap()
        };
        let before = metrics([10, 11, 12]);
        assert!((metrics([20, 21, 22]).longest_since(&before) - 5.0).abs() < 1e-9);
        assert!((metrics([20, 22, 23]).longest_since(&before) - 50.0).abs() < 1e-9);
        assert!(metrics([20, 21, 23]).longest_since(&before).is_infinite());
        assert_eq!(Counted::read("# EOF\n", "sealpod_of"), None);
        // Where nothing was counted, nothing is said.
        assert!(before.longest_since(&before).is_infinite());
    }
}
