//! Which master keys the data needs, and wrapping it anew under the current one. The store does not know the keys: it gives
//! out what is sealed, with what that is bound to, and takes back what was wrapped anew.

use sealpod_core::Time;

use super::{By, Result, Store, StoreError, sqlite};
use crate::crypto::{Aad, MasterKeyId, Sealed};
use crate::ids::{ConfigurationId, SecretId, VersionId};

/// Where a sealed value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Version {
        secret: SecretId,
        version: VersionId,
    },
    Configuration(ConfigurationId),
    /// An answer that is kept for an `Idempotency-Key`, by its scope.
    Answer([u8; 32]),
    /// The server's own: the pepper, the key of the audit log.
    ServerKey(&'static str),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version { secret, version } => write!(f, "version {version} of secret {secret}"),
            Self::Configuration(id) => write!(f, "configuration {id}"),
            Self::Answer(_) => f.write_str("an answer that is kept for an Idempotency-Key"),
            Self::ServerKey(name) => write!(f, "the server's own {name}"),
        }
    }
}

/// A sealed value and what it is bound to.
#[derive(Debug, Clone)]
pub struct Wrapped {
    pub place: Place,
    pub aad: Aad,
    pub sealed: Sealed,
}

/// The kinds of sealed values, in the order in which they are walked along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    ServerKeys,
    Versions,
    Configurations,
    Answers,
}

impl Shelf {
    pub const ALL: [Self; 4] = [Self::ServerKeys, Self::Versions, Self::Configurations, Self::Answers];
}

/// Some of what stands on a shelf.
#[derive(Debug, Clone)]
pub struct Piece {
    pub values: Vec<Wrapped>,
    /// Where the next piece begins; none: this was the last one.
    pub next: Option<i64>,
}

/// What needs a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyNeeds {
    pub id: MasterKeyId,
    pub versions: u64,
    pub configurations: u64,
    pub answers: u64,
    pub server_keys: u64,
    /// Since when this database has had values under it, where it took note of that.
    pub first_used_at: Option<Time>,
    /// When everything was found to open without it.
    pub retired_at: Option<Time>,
}

impl KeyNeeds {
    /// How many values need it.
    pub fn total(&self) -> u64 {
        self.versions + self.configurations + self.answers + self.server_keys
    }
}

impl Store {
    /// What each master key is needed for: all that this database has known, and all that something needs.
    pub async fn key_needs(&self) -> Result<Vec<KeyNeeds>> {
        self.engine.read(|view| sqlite::rewrap::needs(view.conn)).await
    }

    /// From now on the server has `keys`, of which `current` seals; puts it on record if it was another one before. `Moved`
    /// where something needs a key that is not among them.
    ///
    /// `take` makes it so for the server. It runs once this is committed, whether or not whoever called still waits, and
    /// before anybody hears that their value is `Moved` because it was sealed under another key: what they seal again is
    /// sealed under this one.
    pub async fn begin_key(
        &self,
        (current, keys): (MasterKeyId, Vec<MasterKeyId>),
        by: By,
        take: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        self.engine
            .write_values_then(move |tx| sqlite::rewrap::begin(tx, current, &keys, &by), take)
            .await
    }

    /// The key that seals, as far as is on record.
    pub async fn current_key(&self) -> Result<Option<MasterKeyId>> {
        self.engine.read(|view| sqlite::rewrap::current(view.conn)).await
    }

    /// The next values of a shelf, of those that need `key` or, without one, of all. `from` is 0, and then what the piece
    /// before said.
    pub async fn sealed_values(&self, of: Shelf, key: Option<MasterKeyId>, from: i64) -> Result<Piece> {
        self.engine
            .read(move |view| sqlite::rewrap::piece(view, of, key, from))
            .await
    }

    /// Stores values that were wrapped anew, each if it still is what it was. Does as many as a few milliseconds allow, from
    /// the first on, and answers how many of `values` are done with. `Moved` where another key seals by now.
    pub async fn rewrap(&self, values: Vec<(Wrapped, Sealed)>) -> Result<usize> {
        self.engine
            .write_values(move |tx| sqlite::rewrap::store(tx, &values))
            .await
    }

    /// Retires every master key but `current`, and puts it on record with how many values were found to open; false where
    /// something needs one of them still or again, or another one is current by now.
    pub async fn retire_keys(&self, current: MasterKeyId, opened: u64, by: By) -> Result<bool> {
        let retired = self
            .engine
            .write_values(move |tx| sqlite::rewrap::retire(tx, current, opened, &by));
        match retired.await {
            Err(StoreError::Moved(_)) => Ok(false),
            other => other.map(|()| true),
        }
    }
}
