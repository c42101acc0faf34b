//! What an organization may hold: every member sees it, superadmins change it.

use axum::Json;
use axum::extract::State;
use sealpod_core::wire::people::Role;
use sealpod_core::wire::quotas as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::body::fields::whole;
use crate::body::{Fields, Path, Query, ReadFields, Unread};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::store::{QuotaUpdate, Quotas, Usage};

/// Highest limit: what every JSON reader takes for the whole number that it is.
const MAX_LIMIT: u64 = (1 << 53) - 1;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, put))
}

impl ReadFields for wire::SetQuotas {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let projects = fields.optional("projects", whole(MAX_LIMIT));
        let secrets = fields.optional("secrets", whole(MAX_LIMIT));
        let value_bytes = fields.optional("value_bytes", whole(MAX_LIMIT));
        Some(Self {
            projects: projects?,
            secrets: secrets?,
            value_bytes: value_bytes?,
        })
    }
}

fn quotas(quotas: Quotas) -> Json<wire::Quotas> {
    let quota = |Usage { limit, used }| wire::Quota { limit, used };
    Json(wire::Quotas {
        projects: quota(quotas.projects),
        secrets: quota(quotas.secrets),
        value_bytes: quota(quotas.value_bytes),
    })
}

/// Get the quotas of an organization, and what is used of them
#[utoipa::path(
    get, path = "/api/orgs/{org}/quotas", tag = "quotas", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), responses((status = 200, body = wire::Quotas), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
) -> Result<Json<wire::Quotas>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.require(Role::Member)?;
    Ok(quotas(app.store().quotas(member.organization.id).await?))
}

/// Change the quotas of an organization: superadmins only. A limit below what is used takes nothing away
#[utoipa::path(
    put, path = "/api/orgs/{org}/quotas", tag = "quotas", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path)), request_body = wire::SetQuotas,
    responses((status = 200, body = wire::Quotas), Problems),
)]
async fn put(
    caller: Caller,
    State(app): State<App>,
    Path(organization): Path<String>,
    Query(()): Query<()>,
    body: Unread<wire::SetQuotas>,
) -> Result<Json<wire::Quotas>, ApiError> {
    let member = caller.within(&app, &organization).await?;
    member.caller().superadmin()?;
    let body = body.read()?;
    let update = QuotaUpdate {
        projects: body.projects,
        secrets: body.secrets,
        value_bytes: body.value_bytes,
    };
    let updated = app.store().update_quotas(member.organization.id, update, member.by());
    Ok(quotas(updated.await?))
}
