//! Making, listing and restoring backups: one at a time, on a thread of its own at the lowest priority.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use sealpod_core::wire::backups::{Backup, Trigger};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::archive::{Header, Sealer};
use super::content::{self, CONTENT, Manifest};
use super::export::{self, Export};
use super::restore::{Asked, Keep, Restored, Scratch, Source, restore, verify};
use super::storage::{Download, Kept, PARTIAL, Storage};
use super::{Error, Recipient, room};
use crate::audit::{By, Chain, Entry, Kind, Verb};
use crate::crypto::{Keyring, MasterKeyId};
use crate::store::{self, Store, beside};

/// How the names of archives, and of what is known of each, end.
const ARCHIVE: &str = ".backup";
const KNOWN: &str = ".backup.json";
/// What the copies of the database are called while they are needed: its own name and this.
const SCRATCH: &str = ".backup-";
/// How old what belongs to no finished backup has to be before it is taken away, in seconds.
const LEFT_BEHIND: i64 = 24 * 3_600;

/// Where backups go and who can open them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// None: backups are disabled.
    pub storage: Option<Storage>,
    pub recipients: Vec<Recipient>,
}

/// Clones are the same.
#[derive(Clone)]
pub struct Backups(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: Settings,
    database: PathBuf,
    pub(super) keyring: Keyring,
    pub(super) turn: Semaphore,
    by_key: Mutex<ByKey>,
}

/// Which master key each of them needs, as of the last time that the storage answered.
#[derive(Default)]
pub(super) struct ByKey {
    backups: Option<Vec<String>>,
    /// Of the audit log. They are looked through after a start and behind a new one: they are kept for ever.
    exports: Option<Vec<String>>,
}

impl Backups {
    /// Of the database at this path.
    pub fn new(settings: Settings, database: PathBuf, keyring: Keyring) -> Self {
        Self(Arc::new(Inner {
            settings,
            database,
            keyring,
            turn: Semaphore::new(1),
            by_key: Mutex::default(),
        }))
    }

    pub(super) fn storage(&self) -> Result<Storage, Error> {
        self.0.settings.storage.clone().ok_or(Error::Disabled)
    }

    /// 503 before anything else is looked at.
    pub fn enabled(&self) -> Result<(), Error> {
        self.storage().map(drop)
    }

    /// Makes a backup; returns once it was opened and checked, and is on record.
    pub async fn create(&self, store: &Store, trigger: Trigger, by: By) -> Result<Backup, Error> {
        let storage = self.storage()?;
        room::require_reserve(store)?;
        let _turn = self.0.turn.try_acquire().map_err(|_| Error::Busy)?;
        let inner = Arc::clone(&self.0);
        let made = on_a_thread(move || {
            let made = write_archive(
                &storage,
                (&inner.database, &inner.keyring),
                &inner.settings.recipients,
                trigger,
            )?;
            Ok(made)
        });
        let made = made.await?;
        let entry = Entry::new(Kind::Backup, Verb::Create).resource(made.id, &made.filename);
        store.record(Chain::Instance, entry, by).await?;
        self.by_key_known().backups = None;
        tracing::info!(id = %made.id, bytes = made.size_bytes, trigger = trigger.as_str(), "made and checked a backup");
        Ok(made)
    }

    /// The exports are looked through anew when it is asked for.
    pub(super) fn forget_exports(&self) {
        self.by_key_known().exports = None;
    }

    fn by_key_known(&self) -> MutexGuard<'_, ByKey> {
        self.0.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Newest first.
    pub async fn list(&self) -> Result<Vec<Backup>, Error> {
        let storage = self.storage()?;
        let (list, is_whole) = on_a_thread(move || newest_first(&storage, &storage.list()?)).await?;
        let keys = list.iter().map(|backup| backup.key_id.clone());
        self.by_key_known().backups = is_whole.then(|| keys.collect());
        Ok(list)
    }

    async fn count_exports(&self) -> Result<(), Error> {
        let storage = self.storage()?;
        let (exports, is_whole) =
            on_a_thread(move || known_of::<Export>(&storage, &storage.list()?, export::KNOWN)).await?;
        let keys = exports.into_iter().map(|(_, export)| export.key_id);
        self.by_key_known().exports = is_whole.then(|| keys.collect());
        Ok(())
    }

    /// How many backups and exports need each master key; `None` where the storage does not answer.
    pub async fn by_key(&self) -> Option<BTreeMap<MasterKeyId, u64>> {
        if self.0.settings.storage.is_none() {
            return Some(BTreeMap::new());
        }
        let missing = {
            let known = self.by_key_known();
            (known.backups.is_none(), known.exports.is_none())
        };
        let look = async || {
            if missing.0 {
                self.list().await?;
            }
            if missing.1 {
                self.count_exports().await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = look().await {
            tracing::warn!(%error, "the backups could not be listed");
        }
        let id = |text: &String| MasterKeyId::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?);
        let known = self.by_key_known();
        let keys = known.backups.as_ref()?.iter().chain(known.exports.as_ref()?);
        let mut counts = BTreeMap::new();
        for key in keys.filter_map(id) {
            *counts.entry(key).or_default() += 1;
        }
        Some(counts)
    }

    pub async fn get(&self, id: Uuid) -> Result<Backup, Error> {
        let found = self.list().await?.into_iter().find(|backup| backup.id == id);
        found.ok_or(Error::Unknown)
    }

    /// Restores to a file beside the database. Its sessions and keys are ended.
    pub async fn restore(&self, store: &Store, id: Uuid, by: By) -> Result<Restored, Error> {
        let storage = self.storage()?;
        room::require_reserve(store)?;
        let _turn = self.0.turn.try_acquire().map_err(|_| Error::Busy)?;
        let backup = self.get(id).await?;
        let (inner, name) = (Arc::clone(&self.0), backup.filename.clone());
        let noted = by.clone();
        let restored = on_a_thread(move || {
            let target = beside(&inner.database, &format!(".restore.{id}"));
            let source = Stored { storage, name };
            let asked = Asked {
                id: Some(id),
                keyring: Some(&inner.keyring),
                identity: None,
            };
            restore(&source, &asked, &target, Keep::Nothing, |_| Ok(()), noted)
        });
        let restored = restored.await?;
        let entry = Entry::new(Kind::Backup, Verb::Restore).resource(id, &backup.filename);
        store.record(Chain::Instance, entry, by).await?;
        tracing::info!(%id, path = %restored.path.display(), "restored a backup beside the database; to switch, stop the server and put the file in its place");
        Ok(restored)
    }

    /// Removes these, and what uploads that were cut off left behind.
    pub async fn remove(&self, expired: Vec<Backup>) -> Result<(), Error> {
        let storage = self.storage()?;
        on_a_thread(move || {
            for backup in expired {
                // What is known of it goes first: without that it is no backup any more.
                storage.remove(&format!("{}.json", backup.filename))?;
                storage.remove(&backup.filename)?;
                tracing::info!(id = %backup.id, created_at = %backup.created_at, "removed a backup that was kept for long enough");
            }
            sweep(&storage, ARCHIVE, |_| Ok(false))
        })
        .await
    }

    /// Takes away copies that a process which was killed left beside the database.
    pub fn tidy(&self) {
        let (Some(folder), Some(name)) = (self.0.database.parent(), self.0.database.file_name()) else {
            return;
        };
        let prefix = format!("{}{SCRATCH}", name.to_string_lossy());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                drop(fs::remove_file(entry.path()));
            }
        }
    }
}

/// Takes away what writing archives of one kind left behind a day ago or longer: what has no name yet, and archives of which
/// nothing is known, but for those to keep.
pub(super) fn sweep(storage: &Storage, archive: &str, keep: impl Fn(&str) -> Result<bool, Error>) -> Result<(), Error> {
    let files = storage.list()?;
    let known = |name: &str| files.iter().any(|file| file.name == format!("{name}.json"));
    let now = Time::now().microseconds() / 1_000_000;
    for Kept { name, modified, .. } in &files {
        let is_old = now - modified > LEFT_BEHIND && name.starts_with("sealpod-");
        let is_partial = name.ends_with(PARTIAL) && name.contains(&format!("{archive}."));
        let is_alone = name.ends_with(archive) && !known(name);
        if is_old && (is_partial || is_alone && !keep(name)?) {
            storage.remove(name)?;
        }
    }
    Ok(())
}

/// An archive in the storage.
pub struct Stored {
    pub storage: Storage,
    pub name: String,
}

impl Source for Stored {
    type Reader = Download;

    fn open(&self) -> Result<Download, Error> {
        Ok(self.storage.open(&self.name)?)
    }
}

/// Makes a backup of the database at this path, which others may use meanwhile, and opens it again. Blocks.
pub fn write_archive(
    storage: &Storage,
    (database, keyring): (&Path, &Keyring),
    recipients: &[Recipient],
    trigger: Trigger,
) -> Result<Backup, Error> {
    let id = Uuid::now_v7();
    // 1. A copy as of one instant.
    let scratch = Scratch::new(beside(database, &format!("{SCRATCH}{id}")));
    room::require_copy(database)?;
    store::copy(database, &scratch.0)?;
    let facts = store::inspect(&scratch.0, keyring)?;
    // 2. Compressed and sealed on its way.
    let header = Header::new(id, CONTENT, facts.schema);
    let manifest = Manifest::of(&header, &scratch.0, &facts)?;
    let (created_at, key_id) = (header.created_at, keyring.current().to_string());
    let filename = named(created_at, "sealpod", id, ARCHIVE);
    let sink = Counted::new(storage.create(&filename)?);
    let sealer = Sealer::new(sink, header, keyring, recipients)?;
    let (inner, bytes, sha256) = content::pack(&manifest, &scratch.0, sealer)?.into_parts();
    inner.finish()?;
    drop(scratch);
    // 3. What the storage has opens again and is what the manifest says.
    let source = Stored {
        storage: storage.clone(),
        name: filename.clone(),
    };
    let asked = Asked {
        id: Some(id),
        keyring: Some(keyring),
        identity: None,
    };
    let folder = database.parent().unwrap_or(Path::new("."));
    if let Err(error) = verify(&source, &asked, folder) {
        drop(storage.remove(&filename));
        return Err(error);
    }
    // 4. Only now it is one.
    let backup = Backup {
        id,
        filename,
        size_bytes: bytes,
        sha256,
        key_id,
        created_at,
        trigger,
    };
    let json = serde_json::to_vec_pretty(&backup).expect("it has text and numbers only");
    storage.write(&format!("{}.json", backup.filename), &json)?;
    Ok(backup)
}

/// By its time, so that names sort by it.
pub(super) fn named(at: Time, what: &str, id: Uuid, suffix: &str) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let text = at.to_string();
    let (day, time) = text.split_at(10);
    format!("{what}-{}T{}Z-{id}{suffix}", digits(day), &digits(time)[..6])
}

/// Newest first.
pub fn list(storage: &Storage) -> Result<Vec<Backup>, Error> {
    Ok(newest_first(storage, &storage.list()?)?.0)
}

fn newest_first(storage: &Storage, files: &[Kept]) -> Result<(Vec<Backup>, bool), Error> {
    let (known, is_whole) = known_of::<Backup>(storage, files, KNOWN)?;
    // The name of the file is the one to be believed: it is what will be opened.
    let is_right = |(name, backup): &(String, Backup)| {
        let is_right = backup.filename == *name;
        if !is_right {
            tracing::warn!(file = name, "what is known of a backup is of another one");
        }
        is_right
    };
    let mut backups: Vec<_> = known.into_iter().filter(is_right).map(|(_, backup)| backup).collect();
    backups.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.created_at, backup.id)));
    Ok((backups, is_whole))
}

/// The archives of one kind with what is known of each, and whether every file could be read. What cannot be read is named in the log
/// and passed over: one damaged file must not hide the others. Where nothing can be read, that is an error.
pub(super) fn known_of<T: DeserializeOwned>(
    storage: &Storage,
    files: &[Kept],
    suffix: &str,
) -> Result<(Vec<(String, T)>, bool), Error> {
    let (mut known, mut failed) = (Vec::new(), None);
    for file in files.iter().filter(|file| file.name.ends_with(suffix)) {
        let content = match storage.read(&file.name) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(file = file.name, %error, "a file beside the backups cannot be read, and is passed over");
                failed = failed.or(Some(error));
                continue;
            }
        };
        let name = file.name.trim_end_matches(".json");
        match serde_json::from_slice(&content) {
            Ok(what) if files.iter().any(|file| file.name == name) => known.push((name.to_owned(), what)),
            _ => tracing::warn!(
                file = file.name,
                "a file beside the backups is not what was written there"
            ),
        }
    }
    match failed {
        Some(error) if known.is_empty() => Err(error.into()),
        failed => Ok((known, failed.is_none())),
    }
}

/// Counts and hashes what goes through.
pub(super) struct Counted<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W> Counted<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// With how much that was, and its hash as 64 hex digits.
    pub(super) fn into_parts(self) -> (W, u64, String) {
        (self.inner, self.bytes, HEXLOWER.encode(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Runs what takes long on a thread that gets what others leave of the processors.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (reply, answer) = oneshot::channel();
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
        let _entered = handle.enter();
        // Where it may not be, it is as urgent as everything else.
        let thread = rustix::thread::gettid();
        rustix::process::setpriority_process(Some(thread), 19).ok();
        // Whoever asked may have gone.
        reply.send(work()).ok();
    })?;
    let gone = || Error::from(io::Error::other("the thread of the backups panicked"));
    answer.await.map_err(|_| gone())?
}
