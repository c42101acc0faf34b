//! Copies of the database: how one is made beside everything else, what one is found to be, and what becomes of one that is
//! restored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{By, OpenError, Result, Store, sqlite};
use crate::audit::Head;
use crate::crypto::{Keyring, MasterKeyId};

/// What is known of a database once all of it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Version of its schema.
    pub schema: usize,
    pub epoch: Uuid,
    /// Rows by table.
    pub counts: BTreeMap<String, u64>,
    /// The end of each audit chain.
    pub heads: Vec<Head>,
    /// The master keys that its values need.
    pub keys: Vec<MasterKeyId>,
}

/// What a backup would bring back or take away, compared with the database of today, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the backup, and not in the database any more: deleted or revoked since.
    pub revives: Vec<String>,
    /// In the database, and not in the backup: made since.
    pub lacks: Vec<String>,
    /// Secrets and configurations that are not the same: `there`, in the backup, and `here`, in the database.
    pub values: Differences,
    /// The epochs of the backup and of the database, where they are not the same.
    pub epochs: Option<(Uuid, Uuid)>,
}

/// Lines, as far as anybody reads on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// The first of them: [`Differences::MOST`].
    pub lines: Vec<String>,
    /// How many there are beyond these.
    pub more: u64,
}

impl Differences {
    pub const MOST: usize = 1_000;

    pub(super) fn push(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < Self::MOST {
            self.lines.push(line());
        } else {
            self.more += 1;
        }
    }
}

/// The version of the schema that this server makes.
pub fn known_schema() -> usize {
    sqlite::open::SCHEMA
}

/// The path of a file that belongs to another one.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    sqlite::files::beside(path, suffix)
}

/// The folder that a file is in.
pub fn folder_of(path: &Path) -> &Path {
    sqlite::files::folder_of(path)
}

/// Flushes that folder, so that the file's name survives a power cut.
pub fn sync_folder(path: &Path) -> std::io::Result<()> {
    sqlite::files::sync_folder(path)
}

/// An error where a file of so many bytes does not fit into this folder with room to spare.
pub fn require_room(folder: &Path, bytes: u64) -> Result<(), OpenError> {
    sqlite::files::require_room(folder, bytes)
}

/// As [`require_room`], for a copy of the database at this path, beside it.
pub fn require_room_for_copy(database: &Path) -> Result<(), OpenError> {
    sqlite::files::require_room_for_copy(database)
}

/// Copies the database at `from`, as it is at this instant, into a new file that only its owner can read. Others go on reading
/// and writing it, in this process or another one. Blocks.
pub fn copy(from: &Path, into: &Path) -> Result<(), OpenError> {
    copy_until(from, into, &CancellationToken::new())
}

/// As [`copy`], which is an error from the `end` on.
pub fn copy_until(from: &Path, into: &Path, end: &CancellationToken) -> Result<(), OpenError> {
    sqlite::backup::copy(from, into, end)
}

/// Reads all of a copy that nobody else uses: that it has no damage, that the keys open it, and what is in it. Blocks.
pub fn inspect(path: &Path, keyring: &Keyring) -> Result<Facts, OpenError> {
    sqlite::backup::inspect(path, keyring)
}

/// The master keys that the values in a copy need, which nobody writes; what somebody's look left in its log counts. Blocks.
pub fn needed_keys(path: &Path) -> Result<Vec<MasterKeyId>, OpenError> {
    sqlite::backup::needed_keys(path)
}

/// What the organizations, projects, keys, accounts, rules and memberships of two databases do not have in common: of
/// what is alive, with the deadlines of keys and accounts; and which secrets and configurations are not the same. The
/// schema of each may be an older one. Blocks.
pub fn compare(backup: &Path, live: &Path) -> Result<Comparison, OpenError> {
    sqlite::compare::compare(backup, live)
}

/// The epoch of the database at this path, which others may use meanwhile. No key is needed. Blocks.
pub fn epoch_of(path: &Path) -> Result<Uuid, OpenError> {
    sqlite::backup::epoch_of(path)
}

impl Store {
    /// Takes note of why a copy of this database was not made: what its own file cannot be read for is fatal.
    pub fn note_copy(&self, error: &OpenError) {
        self.engine.note_copy(error);
    }

    /// Ends every session and login, and every key unless they are kept; names a new epoch, by which others notice; and puts
    /// it on record.
    pub async fn finish_restore(&self, backup: Uuid, keep_keys: bool, by: By) -> Result<()> {
        self.engine
            .write(move |tx| sqlite::backup::finish_restore(tx, backup, keep_keys, &by))
            .await
    }
}
