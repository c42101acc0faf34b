//! `spec.secrets`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::PATH_PATTERN;

/// What an entry is that takes secrets.
pub(crate) fn name_or_pattern() -> kube::core::Rule {
    kube::core::Rule::new("has(self.name) != has(self.pattern)").message("give either name or pattern")
}

/// One secret, or all whose names match a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = name_or_pattern())]
#[x_kube(validation = Rule::new("has(self.name) || !has(self.version)").message("version goes with name, not with pattern"))]
#[x_kube(validation = Rule::new("!has(self.name) || has(self.path) || self.name.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*$')")
    .message("this name is no file name: set path"))]
pub struct SecretSelection {
    /// Name of a secret, taken literally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub name: Option<String>,

    /// Pattern of names: `*` any run of characters, `?` one character, `{a,b}` alternatives, `\` takes the next character literally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,

    /// For a name: the file below `mountPath`. Default: the name. For a pattern: a folder. Default: `mountPath` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = PATH_PATTERN)
    )]
    pub path: Option<String>,

    /// Mode of these files instead of `spec.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<i32>,

    /// Whether pods may start without it. Default: `false` for a name, `true` for a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,

    /// This version instead of the active one; only with `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub version: Option<i64>,

    /// `base64`: the value is base64 text, and the bytes that it stands for are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<SecretDecode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretDecode {
    Base64,
}
