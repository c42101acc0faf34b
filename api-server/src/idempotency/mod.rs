//! `Idempotency-Key`: a POST that is sent twice is done once, and answered twice with the first answer, for a day
//! by the clock that old things are judged by, and until the server looks for old ones next, within the hour.
//!
//! What is guaranteed, and by what:
//! - **Done at most once.** The change and the note that it was done are one transaction ([`Claim`] travels in
//!   [`By`](crate::audit::By); the writer notes it with the change's audit entry), under a unique index. A crash leaves both or none.
//! - **Asked who may, again.** A repetition runs like a first request, up to the change that its claim forbids: so whoever
//!   has lost the role, the rule or the organization since is refused in place of being answered.
//! - **Answered again.** The answer is sealed and stored behind that, before it is sent. If the server dies between the two, the
//!   note has no answer, and a repetition gets 409 `already_created` with the id instead: never a second change.
//! - **No key is kept.** Only the answers of [`KEPT`] routes are stored; those of every other one may hold a key, so their
//!   repetitions always get that 409.
//! - **Only successes count.** A request that failed changed nothing, and is tried anew.
//! - Whoever hangs up early gets the answer at the next try: the request is finished without them.

mod answer;
mod turns;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::headers::IDEMPOTENCY_KEY;
use sealpod_core::wire::problem::codes;
use tracing::Instrument;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, OpenApi, RefOr};
use uuid::Uuid;

pub use turns::Turns;

use crate::app::App;
use crate::audit::Source;
use crate::auth::{Admin, Caller, Plane};
use crate::body::{VALUE_BODY_LIMIT, receive};
use crate::error::{ApiError, Code};
use crate::limits::carried;

/// One request that is to be done once: what its change leaves behind in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// A keyed hash over caller, method, path and key.
    pub scope: [u8; 32],
    /// A keyed hash over what is asked beside these.
    pub fingerprint: [u8; 32],
    /// Tells this execution from others of the same scope.
    pub attempt: Uuid,
}

/// Routes whose answers hold no key, so that they can be kept.
pub const KEPT: &[&str] = &[
    "/api/backups",
    "/api/backups/{backup_id}/restore",
    "/api/keys/rotate",
    "/api/management/applications/{slug}/configurations",
    "/api/management/applications/{slug}/environments",
    "/api/management/applications/{slug}/secrets",
    "/api/management/applications/{slug}/secrets/{name}/values",
    "/api/orgs",
    "/api/orgs/{org}/acl",
    "/api/orgs/{org}/members",
    "/api/orgs/{org}/projects",
    "/api/orgs/{org}/projects/{project}/envs",
    "/api/orgs/{org}/projects/{project}/envs/{env}/secrets/{key}/rollback",
    "/api/orgs/{org}/trash/{id}/restore",
];
/// POSTs that change nothing that could be done twice; the header means nothing to them.
pub const READS: &[&str] = &[
    "/api/orgs/{org}/projects/{project}/envs/{env}/bundle",
    "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report",
];

const MAX_KEY: usize = 255;

/// The layer behind the check of credentials.
pub async fn layer(app: &App, turns: Turns, request: Request, next: Next) -> Response {
    match ask(app, request).await {
        Ok((request, None)) => next.run(request).await,
        Ok((request, Some(once))) => {
            let (app, turn) = (app.clone(), turns.take(once.claim.scope).await);
            // These are few enough for a span, by which their warnings name the request.
            let source = request.extensions().get::<Arc<Source>>();
            let id = source.and_then(|source| source.request_id.as_deref());
            let span = tracing::info_span!("request", id);
            let work = async move {
                let answer = once.answer(&app, request, next).await;
                drop(turn);
                answer
            };
            // Not this request's own future, which is dropped when its caller hangs up. It ends with the store's answer.
            match tokio::spawn(carried(work.instrument(span))).await {
                Ok(answer) => answer,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => ApiError::Stopping.into_response(),
                },
            }
        }
        Err(error) => error.into_response(),
    }
}

/// Adds the header to the description of every call that takes it.
pub fn describe(document: &mut OpenApi) {
    let takes = |path: &str| Plane::of(path).is_some() && !path.starts_with("/api/auth/") && !READS.contains(&path);
    for (path, item) in &mut document.paths.paths {
        let Some(post) = item.post.as_mut().filter(|_| takes(path)) else {
            continue;
        };
        let again = if KEPT.contains(&path.as_str()) {
            "sent again under the same key within a day, the request gets the first answer again"
        } else {
            "sent again under the same key within a day, the request gets 409 `already_created`, for a key is shown once"
        };
        // White space at the ends belongs to the header, not to its value.
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[!-~]([ -~]{0,253}[!-~])?$"))
            .build();
        let header = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .description(Some(format!("1 to 255 printable ASCII characters; {again}")))
            .schema(Some(text))
            .build();
        post.parameters.get_or_insert_default().push(RefOr::T(header));
    }
}

/// A request that is to be done once.
struct Once {
    claim: Claim,
    is_kept: bool,
    /// Who calls, and the name of the organization in the path.
    within: Option<(Caller, String)>,
}

/// `None` where the header is absent, or means nothing; else the request's body is read.
async fn ask(app: &App, request: Request) -> Result<(Request, Option<Once>), ApiError> {
    if request.method() != Method::POST || !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return Ok((request, None));
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some((is_kept, caller)) = route
        .filter(|route| !READS.contains(route))
        .map(|route| KEPT.contains(&route))
        .zip(identity(&request))
    else {
        return Ok((request, None));
    };
    let key = key(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let announced = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > VALUE_BODY_LIMIT) {
        // No call takes so much; its own answer names its own limit.
        return Ok((request, None));
    }
    let (mut parts, body) = request.into_parts();
    let within = within(&mut parts).await;
    let body = receive(body, VALUE_BODY_LIMIT, app.limits().body_time()).await?;
    let pepper = app.store().pepper();
    let path = parts.uri.path().as_bytes();
    let claim = Claim {
        scope: pepper.mac("idempotency-scope/1", &[&caller, b"POST", path, key.as_bytes()]),
        fingerprint: pepper.mac(
            "idempotency-request/1",
            &[parts.uri.query().unwrap_or_default().as_bytes(), &body],
        ),
        attempt: Uuid::now_v7(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    let once = Once { claim, is_kept, within };
    Ok((request, Some(once)))
}

/// The caller, and the organization whose name is in the path.
async fn within(parts: &mut Parts) -> Option<(Caller, String)> {
    let caller = parts.extensions.get::<Caller>().cloned()?;
    let names = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let (_, organization) = names.iter().find(|(name, _)| *name == "org")?;
    Some((caller, organization.to_owned()))
}

/// Who calls; nobody where no credential is asked for.
fn identity(request: &Request) -> Option<[u8; 16]> {
    let extensions = request.extensions();
    match (extensions.get::<Admin>(), extensions.get::<Caller>()) {
        // The same as the organization plane's admin key; the paths differ.
        (Some(_), _) => Some([0; 16]),
        (None, Some(caller)) => Some(caller.identity()),
        (None, None) => None,
    }
}

fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = values.next().and_then(|value| value.to_str().ok());
    let sound = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| matches!(b, b' '..=b'~'));
    match (key.filter(sound), values.next()) {
        (Some(key), None) => Ok(key.to_owned()),
        _ => Err(ApiError::invalid(
            "Idempotency-Key",
            "must be given once, as 1 to 255 printable ASCII characters; a random UUID is a good one",
        )),
    }
}

impl Once {
    /// The first answer, or this one as the first.
    async fn answer(self, app: &App, mut request: Request, next: Next) -> Response {
        let Self { claim, is_kept, within } = self;
        let before = match earlier(app, &claim).await {
            Ok(before) => before,
            Err(error) => return error.into_response(),
        };
        let extensions = request.extensions_mut();
        if let Some(admin) = extensions.get_mut::<Admin>() {
            admin.claim(claim.clone());
        }
        if let Some(caller) = extensions.get_mut::<Caller>() {
            caller.claim(claim.clone());
        }
        let response = next.run(request).await;
        if let Some(before) = before {
            // With this claim nothing can have been done: it ran to see whether the caller still may.
            return if refuses(app, response.status(), within).await {
                response
            } else {
                before
            };
        }
        let code = response.extensions().get().map(|Code(code)| *code);
        if code == Some(codes::IDEMPOTENCY_IN_PROGRESS) {
            // Another process, or one that is not counted here, was quicker.
            return match earlier(app, &claim).await {
                Ok(Some(answer)) => answer,
                Ok(None) => response,
                Err(error) => error.into_response(),
            };
        }
        if is_kept && response.status().is_success() {
            return answer::keep(app, claim, response).await;
        }
        response
    }
}

/// Whether what was done once would not even be tried now: the caller may not, or that cannot be known.
async fn refuses(app: &App, status: StatusCode, within: Option<(Caller, String)>) -> bool {
    match (status, within) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => true,
        // Something else may be gone since; but an organization that is not the caller's is none.
        (StatusCode::NOT_FOUND, Some((caller, organization))) => caller.within(app, &organization).await.is_err(),
        _ => status.is_server_error(),
    }
}

/// The answer to the same request, if it was done before.
async fn earlier(app: &App, claim: &Claim) -> Result<Option<Response>, ApiError> {
    let Some(done) = app.store().done_before(claim.scope).await? else {
        return Ok(None);
    };
    if done.fingerprint != claim.fingerprint {
        return Err(ApiError::Refused {
            code: codes::IDEMPOTENCY_MISMATCH,
            detail: "another request was sent under this Idempotency-Key within a day; use a new key for a new request",
        });
    }
    Ok(Some(answer::again(app, claim.scope, done)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_key_is_printable_and_given_once() {
        let of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).ok()
        };
        let longest = [b'k'; MAX_KEY];
        for good in [b"a".as_slice(), b"7f3c \"quoted\" ~", &longest] {
            assert!(of(&[good]).is_some());
        }
        let too_long = [b'k'; MAX_KEY + 1];
        for bad in [b"".as_slice(), "é".as_bytes(), b"a\tb", &too_long] {
            assert!(of(&[bad]).is_none(), "{bad:?}");
        }
        assert!(of(&[b"a", b"a"]).is_none());
    }
}
