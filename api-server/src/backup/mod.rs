//! Backups: a copy of the database at one instant, compressed, sealed in chunks under a key of its own, checked by opening it
//! again, and what makes a database of it.
//!
//! ```text
//! database --VACUUM INTO--> scratch --zstd--> --STREAM--> storage --open, check--> done
//! ```

pub mod archive;
mod content;
mod copies;
mod export;
mod known;
mod make;
mod needs;
mod recovery;
mod restore;
mod room;
pub mod schedule;
mod scratch;
mod service;
mod steady;
mod storage;
mod worker;

use std::io;
use std::path::PathBuf;

pub use content::Manifest;
pub use export::{Export, Part, exports, read_export, segments};
pub use known::{database_name, list, list_with_epochs};
pub use make::{Stored, write_archive};
pub use needs::Unclear;
pub use recovery::{Identity, Recipient};
pub use restore::{Asked, Keep, Restored, Source, Unpacked, restore, verify};
pub use service::{Backups, Settings};
pub use storage::{Storage, StorageError};

use crate::audit::{Broken, Chain};
use crate::crypto::MasterKeyId;
use crate::store::{OpenError, StoreError};

/// What is wrong with an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("its header is not what was written")]
    Header,
    #[error("it is cut short: its end is missing")]
    CutShort,
    #[error("something follows behind its end")]
    Continued,
    #[error("its part {chunk} was changed, or does not belong there")]
    Changed { chunk: u32 },
    #[error("it unpacks to something else than its manifest says")]
    Unpacked,
    #[error("its database is not what its manifest says: {0}")]
    Database(String),
    #[error("of the chain of {chain}, {broken}")]
    Chain { chain: Chain, broken: Broken },
}

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is no archive of this server")]
    NotAnArchive,
    #[error(
        "the archive has form {found}, which this version of the server does not know; use the version that made it"
    )]
    UnknownFormat { found: u64 },
    #[error("the archive is damaged: {0}")]
    Damaged(#[from] Damage),
    #[error(
        "the archive needs master key {needed}, and the keys given are {}; give that key too",
        ids(given)
    )]
    ForeignKey {
        needed: MasterKeyId,
        given: Vec<MasterKeyId>,
    },
    #[error("the archive carries no key for an offline identity; open it with the master key")]
    NoRecipients,
    #[error("the archive does not open with this identity; use the one whose public key it was made for")]
    ForeignIdentity,
    #[error("too many recipients for one archive")]
    TooManyRecipients,
    #[error("the offline copy of the keys could not be made: {0}")]
    Recovery(String),
    #[error(
        "the list of what is in the backup is {bytes} bytes long, and an archive has {most} at the most for it; copy the files of the database while the server is stopped, and tell whoever maintains this program"
    )]
    ManifestTooLong { bytes: usize, most: u32 },
    #[error("the archive holds another thing than a backup: {0}")]
    NotABackup(String),
    #[error("the archive holds another thing than entries of the audit log: {0}")]
    NotAnExport(String),
    #[error(
        "the audit log of {chain} is not as it was written ({broken}), so nothing of it is taken away; `audit verify` tells more"
    )]
    BrokenChain { chain: Chain, broken: Broken },
    #[error("the archive is backup {found}, not {asked}: files in the storage were renamed or swapped")]
    Another { asked: uuid::Uuid, found: uuid::Uuid },
    #[error(
        "the backup is of a newer version of this server (schema {found}, this one knows up to {known}); restore it with that version"
    )]
    Newer { found: usize, known: usize },
    #[error("{} is there already; nothing was written over it. Move it away, or name another file", .0.display())]
    Exists(PathBuf),
    #[error(
        "{} is there, of a database that had this name: its changes would come over the restored one. Nothing was written. Move it away, together with that database, or name another file",
        .0.display()
    )]
    LogBeside(PathBuf),
    #[error(
        "the database at {} could not be finished, and none was made; the log of this process says why. Check the disk and its free space, and restore again",
        .0.display()
    )]
    Unfinished(PathBuf),
    #[error("another backup or restore is being made; try again when it is done")]
    Busy,
    #[error("no backup has this id")]
    Unknown,
    #[error("the backups are disabled: SEALPOD_BACKUP_URL is not set")]
    Disabled,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for Error {
    /// What an archive's reader said travels through other readers as the source of their errors.
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) => error.downcast::<StorageError>().map_or_else(Self::Io, Self::Storage),
        }
    }
}

fn ids(keys: &[MasterKeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
