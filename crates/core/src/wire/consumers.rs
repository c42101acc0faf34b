//! Who runs which version: what sidecars say of their pods, and what is shown of it.
//!
//! Advisory: it is what callers say of themselves, it is kept in the server's memory only, and nothing that has to be safe
//! may be decided by it.
//!
//! A sidecar reports
//! - as soon as what its pod has loaded has changed;
//! - as soon as the server answers again after it was away: it may have been restarted, and then it has forgotten;
//! - else every [`REPORT_INTERVAL_SECONDS`], with some jitter.
//!
//! What is not said again for [`REPORT_AGE_SECONDS`] is forgotten, and so is a pod whose sidecar takes its report back as
//! it stops.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;

#[cfg(feature = "openapi")]
use crate::openapi as schemas;
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// How often a report is repeated while nothing changes, in seconds.
pub const REPORT_INTERVAL_SECONDS: u64 = 5 * 60;
/// How long a report is kept, in seconds: two may get lost on the way.
pub const REPORT_AGE_SECONDS: u64 = 3 * REPORT_INTERVAL_SECONDS;
/// Most keys of one report.
pub const MAX_REPORTED_KEYS: usize = 500;
/// Largest body of a report, in bytes.
pub const MAX_REPORT_BYTES: usize = 128 * 1024;

/// `POST …/bundle/report`: what a pod has loaded. Takes the place of what the same caller said of the same pod before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BundleReport {
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::PodName))]
    pub pod: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::NamespaceName))]
    pub namespace: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::NodeName))]
    pub node: String,
    /// Loaded versions by key; keys that the caller may not read are left out of what is kept.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::LoadedVersions))]
    pub versions: BTreeMap<String, u64>,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::AgentVersion))]
    pub agent_version: String,
}

/// An item of `GET …/consumers`: what one caller said of one pod. A pod with two sidecars' worth of bindings, each with a
/// key of its own, is two items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(ToSchema))]
pub struct Consumer {
    /// `<namespace>/<pod>/<id of the caller>`: what `after` takes.
    pub id: String,
    /// Who said so: `service_account`, `user` or `admin_key`.
    pub actor_type: String,
    /// Null for the admin key.
    pub actor_id: Option<Uuid>,
    pub actor_name: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::NamespaceName))]
    pub namespace: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::PodName))]
    pub pod: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::NodeName))]
    pub node: String,
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::AgentVersion))]
    pub agent_version: String,
    /// Loaded versions of the keys that both may read: who said so, and who asks.
    #[cfg_attr(feature = "openapi", schema(value_type = schemas::LoadedVersions))]
    pub versions: BTreeMap<String, u64>,
    /// The keys of `versions` whose loaded version is not the active one: older than it, or disabled, ended or deleted
    /// since. A version that is pinned on purpose counts too, once another one is active.
    pub stale: Vec<String>,
    /// When the pod was last heard of.
    pub last_seen_at: Time,
}
