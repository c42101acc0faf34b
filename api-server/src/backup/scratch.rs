//! Copies of a database for as long as they are needed. All of them are named alike, wherever they are and whatever for, and who
//! uses one holds a lock, so that what a process that was killed left behind is known from what another one is working on.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::store::beside;

/// How the name of each begins; an id follows.
const PREFIX: &str = ".sealpod-scratch-";
const ID: usize = 36;
/// How the name of the file ends that its user holds a lock on.
const HELD: &str = ".held";

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
    for suffix in ["", "-wal", "-shm", "-journal", ".lock", HELD] {
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
        let is_free = match OpenOptions::new().write(true).open(beside(&path, HELD)) {
            Ok(held) => held.try_lock().is_ok().then_some(Some(held)),
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(None),
        };
        if is_free.is_some() {
            tracing::info!(path = %path.display(), "removed what was left of a copy of the database");
            remove(&path);
        }
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
        for suffix in ["", "-wal", "-shm", "-journal", ".lock", HELD] {
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
}
