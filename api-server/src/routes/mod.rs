//! The routes: one file a resource, each with its router, its bodies and its handlers, in that order.

mod audit;
mod auth;
mod backups;
mod consumer;
mod keys;
mod labels;
mod links;
mod list;
mod management;
pub mod openapi;
mod orgs;
mod purge;

use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use openapi::{Problems, shared};

use crate::app::App;
use crate::{docs, health, idempotency};

/// Every route of the main listener, with its description.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(health::router())
        .merge(docs::router())
        .merge(management::router())
        .merge(consumer::router())
        .merge(auth::router())
        .merge(orgs::router())
        .merge(audit::router())
        .merge(keys::router())
        .merge(backups::router())
}

/// The OpenAPI document of [`router`], as JSON.
pub fn document() -> serde_json::Value {
    let mut document = router().into_openapi();
    idempotency::describe(&mut document);
    openapi::complete(&document)
}
