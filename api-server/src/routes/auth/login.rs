//! Login by e-mail code: the two calls that need no credential.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use sealpod_core::wire::login as wire;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::audit::Source;
use crate::body::fields::{parsed, secret};
use crate::body::{Body, Fields, Query, ReadFields};
use crate::error::ApiError;
use crate::login;
use crate::routes::Problems;

/// More than any address and code, quoted and escaped in the longest way.
const LIMIT: usize = 16 * 1024;
const MESSAGE: &str = "if this address may sign in here, a code is on its way to it; it is valid for 10 minutes";

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(request)).routes(routes!(verify))
}

impl ReadFields for wire::RequestCode {
    const LIMIT: usize = LIMIT;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            email: fields.required("email", parsed)?,
        })
    }
}

impl ReadFields for wire::VerifyCode {
    const LIMIT: usize = LIMIT;

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (email, code) = (fields.required("email", parsed), fields.required("code", secret));
        Some(Self {
            email: email?,
            code: code?,
        })
    }
}

/// Ask for a login code, which goes to the address by mail
#[utoipa::path(
    post, path = "/api/auth/login", tag = "sign-in", security(()), request_body = wire::RequestCode,
    responses(
        (status = 200, description = "The same for known and unknown addresses", body = wire::CodeRequested),
        Problems,
    ),
)]
async fn request(
    State(app): State<App>,
    Extension(source): Extension<Arc<Source>>,
    Query(()): Query<()>,
    Body(body): Body<wire::RequestCode>,
) -> Result<Json<wire::CodeRequested>, ApiError> {
    login::request(&app, body.email, source).await?;
    Ok(Json(wire::CodeRequested {
        message: MESSAGE.to_owned(),
    }))
}

/// Turn a login code into a session; the first one of an address makes its user
#[utoipa::path(
    post, path = "/api/auth/verify", tag = "sign-in", security(()), request_body = wire::VerifyCode,
    responses(
        (status = 200, description = "The token is shown this once", body = wire::SessionBegun),
        Problems,
    ),
)]
async fn verify(
    State(app): State<App>,
    Extension(source): Extension<Arc<Source>>,
    Query(()): Query<()>,
    Body(body): Body<wire::VerifyCode>,
) -> Result<Json<wire::SessionBegun>, ApiError> {
    let (token, session) = login::verify(&app, body.email, &body.code, source).await?;
    Ok(Json(wire::SessionBegun {
        token: token.into_text(),
        expires_at: session.expires_at,
    }))
}
