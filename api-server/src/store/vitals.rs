//! How the store is: for probes and metrics.

use prometheus_client::metrics::histogram::Histogram;

use super::{Result, Store, StoreError, sqlite};

/// Whether the store serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Serving,
    /// It met a fault that it must not go on after, and refuses everything until a restart.
    Failed {
        reason: String,
    },
}

/// What the store has done since it was opened, and what it does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Changes and records that were asked for.
    pub writes: u64,
    /// Transactions that were written to disk: fewer than `writes`, where several shared one.
    pub commits: u64,
    pub reads: u64,
    /// Audit entries that were written to disk.
    pub audit_entries: u64,
    /// Watchers that are waiting now.
    pub watchers: usize,
    /// How often a change has woken one.
    pub wakes: u64,
    /// Changes, and reads, that wait for their turn now.
    pub queued_writes: usize,
    pub queued_reads: usize,
    /// Reads that run now, and how many can.
    pub busy_readers: usize,
    pub readers: usize,
}

/// What the store takes of its disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub database: u64,
    /// What is committed and not in the database's own file yet, and room for more of it.
    pub wal: u64,
    /// Of the file system that the database is on, without what it holds back for root; and what is left of it.
    pub volume: u64,
    pub available: u64,
}

/// What the store measures while it works. Clones share their numbers.
#[derive(Debug, Clone)]
pub struct Meters {
    /// Time that a transaction took before its commit, in seconds: for that long whoever else wants to change something waits.
    pub transaction_seconds: Histogram,
    /// Time from the decision to commit until everything is on disk, in seconds.
    pub commit_seconds: Histogram,
    /// Time between two transactions in which the writer itself copied its log into the database, flush and all, or waited for who was
    /// at it, in seconds: for that long, too, whoever else wants to change something waits.
    pub log_seconds: Histogram,
    /// Changes that one commit held.
    pub group_size: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            // From one row to a slice of maintenance that is too large.
            transaction_seconds: Histogram::new([
                0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
            ]),
            // From a disk that forgets its duties to one that is about to die.
            commit_seconds: Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5]),
            // From a copy of nothing to a wait for a disk that does not keep up.
            log_seconds: Histogram::new([0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5]),
            group_size: Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
        }
    }
}

/// What is kept of the disk for the last entries of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// Nothing: nobody asked for it, or it could not be made, which is tried again.
    None,
    /// Nothing: the volume is too small.
    TooSmall,
    Whole,
    /// The disk is full. Only what puts a look on record, or takes something away, is done until there is room again.
    GivenUp,
}

/// What the last attempt at something failed with, while none has succeeded since.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Storing anything at all.
    pub commit: Option<StoreError>,
    /// Storing audit entries, without which no change is made and no value is given out.
    pub audit: Option<StoreError>,
    /// Storing even what the reserve is for, where the disk is full.
    pub record: Option<StoreError>,
}

impl Trouble {
    pub fn is_none(&self) -> bool {
        self.commit.is_none() && self.audit.is_none() && self.record.is_none()
    }
}

impl Store {
    pub fn state(&self) -> State {
        self.engine.state()
    }

    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Asks the file system; `None` where it does not answer.
    pub fn sizes(&self) -> Option<Sizes> {
        self.engine.sizes()
    }

    /// Looks whether the database is still the file at its path. That it is another one twice in a row is fatal.
    pub fn look_at_place(&self) {
        self.engine.look_at_place();
    }

    pub fn trouble(&self) -> Trouble {
        self.engine.trouble()
    }

    pub fn reserve(&self) -> Reserve {
        self.engine.reserve()
    }

    /// Makes the reserve where it is not whole, for whatever reason, and can be by now.
    pub async fn refill_reserve(&self) {
        self.engine.refill_reserve().await;
    }

    /// Tries out what is in trouble: a commit, and an audit entry that is not kept. Whoever is told to send no requests
    /// to a server in trouble would never let it find out that it is over.
    pub async fn try_again(&self) {
        // What comes of it is in `trouble`.
        drop(self.engine.write(sqlite::health::try_out).await);
    }

    /// Reads the whole database, table by table and beside everything else, and answers with the first damage that it
    /// finds. Ends early when it is dropped.
    pub async fn find_damage(&self) -> Result<Option<String>> {
        self.engine.find_damage().await
    }

    /// Sessions that have not expired.
    pub async fn live_sessions(&self) -> Result<u64> {
        self.engine.read(sqlite::people::live_sessions).await
    }
}
