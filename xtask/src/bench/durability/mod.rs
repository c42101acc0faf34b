//! `cargo xtask bench durability`: what backup, restore and rotation of a large database take, and what they cost whoever
//! reads and writes meanwhile.

mod seed;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use sealpod_core::wire::backups::Backup;
use tokio::runtime::Runtime;

use super::bars::{Bars, Depends, Limit};
use super::child;
use super::client::{Client, Load, Times};
use super::disk::Flushes;
use super::figures::{Rows, mib, milliseconds, shown};
use super::plane::Plane;
use super::server::{Launch, Server, Slices};
use super::{build, header, machine};
use crate::moto::{Moto, Storage};
use crate::process;
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};
use seed::Seed;

/// Those who read and write meanwhile: what a busy installation asks for, not as much as the machine can do.
const READS: (usize, u32) = (8, 500);
const WRITES: (usize, u32) = (4, 100);
/// How long they are watched before anything happens.
const BEFORE: Duration = Duration::from_secs(10);
/// Different requests, in turn.
const DIFFERENT: usize = 10_000;

#[derive(Debug, Args)]
pub struct Options {
    /// Secrets of 1 KiB, one version each
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    secrets: u32,
}

/// What is under measurement.
struct Stage<'a> {
    seed: &'a Seed,
    launch: Launch,
    server: Server,
    plane: Plane<'a>,
    client: Client,
    pause: Duration,
}

pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let load = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench").join("durability");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    let programs = build(workspace, &mut progress)?;
    let storage = Moto::install(workspace, &mut progress)?.start()?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let seed = progress.step("Filling the database", |step| {
        Seed::prepare(&programs, &directory, options.secrets, step)
    })?;
    let runtime = Runtime::new()?;
    let launch = Launch {
        backups: Some(directory.join("backups")),
        ..Launch::new(&programs.server, &directory)?
    };
    let server = launch.start()?;
    let stage = Stage {
        seed: &seed,
        plane: Plane::new(&runtime, &launch, &server)?,
        launch,
        server,
        client: Client {
            program: programs.client.clone(),
            log: directory.join("client.log"),
        },
        pause: BEFORE,
    };
    let (mut rows, mut bars) = (Rows::default(), Bars::new(&flushes));
    let what = format!("{} secrets of 1 KiB", options.secrets);
    let backup = back_up(&stage, &what, &mut progress, (&mut rows, &mut bars))?;
    restore(&stage, &what, &backup, &mut progress, (&mut rows, &mut bars))?;
    rotate(&stage, options.secrets, &mut progress, (&mut rows, &mut bars))?;
    let stage = in_bucket(stage, &storage, &runtime, &mut progress, (&mut rows, &mut bars))?;
    purge(&stage, &what, &mut progress, (&mut rows, &mut bars))?;
    stage.server.process.stop()?;
    let then = progress.step("Asking the disk again", |_| Flushes::measure(&directory))?;
    print!(
        "\n{}\nload before it began {load}; {}; behind it {}\n\n| {what} | |\n|---|---|\n{}{}",
        header(workspace, &programs.server)?,
        flushes.describe(),
        then.describe(),
        rows.0,
        bars.text()
    );
    Ok(())
}

/// Where figures go.
type Table<'t> = (&'t mut Rows, &'t mut Bars);

/// While a number of callers reads so many a second.
fn back_up(stage: &Stage<'_>, what: &str, progress: &mut Progress, (rows, bars): Table<'_>) -> Result<Backup> {
    progress.step("A backup, under reads", |step| {
        let mut reads = stage.reads()?;
        step.follow("reads alone");
        let alone = stage.undisturbed(&mut reads)?;
        step.follow("the backup");
        let (backup, took, memory) = stage.measure(|| stage.plane.back_up())?;
        let meanwhile = reads.since_last()?;
        rows.add(
            "database",
            &format!("{} MiB", shown(mib(file_kib(&stage.launch.database)?))),
        );
        rows.add(
            "backup, opened and checked",
            &format!(
                "{} s, {} MiB",
                shown(took.as_secs_f64()),
                shown(mib(backup.size_bytes >> 10))
            ),
        );
        rows.add(&format!("reads, {} a second, alone", READS.1), &percentiles(&alone));
        rows.add("reads during the backup", &percentiles(&meanwhile));
        rows.add("resident memory", &memory.describe());
        let seconds = took.as_secs_f64();
        bars.hold(
            &format!("backup of {what}"),
            Limit::AtMost(20.0),
            "s",
            Depends::OnDisk,
            seconds,
        );
        let ratio = milliseconds(meanwhile.p99) / milliseconds(alone.p99).max(f64::EPSILON);
        bars.hold(
            "reads' p99 during it",
            Limit::AtMost(2.0),
            "×",
            Depends::OnNothing,
            ratio,
        );
        bars.hold(
            "memory that it takes",
            Limit::AtMost(32.0),
            "MiB",
            Depends::OnNothing,
            memory.added(),
        );
        Ok(backup)
    })
}

fn restore(
    stage: &Stage<'_>,
    what: &str,
    backup: &Backup,
    progress: &mut Progress,
    (rows, bars): Table<'_>,
) -> Result<()> {
    progress.step("A restore", |_| {
        let (restored, took, memory) = stage.measure(|| stage.plane.restore(backup))?;
        rows.add(
            "restore, checked",
            &format!("{} s; resident memory {}", shown(took.as_secs_f64()), memory.describe()),
        );
        let seconds = took.as_secs_f64();
        bars.hold(
            &format!("restore of {what}"),
            Limit::AtMost(20.0),
            "s",
            Depends::OnDisk,
            seconds,
        );
        // The database is not kept; what it takes of the disk would be there in what follows.
        fs::remove_file(&restored.restored_path)?;
        Ok(())
    })
}

/// While a number of callers writes so many a second.
fn rotate(stage: &Stage<'_>, versions: u32, progress: &mut Progress, (rows, bars): Table<'_>) -> Result<()> {
    progress.step("A rotation, under writes", |step| {
        let mut writes = stage.writes()?;
        step.follow("writes alone");
        let alone = stage.undisturbed(&mut writes)?;
        step.follow("the rotation");
        new_master_key(&stage.launch)?;
        let before = stage.server.slices()?;
        let ((), took, memory) = stage.measure(|| stage.plane.rotate())?;
        let behind = stage.server.slices()?;
        let meanwhile = writes.since_last()?;
        let seconds = took.as_secs_f64();
        rows.add(
            "rotation, all opened under the new key",
            &format!("{} s; resident memory {}", shown(seconds), memory.describe()),
        );
        rows.add(&format!("writes, {} a second, alone", WRITES.1), &percentiles(&alone));
        rows.add("writes during the rotation", &percentiles(&meanwhile));
        let what = format!("rotation of {versions} versions");
        bars.hold(&what, Limit::AtMost(60.0), "s", Depends::OnDisk, seconds);
        let p99 = milliseconds(meanwhile.p99);
        bars.hold("write during it, p99", Limit::AtMost(50.0), "ms", Depends::OnDisk, p99);
        hold_slices("the rotation", (&before, &behind), bars);
        Ok(())
    })
}

/// What a server takes for a backup that goes to a bucket, and for a restore from there; it serves on.
fn in_bucket<'a>(
    stage: Stage<'a>,
    storage: &Storage,
    runtime: &'a Runtime,
    progress: &mut Progress,
    (rows, bars): Table<'_>,
) -> Result<Stage<'a>> {
    progress.step("A backup in a bucket, and back", |_| {
        storage.make_bucket()?;
        let Stage { mut launch, server, .. } = stage;
        server.process.stop()?;
        launch.backups = None;
        launch.settings = storage.settings("bench").to_vec();
        let server = launch.start()?;
        let stage = Stage {
            plane: Plane::new(runtime, &launch, &server)?,
            launch,
            server,
            ..stage
        };
        let mut note = |what: &str, took: Duration, memory: &Growth| {
            let seconds = shown(took.as_secs_f64());
            rows.add(what, &format!("{seconds} s; resident memory {}", memory.describe()));
            let what = format!("memory that a {what} takes");
            bars.hold(&what, Limit::AtMost(32.0), "MiB", Depends::OnNothing, memory.added());
        };
        let (backup, took, memory) = stage.measure(|| stage.plane.back_up())?;
        note("backup in a bucket", took, &memory);
        let (restored, took, memory) = stage.measure(|| stage.plane.restore(&backup))?;
        note("restore from a bucket", took, &memory);
        fs::remove_file(&restored.restored_path)?;
        Ok(stage)
    })
}

/// Everything goes for good, in slices between which others may write; so does the room that it leaves, behind the answer.
fn purge(stage: &Stage<'_>, what: &str, progress: &mut Progress, (rows, bars): Table<'_>) -> Result<()> {
    progress.step("A purge", |_| {
        let (before, said) = (stage.server.slices()?, stage.server.says()?.len());
        let (answered, took, memory) = stage.measure(|| {
            let began = Instant::now();
            stage.plane.purge(&stage.seed.project())?;
            let answered = began.elapsed();
            stage.server.until_shrunk(said)?;
            Ok(answered)
        })?;
        let behind = stage.server.slices()?;
        let [answered, all] = [answered, took].map(|time| shown(time.as_secs_f64()));
        rows.add(
            &format!("purge of {what}, and until the disk has its room back"),
            &format!("{answered} s, {all} s; resident memory {}", memory.describe()),
        );
        hold_slices("the purge", (&before, &behind), bars);
        Ok(())
    })
}

/// What others wait for in maintenance. The figures are the bounds of histograms that are above all of them. A transaction is
/// without its commit, which is the disk's; SQLite does not tell what of a copy of the log is the disk's, so that has all of it.
fn hold_slices(what: &str, (before, behind): (&Slices, &Slices), bars: &mut Bars) {
    let longest = behind.transactions.longest_since(&before.transactions);
    let transaction = format!("longest transaction of {what}, without its commit");
    bars.hold(&transaction, Limit::AtMost(50.0), "ms", Depends::OnNothing, longest);
    let longest = behind.log.longest_since(&before.log);
    let copy = format!("longest copy of the log by the writer, or wait for one, during {what}, with its flush");
    bars.hold(&copy, Limit::AtMost(50.0), "ms", Depends::OnDisk, longest);
}

/// Puts a new key before those that are there.
pub fn new_master_key(launch: &Launch) -> Result<()> {
    let new = process::capture(Command::new(&launch.program).args(["key", "generate"]))?;
    let all = new + &fs::read_to_string(&launch.master_key)?;
    let partial = launch.master_key.with_extension("new");
    fs::write(&partial, all)?;
    Ok(fs::rename(partial, &launch.master_key)?)
}

impl Stage<'_> {
    fn reads(&self) -> Result<Load> {
        let requests: Vec<_> = (0..DIFFERENT).map(|n| self.seed.read(n)).collect();
        self.client.load(self.server.address, READS, &requests)
    }

    fn writes(&self) -> Result<Load> {
        let requests: Vec<_> = (0..DIFFERENT).map(|n| self.seed.write(n)).collect();
        self.client.load(self.server.address, WRITES, &requests)
    }

    /// What answers take before anything happens; the first ones warm up.
    fn undisturbed(&self, load: &mut Load) -> Result<Times> {
        std::thread::sleep(self.pause / 4);
        load.since_last()?;
        std::thread::sleep(self.pause);
        load.since_last()
    }

    /// What it answers, how long it took, and what the server had of memory at the most.
    fn measure<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration, Growth)> {
        let pid = self.server.process.pid();
        child::forget_peak(pid)?;
        let before = child::memory(pid)?.resident;
        let began = Instant::now();
        let done = work()?;
        let took = began.elapsed();
        let most = child::memory(pid)?.peak;
        Ok((done, took, Growth { before, most }))
    }
}

/// Resident memory, in KiB.
struct Growth {
    before: u64,
    most: u64,
}

impl Growth {
    /// In MiB.
    fn added(&self) -> f64 {
        mib(self.most.saturating_sub(self.before))
    }

    fn describe(&self) -> String {
        format!(
            "{} MiB, at the most {} MiB",
            shown(mib(self.before)),
            shown(mib(self.most))
        )
    }
}

fn percentiles(times: &Times) -> String {
    let [p50, p99, max] = [times.p50, times.p99, times.max].map(|time| shown(milliseconds(time)));
    format!("p50 {p50} ms, p99 {p99} ms, at the most {max} ms, of {}", times.answers)
}

fn file_kib(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)?.len() >> 10)
}
