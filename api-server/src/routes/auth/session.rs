//! The session of whoever calls.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sealpod_core::wire::people as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Caller;
use crate::body::Query;
use crate::error::ApiError;
use crate::routes::Problems;
use crate::store::{Session, StoreError};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(me)).routes(routes!(logout))
}

fn session(caller: &Caller) -> Result<&Session, ApiError> {
    caller.session().ok_or_else(|| {
        ApiError::Forbidden("only somebody who signed in has a session; this credential is a key".into())
    })
}

/// Who is signed in
#[utoipa::path(
    get, path = "/api/auth/me", tag = "sign-in", security(("session" = [])),
    responses((status = 200, body = wire::Profile), Problems),
)]
async fn me(caller: Caller, Query(()): Query<()>) -> Result<Json<wire::Profile>, ApiError> {
    let user = &session(&caller)?.user;
    Ok(Json(wire::Profile {
        id: user.id.0,
        email: user.email.clone(),
        is_superadmin: caller.is_superadmin(),
        created_at: user.created_at,
    }))
}

/// End the session; its token is dead at once
#[utoipa::path(
    delete, path = "/api/auth/logout", tag = "sign-in", security(("session" = [])),
    responses((status = 204), Problems),
)]
async fn logout(caller: Caller, State(app): State<App>, Query(()): Query<()>) -> Result<StatusCode, ApiError> {
    let id = session(&caller)?.id;
    match app.store().end_session(id, caller.by()).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        // Somebody with the same token was faster.
        Err(StoreError::NotFound(_)) => Err(ApiError::Unauthorized),
        Err(error) => Err(error.into()),
    }
}
