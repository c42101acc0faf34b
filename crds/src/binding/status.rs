//! `status`.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::conditions_schema;

/// What the controller last saw. For display: nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretBindingStatus {
    /// `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Id of the binding's service account on the server.
    #[serde(default, rename = "serviceAccountID", skip_serializing_if = "Option::is_none")]
    pub service_account_id: Option<String>,

    /// Secret that holds the key with which pods read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_name: Option<String>,

    /// When the key was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_rotated_at: Option<Time>,

    /// The secrets that pods get, by name; at most 500 are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<SecretStatus>,

    /// When the clock alone changes next what pods get: a version begins to be valid, or ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_change_at: Option<Time>,

    /// What changes then, within the hour before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_change: Option<NextChange>,

    /// Running pods that have the files of this binding, as they report themselves to the server; those that died without
    /// saying so count for another 15 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,

    /// `Ready` sums up the others; `AccessGranted`: the binding's key may read what the spec names; `SecretsResolved`:
    /// all of it has an active version; `KeyFresh`: the key works and is not due for rotation; `KubernetesSecretSynced`: the Secret of
    /// `spec.kubernetesSecret` holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// A secret that the binding names or matches; never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Name of the secret.
    pub name: String,

    /// The version that pods get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,

    /// `Active`: pods get it. `Missing`: there is none. `Inactive`: it has versions, and none of them is active now. `Denied`: the key may not read it.
    /// `NeedsPath`: its name is no file name, so it is left out until `spec.secrets` gives it a path.
    pub state: SecretState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SecretState {
    Active,
    Missing,
    Denied,
    Inactive,
    NeedsPath,
}

/// Secrets of which the clock alone makes another version count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextChange {
    /// By name; at most three are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<SecretChange>,

    /// How many others were found; only the first 50 secrets that are there, and 50 that are missing, are looked at.
    #[serde(default)]
    pub more: i64,
}

impl NextChange {
    /// How long before a change it is shown, and told to whoever makes a pod.
    pub const AHEAD: Duration = Duration::from_hours(1);
    /// Most of `secrets`.
    pub const MOST_NAMED: usize = 3;
}

/// A secret that changes; never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretChange {
    /// Name of the secret.
    pub name: String,

    /// `Begins`: a newer version counts from then on. `Ends`: the one that pods get does not count any more.
    pub change: ChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChangeKind {
    Begins,
    Ends,
}

/// Pods by what they have loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// All that have the files.
    pub injected: i64,
    /// Those that have loaded the versions that are active now.
    pub up_to_date: i64,
    /// Those that have not, or that were made before a change which only new pods can follow.
    pub stale: i64,
}
