//! What can go wrong, by what failed on what object.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Quota;
use crate::crypto::{MasterKeyId, OpenError as SealError};

/// What a use case was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    Organization,
    Project,
    Environment,
    Secret,
    Version,
    Configuration,
    ServiceAccount,
    AclRule,
    /// The user or service account that a rule names.
    Subject,
    Member,
    Session,
    /// A deletion that can be undone.
    TrashItem,
    /// The key that a value was sealed under.
    MasterKey,
    Backup,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Environment => "environment",
            Self::Secret => "secret",
            Self::Version => "version",
            Self::Configuration => "configuration",
            Self::ServiceAccount => "service account",
            Self::AclRule => "ACL rule",
            Self::Subject => "subject of the rule",
            Self::Member => "member",
            Self::Session => "session",
            Self::TrashItem => "item of the trash",
            Self::MasterKey => "master key",
            Self::Backup => "backup",
        })
    }
}

/// What each request of somebody reads in full, so there must not be any number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowd {
    RulesOfASubject,
    OrganizationsOfAnOwner,
}

impl Crowd {
    pub fn limit(self) -> u64 {
        match self {
            Self::RulesOfASubject => 1_000,
            Self::OrganizationsOfAnOwner => 100,
        }
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RulesOfASubject => "ACL rules of one user or service account",
            Self::OrganizationsOfAnOwner => "organizations of one owner",
        })
    }
}

/// What a change may not do, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("an organization keeps at least one owner")]
    LastOwner,
    /// The caller's own role, as of the change, does not reach that far.
    #[error("nobody grants, changes or removes a role above their own")]
    AboveOwnRole,
    #[error("an operator owns this project, and its name is the operator's to give")]
    Managed,
    #[error("a version's window ends after it begins")]
    EmptyWindow,
    /// The organization holds as much of this as it may, which is the number.
    #[error("the organization may hold {1} {0}")]
    OverQuota(Quota, u64),
    #[error("this would be more than {limit} {0}", limit = .0.limit())]
    TooMany(Crowd),
    /// A live object has the name of what is to be restored.
    #[error("there is another {0} of this name by now")]
    NameTaken(Object),
    /// What is to be restored was in something that is itself deleted.
    #[error("the {0} that it was in is deleted")]
    ParentDeleted(Object),
}

/// Why a use case did not happen. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It never was, it is deleted, or what contains it is.
    #[error("the {0} does not exist")]
    NotFound(Object),
    /// A live object has that name.
    #[error("the {0} exists already")]
    Conflict(Object),
    /// It was deleted, or made, between look-up and write: look up again.
    #[error("the {0} changed between its look-up and the write")]
    Moved(Object),
    /// It is not in the state that the change demands.
    #[error("the {0} is not what it was when the caller read it")]
    Stale(Object),
    /// Another execution of the same request has made the change.
    #[error("the request was done by another execution")]
    Repeated,
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Reads go on, and writes will succeed again once there is room.
    #[error("the disk that holds the database is full")]
    DiskFull,
    /// Another program holds the database's lock; try again.
    #[error("another program has locked the database for too long")]
    Busy,
    /// It read for longer than the log can wait, or somebody called it off.
    #[error("reading took too long")]
    TooSlow,
    /// The store met a fault that it must not go on after, or is closed. It refuses everything until a restart.
    #[error("the store has stopped: {0}")]
    Failed(Arc<str>),
    /// A defect of this program; the text is for the log only.
    #[error("the store could not do this: {0}")]
    Internal(Arc<str>),
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "`{given}` is no database of this server; use `sqlite:` and a file, for example sqlite:/var/lib/sealpod/sealpod.db"
    )]
    NotAUrl { given: String },
    #[error("{}: {source}; the folder must exist and be writable for this user", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "another server uses {}{}; stop it first, two servers on one file would lose data",
        path.display(),
        pid.as_deref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<String> },
    #[error("{} is not a Sealpod database; name another file, or move this one away", path.display())]
    NotOurs { path: PathBuf },
    #[error(
        "{} was written by a newer version of this server (schema {found}, this one knows up to {known}); run that version, or restore a backup from before the upgrade",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: usize },
    #[error(
        "the data is sealed under master key {needed}, and the keys given are {}; give that key too (SEALPOD_MASTER_KEY_FILE may hold several lines). Nothing was written.",
        list(given)
    )]
    WrongMasterKey {
        needed: MasterKeyId,
        given: Vec<MasterKeyId>,
    },
    #[error("the file system of {} cannot hold SQLite's write-ahead log; use a local disk, not a network volume", path.display())]
    NoWal { path: PathBuf },
    #[error(
        "{} has {free} bytes left, and {needed} are needed for a copy of the database; free space there (files `.schema-*` beside the database are copies from before upgrades, which nothing but a way back needs), or name another volume",
        path.display()
    )]
    NoRoom { path: PathBuf, needed: u64, free: u64 },
    #[error("{} grew to {bytes} bytes while the database was copied, because so much was written meanwhile; the copy was given up, try again when less is written", path.display())]
    LongLog { path: PathBuf, bytes: u64 },
    #[error(
        "{} was not written to {}: the changes of another database would come over this one. Nothing was written. Move it away, to the database that it belongs to, and start again",
        log.display(),
        path.display()
    )]
    ForeignLog { path: PathBuf, log: PathBuf },
    #[error(
        "{} was not written to {} by this version: that database was restored and not changed since, and the changes of another one would come over it. Nothing was written. Do not delete that file: if an older version worked on the restored database, it is that version's; start that version once, and stop it. If none did, move the file away, to the database that it belongs to, and start again",
        log.display(),
        path.display()
    )]
    UnmarkedLog { path: PathBuf, log: PathBuf },
    #[error(
        "{} is not there, and {} is, with changes that are nowhere else. Nothing was written. Put the database back beside it, or move it away, and start again",
        path.display(),
        log.display()
    )]
    LogAlone { path: PathBuf, log: PathBuf },
    #[error("{what}. Nothing was written. Once that is done, remove {}, which says so, and start again", note.display())]
    LostLog { what: String, note: PathBuf },
    #[error("there is no database at {}, and none was made; name the file of one (SEALPOD_DATABASE_URL)", path.display())]
    Absent { path: PathBuf },
    #[error(
        "{} is of an older version of this server (schema {found}, this one works with {known}); `migrate` brings it up to date, and so does the start of a server. Nothing was written",
        path.display()
    )]
    Older { path: PathBuf, found: usize, known: usize },
    #[error("{}: {what}; restore a backup", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{}: {what}: {source}", path.display())]
    Engine {
        path: PathBuf,
        what: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn sealed(path: &std::path::Path, error: SealError, given: Vec<MasterKeyId>) -> Self {
        match error {
            SealError::UnknownKey { needed } => Self::WrongMasterKey { needed, given },
            SealError::Refused | SealError::Envelope(_) => Self::Damaged {
                path: path.to_owned(),
                what: format!("the server's own keys do not open ({error})"),
            },
        }
    }
}

fn list(keys: &[MasterKeyId]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
