//! Which master keys the archives in the storage need. A key may be thrown away where this counts none, so whatever may need one
//! is counted, and where it cannot be known, there is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use uuid::Uuid;

use super::known::{ARCHIVE, KNOWN, Known, id_in, is_alone, is_young};
use super::storage::{Kept, PARTIAL, Storage, StorageError};
use super::{Error, archive, export};
use crate::crypto::MasterKeyId;

/// What was read of the files beside the archives, or of an archive itself. The storage is listed each time: other processes
/// write there as well. A file that is as it was is not read again.
#[derive(Default)]
pub(super) struct Needs {
    seen: Mutex<BTreeMap<String, Seen>>,
    /// The archive that is being made, if one is.
    making: Mutex<Option<Uuid>>,
}

#[derive(Clone)]
struct Seen {
    bytes: u64,
    modified: i64,
    keys: Keys,
}

/// Without these an archive is no use; `None` where that is not known.
type Keys = Option<BTreeSet<MasterKeyId>>;

impl Needs {
    pub(super) fn begin(&self, id: Uuid) {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    pub(super) fn end(&self) {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many archives need each key. One that is being made may need any of `ring`.
    pub(super) fn count(
        &self,
        storage: &Storage,
        ring: &[MasterKeyId],
    ) -> Result<Option<BTreeMap<MasterKeyId, u64>>, Error> {
        // 1. What is being made. Before the storage is looked at: what is finished meanwhile is in the one or the other.
        let making = *self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let files = storage.list()?;
        let is_made = |id: &Uuid| {
            let of_it = files.iter().filter(|file| id_in(&file.name) == Some(*id));
            of_it
                .map(|file| &file.name)
                .any(|name| name.ends_with(KNOWN) || name.ends_with(export::ARCHIVE))
        };
        let mut unfinished: BTreeSet<Option<Uuid>> = making.filter(|id| !is_made(id)).map(Some).into_iter().collect();
        unfinished.extend(
            files
                .iter()
                .filter(|file| is_begun(&files, file))
                .map(|file| id_in(&file.name)),
        );
        // 2. What is there.
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = BTreeMap::new();
        for file in &files {
            let Some(read) = reader_of(&files, &file.name) else {
                continue;
            };
            let known = before.get(&file.name);
            let known = known.filter(|seen| (seen.bytes, seen.modified) == (file.bytes, file.modified));
            let keys = match known {
                Some(seen) => seen.keys.clone(),
                None => match read(storage, &file.name) {
                    Err(Error::Storage(StorageError::Absent { .. })) => continue,
                    keys => keys?,
                },
            };
            if keys.is_none() {
                tracing::warn!(
                    file = file.name,
                    "it cannot be told which master keys the archive of this file needs"
                );
            }
            let (bytes, modified) = (file.bytes, file.modified);
            seen.insert(file.name.clone(), Seen { bytes, modified, keys });
        }
        let all: Option<Vec<_>> = seen.values().map(|seen| seen.keys.clone()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        let mut counts = BTreeMap::new();
        for key in all
            .iter()
            .flatten()
            .flatten()
            .chain(unfinished.iter().flat_map(|_| ring))
        {
            *counts.entry(*key).or_default() += 1;
        }
        Ok(all.map(|_| counts))
    }
}

/// Whether this is of a backup that somebody else is making, or of an archive that is being written.
fn is_begun(files: &[Kept], file: &Kept) -> bool {
    let unnamed = file.name.strip_suffix(PARTIAL);
    let is_partial = unnamed.is_some_and(|name| name.ends_with(ARCHIVE) || name.ends_with(export::ARCHIVE));
    is_young(file) && (is_partial || is_alone(files, &file.name, ARCHIVE))
}

type Reader = fn(&Storage, &str) -> Result<Keys, Error>;

/// What tells of the keys that an archive needs, where this is the file that does.
fn reader_of(files: &[Kept], name: &str) -> Option<Reader> {
    // Entries of the log are under the archive's own seal alone. One of which nothing is known may be the only copy even so.
    if name.ends_with(export::ARCHIVE) {
        return Some(of_export);
    }
    let archive = name.strip_suffix(KNOWN).filter(|name| name.ends_with(ARCHIVE))?;
    files.iter().any(|file| file.name == archive).then_some(of_backup)
}

fn of_backup(storage: &Storage, name: &str) -> Result<Keys, Error> {
    let content = match storage.read(name) {
        Err(StorageError::TooLarge { .. }) => return Ok(None),
        content => content?,
    };
    let known = serde_json::from_slice::<Known>(&content).ok();
    let known = known.filter(|known| Some(known.backup.filename.as_str()) == name.strip_suffix(KNOWN));
    let Some((Some(keys), key)) = known.map(|known| (known.master_keys, known.backup.key_id)) else {
        return Ok(None);
    };
    Ok(keys.iter().chain([&key]).map(|key| id_of(key)).collect())
}

fn of_export(storage: &Storage, name: &str) -> Result<Keys, Error> {
    match archive::header(&mut storage.open(name)?) {
        Ok(header) => Ok(id_of(&header.key_id).map(|key| BTreeSet::from([key]))),
        Err(error @ (Error::Storage(_) | Error::Io(_))) => Err(error),
        // Nobody can open it, whatever they have.
        Err(_) => Ok(Some(BTreeSet::new())),
    }
}

fn id_of(text: &str) -> Option<MasterKeyId> {
    MasterKeyId::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_makes_may_need_any_key_until_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(folder.path().to_owned());
        let ring = [[1; 8], [2; 8]].map(|id| MasterKeyId::from_bytes(&id).unwrap());
        let (needs, id) = (Needs::default(), Uuid::now_v7());
        let counts = || {
            needs
                .count(&storage, &ring)
                .unwrap()
                .unwrap()
                .into_values()
                .collect::<Vec<_>>()
        };
        assert_eq!(counts(), [0; 0]);
        // Before the storage shows anything of it, as a bucket does not before the end.
        needs.begin(id);
        assert_eq!(counts(), [1, 1]);
        let name = format!("sealpod-20261122T000000Z-{id}.backup");
        std::fs::write(folder.path().join(&name), "").unwrap();
        assert_eq!(counts(), [1, 1]);
        let known = format!(
            r#"{{"id":"{id}","filename":"{name}","size_bytes":0,"sha256":"","key_id":"{}","created_at":"2026-11-22T00:00:00Z",
                "trigger":"manual","master_keys":[]}}"#,
            ring[1]
        );
        std::fs::write(folder.path().join(format!("{name}.json")), known).unwrap();
        assert_eq!(
            needs.count(&storage, &ring).unwrap(),
            Some(BTreeMap::from([(ring[1], 1)]))
        );
        needs.end();
        assert_eq!(counts(), [1]);
    }
}
