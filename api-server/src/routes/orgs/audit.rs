//! The audit log of an organization.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use sealpod_core::wire::audit as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::body::{Path, Query};
use crate::error::ApiError;
use crate::routes::Problems;
use crate::routes::audit::{Filters, Log, answer};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Read the organization's audit log
///
/// Newest first; all filters that are given must hold. A page looks at only so many entries: it can have fewer than
/// `limit`, or none, and still a `next_cursor` where more can follow; only a null `next_cursor` is the end. Entries
/// that are added meanwhile change no later page.
///
/// With `Accept: application/x-ndjson` the answer is every entry that the filters let through (up to `limit`, where it
/// is given), one a line, in the same order; a connection that breaks off says that the export is not complete.
#[utoipa::path(
    get, path = "/api/orgs/{org}/audit-logs", tag = "audit", security(("admin_key" = []), ("session" = [])),
    params(("org" = String, Path), Filters),
    responses(
        (status = 200, description = "Newest first", content(
            (wire::AuditPage = "application/json"), (wire::AuditEntry = "application/x-ndjson"),
        )),
        Problems,
    ),
)]
async fn list(
    caller: Caller,
    State(app): State<App>,
    headers: HeaderMap,
    Path(organization): Path<String>,
    Query(filters): Query<Filters>,
) -> Result<Response, ApiError> {
    answer(app, caller, Log::Organization(organization), &headers, filters).await
}
