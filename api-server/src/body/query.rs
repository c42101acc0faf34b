//! Query parameters: unknown ones are refused by name, because a misspelt filter would answer more than was meant.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::error::{ApiError, FieldErrors};

/// Extracts the query.
pub struct Query<T>(pub T);

/// A type that is read from the query; `None` needs at least one note in the errors.
pub trait ReadQuery: Sized {
    fn read(query: &mut QueryFields) -> Option<Self>;
}

/// No parameter is taken.
impl ReadQuery for () {
    fn read(_: &mut QueryFields) -> Option<Self> {
        Some(())
    }
}

/// The parameters that are not read yet, and what is wrong with those that are.
pub struct QueryFields {
    pairs: Vec<(String, String)>,
    errors: FieldErrors,
}

impl QueryFields {
    pub fn fault(&mut self, name: &str, why: impl Display) {
        self.errors.add(name, why.to_string());
    }

    /// Every value of a parameter that may repeat.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.pairs
            .extract_if(.., |(key, _)| key == name)
            .map(|(_, value)| value)
            .collect()
    }

    /// A parameter that is given at most once.
    #[allow(
        clippy::option_option,
        reason = "the outer one says whether the parameter could be read"
    )]
    pub fn at_most_one(&mut self, name: &str) -> Option<Option<String>> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "is given more than once");
            return None;
        }
        Some(values.pop())
    }

    /// A parameter that is given at most once, as `read` has it; what `read` says is wrong must not quote it.
    #[allow(
        clippy::option_option,
        reason = "the outer one says whether the parameter could be read"
    )]
    pub fn one<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<Option<T>> {
        let Some(text) = self.at_most_one(name)? else {
            return Some(None);
        };
        read(&text).map_err(|why| self.fault(name, why)).ok().map(Some)
    }

    pub fn required(&mut self, name: &str) -> Option<String> {
        match self.at_most_one(name)? {
            Some(value) if !value.is_empty() => Some(value),
            _ => {
                self.fault(name, "is required");
                None
            }
        }
    }

    /// Every value of a repeated parameter, as a type that reads itself.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<Vec<T>> {
        let mut parsed = Vec::new();
        let mut sound = true;
        for value in self.all(name) {
            match value.parse() {
                Ok(value) => parsed.push(value),
                Err(why) => {
                    self.fault(name, why);
                    sound = false;
                }
            }
        }
        sound.then_some(parsed)
    }

    pub fn boolean(&mut self, name: &str, default: bool) -> Option<bool> {
        match self.at_most_one(name)?.as_deref() {
            None => Some(default),
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => {
                self.fault(name, "must be true or false");
                None
            }
        }
    }

    /// A whole number between two bounds, both included.
    #[allow(
        clippy::option_option,
        reason = "the outer one says whether the parameter could be read"
    )]
    pub fn whole(&mut self, name: &str, min: u64, max: u64) -> Option<Option<u64>> {
        let Some(text) = self.at_most_one(name)? else {
            return Some(None);
        };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(value) if digits && (min..=max).contains(&value) => Some(Some(value)),
            _ => {
                self.fault(name, format!("must be a whole number from {min} to {max}"));
                None
            }
        }
    }
}

/// Longest name of an unknown parameter that an answer repeats.
const MAX_ECHOED_NAME: usize = 64;

impl<S: Send + Sync, T: ReadQuery> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::try_from_uri(&parts.uri)
            .ok()
            .filter(|_| is_encoded_text(parts.uri.query().unwrap_or_default()))
            .map(|axum::extract::Query(pairs)| pairs)
            .ok_or_else(|| {
                ApiError::Malformed(
                    "the query is not `name=value` pairs joined by `&`, percent-encoded from UTF-8".into(),
                )
            })?;
        let mut query = QueryFields {
            pairs,
            errors: FieldErrors::default(),
        };
        let read = T::read(&mut query);
        for (name, _) in std::mem::take(&mut query.pairs) {
            let name: String = name.chars().take(MAX_ECHOED_NAME).collect();
            query.fault(&name, "is no parameter of this call");
        }
        query.errors.finish(read).map(Self)
    }
}

/// Whether every `%` begins an encoded byte and the bytes are UTF-8; the reader of pairs would put up with less, and
/// look for a name that nobody wrote.
fn is_encoded_text(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let Some((pair, tail)) = rest.split_at_checked(2) else {
            return false;
        };
        let Ok(decoded) = data_encoding::HEXLOWER_PERMISSIVE.decode(pair) else {
            return false;
        };
        bytes.extend(decoded);
        rest = tail;
    }
    std::str::from_utf8(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct Sample(Vec<String>, bool, Option<u64>);

    impl ReadQuery for Sample {
        fn read(query: &mut QueryFields) -> Option<Self> {
            let (keys, flag, wait) = (
                query.all("key"),
                query.boolean("flag", true),
                query.whole("wait", 0, 120),
            );
            Some(Self(keys, flag?, wait?))
        }
    }

    async fn read(uri: &str) -> Result<Sample, ApiError> {
        let (mut parts, ()) = axum::http::Request::get(uri).body(()).unwrap().into_parts();
        Query::<Sample>::from_request_parts(&mut parts, &())
            .await
            .map(|Query(sample)| sample)
    }

    #[tokio::test]
    async fn parameters_repeat_and_are_percent_decoded() {
        let sample = read("/?key=a%2Fb&key=c&wait=120").await.unwrap();
        assert_eq!(sample.0, ["a/b", "c"]);
        assert!(sample.1);
        assert_eq!(sample.2, Some(120));
    }

    #[tokio::test]
    async fn wrong_and_unknown_parameters_are_all_named() {
        let Err(ApiError::Invalid(errors)) = read("/?wait=121&flag=yes&keys=a&flag2").await else {
            panic!("was taken")
        };
        let text = format!("{errors:?}");
        for name in ["wait", "flag", "keys", "flag2"] {
            assert!(text.contains(&format!("\"{name}\"")), "{name} in {text}");
        }
        for bad in ["/?wait=-1", "/?wait=%2B1", "/?wait=", "/?wait=1&wait=2"] {
            assert!(read(bad).await.is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever bytes stand for a text, the text is what is read; and bytes that are none are refused.
        #[test]
        fn any_text_arrives_as_it_was_sent(text in "\\PC{0,20}|[ -~]{0,20}") {
            let encoded: String = text.bytes().fold(String::new(), |all, byte| all + &format!("%{byte:02X}"));
            prop_assert!(is_encoded_text(&encoded));
            let uri = format!("/?key={encoded}").parse().unwrap();
            let axum::extract::Query(pairs) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap();
            prop_assert_eq!(&pairs[0].1, &text);
        }

        #[test]
        fn any_bytes_are_text_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..12), raw in "[%0-9a-fg&=+]{0,12}") {
            let encoded: String = bytes.iter().fold(String::new(), |all, byte| all + &format!("%{byte:02x}"));
            prop_assert_eq!(is_encoded_text(&encoded), std::str::from_utf8(&bytes).is_ok());
            // Never a panic, whatever stands behind a `%`.
            is_encoded_text(&raw);
        }
    }
}
