//! Conditional requests: the tag of each state of an object, and `If-Match`, by which a writer says which state it
//! means to change. A tag is a keyed hash of what an answer shows beside values; a value is in none, only the id of the
//! revision that it came with.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use utoipa::IntoResponses;
use utoipa::openapi::RefOr;
use uuid::Uuid;

use crate::app::App;
use crate::bundle::known_tags;
use crate::crypto::Pepper;
use crate::error::ApiError;
use crate::routes::openapi;
use crate::store::{Configuration, Environment, Expect, Project};

/// Makes tags.
#[derive(Clone)]
pub struct Tagger {
    pepper: Pepper,
    epoch: Uuid,
}

impl Tagger {
    pub fn of(app: &App) -> Self {
        Self {
            pepper: app.store().pepper().clone(),
            epoch: app.store().epoch(),
        }
    }

    fn tag(&self, label: &str, state: impl Serialize) -> String {
        let state = serde_json::to_vec(&state).expect("text, numbers and maps of text are always JSON");
        let hash = self.pepper.mac(label, &[self.epoch.as_bytes(), &state]);
        BASE64URL_NOPAD.encode(&hash)
    }
}

/// Something whose states have tags. Two states with one tag look the same to whoever reads them.
pub trait Tagged {
    fn tag(&self, tagger: &Tagger) -> String;
}

impl Tagged for Project {
    fn tag(&self, tagger: &Tagger) -> String {
        let shown = (self.id.0, &self.slug, &self.display_name, &self.description);
        tagger.tag("project-etag/1", (shown, &self.labels, self.updated_at))
    }
}

impl Tagged for Environment {
    fn tag(&self, tagger: &Tagger) -> String {
        let shown = (self.id.0, &self.slug, &self.display_name);
        tagger.tag("environment-etag/1", (shown, &self.labels, self.updated_at))
    }
}

impl Tagged for Configuration {
    fn tag(&self, tagger: &Tagger) -> String {
        let revision = (self.id.0, self.revision_id.0, &self.location.environment_slug);
        tagger.tag("configuration-etag/1", (revision, &self.description, self.updated_at))
    }
}

/// `If-Match`, as a handler takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Not sent, or `*`: any state will do, and an object that is not there is a 404 in any case.
    Any,
    /// One of these, by strong comparison; weak tags are left out, for they never match.
    One(Vec<String>),
}

impl IfMatch {
    /// The condition for the store.
    pub fn expect<T: Tagged>(self, app: &App) -> Expect<T> {
        let Self::One(tags) = self else {
            return Expect::anything();
        };
        let tagger = Tagger::of(app);
        Expect::that(move |found: &T| tags.contains(&found.tag(&tagger)))
    }

    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Ok(Self::Any);
        }
        let texts: Option<Vec<&str>> = values.map(|value| value.to_str().ok()).collect();
        let joined = texts.unwrap_or_default().join(",");
        if joined.trim() == "*" {
            return Ok(Self::Any);
        }
        strong_tags(&joined)
            .map(Self::One)
            .ok_or_else(|| ApiError::invalid("If-Match", "must be `*`, or tags in double quotes joined by commas"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::of(&parts.headers)
    }
}

/// The strong ones of a list of tags; `None` if it is no such list. Empty items are taken, as lists in headers are.
fn strong_tags(mut list: &str) -> Option<Vec<String>> {
    let (mut strong, mut any) = (Vec::new(), false);
    loop {
        list = list.trim_start_matches([' ', '\t', ',']);
        if list.is_empty() {
            return any.then_some(strong);
        }
        let (is_weak, quoted) = match list.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, list),
        };
        let (tag, rest) = quoted.strip_prefix('"')?.split_once('"')?;
        let next = rest.trim_start_matches([' ', '\t']);
        if !next.is_empty() && !next.starts_with(',') {
            return None;
        }
        any = true;
        if !is_weak {
            strong.push(tag.to_owned());
        }
        list = next;
    }
}

/// `ETag` with this tag.
pub fn header(tag: &str) -> Result<(HeaderName, HeaderValue), ApiError> {
    let value = HeaderValue::from_str(&format!("\"{tag}\"")).map_err(ApiError::internal)?;
    Ok((header::ETAG, value))
}

/// 200 with the object and the tag of its state.
pub fn shown(tag: &str, body: impl Serialize) -> Result<Response, ApiError> {
    Ok(([header(tag)?], Json(body)).into_response())
}

/// The same, or 304 for a reader that has this state.
pub fn shown_unless_known(headers: &HeaderMap, tag: &str, body: impl Serialize) -> Result<Response, ApiError> {
    if known_tags(headers).any(|known| known == tag || known == "*") {
        return Ok((StatusCode::NOT_MODIFIED, [header(tag)?]).into_response());
    }
    shown(tag, body)
}

/// What a change can answer that takes `If-Match`.
pub struct Stale;

impl IntoResponses for Stale {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        openapi::shared(&["412"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<IfMatch> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, HeaderValue::from_static(value));
        }
        IfMatch::of(&headers).ok()
    }

    fn one(tags: &[&str]) -> IfMatch {
        IfMatch::One(tags.iter().map(|tag| (*tag).to_owned()).collect())
    }

    #[test]
    fn the_header_is_a_star_or_a_list_of_tags() {
        assert_eq!(of(&[]), Some(IfMatch::Any));
        assert_eq!(of(&[" * "]), Some(IfMatch::Any));
        assert_eq!(of(&["\"a\""]), Some(one(&["a"])));
        assert_eq!(of(&["\"a\" , \"b,c\",", "\"d\""]), Some(one(&["a", "b,c", "d"])));
        assert_eq!(of(&["W/\"a\", \"b\""]), Some(one(&["b"])));
        assert_eq!(
            of(&["W/\"a\""]),
            Some(one(&[])),
            "a weak tag matches nothing, which is not the same as no condition"
        );
        assert_eq!(of(&["\"\""]), Some(one(&[""])));
        for bad in ["", ",", "a", "\"a", "\"a\" \"b\"", "*, \"a\"", "w/\"a\"", "W/ \"a\""] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
    }
}
