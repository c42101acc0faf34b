//! Applications, which are the default organization's projects, and their keys.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use sealpod_core::Slug;
use sealpod_core::names::{MAX_APPLICATION_NAME, MAX_DESCRIPTION};
use sealpod_core::wire::management as wire;
use sealpod_core::wire::{Labels, MAX_OVERLAP_SECONDS};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::{free_text, labels, parsed, text_within, whole};
use crate::body::{Body, Fields, Path, Query, ReadFields};
use crate::crypto::{ApiKey, ApiKeyKind, NewKey};
use crate::error::ApiError;
use crate::preconditions::{IfMatch, Stale, Tagged, Tagger, shown, shown_unless_known};
use crate::routes::Problems;
use crate::routes::links::{created_as, labels_query};
use crate::routes::list::{self, Labelled, Linked, List, Piece};
use crate::routes::purge::Deletion;
use crate::store::{NewEnvironment, NewProject, Page, Project, ProjectUpdate};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(rotate_key))
}

/// [`wire::CreateApplication`], read.
struct NewApplication {
    name: String,
    description: Option<String>,
    slug: Slug,
    labels: Labels,
}

impl ReadFields for NewApplication {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_APPLICATION_NAME));
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        let slug = slug(fields, name.as_deref(), MAX_APPLICATION_NAME);
        let labels = fields.or("labels", Labels::new(), labels);
        Some(Self {
            name: name?,
            description: description?,
            slug: slug?,
            labels: labels?,
        })
    }
}

/// The slug that was asked for, or else the one of the name.
pub(super) fn slug(fields: &mut Fields<'_>, name: Option<&str>, limit: usize) -> Option<Slug> {
    match fields.optional("slug", |json| {
        let slug: Slug = parsed(json)?;
        sealpod_core::names::within(slug.as_str(), limit).map_err(|why| why.to_string())?;
        Ok(slug)
    })? {
        Some(slug) => Some(slug),
        None => Slug::of(name?).map_err(|why| fields.fault("name", why)).ok(),
    }
}

impl ReadFields for wire::UpdateApplication {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_APPLICATION_NAME));
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        let labels = fields.optional("labels", labels);
        Some(Self {
            name: name?,
            description: description?,
            labels: labels?,
        })
    }
}

impl ReadFields for wire::RotateApplicationKey {
    fn absent() -> Option<Self> {
        Some(Self { overlap_seconds: 0 })
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            overlap_seconds: fields.or("overlapSeconds", 0, whole(MAX_OVERLAP_SECONDS))?,
        })
    }
}

fn application(project: Project) -> wire::Application {
    wire::Application {
        id: project.id.0,
        name: project.display_name,
        slug: project.slug,
        description: project.description,
        labels: project.labels,
        created_at: project.created_at,
        updated_at: project.updated_at,
    }
}

/// List applications
#[utoipa::path(
    get, path = "/api/management/applications", tag = "applications", security(("admin_key" = [])),
    params(
        ("label" = Option<Vec<String>>, Query, description = "`key=value`; repeated: all of them"),
        ("limit" = Option<u32>, Query, description = "1–1000; all without it"),
        ("after" = Option<String>, Query, description = "Begin behind this slug; the `Link` of a page has it"),
    ),
    responses(
        (status = 200, description = "By slug; `Link` names the next page", body = [wire::Application]), Problems
    ),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Query(Labelled { labels, pages }): Query<Labelled>,
) -> Result<Response, ApiError> {
    list::answer(app, Applications { labels }, pages).await
}

struct Applications {
    labels: Labels,
}

impl List for Applications {
    type Item = wire::Application;
    type Place = String;

    async fn piece(&self, app: &App, after: Option<String>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = Page {
            after,
            limit: Some(limit + 1),
        };
        let organization = app.default_organization();
        let found = app.store().projects(organization, self.labels.clone(), page).await?;
        Ok(Piece::cut(found.into_iter().map(application).collect(), limit))
    }

    fn place(item: &Self::Item) -> String {
        item.slug.clone()
    }
}

impl Linked for Applications {
    fn link(&self) -> (String, String) {
        ("/api/management/applications".to_owned(), labels_query(&self.labels))
    }
}

/// Create an application, its environment `local` and its key
#[utoipa::path(
    post, path = "/api/management/applications", tag = "applications", security(("admin_key" = [])),
    request_body = wire::CreateApplication,
    responses((status = 201, description = "`plainApiKey` is shown this once", body = wire::CreatedApplication), Problems),
)]
async fn create(
    admin: Admin,
    State(app): State<App>,
    Query(()): Query<()>,
    Body(body): Body<NewApplication>,
) -> Result<Response, ApiError> {
    let key = ApiKey::generate(ApiKeyKind::Application);
    let local = NewEnvironment {
        slug: Slug::of("local").map_err(ApiError::internal)?,
        display_name: "Local".to_owned(),
        labels: Labels::new(),
    };
    let new = NewProject {
        organization: app.default_organization().into(),
        slug: body.slug,
        display_name: body.name,
        description: body.description,
        labels: body.labels,
        environments: vec![local],
        key: Some(NewKey::of(app.store().pepper(), &key)),
    };
    let made = app.store().create_project(new, admin.by()).await?;
    let tag = made.tag(&Tagger::of(&app));
    let made = application(made);
    created_as(
        &tag,
        &format!("/api/management/applications/{}", made.slug),
        wire::CreatedApplication {
            id: made.id,
            name: made.name,
            slug: made.slug.clone(),
            description: made.description,
            labels: made.labels,
            plain_api_key: key.into_text(),
            created_at: made.created_at,
        },
    )
}

/// Get an application
#[utoipa::path(
    get, path = "/api/management/applications/{slug}", tag = "applications", security(("admin_key" = [])),
    params(("slug" = String, Path), ("If-None-Match" = Option<String>, Header, description = "`ETag` of a state that is known")),
    responses(
        (status = 200, description = "`ETag` names its state", body = wire::Application),
        (status = 304, description = "The state is known"), Problems
    ),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    Query(()): Query<()>,
) -> Result<Response, ApiError> {
    let found = app.store().project(app.application(&slug)).await?;
    let tag = found.tag(&Tagger::of(&app));
    shown_unless_known(&headers, &tag, application(found))
}

/// Update an application; the slug never changes
#[utoipa::path(
    put, path = "/api/management/applications/{slug}", tag = "applications", security(("admin_key" = [])),
    params(
        ("slug" = String, Path),
        ("If-Match" = Option<String>, Header, description = "`ETag` of the state that is to be changed, or `*`"),
    ),
    request_body = wire::UpdateApplication,
    responses((status = 200, description = "`ETag` names its new state", body = wire::Application), Problems, Stale),
)]
async fn update(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    if_match: IfMatch,
    Query(()): Query<()>,
    Body(body): Body<wire::UpdateApplication>,
) -> Result<Response, ApiError> {
    let update = ProjectUpdate {
        display_name: body.name,
        description: body.description,
        labels: body.labels,
    };
    let project = app
        .store()
        .update_project(app.application(&slug), update, if_match.expect(&app), admin.by())
        .await?;
    let tag = project.tag(&Tagger::of(&app));
    shown(&tag, application(project))
}

/// Delete an application with all that is in it; its slug can be used again
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}", tag = "applications", security(("admin_key" = [])),
    params(("slug" = String, Path), Deletion), responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let id = app
        .store()
        .delete_project(app.application(&slug), deletion.fate(), admin.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}

/// Make a new key; earlier ones die at once, or after `overlapSeconds`
#[utoipa::path(
    post, path = "/api/management/applications/{slug}/rotate-key", tag = "applications", security(("admin_key" = [])),
    params(("slug" = String, Path)), request_body = Option<wire::RotateApplicationKey>,
    responses((status = 200, description = "The key is shown this once", body = wire::RotatedApplicationKey), Problems),
)]
async fn rotate_key(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(()): Query<()>,
    Body(body): Body<wire::RotateApplicationKey>,
) -> Result<Json<wire::RotatedApplicationKey>, ApiError> {
    let key = ApiKey::generate(ApiKeyKind::Application);
    let new = NewKey::of(app.store().pepper(), &key);
    app.store()
        .rotate_project_key(app.application(&slug), new, body.overlap_seconds, admin.by())
        .await?;
    Ok(Json(wire::RotatedApplicationKey {
        plain_api_key: key.into_text(),
    }))
}
