//! What is wrong with a pod, and whether to evict it: pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sealpod_core::kubernetes::{INIT_CONTAINER, INJECT_LABEL, SIDECAR_CONTAINER, annotations};
use serde_json::Value;

use super::{NEW, is_meant};
use crate::injector::{Binding, Pod, select};

/// A pod that runs without what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Without {
    /// UID of the controller that makes another one when it goes; none where none does, or where its end would count as
    /// a failure.
    pub controller: Option<String>,
}

/// Nothing where all is well, and of a mirror pod, whose next one is made of the same file.
pub fn judge(pod: &Value) -> Option<Without> {
    if is_injected(pod) || !asks(pod) || Pod(pod).is_mirror() {
        return None;
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice);
    let controller = owners
        .unwrap_or_default()
        .iter()
        .find(|owner| owner["controller"] == true);
    Some(Without {
        controller: controller
            .filter(|_| Pod(pod).runs_for_ever())
            .and_then(|owner| owner["uid"].as_str())
            .map(str::to_owned),
    })
}

fn is_injected(pod: &Value) -> bool {
    let ours = |name: &str| name == SIDECAR_CONTAINER || name == INIT_CONTAINER;
    Pod(pod).all_containers().any(|container| ours(container.name()))
}

/// Whether it asks for injection, and goes on.
fn asks(pod: &Value) -> bool {
    goes_on(pod) && Pod(pod).label(INJECT_LABEL) == Some("true")
}

fn goes_on(pod: &Value) -> bool {
    let ended = ["Succeeded", "Failed"]
        .iter()
        .any(|phase| pod["status"]["phase"] == *phase);
    !ended && pod["metadata"]["deletionTimestamp"].is_null()
}

/// What its label says instead of `true`, where that has kept it from being injected: a label may be changed later.
pub fn mislabelled(pod: &Value) -> Option<&str> {
    let value = Pod(pod).label(INJECT_LABEL).filter(|value| is_meant(value))?;
    (value != "true" && goes_on(pod) && !is_injected(pod)).then_some(value)
}

/// The bindings that an injected pod which names none would get if it were made now, and has not; `bindings` are all of
/// its namespace, in order of their names.
pub fn lacks(pod: &Value, namespace: &str, bindings: &[Arc<Binding>]) -> Vec<String> {
    let view = Pod(pod);
    let Some(had) = view.annotation(annotations::INJECTED).filter(|_| asks(pod)) else {
        return vec![];
    };
    if view.annotation(annotations::BINDING).is_some() {
        return vec![];
    }
    let has = |binding: &&Binding| had.split(',').any(|name| name.trim() == binding.name);
    let chosen = select(view, namespace, bindings).unwrap_or_default();
    let lacking = chosen.into_iter().filter(|binding| !has(binding));
    lacking.map(|binding| binding.name.clone()).collect()
}

/// For how long a controller is taken to make no better ones.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// When a pod of each controller was evicted, until that is seen to have helped.
#[derive(Debug, Default)]
pub struct Evicted(HashMap<String, Timestamp>);

impl Evicted {
    /// Whether it may help. Of a controller one pod goes, and the others when the next was seen with injection: else what
    /// refuses that one, or makes it as the one before, would cost the controller every pod that it has. What is in the way
    /// may pass, so after a while another one goes.
    pub fn helps(&self, pod: &Without, now: Timestamp) -> bool {
        let Some(controller) = &pod.controller else {
            return false;
        };
        self.0.get(controller).is_none_or(|at| is_over(*at, now))
    }

    pub fn note(&mut self, pod: &Without, now: Timestamp) {
        self.0.retain(|_, at| !is_over(*at, now));
        if let Some(controller) = &pod.controller {
            self.0.entry(controller.clone()).or_insert(now);
        }
    }

    /// A pod of this controller has what it asks for. One that was made before says nothing of the next, unless it was a
    /// moment before: times of pods are in whole seconds, and of another clock.
    pub fn injected(&mut self, controller: &str, made: Timestamp) {
        if self.0.get(controller).is_some_and(|at| made.duration_since(*at) > -NEW) {
            self.0.remove(controller);
        }
    }
}

fn is_over(at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(at).abs() >= REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(edit: impl Fn(&mut Value)) -> Value {
        let mut pod = json!({
            "metadata": {
                "name": "app-1", "uid": "u", "labels": {"sealpod.dev/inject": "true"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"kind": "ReplicaSet", "name": "app", "uid": "rs", "controller": true}],
            },
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running"},
        });
        edit(&mut pod);
        pod
    }

    #[test]
    fn a_pod_without_our_container_was_missed() {
        let without = judge(&pod(|_| {})).unwrap();
        assert_eq!(without.controller.as_deref(), Some("rs"));
        let pending = pod(|pod| pod["status"]["phase"] = json!("Pending"));
        assert!(judge(&pending).is_some());
    }

    #[test]
    fn what_is_injected_or_over_or_does_not_ask_was_not() {
        let fine = |edit: &dyn Fn(&mut Value)| assert_eq!(judge(&pod(edit)), None);
        fine(&|pod| pod["spec"]["containers"] = json!([{"name": "app"}, {"name": "sealpod"}]));
        fine(&|pod| pod["spec"]["initContainers"] = json!([{"name": "sealpod-init"}]));
        fine(&|pod| pod["spec"]["initContainers"] = json!([{"name": "sealpod"}]));
        fine(&|pod| pod["status"]["phase"] = json!("Succeeded"));
        fine(&|pod| pod["status"]["phase"] = json!("Failed"));
        fine(&|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        fine(&|pod| pod["metadata"]["labels"] = json!({}));
        // The kubelet makes it again of the file that it is made of.
        fine(&|pod| {
            pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "f00d"});
            pod["metadata"]["ownerReferences"][0]["kind"] = json!("Node");
        });
    }

    #[test]
    fn only_what_its_controller_makes_again_is_evicted() {
        let evictable =
            |edit: &dyn Fn(&mut Value)| Evicted::default().helps(&judge(&pod(edit)).unwrap(), Timestamp::UNIX_EPOCH);
        assert!(evictable(&|_| {}));
        assert!(!evictable(&|pod| pod["metadata"]["ownerReferences"] = json!(null)));
        assert!(!evictable(
            &|pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false)
        ));
        // A Job counts it as a failure.
        assert!(!evictable(&|pod| pod["spec"]["restartPolicy"] = json!("Never")));
        assert!(!evictable(&|pod| pod["spec"]["restartPolicy"] = json!("OnFailure")));
    }

    fn made(time: &str) -> Without {
        judge(&pod(|pod| pod["metadata"]["creationTimestamp"] = json!(time))).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_controller_whose_new_pods_are_no_better_loses_no_more_for_an_hour() {
        let (mut evicted, now) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        let (old, new) = (made("2026-01-01T00:00:00Z"), made("2026-01-02T00:00:01Z"));
        evicted.note(&old, now);
        assert!(!evicted.helps(&old, now), "its old siblings wait for the next");
        assert!(!evicted.helps(&new, at("2026-01-02T00:59:59Z")));
        assert!(!evicted.helps(&made("unknown"), now));
        let later = at("2026-01-02T01:00:00Z");
        assert!(evicted.helps(&new, later));
        evicted.note(&new, later);
        assert!(!evicted.helps(&made("2026-01-02T01:00:01Z"), later), "counted anew");
    }

    #[test]
    fn a_controller_whose_new_pods_are_injected_is_not_kept() {
        let (mut evicted, now) = (Evicted::default(), at("2026-01-02T00:00:00Z"));
        evicted.note(&made("2026-01-01T00:00:00Z"), now);
        let next = made("2026-01-02T00:10:00Z");
        evicted.injected("rs", at("2026-01-01T23:00:00Z"));
        assert!(!evicted.helps(&next, now), "an older pod says nothing of the next");
        evicted.injected("other", at("2026-01-02T00:05:00Z"));
        assert!(!evicted.helps(&next, now));
        evicted.injected("rs", at("2026-01-02T00:05:00Z"));
        assert!(evicted.helps(&next, now) && evicted.0.is_empty());
    }

    #[test]
    fn the_next_pod_is_known_though_its_time_has_no_fractions_and_is_of_another_clock() {
        for made in ["2026-01-02T00:00:00Z", "2026-01-01T23:59:57Z"] {
            let mut evicted = Evicted::default();
            let old = self::made("2026-01-01T00:00:00Z");
            evicted.note(&old, at("2026-01-02T00:00:00.9Z"));
            evicted.injected("rs", at(made));
            assert!(evicted.helps(&old, at("2026-01-02T00:00:01Z")), "{made}");
        }
    }

    #[test]
    fn of_controllers_that_lost_nothing_for_an_hour_nothing_is_kept() {
        let mut evicted = Evicted::default();
        for minute in 0..300 {
            let mut pod = made("2026-01-01T00:00:00Z");
            pod.controller = Some(minute.to_string());
            evicted.note(&pod, at("2026-01-02T00:00:00Z") + SignedDuration::from_mins(minute));
        }
        assert_eq!(evicted.0.len(), 60);
    }
}
