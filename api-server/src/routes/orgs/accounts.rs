//! Service accounts and their keys: for admins and owners.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::Time;
use sealpod_core::names::MAX_ACCOUNT_NAME;
use sealpod_core::wire::org as wire;
use sealpod_core::wire::people::Role;
use sealpod_core::wire::{Labels, MAX_OVERLAP_SECONDS};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Piece;
use crate::app::App;
use crate::auth::Caller;
use crate::body::fields::{free_text, labels, not_empty, time, whole};
use crate::body::{Fields, Path, Query, QueryFields, ReadFields, ReadQuery, Unread};
use crate::crypto::{ApiKey, ApiKeyKind, NewKey};
use crate::error::ApiError;
use crate::ids::AccountId;
use crate::routes::Problems;
use crate::routes::links::created;
use crate::store::{Account, NewAccount, Page};

/// How long an account that an operator made is left unused before it counts as left behind: seven days.
const ORPHAN_AFTER_SECONDS: i64 = 7 * 24 * 60 * 60;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, revoke))
        .routes(routes!(rotate))
        .routes(routes!(orphans))
}

impl ReadFields for wire::CreateServiceAccount {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", free_text(MAX_ACCOUNT_NAME));
        let project = fields.optional("project", not_empty);
        let expires_at = fields.optional("expires_at", |json| match time(json)? {
            past if past <= Time::now() => Err("must be in the future".to_owned()),
            future => Ok(future),
        });
        let labels = fields.or("labels", Labels::new(), labels);
        Some(Self {
            name: name?,
            project: project?,
            expires_at: expires_at?,
            labels: labels?,
        })
    }
}

impl ReadFields for wire::RotateServiceAccount {
    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            overlap_seconds: fields.or("overlap_seconds", 0, whole(MAX_OVERLAP_SECONDS))?,
        })
    }
}

/// `?name=&limit=&after=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Named {
    /// Only the account of this name
    name: Option<String>,
    /// 1–1000; all without it
    limit: Option<u32>,
    /// Begin behind this name
    after: Option<String>,
}

impl ReadQuery for Named {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let (name, piece) = (query.at_most_one("name"), Piece::read(query));
        let (name, Piece { limit, after }) = (name?, piece?);
        Some(Self { name, limit, after })
    }
}

fn account(account: Account) -> wire::ServiceAccount {
    wire::ServiceAccount {
        id: account.id.0,
        name: account.name,
        project: account.project.map(|scope| scope.slug),
        key_prefix: account.key_prefix,
        expires_at: account.expires_at,
        labels: account.labels,
        created_at: account.created_at,
        last_used_at: account.last_used_at,
    }
}

/// List service accounts, or find one by its full name
#[utoipa::path(
    get, path = "/api/orgs/{org}/service-accounts", tag = "service accounts", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Named),
    responses((status = 200, description = "By name", body = [wire::ServiceAccount]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(Named { name, limit, after }): Query<Named>,
) -> Result<Json<Vec<wire::ServiceAccount>>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    let page = Page { after, limit };
    let accounts = app.store().accounts(organization.id, name, page).await?;
    Ok(Json(accounts.into_iter().map(account).collect()))
}

/// List the accounts that an operator made and that nobody has used for a week: what it left behind, perhaps
#[utoipa::path(
    get, path = "/api/orgs/{org}/orphans", tag = "service accounts", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Piece),
    responses((status = 200, description = "By name", body = [wire::ServiceAccount]), Problems),
)]
async fn orphans(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(piece): Query<Piece>,
) -> Result<Json<Vec<wire::ServiceAccount>>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let before = Time::now().plus_seconds(-ORPHAN_AFTER_SECONDS);
    let organization = member.organization.id;
    let orphans = app.store().orphans(organization, before, piece.into()).await?;
    Ok(Json(orphans.into_iter().map(account).collect()))
}

/// Create a service account; its key is shown this once
#[utoipa::path(
    post, path = "/api/orgs/{org}/service-accounts", tag = "service accounts", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), request_body = wire::CreateServiceAccount,
    responses((status = 201, body = wire::CreatedServiceAccount), Problems),
)]
async fn create(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
    body: Unread<wire::CreateServiceAccount>,
) -> Result<Response, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    let key = ApiKey::generate(ApiKeyKind::ServiceAccount);
    let body = body.read()?;
    let new = NewAccount {
        organization: organization.id.into(),
        name: body.name,
        project: body.project,
        expires_at: body.expires_at,
        labels: body.labels,
        key: NewKey::of(app.store().pepper(), &key),
    };
    let made = account(app.store().create_account(new, caller.by()).await?);
    created(
        &format!("/api/orgs/{}/service-accounts/{}", organization.name, made.id),
        wire::CreatedServiceAccount {
            id: made.id,
            name: made.name,
            project: made.project,
            api_key: key.into_text(),
            key_prefix: made.key_prefix,
            expires_at: made.expires_at,
            labels: made.labels,
            created_at: made.created_at,
        },
    )
}

/// Get a service account, never its key
#[utoipa::path(
    get, path = "/api/orgs/{org}/service-accounts/{id}", tag = "service accounts", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = wire::ServiceAccount), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<Json<wire::ServiceAccount>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    Ok(Json(account(
        app.store().account(organization.id, AccountId(id)).await?,
    )))
}

/// Revoke a service account, with its keys and rules
#[utoipa::path(
    delete, path = "/api/orgs/{org}/service-accounts/{id}", tag = "service accounts", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("id" = Uuid, Path)), responses((status = 204), Problems),
)]
async fn revoke(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    app.store()
        .revoke_account(organization.id, AccountId(id), caller.by())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a service account a new key; earlier ones die at once, or after `overlap_seconds`
#[utoipa::path(
    post, path = "/api/orgs/{org}/service-accounts/{id}/rotate", tag = "service accounts",
    security(("admin_key" = []), ("session" = [])), params(("org" = String, Path), ("id" = Uuid, Path)),
    request_body = Option<wire::RotateServiceAccount>,
    responses((status = 200, description = "The key is shown this once", body = wire::RotatedServiceAccountKey), Problems),
)]
async fn rotate(
    caller: Caller,
    State(app): State<App>,
    Path((organization, id)): Path<(String, Uuid)>,
    Query(()): Query<()>,
    body: Unread<wire::RotateServiceAccount>,
) -> Result<Json<wire::RotatedServiceAccountKey>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let organization = &member.organization;
    let key = ApiKey::generate(ApiKeyKind::ServiceAccount);
    let new = NewKey::of(app.store().pepper(), &key);
    let body = body.read()?;
    let rotated = app
        .store()
        .rotate_account(organization.id, AccountId(id), new, body.overlap_seconds, caller.by())
        .await?;
    Ok(Json(wire::RotatedServiceAccountKey {
        key_prefix: key.prefix().to_owned(),
        api_key: key.into_text(),
        old_key_expires_at: rotated.old_key_expires_at,
    }))
}
