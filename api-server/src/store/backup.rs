//! Copies of the database: how one is made beside everything else, what one is found to be, and what becomes of one that is
//! restored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
}

/// The version of the schema that this server makes.
pub fn known_schema() -> usize {
    sqlite::open::SCHEMA
}

/// The path of a file that belongs to another one.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    sqlite::files::beside(path, suffix)
}

/// Copies the database at `from`, as it is at this instant, into a new file that only its owner can read. Others go on reading
/// and writing it, in this process or another one. Blocks.
pub fn copy(from: &Path, into: &Path) -> Result<(), OpenError> {
    sqlite::backup::copy(from, into)
}

/// Reads all of a copy that nobody else uses: that it has no damage, that the keys open it, and what is in it. Blocks.
pub fn inspect(path: &Path, keyring: &Keyring) -> Result<Facts, OpenError> {
    sqlite::backup::inspect(path, keyring)
}

/// What the keys, accounts, rules and memberships of two databases do not have in common. Blocks.
pub fn compare(backup: &Path, live: &Path) -> Result<Comparison, OpenError> {
    sqlite::backup::compare(backup, live)
}

impl Store {
    /// Ends every session and login, and every key unless they are kept; names a new epoch, by which others notice; and puts
    /// it on record.
    pub async fn finish_restore(&self, backup: Uuid, keep_keys: bool, by: By) -> Result<()> {
        self.engine
            .write(move |tx| sqlite::backup::finish_restore(tx, backup, keep_keys, &by))
            .await
    }
}
