//! Copies of the database beside it, as the server itself makes and names them: of before an upgrade, and restored ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use uuid::Uuid;

use super::Error;
use super::scratch::folder_of;
use super::storage::Kept;
use crate::crypto::MasterKeyId;
use crate::store::{self, OpenError, beside};

/// By their whole paths.
pub(super) fn beside_database(database: &Path) -> Result<Vec<Kept>, Error> {
    let Some(own) = database.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    // The database itself, under another name: whoever opens and closes it here takes the locks of the one that serves away.
    let live = fs::metadata(database).ok().map(|live| (live.dev(), live.ino()));
    let mut copies = Vec::new();
    for entry in fs::read_dir(folder_of(database))? {
        let entry = entry?;
        let name = entry.file_name();
        let behind = name.to_str().and_then(|name| name.strip_prefix(own));
        // One that is gone by now is none.
        let Ok(file) = entry.metadata() else { continue };
        if !behind.is_some_and(is_copy) || !file.is_file() || live == Some((file.dev(), file.ino())) {
            continue;
        }
        let path = entry.path();
        // What somebody writes who looks into it stands in its log.
        let log = fs::metadata(beside(&path, "-wal")).ok();
        copies.push(Kept {
            name: path.to_string_lossy().into_owned(),
            bytes: file.len() + log.as_ref().map_or(0, fs::Metadata::len),
            modified: file.mtime().max(log.map_or(0, |log| log.mtime())),
        });
    }
    Ok(copies)
}

/// Whether the rest of a name says so.
fn is_copy(behind: &str) -> bool {
    let of_upgrade = behind.strip_prefix(".schema-");
    let restored = behind.strip_prefix(".restore.");
    of_upgrade.is_some_and(|number| number.parse::<u32>().is_ok())
        || restored.is_some_and(|id| id.parse::<Uuid>().is_ok())
}

/// The master keys that its values need; none where it is no database of this server. Writes nothing into it; beside one that
/// somebody's look left a log of, SQLite's index of that log stays.
pub(super) fn keys_of(path: &Path) -> Result<BTreeSet<MasterKeyId>, Error> {
    match store::needed_keys(path) {
        Ok(keys) => Ok(keys.into_iter().collect()),
        Err(OpenError::NotOurs { .. }) => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_by_what_the_server_calls_them_and_the_database_is_none_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("sealpod.db");
        fs::write(&database, "").unwrap();
        let id = Uuid::now_v7();
        let restored = format!(".restore.{id}");
        fs::hard_link(&database, folder.path().join("sealpod.db.schema-4")).unwrap();
        std::os::unix::fs::symlink(&database, folder.path().join("sealpod.db.schema-5")).unwrap();
        let copies = [".schema-3", &restored];
        let others = [".schema-3.partial", ".restore.mine", ".reserve", "-wal", ".lock"];
        for end in copies.iter().chain(&others) {
            fs::write(beside(&database, end), "").unwrap();
        }
        fs::write(folder.path().join("other.db.schema-3"), "").unwrap();
        let found: BTreeSet<_> = beside_database(&database)
            .unwrap()
            .into_iter()
            .map(|copy| copy.name)
            .collect();
        let expected = copies.map(|end| beside(&database, end).display().to_string());
        assert_eq!(found, BTreeSet::from(expected));
    }
}
