//! What moved in an organization since a position in its log, and by the clock.

use sealpod_core::Time;
use uuid::Uuid;

use super::{Result, Store, sqlite};
use crate::audit::{Kind, Verb};
use crate::ids::{OrganizationId, SecretId};

/// How far somebody has heard of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the last audit entry.
    pub seq: u64,
    /// Of the last look at the clock.
    pub at: Time,
}

#[derive(Debug, Clone, Copy)]
pub struct ChangesQuery {
    pub organization: OrganizationId,
    pub after: Position,
    /// Most entries, and most windows that begin or end, that one answer reads.
    pub limit: u32,
}

/// A change, by its entry in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEntry {
    pub kind: Kind,
    pub verb: Verb,
    pub resource: Option<Uuid>,
    pub name: Option<String>,
    pub project: Option<String>,
    pub environment: Option<String>,
    /// The user or service account that a rule is for.
    pub subject: Option<Uuid>,
}

/// A secret of which the clock made a version active, or ended one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    pub secret: SecretId,
    pub name: String,
    pub project: String,
    pub environment: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangesPage {
    /// The log does not reach back that far, or never came that far, or more moved by the clock than one answer tells.
    Gone,
    Found {
        /// In their order.
        entries: Vec<ChangeEntry>,
        edges: Vec<Edge>,
        /// How far these reach.
        upto: Position,
        /// Whether the log goes on behind that.
        more: bool,
        /// When the clock alone changes something next. Nothing need come of it.
        next_edge: Option<Time>,
    },
}

impl Store {
    /// Where the log of an organization ends now.
    pub async fn position(&self, organization: OrganizationId) -> Result<Position> {
        self.engine
            .read(move |view| sqlite::changes::position(view, organization))
            .await
    }

    pub async fn changes(&self, query: ChangesQuery) -> Result<ChangesPage> {
        self.engine.read(move |view| sqlite::changes::page(view, &query)).await
    }
}
