//! Secrets of an application: the slots, without their values.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::names::{MAX_DESCRIPTION, MAX_SECRET_NAME};
use sealpod_core::wire::management as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Admin;
use crate::body::fields::{free_text, text_within};
use crate::body::{Body, Fields, Path, Query, ReadFields};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::{Segment, created};
use crate::routes::list::{self, Linked, List, Pages, Piece};
use crate::routes::purge::Deletion;
use crate::store::{NewSecret, Page, SecretDetail};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
}

impl ReadFields for wire::CreateSecret {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_SECRET_NAME));
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        Some(Self {
            name: name?,
            description: description?,
        })
    }
}

fn detail(detail: SecretDetail) -> wire::Secret {
    let SecretDetail { secret, environments } = detail;
    wire::Secret {
        id: secret.id.0,
        name: secret.name,
        description: secret.description,
        created_at: secret.created_at,
        updated_at: secret.updated_at,
        required_environments: environments
            .into_iter()
            .map(|environment| wire::RequiredEnvironment {
                slug: environment.slug,
                name: environment.display_name,
                value_provided: environment.provided,
            })
            .collect(),
    }
}

/// List the secrets of an application, never their values
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/secrets", tag = "secrets", security(("admin_key" = [])),
    params(
        ("slug" = String, Path),
        ("limit" = Option<u32>, Query, description = "1–1000; all without it"),
        ("after" = Option<String>, Query, description = "Begin behind this name; the `Link` of a page has it"),
    ),
    responses(
        (status = 200, description = "By name; `Link` names the next page", body = [wire::SecretSummary]), Problems
    ),
)]
async fn list(
    _: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(pages): Query<Pages<String>>,
) -> Result<Response, ApiError> {
    list::answer(app, Secrets { slug }, pages).await
}

struct Secrets {
    slug: String,
}

impl List for Secrets {
    type Item = wire::SecretSummary;
    type Place = String;

    async fn piece(&self, app: &App, after: Option<String>, limit: u32) -> Result<Piece<Self::Item>, ApiError> {
        let page = Page {
            after,
            limit: Some(limit + 1),
        };
        let found = app.store().secrets(app.application(&self.slug), page).await?;
        let items = found.into_iter().map(|secret| wire::SecretSummary {
            id: secret.id.0,
            name: secret.name,
            description: secret.description,
            created_at: secret.created_at,
            updated_at: secret.updated_at,
        });
        Ok(Piece::cut(items.collect(), limit))
    }

    fn place(item: &Self::Item) -> String {
        item.name.clone()
    }
}

impl Linked for Secrets {
    fn link(&self) -> (String, String) {
        let path = format!("/api/management/applications/{}/secrets", Segment(&self.slug));
        (path, String::new())
    }
}

/// Create a secret; its values are set by `…/values`
#[utoipa::path(
    post, path = "/api/management/applications/{slug}/secrets", tag = "secrets", security(("admin_key" = [])),
    params(("slug" = String, Path)), request_body = wire::CreateSecret,
    responses((status = 201, body = wire::Secret), Problems),
)]
async fn create(
    admin: Admin,
    State(app): State<App>,
    Path(slug): Path<String>,
    Query(()): Query<()>,
    Body(body): Body<wire::CreateSecret>,
) -> Result<Response, ApiError> {
    let new = NewSecret {
        name: body.name,
        description: body.description,
    };
    let made = detail(
        app.store()
            .create_secret(app.application(&slug), new, admin.by())
            .await?,
    );
    let location = format!(
        "/api/management/applications/{}/secrets/{}",
        Segment(&slug),
        Segment(&made.name)
    );
    created(&location, made)
}

/// Get a secret and in which environments it has a value, never the value
#[utoipa::path(
    get, path = "/api/management/applications/{slug}/secrets/{name}", tag = "secrets", security(("admin_key" = [])),
    params(("slug" = String, Path), ("name" = String, Path)), responses((status = 200, body = wire::Secret), Problems),
)]
async fn get(
    _: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Secret>, ApiError> {
    Ok(Json(detail(app.store().secret(app.application(&slug), &name).await?)))
}

/// Delete a secret in every environment; one made later under the name is a new one
#[utoipa::path(
    delete, path = "/api/management/applications/{slug}/secrets/{name}", tag = "secrets",
    security(("admin_key" = [])), params(("slug" = String, Path), ("name" = String, Path), Deletion),
    responses((status = 204), Problems),
)]
async fn delete(
    admin: Admin,
    State(app): State<App>,
    Path((slug, name)): Path<(String, String)>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let id = app
        .store()
        .delete_secret(app.application(&slug), &name, deletion.fate(), admin.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}
