//! The environments of a project: all of them for members, for a service account those that its scope or a rule names.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::Slug;
use sealpod_core::wire::Labels;
use sealpod_core::wire::org as wire;
use sealpod_core::wire::people::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::projects::visible;
use super::{InEnvironment, label};
use crate::app::App;
use crate::auth::Caller;
use crate::auth::acl::Place;
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::created;
use crate::routes::purge::Deletion;
use crate::store::{Environment, NewEnvironment, Page, Project, ProjectRef};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, delete))
}

/// [`wire::CreateEnvironment`], read.
struct CreateEnvironment {
    name: Slug,
}

impl ReadFields for CreateEnvironment {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            name: fields.required("name", label)?,
        })
    }
}

fn environment(environment: Environment) -> wire::Environment {
    wire::Environment {
        id: environment.id.0,
        name: environment.slug,
        display_name: environment.display_name,
        created_at: environment.created_at,
    }
}

fn place<'a>(project: &'a Project, environment: &'a str) -> Place<'a> {
    Place {
        project_id: project.id.0,
        project: &project.slug,
        environment,
    }
}

/// List the environments of a project that the caller's rules or scope name
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs", tag = "project environments",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path)),
    responses((status = 200, description = "By name", body = [wire::Environment]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<Json<Vec<wire::Environment>>, ApiError> {
    let (member, project) = visible(&app, &caller, &organization, &name).await?;
    let environments = app
        .store()
        .environments(ProjectRef::Id(project.id), Labels::new(), Page::default())
        .await?;
    let seen = environments
        .into_iter()
        .filter(|environment| member.sees_environment(place(&project, &environment.slug)));
    Ok(Json(seen.map(environment).collect()))
}

/// Create an environment
#[utoipa::path(
    post, path = "/api/orgs/{org}/projects/{project}/envs", tag = "project environments", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("project" = String, Path)), request_body = wire::CreateEnvironment,
    responses((status = 201, body = wire::Environment), Problems),
)]
async fn create(
    caller: Caller,
    State(app): State<App>,
    Path((organization, project)): Path<(String, String)>,
    Query(()): Query<()>,
    body: Unread<CreateEnvironment>,
) -> Result<Response, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let body = body.read()?;
    let new = NewEnvironment {
        display_name: body.name.to_string(),
        slug: body.name,
        labels: Labels::new(),
    };
    let target = ProjectRef::slug(member.organization.id, &project);
    let made = app.store().create_environment(target, new, member.by()).await?;
    // Both names were found, so they are labels.
    let location = format!(
        "/api/orgs/{}/projects/{project}/envs/{}",
        member.organization.name, made.slug
    );
    created(&location, environment(made))
}

/// Get an environment
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}", tag = "project environments",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path)),
    responses((status = 200, body = wire::Environment), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, project, name)): Path<InEnvironment>,
    Query(()): Query<()>,
) -> Result<Json<wire::Environment>, ApiError> {
    let (member, project) = visible(&app, &caller, &organization, &project).await?;
    if !member.sees_environment(place(&project, &name)) {
        return Err(ApiError::Forbidden(
            "no rule of this service account speaks of this environment".into(),
        ));
    }
    let target = ProjectRef::Id(project.id).environment(name);
    let (_, found) = app.store().environment(target).await?;
    Ok(Json(environment(found)))
}

/// Delete an environment with its values and configurations; its name can be used again
#[utoipa::path(
    delete, path = "/api/orgs/{org}/projects/{project}/envs/{env}", tag = "project environments",
    security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("project" = String, Path), ("env" = String, Path), Deletion),
    responses((status = 204), Problems),
)]
async fn delete(
    caller: Caller,
    State(app): State<App>,
    Path((organization, project, name)): Path<InEnvironment>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let target = ProjectRef::slug(member.organization.id, project).environment(name);
    let id = app
        .store()
        .delete_environment(target, deletion.fate(), member.by())
        .await?;
    Ok(deletion.finish(&app, id).await)
}
