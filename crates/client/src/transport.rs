//! One call: send it, and try again what is safe.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder};
use sealpod_core::wire::headers;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::answer::{Answer, MAX_PROBLEM_BYTES, Tag, Tagged, failed, is_of_type, receive};
use crate::backoff::Backoff;
use crate::lines::Lines;
use crate::{Client, Error, Result};

/// What a long poll may take beyond its `wait`.
pub(crate) const POLL_GRACE: Duration = Duration::from_secs(10);
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

    /// Deletes what goes to the trash, or for good where the client is a purging one.
    pub(crate) async fn discard(&self, target: String) -> Result<()> {
        let query = if self.purges { "?purge=true" } else { "" };
        self.delete(target + query).await
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

    /// Never tried again here: the caller has a way of its own, or the server does not tell a second arrival from a
    /// second call.
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
        let mut tries = Tries::of(&self);
        loop {
            match self.attempt(body.clone(), tries.left()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.another(error).await?,
            }
        }
    }

    /// An answer of JSON lines, however many. The deadline is that of its beginning, and of each further piece.
    pub(crate) async fn lines(self, media_type: &'static str) -> Result<Lines> {
        let mut tries = Tries::of(&self);
        loop {
            match self.begin(media_type, tries.left()).await {
                Ok(lines) => return Ok(lines),
                Err(error) => tries.another(error).await?,
            }
        }
    }

    async fn begin(&self, media_type: &'static str, left: Duration) -> Result<Lines> {
        let beginning = async {
            let sending = self.request(None).header(ACCEPT, media_type).send();
            let response = sending.await.map_err(|error| failed(&error, self.deadline))?;
            if response.status().is_success() && is_of_type(response.headers(), media_type) {
                return Ok(Lines::of(response, self.deadline));
            }
            let answer = receive(response, MAX_PROBLEM_BYTES, self.deadline).await?;
            Err(Error::BadAnswer {
                status: answer.status.as_u16(),
                reason: format!("it is not {media_type} by its `Content-Type`"),
            })
        };
        let late = Error::Timeout {
            deadline: self.deadline,
        };
        tokio::time::timeout(left, beginning).await.unwrap_or(Err(late))
    }

    async fn attempt(&self, body: Option<Bytes>, left: Duration) -> Result<Answer> {
        let sending = self.request(body).timeout(left).send();
        let response = sending.await.map_err(|error| failed(&error, self.deadline))?;
        receive(response, self.client.inner.max_answer_bytes, self.deadline).await
    }

    fn request(&self, body: Option<Bytes>) -> RequestBuilder {
        let inner = &self.client.inner;
        let url = format!("{}{}", inner.base, self.target);
        let mut request = inner.http.request(self.method.clone(), url);
        if let Some((name, value)) = &self.client.credential {
            request = request.header(name, value);
        }
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
            && self.repeats
        {
            request = request.header(HeaderName::from_static(headers::IDEMPOTENCY_KEY), key);
        }
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body);
        }
        request
    }
}

/// The tries of one call.
struct Tries {
    until: Instant,
    repeats: bool,
    backoff: Backoff,
}

impl Tries {
    fn of(call: &Call<'_>) -> Self {
        Self {
            until: Instant::now() + call.deadline,
            repeats: call.repeats,
            backoff: Backoff::new(RETRY_BASE, RETRY_CAP),
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Waits for the time of another try, or gives the error back where there is to be none.
    async fn another(&mut self, error: Error) -> Result<()> {
        // Behind what the server asked for, so that those whom it sent away together do not return together.
        let delay = error.retry_after().unwrap_or_default() + self.backoff.next_delay();
        if !self.repeats || !error.is_passing() || self.backoff.failures() >= ATTEMPTS || delay >= self.left() {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
        Ok(())
    }
}
