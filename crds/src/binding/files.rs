//! `spec.configurations` and `spec.files`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secrets::name_or_pattern;

/// A relative path of safe segments, as the schema's `pattern`.
pub(crate) const PATH_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9._-]{0,252}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,252})*$";

/// For a list of files or entries. Those of `spec.files` lie in the Secret with the key, which holds 1 MiB.
pub(crate) fn templates_together() -> kube::core::Rule {
    kube::core::Rule::new("self.map(f, has(f.template) ? f.template.size() : 0).sum() <= 262144")
        .message("the templates together must be at most 262144 characters")
}

/// The environment's configurations, which are no secrets, in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Configurations {
    /// `false` is the same as to leave all of it out.
    #[serde(default = "crate::binding::yes")]
    pub enabled: bool,

    /// With `format: files` the folder, default `configurations`; otherwise the file, default
    /// `configurations.<format>`, such as `configurations.env`. Below `mountPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub path: Option<String>,

    /// `files`: each key a file. Else one file with all of them.
    #[serde(default)]
    pub format: ConfigurationsFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConfigurationsFormat {
    #[default]
    Files,
    Env,
    Json,
    Yaml,
    Properties,
}

/// Several values in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.format == 'template') == has(self.template)")
    .message("template goes with format: template, and with nothing else"))]
#[x_kube(validation = Rule::new("self.format != 'template' || !has(self.include)")
    .message("include does not go with format: template, which names what it takes itself"))]
pub struct CombinedFile {
    /// The file below `mountPath`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH_PATTERN))]
    pub path: String,

    /// `env`: lines that a shell can source; `json`, `yaml`: one object of texts; `properties`: as Java reads them;
    /// `template`: whatever `template` makes of them.
    pub format: FileFormat,

    /// Which values; only with the formats that are no template. Absent: every secret that the binding names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500), extend("x-kubernetes-list-type" = "atomic"))]
    pub include: Option<Vec<Include>>,

    /// A MiniJinja template over `secrets` and `configurations`, such as `{{ secrets["db-password"] }}`. A key that is not
    /// there is an error: the file that was there before stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub template: Option<String>,

    /// Mode of the file instead of `spec.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    Env,
    Json,
    Yaml,
    Properties,
    Template,
}

/// One of the secrets that the binding names, or those of them that match a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = name_or_pattern())]
pub struct Include {
    /// Name of a secret, taken literally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub name: Option<String>,

    /// Pattern of names, as in `spec.secrets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pattern: Option<String>,
}
