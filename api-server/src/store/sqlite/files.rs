//! The files of a database: where they are, whose they are, and that one process has them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::{OpenError, StoreError};
use super::{health, reserve};

/// The path as it is, whatever the working directory or a link: what the lock is taken on.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, OpenError> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let folder = folder_of(path);
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => Ok(folder.join(name)),
        (Err(source), _) => Err(file_error(folder, source)),
        (_, None) => Err(file_error(path, ErrorKind::IsADirectory.into())),
    }
}

/// Nobody else may open the database.
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough: a child that somebody starts at this moment has a copy until it is another program.
        self.0.unlock().ok();
    }
}

pub(super) fn lock(path: &Path) -> Result<Lock, OpenError> {
    let lock_path = beside(path, ".lock");
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path);
    let mut file = opened.map_err(|source| file_error(&lock_path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            return Err(OpenError::InUse {
                path: path.to_owned(),
                pid: known.then(|| pid.trim().to_owned()),
            });
        }
        Err(fs::TryLockError::Error(source)) => return Err(file_error(&lock_path, source)),
    }
    // For the message above only; the lock does not depend on it, nor does a start on a full disk.
    match file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        Err(source) if source.kind() != ErrorKind::StorageFull => Err(file_error(&lock_path, source)),
        _ => Ok(Lock(file)),
    }
}

/// Makes the file, so that it never has another mode than 0600; SQLite gives its companions the same.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match created {
        Ok(_) => sync_folder(path).map_err(|source| file_error(path, source)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => narrow_all(path),
        Err(source) => Err(file_error(path, source)),
    }
}

/// The folder that a file is in.
pub(in super::super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Flushes the folder that the file is in: the name must survive a power cut as well.
pub(in super::super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// What there is of the file system that something is on, in bytes.
pub(super) struct Volume {
    /// All of it.
    pub(super) all: u64,
    /// What is taken, and what is left to take: what the file system holds back is neither.
    pub(super) usable: u64,
    /// What this process may still take.
    pub(super) available: u64,
}

impl Volume {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let volume = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        let taken = volume.f_blocks.saturating_sub(volume.f_bfree);
        Ok(Self {
            all: bytes(volume.f_blocks),
            usable: bytes(taken.saturating_add(volume.f_bavail)),
            available: bytes(volume.f_bavail),
        })
    }
}

/// Takes from others what a volume's defaults gave them.
pub(super) fn narrow_all(path: &Path) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm", ".lock", reserve::SUFFIX] {
        let path = beside(path, suffix);
        narrow(&path).map_err(|source| file_error(&path, source))?;
    }
    Ok(())
}

/// As [`narrow_all`], of one file, which need not be there.
pub(super) fn narrow(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        _ => Ok(()),
    }
}

pub(in super::super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The write-ahead log beside a database and its length in bytes, where it has any.
pub(super) fn log_of(database: &Path) -> Option<(PathBuf, u64)> {
    let log = beside(database, "-wal");
    let bytes = log.metadata().ok()?.len();
    (bytes > 0).then_some((log, bytes))
}

pub(super) fn file_error(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::File {
        path: path.to_owned(),
        source,
    }
}

/// What others may take while a copy is made, and SQLite for itself.
const HEADROOM: u64 = 4 * 1024 * 1024;

/// Looked at before anything is written: what is too large for its volume would be known only when nothing is left of it, and
/// beside the database that means the reserve of the audit log, too. An error where a file of so many bytes does not fit into
/// this folder with room to spare.
pub(in super::super) fn require_room(folder: &Path, bytes: u64) -> Result<(), OpenError> {
    let volume = Volume::of(folder).map_err(|error| file_error(folder, error))?;
    let (needed, free) = (bytes + HEADROOM, volume.available);
    if free < needed {
        return Err(OpenError::NoRoom {
            path: folder.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

/// As [`require_room`], for a copy of the database at this path, beside it.
pub(in super::super) fn require_room_for_copy(database: &Path) -> Result<(), OpenError> {
    let own = database.metadata().map_or(0, |file| file.len());
    let log = log_of(database).map_or(0, |(_, bytes)| bytes);
    require_room(folder_of(database), own + log)
}

impl OpenError {
    /// Whether there was no room for what was to be written.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::File { source, .. } => source.kind() == ErrorKind::StorageFull,
            Self::Engine { source, path, .. } => {
                let error = source.downcast_ref::<rusqlite::Error>();
                error.is_some_and(|error| health::classify_of(error, Some(path)) == StoreError::DiskFull)
            }
            _ => false,
        }
    }
}
