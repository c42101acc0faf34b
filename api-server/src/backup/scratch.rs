//! Copies of a database for as long as they are needed. All of them are named alike, wherever they are and whatever for, and who
//! uses one holds a lock, so that what a process that was killed left behind is known from what another one is working on.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::beside;
pub(super) use crate::store::folder_of;

/// How the name of each begins; an id follows.
const PREFIX: &str = ".sealpod-scratch-";
const ID: usize = 36;
/// How the name of the file ends that its user holds a lock on.
const HELD: &str = ".held";
/// How the names end of a database and of what is beside it while somebody uses it.
const BESIDE: [&str; 5] = ["", "-wal", "-shm", "-journal", ".lock"];

/// The path of a copy that nobody else has. It is gone when this is dropped, with what SQLite leaves beside it.
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    _held: File,
}

impl Scratch {
    /// In this folder, where what others left behind is taken away first. Nothing is at the path yet.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        tidy(folder);
        loop {
            let path = folder.join(format!("{PREFIX}{}", Uuid::now_v7()));
            let name = beside(&path, HELD);
            let held = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&name)?;
            match held.try_lock() {
                // Somebody who tidies may have found it before it was locked.
                Ok(()) if fs::symlink_metadata(&name).is_ok() => return Ok(Self { path, _held: held }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    drop(fs::remove_file(name));
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The lock goes last: until then nobody else takes any of it for left behind.
fn remove(path: &Path) {
    for suffix in BESIDE.into_iter().chain([HELD]) {
        // There is none of most of these.
        drop(fs::remove_file(beside(path, suffix)));
    }
}

/// Takes away what is in this folder and nobody uses.
pub(super) fn tidy(folder: &Path) {
    let mut left = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| name.starts_with(PREFIX));
        left.extend(name.and_then(|name| name.get(..PREFIX.len() + ID)).map(str::to_owned));
    }
    for name in left {
        let path = folder.join(name);
        // Where nobody has the lock it is ours until all is gone.
        let held = OpenOptions::new().write(true).open(beside(&path, HELD));
        let is_free = match &held {
            Ok(held) => held.try_lock().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_free {
            tracing::info!(path = %path.display(), "removed what was left of a copy of the database");
            remove(&path);
        }
    }
}

/// How such copies were called by earlier versions, which held no lock on them: before an id, and behind it.
fn earlier_names(database: &str) -> [(String, &'static str); 3] {
    [
        (format!("{database}.backup-"), ""),
        (format!("{database}.restore."), ".partial"),
        (".sealpod-verify-".to_owned(), ""),
    ]
}

/// Takes away what earlier versions left behind beside this database. Nobody of this version writes it.
pub(super) fn tidy_earlier(database: &Path) {
    let folder = folder_of(database);
    let Some(own) = database.file_name().and_then(|name| name.to_str()) else {
        return;
    };
    let names = earlier_names(own);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_earlier = |(begin, end): &(String, &str)| {
            let behind = name.to_str().and_then(|name| name.strip_prefix(begin));
            let parts = behind.and_then(|behind| behind.split_at_checked(ID));
            parts.is_some_and(|(id, rest)| {
                let of_sqlite = rest.strip_prefix(end);
                id.parse::<Uuid>().is_ok() && of_sqlite.is_some_and(|suffix| BESIDE.contains(&suffix))
            })
        };
        if names.iter().any(is_earlier) && fs::remove_file(entry.path()).is_ok() {
            tracing::info!(path = %entry.path().display(), "removed what an earlier version left of a copy of the database");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_uses_goes_and_what_somebody_uses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let used = Scratch::new(folder.path()).unwrap();
        fs::write(&used.path, "used").unwrap();
        fs::write(beside(&used.path, "-wal"), "used").unwrap();
        // As a process that is killed leaves it: its locks are gone, its files are not.
        let left = folder.path().join(format!("{PREFIX}{}", Uuid::now_v7()));
        for suffix in BESIDE.into_iter().chain([HELD]) {
            fs::write(beside(&left, suffix), "left").unwrap();
        }
        let others = [".sealpod-scratch-", ".sealpod-scratch-short", "sealpod.db"];
        for name in others {
            fs::write(folder.path().join(name), "somebody's").unwrap();
        }
        assert_eq!(names(folder.path()).len(), 3 + 6 + 3);
        tidy(folder.path());
        let kept = names(folder.path());
        assert_eq!(kept.len(), 3 + 3, "{kept:?}");
        assert_eq!(fs::read_to_string(&used.path).unwrap(), "used");
        drop(used);
        assert_eq!(names(folder.path()), others);
    }

    #[test]
    fn what_earlier_versions_left_behind_goes_and_what_people_named_alike_stays() {
        let folder = tempfile::tempdir().unwrap();
        let id = Uuid::now_v7();
        let copies = [
            format!("sealpod.db.backup-{id}"),
            format!("sealpod.db.restore.{id}.partial"),
            format!(".sealpod-verify-{id}"),
        ];
        for copy in copies {
            for suffix in BESIDE {
                fs::write(beside(&folder.path().join(&copy), suffix), "left").unwrap();
            }
        }
        let mut others = [
            "sealpod.db".to_owned(),
            "sealpod.db-wal".to_owned(),
            "sealpod.db.backup-before-the-move".to_owned(),
            format!("sealpod.db.backup-{id}.gz"),
            format!("sealpod.db.restore.{id}"),
            format!("sealpod.db.restore.{id}-wal"),
            format!("other.db.backup-{id}"),
        ];
        others.sort();
        for name in &others {
            fs::write(folder.path().join(name), "somebody's").unwrap();
        }
        tidy_earlier(&folder.path().join("sealpod.db"));
        assert_eq!(names(folder.path()), others);
    }
}
