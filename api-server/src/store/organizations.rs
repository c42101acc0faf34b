//! Organizations.

use sealpod_core::Time;

use super::{By, Page, Result, Store, sqlite};
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
            .read(move |view| sqlite::organizations::find(view.conn, &name))
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

    pub async fn rename_organization(&self, name: &str, new_name: &str, by: By) -> Result<Organization> {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.engine
            .write(move |tx| sqlite::organizations::rename(tx, &name, &new_name, &by))
            .await
    }

    /// With everything in it: nothing below it is found any more, and its keys are dead.
    pub async fn delete_organization(&self, name: &str, by: By) -> Result<()> {
        let name = name.to_owned();
        self.engine
            .write(move |tx| sqlite::organizations::delete(tx, &name, &by))
            .await
    }
}
