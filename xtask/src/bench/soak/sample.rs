//! What the server takes of the machine at one moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::super::child;
use super::super::client::Times;
use super::super::server::{Launch, Server};

#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the load began.
    pub at: Duration,
    /// Resident memory: the median of what it was each second since the last sample.
    pub memory_kib: u64,
    /// Open file descriptors.
    pub files: usize,
    pub wal_kib: u64,
    pub database_kib: u64,
    /// Of the answers since the last sample.
    pub reads: Times,
    pub writes: Times,
}

impl Sample {
    /// `memory` is emptied.
    pub fn take(
        at: Duration,
        (launch, server): (&Launch, &Server),
        memory: &mut Vec<u64>,
        (reads, writes): (Times, Times),
    ) -> Result<Self> {
        let pid = server.process.pid();
        let wal = launch.database.with_extension("db-wal");
        Ok(Self {
            at,
            memory_kib: median(std::mem::take(memory)),
            files: child::files(pid)?,
            wal_kib: kib(&wal),
            database_kib: kib(&launch.database),
            reads,
            writes,
        })
    }
}

/// Zero of none.
fn median(mut of: Vec<u64>) -> u64 {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or(0)
}

/// Zero where it is not there.
fn kib(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len() >> 10)
}
