//! People, their sessions, and what they are in organizations.

use sealpod_core::wire::people::Role;
use sealpod_core::{Email, Time};

use super::{AclRule, By, Organization, OrganizationRef, Page, Result, Store, sqlite};
use crate::crypto::KeyDigest;
use crate::ids::{OrganizationId, SessionId, UserId};

/// Somebody who may sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub created_at: Time,
    /// Of the first login; `None`: invited only.
    pub activated_at: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub user: User,
    pub expires_at: Time,
}

/// What is stored of a new session: nothing that its token could be made from.
#[derive(Debug, Clone, Copy)]
pub struct NewSession {
    pub digest: KeyDigest,
    pub expires_at: Time,
}

/// What a user is in one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub organization: Organization,
    pub role: Role,
    /// The user's live rules there.
    pub rules: Vec<AclRule>,
}

/// A user, as one of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganizationMember {
    pub organization: OrganizationId,
    pub user: UserId,
    pub email: String,
    pub role: Role,
    pub created_at: Time,
}

/// In whose name roles are granted and taken: what bounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grantor {
    Superadmin,
    /// By the role that the user has when the change is made.
    Member(UserId),
}

impl Store {
    /// Signs a user in, who is made where there is none, and activated.
    pub async fn begin_session(&self, email: Email, new: NewSession, by: By) -> Result<Session> {
        self.engine
            .write(move |tx| {
                let user = sqlite::people::ensure(tx, &email)?;
                sqlite::people::begin_session(tx, user, new, &by)
            })
            .await
    }

    /// The session of a token; `None` where it is unknown, ended or expired.
    pub async fn find_session(&self, digest: KeyDigest) -> Result<Option<Session>> {
        let clock = self.engine.credential_clock();
        self.engine
            .read(move |view| sqlite::people::find_session(view.conn, &digest, clock))
            .await
    }

    /// Removes sessions and keys that have ended, at most `limit` of each; answers how many.
    pub async fn purge_credentials(&self, limit: u32) -> Result<u64> {
        let clock = self.engine.credential_clock();
        self.engine
            .write(move |tx| sqlite::clock::purge(tx, clock, limit))
            .await
    }

    pub async fn end_session(&self, id: SessionId, by: By) -> Result<()> {
        self.engine
            .write(move |tx| sqlite::people::end_session(tx, id, &by))
            .await
    }

    /// What the user is in the organization of that name; `NotFound(Organization)` for strangers, as where there is no
    /// such organization.
    pub async fn membership(&self, user: UserId, organization: &str) -> Result<Membership> {
        let organization = organization.to_owned();
        self.engine
            .read(move |view| sqlite::members::membership(view.conn, user, &organization))
            .await
    }

    /// The organizations that the user is in, by name.
    pub async fn memberships(&self, user: UserId, page: Page) -> Result<Vec<(Organization, Role)>> {
        self.engine
            .read(move |view| sqlite::members::of_user(view.conn, user, &page))
            .await
    }

    /// By address.
    pub async fn members(
        &self,
        organization: impl Into<OrganizationRef>,
        page: Page,
    ) -> Result<Vec<OrganizationMember>> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::members::list(view.conn, &organization, &page))
            .await
    }

    pub async fn member(&self, organization: impl Into<OrganizationRef>, user: UserId) -> Result<OrganizationMember> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::members::find(view.conn, &organization, user))
            .await
    }

    /// The member of that address.
    pub async fn member_by_email(
        &self,
        organization: impl Into<OrganizationRef>,
        email: Email,
    ) -> Result<OrganizationMember> {
        let organization = organization.into();
        self.engine
            .read(move |view| sqlite::members::by_email(view.conn, &organization, &email))
            .await
    }

    /// Makes the user where there is none. `Conflict(Member)` where it is one already; `Refused(AboveOwnRole)`.
    pub async fn add_member(
        &self,
        organization: impl Into<OrganizationRef>,
        email: Email,
        role: Role,
        (grantor, by): (Grantor, By),
    ) -> Result<OrganizationMember> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::members::add(tx, &organization, &email, role, (grantor, &by)))
            .await
    }

    /// `Refused` where the grantor's role does not reach that far, or nobody would be owner any more.
    pub async fn change_role(
        &self,
        organization: impl Into<OrganizationRef>,
        user: UserId,
        role: Role,
        (grantor, by): (Grantor, By),
    ) -> Result<OrganizationMember> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::members::change_role(tx, &organization, user, role, (grantor, &by)))
            .await
    }

    /// Takes the member's rules away too. `Refused` as above.
    pub async fn remove_member(
        &self,
        organization: impl Into<OrganizationRef>,
        user: UserId,
        (grantor, by): (Grantor, By),
    ) -> Result<()> {
        let organization = organization.into();
        self.engine
            .write(move |tx| sqlite::members::remove(tx, &organization, user, (grantor, &by)))
            .await
    }
}
