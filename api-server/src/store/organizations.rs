//! Organizations.

use sealpod_core::Time;

use super::{By, Result, Store, sqlite};
use crate::ids::OrganizationId;

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
}
