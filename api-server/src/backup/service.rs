//! Making, listing and restoring backups: one at a time, on a thread of its own at the lowest priority.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::backups::{Backup, Trigger};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::known::{self, ARCHIVE, Told, database_name, sweep, withdraw};
use super::make::{Stored, write_archive_until};
use super::needs::{Needs, Unclear};
use super::restore::{Asked, Keep, Restored, block_on, restore, take_away};
use super::scratch::{self, folder_of};
use super::storage::Storage;
use super::worker::{Worker, aside};
use super::{Error, Recipient, room};
use crate::audit::{By, Chain, Entry, Kind, Verb};
use crate::crypto::{Keyring, MasterKeyId};
use crate::store::{Store, StoreError, beside};

/// What is [`Told`] of, beside files.
const OTHERS: &str = "backups of another database";

/// How long the end of a server waits for what it called off: some steps of a copy, and some requests to a bucket that answers.
const END: Duration = Duration::from_secs(5);

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
    pub(super) worker: Worker,
    turn: Arc<Semaphore>,
    /// The server ends: no copy of the database goes on.
    end: CancellationToken,
    needs: Needs,
    /// What stands in the storage and people were told of.
    pub(super) told: Told,
}

/// Nobody else makes or reads an archive. What works holds it until it is done, whether or not somebody still waits for that.
pub(super) struct Turn {
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.needs.end();
    }
}

impl Backups {
    /// Of the database at this path.
    pub fn new(settings: Settings, database: PathBuf, keyring: Keyring) -> Self {
        Self(Arc::new(Inner {
            settings,
            database,
            keyring,
            worker: Worker::default(),
            turn: Arc::new(Semaphore::new(1)),
            end: CancellationToken::new(),
            needs: Needs::default(),
            told: Told::default(),
        }))
    }

    pub(super) fn storage(&self) -> Result<Storage, Error> {
        self.0.settings.storage.clone().ok_or(Error::Disabled)
    }

    /// 503 before anything else is looked at.
    pub fn enabled(&self) -> Result<(), Error> {
        self.storage().map(drop)
    }

    /// To make the archive of this id, if one is to be made.
    pub(super) fn turn(&self, making: Option<Uuid>) -> Result<Turn, Error> {
        let permit = Arc::clone(&self.0.turn).try_acquire_owned().map_err(|_| Error::Busy)?;
        if let Some(id) = making {
            self.0.needs.begin(id, self.0.keyring.ids());
        }
        Ok(Turn {
            inner: Arc::clone(&self.0),
            _permit: permit,
        })
    }

    /// Makes a backup; returns once it was opened and checked, and is on record. One that cannot be put on record is kept,
    /// and named in the log: its copy may be needed most where the database takes no entry any more.
    pub async fn create(&self, store: &Store, trigger: Trigger, by: By) -> Result<Backup, Error> {
        let storage = self.storage()?;
        room::require_reserve(store)?;
        let id = Uuid::now_v7();
        let (turn, store) = (self.turn(Some(id))?, store.clone());
        // As far as the record: nothing comes in between, were it that nobody waits for it any more.
        let work = move || {
            let Inner {
                settings,
                database,
                keyring,
                end,
                ..
            } = &*turn.inner;
            let from = (&**database, keyring);
            let made = write_archive_until(end, id, &storage, from, &settings.recipients, trigger);
            let made = made.inspect_err(|error| {
                if let Error::Open(error) = error {
                    store.note_copy(error);
                }
            })?;
            let entry = Entry::new(Kind::Backup, Verb::Create).resource(id, &made.filename);
            let recorded = on_record(|| block_on(store.record(Chain::Instance, entry.clone(), by.clone())));
            recorded.inspect_err(|error| {
                tracing::warn!(
                    %error,
                    file = made.filename,
                    "a backup was made and checked, and could not be put on record; it is kept"
                );
            })?;
            Ok(made)
        };
        let made = self.0.worker.run(work).await?;
        tracing::info!(id = %made.id, bytes = made.size_bytes, trigger = trigger.as_str(), "made and checked a backup");
        Ok(made)
    }

    /// Newest first.
    pub async fn list(&self) -> Result<Vec<Backup>, Error> {
        let storage = self.storage()?;
        aside(move || known::list(&storage)).await
    }

    /// As [`Self::list`], of this database. Those of another one in the same place, such as the one that this was restored from,
    /// are not: whoever has that may still be at work. They are told of once.
    pub async fn own(&self, store: &Store) -> Result<Vec<Backup>, Error> {
        let (storage, inner, epoch) = (self.storage()?, Arc::clone(&self.0), store.epoch());
        aside(move || {
            let all = known::all(&storage)?;
            let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|known| known.is_of(epoch));
            match others.first() {
                None => inner.told.settle(OTHERS),
                Some(newest) if inner.told.is_new(OTHERS) => tracing::warn!(
                    count = others.len(),
                    newest = newest.backup.filename,
                    "beside the backups of this database are some of another one, or of before it was restored; they are listed, and go only by hand"
                ),
                Some(_) => {}
            }
            Ok(own.into_iter().map(|known| known.backup).collect())
        })
        .await
    }

    /// How many backups, exports and copies beside the database need each master key.
    pub async fn by_key(&self) -> Result<BTreeMap<MasterKeyId, u64>, Unclear> {
        let storage = self.storage().map_err(|_| Unclear::NoPlace)?;
        let inner = Arc::clone(&self.0);
        let count = move || Ok(inner.needs.count((&storage, &inner.database), &inner.keyring));
        let counted = aside(count).await;
        counted.unwrap_or_else(|error| Err(Unclear::unlisted(&error)))
    }

    pub async fn get(&self, id: Uuid) -> Result<Backup, Error> {
        let found = self.list().await?.into_iter().find(|backup| backup.id == id);
        found.ok_or(Error::Unknown)
    }

    /// Restores to a file beside the database. Its sessions and keys are ended.
    pub async fn restore(&self, store: &Store, id: Uuid, by: By) -> Result<Restored, Error> {
        let storage = self.storage()?;
        room::require_reserve(store)?;
        let (turn, store) = (self.turn(None)?, store.clone());
        let name = self.get(id).await?.filename;
        let work = move || {
            let entry = Entry::new(Kind::Backup, Verb::Restore).resource(id, &name);
            let target = beside(&turn.inner.database, &format!(".restore.{id}"));
            let asked = Asked {
                id: Some(id),
                keyring: Some(&turn.inner.keyring),
                identity: None,
            };
            let noted = by.clone();
            let restored = restore(
                &Stored { storage, name },
                &asked,
                &target,
                Keep::Nothing,
                |_| Ok(()),
                noted,
            )?;
            let recorded = on_record(|| block_on(store.record(Chain::Instance, entry.clone(), by.clone())));
            // One that is not on record is none.
            recorded.inspect_err(|_| take_away(&target))?;
            Ok(restored)
        };
        let restored = self.0.worker.run(work).await?;
        let database = database_name(restored.manifest.epoch);
        tracing::info!(%id, database, path = %restored.path.display(), "restored a backup beside the database; to switch, stop the server and put the file in its place");
        Ok(restored)
    }

    /// Removes these, once none of them is being restored, and what belongs to no backup, whose age is by the `judged` time. What
    /// cannot be removed keeps nothing else from it, and the first error is answered.
    pub async fn remove(&self, expired: Vec<Backup>, judged: Time) -> Result<(), Error> {
        let (storage, inner) = (self.storage()?, Arc::clone(&self.0));
        let turn = if expired.is_empty() {
            None
        } else {
            Some(Arc::clone(&inner.turn).acquire_owned().await.map_err(|_| Error::Busy)?)
        };
        aside(move || {
            let mut failed = None;
            for backup in expired {
                match withdraw(&storage, &backup.filename) {
                    Ok(()) => {
                        tracing::info!(id = %backup.id, created_at = %backup.created_at, "removed a backup that was kept for long enough");
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            drop(turn);
            let swept = sweep((&storage, &inner.told), ARCHIVE, judged, |_| Ok(false));
            failed.map_or(swept, Err)
        })
        .await
    }

    /// At the end of the server: a copy of the database is called off, whose reading keeps the log from being copied, and what the
    /// storage has of an upload that is under way is given up, and not left there. Waits for that, but not for long.
    pub async fn end(&self) {
        let Some(storage) = &self.0.settings.storage else {
            return;
        };
        self.0.end.cancel();
        storage.end();
        let is_done = Arc::clone(&self.0.turn).acquire_owned();
        if tokio::time::timeout(END, is_done).await.is_err() {
            tracing::warn!(
                "what was under way with the backups (one that is made, restored or removed, or an export of the audit log) did not end in time; a file of it goes a day later, a copy beside the database at the next start, and parts of an upload by the rules of the bucket"
            );
        }
    }

    /// Takes away copies that processes which were killed left beside the database.
    pub fn tidy(&self) {
        scratch::tidy(folder_of(&self.0.database));
        scratch::tidy_earlier(&self.0.database);
    }
}

/// Does it once more where the disk was full: that gave the reserve up, and an entry may be written from it.
fn on_record(mut record: impl FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
    match record() {
        Err(StoreError::DiskFull) => record(),
        recorded => recorded,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::crypto::generate_master_key;

    #[tokio::test]
    async fn a_backup_that_is_being_restored_is_removed_behind_that_only() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            storage: Some(Storage::Directory(folder.path().to_owned())),
            recipients: Vec::new(),
        };
        let keyring = Keyring::parse(generate_master_key().expose()).unwrap();
        let backups = Backups::new(settings, folder.path().join("sealpod.db"), keyring);
        let name = "sealpod-20261122T000000Z-01890a5d-ac96-774b-bcce-b302099a8057.backup";
        fs::write(folder.path().join(name), "").unwrap();
        let expired: Backup = serde_json::from_value(serde_json::json!({
            "id": "01890a5d-ac96-774b-bcce-b302099a8057", "filename": name, "size_bytes": 0, "sha256": "", "key_id": "",
            "created_at": "2026-11-22T00:00:00Z", "trigger": "schedule",
        }))
        .unwrap();
        let restoring = backups.turn(None).unwrap();
        let removing = backups.remove(vec![expired], Time::now());
        tokio::pin!(removing);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut removing).await;
        assert!(early.is_err() && folder.path().join(name).exists());
        drop(restoring);
        removing.await.unwrap();
        assert!(!folder.path().join(name).exists());
    }
}
