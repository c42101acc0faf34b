//! A note beside a database whose log was lost, and is not in the database: whoever opens that without it would be told that
//! all is well, and so would whoever replays what has the log's name by then.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::OpenError;
use super::files::{beside, sync_folder};

const SUFFIX: &str = ".lost-log";

/// Leaves it, with what is wrong and what to do. It survives a power cut.
pub(super) fn note(database: &Path, what: &str) {
    let path = beside(database, SUFFIX);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        writeln!(file, "{what}")?;
        file.sync_all()?;
        sync_folder(&path)
    };
    if let Err(error) = write() {
        tracing::error!(%error, path = %path.display(), "no note could be left that keeps the next start from the database; {what}");
    }
}

/// Nothing is wrong any more.
pub(super) fn forget(database: &Path) {
    let path = beside(database, SUFFIX);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_folder(&path)),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, path = %path.display(), "remove this file before the server is started again; what it says is over");
    }
}

/// An error where there is one.
pub(super) fn require_none(database: &Path) -> Result<(), OpenError> {
    let note = beside(database, SUFFIX);
    if fs::symlink_metadata(&note).is_err() {
        return Ok(());
    }
    let what = fs::read_to_string(&note).unwrap_or_default();
    let what = match what.trim() {
        "" => "it was left by a server whose log was moved away; nobody can tell what it was to say",
        what => what,
    };
    Err(OpenError::LostLog {
        what: what.to_owned(),
        note,
    })
}
