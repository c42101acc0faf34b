//! What a sidecar reads, and waits on.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::bundle as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{InEnvironment, environment};
use crate::app::App;
use crate::auth::Caller;
use crate::body::{Path, Query, Unread};
use crate::bundle::{Known, Request, answer};
use crate::error::ApiError;
use crate::routes::Problems;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get, post))
}

/// Read all that is asked for in one consistent snapshot; with `If-None-Match` and `wait`, wait for it to change
#[utoipa::path(
    get, path = "/api/orgs/{org}/projects/{project}/envs/{env}/bundle", tag = "bundle",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(
        ("org" = String, Path), ("project" = String, Path), ("env" = String, Path),
        ("key" = Option<Vec<String>>, Query, description = "A key, literally; repeated"),
        ("pattern" = Option<Vec<String>>, Query, description = "A pattern of keys; repeated"),
        ("version" = Option<Vec<String>>, Query, description = "`<key>:<n>`: this version instead of the active one; repeated"),
        ("configurations" = Option<bool>, Query, description = "Configurations too"),
        ("values" = Option<bool>, Query, description = "`false`: names and versions only"),
        ("wait" = Option<u64>, Query, maximum = 120, description = "Seconds to wait for a change, 0–120"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the state that the caller has"),
    ),
    responses((status = 200, body = wire::Bundle), (status = 304, description = "Nothing changed"), Problems),
)]
async fn get(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    headers: HeaderMap,
    Query(request): Query<Request>,
) -> Result<Response, ApiError> {
    respond(&app, caller, path, &headers, Ok(request)).await
}

/// The same read with the question in a body, for questions that are too long for a query
#[utoipa::path(
    post, path = "/api/orgs/{org}/projects/{project}/envs/{env}/bundle", tag = "bundle",
    security(("admin_key" = []), ("session" = []), ("service_account_key" = [])),
    params(
        ("org" = String, Path), ("project" = String, Path), ("env" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the state that the caller has"),
    ),
    request_body = wire::BundleRequest,
    responses((status = 200, body = wire::Bundle), (status = 304, description = "Nothing changed"), Problems),
)]
async fn post(
    caller: Caller,
    State(app): State<App>,
    Path(path): Path<InEnvironment>,
    headers: HeaderMap,
    Query(()): Query<()>,
    request: Unread<Request>,
) -> Result<Response, ApiError> {
    respond(&app, caller, path, &headers, request.read()).await
}

async fn respond(
    app: &App,
    caller: Caller,
    path: InEnvironment,
    headers: &HeaderMap,
    request: Result<Request, ApiError>,
) -> Result<Response, ApiError> {
    let (member, environment) = environment(app, &caller, path).await?;
    let answered = answer(app, member, environment, request?, Known::of(headers)).await?;
    Ok(answered.into_response())
}
