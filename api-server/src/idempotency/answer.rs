//! Answers that are kept, sealed, and given again.

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::headers::IDEMPOTENCY_REPLAYED;
use serde::{Deserialize, Serialize};

use super::Claim;
use crate::app::App;
use crate::crypto::{Aad, Sealed};
use crate::error::ApiError;
use crate::store::{Done, StoreError, while_moved};

/// Largest body that is kept. A repetition of what was answered with more gets 409, as after a crash.
const MAX_BODY: u64 = 64 * 1024;
/// What of the headers belongs to the answer itself; the others are made for each request.
const HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Stores the answer and hands it on. The change stands whatever becomes of this, so a fault here is only logged.
pub async fn keep(app: &App, claim: Claim, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    if body.size_hint().exact().is_none_or(|size| size > MAX_BODY) {
        return Response::from_parts(parts, body);
    }
    // Its size is known, so it is in memory already.
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let headers = HEADERS.iter().filter_map(|name| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    });
    let answer = Answer {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let json = serde_json::to_vec(&answer).expect("text and numbers are always JSON");
    if let Err(error) = store(app, claim, &json).await {
        tracing::warn!(%error, "an answer was not kept for its Idempotency-Key; a repetition will get 409");
    }
    Response::from_parts(parts, Body::from(bytes))
}

async fn store(app: &App, claim: Claim, json: &[u8]) -> Result<(), StoreError> {
    // Another master key may seal by then.
    while_moved(|| async {
        let sealed = app.keyring().seal(&Aad::answer(&claim.scope), json);
        Ok(app.store().keep_answer(claim.clone(), sealed).await)
    })
    .await
}

/// The answer as it was, or the id of what was made.
pub fn again(app: &App, scope: [u8; 32], done: Done) -> Response {
    let kept = done.sealed.and_then(|sealed| open(app, scope, &sealed));
    kept.unwrap_or_else(|| ApiError::AlreadyCreated { id: done.resource }.into_response())
}

fn open(app: &App, scope: [u8; 32], sealed: &Sealed) -> Option<Response> {
    let opened = app.keyring().open(&Aad::answer(&scope), sealed);
    let json = opened
        .map_err(|error| tracing::warn!(%error, "an answer that was kept for its Idempotency-Key does not open"))
        .ok()?;
    let answer: Answer = serde_json::from_slice(&json).ok()?;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).ok()?;
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        headers.insert(name.parse::<HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
    }
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}
