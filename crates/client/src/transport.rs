//! One call: send, read a bounded answer, tell errors apart, retry what is safe.

use std::error::Error as StdError;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use sealpod_core::wire::headers;
use sealpod_core::wire::problem::{self, Problem, codes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::error::printable;
use crate::{Client, Error, Result};

/// What a long poll may take beyond its `wait`.
pub(crate) const POLL_GRACE: Duration = Duration::from_secs(10);
/// Longest wait that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(5);
const MAX_PROBLEM_BYTES: usize = 64 * 1024;
/// How often a call is tried that may arrive twice, and the ceilings of the delays between.
const ATTEMPTS: u32 = 3;
const RETRY_BASE: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(2);

/// A request before it is sent.
pub(crate) struct Call<'a> {
    client: &'a Client,
    method: Method,
    /// Path and query.
    target: String,
    if_none_match: Option<&'a str>,
    deadline: Duration,
    /// Whether it may arrive twice.
    repeats: bool,
}

/// An answer that is no error.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    is_json: bool,
    tag: Option<Tag>,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// The name of one state of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(HeaderValue);

/// An object and the tag of the state that it was read in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T> {
    pub value: T,
    pub tag: Tag,
}

impl Client {
    pub(crate) fn call(&self, method: Method, target: String) -> Call<'_> {
        let repeats = method == Method::GET || (method == Method::POST && self.idempotency_key.is_some());
        Call {
            client: self,
            method,
            target,
            if_none_match: None,
            deadline: self.inner.request_deadline,
            repeats,
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, target: String) -> Result<T> {
        self.call(Method::GET, target).send().await?.json()
    }

    pub(crate) async fn get_tagged<T: DeserializeOwned>(&self, target: String) -> Result<Tagged<T>> {
        let answer = self.call(Method::GET, target).send().await?;
        Ok(Tagged {
            value: answer.json()?,
            tag: answer.tag.ok_or_else(|| Error::BadAnswer {
                status: answer.status.as_u16(),
                reason: "it has no `ETag`, without which nobody can tell its states apart".to_owned(),
            })?,
        })
    }

    /// A change with a body.
    pub(crate) async fn send<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        target: String,
        body: &B,
    ) -> Result<T> {
        self.call(method, target).send_json(body).await?.json()
    }

    /// As [`Client::send`], where the answer has no body.
    pub(crate) async fn send_only<B: Serialize + ?Sized>(
        &self,
        method: Method,
        target: String,
        body: &B,
    ) -> Result<()> {
        self.call(method, target).send_json(body).await.map(drop)
    }

    pub(crate) async fn delete(&self, target: String) -> Result<()> {
        self.call(Method::DELETE, target).send().await.map(drop)
    }
}

impl<'a> Call<'a> {
    pub(crate) fn if_none_match(mut self, etag: Option<&'a str>) -> Self {
        self.if_none_match = etag;
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Never tried again here: the caller has a way of its own.
    pub(crate) fn once(mut self) -> Self {
        self.repeats = false;
        self
    }

    pub(crate) async fn send(self) -> Result<Answer> {
        self.perform(None).await
    }

    pub(crate) async fn send_json<B: Serialize + ?Sized>(self, body: &B) -> Result<Answer> {
        let body = serde_json::to_vec(body).expect("bodies are plain data with text keys");
        // A value may be in it: wiped once the last try has let go of it.
        self.perform(Some(Bytes::from_owner(Zeroizing::new(body)))).await
    }

    /// Tries until there is an answer, another try would not help, or the deadline would pass before it.
    async fn perform(self, body: Option<Bytes>) -> Result<Answer> {
        let until = Instant::now() + self.deadline;
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match self.attempt(body.clone(), left).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Behind what the server asked for, so that those whom it sent away together do not return together.
            let delay = error.retry_after().unwrap_or_default() + backoff.next_delay();
            let late = Instant::now() + delay >= until;
            if !self.repeats || !error.is_passing() || backoff.failures() >= ATTEMPTS || late {
                return Err(error);
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt(&self, body: Option<Bytes>, left: Duration) -> Result<Answer> {
        let inner = &self.client.inner;
        let url = format!("{}{}", inner.base, self.target);
        let mut request = inner.http.request(self.method.clone(), url).timeout(left);
        if let Some(etag) = self.if_none_match {
            request = request.header(IF_NONE_MATCH, format!("\"{etag}\""));
        }
        if let Some(Tag(tag)) = &self.client.if_match
            && self.method == Method::PUT
        {
            request = request.header(IF_MATCH, tag);
        }
        if let Some(value) = &self.client.on_behalf {
            request = request.header(HeaderName::from_static(headers::ON_BEHALF), value);
        }
        if let Some(key) = &self.client.idempotency_key
            && self.method == Method::POST
        {
            request = request.header(HeaderName::from_static(headers::IDEMPOTENCY_KEY), key);
        }
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body);
        }
        let response = request.send().await.map_err(|error| failed(&error, self.deadline))?;
        receive(response, inner.max_answer_bytes, self.deadline).await
    }
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        if !self.is_json {
            return Err(Error::BadAnswer {
                status: self.status.as_u16(),
                reason: "it is not JSON by its `Content-Type`".to_owned(),
            });
        }
        // serde's message may quote the text, which may be a value; its position may not.
        serde_json::from_slice(&self.body).map_err(|error| Error::BadAnswer {
            status: self.status.as_u16(),
            reason: format!("unexpected JSON at line {} column {}", error.line(), error.column()),
        })
    }
}

async fn receive(mut response: Response, limit: usize, deadline: Duration) -> Result<Answer> {
    let status = response.status();
    let good = status.is_success() || status == StatusCode::NOT_MODIFIED;
    let limit = if good { limit } else { limit.min(MAX_PROBLEM_BYTES) };
    let headers = std::mem::take(response.headers_mut());
    match read(&mut response, limit, deadline).await {
        Ok(body) if good => Ok(Answer {
            status,
            tag: headers.get(ETAG).cloned().map(Tag),
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
fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
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

fn failed(error: &reqwest::Error, deadline: Duration) -> Error {
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
