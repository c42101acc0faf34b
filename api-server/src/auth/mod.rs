//! Who calls, and what they may do.
//!
//! [`check`] runs before routing: it finds the plane by the path and the caller by the credential, and leaves a typed
//! caller for the handlers, which take it as an argument: [`Admin`], [`Application`] or [`Caller`].

pub mod acl;
pub mod admin_key;
mod caller;
mod credential;
mod kept;
mod member;
pub mod refusals;
mod refused;
pub mod superadmins;

pub use caller::{Admin, Application, Caller};
pub use kept::Kept;
pub use member::Member;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::headers::ON_BEHALF;
use sealpod_runtime::serve::Connection;

use crate::app::App;
use crate::audit::{ActorKind, Source};
use crate::error::ApiError;
use credential::Principal;

/// The three planes that need a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    Organization,
    Management,
    Consumer,
}

/// The first segments of the paths of each plane.
const PREFIXES: [(&str, Plane); 7] = [
    ("/api/management", Plane::Management),
    ("/api/consumer", Plane::Consumer),
    ("/api/orgs", Plane::Organization),
    ("/api/auth", Plane::Organization),
    ("/api/backups", Plane::Organization),
    ("/api/keys", Plane::Organization),
    ("/api/audit-logs", Plane::Organization),
];

impl Plane {
    /// The plane of a path as it was sent: the router takes no other spelling of these prefixes either.
    pub fn of(path: &str) -> Option<Self> {
        let inside = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        PREFIXES
            .iter()
            .find(|(prefix, _)| inside(prefix))
            .map(|(_, plane)| *plane)
    }
}

/// Where a credential is made from a code, so none is needed.
const OPEN: [&str; 2] = ["/api/auth/login", "/api/auth/verify"];

/// Lets nothing into a plane without a credential of that plane.
pub async fn check<F: Future<Output = Response>>(
    app: &App,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    let mut caller = None;
    if let Some(plane) = Plane::of(request.uri().path())
        && !OPEN.contains(&request.uri().path())
    {
        match admit(app, plane, &mut request).await {
            Ok(kind) => caller = Some(kind),
            Err(error) => return error.into_response(),
        }
    }
    let call = refused::Call::of(&request);
    let mut response = next(request).await;
    if let Some(call) = call {
        response = call.answered(app, response).await;
    }
    // For the metrics, which are counted further out.
    if let Some(kind) = caller {
        response.extensions_mut().insert(kind);
    }
    response
}

/// Leaves the caller in the request; says of which kind it is.
async fn admit(app: &App, plane: Plane, request: &mut Request) -> Result<ActorKind, ApiError> {
    let source: Arc<Source> = request.extensions().get().cloned().unwrap_or_default();
    let (presented, principal) = match credential::authenticate(app, plane, request.headers()).await {
        // Whoever keeps failing is told to stop; a valid credential from the same address still passes.
        Err(ApiError::Unauthorized) => {
            app.limits().failed(source.ip)?;
            return Err(ApiError::Unauthorized);
        }
        authenticated => authenticated?,
    };
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.known();
    }
    // The admin key is not counted: the operator works with it for everybody, and who has it can do everything.
    if !matches!(principal, Principal::AdminKey) {
        app.limits().used(app.limits().credential(presented.text()))?;
    }
    let kind = principal.kind();
    let caller = match principal {
        Principal::AdminKey => {
            let on_behalf = on_behalf(request)?;
            match plane {
                Plane::Management => {
                    request
                        .extensions_mut()
                        .insert(Admin::new(presented, source, on_behalf));
                    return Ok(kind);
                }
                Plane::Organization | Plane::Consumer => Caller::admin_key(presented, source, on_behalf),
            }
        }
        Principal::User(session) => Caller::user(app, presented, source, *session),
        Principal::Account(key) => Caller::account(presented, source, key),
        Principal::Application(key) => {
            request.extensions_mut().insert(Application::new(source, key));
            return Ok(kind);
        }
    };
    request.extensions_mut().insert(caller);
    Ok(kind)
}

/// `<kind>/<namespace>/<name>` of the object for which the operator calls.
fn on_behalf(request: &Request) -> Result<Option<String>, ApiError> {
    const MAX_BYTES: usize = 600;
    let Some(value) = request.headers().get(ON_BEHALF) else {
        return Ok(None);
    };
    let named = value.to_str().ok().filter(|text| {
        let parts: Vec<_> = text.split('/').collect();
        text.len() <= MAX_BYTES && parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
    });
    match named {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(ApiError::invalid(ON_BEHALF, "must be `<kind>/<namespace>/<name>`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_told_by_whole_segments() {
        assert_eq!(Plane::of("/api/management"), Some(Plane::Management));
        assert_eq!(Plane::of("/api/management/"), Some(Plane::Management));
        assert_eq!(Plane::of("/api/consumer/nothing/here"), Some(Plane::Consumer));
        assert_eq!(Plane::of("/api/auth/login"), Some(Plane::Organization));
        for path in [
            "/",
            "/api",
            "/api/managementx",
            "/API/management",
            "//api/management",
            "/healthz",
        ] {
            assert_eq!(Plane::of(path), None, "{path}");
        }
    }
}
