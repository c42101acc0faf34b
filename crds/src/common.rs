//! What several kinds share.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A name that is its own slug, as a CEL expression over `%`.
macro_rules! is_slug {
    ($subject:literal) => {
        concat!($subject, ".matches('^[a-z0-9]+(-[a-z0-9]+)*$')")
    };
}
pub(crate) use is_slug;

/// The same rule for the schema's `pattern`.
pub(crate) const SLUG_PATTERN: &str = "^[a-z0-9]+(-[a-z0-9]+)*$";

/// Names of objects, for the schema's `pattern`. Kubernetes has no others, and they become part of URLs as they are.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Names of namespaces.
pub(crate) const NAMESPACE_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An Application of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplicationReference {
    /// `metadata.name` of the Application.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,
}

/// What becomes of the server's object when the Kubernetes object goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    // Comments, not docs: the schema of a variant with a description is no plain enum any more.
    // It stays, with all its secrets.
    #[default]
    Retain,
    // It is deleted, with all its secrets.
    Delete,
}

/// A selector of labels, as every Kubernetes tool reads it. Its own schema has no bounds; who follows objects with such
/// selectors keeps all of them in memory, for every namespace.
pub(crate) fn selector_schema(_: &mut SchemaGenerator) -> Schema {
    const LABEL_KEY: usize = 317;
    const LABEL_VALUE: usize = 63;
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that all have to be there with these values.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": LABEL_VALUE},
            },
            "matchExpressions": {
                "description": "Conditions that all have to hold.",
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "description": "A condition on one label.",
                    "type": "object",
                    "required": ["key", "operator"],
                    // What nobody can read selects nothing, and nobody would hear of it.
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": "In and NotIn go with values, at least one, and the other operators with none",
                    }],
                    "properties": {
                        "key": {"description": "Key of the label.", "type": "string", "maxLength": LABEL_KEY},
                        "operator": {
                            "description": "What holds between the label and `values`.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "For `In` and `NotIn` at least one, for the others none.",
                            "type": "array",
                            "maxItems": 32,
                            "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string", "maxLength": LABEL_VALUE},
                        },
                    },
                },
            },
        },
    })
}

/// Conditions as every Kubernetes tool reads them: one of each type, merged by type.
pub(crate) fn conditions_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Condition>(),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Why a size or a duration cannot be read. The schema refuses both, so only an object that is older than the schema
/// shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("must be a duration of whole hours, minutes and seconds, for example `1h30m`")]
    Duration,
    #[error("must be a whole number of bytes with `Ki`, `Mi` or `Gi`, for example `16Mi`")]
    Size,
}

/// What [`parse_duration`] reads, for the schema's `pattern`.
pub(crate) const DURATION_PATTERN: &str = "^([0-9]{1,6}(h|m|s))+$";
/// What [`parse_size`] reads, for the schema's `pattern`.
pub(crate) const SIZE_PATTERN: &str = "^[1-9][0-9]{0,8}(Ki|Mi|Gi)$";

/// Reads `30s`, `1h`, `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.chars().next() {
            Some('h') => 3_600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(ParseError::Duration),
        };
        let number: u32 = number.parse().map_err(|_| ParseError::Duration)?;
        seconds = seconds.saturating_add(u64::from(number) * unit);
        rest = &tail[1..];
    }
    if text.is_empty() {
        return Err(ParseError::Duration);
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads `512Ki`, `16Mi`, `1Gi`, in bytes.
pub fn parse_size(text: &str) -> Result<u64, ParseError> {
    let unit_at = text.len().checked_sub(2).filter(|at| text.is_char_boundary(*at));
    let (number, unit) = text.split_at(unit_at.ok_or(ParseError::Size)?);
    let shift = match unit {
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err(ParseError::Size),
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    let number: u32 = number.parse().ok().filter(|_| plain).ok_or(ParseError::Size)?;
    Ok(u64::from(number) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_hours_minutes_and_seconds() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("24h", 86_400), ("1h30m", 5_400), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "1", "s", "1.5h", "-1h", "1d", "1h ", "+1s", "99999999999s"] {
            assert_eq!(parse_duration(text), Err(ParseError::Duration), "{text:?}");
        }
    }

    #[test]
    fn sizes_have_a_binary_unit() {
        for (text, bytes) in [("64Ki", 65_536), ("16Mi", 16_777_216), ("1Gi", 1_073_741_824)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "i", "Mi", "16", "16M", "0Mi", "-1Mi", "+1Mi", "01Mi", "1.5Mi", "é", "aé",
        ] {
            assert_eq!(parse_size(text), Err(ParseError::Size), "{text:?}");
        }
    }
}
