//! A file beside the database that takes up room for as long as there is some, so that the audit log can be written when
//! there is none.
//!
//! When a commit fails for want of space, the file is given up, and what it held is for what takes little and must not
//! wait: reads of values, which go on record before they are answered, refusals, and what takes away (deletions,
//! revocations, logouts, purges). Everything else is refused until the file can be made again. So a change is only ever
//! made while the reserve is whole; also behind a restart, which does not know what its predecessor had left.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::super::Reserve as State;
use super::files::{Volume, beside, folder_of, narrow, sync_folder};

/// The log grows to 4 MiB before the writer, which does it alone then, copies it into the database and begins it anew;
/// as much again is room for the entries themselves, some hundred bytes each with their lists: several thousand of
/// them.
pub(super) const BYTES: u64 = 8 * 1024 * 1024;
/// A volume that would lose more than an eighth to it has none.
const SMALLEST_VOLUME: u64 = 8 * BYTES;
/// How much has to be left beside it when it is made: who is let in by less is refused a moment later. Also what a start
/// gave up for itself stays given up by that.
const HEADROOM: u64 = 2 * 1024 * 1024;
/// What a start takes before the first entry: the lock's note, the index of the log, its first pages.
const START: u64 = 1024 * 1024;
pub(super) const SUFFIX: &str = ".reserve";

pub(super) struct Reserve {
    path: PathBuf,
    /// `None`: nobody asked for it.
    state: Mutex<Option<State>>,
}

impl Reserve {
    /// Of the database at this path; nothing is kept yet.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            path: beside(database, SUFFIX),
            state: Mutex::default(),
        }
    }

    /// Makes the file, or takes the one that is there. Blocks.
    pub(super) fn keep(&self) -> State {
        let (state, made) = match self.make() {
            Ok(()) => (State::Whole, Ok(())),
            Err(unmade) => (unmade.leaves(), Err(unmade)),
        };
        let before = self.lock().replace(state);
        if before == Some(state) {
            return state;
        }
        let path = self.path.display();
        match made {
            Ok(()) if before.is_some() => {
                tracing::info!("there is room on the disk, and the reserve of the audit log is whole");
            }
            Ok(()) => {}
            Err(Unmade::TooSmall { volume }) => tracing::warn!(
                volume,
                reserve = BYTES,
                "the data volume is too small to keep a reserve on it for the audit log; when it is full, no value can be read either"
            ),
            Err(Unmade::NoRoom) => {
                tracing::error!(%path, "there is no room for the reserve of the audit log; no changes are made until there is");
            }
            Err(Unmade::Failed(error)) => {
                tracing::warn!(%error, %path, "the reserve of the audit log cannot be made; when the disk is full, no value can be read either");
            }
        }
        state
    }

    /// A disk is full. Whether that made room: not where it was given up before, or was never there.
    pub(super) fn give_up(&self) -> bool {
        let mut state = self.lock();
        if *state != Some(State::Whole) {
            return false;
        }
        *state = Some(State::GivenUp);
        if let Err(error) = remove(&self.path) {
            tracing::error!(%error, path = %self.path.display(), "the reserve of the audit log could not be given up");
        }
        tracing::error!(
            bytes = BYTES,
            "the disk is full; its reserve is given up for the audit log, and no changes are made until there is room again"
        );
        true
    }

    /// Tries again what is not whole, whatever the reason was: a volume grows, and what failed may have been a moment's
    /// want. Blocks.
    pub(super) fn refill(&self) {
        let is_wanted = self.lock().is_some_and(|state| state != State::Whole);
        if is_wanted {
            self.keep();
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.state() == State::GivenUp
    }

    pub(super) fn state(&self) -> State {
        self.lock().unwrap_or(State::None)
    }

    fn make(&self) -> Result<(), Unmade> {
        if let Ok(metadata) = fs::symlink_metadata(&self.path) {
            // One that is sparse, by a copy or a restore of the volume, holds nothing.
            if metadata.is_file() && metadata.len() == BYTES && metadata.blocks() * 512 >= BYTES {
                narrow(&self.path)?;
                return Ok(());
            }
            remove(&self.path)?;
        }
        let Volume { all, available, .. } = Volume::of(folder_of(&self.path))?;
        if all < SMALLEST_VOLUME {
            return Err(Unmade::TooSmall { volume: all });
        }
        if available < BYTES + HEADROOM {
            return Err(Unmade::NoRoom);
        }
        let made = allocate(&self.path).and_then(|()| sync_folder(&self.path));
        made.map_err(|error| {
            drop(fs::remove_file(&self.path));
            Unmade::from(error)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<State>> {
        // Nothing that runs under this lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives up the reserve of a database that is to be opened on a disk without the room that this takes. Answers whether it did.
pub(super) fn make_way(database: &Path) -> io::Result<bool> {
    let path = beside(database, SUFFIX);
    if !path.exists() || Volume::of(folder_of(&path))?.available >= START {
        return Ok(false);
    }
    tracing::error!(
        bytes = BYTES,
        "the disk is full; its reserve is given up to start at all"
    );
    remove(&path)?;
    Ok(true)
}

/// The database was not opened: its reserve is to be there when it is, if nobody took its room meanwhile.
pub(super) fn take_back(database: &Path) {
    let path = beside(database, SUFFIX);
    if let Err(error) = allocate(&path).and_then(|()| sync_folder(&path)) {
        drop(fs::remove_file(&path));
        tracing::error!(%error, path = %path.display(), "the reserve of the audit log could not be made again; make room before the server is started");
    }
}

/// Why there is none.
enum Unmade {
    TooSmall { volume: u64 },
    NoRoom,
    Failed(io::Error),
}

impl Unmade {
    /// Changes wait for room only: what else fails may do so for ever.
    fn leaves(&self) -> State {
        match self {
            Self::TooSmall { .. } => State::TooSmall,
            Self::NoRoom => State::GivenUp,
            Self::Failed(_) => State::None,
        }
    }
}

impl From<io::Error> for Unmade {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom,
            _ => Self::Failed(error),
        }
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => {}
        // Written out then, and with what no file system makes smaller.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let mut block = [0; 8_192];
            for _ in 0..BYTES / 8_192 {
                getrandom::fill(&mut block).map_err(io::Error::other)?;
                file.write_all(&block)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

/// Takes the file away and waits until its room is free: some file systems hand it out again behind their next commit only.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn reserve(folder: &tempfile::TempDir) -> Reserve {
        Reserve::of(&folder.path().join("sealpod.db"))
    }

    #[test]
    fn it_takes_up_the_room_that_it_is_to_hold_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = reserve(&folder);
        assert_eq!(reserve.keep(), State::Whole);
        let metadata = fs::metadata(folder.path().join("sealpod.db.reserve")).unwrap();
        assert!(
            metadata.len() == BYTES && metadata.blocks() * 512 >= BYTES,
            "{metadata:?}"
        );
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_given_up_once_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = reserve(&folder);
        assert!(!reserve.give_up(), "nothing was kept");
        reserve.keep();
        assert!(reserve.give_up() && reserve.is_given_up());
        assert!(!folder.path().join("sealpod.db.reserve").exists());
        assert!(!reserve.give_up(), "it gave room once");
        reserve.refill();
        assert_eq!(reserve.state(), State::Whole);
        assert!(folder.path().join("sealpod.db.reserve").exists());
    }

    #[test]
    fn what_fails_for_another_reason_than_room_lets_changes_be_made_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = reserve(&folder);
        // Stands in the way, as much as it is given up.
        let path = folder.path().join("sealpod.db.reserve");
        fs::create_dir_all(path.join("not empty")).unwrap();
        assert_eq!(reserve.keep(), State::None);
        reserve.refill();
        assert_eq!(reserve.state(), State::None);
        fs::remove_dir_all(&path).unwrap();
        reserve.refill();
        assert_eq!(reserve.state(), State::Whole);

        reserve.give_up();
        fs::create_dir_all(path.join("not empty")).unwrap();
        reserve.refill();
        assert!(!reserve.is_given_up(), "changes would wait for ever");
    }

    #[test]
    fn one_that_nobody_asked_for_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = reserve(&folder);
        reserve.refill();
        assert_eq!(
            (reserve.state(), folder.path().read_dir().unwrap().count()),
            (State::None, 0)
        );
    }

    #[test]
    fn one_that_holds_nothing_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealpod.db.reserve");
        File::create(&path).unwrap().set_len(BYTES).unwrap();
        reserve(&folder).keep();
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= BYTES);
    }
}
