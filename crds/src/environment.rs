use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use sealpod_core::names::{NameError, Slug};
use serde::{Deserialize, Serialize};

use crate::common::{ApplicationReference, DeletionPolicy, SLUG_PATTERN, conditions_schema, is_slug};

/// What the environment shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "sealpod.dev",
    version = "v1alpha1",
    kind = "Environment",
    plural = "environments",
    shortname = "senv",
    category = "sealpod",
    namespaced,
    status = "EnvironmentStatus",
    derive = "PartialEq",
    doc = "An environment of an Application, such as `prod`: it holds one value of each of the application's secrets.",
    validation = Rule::new(concat!("has(self.spec.slug) || (self.metadata.name.size() <= 100 && ", is_slug!("self.metadata.name"), ")"))
        .message("metadata.name is no slug (a-z, 0-9 and single hyphens inside): set spec.slug"),
    printcolumn(name = "Application", type_ = "string", json_path = ".spec.applicationRef.name"),
    printcolumn(name = "Slug", type_ = "string", json_path = ".status.slug", description = "Name on the server"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.slug) == has(oldSelf.slug) && (!has(self.slug) || self.slug == oldSelf.slug)")
    .message("spec.slug cannot change: it is the name under which the server keeps the environment"))]
#[x_kube(validation = Rule::new("self.applicationRef.name == oldSelf.applicationRef.name")
    .message("spec.applicationRef cannot change: make a new Environment"))]
pub struct EnvironmentSpec {
    /// The Application that the environment belongs to, in the same namespace.
    pub application_ref: ApplicationReference,

    /// Name for people; free text. Default: `metadata.name`, and then whatever an administrator changes it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub display_name: Option<String>,

    /// Name on the server, in paths and in access rules. Default: `metadata.name`. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = SLUG_PATTERN))]
    pub slug: Option<String>,

    /// Settings that are no secrets, by key. Others of the environment are left as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 500))]
    pub configurations: BTreeMap<String, String>,

    /// What becomes of the server's environment when this object is deleted. `Retain`: it stays, marked as released;
    /// making this object again then needs an administrator's consent. `Delete`: it is deleted with all its values.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What the controller last saw. For display: nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Name on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,

    /// Id on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,

    /// `Ready`: the server has the environment as the spec says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

impl Environment {
    /// The environment's name on the server.
    pub fn slug(&self) -> Result<Slug, NameError> {
        let name = self.metadata.name.as_ref();
        self.spec.slug.as_ref().or(name).map_or("", String::as_str).parse()
    }
}
