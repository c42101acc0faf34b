//! What surrounds every request: its id, its log line, its time limit, and the headers that all answers of the planes
//! carry.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::bundle::MAX_WAIT;
use sealpod_core::wire::headers::REQUEST_ID;
use sealpod_runtime::serve::later::then;
use tracing::Instrument;
use uuid::Uuid;

use super::App;
use crate::audit::Source;
use crate::auth::{self, Plane};
use crate::error::{ApiError, Cause};
use crate::idempotency::{self, Turns};

/// Time limit of every request but the long poll.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Of those that make or read a whole backup, and their routes.
const BACKUP_TIME: Duration = Duration::from_hours(2);
const BACKUPS: [&str; 2] = ["/api/backups", "/api/backups/{backup_id}/restore"];
/// How the routes of long polls end.
const POLLS: [&str; 2] = ["/bundle", "/api/management/changes"];
/// What a long poll may take beside the time it was asked to wait.
pub const POLL_SLACK: Duration = Duration::from_secs(10);
/// Longest user agent that an audit entry keeps, in bytes.
const MAX_USER_AGENT: usize = 256;
/// Longest request id of a caller that is taken over, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// The outermost layer. A failure of ours is logged here and nowhere else.
pub async fn boundary(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let source = Source {
        ip: peer.map(|ConnectInfo(peer)| app.limits().client(peer.ip(), request.headers())),
        user_agent: user_agent(request.headers()),
        request_id: Some(id.clone()),
    };
    request.extensions_mut().insert(Arc::new(source));
    let method = request.method().clone();
    // The template of the path, never the path itself: names may say more than a log should know.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let plane = Plane::of(request.uri().path());

    // What is logged at `info` names the request itself; a span costs every request more than that.
    let span = tracing::debug_span!("request", %id, %method, %route);
    let response = next.run(request).instrument(span).await;
    then(response, move |mut response| {
        let (status, elapsed) = (response.status(), started.elapsed());
        app.metrics().answered(&method, &route, &response, elapsed);
        if let Some(Cause(cause)) = response.extensions_mut().remove() {
            tracing::error!(%id, %method, %route, status = status.as_u16(), %cause, "the request failed");
        } else {
            tracing::debug!(%id, %method, %route, status = status.as_u16(), ms = elapsed.as_millis(), "answered");
        }
        let headers = response.headers_mut();
        if plane.is_some() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        response
    })
}

/// The caller's id, where it is one that logs and audit entries can hold as it is; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'+' | b'/' | b'=');
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn user_agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(agent.chars().take(MAX_USER_AGENT).collect())
}

/// Longest path and query together, in bytes: the question for a bundle can name 500 keys; longer ones go into a body.
const MAX_URI: usize = 32 * 1024;

/// The way of every request to its handler. One layer, because each of axum's costs a request several allocations:
/// 1. What no call needs is refused before anything looks at it.
/// 2. The time begins to run.
/// 3. A place among what is worked on.
/// 4. The caller.
/// 5. What is to be done once is done once.
pub async fn way_in(State((app, turns)): State<(App, Turns)>, request: Request, next: Next) -> Response {
    let length = request.uri().path_and_query().map_or(0, |whole| whole.as_str().len());
    if length > MAX_URI {
        return ApiError::UriTooLong { limit: MAX_URI }.into_response();
    }
    let once = |request| idempotency::layer(&app, turns, request, next);
    let known = |request| auth::check(&app, request, once);
    let placed = |request| bounded(&app, request, known);
    time_limit(request, placed).await
}

/// Ends a request that takes too long. Long polls have a limit of their own inside this one, which knows their `wait`.
async fn time_limit<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("", MatchedPath::as_str);
    let limit = if POLLS.iter().any(|end| route.ends_with(end)) {
        Duration::from_secs(MAX_WAIT) + 2 * POLL_SLACK
    } else if BACKUPS.contains(&route) {
        BACKUP_TIME
    } else {
        TIME_LIMIT
    };
    tokio::time::timeout(limit, next(request))
        .await
        .unwrap_or_else(|_| ApiError::Timeout.into_response())
}

/// Refuses what comes beyond the server's bound of work, before it costs anything. What needs no credential, such as
/// probes, is no work.
async fn bounded<F: Future<Output = Response>>(
    app: &App,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response {
    if Plane::of(request.uri().path()).is_none() {
        return next(request).await;
    }
    match app.limits().begin().await {
        Ok(place) => place.work(next(request)).await,
        Err(overloaded) => ApiError::from(overloaded).into_response(),
    }
}

/// The answer of a request whose handler panicked. The panic's own text goes to standard error by the panic hook.
#[allow(clippy::needless_pass_by_value, reason = "the layer's signature")]
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::internal("the handler panicked; the panic's message stands above").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_request_id_is_kept_only_if_it_is_harmless() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(of("0198-abc.DEF_1:2"), "0198-abc.DEF_1:2");
        for bad in ["", "a b", "a\"b", "a{b", &"a".repeat(129)] {
            assert_ne!(of(bad), *bad);
            assert!(of(bad).parse::<Uuid>().is_ok());
        }
    }
}
