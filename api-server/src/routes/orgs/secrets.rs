//! The secrets of one environment.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sealpod_core::names::MAX_DESCRIPTION;
use sealpod_core::wire::org::{self as wire, Permission};
use sealpod_core::wire::people::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{InEnvironment, Piece, environment};
use crate::app::App;
use crate::audit::{Entry, Kind, Metadata, Verb};
use crate::auth::acl::Rights;
use crate::auth::{Caller, Member};
use crate::body::fields::text_within;
use crate::body::{Fields, Path, Query, ReadFields, Unread, VALUE_BODY_LIMIT};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::{Segment, created};
use crate::routes::list::{self, List};
use crate::routes::purge::Deletion;
use crate::store::{EnvironmentRef, Location, Page, ProjectRef};
use crate::values::{self, Absent, NewValue, Set};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, delete))
}

/// [`wire::PutSecret`], read; its environment is the path's.
struct PutSecret {
    value: NewValue,
    description: Option<String>,
}

impl ReadFields for PutSecret {
    const LIMIT: usize = VALUE_BODY_LIMIT;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let value = fields.value();
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        let (expires_at, not_before) = fields.window("expires_at", "not_before")?;
        Some(Self {
            value: NewValue {
                environment: String::new(),
                value: value?,
                is_enabled: true,
                not_before,
                expires_at,
            },
            description: description?,
        })
    }
}

/// Where a path leads, and how to name it to the store.
pub(super) async fn located(
    app: &App,
    caller: &Caller,
    path: InEnvironment,
) -> Result<(Member, EnvironmentRef, Arc<Location>), ApiError> {
    let (member, environment) = environment(app, caller, path).await?;
    let location = app.store().location(environment).await?;
    // From here on by id: what was allowed here is done here, whatever is renamed meanwhile.
    let environment = ProjectRef::Id(location.project).environment(&location.environment_slug);
    Ok((member, environment, location))
}

/// List the keys that the caller may read, never the values
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets", tag = "environment secrets",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), Piece),
    responses((status = 200, description = "By key", body = [wire::SecretListItem]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    Query(Piece { limit, after }): Query<Piece>,
) -> Result<Response, ApiError> {
    let (member, environment, location) = located(&app, &caller, path).await?;
    values::require_any(&app, &member, &location, Verb::List).await?;
    let keys = Keys {
        environment,
        rights: member.rights(),
    };
    let first = keys.piece(&app, after.clone(), limit.unwrap_or(list::CHUNK)).await?;
    let is_all = limit.is_some() || !first.more;
    let rest = if is_all { 0 } else { keys.behind(&app, &first).await? };
    let entry = Entry::new(Kind::Secret, Verb::List)
        .at(&location.project_slug, Some(&location.environment_slug))
        .metadata(Metadata {
            count: u64::try_from(first.items.len() + rest).ok(),
            ..Metadata::default()
        });
    values::record(&app, &location, entry, member.by()).await?;
    if is_all {
        Ok(Json(first.items).into_response())
    } else {
        list::everything(app, keys, after).await
    }
}

/// The keys of an environment that somebody may read.
struct Keys {
    environment: EnvironmentRef,
    rights: Rights,
}

impl Keys {
    /// How many there are behind a piece.
    async fn behind(&self, app: &App, first: &list::Piece<wire::SecretListItem>) -> Result<usize, ApiError> {
        let (mut count, mut after) = (0, first.items.last().map(Self::place));
        loop {
            let piece = self.piece(app, after, list::CHUNK).await?;
            count += piece.items.len();
            if !piece.more {
                return Ok(count);
            }
            after = piece.items.last().map(Self::place);
        }
    }
}

impl List for Keys {
    type Item = wire::SecretListItem;
    type Place = String;

    async fn piece(
        &self,
        app: &App,
        after: Option<String>,
        limit: u32,
    ) -> Result<list::Piece<wire::SecretListItem>, ApiError> {
        let page = Page {
            after,
            limit: Some(limit + 1),
        };
        // The rights are the same for every key of one environment, so they are narrowed down once.
        let (rights, narrowed) = (self.rights.clone(), OnceLock::new());
        let permits = move |location: &Location, key: &str| {
            narrowed
                .get_or_init(|| rights.within(values::place(location)))
                .may(Permission::Read, key)
        };
        let listing = app.store().environment_secrets(self.environment.clone(), page, permits);
        let (_, secrets) = listing.await?;
        let items = secrets.into_iter().map(|secret| wire::SecretListItem {
            id: secret.id.0,
            key: secret.name,
            version: secret.version,
            description: secret.description,
            updated_at: secret.updated_at,
        });
        Ok(list::Piece::cut(items.collect(), limit))
    }

    fn place(item: &wire::SecretListItem) -> String {
        item.key.clone()
    }
}

/// Read the active version of a secret
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}", tag = "environment secrets",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = wire::SecretWithValue), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key)): Path<(String, String, String, String)>,
    Query(()): Query<()>,
) -> Result<Json<wire::SecretWithValue>, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    values::require(&app, &member, &location, (Permission::Read, Verb::Read), &key).await?;
    let read = values::read(&app, environment, &key, member.by()).await?;
    let (value, encoding) = read.value.to_wire();
    Ok(Json(wire::SecretWithValue {
        key: read.version.name.clone(),
        value,
        version: read.version.number,
        encoding,
        created_at: read.version.secret_created_at,
        updated_at: read.version.created_at,
    }))
}

/// Set a secret: appends a version, and makes the secret where there is none
#[utoipa::path(
    put, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}", tag = "environment secrets",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path)),
    request_body = wire::PutSecret,
    responses(
        (status = 200, body = wire::SecretMetadata),
        (status = 201, description = "No live version existed", body = wire::SecretMetadata),
        Problems
    ),
)]
async fn put(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key)): Path<(String, String, String, String)>,
    Query(()): Query<()>,
    body: Unread<PutSecret>,
) -> Result<Response, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    values::require(&app, &member, &location, (Permission::Write, Verb::Set), &key).await?;
    let body = body.read()?;
    let value = NewValue {
        environment: environment.environment,
        ..body.value
    };
    let how = (Absent::Make, body.description);
    let set = values::set(
        &app,
        environment.project,
        &key,
        std::slice::from_ref(&value),
        how,
        member.by(),
    )
    .await?;
    let [Set { slot, appended }] = <[Set; 1]>::try_from(set)
        .map_err(|_| ApiError::internal("one value was set, and not one version came back"))?;
    let metadata = wire::SecretMetadata {
        id: slot.secret.0,
        version: appended.number,
        created_at: appended.secret_created_at,
        updated_at: appended.created_at,
        key,
    };
    if !appended.first {
        return Ok(Json(metadata).into_response());
    }
    let path = format!(
        "/api/orgs/{}/projects/{}/envs/{}/secrets/{}",
        location.organization_name,
        location.project_slug,
        location.environment_slug,
        Segment(&metadata.key)
    );
    created(&path, metadata)
}

/// Delete a secret in this environment; numbering goes on behind what was deleted
#[utoipa::path(
    delete, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}", tag = "environment secrets",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path), Deletion),
    responses((status = 204), Problems),
)]
async fn delete(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key)): Path<(String, String, String, String)>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    if deletion.purge {
        member.require(Role::Admin)?;
    }
    values::require(&app, &member, &location, (Permission::Write, Verb::Delete), &key).await?;
    let id = app
        .store()
        .hide_secret(environment, &key, deletion.fate(), member.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}
