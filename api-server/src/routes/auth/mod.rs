//! Signing in and out.

mod login;
mod session;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(login::router()).merge(session::router())
}
