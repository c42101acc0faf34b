//! The routes: one file a resource, each with its router, its bodies and its handlers, in that order.

mod audit;
mod auth;
mod consumer;
mod labels;
mod links;
mod management;
mod openapi;
mod orgs;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use openapi::Problems;

use crate::app::App;
use crate::health;

/// Every route of the main listener, with its description.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(health::router())
        .merge(management::router())
        .merge(consumer::router())
        .merge(auth::router())
        .merge(orgs::router())
        .merge(audit::router())
}

/// The OpenAPI document of [`router`].
pub fn document() -> utoipa::openapi::OpenApi {
    router().into_openapi()
}
