//! Request bodies and query parameters: read with bounds, refused by name and place, never quoted.

pub mod fields;
mod json;
mod query;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

pub use fields::Fields;
pub use json::Json;
pub use query::{Query, QueryFields, ReadQuery};

use crate::app::App;
use crate::error::{ApiError, FieldErrors};
use crate::limits::{hold, resting};

/// Largest body of an ordinary call, and of those that carry values.
pub const BODY_LIMIT: usize = 1024 * 1024;
pub const VALUE_BODY_LIMIT: usize = 8 * 1024 * 1024;

/// A type that is read from a JSON body. What is wrong is noted in `errors`; `None` needs at least one note.
pub trait ReadBody: Sized + Send {
    const LIMIT: usize = BODY_LIMIT;

    /// What no body at all stands for.
    fn absent() -> Option<Self> {
        None
    }

    fn read(json: Json, errors: &mut FieldErrors) -> Option<Self>;
}

/// A type that is read from a JSON object.
pub trait ReadFields: Sized + Send {
    const LIMIT: usize = BODY_LIMIT;

    fn absent() -> Option<Self> {
        None
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

impl<T: ReadFields> ReadBody for T {
    const LIMIT: usize = T::LIMIT;

    fn absent() -> Option<Self> {
        T::absent()
    }

    fn read(json: Json, errors: &mut FieldErrors) -> Option<Self> {
        let mut fields = Fields::of(json, "", errors)?;
        let read = T::read(&mut fields);
        fields.end();
        read
    }
}

/// Extracts the body.
pub struct Body<T>(pub T);

impl<T: ReadBody> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let limit = T::LIMIT;
        if content_length(request.headers()).is_some_and(|length| length > limit) {
            return Err(ApiError::PayloadTooLarge { limit });
        }
        let json = is_json(request.headers());
        let bytes = receive(request.into_body(), limit, app.limits().body_time()).await?;
        if bytes.is_empty() {
            return match T::absent() {
                Some(absent) => Ok(Self(absent)),
                None if json => Err(ApiError::Malformed("this call needs a JSON body".into())),
                None => Err(ApiError::UnsupportedMediaType),
            };
        }
        if !json {
            return Err(ApiError::UnsupportedMediaType);
        }
        let json = Json::parse(&bytes).map_err(|error| ApiError::Malformed(error.to_string().into()))?;
        let mut errors = FieldErrors::default();
        let read = T::read(json, &mut errors);
        errors.finish(read).map(Self)
    }
}

/// All of a body, within its limits of size and time.
pub async fn receive(body: axum::body::Body, limit: usize, time: Duration) -> Result<Bytes, ApiError> {
    let received = resting(tokio::time::timeout(time, collect(body, limit))).await;
    received.map_err(|_| ApiError::SlowBody)?
}

/// Counts what has come while it comes: what a caller announces and never sends takes no memory, and no room from others.
async fn collect(body: axum::body::Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut body = Limited::new(body, limit);
    let (mut all, mut first) = (Vec::new(), Bytes::new());
    while let Some(frame) = body.frame().await {
        // Anything but the limit means that the caller went away in the middle.
        let frame = frame.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => ApiError::PayloadTooLarge { limit },
            None => ApiError::Malformed("the body ended before its announced length".into()),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        hold(first.len() + all.len() + data.len())?;
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        // Most bodies are in one piece, and copied nowhere.
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// Extracts the body of a call whose caller is judged first: whoever may not make it gets to hear that, and nothing
/// about the body.
pub struct Unread<T>(Result<T, ApiError>);

impl<T> Unread<T> {
    /// The body. Stands behind the line that says who may call.
    pub fn read(self) -> Result<T, ApiError> {
        self.0
    }
}

impl<T: ReadBody> FromRequest<App> for Unread<T> {
    type Rejection = Infallible;

    async fn from_request(request: Request, app: &App) -> Result<Self, Infallible> {
        Ok(Self(Body::from_request(request, app).await.map(|Body(body)| body)))
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `application/json` or `application/…+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Extracts the percent-decoded names of the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Names of any form are looked up, so all that fails is text that is no UTF-8 or an id that is no UUID:
        // nothing is called that.
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(names)| Self(names))
            .map_err(|_| ApiError::not_found("nothing has this name or id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn json_is_told_by_its_media_type() {
        let is = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            is_json(&headers)
        };
        for yes in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
        ] {
            assert!(is(yes), "{yes}");
        }
        for no in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonx",
            "json",
        ] {
            assert!(!is(no), "{no}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
