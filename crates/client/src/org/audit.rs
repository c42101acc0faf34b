//! The audit logs: of an organization, and of the instance.

use sealpod_core::Time;
use sealpod_core::wire::audit::AuditPage;
use uuid::Uuid;

use super::Org;
use crate::path::{path, query};
use crate::{Client, Result};

/// Which entries, newest first. Everything that is given must hold; the default is the newest page of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// `<resource>.<verb>`
    pub action: Option<String>,
    pub actor_id: Option<Uuid>,
    /// The first half of an action.
    pub resource_type: Option<String>,
    pub resource_id: Option<Uuid>,
    /// The earliest and the latest time, both included.
    pub since: Option<Time>,
    pub until: Option<Time>,
    /// Most entries of the page, 1–100.
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub after: Option<String>,
}

impl AuditFilter {
    fn query(&self) -> String {
        let id = |id: Option<Uuid>| id.map(|id| id.to_string());
        let time = |at: Option<Time>| at.map(|at| at.to_string());
        let (actor, resource) = (id(self.actor_id), id(self.resource_id));
        let (since, until) = (time(self.since), time(self.until));
        let limit = self.limit.map(|limit| limit.to_string());
        query([
            ("action", self.action.as_deref()),
            ("actor_id", actor.as_deref()),
            ("resource_type", self.resource_type.as_deref()),
            ("resource_id", resource.as_deref()),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
            ("limit", limit.as_deref()),
            ("after", self.after.as_deref()),
        ])
    }
}

impl Org<'_> {
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<AuditPage> {
        self.client.get(self.at(&["audit-logs"])? + &filter.query()).await
    }
}

impl Client {
    /// The log of what belongs to no organization: sessions, keys, organizations made and deleted. For superadmins.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<AuditPage> {
        self.get(path(["api", "audit-logs"])? + &filter.query()).await
    }
}
