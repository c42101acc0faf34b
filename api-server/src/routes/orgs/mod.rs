//! The organization plane, `/api/orgs`: for people who signed in, for service accounts, and for the admin key as a
//! superadmin.

mod accounts;
mod acl;
mod audit;
mod bundle;
mod consumers;
mod environments;
mod members;
mod organizations;
mod projects;
mod quotas;
mod secrets;
mod trash;
mod versions;

use sealpod_core::Slug;
use sealpod_core::names::{self, NameError};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::auth::{Caller, Member};
use crate::body::fields::{Fault, string};
use crate::body::{Json, QueryFields, ReadQuery};
use crate::error::ApiError;
use crate::store::{EnvironmentRef, Page, ProjectRef};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(organizations::router())
        .merge(members::router())
        .merge(quotas::router())
        .merge(projects::router())
        .merge(environments::router())
        .merge(secrets::router())
        .merge(versions::router())
        .merge(trash::router())
        .merge(bundle::router())
        .merge(consumers::router())
        .merge(accounts::router())
        .merge(acl::router())
        .merge(audit::router())
}

/// The names in the path of everything below an environment.
type InEnvironment = (String, String, String);

/// The caller in the organization of a path, and the environment that the path names there.
async fn environment(
    app: &App,
    caller: &Caller,
    (organization, project, environment): InEnvironment,
) -> Result<(Member, EnvironmentRef), ApiError> {
    let member = caller.within(app, &organization).await?;
    // By id: the name can go over to another organization while the call is under way.
    let project = ProjectRef::slug(member.organization.id, project);
    Ok((member, project.environment(environment)))
}

/// `?limit=&after=`
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Piece {
    /// 1–1000; all without it
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Begin behind this name
    after: Option<String>,
}

/// How much of a list.
#[allow(
    clippy::option_option,
    reason = "the outer one says whether the parameter could be read"
)]
fn limit(query: &mut QueryFields) -> Option<Option<u32>> {
    let limit = query.whole("limit", 1, 1_000)?;
    Some(limit.map(|limit| u32::try_from(limit).unwrap_or(u32::MAX)))
}

impl ReadQuery for Piece {
    fn read(query: &mut QueryFields) -> Option<Self> {
        let limit = limit(query);
        let after = query.at_most_one("after");
        Some(Self {
            limit: limit?,
            after: after?,
        })
    }
}

impl From<Piece> for Page {
    fn from(Piece { limit, after }: Piece) -> Self {
        Self { after, limit }
    }
}

/// The name of a project or environment that is to be: a DNS label that is its own slug.
fn label(json: Json) -> Result<Slug, Fault> {
    let text = string(json)?;
    names::check_label(&text).map_err(|why| why.to_string())?;
    text.parse().map_err(|why: NameError| why.to_string())
}
