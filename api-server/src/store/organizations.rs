//! Organizations.

use sealpod_core::Time;

use super::{By, Grantor, Page, Result, Store, sqlite};
use crate::ids::{OrganizationId, UserId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    pub id: OrganizationId,
    pub name: String,
    pub created_at: Time,
    pub updated_at: Time,
}

impl Store {
    /// The live organization of that name, made where there is none.
    pub async fn ensure_organization(&self, name: &str, by: By) -> Result<Organization> {
        let name = name.to_owned();
        self.engine
            .write(move |tx| sqlite::organizations::ensure(tx, &name, &by))
            .await
    }

    pub async fn organization(&self, name: &str) -> Result<Organization> {
        let name = name.to_owned();
        self.engine
            .read(move |view| sqlite::organizations::by_name(view.conn, &name))
            .await
    }

    /// All of them, by name.
    pub async fn organizations(&self, page: Page) -> Result<Vec<Organization>> {
        self.engine
            .read(move |view| sqlite::organizations::list(view.conn, &page))
            .await
    }

    /// `owner` becomes its first member. `Conflict(Organization)` where a live one has the name.
    pub async fn create_organization(&self, name: &str, owner: Option<UserId>, by: By) -> Result<Organization> {
        let name = name.to_owned();
        self.engine
            .write(move |tx| sqlite::organizations::create(tx, &name, owner, &by))
            .await
    }

    /// `Conflict(Organization)` where a live one has the name; `Refused(AboveOwnRole)` unless the grantor owns it.
    pub async fn rename_organization(
        &self,
        id: OrganizationId,
        new_name: &str,
        (grantor, by): (Grantor, By),
    ) -> Result<Organization> {
        let new_name = new_name.to_owned();
        self.engine
            .write(move |tx| sqlite::organizations::rename(tx, id, &new_name, (grantor, &by)))
            .await
    }

    /// With everything in it: nothing below it is found any more, and its keys are dead. `Refused(AboveOwnRole)` unless
    /// the grantor owns it.
    pub async fn delete_organization(&self, id: OrganizationId, (grantor, by): (Grantor, By)) -> Result<()> {
        self.engine
            .write(move |tx| sqlite::organizations::delete(tx, id, (grantor, &by)))
            .await
    }
}
