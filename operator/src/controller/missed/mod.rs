//! Pods that ask for injection and run without it: made while the webhook was not there, or labelled later.
//!
//! The watch of such pods brings metadata only, and the injector leaves an annotation on each pod that it has been at, so
//! one without it is looked at by name. Of all others nothing is kept.

mod judge;
mod run;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use judge::Evicted;
use kube::api::ObjectMeta;
use sealpod_core::kubernetes::annotations;
use tokio::sync::Notify;

pub use run::run;

/// What is done about them.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether they are evicted, so that their controllers make others.
    pub evict: bool,
    /// `host:port` of the webhook: nothing is evicted while it does not answer.
    pub injector: String,
    /// Namespaces whose pods the webhook never sees.
    pub excluded: Vec<String>,
}

/// Pods without injection, by UID.
#[derive(Debug, Default)]
pub struct Missed {
    pods: Mutex<HashMap<String, Pod>>,
    evicted: Mutex<Evicted>,
    suspected: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    /// Whether it has been looked at, counted and told.
    told: bool,
}

impl Missed {
    /// Takes note of a pod that asks for injection.
    pub fn saw(&self, pod: &ObjectMeta, options: &Options) {
        let Some(uid) = &pod.uid else { return };
        let namespace = pod.namespace.clone().unwrap_or_default();
        let injected = pod
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key(annotations::INJECTED));
        if injected {
            self.injected(pod);
        }
        if injected || pod.deletion_timestamp.is_some() || options.excluded.contains(&namespace) {
            self.pods().remove(uid);
            return;
        }
        let suspect = Pod {
            namespace,
            name: pod.name.clone().unwrap_or_default(),
            told: false,
        };
        self.pods().entry(uid.clone()).or_insert(suspect);
        self.suspected.notify_one();
    }

    fn injected(&self, pod: &ObjectMeta) {
        let mut owners = pod.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        if let (Some(controller), Some(made)) = (controller, &pod.creation_timestamp) {
            self.evicted().injected(&controller.uid, made.0);
        }
    }

    /// Those that were not looked at yet, or all.
    fn to_look_at(&self, all: bool) -> Vec<(String, Pod)> {
        let pods = self.pods();
        let wanted = pods.iter().filter(|(_, pod)| all || !pod.told);
        wanted.map(|(uid, pod)| (uid.clone(), pod.clone())).collect()
    }

    /// That it runs without injection; whether that is news.
    fn confirm(&self, uid: &str) -> bool {
        let mut pods = self.pods();
        pods.get_mut(uid)
            .is_some_and(|pod| !std::mem::replace(&mut pod.told, true))
    }

    fn forget(&self, uid: &str) {
        self.pods().remove(uid);
    }

    fn count(&self) -> usize {
        self.pods().values().filter(|pod| pod.told).count()
    }

    fn evicted(&self) -> MutexGuard<'_, Evicted> {
        // As below.
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<String, Pod>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
