//! Faults of the disk and the clock of one server, made by a library that is loaded into it (`tests/shim/faults.c`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shim/faults.c");

// Where things stand in the page that is shared, as in the source.
const CLOCK_OFFSET: u64 = 0;
const CLOCK_FROZEN: u64 = 8;
const OPS: u64 = 16;
const AFTER: u64 = 24;
const ERROR: u64 = 32;
const SEEN: u64 = 40;
const POWER: u64 = 48;
const SYNCED: u64 = 56;
const SUFFIX: u64 = 64;
const SEED: u64 = 96;
const MOST: u64 = 104;
const THREAD: u64 = 112;
const BEHIND: u64 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Write = 1,
    Sync = 2,
    Read = 4,
}

/// What a call comes to behind those that go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server is killed before the call does anything.
    Kill = 0,
    /// `EIO`
    Broken = 5,
    /// `ENOSPC`
    Full = 28,
    /// `EROFS`
    ReadOnly = 30,
}

/// What a disk still has behind a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// What was synced.
    Synced = 1,
    /// What was synced, but for the log: as if the server did not wait for that.
    ForgetsTheLog = 1 | 2,
    /// What was synced, and of the rest whatever the disk came to.
    Mixed = 1 | 4,
    /// What was synced, under the names that it had when its folder was.
    Named = 1 | 8,
}

pub struct Shim {
    folder: tempfile::TempDir,
    data: PathBuf,
    control: File,
}

impl Shim {
    /// For a server with its database in this folder.
    pub fn new(data: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = File::options();
        let control = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("control"))
            .unwrap();
        control.set_len(4096).unwrap();
        std::fs::create_dir(folder.path().join("image")).unwrap();
        Self {
            folder,
            data: data.canonicalize().unwrap(),
            control,
        }
    }

    /// The server, under its power.
    pub fn over<'c>(&self, server: &'c mut Command) -> &'c mut Command {
        server
            .env("LD_PRELOAD", library())
            .env("FAULTS_CONTROL", self.folder.path().join("control"))
            .env("FAULTS_FOLDER", &self.data)
            .env("FAULTS_IMAGE", self.image())
    }

    /// Sets the clock that many seconds before or behind the real one, and going.
    pub fn set_clock(&self, seconds: i64) {
        self.set(CLOCK_FROZEN, 0);
        self.set(CLOCK_OFFSET, seconds * 1_000_000_000);
    }

    /// Stops the clock at this many seconds since 1970.
    pub fn stop_clock(&self, at: i64) {
        self.set(CLOCK_FROZEN, at * 1_000_000_000);
    }

    /// From now on, these calls on files whose names end so go wrong behind the next `after` of them; `/` is the folder
    /// itself.
    pub fn fail(&self, op: Op, suffix: &str, after: i64, fault: Fault) {
        self.arm(("", 0), op, suffix, after, fault);
    }

    /// As [`Shim::fail`], but once only, and of the calls of this thread.
    pub fn fail_once_in(&self, thread: &str, op: Op, suffix: &str, after: i64) {
        self.arm((thread, 1), op, suffix, after, Fault::Broken);
    }

    /// Nothing stays of what was asked for before.
    fn arm(&self, (thread, most): (&str, i64), op: Op, suffix: &str, after: i64, fault: Fault) {
        self.set(OPS, 0);
        let mut names = ([0; 32], [0; 16]);
        names.0[..suffix.len()].copy_from_slice(suffix.as_bytes());
        names.1[..thread.len()].copy_from_slice(thread.as_bytes());
        self.control.write_all_at(&names.0, SUFFIX).unwrap();
        self.control.write_all_at(&names.1, THREAD).unwrap();
        for (at, value) in [
            (AFTER, after),
            (ERROR, fault as i64),
            (SEEN, 0),
            (MOST, most),
            (BEHIND, 0),
        ] {
            self.set(at, value);
        }
        self.set(OPS, op as i64);
    }

    pub fn heal(&self) {
        self.set(OPS, 0);
    }

    /// Calls that counted.
    pub fn seen(&self) -> i64 {
        self.get(SEEN)
    }

    /// Such calls, of whatever thread, behind the first that failed.
    pub fn behind(&self) -> i64 {
        self.get(BEHIND)
    }

    /// Keeps beside it what the disk would have if the power were cut.
    pub fn watch_power(&self, power: Power) {
        for name in ["sealpod.db", "sealpod.db-wal"] {
            if self.data.join(name).exists() {
                std::fs::copy(self.data.join(name), self.image().join(name)).unwrap();
            }
        }
        if power == Power::Mixed {
            let seed = seed();
            // Seen where a test fails.
            println!("what the disk keeps beside what was synced: SEALPOD_TORTURE_SEED={seed}");
            self.set(SEED, seed);
        }
        self.set(POWER, power as i64);
    }

    /// How often that was brought up to date.
    pub fn synced(&self) -> i64 {
        self.get(SYNCED)
    }

    /// The power is cut: once the server is dead, its folder has what the disk would have.
    pub fn cut(&self) {
        let names = |folder: &Path| -> Vec<_> {
            let entries = std::fs::read_dir(folder).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        for name in names(&self.data) {
            let text = name.to_string_lossy();
            // With the names, all of the folder is on that disk.
            if text.starts_with("sealpod.db") || self.get(POWER) == Power::Named as i64 {
                std::fs::remove_file(self.data.join(name)).unwrap();
            }
        }
        let is_named = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with(".unnamed-");
        for name in names(&self.image()).into_iter().filter(is_named) {
            std::fs::copy(self.image().join(&name), self.data.join(&name)).unwrap();
        }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn set(&self, at: u64, value: i64) {
        self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }

    fn get(&self, at: u64) -> i64 {
        let mut value = [0; 8];
        self.control.read_exact_at(&mut value, at).unwrap();
        i64::from_ne_bytes(value)
    }
}

/// The library, compiled once. Rust itself needs a C compiler to link, so there is one.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, named) = (
            folder.join(format!("faults-{}.so", std::process::id())),
            folder.join("faults.so"),
        );
        let output = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", SOURCE, "-ldl", "-o",
            ])
            .arg(&made)
            .output()
            .expect("cc is there: it links Rust programs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // At once, for tests in other processes.
        std::fs::rename(made, &named).unwrap();
        named
    })
}

/// Another one each time, or the one of a run before.
fn seed() -> i64 {
    let asked = std::env::var("SEALPOD_TORTURE_SEED").ok();
    if let Some(seed) = asked {
        return seed.parse().expect("SEALPOD_TORTURE_SEED is a number");
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    i64::from_ne_bytes(bytes)
}

/// Whether this is for what breaks, and the machine has nothing else to do.
pub fn is_torture() -> bool {
    std::env::var_os("SEALPOD_TORTURE").is_some()
}

/// How often tests that break things at random places do so: seconds' worth, or as often as `cargo xtask torture` says.
pub fn rounds(short: usize) -> usize {
    let asked = std::env::var("SEALPOD_TORTURE").ok();
    asked.map_or(short, |times| {
        short * times.parse::<usize>().expect("SEALPOD_TORTURE is a number")
    })
}
