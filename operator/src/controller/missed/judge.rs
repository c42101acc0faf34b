//! What is wrong with a pod, and whether to evict it: pure.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use sealpod_core::kubernetes::{INIT_CONTAINER, INJECT_LABEL, SIDECAR_CONTAINER};
use serde_json::Value;

use crate::injector::Pod;

/// A pod that runs without what it asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Without {
    /// UID of the controller that makes another one when it goes; none where none does, or where its end would count as
    /// a failure.
    pub controller: Option<String>,
    pub made: Option<Timestamp>,
}

/// Nothing where all is well.
pub fn judge(pod: &Value) -> Option<Without> {
    let view = Pod(pod);
    let ended = ["Succeeded", "Failed"]
        .iter()
        .any(|phase| pod["status"]["phase"] == *phase);
    let going = !pod["metadata"]["deletionTimestamp"].is_null();
    let ours = |name: &str| name == SIDECAR_CONTAINER || name == INIT_CONTAINER;
    let injected = view.all_containers().any(|container| ours(container.name()));
    if ended || going || injected || view.label(INJECT_LABEL) != Some("true") {
        return None;
    }
    let owners = pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice);
    let controller = owners
        .unwrap_or_default()
        .iter()
        .find(|owner| owner["controller"] == true);
    let made = pod["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(|time| time.parse().ok());
    Some(Without {
        controller: controller
            .filter(|_| view.runs_for_ever())
            .and_then(|owner| owner["uid"].as_str())
            .map(str::to_owned),
        made,
    })
}

/// When the first pod of each controller was evicted.
#[derive(Debug, Default)]
pub struct Evicted(HashMap<String, Timestamp>);

impl Evicted {
    /// Whether it helps. A pod that was made after another of its controller was evicted, and again without injection,
    /// says that the next would be no better.
    pub fn helps(&self, pod: &Without) -> bool {
        let Some(controller) = &pod.controller else {
            return false;
        };
        match (self.0.get(controller), pod.made) {
            (None, _) => true,
            (Some(first), Some(made)) => made < *first,
            (Some(_), None) => false,
        }
    }

    pub fn note(&mut self, pod: &Without, now: Timestamp) {
        if let Some(controller) = &pod.controller {
            self.0.entry(controller.clone()).or_insert(now);
        }
    }
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
    }

    #[test]
    fn only_what_its_controller_makes_again_is_evicted() {
        let evictable = |edit: &dyn Fn(&mut Value)| Evicted::default().helps(&judge(&pod(edit)).unwrap());
        assert!(evictable(&|_| {}));
        assert!(!evictable(&|pod| pod["metadata"]["ownerReferences"] = json!(null)));
        assert!(!evictable(
            &|pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false)
        ));
        // A Job counts it as a failure.
        assert!(!evictable(&|pod| pod["spec"]["restartPolicy"] = json!("Never")));
        assert!(!evictable(&|pod| pod["spec"]["restartPolicy"] = json!("OnFailure")));
    }

    #[test]
    fn a_controller_whose_new_pods_are_no_better_loses_no_more() {
        let made = |time: &str| judge(&pod(|pod| pod["metadata"]["creationTimestamp"] = json!(time))).unwrap();
        let mut evicted = Evicted::default();
        let old = made("2026-01-01T00:00:00Z");
        evicted.note(&old, "2026-01-02T00:00:00Z".parse().unwrap());
        assert!(evicted.helps(&old), "its old siblings go too");
        assert!(!evicted.helps(&made("2026-01-02T00:00:01Z")));
        assert!(!evicted.helps(&made("unknown")));
    }
}
