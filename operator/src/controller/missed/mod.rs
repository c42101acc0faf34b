//! Pods that ask for injection and run without it: made while the webhook was not there, or labelled later. And those that
//! named no binding and were made a moment before the injector knew of one that is for them.
//!
//! The watch of such pods brings metadata only, and the injector leaves an annotation on each pod that it has been at, so
//! one without it is looked at by name; and of the others a new one that named no binding, once when all that was applied
//! with it is known. One whose label says yes in another word than `true` is never seen by the webhook. Of
//! a controller that has lost a pod, its next ones are read by name until one is ready. Nothing else is kept.

mod evicted;
mod judge;
mod run;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use evicted::{Evicted, Next};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ObjectMeta;
use sealpod_core::kubernetes::{INJECT_LABEL, annotations};
use tokio::sync::Notify;

pub use run::run;

/// For how long a pod is new: what is applied in one go with it is there by then. The clocks of a cluster differ.
const NEW: SignedDuration = SignedDuration::from_mins(1);

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
    of: Suspicion,
    /// UID of what made it.
    controller: Option<String>,
}

/// What may be wrong with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspicion {
    /// It runs without injection.
    Without,
    /// It was injected, and lacks a binding.
    Partly,
    /// Its label does not say `true`.
    Mislabelled,
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
        let is_free = pod.deletion_timestamp.is_some() || options.excluded.contains(&namespace);
        let of = match pod.labels.as_ref().and_then(|labels| labels.get(INJECT_LABEL)) {
            _ if is_free => None,
            Some(value) if value != "true" => is_meant(value).then_some(Suspicion::Mislabelled),
            _ if injected => Some(Suspicion::Partly),
            _ => Some(Suspicion::Without),
        };
        let mut pods = self.pods();
        if pods.get(uid).is_some_and(|known| Some(known.of) != of) {
            pods.remove(uid);
        }
        let Some(of) = of else { return };
        if of == Suspicion::Partly && !may_lack(pod, Timestamp::now()) {
            return;
        }
        let suspect = Pod {
            namespace,
            name: pod.name.clone().unwrap_or_default(),
            told: false,
            of,
            controller: controller(pod).map(str::to_owned),
        };
        pods.entry(uid.clone()).or_insert(suspect);
        drop(pods);
        // What may lack a binding is looked at with all others, when that is known.
        if of != Suspicion::Partly {
            self.suspected.notify_one();
        }
    }

    fn injected(&self, pod: &ObjectMeta) {
        let (Some(controller), Some(made)) = (controller(pod), &pod.creation_timestamp) else {
            return;
        };
        let next = Next {
            uid: pod.uid.clone().unwrap_or_default(),
            namespace: pod.namespace.clone().unwrap_or_default(),
            name: pod.name.clone().unwrap_or_default(),
        };
        self.evicted().injected(controller, made.0, next);
    }

    /// UIDs of what has made pods without injection that are there.
    fn controllers(&self) -> HashSet<String> {
        let pods = self.pods();
        let without = pods.values().filter(|pod| pod.of == Suspicion::Without);
        without.filter_map(|pod| pod.controller.clone()).collect()
    }

    /// Those that were not looked at yet and need not wait, or all.
    fn to_look_at(&self, all: bool) -> Vec<(String, Pod)> {
        let pods = self.pods();
        let wanted = pods
            .iter()
            .filter(|(_, pod)| all || !(pod.told || pod.of == Suspicion::Partly));
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

fn controller(pod: &ObjectMeta) -> Option<&str> {
    let mut owners = pod.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true))?;
    Some(&controller.uid)
}

/// Whether a label of this value, which is not `true`, is meant to ask: all but those that plainly say no.
fn is_meant(value: &str) -> bool {
    const NO: [&str; 13] = [
        "", "false", "f", "no", "n", "off", "0", "disable", "disabled", "none", "never", "skip", "ignore",
    ];
    !NO.contains(&value.to_ascii_lowercase().as_str())
}

/// Whether it is new and took what there was.
fn may_lack(pod: &ObjectMeta, now: Timestamp) -> bool {
    let annotations = pod.annotations.iter();
    let names_them = annotations
        .flat_map(|all| all.keys())
        .any(|key| key == annotations::BINDING);
    let made = pod.creation_timestamp.as_ref();
    !names_them && made.is_some_and(|made| now.duration_since(made.0) < NEW)
}

#[cfg(test)]
mod tests;
