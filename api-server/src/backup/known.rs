//! What stands beside the archives in the storage, and what of all that is there belongs to nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sealpod_core::Time;
use sealpod_core::wire::backups::Backup;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use super::archive::{Looked, look};
use super::storage::{Kept, PARTIAL, Storage};

/// How the names of backups end.
pub(super) const ARCHIVE: &str = ".backup";
/// And of what is known of an archive: the archive's name and this.
pub(super) const KNOWN: &str = ".json";
/// And of the empty file that stands there until the archive was opened again: the archive's name and this. In a directory it
/// becomes the one with what is known, which is written under this name.
const UNPROVEN: &str = ".json.partial";
/// Digits of a database's name.
const NAME: usize = 8;
/// How old what belongs to nothing that was finished has to be before it is taken away, in seconds.
const LEFT_BEHIND: i64 = 24 * 3_600;

/// What people were told of, by the name of a file or of what it is about: each once, until it is settled.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    /// Whether nobody was told of it yet.
    pub(super) fn is_new(&self, name: &str) -> bool {
        self.names().insert(name.to_owned())
    }

    /// Of a file that cannot be read.
    pub(super) fn warn(&self, name: &str, error: &Error) {
        if self.is_new(name) {
            tracing::warn!(file = name, %error, "an archive beside the backups cannot be read, and is left as it is");
        }
    }

    pub(super) fn settle(&self, name: &str) {
        self.names().remove(name);
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Whole after every single step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that makes an archive a backup.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Known {
    #[serde(flatten)]
    pub(super) backup: Backup,
    /// Ids of all master keys without which it is no use: the one that opens it, and those that its database needs. Not in
    /// what earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) master_keys: Option<Vec<String>>,
    /// The epoch of the database that it is of, which is another one in every database that was restored: only who has it
    /// takes the backup away by its age. Not in what earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<Uuid>,
}

impl Known {
    /// Whether it is of the database with this epoch, as far as it says.
    pub(super) fn is_of(&self, epoch: Uuid) -> bool {
        self.epoch.is_none_or(|own| own == epoch)
    }
}

/// By its time, so that names sort by it.
pub(super) fn named(at: Time, what: &str, id: Uuid, suffix: &str) -> String {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let text = at.to_string();
    let (day, time) = text.split_at(10);
    format!("{what}-{}T{}Z-{id}{suffix}", digits(day), &digits(time)[..6])
}

/// The id in such a name.
pub(super) fn id_in(name: &str) -> Option<Uuid> {
    let (stem, _) = name.split_once('.')?;
    stem.get(stem.len().checked_sub(36)?..)?.parse().ok()
}

/// The backups, newest first, of whichever database.
pub fn list(storage: &Storage) -> Result<Vec<Backup>, Error> {
    Ok(all(storage)?.into_iter().map(|known| known.backup).collect())
}

/// As [`list`], each with the epoch of its database; without one where an earlier version made it.
pub fn list_with_epochs(storage: &Storage) -> Result<Vec<(Backup, Option<Uuid>)>, Error> {
    let all = all(storage)?.into_iter();
    Ok(all.map(|known| (known.backup, known.epoch)).collect())
}

/// What people call the database of an epoch: the end of it, because the beginning is a time, which databases share that were
/// made or restored within a minute.
pub fn database_name(epoch: Uuid) -> String {
    let digits = epoch.simple().to_string();
    digits[digits.len() - NAME..].to_owned()
}

/// As [`list`], with all that is known of them.
pub(super) fn all(storage: &Storage) -> Result<Vec<Known>, Error> {
    let mut all = Vec::new();
    for (name, known) in known_of::<Known>(storage, &storage.list()?, ARCHIVE)? {
        // The name of the file is the one to be believed: it is what will be opened.
        if known.backup.filename == name {
            all.push(known);
        } else {
            tracing::warn!(file = name, "what is known of a backup is of another one");
        }
    }
    all.sort_unstable_by_key(|known| std::cmp::Reverse((known.backup.created_at, known.backup.id)));
    Ok(all)
}

/// The archives of one kind with what is known of each. What cannot be read is named in the log and passed over: one damaged
/// file must not hide the others. Where nothing can be read, that is an error.
pub(super) fn known_of<T: DeserializeOwned>(
    storage: &Storage,
    files: &[Kept],
    archive: &str,
) -> Result<Vec<(String, T)>, Error> {
    let (mut known, mut failed) = (Vec::new(), None);
    for file in files {
        let name = file.name.strip_suffix(KNOWN).filter(|name| name.ends_with(archive));
        // Whoever removes an archive may not have come to what is known of it.
        let name = name.filter(|name| files.iter().any(|file| file.name == *name));
        let Some(name) = name else { continue };
        let content = match storage.read(&file.name) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(file = file.name, %error, "a file beside the backups cannot be read, and is passed over");
                failed = failed.or(Some(error));
                continue;
            }
        };
        if let Ok(what) = serde_json::from_slice(&content) {
            known.push((name.to_owned(), what));
        } else {
            tracing::warn!(
                file = file.name,
                "a file beside the backups is not what was written there"
            );
        }
    }
    match failed {
        Some(error) if known.is_empty() => Err(error.into()),
        _ => Ok(known),
    }
}

/// Takes an archive away. What is known of it goes last: where the archive cannot be removed it is still listed, and tried again;
/// an archive alone would stay for ever.
pub(super) fn withdraw(storage: &Storage, name: &str) -> Result<(), Error> {
    storage.remove(name)?;
    Ok(storage.remove(&format!("{name}{KNOWN}"))?)
}

/// An archive is about to get its name, and to be opened again: who is cut off there leaves one that is no backup.
pub(super) fn mark(storage: &Storage, name: &str) -> Result<(), Error> {
    Ok(storage.write(&format!("{name}{UNPROVEN}"), b"")?)
}

/// Whether the archive of this name is marked as one that may be none.
pub(super) fn is_marked(files: &[Kept], name: &str) -> bool {
    files.iter().any(|file| file.name == format!("{name}{UNPROVEN}"))
}

/// It is a backup now. A mark that stays beside what is known of it says nothing, and is left behind in a day.
pub(super) fn unmark(storage: &Storage, name: &str) {
    drop(storage.remove(&format!("{name}{UNPROVEN}")));
}

/// As [`withdraw`], where something failed already. The mark stays for as long as the archive may: one that could not be removed
/// here goes by it in a day.
pub(super) fn give_up(storage: &Storage, name: &str) {
    // What took its place may have failed, and taken it away.
    drop(mark(storage, name));
    match withdraw(storage, name) {
        Ok(()) => unmark(storage, name),
        Err(error) => {
            tracing::warn!(%error, file = name, "what is left of an archive that is none could not be removed");
        }
    }
}

/// Takes away what writing archives of one kind left behind a day ago or longer, by the `judged` time, since a clock that was set
/// forward ends nobody's work: what has no name yet, what has the name of an archive and is none, and what is known of an archive
/// that is gone. An archive stays even if what was known of it is lost, as it is where somebody copied it alone: it may be the only
/// one. So does what cannot be read, and what `is_needed` whatever became of it. One that is marked was never opened again, and
/// goes. What cannot be removed keeps nothing else from it; the first error is answered.
pub(super) fn sweep(
    (storage, told): (&Storage, &Told),
    archive: &str,
    judged: Time,
    is_needed: impl Fn(Uuid) -> Result<bool, Error>,
) -> Result<(), Error> {
    let mut files = storage.list()?;
    // An archive before its mark, which is not to be the one that is left.
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut there: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut failed = None;
    for file in &files {
        let name = &file.name;
        // What people named themselves has no id.
        let Some(id) = id_in(name).filter(|_| name.starts_with("sealpod-")) else {
            continue;
        };
        let found = Found {
            name,
            archive,
            is_young: is_young(file, judged),
        };
        if !found.is_left_behind((storage, told), &there, || is_needed(id))? {
            continue;
        }
        match storage.remove(name) {
            Ok(()) => {
                tracing::info!(file = name, "removed what belongs to no backup and no export");
                there.remove(name);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// A file that has the id of an archive of this kind in its name.
struct Found<'a> {
    name: &'a str,
    archive: &'a str,
    is_young: bool,
}

impl Found<'_> {
    /// Whether it is to be taken away, where there are files of these names.
    fn is_left_behind(
        &self,
        (storage, told): (&Storage, &Told),
        there: &BTreeSet<String>,
        is_needed: impl Fn() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let Self { name, archive, .. } = *self;
        let beside = |name: &str, suffix: &str| there.contains(&format!("{name}{suffix}"));
        let archive_of = |suffix| name.strip_suffix(suffix).filter(|of| of.ends_with(archive));
        if let Some(of) = archive_of(UNPROVEN) {
            // By this that archive goes, for as long as it is there alone.
            return Ok(!self.is_young && (!there.contains(of) || beside(of, KNOWN)));
        }
        if let Some(of) = archive_of(KNOWN) {
            if there.contains(of) {
                told.settle(name);
                return Ok(false);
            }
            if told.is_new(name) {
                tracing::warn!(
                    file = name,
                    "the archive that this file tells of is not beside it any more"
                );
                // Whoever copies both may come to the archive later.
                return Ok(false);
            }
            return Ok(!self.is_young && !is_needed()?);
        }
        if self.is_young || beside(name, KNOWN) {
            return Ok(false);
        }
        if name.ends_with(PARTIAL) {
            return Ok(name.contains(&format!("{archive}.")));
        }
        Ok(name.ends_with(archive)
            && !is_needed()?
            && (beside(name, UNPROVEN) || !may_be_archive((storage, told), name)))
    }
}

fn may_be_archive((storage, told): (&Storage, &Told), name: &str) -> bool {
    let read = storage.open(name).map_err(Error::from);
    is_archive((name, told), read.and_then(|mut file| look(&mut file)))
}

/// Whether this is an archive, or may be.
fn is_archive((name, told): (&str, &Told), looked: Result<Looked, Error>) -> bool {
    match looked {
        Err(error) => {
            told.warn(name, &error);
            true
        }
        Ok(looked) => {
            told.settle(name);
            match looked {
                Looked::Header(_) | Looked::OtherForm => true,
                Looked::None => false,
            }
        }
    }
}

/// Whether it may be of somebody who is still at work.
pub(super) fn is_young(file: &Kept, now: Time) -> bool {
    now.microseconds() / 1_000_000 - file.modified <= LEFT_BEHIND
}

/// Whether this is an archive of which nothing is known.
pub(super) fn is_alone(files: &[Kept], name: &str, archive: &str) -> bool {
    name.ends_with(archive) && !files.iter().any(|file| file.name == format!("{name}{KNOWN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn databases_that_were_made_at_the_same_time_have_other_names() {
        assert_eq!(database_name(ID.parse().unwrap()), "099a8057");
        assert_ne!(database_name(Uuid::now_v7()), database_name(Uuid::now_v7()));
    }

    #[test]
    fn what_may_be_an_archive_is_kept() {
        let told = Told::default();
        let is_kept = |looked| is_archive(("name", &told), looked);
        let looked = |mut content: &[u8]| is_kept(look(&mut content));
        let head = |json: &[u8]| {
            let length = u32::try_from(json.len()).unwrap().to_be_bytes();
            [b"SEALPOD-ARCHIVE\n", &length[..], json].concat()
        };
        assert!(is_kept(Err(Error::Io(std::io::ErrorKind::PermissionDenied.into()))));
        assert!(!told.is_new("name"));
        assert!(looked(&head(br#"{"format":2}"#)) && told.is_new("name"));
        assert!(!looked(b"no archive") && !looked(b"SEALPOD-ARCHIVE\n") && !looked(&head(b"{")));
    }

    /// A storage with these files of an archive, each a byte, and all two days old but for what is there `now`.
    fn with(old: &[&str], now: &[&str]) -> (tempfile::TempDir, Storage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Directory(folder.path().to_owned());
        for end in old.iter().chain(now) {
            storage
                .write(&format!("sealpod-20261122T000000Z-{ID}{end}"), b"x")
                .unwrap();
        }
        for end in old {
            let path = folder.path().join(format!("sealpod-20261122T000000Z-{ID}{end}"));
            let then = std::time::SystemTime::now() - std::time::Duration::from_hours(48);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(then).unwrap();
        }
        (folder, storage)
    }

    fn left(storage: &Storage) -> Vec<String> {
        let names = storage.list().unwrap().into_iter().map(|file| file.name);
        let mut ends: Vec<_> = names.map(|name| name.split_once(ID).unwrap().1.to_owned()).collect();
        ends.sort();
        ends
    }

    #[test]
    fn a_mark_stays_as_long_as_its_archive_does() {
        let sweep = |(_folder, storage): (tempfile::TempDir, Storage), is_needed| {
            sweep((&storage, &Told::default()), ARCHIVE, Time::now(), |_| Ok(is_needed)).unwrap();
            left(&storage)
        };
        let (archive, mark) = (ARCHIVE, ".backup.json.partial");
        assert_eq!(sweep(with(&[archive, mark], &[]), false), [""; 0]);
        assert_eq!(sweep(with(&[archive, mark], &[]), true), [archive, mark]);
        assert_eq!(sweep(with(&[mark], &[archive]), false), [archive, mark]);
        assert_eq!(sweep(with(&[mark], &[]), false), [""; 0]);
        assert_eq!(
            sweep(with(&[archive, ".backup.json", mark], &[]), false),
            [archive, ".backup.json"]
        );
    }

    #[test]
    fn what_is_known_of_an_archive_that_is_gone_is_told_of_and_then_goes_once_it_is_old() {
        let told = Told::default();
        let sweep = |storage: &Storage| {
            sweep((storage, &told), ARCHIVE, Time::now(), |_| Ok(false)).unwrap();
            left(storage)
        };
        let (_folder, storage) = with(&[".backup.json"], &[]);
        assert_eq!(sweep(&storage), [".backup.json"]);
        // It was on its way.
        storage
            .write(&format!("sealpod-20261122T000000Z-{ID}.backup"), b"x")
            .unwrap();
        assert_eq!(sweep(&storage), [ARCHIVE, ".backup.json"]);
        storage
            .remove(&format!("sealpod-20261122T000000Z-{ID}.backup"))
            .unwrap();
        assert_eq!(sweep(&storage), [".backup.json"]);
        assert_eq!(sweep(&storage), [""; 0]);
        let (_folder, young) = with(&[], &[".backup.json"]);
        assert_eq!(
            (sweep(&young), sweep(&young)),
            (vec![".backup.json".to_owned()], vec![".backup.json".to_owned()])
        );
    }

    #[test]
    fn an_archive_that_cannot_be_taken_away_stays_marked() {
        let (folder, storage) = with(&[], &[".backup.json.partial"]);
        let name = format!("sealpod-20261122T000000Z-{ID}.backup");
        // No file, so that it cannot be removed as one.
        std::fs::create_dir(folder.path().join(&name)).unwrap();
        give_up(&storage, &name);
        assert_eq!(left(&storage), [".backup.json.partial"]);
        std::fs::remove_dir(folder.path().join(&name)).unwrap();
        storage.write(&name, b"x").unwrap();
        give_up(&storage, &name);
        assert_eq!(left(&storage), [""; 0]);
    }
}
