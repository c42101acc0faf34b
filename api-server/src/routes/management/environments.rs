//! Environments of an application.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
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
use crate::preconditions::{IfMatch, Stale, Tagged, Tagger, shown, shown_unless_known};
use crate::routes::Problems;
use crate::routes::links::{Segment, created_as, labels_query};
use crate::routes::list::{self, Labelled, Linked, List, Piece};
use crate::routes::purge::Deletion;
use crate::store::{Environment, EnvironmentUpdate, NewEnvironment, Page};

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
        ("limit" = Option<u32>, Query, description = "1–1000; all without it"),
        ("after" = Option<String>, Query, description = "Begin behind this slug; the `Link` of a page has it"),
    ),
    responses(
        (status = 200, description = "By slug; `Link` names the next page", body = [wire::Environment]), Problems
    ),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(Labelled { labels, pages }): Query<Labelled>,
) -> Result<Response, ApiError> {
    list::answer(app, Environments { slug, labels }, pages).await
}

struct Environments {
    slug: String,
    labels: Labels,
}

impl List for Environments {
    type Item = wire::Environment;
    type Place = String;

    async fn piece(&self, app: &App, after: Option<String>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = Page {
            after,
            limit: Some(limit + 1),
        };
        let application = app.application(&self.slug);
        let found = app.store().environments(application, self.labels.clone(), page).await?;
        Ok(Piece::cut(found.into_iter().map(environment).collect(), limit))
    }

    fn place(item: &Self::Item) -> String {
        item.slug.clone()
    }
}

impl Linked for Environments {
    fn link(&self) -> (String, String) {
        let path = format!("/api/management/applications/{}/environments", Segment(&self.slug));
        (path, labels_query(&self.labels))
    }
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
    let tag = made.tag(&Tagger::of(&app));
    created_as(&tag, &location, environment(made))
}

/// Get an environment
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("environmentSlug" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of a state that is known"),
    ),
    responses(
        (status = 200, description = "`ETag` names its state", body = wire::Environment),
        (status = 304, description = "The state is known"), Problems
    ),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    headers: HeaderMap,
    Query(()): Query<()>,
) -> Result<Response, ApiError> {
    let (_, found) = app
        .store()
        .environment(app.application(&slug).environment(name))
        .await?;
    let tag = found.tag(&Tagger::of(&app));
    shown_unless_known(&headers, &tag, environment(found))
}

/// Rename an environment; the slug never changes
#[utoipa::path(
    put, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])),
    params(
        ("slug" = String, Path), ("environmentSlug" = String, Path),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the state that is to be changed, or `*`"),
    ),
    request_body = wire::UpdateEnvironment,
    responses((status = 200, description = "`ETag` names its new state", body = wire::Environment), Problems, Stale),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    if_match: IfMatch,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateEnvironment>,
) -> Result<Response, ApiError> {
    let update = EnvironmentUpdate {
        display_name: body.name,
        labels: body.labels,
    };
    let target = app.application(&slug).environment(name);
    let expect = if_match.expect(&app);
    let changed = app
        .store()
        .update_environment(target, update, expect, admin.by())
        .await?;
    let tag = changed.tag(&Tagger::of(&app));
    shown(&tag, environment(changed))
}

/// Delete an environment with its values and configurations
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}/environments/{environmentSlug}", tag = "environments",
    security(("admin_key" = [])), params(("slug" = String, Path), ("environmentSlug" = String, Path), Deletion),
    responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let target = app.application(&slug).environment(name);
    let id = app
        .store()
        .delete_environment(target, deletion.fate(), admin.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}
