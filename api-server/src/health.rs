//! The service endpoints of the main listener, without a credential: for probes that can reach no other port.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::ApiError;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health))
        .routes(routes!(livez))
        .routes(routes!(readyz))
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`
    status: &'static str,
}

const OK: Health = Health { status: "ok" };

/// Whether the process answers
#[utoipa::path(get, path = "/health", tag = "service", responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(OK)
}

/// Whether the process answers
#[utoipa::path(get, path = "/livez", tag = "service", responses((status = 200, body = Health)))]
async fn livez() -> Json<Health> {
    Json(OK)
}

/// Whether the server can do its work; its reasons, if not, are on the listener of `/metrics`
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Health), (status = 503)))]
async fn readyz(State(app): State<App>) -> Response {
    if app.readiness().is_ready() && !app.shutdown().is_cancelled() {
        return Json(OK).into_response();
    }
    ApiError::NotReady.into_response()
}
