//! Configurations of an application's environments.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::names::{MAX_CONFIGURATION_KEY, MAX_DESCRIPTION};
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::{free_text, not_empty, text_within};
use crate::body::{Body, Fields, Path, Query, ReadFields};
use crate::configurations::{self, Write};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::{Segment, created};
use crate::store::Configuration;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

impl ReadFields for wire::CreateConfiguration {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let environment_slug = fields.required("environmentSlug", not_empty);
        let key = fields.required("key", free_text(MAX_CONFIGURATION_KEY));
        let value = fields.required("value", not_empty);
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        Some(Self {
            environment_slug: environment_slug?,
            key: key?,
            value: value?,
            description: description?,
        })
    }
}

impl ReadFields for wire::UpdateConfiguration {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let value = fields.required("value", not_empty);
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        Some(Self {
            value: value?,
            description: description?,
        })
    }
}

fn configuration(app: &App, configuration: Configuration) -> Result<wire::Configuration, ApiError> {
    Ok(wire::Configuration {
        id: configuration.id.0,
        value: configurations::open(app, &configuration)?,
        environment_slug: configuration.location.environment_slug,
        key: configuration.key,
        description: configuration.description,
        created_at: configuration.created_at,
        updated_at: configuration.updated_at,
    })
}

/// List the configurations of an application, in all environments
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/configurations", tag = "configurations",
    security(("admin_key" = [])), params(("slug" = String, Path)),
    responses((status = 200, description = "By environment, then by key", body = [wire::Configuration]), Problems),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(()): Query<()>,
) -> Result<Json<Vec<wire::Configuration>>, ApiError> {
    let found = app.store().configurations(app.application(&slug), None).await?;
    found
        .into_iter()
        .map(|found| configuration(&app, found))
        .collect::<Result<_, _>>()
        .map(Json)
}

/// Create a configuration
#[utoipa::path(
    post, path = "/api/management/applications/{slug}/configurations", tag = "configurations",
    security(("admin_key" = [])), params(("slug" = String, Path)), request_body = wire::CreateConfiguration,
    responses((status = 201, body = wire::Configuration), Problems),
)]
async fn create(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(()): Query<()>,
    Body(body): Body<wire::CreateConfiguration>,
) -> Result<Response, ApiError> {
    let environment = app.application(&slug).environment(body.environment_slug);
    let (key, value) = (&body.key, &body.value);
    let made = configurations::write(
        &app,
        Write::Create,
        environment,
        key,
        value,
        body.description,
        admin.by(),
    )
    .await?;
    let made = configuration(&app, made)?;
    let location = format!(
        "/api/management/applications/{}/configurations/{}/{}",
        Segment(&slug),
        made.environment_slug,
        Segment(&made.key)
    );
    created(&location, made)
}

/// Get a configuration
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}", tag = "configurations",
    security(("admin_key" = [])),
    params(("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = wire::Configuration), Problems),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Configuration>, ApiError> {
    let found = app
        .store()
        .configuration(app.application(&slug).environment(environment), &key)
        .await?;
    configuration(&app, found).map(Json)
}

/// Change a configuration; without `description` the old one stays
#[utoipa::path(
    put, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}", tag = "configurations",
    security(("admin_key" = [])),
    params(("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path)),
    request_body = wire::UpdateConfiguration, responses((status = 200, body = wire::Configuration), Problems),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateConfiguration>,
) -> Result<Json<wire::Configuration>, ApiError> {
    let environment = app.application(&slug).environment(environment);
    let changed = configurations::write(
        &app,
        Write::Update,
        environment,
        &key,
        &body.value,
        body.description,
        admin.by(),
    )
    .await?;
    configuration(&app, changed).map(Json)
}

/// Delete a configuration
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}",
    tag = "configurations", security(("admin_key" = [])),
    params(("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path)),
    responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let environment = app.application(&slug).environment(environment);
    app.store().delete_configuration(environment, &key, admin.by()).await?;
    Ok(StatusCode::NO_CONTENT)
}
