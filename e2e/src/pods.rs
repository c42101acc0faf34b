//! Pods as users write them, within the restricted Pod Security Standard.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use serde_json::{Value, json};

use crate::wait::eventually;

/// Long enough for a loaded machine, short enough for a person who waits.
pub const START: Duration = Duration::from_mins(2);

/// A container of an app. `user` is its uid and gid, which no other part shares.
pub fn container(name: &str, image: &str, user: u32, script: &str) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": user,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// A script that stays until it is told to go.
pub const SLEEP: &str = "trap 'exit 0' TERM; sleep 86400 & wait";

/// A pod template, for a pod or a Job: it asks for injection of the bindings named.
pub fn template(bindings: &str, containers: &[Value]) -> Value {
    json!({
        "metadata": {
            "labels": {"sealpod.dev/inject": "true"},
            "annotations": {"sealpod.dev/binding": bindings},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "containers": containers,
        },
    })
}

/// Pods of both shapes that keep the files fresh, by name and restart policy.
pub const POLICIES: [(&str, &str); 2] = [("lasts", "Always"), ("ends", "Never")];

/// A template of binding `db` for a pod of this restart policy, with one container `app`.
pub fn of_policy(policy: &str, image: &str, script: &str) -> Value {
    let mut template = template("db", &[container("app", image, 10_001, script)]);
    template["spec"]["restartPolicy"] = json!(policy);
    template
}

/// A pod of a template.
pub fn pod(name: &str, template: Value) -> Result<Pod> {
    let mut pod = template;
    pod["metadata"]["name"] = json!(name);
    serde_json::from_value(pod).context("the test's pod is a pod")
}

/// Fails unless every container is ready, with what they wait for.
pub fn ready(pod: &Pod) -> Result<()> {
    let status = pod.status.as_ref().context("the pod has no status yet")?;
    let conditions = status.conditions.iter().flatten();
    if conditions
        .clone()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    {
        return Ok(());
    }
    let all = status.init_container_statuses.iter().chain(&status.container_statuses);
    let doing: Vec<_> = all.flatten().map(state).collect();
    let unscheduled = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .filter_map(|condition| condition.message.as_deref());
    bail!(
        "phase {}; {}",
        status.phase.as_deref().unwrap_or("unknown"),
        doing
            .iter()
            .map(String::as_str)
            .chain(unscheduled)
            .collect::<Vec<_>>()
            .join("; ")
    )
}

/// What a container is doing.
fn state(container: &ContainerStatus) -> String {
    let state = container.state.as_ref();
    let name = &container.name;
    if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
        let (reason, message) = (waiting.reason.as_deref(), waiting.message.as_deref());
        return format!(
            "{name} waits: {} {}",
            reason.unwrap_or_default(),
            message.unwrap_or_default()
        );
    }
    if let Some(ended) = state.and_then(|state| state.terminated.as_ref()) {
        return format!("{name} ended with {}", ended.exit_code);
    }
    format!(
        "{name} runs, {}, restarted {}×",
        if container.ready { "ready" } else { "not ready" },
        container.restart_count
    )
}

/// Waits until the first init container runs, which of an injected pod is ours.
pub async fn until_ours_runs(pods: &Api<Pod>, name: &str) -> Result<()> {
    eventually(&format!("the sidecar of {name} to run"), START, async || {
        let status = pods.get(name).await?.status.context("no status")?;
        let first = status.init_container_statuses.into_iter().flatten().next();
        let state = first.and_then(|container| container.state);
        let state = state.context("no init container")?;
        ensure!(state.running.is_some(), "{state:?}");
        Ok(())
    })
    .await
}

/// How often any container was started again.
pub fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    let all = status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses));
    all.flatten().map(|container| container.restart_count).sum()
}

/// Names of its containers, init containers first.
pub fn containers(pod: &Pod) -> Vec<&str> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    all.map(|container| container.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_is_not_ready_says_what_it_waits_for() {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({"metadata": {}, "status": status})).unwrap();
        let waiting = pod(json!({
            "phase": "Pending",
            "initContainerStatuses": [{
                "name": "sealpod-init", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
            }],
        }));
        let said = ready(&waiting).unwrap_err().to_string();
        assert_eq!(said, "phase Pending; sealpod-init waits: ErrImagePull no such image");
        ready(&pod(json!({"conditions": [{"type": "Ready", "status": "True"}]}))).unwrap();
    }
}
