//! Configurations on their way in and out: sealed like values, but no secrets, so reading one needs no audit entry.

use crate::app::App;
use crate::audit::By;
use crate::error::ApiError;
use crate::ids::RevisionId;
use crate::store::{Configuration, ConfigurationWrite, EnvironmentRef, Expect, Object, StoreError, while_moved};

/// What a write does about an entry that is there already.
#[derive(Clone)]
pub enum Write {
    /// Make it; 409 if it exists.
    Create,
    /// Change it; 404 if it does not exist, 412 if it is not as expected.
    Update(Expect<Configuration>),
}

/// Writes an entry. Without a description, an update keeps the old one.
pub async fn write(
    app: &App,
    what: Write,
    environment: EnvironmentRef,
    key: &str,
    value: &str,
    description: Option<String>,
    by: By,
) -> Result<Configuration, ApiError> {
    while_moved(|| async {
        let slot = app.store().locate_configuration(environment.clone(), key).await?;
        match (&what, slot.exists) {
            (Write::Create, true) => return Err(StoreError::Conflict(Object::Configuration).into()),
            (Write::Update(_), false) => return Err(StoreError::NotFound(Object::Configuration).into()),
            (Write::Create, false) | (Write::Update(_), true) => {}
        }
        let revision = RevisionId::new();
        let write = ConfigurationWrite {
            sealed: app.keyring().seal(&slot.aad(revision), value.as_bytes()),
            slot,
            revision,
            description: description.clone(),
        };
        Ok(match &what {
            Write::Create => app.store().create_configuration(write, by.clone()).await,
            Write::Update(expect) => {
                app.store()
                    .update_configuration(write, expect.clone(), by.clone())
                    .await
            }
        })
    })
    .await
}

/// The value of an entry; one that does not open is a failure of the server.
pub fn open(app: &App, configuration: &Configuration) -> Result<String, ApiError> {
    let mut bytes = app
        .keyring()
        .open(&configuration.aad(), &configuration.sealed)
        .map_err(ApiError::internal)?;
    String::from_utf8(std::mem::take(&mut *bytes))
        .map_err(|_| ApiError::internal(format!("configuration {} is not text", configuration.id)))
}
