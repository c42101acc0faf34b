//! The audit logs: of an organization, and of the instance.

use std::fmt;

use reqwest::Method;
use sealpod_core::Time;
use sealpod_core::wire::audit::{AuditEntry, AuditPage, JSON_LINES};
use uuid::Uuid;

use super::Org;
use crate::lines::Lines;
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
    /// Most entries of the page, or of an export, 1–100.
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

/// The entries of an export that are still to come, newest first.
pub struct AuditExport(Lines);

impl AuditExport {
    /// The next entry, or `None` behind the last one. Any error says that the export is not complete.
    pub async fn next_entry(&mut self) -> Result<Option<AuditEntry>> {
        self.0.next().await
    }
}

impl fmt::Debug for AuditExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditExport").finish_non_exhaustive()
    }
}

impl Org<'_> {
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<AuditPage> {
        self.client.get(self.at(&["audit-logs"])? + &filter.query()).await
    }

    /// Every entry that the filter lets through, as it arrives: however many they are, none waits in memory. The
    /// deadline is that of the first one, and of each pause behind it.
    pub async fn audit_export(&self, filter: &AuditFilter) -> Result<AuditExport> {
        let target = self.at(&["audit-logs"])? + &filter.query();
        self.client.export(target).await
    }
}

impl Client {
    /// The log of what belongs to no organization: sessions, keys, organizations made and deleted. For superadmins.
    pub async fn audit_log(&self, filter: &AuditFilter) -> Result<AuditPage> {
        self.get(path(["api", "audit-logs"])? + &filter.query()).await
    }

    /// As [`Org::audit_export`], of the log of what belongs to no organization.
    pub async fn audit_export(&self, filter: &AuditFilter) -> Result<AuditExport> {
        self.export(path(["api", "audit-logs"])? + &filter.query()).await
    }

    async fn export(&self, target: String) -> Result<AuditExport> {
        self.call(Method::GET, target).lines(JSON_LINES).await.map(AuditExport)
    }
}
