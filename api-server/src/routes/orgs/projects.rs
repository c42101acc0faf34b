//! Projects: all of them for members, for a service account those that its scope or a rule names.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sealpod_core::Slug;
use sealpod_core::names::{MAX_APPLICATION_NAME, MAX_DESCRIPTION};
use sealpod_core::wire::Labels;
use sealpod_core::wire::org as wire;
use sealpod_core::wire::people::Role;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::label;
use crate::app::App;
use crate::auth::{Caller, Member};
use crate::body::fields::{free_text, text_within};
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::links::created;
use crate::routes::purge::Deletion;
use crate::store::{NewEnvironment, NewProject, Page, Project, ProjectEdit, ProjectRef};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

/// Slugs and display names of the environments that a project begins with.
const ENVIRONMENTS: [(&str, &str); 3] = [("dev", "Development"), ("staging", "Staging"), ("prod", "Production")];

/// [`wire::CreateProject`], read.
struct CreateProject {
    name: Slug,
    display_name: Option<String>,
    description: Option<String>,
}

impl ReadFields for CreateProject {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", label);
        let display_name = fields.optional("display_name", free_text(MAX_APPLICATION_NAME));
        let description = fields.optional("description", text_within(MAX_DESCRIPTION));
        Some(Self {
            name: name?,
            display_name: display_name?,
            description: description?,
        })
    }
}

impl ReadFields for ProjectEdit {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let slug = fields.or("name", None, |json| label(json).map(Some));
        let display_name = fields.or("display_name", None, |json| {
            free_text(MAX_APPLICATION_NAME)(json).map(Some)
        });
        let description = fields.edit("description", text_within(MAX_DESCRIPTION));
        Some(Self {
            slug: slug?,
            display_name: display_name?,
            description: description?,
        })
    }
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
pub(super) async fn visible(
    app: &App,
    caller: &Caller,
    organization: &str,
    name: &str,
) -> Result<(Member, Project), ApiError> {
    let member = caller.within(app, organization).await?;
    let project = app
        .store()
        .project(ProjectRef::slug(member.organization.id, name))
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
        .projects(member.organization.id, Labels::new(), Page::default())
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

/// Create a project with the environments `dev`, `staging` and `prod`
#[utoipa::path(
    post, path = "/api/orgs/{org}/projects", tag = "projects", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), request_body = wire::CreateProject,
    responses((status = 201, body = wire::Project), Problems),
)]
async fn create(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
    body: Unread<CreateProject>,
) -> Result<Response, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let environment = |(slug, display_name): (&str, &str)| {
        Ok(NewEnvironment {
            slug: Slug::of(slug).map_err(ApiError::internal)?,
            display_name: display_name.to_owned(),
            labels: Labels::new(),
        })
    };
    let body = body.read()?;
    let new = NewProject {
        organization: member.organization.id.into(),
        display_name: body.display_name.unwrap_or_else(|| body.name.to_string()),
        slug: body.name,
        description: body.description,
        labels: Labels::new(),
        environments: ENVIRONMENTS
            .into_iter()
            .map(environment)
            .collect::<Result<_, ApiError>>()?,
        key: None,
    };
    let made = project(app.store().create_project(new, member.by()).await?);
    let path = format!("/api/orgs/{}/projects/{}", member.organization.name, made.name);
    created(&path, made)
}

/// Rename a project, or change its display name or description
#[utoipa::path(
    patch, path = "/api/orgs/{org}/projects/{project}", tag = "projects", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("project" = String, Path)), request_body = wire::UpdateProject,
    responses((status = 200, description = "A new name is a new path", body = wire::Project), Problems),
)]
async fn update(
    caller: Caller,
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    Query(()): Query<()>,
    edit: Unread<ProjectEdit>,
) -> Result<Json<wire::Project>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let target = ProjectRef::slug(member.organization.id, name);
    let edit = edit.read()?;
    Ok(Json(project(
        app.store().edit_project(target, edit, member.by()).await?,
    )))
}

/// Delete a project with all that is in it; its name can be used again
#[utoipa::path(
    delete, path = "/api/orgs/{org}/projects/{project}", tag = "projects", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), ("project" = String, Path), Deletion), responses((status = 204), Problems),
)]
async fn delete(
    caller: Caller,
    State(app): State<App>,
    Path((organization, name)): Path<(String, String)>,
    Query(deletion): Query<Deletion>,
) -> Result<StatusCode, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Admin)?;
    let target = ProjectRef::slug(member.organization.id, name);
    let id = app.store().delete_project(target, deletion.fate(), member.by()).await?;
    Ok(deletion.finish(&app, id).await)
}
