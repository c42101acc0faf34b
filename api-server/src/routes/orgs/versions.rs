//! The versions of a secret in one environment: their list, their state, and the way back to an earlier value.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sealpod_core::wire::org::{self as wire, Permission};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::secrets::located;
use crate::app::App;
use crate::audit::Verb;
use crate::auth::Caller;
use crate::body::fields::{boolean, whole_from};
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::list::{self, List, Piece};
use crate::store::{EnvironmentRef, VersionEdit, VersionInfo};
use crate::values;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(update))
        .routes(routes!(roll_back))
}

/// The highest number that a version can have.
pub(super) const MAX_VERSION: u64 = i64::MAX.unsigned_abs();

impl ReadFields for wire::UpdateSecretVersion {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let is_enabled = fields.or("is_enabled", None, |json| boolean(json).map(Some));
        let (expires_at, not_before) = fields.window_edit("expires_at", "not_before")?;
        Some(Self {
            is_enabled: is_enabled?,
            expires_at,
            not_before,
        })
    }
}

impl ReadFields for wire::Rollback {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            version: fields.required("version", whole_from(1, MAX_VERSION))?,
        })
    }
}

fn version(version: VersionInfo) -> wire::SecretVersion {
    wire::SecretVersion {
        version: version.number,
        is_enabled: version.is_enabled,
        expires_at: version.expires_at,
        not_before: version.not_before,
        created_at: version.created_at,
        created_by: version.created_by.name,
    }
}

/// The names in the path of everything below a secret.
type InSecret = (String, String, String, String);

/// List the versions of a secret, never their values
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/versions", tag = "secret versions",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path)),
    responses((status = 200, description = "Newest first", body = [wire::SecretVersion]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key)): Path<InSecret>,
    Query(()): Query<()>,
) -> Result<Response, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    values::require(&app, &member, &location, (Permission::Read, Verb::List), &key).await?;
    list::everything(app, Versions { environment, key }, None).await
}

struct Versions {
    environment: EnvironmentRef,
    key: String,
}

impl List for Versions {
    type Item = wire::SecretVersion;
    type Place = u64;

    async fn piece(&self, app: &App, after: Option<u64>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let environment = self.environment.clone();
        let found = app
            .store()
            .versions_below(environment, &self.key, after, limit + 1)
            .await?;
        Ok(Piece::cut(found.into_iter().map(version).collect(), limit))
    }

    fn place(item: &Self::Item) -> u64 {
        item.version
    }
}

/// Enable or disable a version, or change when it may be read
#[utoipa::path(
    patch, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/versions/{n}",
    tag = "secret versions", security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(
        ("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path),
        ("n" = u64, Path, description = "Number of the version"),
    ),
    request_body = wire::UpdateSecretVersion, responses((status = 200, body = wire::SecretVersion), Problems),
)]
async fn update(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key, number)): Path<(String, String, String, String, u64)>,
    Query(()): Query<()>,
    body: Unread<wire::UpdateSecretVersion>,
) -> Result<Json<wire::SecretVersion>, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    values::require(&app, &member, &location, (Permission::Write, Verb::Update), &key).await?;
    let body = body.read()?;
    let edit = VersionEdit {
        is_enabled: body.is_enabled,
        not_before: body.not_before,
        expires_at: body.expires_at,
    };
    let updated = app
        .store()
        .edit_version(environment, &key, number, edit, member.by())
        .await?;
    Ok(Json(version(updated)))
}

/// Set the value of an earlier version again: a new version, enabled and without a window
#[utoipa::path(
    post, path = "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/rollback", tag = "secret versions",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), ("key" = String, Path)),
    request_body = wire::Rollback,
    responses((status = 200, description = "The new version", body = wire::SecretVersion), Problems),
)]
async fn roll_back(
    caller: Caller,
    State(app): State<App>,
    Path((org, project, env, key)): Path<InSecret>,
    Query(()): Query<()>,
    body: Unread<wire::Rollback>,
) -> Result<Json<wire::SecretVersion>, ApiError> {
    let (member, environment, location) = located(&app, &caller, (org, project, env)).await?;
    values::require(&app, &member, &location, (Permission::Write, Verb::Set), &key).await?;
    let body = body.read()?;
    let appended = values::roll_back(&app, environment, &key, body.version, member.by()).await?;
    Ok(Json(version(appended)))
}
