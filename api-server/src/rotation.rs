//! Rotation of the master key while serving: the key file is followed, what is new is sealed under its first line at once, and
//! the rest is wrapped anew behind that, piece by piece. Where a value stands is told by the id in its own envelope, so a
//! rotation that was cut off anywhere goes on where it was. An earlier key counts as unused only after everything was opened
//! without it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealpod_core::wire::keys as wire;
use sealpod_runtime::admin::Readiness;
use sealpod_runtime::files::{self, Content, FileSet, Unreadable};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::audit::By;
use crate::crypto::{Keyring, KeyringError, MasterKeyId, OpenError, Sealed};
use crate::store::{KeyNeeds, Piece, Place, Shelf, Store, StoreError, Wrapped};

/// How often it looks by itself, and behind something that stood in the way.
const INTERVAL: Duration = Duration::from_hours(1);
const RETRY: Duration = Duration::from_mins(1);
/// Between two pieces others have the disk and the writer to themselves for as long as the piece took, within these.
const BREATH: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
/// Under this name readiness shows what is wrong with the key file or the rotation.
const PART: &str = "master keys";

/// Why the key file was not taken. Never quotes a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    #[error(
        "the master key was given in SEALPOD_MASTER_KEY, which holds one; for a rotation give both in a file, SEALPOD_MASTER_KEY_FILE, the new one first"
    )]
    NoFile,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the file of the master keys is not text")]
    NotText,
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    #[error(
        "the file does not hold master key {} any more, and {} values need it; put its line back until `key list` calls it unused", .0.id, .0.total()
    )]
    StillNeeded(KeyNeeds),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReloadError {
    /// Tells two of them apart for the log: how many values are left is no news.
    fn what(&self) -> String {
        match self {
            Self::StillNeeded(needs) => needs.id.to_string(),
            other => other.to_string(),
        }
    }
}

/// How far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub state: wire::RotationState,
    pub done: u64,
    pub total: u64,
    pub problem: Option<String>,
}

/// Puts on record, at a start, which key seals. Where the disk has no room for that, the key before it goes on, and who
/// follows the key file tries again: a server that did not start would answer no reads either.
pub async fn begin(store: &Store, keyring: &Keyring, readiness: &Readiness) -> Result<(), StoreError> {
    let new = keyring.current();
    let keys = keyring.ids().collect();
    match store.begin_key((new, keys), By::system("start"), || ()).await {
        Err(StoreError::DiskFull) => {}
        other => return other,
    }
    let before = store.current_key().await?;
    let Some(before) = before.filter(|key| keyring.lead_with(*key)) else {
        return Err(StoreError::DiskFull);
    };
    tracing::warn!(%new, current = %before, "the disk is full, so it cannot be noted that there is a new master key; the one before it stays in use until there is room");
    readiness.warn(
        PART,
        format!("the new master key {new} is not in use yet, because the disk is full"),
    );
    Ok(())
}

/// What makes rotations and tells of them. Clones are the same.
#[derive(Clone)]
pub struct Rotation(Arc<Inner>);

struct Inner {
    file: Option<tokio::sync::Mutex<KeyFile>>,
    progress: Mutex<Progress>,
    /// There may be something to wrap anew.
    wake: Notify,
    /// What stood in the way of the file may be gone.
    look: Notify,
}

struct KeyFile {
    files: FileSet,
    /// Whether what was read last is what the server has. Until then it is read again and again, however the reading ended.
    is_taken: bool,
}

impl KeyFile {
    /// What is in it, if that is to be taken.
    fn news(&mut self) -> Option<Vec<Content>> {
        if self.is_taken {
            self.files.poll()
        } else {
            Some(self.files.read())
        }
    }
}

/// What a new key file is for.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    pub store: &'a Store,
    pub keyring: &'a Keyring,
    pub readiness: &'a Readiness,
}

impl Rotation {
    /// Of the keys in this file.
    pub fn new(file: Option<PathBuf>) -> Self {
        let file = file.map(|path| KeyFile {
            files: FileSet::new([path]),
            // It may have changed since the start read it.
            is_taken: false,
        });
        Self(Arc::new(Inner {
            file: file.map(tokio::sync::Mutex::new),
            progress: Mutex::new(Progress {
                state: wire::RotationState::Idle,
                done: 0,
                total: 0,
                problem: None,
            }),
            wake: Notify::new(),
            look: Notify::new(),
        }))
    }

    pub fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Reads the key file now, and begins what is to be done. What cannot be taken now is tried again by
    /// [`follow`](Self::follow).
    pub async fn reload(&self, server: Server<'_>, by: By) -> Result<(), ReloadError> {
        let file = self.0.file.as_ref().ok_or(ReloadError::NoFile)?;
        let mut file = file.lock().await;
        let contents = file.files.read();
        self.take(&mut file, contents, server, by).await
    }

    async fn take(
        &self,
        file: &mut KeyFile,
        contents: Vec<Content>,
        server: Server<'_>,
        by: By,
    ) -> Result<(), ReloadError> {
        file.is_taken = false;
        let new = parse(contents)?;
        // What was stored since the look and needs another key is found by the next one.
        while !self.begin(&new, server, by.clone()).await? {}
        file.is_taken = true;
        server.readiness.settle(PART);
        Ok(())
    }

    /// False where something was stored meanwhile that needs a key which is not among these.
    async fn begin(&self, new: &Keyring, server: Server<'_>, by: By) -> Result<bool, ReloadError> {
        let keys: Vec<MasterKeyId> = new.ids().collect();
        let needs = server.store.key_needs().await?;
        if let Some(needed) = needs.into_iter().find(|key| key.total() > 0 && !keys.contains(&key.id)) {
            return Err(ReloadError::StillNeeded(needed));
        }
        let (this, keyring, taken) = (self.clone(), server.keyring.clone(), new.clone());
        let take = move || {
            if keyring.ids().ne(taken.ids()) {
                tracing::info!(current = %taken.current(), keys = taken.ids().count(), "read the master keys again");
            }
            keyring.replace(&taken);
            this.0.wake.notify_one();
        };
        match server.store.begin_key((new.current(), keys), by, take).await {
            Ok(()) => Ok(true),
            Err(StoreError::Moved(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows the key file until `stop`. What cannot be taken is logged and shown, and tried again; the keys stay as they
    /// are until then.
    pub async fn follow(self, store: Store, keyring: Keyring, readiness: Readiness, stop: CancellationToken) {
        let Some(file) = &self.0.file else { return };
        let mut told = None;
        let mut look = async || {
            tokio::select! {
                () = tokio::time::sleep(files::POLL_INTERVAL) => {}
                () = self.0.look.notified() => {}
            }
            keyring.forget(Instant::now());
            let mut file = file.lock().await;
            let Some(contents) = file.news() else { return };
            let server = Server {
                store: &store,
                keyring: &keyring,
                readiness: &readiness,
            };
            let Err(error) = self.take(&mut file, contents, server, By::system("keyring")).await else {
                told = None;
                return;
            };
            if told.as_ref() != Some(&error.what()) {
                tracing::error!(%error, "the file of the master keys cannot be used; the keys before it stay in use, and it is tried again");
                told = Some(error.what());
            }
            let shown = match error {
                ReloadError::Store(error) => format!("the key file is not in use yet: {error}"),
                error => format!("the key file changed and cannot be used: {error}"),
            };
            readiness.warn(PART, shown);
        };
        while stop.run_until_cancelled(look()).await.is_some() {}
    }

    /// Wraps anew what has to be, until `stop`. What is cut off here goes on at the next start.
    pub async fn run(self, store: Store, keyring: Keyring, stop: CancellationToken) {
        let round = async || {
            let pause = match self.round(&store, &keyring).await {
                Ok(Round::Done) => INTERVAL,
                // Whoever took the other key wakes it, if not before this, then now.
                Ok(Round::Overtaken) => RETRY,
                Err(problem) => {
                    tracing::error!(%problem, "the rotation of the master key does not go on; it is tried again within a minute");
                    self.show(wire::RotationState::Failed, None);
                    self.lock().problem = Some(problem.to_string());
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.wake.notified() => {}
            }
        };
        while stop.run_until_cancelled(round()).await.is_some() {}
    }

    async fn round(&self, store: &Store, keyring: &Keyring) -> Result<Round, Problem> {
        loop {
            let current = keyring.current();
            let mut old = store.key_needs().await?;
            old.retain(|key| key.id != current && (key.total() > 0 || key.retired_at.is_none()));
            // Another line of the file that nothing was ever under is nobody's business.
            if old.is_empty() {
                self.show(wire::RotationState::Idle, Some(0));
                return Ok(Round::Done);
            }
            match self.rewrap(store, keyring, &old).await {
                Err(Problem::Store(StoreError::Moved(_))) => return Ok(Round::Overtaken),
                wrapped => wrapped?,
            }
            // A file without the old key may be waiting for that.
            self.0.look.notify_one();
            let opened = self.verify(store, keyring).await?;
            if !store.retire_keys(current, opened, By::system("rotation")).await? {
                return Ok(Round::Overtaken);
            }
            tracing::info!(%current, opened, "everything is under the current master key, and opens");
        }
    }

    /// Everything that is under one of `old`.
    async fn rewrap(&self, store: &Store, keyring: &Keyring, old: &[KeyNeeds]) -> Result<(), Problem> {
        self.show(
            wire::RotationState::Rewrapping,
            Some(old.iter().map(KeyNeeds::total).sum()),
        );
        let mut refused = None;
        for (key, shelf) in old.iter().flat_map(|key| Shelf::ALL.map(|shelf| (key.id, shelf))) {
            let mut from = Some(0);
            while let Some(at) = from {
                let began = Instant::now();
                let Piece { values, next } = store.sealed_values(shelf, Some(key), at).await?;
                let keyring = keyring.clone();
                let (mut wrapped, bad) = blocking(move || wrap(&keyring, values)).await?;
                refused = refused.or(bad);
                while !wrapped.is_empty() {
                    let done = store.rewrap(wrapped.clone()).await?;
                    wrapped.drain(..done);
                    self.lock().done += done as u64;
                }
                from = next;
                breathe(began).await;
            }
        }
        refused.map_or(Ok(()), |(place, error)| Err(Problem::Sealed { place, error }))
    }

    /// Opens everything; answers how much that was.
    async fn verify(&self, store: &Store, keyring: &Keyring) -> Result<u64, Problem> {
        self.show(wire::RotationState::Verifying, None);
        let needs = store.key_needs().await?;
        self.lock().total = needs.iter().map(KeyNeeds::total).sum();
        let mut opened = 0;
        for shelf in Shelf::ALL {
            let mut from = Some(0);
            while let Some(at) = from {
                let began = Instant::now();
                let Piece { values, next } = store.sealed_values(shelf, None, at).await?;
                let keyring = keyring.clone();
                opened += blocking(move || open(&keyring, &values)).await??;
                self.lock().done = opened;
                from = next;
                breathe(began).await;
            }
        }
        Ok(opened)
    }

    fn show(&self, state: wire::RotationState, total: Option<u64>) {
        let mut progress = self.lock();
        progress.state = state;
        progress.problem = None;
        if state != wire::RotationState::Failed {
            (progress.done, progress.total) = (0, total.unwrap_or(0));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing that runs under this lock can panic half way.
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a round of the rotation ended.
enum Round {
    Done,
    /// Another key seals by now, so there is something else to do.
    Overtaken,
}

/// Why a rotation does not go on.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "{place} does not open, so the key that it is under is still needed ({error}); restore it from a backup, or purge it"
    )]
    Sealed { place: Place, error: OpenError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Refused = Option<(Place, OpenError)>;

/// What became of values, and the first that does not open.
fn wrap(keyring: &Keyring, values: Vec<Wrapped>) -> (Vec<(Wrapped, Sealed)>, Refused) {
    let (mut wrapped, mut refused) = (Vec::with_capacity(values.len()), None);
    for value in values {
        match keyring.rewrap(&value.aad, &value.sealed) {
            Ok(sealed) => wrapped.push((value, sealed)),
            Err(error) => {
                tracing::error!(place = %value.place, %error, "a sealed value cannot be wrapped under another master key");
                refused.get_or_insert((value.place, error));
            }
        }
    }
    (wrapped, refused)
}

fn open(keyring: &Keyring, values: &[Wrapped]) -> Result<u64, Problem> {
    for Wrapped { place, aad, sealed } in values {
        keyring
            .open(aad, sealed)
            .map_err(|error| Problem::Sealed { place: *place, error })?;
    }
    Ok(values.len() as u64)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StoreError::Internal("wrapping values anew panicked".into()))
}

async fn breathe(began: Instant) {
    tokio::time::sleep(began.elapsed().clamp(BREATH.0, BREATH.1)).await;
}

fn parse(contents: Vec<Content>) -> Result<Keyring, ReloadError> {
    let content = contents.into_iter().next().expect("one file was asked for")?;
    let text = std::str::from_utf8(&content).map_err(|_| ReloadError::NotText)?;
    Ok(Keyring::parse(&Zeroizing::new(text.to_owned()))?)
}
