//! Environments of an application.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::Slug;
use sealpod_core::names::MAX_ENVIRONMENT_NAME;
use sealpod_core::wire::Labels;
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::applications::slug;
use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::{free_text, labels};
use crate::body::{Body, Fields, Path, Query, ReadFields};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::labels::LabelFilter;
use crate::routes::links::{Segment, created};
use crate::store::{Environment, EnvironmentUpdate, NewEnvironment};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

/// [`wire::CreateEnvironment`], read.
struct CreateEnvironment {
    name: String,
    slug: Slug,
    labels: Labels,
}

impl ReadFields for CreateEnvironment {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_ENVIRONMENT_NAME));
        let slug = slug(fields, name.as_deref(), MAX_ENVIRONMENT_NAME);
        let labels = fields.or("labels", Labels::new(), labels);
        Some(Self {
            name: name?,
            slug: slug?,
            labels: labels?,
        })
    }
}

impl ReadFields for wire::UpdateEnvironment {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_ENVIRONMENT_NAME));
        let labels = fields.optional("labels", labels);
        Some(Self {
            name: name?,
            labels: labels?,
        })
    }
}

fn environment(environment: Environment) -> wire::Environment {
    wire::Environment {
        id: environment.id.0,
        slug: environment.slug,
        name: environment.display_name,
        labels: environment.labels,
        created_at: environment.created_at,
    }
}

/// List the environments of an application
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/environments", tag = "environments",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path),
        ("label" = Option<Vec<String>>, Query, description = "`key=value`; repeated: all of them"),
    ),
    responses((status = 200, description = "By slug", body = [wire::Environment]), Problems),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(LabelFilter(labels)): Query<LabelFilter>,
) -> Result<Json<Vec<wire::Environment>>, ApiError> {
    let environments = app.store().environments(app.application(&slug), labels).await?;
    Ok(Json(environments.into_iter().map(environment).collect()))
}

/// Create an environment
#[utoipa::path(
    post, path = "/api/management/applications/{slug}/environments", tag = "environments",
    security(("admin_key" = [])), params(("slug" = String, Path)), request_body = wire::CreateEnvironment,
    responses((status = 201, body = wire::Environment), Problems),
)]
async fn create(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(()): Query<()>,
    Body(body): Body<CreateEnvironment>,
) -> Result<Response, ApiError> {
    let new = NewEnvironment {
        slug: body.slug,
        display_name: body.name,
        labels: body.labels,
    };
    let made = app
        .store()
        .create_environment(app.application(&slug), new, admin.by())
        .await?;
    let location = format!(
        "/api/management/applications/{}/environments/{}",
        Segment(&slug),
        made.slug
    );
    created(&location, environment(made))
}

/// Get an environment
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])), params(("slug" = String, Path), ("environmentSlug" = String, Path)),
    responses((status = 200, body = wire::Environment), Problems),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Environment>, ApiError> {
    let (_, found) = app
        .store()
        .environment(app.application(&slug).environment(name))
        .await?;
    Ok(Json(environment(found)))
}

/// Rename an environment; the slug never changes
#[utoipa::path(
    put, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])), params(("slug" = String, Path), ("environmentSlug" = String, Path)),
    request_body = wire::UpdateEnvironment, responses((status = 200, body = wire::Environment), Problems),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateEnvironment>,
) -> Result<Json<wire::Environment>, ApiError> {
    let update = EnvironmentUpdate {
        display_name: body.name,
        labels: body.labels,
    };
    let target = app.application(&slug).environment(name);
    Ok(Json(environment(
        app.store().update_environment(target, update, admin.by()).await?,
    )))
}

/// Delete an environment with its values and configurations
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])), params(("slug" = String, Path), ("environmentSlug" = String, Path)),
    responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let target = app.application(&slug).environment(name);
    app.store().delete_environment(target, admin.by()).await?;
    Ok(StatusCode::NO_CONTENT)
}
