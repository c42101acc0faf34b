//! Values of secrets on their way in and out: sealed before the store sees them, and given out only after the audit
//! entry of their reading is stored.

use std::sync::Arc;

use sealpod_core::wire::org::Permission;
use sealpod_core::{SecretValue, Time, names};

use crate::app::App;
use crate::audit::{By, Chain, Entry, Kind, Metadata, Outcome, Verb};
use crate::auth::Member;
use crate::auth::acl::Place;
use crate::error::ApiError;
use crate::ids::VersionId;
use crate::store::{
    ActiveVersion, Appended, Creator, EnvironmentRef, Location, NewVersion, ProjectRef, Slot, VersionInfo, while_moved,
};

/// A version to be.
#[derive(Debug)]
pub struct NewValue {
    /// Slug of its environment.
    pub environment: String,
    pub value: SecretValue,
    pub is_enabled: bool,
    pub not_before: Option<Time>,
    pub expires_at: Option<Time>,
}

/// What to do where no secret has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// 404.
    Refuse,
    /// Make it, if the name is one that the organization plane may make.
    Make,
}

/// A version that was appended, and where.
#[derive(Debug)]
pub struct Set {
    pub slot: Slot,
    pub appended: Appended,
}

/// Appends a version for each value, in order and in one transaction.
pub async fn set(
    app: &App,
    project: ProjectRef,
    name: &str,
    values: &[NewValue],
    (absent, description): (Absent, Option<String>),
    by: By,
) -> Result<Vec<Set>, ApiError> {
    let mut environments: Vec<String> = values.iter().map(|value| value.environment.clone()).collect();
    environments.sort_unstable();
    environments.dedup();
    while_moved(|| async {
        let slots = app.store().locate(project.clone(), name, environments.clone()).await?;
        if slots.iter().any(|slot| !slot.exists) {
            match absent {
                Absent::Refuse => {
                    return Err(ApiError::not_found(
                        "no secret of this application has this name; make it first",
                    ));
                }
                Absent::Make => names::check_secret_key(name).map_err(|why| ApiError::invalid("key", why))?,
            }
        }
        let versions: Vec<NewVersion> = values.iter().map(|value| seal(app, &slots, value)).collect();
        let used: Vec<Slot> = versions.iter().map(|version| version.slot.clone()).collect();
        let appended = app.store().append_versions(versions, description.clone(), by.clone());
        let set = |(slot, appended)| Set { slot, appended };
        Ok(appended
            .await
            .map(|appended| used.into_iter().zip(appended).map(set).collect()))
    })
    .await
}

fn seal(app: &App, slots: &[Slot], value: &NewValue) -> NewVersion {
    let slot = slots
        .iter()
        .find(|slot| slot.location.environment_slug == value.environment)
        .expect("a slot was located for every environment")
        .clone();
    let id = VersionId::new();
    NewVersion {
        sealed: app.keyring().seal(&slot.aad(id), value.value.expose()),
        id,
        slot,
        is_enabled: value.is_enabled,
        not_before: value.not_before,
        expires_at: value.expires_at,
        from: None,
    }
}

/// Appends a version with the value of an earlier one, whatever the earlier one's state: the new one is enabled and has
/// no window. The value is sealed anew, because a sealed one opens in its own place only.
pub async fn roll_back(
    app: &App,
    environment: EnvironmentRef,
    name: &str,
    number: u64,
    by: By,
) -> Result<VersionInfo, ApiError> {
    let id = VersionId::new();
    let appended = while_moved(|| async {
        let old = app.store().version(environment.clone(), name, number).await?;
        let value = open(app, &old.aad(), &old.sealed)?;
        let slot = Slot {
            location: old.location,
            secret: old.secret,
            name: old.name,
            exists: true,
        };
        let version = NewVersion {
            sealed: app.keyring().seal(&slot.aad(id), value.expose()),
            id,
            slot,
            is_enabled: true,
            not_before: None,
            expires_at: None,
            from: Some(number),
        };
        Ok::<_, ApiError>(app.store().append_versions(vec![version], None, by.clone()).await)
    })
    .await?;
    let appended = appended
        .first()
        .ok_or_else(|| ApiError::internal("a rollback appended no version"))?;
    Ok(VersionInfo {
        id,
        number: appended.number,
        is_enabled: true,
        not_before: None,
        expires_at: None,
        created_at: appended.created_at,
        created_by: Creator {
            kind: by.actor.kind.as_str().to_owned(),
            id: by.actor.id,
            name: by.actor.name.clone(),
        },
    })
}

/// A value that may be given out: its reading is on record.
#[derive(Debug)]
pub struct Read {
    pub version: Arc<ActiveVersion>,
    pub value: SecretValue,
}

/// Reads the active version.
pub async fn read(app: &App, environment: EnvironmentRef, name: &str, by: By) -> Result<Read, ApiError> {
    let version = app.store().active_version(environment, name).await?;
    let value = open(app, &version.aad(), &version.sealed)?;
    let entry = Entry::new(Kind::Secret, Verb::Read)
        .resource(version.secret.0, &version.name)
        .at(&version.location.project_slug, Some(&version.location.environment_slug))
        .metadata(Metadata {
            version: Some(version.number),
            ..Metadata::default()
        });
    record(app, &version.location, entry, by).await?;
    Ok(Read { version, value })
}

/// Opens what is sealed; one that does not open is a failure of the server.
pub fn open(app: &App, aad: &crate::crypto::Aad, sealed: &crate::crypto::Sealed) -> Result<SecretValue, ApiError> {
    let mut bytes = app.keyring().open(aad, sealed).map_err(ApiError::internal)?;
    SecretValue::from_bytes(std::mem::take(&mut *bytes)).map_err(ApiError::internal)
}

/// Stores an audit entry in the chain of the organization; whoever reads a value answers only after it.
pub async fn record(app: &App, location: &Location, entry: Entry, by: By) -> Result<(), ApiError> {
    let chain = Chain::Organization(location.organization);
    app.store()
        .record(chain, entry, by)
        .await
        .map_err(|error| ApiError::unrecorded(&error))
}

/// The names by which rules match an environment.
pub fn place(location: &Location) -> Place<'_> {
    Place {
        project_id: location.project.0,
        project: &location.project_slug,
        environment: &location.environment_slug,
    }
}

/// What the caller may do with one key of an environment, or 403 with the refusal on record.
pub async fn require(
    app: &App,
    member: &Member,
    location: &Location,
    (permission, verb): (Permission, Verb),
    key: &str,
) -> Result<(), ApiError> {
    let rights = member.rights();
    if rights.within(place(location)).may(permission, key) {
        return Ok(());
    }
    deny(app, member, location, verb, Some(key)).await?;
    Err(ApiError::Denied(member.why_not(permission).into()))
}

/// The caller's rights in the environment, or 403 where there are none, with the refusal on record.
pub async fn require_any(app: &App, member: &Member, location: &Location, verb: Verb) -> Result<(), ApiError> {
    let rights = member.rights();
    if rights.within(place(location)).any() {
        return Ok(());
    }
    deny(app, member, location, verb, None).await?;
    Err(no_right_here())
}

pub fn no_right_here() -> ApiError {
    ApiError::Denied("no rule gives you a right to this environment; an admin can grant one with POST …/acl".into())
}

/// Puts a refusal on record; one caller's refusals only at a bounded rate, so that they cannot fill the disk.
pub async fn deny(
    app: &App,
    member: &Member,
    location: &Location,
    verb: Verb,
    key: Option<&str>,
) -> Result<(), ApiError> {
    if !app.refusals().admit(member.identity()) {
        return Ok(());
    }
    let mut entry = Entry::new(Kind::Secret, verb)
        .at(&location.project_slug, Some(&location.environment_slug))
        .outcome(Outcome::Denied);
    if let Some(key) = key {
        // No secret has a longer name, and the path that it came from may be long.
        let end = key
            .char_indices()
            .nth(names::MAX_SECRET_NAME)
            .map_or(key.len(), |(at, _)| at);
        entry = entry.resource(None, &key[..end]);
    }
    record(app, location, entry, member.by()).await
}
