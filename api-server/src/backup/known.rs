//! What stands beside the archives in the storage, and what of all that is there belongs to nothing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sealpod_core::Time;
use sealpod_core::wire::backups::Backup;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use super::storage::{Kept, PARTIAL, Storage};

/// How the names of backups end.
pub(super) const ARCHIVE: &str = ".backup";
/// And of what is known of an archive: the archive's name and this.
pub(super) const KNOWN: &str = ".json";
/// How old what belongs to nothing that was finished has to be before it is taken away, in seconds.
const LEFT_BEHIND: i64 = 24 * 3_600;

/// The files that people were told of because they cannot be read: each once, until it can be.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeSet<String>>);

impl Told {
    pub(super) fn warn(&self, name: &str, error: &Error) {
        if self.is_new(name) {
            tracing::warn!(file = name, %error, "an archive beside the backups cannot be read, and is left as it is");
        }
    }

    pub(super) fn is_new(&self, name: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(name.to_owned())
    }

    pub(super) fn settle(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
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

/// The backups, newest first.
pub fn list(storage: &Storage) -> Result<Vec<Backup>, Error> {
    let known = known_of::<Known>(storage, &storage.list()?, ARCHIVE)?;
    let mut backups = Vec::new();
    for (name, Known { backup, .. }) in known {
        // The name of the file is the one to be believed: it is what will be opened.
        if backup.filename == name {
            backups.push(backup);
        } else {
            tracing::warn!(file = name, "what is known of a backup is of another one");
        }
    }
    backups.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.created_at, backup.id)));
    Ok(backups)
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
        let Some(name) = name else { continue };
        let content = match storage.read(&file.name) {
            Ok(content) => content,
            Err(error) => {
                tracing::warn!(file = file.name, %error, "a file beside the backups cannot be read, and is passed over");
                failed = failed.or(Some(error));
                continue;
            }
        };
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
        _ => Ok(known),
    }
}

/// Takes an archive away. What is known of it goes first: without that it is none any more.
pub(super) fn withdraw(storage: &Storage, name: &str) -> Result<(), Error> {
    storage.remove(&format!("{name}{KNOWN}"))?;
    Ok(storage.remove(name)?)
}

/// As [`withdraw`], where something failed already.
pub(super) fn give_up(storage: &Storage, name: &str) {
    if let Err(error) = withdraw(storage, name) {
        tracing::warn!(%error, file = name, "what is left of an archive that is none could not be removed");
    }
}

/// Takes away what writing archives of one kind left behind a day ago or longer: what has no name yet, and archives of which
/// nothing is known, but for those to keep.
pub(super) fn sweep(storage: &Storage, archive: &str, keep: impl Fn(&str) -> Result<bool, Error>) -> Result<(), Error> {
    let files = storage.list()?;
    for file in &files {
        let name = &file.name;
        let is_ours = name.starts_with("sealpod-") && !is_young(file);
        let is_partial = name.ends_with(PARTIAL) && name.contains(&format!("{archive}."));
        if is_ours && (is_partial || is_alone(&files, name, archive) && !keep(name)?) {
            storage.remove(name)?;
        }
    }
    Ok(())
}

/// Whether it may be of somebody who is still at work.
pub(super) fn is_young(file: &Kept) -> bool {
    Time::now().microseconds() / 1_000_000 - file.modified <= LEFT_BEHIND
}

/// Whether this is an archive of which nothing is known.
pub(super) fn is_alone(files: &[Kept], name: &str, archive: &str) -> bool {
    name.ends_with(archive) && !files.iter().any(|file| file.name == format!("{name}{KNOWN}"))
}
