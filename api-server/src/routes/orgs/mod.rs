//! The organization plane, `/api/orgs`: for service accounts, and for the admin key as a superadmin.

mod accounts;
mod acl;
mod bundle;
mod projects;
mod secrets;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::store::{EnvironmentRef, ProjectRef};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(projects::router())
        .merge(secrets::router())
        .merge(bundle::router())
        .merge(accounts::router())
        .merge(acl::router())
}

/// The names in the path of everything below an environment.
type InEnvironment = (String, String, String);

/// The environment of a path in an organization that the caller belongs to.
async fn environment(
    app: &App,
    caller: &Caller,
    (organization, project, environment): InEnvironment,
) -> Result<EnvironmentRef, ApiError> {
    let organization = caller.organization(app, &organization).await?;
    Ok(ProjectRef::slug(organization.name, project).environment(environment))
}
