//! Types for what must never be seen by accident: no `Display`, a `Debug` that tells nothing, memory wiped on drop,
//! and no `Serialize` but through a function that says what it does.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Largest value of a secret, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// A credential or other secret text: an API key, a token, a value on its way into JSON.
#[derive(Clone, Default, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretText(String);

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For `#[serde(serialize_with)]` on the few fields that are meant to carry a secret out.
    pub fn serialize_exposed<S: Serializer>(text: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text.0)
    }

    /// As [`SecretText::serialize_exposed`], for an optional field.
    pub fn serialize_exposed_option<S: Serializer>(text: &Option<Self>, serializer: S) -> Result<S::Ok, S::Error> {
        match text {
            Some(text) => serializer.serialize_some(&text.0),
            None => serializer.serialize_none(),
        }
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// How a value travels in JSON: as text, or as base64 where it is not UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    #[default]
    Utf8,
    Base64,
}

/// Why a value was not taken. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most 1 MiB")]
    TooLarge,
    #[error("is not valid base64, which `encoding` says it is")]
    NotBase64,
}

/// The value of a secret: 1 byte to 1 MiB.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ValueError> {
        let bytes = Self(bytes);
        match bytes.0.len() {
            0 => Err(ValueError::Empty),
            1..=MAX_VALUE_BYTES => Ok(bytes),
            _ => Err(ValueError::TooLarge),
        }
    }

    pub fn from_wire(value: &SecretText, encoding: Encoding) -> Result<Self, ValueError> {
        let bytes = match encoding {
            Encoding::Utf8 => value.0.as_bytes().to_vec(),
            Encoding::Base64 => BASE64.decode(value.0.as_bytes()).map_err(|_| ValueError::NotBase64)?,
        };
        Self::from_bytes(bytes)
    }

    /// The value as JSON carries it; base64 only where it is not UTF-8.
    pub fn to_wire(&self) -> (SecretText, Encoding) {
        match std::str::from_utf8(&self.0) {
            Ok(text) => (SecretText::new(text), Encoding::Utf8),
            Err(_) => (SecretText::new(BASE64.encode(&self.0)), Encoding::Base64),
        }
    }

    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(std::mem::take(&mut self.0))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_tells_nothing() {
        let value = SecretValue::from_bytes(b"canary".to_vec()).unwrap();
        assert_eq!(
            format!("{value:?} {:?}", SecretText::new("canary")),
            "[redacted] [redacted]"
        );
    }

    #[test]
    fn only_bytes_that_are_no_text_travel_as_base64() {
        for bytes in [&b"plain"[..], "ünï".as_bytes(), b"\0", &[0xff, 0xfe]] {
            let value = SecretValue::from_bytes(bytes.to_vec()).unwrap();
            let (text, encoding) = value.to_wire();
            assert_eq!(encoding == Encoding::Base64, std::str::from_utf8(bytes).is_err());
            assert_eq!(SecretValue::from_wire(&text, encoding).unwrap(), value);
        }
    }

    #[test]
    fn a_value_has_one_byte_to_one_mebibyte() {
        assert_eq!(SecretValue::from_bytes(vec![]), Err(ValueError::Empty));
        assert!(SecretValue::from_bytes(vec![1; MAX_VALUE_BYTES]).is_ok());
        assert_eq!(
            SecretValue::from_bytes(vec![1; MAX_VALUE_BYTES + 1]),
            Err(ValueError::TooLarge)
        );
        assert_eq!(
            SecretValue::from_wire(&SecretText::new("a b"), Encoding::Base64),
            Err(ValueError::NotBase64)
        );
    }
}
