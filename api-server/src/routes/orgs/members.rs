//! Members of an organization, and their roles.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::wire::people::{self as wire, Role};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Piece;
use crate::app::App;
use crate::auth::{Caller, Member};
use crate::body::fields::{one_of, parsed};
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::ids::UserId;
use crate::routes::Problems;
use crate::routes::links::created;
use crate::store::OrganizationMember;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, invite))
        .routes(routes!(get, change_role, remove))
}

const ROLES: [(&str, Role); 4] = [
    ("owner", Role::Owner),
    ("admin", Role::Admin),
    ("developer", Role::Developer),
    ("member", Role::Member),
];

impl ReadFields for wire::InviteMember {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let email = fields.required("email", parsed);
        let role = fields.required("role", one_of(&ROLES));
        Some(Self {
            email: email?,
            role: role?,
        })
    }
}

impl ReadFields for wire::ChangeRole {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.required("role", one_of(&ROLES)).map(|role| Self { role })
    }
}

fn of_wire(member: OrganizationMember) -> wire::Member {
    wire::Member {
        user_id: member.user.0,
        email: member.email,
        role: member.role,
        created_at: member.created_at,
    }
}

/// The caller, who may see who else is a member.
async fn among(app: &App, caller: &Caller, organization: &str) -> Result<Member, ApiError> {
    let member = caller.within(app, organization).await?;
    member.require(Role::Member)?;
    Ok(member)
}

/// List the members
#[utoipa::path(
    get, path = "/api/orgs/{org}/members", tag = "members", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Piece),
    responses((status = 200, description = "By address", body = [wire::Member]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(piece): Query<Piece>,
) -> Result<Json<Vec<wire::Member>>, ApiError> {
    let member = among(&app, &caller, &organization).await?;
    let members = app.store().members(member.organization.id, piece.into()).await?;
    Ok(Json(members.into_iter().map(of_wire).collect()))
}

/// Invite somebody, whether or not they have ever signed in
#[utoipa::path(
    post, path = "/api/orgs/{org}/members", tag = "members", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), request_body = wire::InviteMember,
    responses((status = 201, body = wire::Member), Problems),
)]
async fn invite(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
    body: Unread<wire::InviteMember>,
) -> Result<Response, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let grantor = (caller.grantor()?, member.by());
    let body = body.read()?;
    let made = app
        .store()
        .add_member(member.organization.id, body.email, body.role, grantor)
        .await?;
    let made = of_wire(made);
    let organization = &member.organization.name;
    created(&format!("/api/orgs/{organization}/members/{}", made.user_id), made)
}

/// Get a member
#[utoipa::path(
    get, path = "/api/orgs/{org}/members/{user_id}", tag = "members", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("user_id" = Uuid, Path)), responses((status = 200, body = wire::Member), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, user)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Member>, ApiError> {
    let member = among(&app, &caller, &organization).await?;
    let found = app.store().member(member.organization.id, UserId(user)).await?;
    Ok(Json(of_wire(found)))
}

/// Change a member's role
#[utoipa::path(
    patch, path = "/api/orgs/{org}/members/{user_id}", tag = "members",
    security(("admin_key" = []), ("session" = [])), params(("org" = String, Path), ("user_id" = Uuid, Path)),
    request_body = wire::ChangeRole, responses((status = 200, body = wire::Member), Problems),
)]
async fn change_role(
    caller: Caller,
    State(app): State<App>,
    Path((organization, user)): Path<(String, Uuid)>,
    Query(()): Query<()>,
    body: Unread<wire::ChangeRole>,
) -> Result<Json<wire::Member>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Owner)?;
    let grantor = (caller.grantor()?, member.by());
    let body = body.read()?;
    let changed = app
        .store()
        .change_role(member.organization.id, UserId(user), body.role, grantor)
        .await?;
    Ok(Json(of_wire(changed)))
}

/// Remove a member, with the member's rules; access ends at once
#[utoipa::path(
    delete, path = "/api/orgs/{org}/members/{user_id}", tag = "members",
    security(("admin_key" = []), ("session" = [])), params(("org" = String, Path), ("user_id" = Uuid, Path)),
    responses((status = 204), Problems),
)]
async fn remove(
    caller: Caller,
    State(app): State<App>,
    Path((organization, user)): Path<(String, Uuid)>,
    Query(()): Query<()>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let grantor = (caller.grantor()?, member.by());
    let organization = member.organization.id;
    app.store().remove_member(organization, UserId(user), grantor).await?;
    Ok(StatusCode::NO_CONTENT)
}
