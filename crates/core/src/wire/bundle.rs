//! The bundle: one consistent snapshot of what a caller may read of an environment.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
use crate::redacted::{Encoding, SecretText};
use crate::{Pattern, Time};

/// Longest `wait` of a long poll, in seconds.
pub const MAX_WAIT: u64 = 120;
/// Most keys, patterns and pinned versions of one request together.
pub const MAX_SELECTORS: usize = 500;

/// What is asked for: the query of `GET …/bundle`, where `key`, `pattern` and `version` repeat, and the body of
/// `POST …/bundle`. No key, pattern and version means every key that the caller may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BundleRequest {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<schemas::NamedKey>, max_items = 500))]
    pub key: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 500))]
    pub pattern: Vec<Pattern>,
    /// Pinned versions, `<key>:<n>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 500))]
    pub version: Vec<PinnedVersion>,
    pub configurations: bool,
    /// `false`: names and versions only.
    pub values: bool,
    /// Seconds to wait for a change from the state that `If-None-Match` names; 0–120.
    #[cfg_attr(feature = "openapi", schema(maximum = 120))]
    pub wait: u64,
}

impl Default for BundleRequest {
    fn default() -> Self {
        Self {
            key: vec![],
            pattern: vec![],
            version: vec![],
            configurations: false,
            values: true,
            wait: 0,
        }
    }
}

/// A version of a key instead of its active one. Written `<key>:<n>`; the key may itself hold colons.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedVersion {
    pub key: String,
    pub version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `<key>:<version>` with a version of 1 or more, for example `db-password:3`")]
pub struct PinnedVersionError;

impl FromStr for PinnedVersion {
    type Err = PinnedVersionError;

    fn from_str(text: &str) -> Result<Self, PinnedVersionError> {
        let (key, version) = text.rsplit_once(':').ok_or(PinnedVersionError)?;
        let digits = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
        match version.parse() {
            Ok(version @ 1..) if digits && !key.is_empty() => Ok(Self {
                key: key.to_owned(),
                version,
            }),
            _ => Err(PinnedVersionError),
        }
    }
}

impl fmt::Display for PinnedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, self.version)
    }
}

impl fmt::Debug for PinnedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PinnedVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PinnedVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
crate::openapi::schema!(
    PinnedVersion,
    schemas::bounded(
        "`<key>:<version>`",
        "db-password:3",
        3,
        221,
        r"^[\s\S]{1,200}:0*[1-9][0-9]{0,17}$"
    )
);

/// The answer. A named key that is absent or has no active version is in `missing`, one that the ACL refuses in
/// `denied` (which wins, so that names do not leak); neither fails the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bundle {
    /// The `ETag` of the answer, without quotes.
    pub etag: String,
    /// When the passing of time alone changes the answer next (`notBefore`, `expiresAt`).
    pub next_change_at: Option<Time>,
    pub secrets: BTreeMap<String, BundleSecret>,
    #[serde(default)]
    pub configurations: BTreeMap<String, String>,
    #[serde(default)]
    pub missing: Vec<String>,
    #[serde(default)]
    pub denied: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BundleSecret {
    /// Absent with `values=false`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "SecretText::serialize_exposed_option"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub value: Option<SecretText>,
    pub version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_version_splits_at_the_last_colon() {
        let pinned: PinnedVersion = "Feature:X:12".parse().unwrap();
        assert_eq!((pinned.key.as_str(), pinned.version), ("Feature:X", 12));
        for bad in ["", "a", "a:", ":1", "a:0", "a:-1", "a:+1", "a:x"] {
            assert_eq!(bad.parse::<PinnedVersion>(), Err(PinnedVersionError), "{bad:?}");
        }
    }

    #[test]
    fn a_bundle_shows_no_value_in_its_debug_output() {
        let json =
            r#"{"etag":"e","next_change_at":null,"secrets":{"k":{"value":"canary","version":1,"encoding":"utf8"}}}"#;
        let bundle: Bundle = serde_json::from_str(json).unwrap();
        assert!(!format!("{bundle:?}").contains("canary"));
        assert!(serde_json::to_string(&bundle).unwrap().contains("canary"));
    }

    #[test]
    fn an_unknown_field_of_a_request_is_refused_by_name() {
        let error = serde_json::from_str::<BundleRequest>(r#"{"keys":[]}"#).unwrap_err();
        assert!(error.to_string().contains("`keys`"));
    }
}
