//! The management plane, `/api/management`: applications of the default organization, for the operator and admins.

mod applications;
mod changes;
mod configurations;
mod environments;
mod secrets;
mod values;
mod versions;

use utoipa_axum::router::OpenApiRouter;

pub use configurations::MAX_PIECE;

use crate::app::App;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(applications::router())
        .merge(changes::router())
        .merge(environments::router())
        .merge(secrets::router())
        .merge(values::router())
        .merge(versions::router())
        .merge(configurations::router())
}
