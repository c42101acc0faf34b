//! The versions of a secret in an environment: their list and their state, never their values.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::boolean;
use crate::body::{Body, Fields, Path, Query, ReadFields};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::Segment;
use crate::routes::list::{self, Linked, List, Pages, Piece};
use crate::store::{VersionEdit, VersionInfo};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(update))
}

impl ReadFields for wire::UpdateVersion {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let is_enabled = fields.or("isEnabled", None, |json| boolean(json).map(Some));
        let (expires_at, not_before) = fields.window_edit("expiresAt", "notBefore")?;
        Some(Self {
            is_enabled: is_enabled?,
            expires_at,
            not_before,
        })
    }
}

fn version(version: &VersionInfo) -> wire::SecretVersion {
    wire::SecretVersion {
        id: version.id.0,
        version: version.number,
        is_enabled: version.is_enabled,
        expires_at: version.expires_at,
        not_before: version.not_before,
        created_at: version.created_at,
    }
}

/// List the versions of a secret in an environment, never their values
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/secrets/{name}/versions/{environmentSlug}", tag = "versions",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("name" = String, Path), ("environmentSlug" = String, Path),
        ("limit" = Option<u32>, Query, description = "1–1000; all without it"),
        ("after" = Option<u64>, Query, description = "Begin below this version; the `Link` of a page has it"),
    ),
    responses(
        (status = 200, description = "Newest first; `Link` names the next page", body = [wire::SecretVersion]), Problems
    ),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path((slug, name, environment)): Path<(String, String, String)>,
    Query(pages): Query<Pages<u64>>,
) -> Result<Response, ApiError> {
    let versions = Versions {
        slug,
        name,
        environment,
    };
    list::answer(app, versions, pages).await
}

struct Versions {
    slug: String,
    name: String,
    environment: String,
}

impl List for Versions {
    type Item = wire::SecretVersion;
    type Place = u64;

    async fn piece(&self, app: &App, after: Option<u64>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let environment = app.application(&self.slug).environment(&self.environment);
        let found = app
            .store()
            .versions_below(environment, &self.name, after, limit + 1)
            .await?;
        Ok(Piece::cut(found.iter().map(version).collect(), limit))
    }

    fn place(item: &Self::Item) -> u64 {
        item.version
    }
}

impl Linked for Versions {
    fn link(&self) -> (String, String) {
        let path = format!(
            "/api/management/applications/{}/secrets/{}/versions/{}",
            Segment(&self.slug),
            Segment(&self.name),
            Segment(&self.environment)
        );
        (path, String::new())
    }
}

/// Enable or disable a version, or change when it may be read
#[utoipa::path(
    patch, path = "/api/management/applications/{slug}/secrets/{name}/versions/{environmentSlug}/{version}",
    tag = "versions", security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("name" = String, Path), ("environmentSlug" = String, Path),
        ("version" = u64, Path, description = "Number of the version"),
    ),
    request_body = wire::UpdateVersion, responses((status = 200, body = wire::SecretVersion), Problems),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name, environment, number)): Path<(String, String, String, u64)>,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateVersion>,
) -> Result<Json<wire::SecretVersion>, ApiError> {
    let edit = VersionEdit {
        is_enabled: body.is_enabled,
        not_before: body.not_before,
        expires_at: body.expires_at,
    };
    let environment = app.application(&slug).environment(environment);
    let updated = app
        .store()
        .edit_version(environment, &name, number, edit, admin.by())
        .await?;
    Ok(Json(version(&updated)))
}
