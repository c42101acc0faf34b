//! One answer: read as much of it as is allowed, and tell errors apart.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use sealpod_core::wire::problem::{self, Problem, codes};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::printable;
use crate::pages::next_link;
use crate::{Error, Result};

/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
pub(crate) const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// An answer that is no error.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    is_json: bool,
    pub(crate) tag: Option<Tag>,
    /// Path and query of the next page, as the answer has it.
    pub(crate) next: Option<String>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// The name of one state of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(pub(crate) HeaderValue);

/// An object and the tag of the state that it was read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T> {
    pub value: T,
    pub tag: Tag,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        if !self.is_json {
            return Err(Error::BadAnswer {
                status: self.status.as_u16(),
                reason: "it is not JSON by its `Content-Type`".to_owned(),
            });
        }
        serde_json::from_slice(&self.body).map_err(|error| unexpected(self.status, &error))
    }
}

/// JSON of another kind. Its reader's message may quote the text, which may be a value; its position may not.
pub(crate) fn unexpected(status: StatusCode, error: &serde_json::Error) -> Error {
    Error::BadAnswer {
        status: status.as_u16(),
        reason: format!("unexpected JSON at line {} column {}", error.line(), error.column()),
    }
}

/// What arrives next of a body, or `None` at its end.
pub(crate) async fn arrived(response: &mut Response, patience: Duration) -> Result<Option<Bytes>> {
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| failed(&error, patience)),
        Err(_) => Err(Error::Timeout { deadline: patience }),
    }
}

pub(crate) async fn receive(mut response: Response, limit: usize, deadline: Duration) -> Result<Answer> {
    let status = response.status();
    let good = status.is_success() || status == StatusCode::NOT_MODIFIED;
    let limit = if good { limit } else { limit.min(MAX_PROBLEM_BYTES) };
    let headers = std::mem::take(response.headers_mut());
    match read(&mut response, limit, deadline).await {
        Ok(body) if good => Ok(Answer {
            status,
            tag: headers.get(ETAG).cloned().map(Tag),
            next: next_link(&headers),
            is_json: is_of_type(&headers, "application/json"),
            body,
        }),
        Ok(body) => Err(refused(status, &headers, &body)),
        Err(error) if good => Err(error),
        // The status is worth more than the reason why its explanation could not be read.
        Err(_) => Err(refused(status, &headers, &[])),
    }
}

/// The whole body in one buffer that never moves, so that wiping it wipes the only copy of ours.
async fn read(response: &mut Response, limit: usize, deadline: Duration) -> Result<Zeroizing<Vec<u8>>> {
    let announced = response
        .content_length()
        .map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if announced > limit {
        return Err(Error::TooLarge { limit });
    }
    let mut body = Zeroizing::new(Vec::with_capacity(announced));
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error, deadline))? {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        if body.len() + chunk.len() > body.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(room(body.len() + chunk.len(), limit)));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Room for a body of unknown length. Never over the limit: wiping touches all of it, used or not.
fn room(needed: usize, limit: usize) -> usize {
    needed.saturating_mul(2).min(limit).max(needed)
}

/// The error that an answer of status 3xx, 4xx or 5xx is.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let problem = Some(body)
        .filter(|_| is_of_type(headers, problem::CONTENT_TYPE))
        .and_then(|body| serde_json::from_slice::<Problem>(body).ok());
    // The first try of an idempotent call is still at work: its answer is worth waiting for.
    let in_progress = problem
        .as_ref()
        .is_some_and(|problem| problem.code == codes::IDEMPOTENCY_IN_PROGRESS);
    let passing = in_progress
        || status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    if passing {
        return Error::Unavailable {
            status: status.as_u16(),
            code: problem.map(|problem| printable(&problem.code)),
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value, Timestamp::now())),
        };
    }
    let Some(problem) = problem else {
        let reason = if status.is_redirection() {
            "it redirects, which the api-server never does"
        } else {
            "it has no problem document"
        };
        return Error::BadAnswer {
            status: status.as_u16(),
            reason: reason.to_owned(),
        };
    };
    let problem = Box::new(problem);
    match status {
        StatusCode::UNAUTHORIZED => Error::Unauthorized(problem),
        StatusCode::FORBIDDEN => Error::Forbidden(problem),
        StatusCode::NOT_FOUND => Error::NotFound(problem),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Error::Conflict(problem),
        _ => Error::Rejected(problem),
    }
}

/// Whether the body is said to be of this media type, whatever its parameters.
pub(crate) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said = said.and_then(|text| text.split(';').next()).unwrap_or_default();
    said.trim().eq_ignore_ascii_case(media_type)
}

/// Seconds, or an HTTP date; at most [`MAX_RETRY_AFTER`].
fn retry_after(value: &HeaderValue, now: Timestamp) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(text).ok()?;
        Duration::try_from(date.timestamp().duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

pub(crate) fn failed(error: &reqwest::Error, deadline: Duration) -> Error {
    let reason = innermost(error);
    if caused_by::<rustls::Error>(error) {
        Error::Untrusted { reason }
    } else if error.is_timeout() && !error.is_connect() {
        Error::Timeout { deadline }
    } else {
        Error::Unreachable { reason }
    }
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An `io::Error` answers `source` with the source of what it wraps, and so hides it.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

fn caused_by<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    chain(error).any(<dyn StdError>::is::<T>)
}

/// The text of the first cause; the ones around it only repeat the URL and that it failed.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    printable(&chain(error).last().unwrap_or(error).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_over_five_minutes() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, want) in [
            ("1", Some(1)),
            ("0", Some(0)),
            ("86400", Some(300)),
            ("Sat, 31 Jan 2026 12:00:30 GMT", Some(30)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let got = retry_after(&HeaderValue::from_str(text).unwrap(), now);
            assert_eq!(got, want.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_takes_no_more_than_the_limit() {
        assert_eq!((room(10, 100), room(60, 100), room(100, 100)), (20, 100, 100));
    }

    #[test]
    fn only_a_problem_document_makes_a_404_authoritative() {
        let problem =
            br#"{"type":"about:blank","title":"","status":404,"detail":"no such application","code":"not_found"}"#;
        let mut headers = HeaderMap::new();
        assert!(!refused(StatusCode::NOT_FOUND, &headers, problem).is_not_found());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json; charset=utf-8"),
        );
        assert!(refused(StatusCode::NOT_FOUND, &headers, problem).is_not_found());
        for body in [&b"<html>"[..], b"", b"{}", br#"{"kind":"Status","code":404}"#] {
            let error = refused(StatusCode::NOT_FOUND, &headers, body);
            assert!(matches!(error, Error::BadAnswer { status: 404, .. }), "{error:?}");
        }
    }
}
