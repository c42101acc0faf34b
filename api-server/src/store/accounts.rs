//! Service accounts.

use sealpod_core::Time;
use sealpod_core::wire::Labels;

use super::{By, OrganizationRef, Page, Result, Store, sqlite};
use crate::crypto::NewKey;
use crate::ids::{AccountId, OrganizationId, ProjectId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub organization: OrganizationId,
    pub name: String,
    /// `None`: the whole organization.
    pub project: Option<AccountScope>,
    /// Of its newest key.
    pub key_prefix: String,
    pub expires_at: Option<Time>,
    pub labels: Labels,
    pub created_at: Time,
    /// To the minute or so.
    pub last_used_at: Option<Time>,
}

/// The one project that an account may reach. It may have been deleted since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountScope {
    pub id: ProjectId,
    pub slug: String,
}

#[derive(Debug, Clone)]
pub struct NewAccount {
    pub organization: OrganizationRef,
    pub name: String,
    /// Slug of the one project that it may reach.
    pub project: Option<String>,
    pub expires_at: Option<Time>,
    pub labels: Labels,
    pub key: NewKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// When the last of the earlier keys dies; `None` where none lives on.
    pub old_key_expires_at: Option<Time>,
}

impl Store {
    /// `Conflict(ServiceAccount)` where a live one has the name; `NotFound(Project)` where the scope does not exist.
    pub async fn create_account(&self, new: NewAccount, by: By) -> Result<Account> {
        self.engine
            .write(move |tx| sqlite::accounts::create(tx, &new, &by))
            .await
    }

    /// Live accounts by name; of one name, where it is given.
    pub async fn accounts(
        &self,
        organization: impl Into<OrganizationRef>,
        name: Option<String>,
        page: Page,
    ) -> Result<Vec<Account>> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::accounts::list(view, &organization, name.as_deref(), &page))
            .await
    }

    /// Live accounts that an operator made and that were last used, or where they never were, made, before that
    /// instant; by name.
    pub async fn orphans(
        &self,
        organization: impl Into<OrganizationRef>,
        before: Time,
        page: Page,
    ) -> Result<Vec<Account>> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::accounts::orphans(view, &organization, before, &page))
            .await
    }

    pub async fn account(&self, organization: impl Into<OrganizationRef>, id: AccountId) -> Result<Account> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::accounts::find(view.conn, &organization, id))
            .await
    }

    /// Gives it a new key. Earlier ones live for `overlap_seconds` more, or until their own deadline where that is
    /// sooner; at most the eight newest are kept.
    pub async fn rotate_account(
        &self,
        organization: impl Into<OrganizationRef>,
        id: AccountId,
        key: NewKey,
        overlap_seconds: u64,
        by: By,
    ) -> Result<Rotated> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::accounts::rotate(tx, &organization, id, &key, overlap_seconds, &by))
            .await
    }

    /// Kills its keys and deletes its ACL rules with it.
    pub async fn revoke_account(&self, organization: impl Into<OrganizationRef>, id: AccountId, by: By) -> Result<()> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::accounts::revoke(tx, &organization, id, &by))
            .await
    }
}
