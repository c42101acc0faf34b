//! Paths of things that were made, for `Location`.

use std::fmt::Write as _;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sealpod_core::wire::Labels;
use serde::Serialize;

use crate::error::ApiError;
use crate::preconditions;

/// Text as one segment of a path.
pub struct Segment<'a>(pub &'a str);

impl std::fmt::Display for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// `?label=` for each, ready for more parameters behind them.
pub fn labels_query(labels: &Labels) -> String {
    let mut query = String::new();
    for (key, value) in labels {
        let pair = format!("{key}={value}");
        write!(query, "label={}&", Segment(&pair)).expect("text takes all text");
    }
    query
}

/// 201 with the path of what was made.
pub fn created(location: &str, body: impl Serialize) -> Result<Response, ApiError> {
    // A path of percent-encoded segments is always a header's value.
    let location = HeaderValue::from_str(location).map_err(ApiError::internal)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(body)).into_response())
}

/// The same with the tag of its state.
pub fn created_as(tag: &str, location: &str, body: impl Serialize) -> Result<Response, ApiError> {
    let (name, value) = preconditions::header(tag)?;
    let mut response = created(location, body)?;
    response.headers_mut().insert(name, value);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_any_name() {
        assert_eq!(Segment("a/b c?é%").to_string(), "a%2Fb%20c%3F%C3%A9%25");
        assert_eq!(Segment("db.pass-word_1~").to_string(), "db.pass-word_1~");
    }
}
