use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use sealpod_core::names::{NameError, Slug};
use serde::{Deserialize, Serialize};

use crate::common::{DeletionPolicy, NAME_PATTERN, SLUG_PATTERN, conditions_schema, is_slug, selector_schema};

/// What the application shall be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "sealpod.dev",
    version = "v1alpha1",
    kind = "Application",
    plural = "applications",
    shortname = "app",
    category = "sealpod",
    namespaced,
    status = "ApplicationStatus",
    derive = "PartialEq",
    doc = "An application of the Sealpod server: the owner of secrets. Its environments hold one value of each secret; SecretBindings deliver them to pods.",
    validation = Rule::new(concat!("has(self.spec.slug) || (self.metadata.name.size() <= 200 && ", is_slug!("self.metadata.name"), ")"))
        .message("metadata.name is no slug (a-z, 0-9 and single hyphens inside): set spec.slug"),
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
    .message("spec.slug cannot change: it is the name under which the server keeps the application"))]
pub struct ApplicationSpec {
    /// Name for people; free text. Default: `metadata.name`, and then whatever an administrator changes it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub display_name: Option<String>,

    /// Name on the server, in paths and in access rules. Default: `metadata.name`. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = SLUG_PATTERN))]
    pub slug: Option<String>,

    /// What the application is; free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub description: Option<String>,

    /// Environments that the server shall have, a short form of Environment objects. The server makes `local` by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(e, self.exists_one(f, (has(f.slug) ? f.slug : f.name) == (has(e.slug) ? e.slug : e.name)))")
        .message("two environments have the same slug"))]
    pub environments: Vec<ApplicationEnvironment>,

    /// Which namespaces may have SecretBindings to this Application.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,

    /// Secret of this namespace that the application's own key is written to, as `api-key`. The key reads everything of
    /// the application. A new value of the annotation `sealpod.dev/rotate-key` replaces it. Absent: nobody gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME_PATTERN))]
    pub api_key_secret_name: Option<String>,

    /// Take over an application that the server has already. Only with an administrator's consent there: the message of
    /// the condition says how it is given.
    #[serde(default)]
    pub adopt: bool,

    /// What becomes of the server's application when this object is deleted. `Retain`: it stays, marked as released;
    /// making this object again then needs `adopt` and an administrator's consent. `Delete`: it is deleted with all its
    /// secrets. Environments that are taken out of `environments` are treated likewise.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// An environment of an application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(concat!("has(self.slug) || ", is_slug!("self.name")))
    .message("name is no slug (a-z, 0-9 and single hyphens inside): set slug"))]
pub struct ApplicationEnvironment {
    /// Name for people; free text.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,

    /// Name on the server. Default: `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = SLUG_PATTERN))]
    pub slug: Option<String>,

    /// Settings that are no secrets, by key. Others of the environment are left as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 500))]
    pub configurations: BTreeMap<String, String>,
}

/// The namespaces whose SecretBindings are admitted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.from) && self.from == 'Selector') == has(self.selector)")
    .message("selector goes with from: Selector, and with nothing else"))]
pub struct AllowedNamespaces {
    /// `Same`: this one. `All`: every one. `Selector`: this one, and those whose labels match.
    #[serde(default)]
    pub from: NamespacesFrom,

    /// Labels of namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NamespacesFrom {
    #[default]
    Same,
    All,
    Selector,
}

impl ApplicationEnvironment {
    pub fn slug(&self) -> Result<Slug, NameError> {
        self.slug.as_ref().unwrap_or(&self.name).parse()
    }
}

/// What the controller last saw. For display: nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Name on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,

    /// Id on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,

    /// Slugs of all environments on the server, also of those that this object did not make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub environments: Vec<String>,

    /// Secret of this namespace that holds the application's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_name: Option<String>,

    /// `Ready`: the server has the application and its environments as the spec says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

impl Application {
    /// The application's name on the server.
    pub fn slug(&self) -> Result<Slug, NameError> {
        let name = self.metadata.name.as_ref();
        self.spec.slug.as_ref().or(name).map_or("", String::as_str).parse()
    }
}
