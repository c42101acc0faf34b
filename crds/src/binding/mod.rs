//! SecretBinding: its spec here, the parts of it in files of their own.

mod change;
mod files;
mod native;
mod secrets;
mod status;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use sealpod_core::kubernetes::MOUNT_ROOT;
use serde::{Deserialize, Serialize};

use crate::common::{
    DURATION_PATTERN, NAME_PATTERN, NAMESPACE_PATTERN, ParseError, SIZE_PATTERN, SLUG_PATTERN, parse_duration,
    parse_size, selector_schema,
};

pub use change::{HttpCall, OnChange, Restart, Signal, Stale, Staleness};
pub use files::{CombinedFile, Configurations, ConfigurationsFormat, FileFormat, Include};
pub use native::{KubernetesSecret, KubernetesSecretEntry, KubernetesSecretType};
pub use secrets::{SecretDecode, SecretSelection};
pub use status::{ChangeKind, NextChange, PodCounts, SecretBindingStatus, SecretChange, SecretState, SecretStatus};

/// Which secrets of one application environment which pods get, where and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "sealpod.dev",
    version = "v1alpha1",
    kind = "SecretBinding",
    plural = "secretbindings",
    shortname = "sb",
    category = "sealpod",
    namespaced,
    status = "SecretBindingStatus",
    derive = "PartialEq",
    doc = "Delivers secrets of one application environment as files to the pods of its namespace that carry the label `sealpod.dev/inject: \"true\"`.",
    validation = Rule::new("self.metadata.name.size() <= 200").message("metadata.name must be at most 200 characters"),
    printcolumn(name = "Application", type_ = "string", json_path = ".spec.applicationRef.name"),
    printcolumn(name = "Environment", type_ = "string", json_path = ".spec.environment"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Key-Rotated", type_ = "date", json_path = ".status.keyRotatedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SecretBindingSpec {
    /// The Application whose secrets are read.
    pub application_ref: BindingApplicationReference,

    /// Slug of the environment on the server; no Environment object is needed for it.
    #[schemars(length(min = 1, max = 100), regex(pattern = SLUG_PATTERN))]
    pub environment: String,

    /// Which secrets are written to which files. Absent: all secrets of the environment, each under its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500), extend("x-kubernetes-list-type" = "atomic"))]
    pub secrets: Option<Vec<SecretSelection>>,

    /// Also write the configurations of the environment. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configurations: Option<Configurations>,

    /// Files that hold several values, beside one file for each secret. Their templates have 262144 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    #[x_kube(validation = files::templates_together())]
    pub files: Vec<CombinedFile>,

    /// Directory of the files in the containers; an absolute path. Default: `/var/run/secrets/sealpod.dev/<metadata.name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)+$"))]
    #[x_kube(validation = Rule::new("!self.split('/').exists(s, s == '.' || s == '..')")
        .message("mountPath must not hold `.` or `..`"))]
    pub mount_path: Option<String>,

    /// Size of the memory-backed volume. Half of it is usable, because a change holds the old and the new files.
    #[serde(default = "default_size_limit")]
    #[schemars(length(max = 16), regex(pattern = SIZE_PATTERN))]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity('64Ki')) >= 0 && quantity(self).compareTo(quantity('4Gi')) <= 0")
        .message("sizeLimit must be 64Ki to 4Gi"))]
    pub size_limit: String,

    /// Mode of the files, as the integer that Kubernetes takes in `defaultMode`: 288 in JSON, 0440 in YAML (which reads
    /// it as octal). Containers of any user may read files of mode 0440.
    #[serde(default = "default_mode")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: i32,

    /// Which pods of the namespace may get the files; one that it does not select is refused if it names this binding.
    /// Absent: every pod that asks for injection. A convenience, not a boundary: whoever may create pods in the namespace
    /// can mount its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub pod_selector: Option<LabelSelector>,

    /// Service accounts whose pods may get the files. Absent: any. A convenience, as is `podSelector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub service_account_names: Vec<String>,

    /// How often pods ask for changes, beside the long poll.
    #[serde(default = "default_refresh_interval")]
    #[schemars(length(max = 24), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('24h')")
        .message("refreshInterval must be 5s to 24h"))]
    pub refresh_interval: String,

    /// Whether pods also hold a long poll open, by which changes arrive within a second.
    #[serde(default = "yes")]
    pub watch: bool,

    /// What happens to the app when a value that it uses changes. Absent: nothing, it reads the new files by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,

    /// How long files stay good while the server is away, or when access is taken away. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness: Option<Staleness>,

    /// Also keep the values in a Secret of Kubernetes, for what can read nothing else. Absent: values never pass through
    /// etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_secret: Option<KubernetesSecret>,

    /// Rotation of the key with which pods read.
    #[serde(default)]
    pub key_rotation: KeyRotation,
}

fn default_size_limit() -> String {
    "16Mi".to_owned()
}

fn default_mode() -> i32 {
    0o440
}

fn default_refresh_interval() -> String {
    "30s".to_owned()
}

fn yes() -> bool {
    true
}

/// An Application, of this namespace or of one whose Application admits this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BindingApplicationReference {
    /// `metadata.name` of the Application.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Its namespace, where that is another one; its `spec.allowedNamespaces` has to admit this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_PATTERN))]
    pub namespace: Option<String>,
}

/// How often the key is replaced, and how long the one before it lives on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.overlap) >= duration('10m')")
    .message("overlap must be at least 10m: the kubelet takes up to 90 seconds to bring a new key to running pods"))]
#[x_kube(validation = Rule::new("duration(self.overlap) <= duration('720h')")
    .message("overlap must be at most 720h: the server keeps no replaced key longer"))]
#[x_kube(validation = Rule::new("duration(self.interval) >= duration(self.overlap) + duration(self.overlap)")
    .message("interval must be at least twice the overlap"))]
pub struct KeyRotation {
    /// Age at which the key is replaced.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 24), regex(pattern = DURATION_PATTERN))]
    pub interval: String,

    /// How long the replaced key still works.
    #[serde(default = "default_overlap")]
    #[schemars(length(max = 24), regex(pattern = DURATION_PATTERN))]
    pub overlap: String,
}

fn default_interval() -> String {
    "24h".to_owned()
}

fn default_overlap() -> String {
    "1h".to_owned()
}

impl Default for KeyRotation {
    fn default() -> Self {
        Self {
            interval: default_interval(),
            overlap: default_overlap(),
        }
    }
}

impl SecretBinding {
    /// The namespace of the Application that it refers to.
    pub fn application_namespace(&self) -> Option<String> {
        self.spec.application_ref.namespace.clone().or_else(|| self.namespace())
    }

    /// Directory of the files in the containers.
    pub fn mount_path(&self) -> String {
        let default = || format!("{MOUNT_ROOT}/{}", self.name_any());
        self.spec.mount_path.clone().unwrap_or_else(default)
    }
}

impl SecretBindingSpec {
    /// Size of the volume in bytes.
    pub fn size_limit(&self) -> Result<u64, ParseError> {
        parse_size(&self.size_limit)
    }

    pub fn refresh_interval(&self) -> Result<Duration, ParseError> {
        parse_duration(&self.refresh_interval)
    }
}

impl KeyRotation {
    pub fn interval(&self) -> Result<Duration, ParseError> {
        parse_duration(&self.interval)
    }

    pub fn overlap(&self) -> Result<Duration, ParseError> {
        parse_duration(&self.overlap)
    }
}
