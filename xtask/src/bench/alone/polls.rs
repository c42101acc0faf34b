//! Thousands that wait for a change, as the sidecars of a large cluster do.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};

use super::super::Bench;
use super::super::bars::{Depends, Limit};
use super::super::child;
use super::super::client::{Client, Target, Times, Waiting};
use super::super::figures::{median, mib, milliseconds, shown};
use super::super::server::{Launch, Server};
use super::super::stage::Stage;
use super::{BUNDLE_KEYS, Rows};
use crate::process::Failure;

/// Pods of a large cluster.
const MANY: usize = 9_000;
/// The largest audience that a change wakes at once.
const AUDIENCE: usize = 1_000;
const CHANGES: usize = 5;
/// Descriptors beside those of the connections.
const OTHER_FILES: u64 = 600;
const SETTLE: Duration = Duration::from_secs(2);
/// For so long nothing changes, and the time that the server works all the same is taken.
const QUIET: Duration = Duration::from_secs(5);
const ALL_WITHIN: Duration = Duration::from_secs(20);

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Http,
    /// HTTP/1.1 over TLS.
    Tls,
    /// What the sidecar and a server that has a certificate agree on.
    Http2,
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Http2 => "TLS, HTTP/2",
        }
    }

    /// Most memory that is resident while all wait, in MiB.
    fn memory(self) -> f64 {
        match self {
            Self::Http => 220.0,
            Self::Tls | Self::Http2 => 320.0,
        }
    }
}

/// Files of a certificate for this machine and of its key.
type Certificate = (PathBuf, PathBuf);

fn certificate(directory: &Path) -> Result<Certificate> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let paths = (directory.join("tls.crt"), directory.join("tls.key"));
    fs::write(&paths.0, made.cert.pem())?;
    fs::write(&paths.1, made.signing_key.serialize_pem())?;
    Ok(paths)
}

/// A server and those that wait on it.
struct Crowd {
    waiting: Waiting,
    count: usize,
    server: Server,
}

impl Crowd {
    fn gather(stage: &Stage, client: &Client, over: Over, count: usize) -> Result<Self> {
        require_files(count as u64 + OTHER_FILES)?;
        let directory = stage.launch.database.parent().context("a database is in a directory")?;
        let tls = (over != Over::Http).then(|| certificate(directory)).transpose()?;
        let ca = tls.as_ref().map(|(certificate, _)| certificate.clone());
        let launch = Launch {
            tls,
            ..stage.launch.clone()
        };
        let server = launch.start()?;
        let bundle = Stage::bundle(BUNDLE_KEYS);
        let target = Target {
            address: server.address,
            ca,
            http2: over == Over::Http2,
        };
        let waiting = client.wait(&target, (&stage.waiting, count), &bundle, &stage.put(0))?;
        Ok(Self { waiting, count, server })
    }

    /// The server has seen every poll, which the client that sent it cannot know.
    fn all_wait(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let open = self.server.open_polls()?;
            if open == self.count {
                return Ok(());
            }
            if began.elapsed() > ALL_WITHIN {
                return Err(Failure::new(format!("only {open} of {} polls wait", self.count)).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn change(&mut self) -> Result<Times> {
        self.all_wait()?;
        self.waiting.change()
    }
}

/// How soon an audience of the size that is promised for has what changed.
pub fn wake(bench: &mut Bench, rows: &mut Rows) -> Result<()> {
    let (stage, client) = (bench.stage.as_ref().context("it was prepared")?, bench.client.clone());
    let times = bench.progress.step(&format!("Waking {AUDIENCE}"), |_| {
        let mut crowd = Crowd::gather(stage, &client, Over::Http, AUDIENCE)?;
        (0..CHANGES).map(|_| crowd.change()).collect::<Result<Vec<_>>>()
    })?;
    let of = |figure: fn(&Times) -> Duration| milliseconds(median(times.iter().map(figure)).unwrap_or_default());
    let (p50, p99) = (of(|times| times.p50), of(|times| times.p99));
    let most = milliseconds(times.iter().map(|times| times.max).max().unwrap_or_default());
    rows.add(
        &format!("change → new bundle, {AUDIENCE} waiting, {CHANGES} changes"),
        &format!(
            "p50 {} ms, p99 {} ms (medians), at the most {} ms",
            shown(p50),
            shown(p99),
            shown(most)
        ),
    );
    let what = "change → new bundle, 1,000 waiting, p99";
    bench.bars.hold(what, Limit::AtMost(100.0), "ms", Depends::OnDisk, p99);
    Ok(())
}

/// What it costs that so many wait, and how soon all of them have what changed.
pub fn wait(bench: &mut Bench, over: Over, rows: &mut Rows) -> Result<()> {
    let (stage, client) = (bench.stage.as_ref().context("it was prepared")?, bench.client.clone());
    let (memory, worked, times) = bench
        .progress
        .step(&format!("{MANY} polls over {}", over.name()), |step| {
            let mut crowd = Crowd::gather(stage, &client, over, MANY)?;
            crowd.all_wait()?;
            step.follow("all wait");
            thread::sleep(SETTLE);
            let pid = crowd.server.process.pid();
            let before = child::cpu(pid)?;
            thread::sleep(QUIET);
            let worked = child::cpu(pid)?.saturating_sub(before);
            let memory = child::memory(pid)?;
            Ok((memory, worked, crowd.change()?))
        })?;
    let what = format!("{MANY} polls waiting over {}", over.name());
    let [now, peak, proportional] = [memory.resident, memory.peak, memory.proportional].map(|kib| shown(mib(kib)));
    rows.add(
        &format!("{what}: resident memory"),
        &format!("{now} MiB (proportional {proportional} MiB), at the most {peak} MiB"),
    );
    rows.add(
        &format!("{what}: CPU while nothing changes"),
        &format!("{:.1} ms in a second", milliseconds(worked) / QUIET.as_secs_f64()),
    );
    rows.add(
        &format!("{what}: all have a change"),
        &format!(
            "{:.0} answers/s; p50 {} ms, p99 {} ms",
            times.rate(),
            shown(milliseconds(times.p50)),
            shown(milliseconds(times.p99))
        ),
    );
    let memory = mib(memory.resident);
    bench.bars.hold(
        &format!("{what}, memory"),
        Limit::AtMost(over.memory()),
        "MiB",
        Depends::OnNothing,
        memory,
    );
    let what = format!("{what}, woken");
    bench.bars.hold(
        &what,
        Limit::AtLeast(5_000.0),
        "answers/s",
        Depends::OnDisk,
        times.rate(),
    );
    Ok(())
}

/// The server and the client raise their limits of open files by themselves as far as they may.
fn require_files(least: u64) -> Result<()> {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most >= least {
        return Ok(());
    }
    Err(Failure::new(format!(
        "a process may have {most} open files here, and the polls take {least}"
    ))
    .advice(format!("allow more, as root: ulimit -Hn {least}"))
    .into())
}
