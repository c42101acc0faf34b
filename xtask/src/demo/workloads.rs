//! Whether the Deployments, `StatefulSets` and pods of a namespace have come up, and what is wrong where not. Pure.

use std::time::Duration;

use serde_json::Value;

/// How a namespace's workloads are.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// What is not ready yet.
    Waiting(String),
    /// What will not get better by waiting, if it stays.
    Broken(Broken),
}

/// A pod that does not come up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub pod: String,
    /// The container to ask for its log.
    pub container: Option<String>,
    pub problem: Problem,
    /// In Kubernetes' words.
    pub said: String,
}

/// Why a pod does not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    Image,
    Crashes,
    Unschedulable,
}

impl Problem {
    /// How long it may pass by itself: a registry that was busy, a volume that is being made.
    pub fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Image | Self::Crashes => 20,
            Self::Unschedulable => 60,
        })
    }
}

/// The state of a list of Deployments, `StatefulSets` and pods.
pub fn state(objects: &[Value]) -> State {
    let of_kind = |kinds: &'static [&str]| {
        objects
            .iter()
            .filter(move |object| kinds.iter().any(|kind| object["kind"] == *kind))
    };
    let unready: Vec<_> = of_kind(&["Deployment", "StatefulSet"]).filter_map(unready).collect();
    if unready.is_empty() {
        return State::Ready;
    }
    match of_kind(&["Pod"]).find_map(broken) {
        Some(broken) => State::Broken(broken),
        None => State::Waiting(unready.join(", ")),
    }
}

/// What is missing until every replica is the current one and ready.
fn unready(workload: &Value) -> Option<String> {
    let (spec, status) = (&workload["spec"], &workload["status"]);
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let count = |field: &str| status[field].as_u64().unwrap_or(0);
    let observed = status["observedGeneration"].as_u64() >= workload["metadata"]["generation"].as_u64();
    let current = count("updatedReplicas").min(count("readyReplicas"));
    if observed && current == wanted && count("replicas") == wanted {
        return None;
    }
    let name = workload["metadata"]["name"].as_str().unwrap_or_default();
    Some(format!("{name} {}/{wanted}", if observed { current } else { 0 }))
}

fn broken(pod: &Value) -> Option<Broken> {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    let found = |container: Option<&Value>, problem, said: &Value| Broken {
        pod: pod["metadata"]["name"].as_str().unwrap_or_default().to_string(),
        container: container
            .and_then(|container| container["name"].as_str())
            .map(ToString::to_string),
        problem,
        said: said.as_str().unwrap_or_default().to_string(),
    };
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let containers = statuses
        .iter()
        .filter_map(|field| pod["status"][*field].as_array())
        .flatten();
    for container in containers {
        let waiting = &container["state"]["waiting"];
        let said = if waiting["message"].is_string() {
            &waiting["message"]
        } else {
            &waiting["reason"]
        };
        match waiting["reason"].as_str() {
            Some("ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull") => {
                return Some(found(Some(container), Problem::Image, said));
            }
            Some("CrashLoopBackOff" | "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError") => {
                return Some(found(Some(container), Problem::Crashes, said));
            }
            _ => {}
        }
    }
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let unschedulable = conditions
        .filter(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "Unschedulable")
        .map(|condition| found(None, Problem::Unschedulable, &condition["message"]));
    unschedulable.into_iter().next()
}

/// Status, reason and message of the condition `Ready`; `None` before the controller has seen this generation.
pub fn condition(object: &Value) -> Option<(bool, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    if ready["observedGeneration"] != object["metadata"]["generation"] {
        return None;
    }
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_string();
    Some((
        ready["status"] == "True",
        format!("{}: {}", text("reason"), text("message")),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(ready: u64) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "injector", "generation": 3}, "spec": {"replicas": 2},
            "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready}})
    }

    fn pod(status: &Value) -> Value {
        json!({"kind": "Pod", "metadata": {"name": "p"}, "status": status})
    }

    #[test]
    fn it_is_ready_when_every_replica_is_the_current_one_and_ready() {
        assert_eq!(state(&[deployment(2)]), State::Ready);
        assert_eq!(state(&[deployment(1)]), State::Waiting("injector 1/2".into()));
        let mut unseen = deployment(2);
        unseen["metadata"]["generation"] = json!(4);
        assert_eq!(state(&[unseen]), State::Waiting("injector 0/2".into()));
        let mut old_one_left = deployment(2);
        old_one_left["status"]["replicas"] = json!(3);
        assert_ne!(state(&[old_one_left]), State::Ready);
    }

    #[test]
    fn a_pod_without_its_image_is_named_with_the_reason() {
        let pod = pod(&json!({"initContainerStatuses": [{"name": "init", "state": {
            "waiting": {"reason": "ImagePullBackOff", "message": "no such image x"}}}]}));
        let State::Broken(broken) = state(&[deployment(1), pod.clone()]) else {
            panic!("not broken")
        };
        assert_eq!(
            (broken.problem, broken.container.as_deref()),
            (Problem::Image, Some("init"))
        );
        assert_eq!(broken.said, "no such image x");
        assert_eq!(
            state(&[deployment(2), pod]),
            State::Ready,
            "an old pod that no workload waits for"
        );
    }

    #[test]
    fn a_pod_that_waits_for_a_volume_is_unschedulable() {
        let pod = pod(&json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "pod has unbound immediate PersistentVolumeClaims"}]}));
        let State::Broken(broken) = state(&[deployment(1), pod]) else {
            panic!("not broken")
        };
        assert_eq!(broken.problem, Problem::Unschedulable);
    }

    #[test]
    fn a_condition_counts_only_for_the_generation_it_was_made_for() {
        let object = |observed: u64| {
            json!({"metadata": {"generation": 2}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "reason": "Missing", "message": "make it", "observedGeneration": observed}]}})
        };
        assert_eq!(condition(&object(2)), Some((false, "Missing: make it".into())));
        assert_eq!(condition(&object(1)), None);
        assert_eq!(condition(&json!({})), None);
    }
}
