//! Projects and their environments: all of them for members, for a service account those that its rules or scope name.

use axum::Json;
use axum::extract::State;
use sealpod_core::wire::Labels;
use sealpod_core::wire::org as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::acl::Place;
use crate::auth::{Caller, Member};
use crate::body::{Path, Query};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::store::{Page, Project, ProjectRef};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(environments))
}

fn project(project: Project) -> wire::Project {
    wire::Project {
        id: project.id.0,
        name: project.slug,
        display_name: project.display_name,
        description: project.description,
        created_at: project.created_at,
        updated_at: project.updated_at,
    }
}

/// The project of a path, if the caller may know of it.
async fn visible(app: &App, caller: &Caller, organization: &str, name: &str) -> Result<(Member, Project), ApiError> {
    let member = caller.within(app, organization).await?;
    let project = app
        .store()
        .project(ProjectRef::slug(&member.organization.name, name))
        .await?;
    if member.sees_project(project.id.0, &project.slug) {
        Ok((member, project))
    } else {
        Err(ApiError::Forbidden(
            "no rule of this service account speaks of this project".into(),
        ))
    }
}

/// List the projects that the caller's rules or scope name
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects", tag = "projects",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])), params(("org" = String, Path)),
    responses((status = 200, description = "By name", body = [wire::Project]), Problems),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
) -> Result<Json<Vec<wire::Project>>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    let projects = app
        .store()
        .projects(&member.organization.name, Labels::new(), Page::default())
        .await?;
    let seen = projects
        .into_iter()
        .filter(|project| member.sees_project(project.id.0, &project.slug));
    Ok(Json(seen.map(project).collect()))
}

/// Get a project
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}", tag = "projects",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path)),
    responses((status = 200, body = wire::Project), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<Json<wire::Project>, ApiError> {
    let (_, found) = visible(&app, &caller, &organization, &name).await?;
    Ok(Json(project(found)))
}

/// List the environments of a project that the caller's rules or scope name
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs", tag = "projects",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(("org" = String, Path), ("project" = String, Path)),
    responses((status = 200, description = "By name", body = [wire::Environment]), Problems),
)]
async fn environments(
    caller: Caller,
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    Query(()): Query<()>,
) -> Result<Json<Vec<wire::Environment>>, ApiError> {
    let (member, project) = visible(&app, &caller, &organization, &name).await?;
    let environments = app
        .store()
        .environments(ProjectRef::Id(project.id), Labels::new())
        .await?;
    let seen = environments.into_iter().filter(|environment| {
        member.sees_environment(Place {
            project_id: project.id.0,
            project: &project.slug,
            environment: &environment.slug,
        })
    });
    let seen = seen.map(|environment| wire::Environment {
        id: environment.id.0,
        name: environment.slug,
        display_name: environment.display_name,
        created_at: environment.created_at,
    });
    Ok(Json(seen.collect()))
}
