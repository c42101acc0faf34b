//! The SQLite engine: one thread that writes, one that copies its log into the database, a few that read, all SQL.

pub(super) mod accounts;
pub(super) mod acl;
pub(super) mod backup;
pub(super) mod bundle;
mod cache;
pub(super) mod calendar;
pub(super) mod changes;
mod checkpointer;
pub(super) mod clock;
pub(super) mod compare;
pub(super) mod configurations;
pub(super) mod consumers;
mod damage;
pub(super) mod environments;
pub(super) mod files;
mod fresh;
mod heads;
pub(super) mod health;
pub(super) mod idempotency;
mod job;
pub(super) mod keys;
pub(super) mod log;
pub(super) mod login;
mod look;
mod lost_log;
pub(super) mod members;
pub(super) mod open;
pub(super) mod organizations;
mod own_log;
mod patience;
pub(super) mod people;
mod place;
pub(super) mod projects;
pub(super) mod purge;
mod queue;
pub(super) mod quotas;
mod reader;
mod remembered;
mod reserve;
pub(super) mod rewrap;
mod row;
pub(super) mod secrets;
mod threads;
mod trace;
pub(super) mod trash;
mod tx;
mod uses;
pub(super) mod values;
mod wal;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use sealpod_core::Time;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::watch::Hub;
use super::{
    Interest, OpenError, Options, Reserve, Result, Sequence, Sizes, State, Stats, StoreError, Topic, Trouble, Watcher,
};
use crate::audit::{AuditKey, By, Chain, Entry, Head};
use crate::crypto::{Keyring, Pepper};
use crate::ids::AccountId;
use checkpointer::Checkpointer;
use clock::Clock;
use heads::Heads;
use health::Health;
use job::{Reach, WriteJob};
use patience::Patience;
use place::Place;
use queue::Queue;
use reader::{ReadJob, View};
use remembered::Remembered;
use threads::{give_up, join, spawn};
use tx::Tx;
use uses::Uses;

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
    place: Arc<Place>,
    path: PathBuf,
}

impl Engine {
    pub(super) fn open(options: &Options, keyring: &Keyring) -> Result<Self, OpenError> {
        let open::Opened {
            path,
            writer,
            readers,
            lock,
            server,
            mark,
        } = open::open(options, keyring)?;
        let failed = |what| move |path: &Path, error| open::engine_error(path, what, error);
        // 1. What may fail without a thread, of which some would stay behind.
        let clock = Clock::open(&writer);
        let clock = clock.map_err(|error| failed("cannot read the clock that credentials end by")(&path, error))?;
        let chains = tx::Chains::open(&writer).map_err(|error| OpenError::Damaged {
            path: path.clone(),
            what: format!("the runs of its audit log cannot be read ({error})"),
        })?;
        let database = File::open(&path).map_err(|source| files::file_error(&path, source))?;
        let place = Place::of(&path, &database).map_err(|source| files::file_error(&path, source))?;
        let hub = Arc::new(Hub::default());
        let engine = Self {
            writes: Arc::new(Queue::new(options.queue)),
            reads: Arc::new(Queue::new(options.queue)),
            health: Arc::new(Health::new(Arc::clone(&hub), &path)),
            hub,
            uses: Arc::new(Uses::new(options.use_interval)),
            heads: Arc::default(),
            remembered: Arc::new(Remembered::new()),
            server,
            clock: Arc::new(clock),
            threads: Mutex::default(),
            readers: readers.len(),
            place: Arc::new(place),
            path,
        };
        if options.reserve {
            engine.health.keep_reserve();
        }
        let set_up = |connection: Connection| {
            let patience = Patience::over(&connection, Arc::clone(&engine.health.wal), options.read_time);
            let patience = patience.map_err(|error| failed("cannot set up a connection")(&engine.path, error))?;
            Ok((connection, patience))
        };
        let readers = readers.into_iter().map(set_up).collect::<Result<_, OpenError>>()?;
        // 2. The threads. Those that there are end with the queues, and so with the engine, if there cannot be all.
        engine.begin((writer, lock, Arc::new(database), chains, mark), readers, options)?;
        Ok(engine)
    }

    fn begin(
        &self,
        (connection, lock, database, chains, mark): (Connection, files::Lock, Arc<File>, tx::Chains, own_log::Mark),
        readers: Vec<(Connection, Patience)>,
        options: &Options,
    ) -> Result<(), OpenError> {
        let on_panic = {
            let (health, reads, writes) = (
                Arc::clone(&self.health),
                Arc::clone(&self.reads),
                Arc::clone(&self.writes),
            );
            move || give_up(&health, &reads, &writes)
        };
        let checkpointer = Checkpointer::begin(&self.path, Arc::clone(&database), &self.health, on_panic.clone())?;
        let writing = writer::Writer {
            connection,
            mark,
            checkpointer,
            database,
            place: Arc::clone(&self.place),
            lock,
            jobs: Arc::clone(&self.writes),
            key: self.server.audit.clone(),
            health: Arc::clone(&self.health),
            hub: Arc::clone(&self.hub),
            uses: Arc::clone(&self.uses),
            clock: Arc::clone(&self.clock),
            heads: Arc::clone(&self.heads),
            remembered: Arc::clone(&self.remembered),
            chains,
            meters: options.meters.clone(),
        };
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, (connection, patience)) in readers.into_iter().enumerate() {
            let (reads, health, told) = (Arc::clone(&self.reads), Arc::clone(&self.health), options.trace.clone());
            let run = move || {
                trace::begin(&connection, told);
                reader::run(&connection, &reads, &health, &patience);
            };
            threads.push(spawn(&self.path, format!("store-read-{n}"), run, on_panic.clone())?);
        }
        let told = options.trace.clone();
        let run = move || {
            trace::begin(&writing.connection, told);
            writing.run();
        };
        threads.push(spawn(&self.path, "store-write".to_owned(), run, on_panic)?);
        Ok(())
    }

    /// Runs a change in a transaction of its own kind (see [`writer`]); returns once it is on disk.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.change(Reach::Everything, work, || ()).await
    }

    /// As [`Engine::write`], for a change that leaves all that is remembered true but what it [touches](Tx::touch).
    pub(super) async fn write_values<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.change(Reach::Touched, work, || ()).await
    }

    /// As [`Engine::write_values`], with what follows from the commit, whether or not whoever asked still waits. It is done
    /// before anybody hears of a change that ran after this one, and must take no time.
    pub(super) async fn write_values_then<T, F, N>(&self, work: F, then: N) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
        N: FnOnce() + Send + 'static,
    {
        self.change(Reach::Touched, work, then).await
    }

    async fn change<T, F, N>(&self, reach: Reach, work: F, then: N) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
        N: FnOnce() + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let change = job::Change::new(reach, (work, then), reply);
        self.queue(Box::new(change), answer).await
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

    /// Whether its files are still where they were opened: what is fatal is noted.
    pub(super) fn look_at_place(&self) {
        if self.health.check().is_ok()
            && let Some(lost) = self.place.look()
        {
            self.health.note_lost(&lost);
        }
    }

    pub(super) fn trouble(&self) -> Trouble {
        self.health.trouble()
    }

    pub(super) fn reserve(&self) -> Reserve {
        self.health.reserve.state()
    }

    /// Makes the reserve, where it is not whole and there is room.
    pub(super) async fn refill_reserve(&self) {
        let health = Arc::clone(&self.health);
        // A panic in there was logged by the hook already, and it is tried again.
        drop(tokio::task::spawn_blocking(move || health.refill_reserve()).await);
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

    pub(super) fn note_copy(&self, error: &OpenError) {
        let Some(fault) = backup::fault_of_reading(error, &self.path) else {
            return;
        };
        // Whoever opens a database whose log has lost its name reads what is torn.
        match self.place.look_now() {
            Some(lost) => self.health.note_lost(&lost),
            None => self.health.note(&fault),
        }
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

    /// As [`Engine::credential_clock`], with what a clock that was set back leaves to do done: what is made by this one
    /// lives by the clock as it is.
    pub(super) async fn settled_clock(&self) -> Time {
        if self.clock.was_set_back() {
            // Where this fails, so will what is to be written by the answer.
            drop(self.write(|_| Ok(())).await);
        }
        self.credential_clock()
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        health::classify(&error)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrades;
