//! Reads the fields of a JSON object one by one and notes everything that is wrong with any of them, so that a caller
//! learns of all faults at once.

use std::fmt::Display;
use std::str::FromStr;

use sealpod_core::names::{self, NameError};
use sealpod_core::redacted::Encoding;
use sealpod_core::wire::{Edit, Labels, MAX_LABEL_KEY, MAX_LABEL_VALUE, MAX_LABELS};
use sealpod_core::{SecretText, SecretValue, Time};

use super::json::Json;
use crate::error::FieldErrors;

/// Longest name of an unknown field that an answer repeats.
const MAX_ECHOED_NAME: usize = 64;

/// The fields of one object that are not read yet, and where faults are noted.
pub struct Fields<'e> {
    entries: Vec<(String, Json)>,
    /// Where in the body the object stands: empty, or `[2].`.
    prefix: String,
    errors: &'e mut FieldErrors,
}

/// What a field's reader says is wrong: complete as "`field` …".
pub type Fault = String;

/// What a change says about the last and the first instant of a version.
pub type WindowEdit = (Edit<Option<Time>>, Edit<Option<Time>>);

impl<'e> Fields<'e> {
    /// `None`, and a note, if `json` is no object.
    pub fn of(json: Json, prefix: &str, errors: &'e mut FieldErrors) -> Option<Self> {
        let Json::Object(entries) = json else {
            let name = if prefix.is_empty() {
                "body"
            } else {
                prefix.trim_end_matches('.')
            };
            errors.add(name, "must be an object");
            return None;
        };
        Some(Self {
            entries,
            prefix: prefix.to_owned(),
            errors,
        })
    }

    pub fn fault(&mut self, field: &str, why: impl Display) {
        self.errors.add(format!("{}{field}", self.prefix), why.to_string());
    }

    fn take(&mut self, field: &str) -> Option<Json> {
        let at = self.entries.iter().position(|(name, _)| name == field)?;
        Some(self.entries.remove(at).1)
    }

    /// The field, which must be there and not null.
    pub fn required<T>(&mut self, field: &str, read: impl FnOnce(Json) -> Result<T, Fault>) -> Option<T> {
        match self.take(field) {
            None => {
                self.fault(field, "is required");
                None
            }
            Some(json) => read(json).map_err(|why| self.fault(field, why)).ok(),
        }
    }

    /// The field, or `Some(None)` where it is absent or null; `None` where it is wrong.
    #[allow(
        clippy::option_option,
        reason = "the outer one says whether the field could be read, as everywhere here"
    )]
    pub fn optional<T>(&mut self, field: &str, read: impl FnOnce(Json) -> Result<T, Fault>) -> Option<Option<T>> {
        match self.take(field) {
            None | Some(Json::Null) => Some(None),
            Some(json) => read(json).map_err(|why| self.fault(field, why)).ok().map(Some),
        }
    }

    /// The field, or `default` where it is absent.
    pub fn or<T>(&mut self, field: &str, default: T, read: impl FnOnce(Json) -> Result<T, Fault>) -> Option<T> {
        match self.take(field) {
            None => Some(default),
            Some(json) => read(json).map_err(|why| self.fault(field, why)).ok(),
        }
    }

    /// What a change says about a field that may be null: left out, it keeps what it is.
    pub fn edit<T>(&mut self, field: &str, read: impl FnOnce(Json) -> Result<T, Fault>) -> Option<Edit<Option<T>>> {
        match self.take(field) {
            None => Some(Edit::Keep),
            Some(Json::Null) => Some(Edit::To(None)),
            Some(json) => read(json)
                .map_err(|why| self.fault(field, why))
                .ok()
                .map(|value| Edit::To(Some(value))),
        }
    }

    /// `value` as the bytes that `encoding` says it stands for.
    pub fn value(&mut self) -> Option<SecretValue> {
        let text = self.required("value", secret);
        let encoding = self.or("encoding", Encoding::Utf8, encoding);
        SecretValue::from_wire(&text?, encoding?)
            .map_err(|why| self.fault("value", why))
            .ok()
    }

    /// The window of a version; `expires` and `before` are the names of its two fields.
    pub fn window(&mut self, expires: &str, before: &str) -> Option<(Option<Time>, Option<Time>)> {
        let (expires_at, not_before) = (self.optional(expires, time), self.optional(before, time));
        let (expires_at, not_before) = (expires_at?, not_before?);
        self.check_window((expires, expires_at), (before, not_before));
        Some((expires_at, not_before))
    }

    /// What a change says about a version's window; what it keeps is for the store to compare with.
    pub fn window_edit(&mut self, expires: &str, before: &str) -> Option<WindowEdit> {
        let (expires_at, not_before) = (self.edit(expires, time), self.edit(before, time));
        let (expires_at, not_before) = (expires_at?, not_before?);
        self.check_window((expires, expires_at.over(None)), (before, not_before.over(None)));
        Some((expires_at, not_before))
    }

    fn check_window(&mut self, (expires, end): (&str, Option<Time>), (before, start): (&str, Option<Time>)) {
        if let (Some(end), Some(start)) = (end, start)
            && end <= start
        {
            self.fault(expires, format!("must be after `{before}`"));
        }
    }

    /// Notes every field that nothing read.
    pub fn end(mut self) {
        for (name, _) in std::mem::take(&mut self.entries) {
            let name: String = name.chars().take(MAX_ECHOED_NAME).collect();
            self.fault(&name, "is unknown here, or given twice");
        }
    }
}

fn expected<T>(what: &str) -> Result<T, Fault> {
    Err(format!("must be {what}"))
}

pub fn string(json: Json) -> Result<String, Fault> {
    match json {
        Json::Text(mut text) => Ok(std::mem::take(&mut *text)),
        _ => expected("a string"),
    }
}

pub fn secret(json: Json) -> Result<SecretText, Fault> {
    string(json).map(SecretText::from)
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "every reader takes its value, so that text moves and is never copied"
)]
pub fn boolean(json: Json) -> Result<bool, Fault> {
    match json {
        Json::Bool(value) => Ok(value),
        _ => expected("true or false"),
    }
}

/// A whole number from 0 to `max`.
pub fn whole(max: u64) -> impl FnOnce(Json) -> Result<u64, Fault> {
    whole_from(0, max)
}

/// A whole number between two bounds, both included.
pub fn whole_from(min: u64, max: u64) -> impl FnOnce(Json) -> Result<u64, Fault> {
    move |json| match json {
        Json::Whole(value) if (min..=max).contains(&value) => Ok(value),
        _ => expected(&format!("a whole number from {min} to {max}")),
    }
}

/// Text that a type reads itself; its error must not quote the text.
pub fn parsed<T: FromStr<Err: Display>>(json: Json) -> Result<T, Fault> {
    string(json)?.parse().map_err(|why: T::Err| why.to_string())
}

pub fn time(json: Json) -> Result<Time, Fault> {
    parsed(json)
}

pub fn uuid(json: Json) -> Result<uuid::Uuid, Fault> {
    // The library's message would quote a character of the text.
    string(json)?.parse().or_else(|_| expected("a UUID"))
}

pub fn encoding(json: Json) -> Result<Encoding, Fault> {
    match string(json)?.as_str() {
        "utf8" => Ok(Encoding::Utf8),
        "base64" => Ok(Encoding::Base64),
        _ => expected("`utf8` or `base64`"),
    }
}

/// Free text that names something: see [`names::check_free_text`].
pub fn free_text(limit: usize) -> impl FnOnce(Json) -> Result<String, Fault> {
    move |json| checked(string(json)?, |text| names::check_free_text(text, limit))
}

/// Text of at most `limit` characters, perhaps none.
pub fn text_within(limit: usize) -> impl FnOnce(Json) -> Result<String, Fault> {
    move |json| checked(string(json)?, |text| names::within(text, limit))
}

/// Text of at least one character.
pub fn not_empty(json: Json) -> Result<String, Fault> {
    checked(string(json)?, |text| {
        if text.is_empty() { Err(NameError::Blank) } else { Ok(()) }
    })
}

fn checked(text: String, check: impl FnOnce(&str) -> Result<(), NameError>) -> Result<String, Fault> {
    check(&text).map_err(|why| why.to_string())?;
    Ok(text)
}

/// Text of one of the names that `choices` lists.
pub fn one_of<T: Copy>(choices: &'static [(&'static str, T)]) -> impl FnOnce(Json) -> Result<T, Fault> {
    move |json| {
        let text = string(json)?;
        choices
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, choice)| *choice)
            .map_or_else(
                || {
                    let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                    expected(&names.join(" or "))
                },
                Ok,
            )
    }
}

pub fn array<T>(of: impl Fn(Json) -> Result<T, Fault>) -> impl FnOnce(Json) -> Result<Vec<T>, Fault> {
    move |json| match json {
        Json::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(at, item)| of(item).map_err(|why| format!("[{at}] {why}")))
            .collect(),
        _ => expected("an array"),
    }
}

/// A map of strings to strings whose keys can stand before the `=` of `?label=key=value`.
pub fn labels(json: Json) -> Result<Labels, Fault> {
    let Json::Object(entries) = json else {
        return expected("an object of strings");
    };
    if entries.len() > MAX_LABELS {
        return expected("at most 64 labels");
    }
    let mut labels = Labels::new();
    for (key, value) in entries {
        if key.contains('=') || names::check_free_text(&key, MAX_LABEL_KEY).is_err() {
            return expected(
                "labels whose keys are 1 to 200 characters, not blank, without `=` and control characters",
            );
        }
        let value = text_within(MAX_LABEL_VALUE)(value).map_err(|why| format!("has a label whose value {why}"))?;
        if labels.insert(key, value).is_some() {
            return expected("labels that are given once each");
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(body: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> (T, FieldErrors) {
        let mut errors = FieldErrors::default();
        let json = Json::parse(body.as_bytes()).unwrap_or(Json::Null);
        let mut fields = Fields::of(json, "[2].", &mut errors).unwrap();
        let result = read(&mut fields);
        fields.end();
        (result, errors)
    }

    #[test]
    fn all_faults_are_noted_at_once_and_never_quote_a_value() {
        let body = r#"{"value": "canary", "encoding": "canary", "expiresAt": "canary", "canaries": 1, "isEnabled": 3}"#;
        let (value, errors) = read(body, |fields| {
            let value = fields.value();
            fields.window("expiresAt", "notBefore");
            fields.required("environmentSlug", not_empty);
            fields.or("isEnabled", true, boolean);
            value
        });
        assert!(value.is_none());
        let text = format!("{errors:?}");
        for field in [
            "[2].encoding",
            "[2].expiresAt",
            "[2].environmentSlug",
            "[2].isEnabled",
            "[2].canaries",
        ] {
            assert!(text.contains(field), "{field} in {text}");
        }
        assert!(!text.contains("\"canary"), "{text}");
    }

    #[test]
    fn a_window_ends_after_it_begins() {
        let window = |body: &str| read(body, |fields| fields.window("e", "b")).1.is_empty();
        assert!(window(r#"{"e": "2026-01-02T00:00:00Z", "b": "2026-01-01T00:00:00Z"}"#));
        assert!(window(r#"{"e": "2026-01-02T00:00:00Z", "b": null}"#));
        assert!(!window(r#"{"e": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z"}"#));
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        let (name, errors) = read(r#"{"name": "a", "name": "b"}"#, |fields| {
            fields.required("name", not_empty)
        });
        assert_eq!(name.as_deref(), Some("a"));
        assert!(!errors.is_empty());
    }

    #[test]
    fn labels_are_strings_with_keys_that_a_query_can_name() {
        let ok = |body: &str| Json::parse(body.as_bytes()).is_ok_and(|json| labels(json).is_ok());
        assert!(ok(r#"{"sealpod.dev/owner": "c/ns/uid/name", "empty": ""}"#));
        for bad in [
            r#"{"a=b": "c"}"#,
            r#"{"a": 1}"#,
            r#"{"": "a"}"#,
            "[]",
            r#"{"a": "1", "a": "2"}"#,
        ] {
            assert!(!ok(bad), "{bad}");
        }
    }
}
