//! `spec.kubernetesSecret`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::templates_together;
use crate::common::{DeletionPolicy, NAME_PATTERN};

/// A Secret of Kubernetes with the binding's values. Whoever may read Secrets of the namespace, or etcd, reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesSecret {
    /// Name of the Secret, in the binding's namespace. One that exists and is not of this binding is left alone.
    #[x_kube(validation = Rule::new("!self.endsWith('-sealpod-key')")
        .message("name must not end with -sealpod-key: such are the Secrets with the keys of bindings"))]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Type of the Secret. It cannot change without the Secret being made anew.
    #[serde(default, rename = "type")]
    pub type_: KubernetesSecretType,

    /// Labels of the Secret, beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the Secret, beside ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 65536}))]
    pub annotations: BTreeMap<String, String>,

    /// The entries of the Secret. Absent: each secret that the binding names, under its own name. Their templates have 262144
    /// characters together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key"]))]
    #[x_kube(validation = templates_together())]
    pub data: Option<Vec<KubernetesSecretEntry>>,

    /// What becomes of the Secret when the binding is deleted, or names another one. `Retain`: it stays as it is.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// The types that may be made: none by which Kubernetes itself would act, such as service account tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KubernetesSecretType {
    #[default]
    Opaque,
    #[serde(rename = "kubernetes.io/tls")]
    Tls,
    #[serde(rename = "kubernetes.io/dockerconfigjson")]
    DockerConfigJson,
    #[serde(rename = "kubernetes.io/basic-auth")]
    BasicAuth,
    #[serde(rename = "kubernetes.io/ssh-auth")]
    SshAuth,
}

impl KubernetesSecretType {
    /// The `type` of the Secret.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opaque => "Opaque",
            Self::Tls => "kubernetes.io/tls",
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::BasicAuth => "kubernetes.io/basic-auth",
            Self::SshAuth => "kubernetes.io/ssh-auth",
        }
    }
}

/// One entry of the Secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secret) != has(self.template)").message("give either secret or template"))]
pub struct KubernetesSecretEntry {
    /// Key in the Secret's `data`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,

    /// Name of a secret that the binding names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub secret: Option<String>,

    /// A MiniJinja template, as in `spec.files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub template: Option<String>,
}
