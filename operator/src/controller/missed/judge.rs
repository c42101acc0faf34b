//! What is wrong with a pod, and whether to evict it: pure.

use std::sync::Arc;

use sealpod_core::kubernetes::{INIT_CONTAINER, INJECT_LABEL, SIDECAR_CONTAINER, annotations};
use serde_json::Value;

use super::is_meant;
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

/// Whether it has what it asks for, and serves: one that waits for its files says nothing of whether the next will.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice);
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    is_injected(pod) && goes_on(pod) && conditions.unwrap_or_default().iter().any(is_ready)
}

#[cfg(test)]
mod tests {
    use super::super::evicted::Evicted;
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
    fn a_pod_is_ready_with_our_containers_and_its_condition_alone() {
        let with = |containers: &Value, condition: &Value| {
            pod(|pod| {
                pod["spec"]["containers"] = containers.clone();
                pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}, condition]);
            })
        };
        let ours = json!([{"name": "app"}, {"name": "sealpod"}]);
        let ready = json!({"type": "Ready", "status": "True"});
        assert!(is_ready(&with(&ours, &ready)));
        assert!(!is_ready(&with(&json!([{"name": "app"}]), &ready)));
        assert!(!is_ready(&with(&ours, &json!({"type": "Ready", "status": "False"}))));
        let mut ending = with(&ours, &ready);
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(!is_ready(&ending) && !is_ready(&json!({})));
    }
}
