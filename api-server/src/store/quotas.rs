//! What an organization may hold, and what it holds: see `migrations/0006_limits.sql` for what counts.

use std::fmt;

use super::{By, OrganizationRef, Result, Store, sqlite};

/// One of the figures that a quota bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    Projects,
    Secrets,
    ValueBytes,
}

impl Quota {
    pub const ALL: [Self; 3] = [Self::Projects, Self::Secrets, Self::ValueBytes];

    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Projects => "projects",
            Self::Secrets => "secrets",
            Self::ValueBytes => "value_bytes",
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub limit: u64,
    pub used: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub projects: Usage,
    pub secrets: Usage,
    pub value_bytes: Usage,
}

/// New limits; `None` keeps what is. One that is lower than what is used takes nothing away, it only ends growth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaUpdate {
    pub projects: Option<u64>,
    pub secrets: Option<u64>,
    pub value_bytes: Option<u64>,
}

impl Store {
    pub async fn quotas(&self, organization: impl Into<OrganizationRef>) -> Result<Quotas> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::quotas::find(view.conn, &organization))
            .await
    }

    pub async fn update_quotas(
        &self,
        organization: impl Into<OrganizationRef>,
        update: QuotaUpdate,
        by: By,
    ) -> Result<Quotas> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::quotas::update(tx, &organization, &update, &by))
            .await
    }
}
