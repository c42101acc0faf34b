//! The SQLite engine: one thread that writes, a few that read, all SQL.

pub(super) mod accounts;
pub(super) mod acl;
pub(super) mod backup;
pub(super) mod bundle;
mod cache;
pub(super) mod changes;
pub(super) mod clock;
pub(super) mod configurations;
pub(super) mod consumers;
mod damage;
pub(super) mod environments;
mod fresh;
mod heads;
pub(super) mod health;
pub(super) mod idempotency;
mod job;
pub(super) mod keys;
pub(super) mod log;
pub(super) mod login;
pub(super) mod members;
pub(super) mod open;
pub(super) mod organizations;
pub(super) mod people;
pub(super) mod projects;
pub(super) mod purge;
mod queue;
pub(super) mod quotas;
mod reader;
mod remembered;
pub(super) mod rewrap;
mod row;
pub(super) mod secrets;
mod trace;
pub(super) mod trash;
mod tx;
mod uses;
pub(super) mod values;
mod wal;
mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use sealpod_core::Time;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::watch::Hub;
use super::{
    ActiveVersion, EnvironmentRef, Interest, KeyHolder, Location, OpenError, Options, Result, Sequence, Sizes, State,
    Stats, StoreError, Topic, Trouble, Watcher,
};
use crate::audit::{AuditKey, By, Chain, Entry, Head};
use crate::crypto::{KeyDigest, Keyring, Pepper};
use crate::ids::AccountId;
use clock::Clock;
use fresh::Stamp;
use heads::Heads;
use health::Health;
use job::{Reach, WriteJob};
use queue::Queue;
use reader::{ReadJob, View};
use remembered::Remembered;
use tx::Tx;
use uses::Uses;
use wal::Patience;

/// The engine's threads and what they share with callers.
pub(super) struct Engine {
    writes: Arc<Queue<Box<dyn WriteJob>>>,
    reads: Arc<Queue<Box<dyn ReadJob>>>,
    health: Arc<Health>,
    hub: Arc<Hub>,
    uses: Arc<Uses>,
    heads: Arc<Heads>,
    remembered: Arc<Remembered>,
    /// What the database keeps for the server: its name, the pepper, the audit key.
    server: open::ServerKeys,
    clock: Arc<Clock>,
    /// The writer is the last one.
    threads: Mutex<Vec<JoinHandle<()>>>,
    readers: usize,
    path: PathBuf,
}

impl Engine {
    pub(super) fn open(options: &Options, keyring: &Keyring) -> Result<Self, OpenError> {
        let opened = open::open(options, keyring)?;
        let hub = Arc::new(Hub::default());
        let health = Arc::new(Health::new(Arc::clone(&hub)));
        let uses = Arc::new(Uses::new(options.use_interval));
        let heads = Arc::new(Heads::default());
        let remembered = Arc::new(Remembered::new());
        let writes = Arc::new(Queue::new(options.queue));
        let reads = Arc::new(Queue::new(options.queue));

        let on_panic = {
            let (health, reads, writes) = (Arc::clone(&health), Arc::clone(&reads), Arc::clone(&writes));
            move || give_up(&health, &reads, &writes)
        };
        let mut threads = Vec::with_capacity(options.readers + 1);
        let readers = opened.readers.len();
        for (n, connection) in opened.readers.into_iter().enumerate() {
            let (reads, health, told) = (Arc::clone(&reads), Arc::clone(&health), options.trace.clone());
            let patience = Patience::over(&connection, Arc::clone(&health.wal), options.read_time);
            let patience = patience.map_err(|source| OpenError::Engine {
                path: opened.path.clone(),
                what: "cannot set up a connection",
                source: Box::new(source),
            })?;
            let run = move || {
                trace::begin(&connection, told);
                reader::run(&connection, &reads, &health, &patience);
            };
            threads.push(spawn(&opened.path, format!("store-read-{n}"), run, on_panic.clone())?);
        }
        let clock = Clock::open(&opened.writer).map_err(|source| OpenError::Engine {
            path: opened.path.clone(),
            what: "cannot read the clock that credentials end by",
            source: Box::new(source),
        })?;
        let clock = Arc::new(clock);
        let chains = tx::Chains::open(&opened.writer).map_err(|error| OpenError::Damaged {
            path: opened.path.clone(),
            what: format!("the runs of its audit log cannot be read ({error})"),
        })?;
        let writing = writer::Writer {
            connection: opened.writer,
            lock: opened.lock,
            jobs: Arc::clone(&writes),
            key: opened.server.audit.clone(),
            health: Arc::clone(&health),
            hub: Arc::clone(&hub),
            uses: Arc::clone(&uses),
            clock: Arc::clone(&clock),
            heads: Arc::clone(&heads),
            remembered: Arc::clone(&remembered),
            chains,
            meters: options.meters.clone(),
        };
        let told = options.trace.clone();
        let run = move || {
            trace::begin(&writing.connection, told);
            writing.run();
        };
        threads.push(spawn(&opened.path, "store-write".to_owned(), run, on_panic)?);

        Ok(Self {
            writes,
            reads,
            health,
            hub,
            uses,
            heads,
            remembered,
            server: opened.server,
            clock,
            threads: Mutex::new(threads),
            readers,
            path: opened.path,
        })
    }

    /// Runs a change in a transaction of its own kind (see [`writer`]); returns once it is on disk.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.change(Reach::Everything, work).await
    }

    /// As [`Engine::write`], for a change that leaves all that is remembered true but what it [touches](Tx::touch).
    pub(super) async fn write_values<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.change(Reach::Touched, work).await
    }

    async fn change<T, F>(&self, reach: Reach, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(Box::new(job::Change::new(reach, work, reply)), answer).await
    }

    /// Appends to a chain; returns once that is on disk.
    pub(super) async fn record(&self, chain: Chain, entry: Entry, by: By) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let record = job::Record::new(chain, entry, by, reply);
        self.queue(Box::new(record), answer).await
    }

    async fn queue<T>(&self, job: Box<dyn WriteJob>, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        self.health.check()?;
        self.writes.push(job).await.map_err(|_| self.health.closed())?;
        answer.await.unwrap_or_else(|_| Err(self.health.closed()))
    }

    /// Reads what is to be remembered. The stamp is taken when the read's turn comes, before its first statement fixes what
    /// it sees: what changed while it waited does not count against it.
    async fn look<T, F>(&self, work: F) -> Result<(Stamp, T)>
    where
        T: Send + 'static,
        F: FnOnce(&View<'_>) -> Result<T> + Send + 'static,
    {
        let remembered = Arc::clone(&self.remembered);
        self.read(move |view| {
            let stamp = remembered.stamp();
            Ok((stamp, work(view)?))
        })
        .await
    }

    /// Whose key it is, as of `clock`; by memory where that is as good as the database.
    pub(super) async fn find_key(&self, digest: KeyDigest, clock: Time) -> Result<Option<KeyHolder>> {
        self.health.check()?;
        if let Some(holder) = self.remembered.key(&digest, clock) {
            return Ok(Some(holder));
        }
        let looked = self.look(move |view| keys::find(view.conn, &digest, clock)).await?;
        if let (stamp, Some(holder)) = &looked {
            self.remembered.keep_key(*stamp, &digest, holder);
        }
        Ok(looked.1)
    }

    /// Where a live environment is; by memory where that is as good as the database.
    pub(super) async fn location(&self, environment: EnvironmentRef) -> Result<Arc<Location>> {
        self.health.check()?;
        if let Some(location) = self.remembered.location(&environment) {
            return Ok(location);
        }
        let asked = environment.clone();
        let (stamp, located) = self.look(move |view| environments::locate(view.conn, &asked)).await?;
        let location = Arc::new(located);
        self.remembered.keep_location(stamp, environment, Arc::clone(&location));
        Ok(location)
    }

    /// The version that counts now; by memory where that is as good as the database.
    pub(super) async fn active_version(&self, environment: EnvironmentRef, name: &str) -> Result<Arc<ActiveVersion>> {
        self.health.check()?;
        let now = Time::now();
        let remembered = self.remembered.location(&environment);
        if let Some(version) = remembered.and_then(|location| self.remembered.active_version(&location, name, now)) {
            return Ok(version);
        }
        let (asked, name) = (environment.clone(), name.to_owned());
        let looking = self.look(move |view| Ok((values::active(view, &asked, &name)?, view.now)));
        let (stamp, ((version, until), from)) = looking.await?;
        // All versions of an environment share where that is.
        let known = self.remembered.location(&environment);
        let location = known.filter(|known| **known == *version.location);
        let version = Arc::new(ActiveVersion {
            location: location.unwrap_or_else(|| Arc::clone(&version.location)),
            ..version
        });
        self.remembered.keep_version(stamp, &version, (from, until));
        self.remembered
            .keep_location(stamp, environment, Arc::clone(&version.location));
        Ok(version)
    }

    /// Runs a read in a transaction: it sees one state of the database.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&View<'_>) -> Result<T> + Send + 'static,
    {
        self.health.check()?;
        let (reply, answer) = oneshot::channel();
        let job = reader::Look::new(work, reply);
        self.reads.push(Box::new(job)).await.map_err(|_| self.health.closed())?;
        answer.await.unwrap_or_else(|_| Err(self.health.closed()))
    }

    /// Blocks until what was begun is done.
    pub(super) fn close(&self) {
        let mut readers = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let writer = readers.pop();
        // The writer tidies up at its end, which it cannot while somebody reads.
        self.reads.close();
        join(readers);
        self.stop();
        join(writer);
    }

    fn stop(&self) {
        self.reads.close();
        self.writes.close();
        self.hub.wake_all();
    }

    pub(super) fn state(&self) -> State {
        self.health.state()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            watchers: self.hub.watchers(),
            wakes: self.hub.wakes(),
            queued_writes: self.writes.len(),
            queued_reads: self.reads.len(),
            readers: self.readers,
            ..self.health.stats()
        }
    }

    pub(super) fn sizes(&self) -> Option<Sizes> {
        health::sizes(&self.path).ok()
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.health.trouble()
    }

    pub(super) async fn find_damage(&self) -> Result<Option<String>> {
        let (hand_over, handle) = oneshot::channel();
        let (path, wal) = (self.path.clone(), Arc::clone(&self.health.wal));
        let check = tokio::task::spawn_blocking(move || damage::find(&path, wal, hand_over));
        let _interrupting = handle.await.ok().map(damage::Interrupting::new);
        check
            .await
            .unwrap_or_else(|_| Err(StoreError::Internal("the check of the database panicked".into())))
    }

    pub(super) fn epoch(&self) -> Uuid {
        self.server.epoch
    }

    pub(super) fn pepper(&self) -> &Pepper {
        &self.server.pepper
    }

    pub(super) fn audit_key(&self) -> &AuditKey {
        &self.server.audit
    }

    pub(super) fn moved_audit_heads(&self) -> Vec<Head> {
        self.heads.take()
    }

    pub(super) fn watch(&self, topics: &[Topic]) -> Watcher {
        self.hub.watch(topics)
    }

    pub(super) fn watch_for(&self, topics: &[Topic], interest: &Arc<Interest>, since: Sequence) -> Watcher {
        self.hub.watch_for(topics, interest, since)
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.hub.sequence()
    }

    pub(super) fn note_use(&self, account: AccountId) {
        self.uses.note(account, Time::now());
    }

    /// What credentials are judged by: never earlier than it was before, see [`clock`].
    pub(super) fn credential_clock(&self) -> Time {
        self.clock.now()
    }
}

impl Drop for Engine {
    /// Without [`Engine::close`], the threads finish what was begun and end by themselves.
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store had panicked");
        }
    }
}

/// A thread of the engine that died must not leave callers waiting for it.
fn give_up(health: &Health, reads: &Queue<Box<dyn ReadJob>>, writes: &Queue<Box<dyn WriteJob>>) {
    health.note(&StoreError::Failed("a thread of the store panicked".into()));
    reads.close();
    writes.close();
    // What is dropped here answers its caller with an error.
    while reads.waiting().is_some() {}
    while writes.waiting().is_some() {}
}

/// Starts a thread; `on_panic` runs if it panics.
fn spawn(
    path: &std::path::Path,
    name: String,
    run: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let thread = std::thread::Builder::new().name(name).spawn(|| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            on_panic();
            resume_unwind(panic);
        }
    });
    thread.map_err(|source| OpenError::Engine {
        path: path.to_owned(),
        what: "cannot start a thread",
        source: Box::new(source),
    })
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        health::classify(&error)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrades;
