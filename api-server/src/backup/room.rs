//! Room for a copy of the database, looked at before anything of it is written. What is too large for its volume would be known
//! only when nothing is left of it, and beside the database that means the reserve of the audit log, too.

use std::io;
use std::path::Path;

use super::Error;
use super::scratch::folder_of;
use crate::store::{Reserve, Store, StoreError, beside};

/// What others may take while a copy is made, and SQLite for itself.
const HEADROOM: u64 = 4 * 1024 * 1024;

/// An error where a file of so many bytes does not fit beside this path with room to spare.
pub(super) fn require(path: &Path, bytes: u64) -> Result<(), Error> {
    let folder = folder_of(path);
    let volume = rustix::fs::statvfs(folder).map_err(io::Error::from)?;
    let (needed, free) = (bytes + HEADROOM, volume.f_bavail.saturating_mul(volume.f_frsize));
    if free < needed {
        return Err(Error::NoRoom {
            path: folder.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

/// As [`require`], for a copy of the database at this path, beside it.
pub(super) fn require_copy(database: &Path) -> Result<(), Error> {
    let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
    require(database, length(database) + length(&beside(database, "-wal")))
}

/// An error while what is left is for the audit log.
pub(super) fn require_reserve(store: &Store) -> Result<(), Error> {
    if store.reserve() == Reserve::GivenUp {
        return Err(StoreError::DiskFull.into());
    }
    Ok(())
}
