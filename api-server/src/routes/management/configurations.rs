//! Configurations of an application's environments.

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
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
use crate::preconditions::{IfMatch, Stale, Tagged, Tagger, shown, shown_unless_known};
use crate::routes::Problems;
use crate::routes::links::{Segment, created_as};
use crate::routes::list::{self, Linked, List, Pages, Piece, Place};
use crate::routes::purge::Deletion;
use crate::store::{Configuration, ConfigurationPage};

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
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path),
        ("limit" = Option<u32>, Query, description = "1–1000; all without it. A page of large values can hold fewer"),
        ("after" = Option<String>, Query, description = "Where the next page begins; the `Link` of a page has it"),
    ),
    responses(
        (status = 200, description = "By environment, then by key; `Link` names the next page", body = [wire::Configuration]),
        Problems
    ),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(pages): Query<Pages<Behind>>,
) -> Result<Response, ApiError> {
    list::answer(app, Configurations { slug }, pages).await
}

struct Configurations {
    slug: String,
}

/// Values, as they are sealed, that are in memory at a time.
pub const MAX_PIECE: usize = 4 * 1024 * 1024;

impl List for Configurations {
    type Item = wire::Configuration;
    type Place = Behind;

    async fn piece(&self, app: &App, after: Option<Behind>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = ConfigurationPage {
            environment: None,
            after: after.map(|Behind(environment, key)| (environment, key)),
            limit: limit as usize,
            bytes: MAX_PIECE,
        };
        let found = app
            .store()
            .configuration_page(app.application(&self.slug), page)
            .await?;
        let items = found.entries.into_iter().map(|found| configuration(app, found));
        Ok(Piece {
            items: items.collect::<Result<_, _>>()?,
            more: found.more,
        })
    }

    fn place(item: &Self::Item) -> Behind {
        Behind(item.environment_slug.clone(), item.key.clone())
    }
}

impl Linked for Configurations {
    fn link(&self) -> (String, String) {
        let path = format!("/api/management/applications/{}/configurations", Segment(&self.slug));
        (path, String::new())
    }
}

/// Behind this key of this environment.
struct Behind(String, String);

impl Place for Behind {
    fn read(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (environment, key) = serde_json::from_slice(&bytes).ok()?;
        let place = Self(environment, key);
        // One place has one spelling.
        (place.to_string() == text).then_some(place)
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(&(&self.0, &self.1)).expect("text is always JSON");
        f.write_str(&BASE64URL_NOPAD.encode(&json))
    }
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
    let tag = made.tag(&Tagger::of(&app));
    let made = configuration(&app, made)?;
    let location = format!(
        "/api/management/applications/{}/configurations/{}/{}",
        Segment(&slug),
        made.environment_slug,
        Segment(&made.key)
    );
    created_as(&tag, &location, made)
}

/// Get a configuration
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}", tag = "configurations",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of a state that is known"),
    ),
    responses(
        (status = 200, description = "`ETag` names its state", body = wire::Configuration),
        (status = 304, description = "The state is known"), Problems
    ),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    headers: HeaderMap,
    Query(()): Query<()>,
) -> Result<Response, ApiError> {
    let found = app
        .store()
        .configuration(app.application(&slug).environment(environment), &key)
        .await?;
    let tag = found.tag(&Tagger::of(&app));
    shown_unless_known(&headers, &tag, configuration(&app, found)?)
}

/// Change a configuration; without `description` the old one stays
#[utoipa::path(
    put, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}", tag = "configurations",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the state that is to be changed, or `*`"),
    ),
    request_body = wire::UpdateConfiguration,
    responses((status = 200, description = "`ETag` names its new state", body = wire::Configuration), Problems, Stale),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    if_match: IfMatch,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateConfiguration>,
) -> Result<Response, ApiError> {
    let environment = app.application(&slug).environment(environment);
    let changed = configurations::write(
        &app,
        Write::Update(if_match.expect(&app)),
        environment,
        &key,
        &body.value,
        body.description,
        admin.by(),
    )
    .await?;
    let tag = changed.tag(&Tagger::of(&app));
    shown(&tag, configuration(&app, changed)?)
}

/// Delete a configuration
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}/configurations/{environmentSlug}/{key}",
    tag = "configurations", security(("admin_key" = [])),
    params(("slug" = String, Path), ("environmentSlug" = String, Path), ("key" = String, Path), Deletion),
    responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path((slug, environment, key)): Path<(String, String, String)>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let environment = app.application(&slug).environment(environment);
    let id = app
        .store()
        .delete_configuration(environment, &key, deletion.fate(), admin.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}
