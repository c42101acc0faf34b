//! Organizations themselves.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::names;
use sealpod_core::wire::people::{self as wire, Role};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Piece;
use crate::app::App;
use crate::auth::Caller;
use crate::body::fields::string;
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::created;
use crate::store::Organization;
use sealpod_core::wire::problem::codes;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, rename, delete))
}

fn label(fields: &mut Fields<'_>) -> Option<String> {
    fields.required("name", |json| {
        let name = string(json)?;
        names::check_label(&name).map_err(|why| why.to_string())?;
        Ok(name)
    })
}

impl ReadFields for wire::CreateOrganization {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        label(fields).map(|name| Self { name })
    }
}

impl ReadFields for wire::RenameOrganization {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        label(fields).map(|name| Self { name })
    }
}

fn organization(organization: Organization, role: Option<Role>) -> wire::Organization {
    wire::Organization {
        id: organization.id.0,
        name: organization.name,
        role,
        created_at: organization.created_at,
        updated_at: organization.updated_at,
    }
}

/// The management plane works in this one, so nobody takes it away from it.
fn not_the_default(app: &App, name: &str) -> Result<(), ApiError> {
    if name == app.default_organization() {
        return Err(ApiError::Refused {
            code: codes::DEFAULT_ORG,
            detail: "the management plane works in this organization, so it keeps its name and stays; \
                SEALPOD_DEFAULT_ORG names another one",
        });
    }
    Ok(())
}

/// List the organizations that the caller belongs to; superadmins see all
#[utoipa::path(
    get, path = "/api/orgs", tag = "organizations",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])), params(Piece),
    responses((status = 200, description = "By name", body = [wire::Organization]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Query(piece): Query<Piece>,
) -> Result<Json<Vec<wire::Organization>>, ApiError> {
    let all = caller.organizations(&app, piece.into()).await?;
    Ok(Json(
        all.into_iter().map(|(one, role)| organization(one, role)).collect(),
    ))
}

/// Create an organization; whoever signed in becomes its owner
#[utoipa::path(
    post, path = "/api/orgs", tag = "organizations", security(("admin_key" = []), ("session" = [])),
    request_body = wire::CreateOrganization, responses((status = 201, body = wire::Organization), Problems),
)]
async fn create(
    caller: Caller,
    State(app): State<App>,
    Query(()): Query<()>,
    body: Unread<wire::CreateOrganization>,
) -> Result<Response, ApiError> {
    caller.person()?;
    let owner = caller.session().map(|session| session.user.id);
    let body = body.read()?;
    let made = app.store().create_organization(&body.name, owner, caller.by()).await?;
    let path = format!("/api/orgs/{}", made.name);
    created(&path, organization(made, owner.map(|_| Role::Owner)))
}

/// Get an organization
#[utoipa::path(
    get, path = "/api/orgs/{org}", tag = "organizations",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])), params(("org" = String, Path)),
    responses((status = 200, body = wire::Organization), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path(name): Path<String>,
    Query(()): Query<()>,
) -> Result<Json<wire::Organization>, ApiError> {
    let member = caller.within(&app, &name).await?;
    let role = member.role();
    Ok(Json(organization(member.organization, role)))
}

/// Rename an organization: its path changes with it
#[utoipa::path(
    patch, path = "/api/orgs/{org}", tag = "organizations", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), request_body = wire::RenameOrganization,
    responses((status = 200, body = wire::Organization), Problems),
)]
async fn rename(
    caller: Caller,
    State(app): State<App>,
    Path(name): Path<String>,
    Query(()): Query<()>,
    body: Unread<wire::RenameOrganization>,
) -> Result<Json<wire::Organization>, ApiError> {
    let member = caller.within(&app, &name).await?;
    member.require(Role::Owner)?;
    let body = body.read()?;
    not_the_default(&app, &name)?;
    let grantor = (caller.grantor()?, member.by());
    let renamed = app
        .store()
        .rename_organization(member.organization.id, &body.name, grantor)
        .await?;
    Ok(Json(organization(renamed, member.role())))
}

/// Delete an organization with everything in it; its keys are dead at once
#[utoipa::path(
    delete, path = "/api/orgs/{org}", tag = "organizations", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), responses((status = 204), Problems),
)]
async fn delete(
    caller: Caller,
    State(app): State<App>,
    Path(name): Path<String>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &name).await?;
    member.require(Role::Owner)?;
    not_the_default(&app, &name)?;
    let grantor = (caller.grantor()?, member.by());
    app.store().delete_organization(member.organization.id, grantor).await?;
    Ok(StatusCode::NO_CONTENT)
}
