//! Which master keys the archives in the storage need, and the copies beside the database. A key may be thrown away where
//! this counts none, so whatever may need one is counted, and where it cannot be known, there is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use data_encoding::HEXLOWER;
use sealpod_core::Time;
use uuid::Uuid;

use super::archive::{Keys as Opening, Looked, Opener, look};
use super::content::Unpacking;
use super::known::{ARCHIVE, KNOWN, Known, id_in, is_alone, is_young};
use super::storage::{Kept, PARTIAL, Storage, StorageError};
use super::{Error, copies, export};
use crate::crypto::{Keyring, MasterKeyId};

/// Why it is not known how many backups need each master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    #[error("no place for backups is set: keep a key while a backup elsewhere needs it")]
    NoPlace,
    #[error("the backups could not be listed; the server's log says why")]
    Storage,
    #[error(
        "it cannot be told which keys these need: {}; put the key that opens them into the key file, or move them away",
        names(.0)
    )]
    Unread(Vec<String>),
}

impl Unclear {
    pub(super) fn unlisted(error: &Error) -> Self {
        tracing::warn!(%error, "the backups could not be listed");
        Self::Storage
    }
}

/// Some of them: one that is looked after brings the next.
fn names(files: &[String]) -> String {
    const MOST: usize = 3;
    let named = files
        .iter()
        .take(MOST)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match files.len().saturating_sub(MOST) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What was read of the files beside the archives, or of an archive itself. The storage is listed each time: other processes
/// write there as well. A file that is as it was is not read again.
#[derive(Default)]
pub(super) struct Needs {
    seen: Mutex<BTreeMap<String, Seen>>,
    /// The archive that is being made, if one is, with the keys that there were when it was begun.
    making: Mutex<Option<(Uuid, BTreeSet<MasterKeyId>)>>,
}

#[derive(Clone)]
struct Seen {
    bytes: u64,
    modified: i64,
    keys: Keys,
    /// The keys that it was read with: with others more of it may open.
    ring: BTreeSet<MasterKeyId>,
}

impl Seen {
    /// None where the file is gone by now.
    fn read(
        file: &Kept,
        read: impl FnOnce() -> Result<Keys, Error>,
        ring: &BTreeSet<MasterKeyId>,
    ) -> Result<Option<Self>, Error> {
        let keys = match read() {
            Err(Error::Storage(StorageError::Absent { .. })) => return Ok(None),
            keys => keys?,
        };
        if keys.is_none() {
            tracing::warn!(
                file = file.name,
                "it cannot be told which master keys the archive of this file needs"
            );
        }
        Ok(Some(Self {
            bytes: file.bytes,
            modified: file.modified,
            keys,
            ring: ring.clone(),
        }))
    }

    fn is_of(&self, file: &Kept, ring: &BTreeSet<MasterKeyId>) -> bool {
        (self.bytes, self.modified) == (file.bytes, file.modified) && (self.keys.is_some() || self.ring == *ring)
    }
}

/// Without these an archive is no use; `None` where that is not known.
type Keys = Option<BTreeSet<MasterKeyId>>;
/// Those that each archive may need which is being made.
type Unfinished = Vec<BTreeSet<MasterKeyId>>;

impl Needs {
    pub(super) fn begin(&self, id: Uuid, ring: impl Iterator<Item = MasterKeyId>) {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, ring.collect()));
    }

    pub(super) fn end(&self) {
        *self.making.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many archives, and copies of the database beside it, need each key; or the names of those of which it cannot be
    /// told. One that is being made may need any of the keyring's, and any that was in it at its beginning: it goes on with
    /// the keys of an instant in between.
    pub(super) fn count(
        &self,
        of: (&Storage, &Path),
        keyring: &Keyring,
    ) -> Result<BTreeMap<MasterKeyId, u64>, Unclear> {
        let (unfinished, seen) = self.look(of, keyring).map_err(|error| Unclear::unlisted(&error))?;
        let unread: Vec<_> = seen.iter().filter(|(_, seen)| seen.keys.is_none()).collect();
        let unread: Vec<_> = unread.into_iter().map(|(name, _)| name.clone()).collect();
        let mut counts = BTreeMap::new();
        let read = seen.values().filter_map(|seen| seen.keys.as_ref());
        for key in read.chain(&unfinished).flatten() {
            *counts.entry(*key).or_default() += 1;
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        if unread.is_empty() {
            Ok(counts)
        } else {
            Err(Unclear::Unread(unread))
        }
    }

    /// What may need a key: of each that is not finished those that it may, and what is there, by its name.
    fn look(
        &self,
        (storage, database): (&Storage, &Path),
        keyring: &Keyring,
    ) -> Result<(Unfinished, BTreeMap<String, Seen>), Error> {
        // 1. What is being made. Before the storage is looked at: what is finished meanwhile is in the one or the other.
        let making = self.making.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (ring, now): (BTreeSet<_>, _) = (keyring.ids().collect(), Time::now());
        let files = storage.list()?;
        let unfinished = unfinished(&files, &ring, making, now);
        // 2. What is there.
        let before = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = BTreeMap::new();
        let archives = files
            .iter()
            .filter_map(|file| Some((file, reader_of(&files, file, now)?)));
        let beside = copies::beside_database(database)?;
        for (file, read) in archives.chain(beside.iter().map(|copy| (copy, of_copy as Reader))) {
            let known = before.get(&file.name).filter(|seen| seen.is_of(file, &ring));
            let known = match known {
                Some(known) => Some(known.clone()),
                None => Seen::read(file, || read(storage, keyring, &file.name), &ring)?,
            };
            seen.extend(known.map(|known| (file.name.clone(), known)));
        }
        Ok((unfinished, seen))
    }
}

/// Of whoever makes one the ring of now is known, and of this process also that of the beginning.
fn unfinished(
    files: &[Kept],
    ring: &BTreeSet<MasterKeyId>,
    making: Option<(Uuid, BTreeSet<MasterKeyId>)>,
    now: Time,
) -> Unfinished {
    let is_made = |id: &Uuid| {
        let mut of_it = files.iter().filter(|file| id_in(&file.name) == Some(*id));
        of_it.any(|file| file.name.ends_with(KNOWN) || file.name.ends_with(export::ARCHIVE))
    };
    let begun = files.iter().filter(|file| is_begun(files, file, now));
    // What people named themselves has no id.
    let of = |file: &Kept| id_in(&file.name).map_or_else(|| file.name.clone(), |id| id.to_string());
    let mut unfinished: BTreeMap<_, _> = begun.map(|file| (of(file), ring.clone())).collect();
    if let Some((id, then)) = making.filter(|(id, _)| !is_made(id)) {
        unfinished.insert(id.to_string(), ring | &then);
    }
    unfinished.into_values().collect()
}

/// Whether this is of a backup that somebody else is making, or of an archive that is being written.
fn is_begun(files: &[Kept], file: &Kept, now: Time) -> bool {
    let unnamed = file.name.strip_suffix(PARTIAL);
    let is_partial = unnamed.is_some_and(|name| name.ends_with(ARCHIVE) || name.ends_with(export::ARCHIVE));
    is_young(file, now) && (is_partial || is_alone(files, &file.name, ARCHIVE))
}

type Reader = fn(&Storage, &Keyring, &str) -> Result<Keys, Error>;

/// What tells of the keys that an archive needs, where this is the file that does.
fn reader_of(files: &[Kept], file: &Kept, now: Time) -> Option<Reader> {
    let name = file.name.as_str();
    // Entries of the log are under the archive's own seal alone. One of which nothing is known may be the only copy even so.
    if name.ends_with(export::ARCHIVE) {
        return Some(of_export);
    }
    // Nor is one that was copied alone removed by anybody; one that is new may be somebody's who is at work.
    if is_alone(files, name, ARCHIVE) && !is_young(file, now) {
        return Some(of_lone);
    }
    let archive = name.strip_suffix(KNOWN).filter(|name| name.ends_with(ARCHIVE))?;
    files.iter().any(|file| file.name == archive).then_some(of_backup)
}

/// As the file beside it says, or, where that does not (earlier versions wrote no keys there), the archive itself.
fn of_backup(storage: &Storage, keyring: &Keyring, name: &str) -> Result<Keys, Error> {
    let archive = name.strip_suffix(KNOWN).expect("only such a name has this reader");
    let content = match storage.read(name) {
        Err(StorageError::TooLarge { .. }) => Vec::new(),
        content => content?,
    };
    let known = serde_json::from_slice::<Known>(&content).ok();
    let known = known.filter(|known| known.backup.filename == archive);
    match known.map(|known| (known.master_keys, known.backup.key_id)) {
        Some((Some(keys), key)) => Ok(ids_of(&keys, &key)),
        _ => of_manifest(storage, keyring, archive),
    }
}

/// Reads the beginning only. What does not open with these keys says nothing.
fn of_manifest(storage: &Storage, keyring: &Keyring, archive: &str) -> Result<Keys, Error> {
    let opened = Opener::new(storage.open(archive)?, &Opening::Keyring(keyring)).and_then(|(opener, _)| {
        let key = opener.header.key_id.clone();
        Ok((Unpacking::begin(opener)?.manifest, key))
    });
    match opened {
        Ok((manifest, key)) => Ok(ids_of(&manifest.master_keys, &key)),
        Err(error @ (Error::Storage(_) | Error::Io(_))) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A backup of which nothing is known. What is none needs no key.
fn of_lone(storage: &Storage, keyring: &Keyring, name: &str) -> Result<Keys, Error> {
    match look(&mut storage.open(name)?)? {
        Looked::Header(_) => of_manifest(storage, keyring, name),
        Looked::OtherForm => Ok(None),
        Looked::None => Ok(Some(BTreeSet::new())),
    }
}

fn of_export(storage: &Storage, _: &Keyring, name: &str) -> Result<Keys, Error> {
    match look(&mut storage.open(name)?)? {
        Looked::Header(header) => Ok(id_of(&header.key_id).map(|key| BTreeSet::from([key]))),
        Looked::OtherForm => Ok(None),
        Looked::None => Ok(Some(BTreeSet::new())),
    }
}

/// What cannot be read may need any.
fn of_copy(_: &Storage, _: &Keyring, path: &str) -> Result<Keys, Error> {
    match copies::keys_of(Path::new(path)) {
        Ok(keys) => Ok(Some(keys)),
        // Somebody removed it meanwhile.
        Err(_) if !Path::new(path).exists() => Err(Error::Storage(StorageError::Absent {
            place: "the folder of the database".to_owned(),
            name: path.to_owned(),
        })),
        Err(error) => {
            tracing::warn!(path, %error, "a copy of the database cannot be read");
            Ok(None)
        }
    }
}

fn ids_of(keys: &[String], key: &String) -> Keys {
    keys.iter().chain([key]).map(|key| id_of(key)).collect()
}

fn id_of(text: &str) -> Option<MasterKeyId> {
    MasterKeyId::from_bytes(&HEXLOWER.decode(text.as_bytes()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::generate_master_key;

    /// A new key alone, and before this one.
    fn rings() -> (Keyring, Keyring) {
        let (old, new) = (generate_master_key(), generate_master_key());
        let both = format!("{}\n{}", new.expose(), old.expose());
        (Keyring::parse(old.expose()).unwrap(), Keyring::parse(&both).unwrap())
    }

    #[test]
    fn what_this_process_makes_may_need_any_key_until_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(folder.path().to_owned());
        let (_, ring) = rings();
        let ids: Vec<_> = ring.ids().collect();
        let (needs, id) = (Needs::default(), Uuid::now_v7());
        let counts = || {
            let counts = needs
                .count((&storage, &folder.path().join("sealpod.db")), &ring)
                .unwrap();
            counts.into_values().collect::<Vec<_>>()
        };
        assert_eq!(counts(), [0; 0]);
        // Before the storage shows anything of it, as a bucket does not before the end.
        needs.begin(id, ring.ids());
        assert_eq!(counts(), [1, 1]);
        let name = format!("sealpod-20261122T000000Z-{id}.backup");
        std::fs::write(folder.path().join(&name), "").unwrap();
        assert_eq!(counts(), [1, 1]);
        let known = format!(
            r#"{{"id":"{id}","filename":"{name}","size_bytes":0,"sha256":"","key_id":"{}","created_at":"2026-11-22T00:00:00Z",
                "trigger":"manual","master_keys":[]}}"#,
            ids[1]
        );
        std::fs::write(folder.path().join(format!("{name}.json")), known).unwrap();
        assert_eq!(
            needs.count((&storage, &folder.path().join("sealpod.db")), &ring),
            Ok(BTreeMap::from([(ids[1], 1)]))
        );
        needs.end();
        assert_eq!(counts(), [1]);
    }

    #[test]
    fn what_is_being_made_counts_for_a_key_that_left_the_keyring_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(folder.path().to_owned());
        let (ring, other) = (rings().1, rings().0);
        let needs = Needs::default();
        let (id, then) = (Uuid::now_v7(), ring.ids().collect::<Vec<_>>());
        needs.begin(id, ring.ids());
        // The copy has been made with the keys of before.
        ring.replace(&other);
        let all = then.into_iter().chain(other.ids()).map(|key| (key, 1));
        let all: BTreeMap<_, _> = all.collect();
        let count = || needs.count((&storage, &folder.path().join("sealpod.db")), &ring);
        assert_eq!(count().as_ref(), Ok(&all));
        // So it is as long as its upload is under a name that tells of it.
        let partial = format!("sealpod-20261122T000000Z-{id}.backup.partial");
        std::fs::write(folder.path().join(partial), "").unwrap();
        assert_eq!(count(), Ok(all));
    }

    #[test]
    fn an_export_in_the_form_of_another_version_may_need_any_key() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(folder.path().to_owned());
        let (_, ring) = rings();
        let name = format!("sealpod-audit-20261122T000000Z-{}.audit", Uuid::now_v7());
        let needed = |content: &[u8]| {
            std::fs::write(folder.path().join(&name), content).unwrap();
            let database = folder.path().join("sealpod.db");
            Needs::default().count((&storage, &database), &ring)
        };
        let json = br#"{"format":2}"#;
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        assert_eq!(
            needed(&[b"SEALPOD-ARCHIVE\n", &length[..], json].concat()),
            Err(Unclear::Unread(vec![name.clone()]))
        );
        assert_eq!(needed(b"no archive"), Ok(BTreeMap::new()));
    }
}
