//! What every reconciliation needs.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::Store;
use sealpod_core::kubernetes;
use sealpod_crds::Environment;

use super::binding::{Copies, Resolutions};
use super::echo::Echoes;
use super::events::Recorder;
use super::kept::KeptBinding;
use super::metrics::Metrics;
use super::missed::Missed;
use super::namespace;
use super::restart::Restarts;
use super::retries::Retries;
use super::scope::Scope;
use super::server::Server;
use crate::tolerant::Tolerant;

pub struct Context {
    /// For calls that end, and soon: watches have another.
    pub kube: Client,
    pub server: Server,
    /// Name of this cluster in everything that is made on the server.
    pub cluster_id: String,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub retries: Retries,
    /// All Environments, to find two that claim one slug.
    pub environments: Store<Tolerant<Environment>>,
    /// What the server last said about each binding's secrets, names and versions only.
    pub resolutions: Resolutions,
    /// What this process wrote itself.
    pub echoes: Arc<Echoes>,
    /// All SecretBindings, to find whose pods a workload makes.
    pub bindings: Store<KeptBinding>,
    /// The Secrets of `spec.kubernetesSecret`.
    pub copies: Copies,
    /// Workloads that may have to be rolled out.
    pub restarts: Restarts,
    /// Pods that run without injection.
    pub missed: Arc<Missed>,
    pub scope: Scope,
}

impl Context {
    /// The owner label of the Application of this name.
    pub fn application_owner(&self, namespace: &namespace::Observed, name: &str) -> String {
        kubernetes::owner(&self.cluster_id, &namespace.name, &namespace.uid, name)
    }

    /// The owner label of the Environment of this name. An Application may have the same name, and makes environments
    /// too, so the kind is part of it; no object's name can hold a slash.
    pub fn environment_owner(&self, namespace: &namespace::Observed, name: &str) -> String {
        self.application_owner(namespace, &format!("environments/{name}"))
    }

    /// The owner label of the service account of the SecretBinding of this name.
    pub fn binding_owner(&self, namespace: &namespace::Observed, name: &str) -> String {
        self.application_owner(namespace, &format!("secretbindings/{name}"))
    }
}
