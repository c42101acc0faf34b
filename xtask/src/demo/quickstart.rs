//! The example that the demo shows: `examples/quickstart`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::release::{self, await_gone, await_workloads};
use super::tools::Tools;
use super::wait::{Seen, Wait, until};
use super::workloads::condition;
use crate::images;
use crate::process;
use crate::progress::Step;
use crate::workspace::Workspace;

// Names in the example's files; a test compares.
pub const NAMESPACE: &str = "sealpod-quickstart";
pub const APPLICATION: &str = "shop";
pub const ENVIRONMENT: &str = "prod";
pub const SECRET: &str = "database-password";
pub const DEPLOYMENT: &str = "shop";
pub const CONTAINER: &str = "app";
/// Label of the pods that the demo starts to measure.
pub const MEASURED: &str = "app.kubernetes.io/part-of=sealpod-demo";

const CONVERGES: Duration = Duration::from_mins(1);

/// Where the app reads the secret.
pub fn file() -> String {
    format!("{}/{APPLICATION}/{SECRET}", sealpod_core::kubernetes::MOUNT_ROOT)
}

pub fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("examples/quickstart")
}

/// Applies the files, as they are or with another image for the app.
pub fn apply(tools: &Tools, folder: &Path, app_image: Option<&str>, step: &Step) -> Result<()> {
    await_gone(tools, NAMESPACE, step)?;
    clear(tools)?;
    match app_image {
        None => {
            let folder = folder.display().to_string();
            process::capture(&mut tools.kubectl(["apply", "--filename", &folder]))?;
        }
        Some(image) => tools.apply(&with_image(documents(folder)?, image))?,
    }
    await_ready(tools, "application", step)
}

/// Removes the pods of an earlier run, so that every run shows a pod that starts.
fn clear(tools: &Tools) -> Result<()> {
    remove_measured(tools)?;
    let namespace = format!("--namespace={NAMESPACE}");
    let delete = [
        "delete",
        "deployment",
        DEPLOYMENT,
        &namespace,
        "--ignore-not-found",
        "--cascade=foreground",
    ];
    process::capture(&mut tools.kubectl(delete)).map(drop)
}

/// Removes the pods that were started to measure, without waiting for their end.
pub fn remove_measured(tools: &Tools) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    let delete = [
        "delete",
        "pods",
        "--selector",
        MEASURED,
        &namespace,
        "--ignore-not-found",
        "--wait=false",
    ];
    process::capture(&mut tools.kubectl(delete)).map(drop)
}

/// Waits until the app's pod is ready, which is when its file is there. The binding shows it a little later.
pub fn await_app(tools: &Tools, step: &Step) -> Result<()> {
    await_workloads(tools, NAMESPACE, step).map_err(|error| {
        let binding = tools.get(&["secretbinding", APPLICATION, "--namespace", NAMESPACE]);
        match binding.ok().flatten().as_ref().and_then(condition) {
            Some((false, why)) => error.context(format!("the SecretBinding {APPLICATION} is not Ready, {why}")),
            _ => error,
        }
    })
}

/// Waits until the object `shop` of a kind is Ready.
fn await_ready(tools: &Tools, kind: &str, step: &Step) -> Result<()> {
    let wait = Wait {
        what: format!("the {kind} {APPLICATION} to be Ready"),
        within: CONVERGES,
        advice: format!(
            "ask the controller: kubectl --namespace {} logs deployment/{}",
            release::NAMESPACE,
            release::object("controller")
        ),
    };
    until(step, &wait, || {
        let object = tools.get(&[kind, APPLICATION, "--namespace", NAMESPACE])?;
        Ok(match object.as_ref().and_then(condition) {
            Some((true, _)) => Seen::Reached(()),
            Some((false, why)) => Seen::NotYet(why),
            None => Seen::NotYet("the controller has not looked at it yet".to_string()),
        })
    })
}

/// What the app printed last.
pub fn last_log_line(tools: &Tools) -> Result<String> {
    let deployment = format!("deployment/{DEPLOYMENT}");
    let namespace = format!("--namespace={NAMESPACE}");
    let mut logs = tools.kubectl(["logs", &deployment, &namespace, "--container", CONTAINER, "--tail=1"]);
    Ok(process::capture(&mut logs)?.trim().to_string())
}

/// The app's only pod.
pub fn app_pod(tools: &Tools) -> Result<Value> {
    let pods = tools.list(&["pods", "--namespace", NAMESPACE, "--selector=app=shop"])?;
    let mut alive = pods
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    alive.next().context("the app's pod is there")
}

/// The objects of the example, in the order in which `kubectl apply` takes them.
fn documents(folder: &Path) -> Result<Vec<Value>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_yaml::from_str(&text).with_context(|| format!("{} is no YAML", file.display()))
    };
    files.iter().map(read).collect()
}

fn with_image(mut documents: Vec<Value>, image: &str) -> Value {
    for document in &mut documents {
        if document["kind"] == "Deployment" {
            document["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": documents})
}

/// The pod of the example's Deployment under another name, with or without injection; nothing else differs.
pub fn pod(folder: &Path, app_image: Option<&str>, name: &str, injected: bool) -> Result<Value> {
    let list = with_image(documents(folder)?, app_image.unwrap_or(images::APP_IMAGE));
    let items = list["items"].as_array().into_iter().flatten();
    let deployment = items.into_iter().find(|item| item["kind"] == "Deployment");
    let template = &deployment.context("the example has a Deployment")?["spec"]["template"];
    let (key, value) = MEASURED.split_once('=').unwrap_or_default();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {key: value}},
        "spec": template["spec"],
    });
    if injected {
        let label = sealpod_core::kubernetes::INJECT_LABEL;
        pod["metadata"]["labels"][label] = json!("true");
        pod["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
    }
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart")
    }

    #[test]
    fn the_names_are_those_of_the_example() {
        let all = documents(&example()).unwrap();
        let of_kind = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(of_kind("Namespace")["metadata"]["name"], NAMESPACE);
        assert_eq!(of_kind("Application")["metadata"]["name"], APPLICATION);
        assert!(of_kind("Application")["spec"]["slug"].is_null(), "the slug is the name");
        let binding = of_kind("SecretBinding");
        assert_eq!(binding["metadata"]["name"], APPLICATION);
        assert_eq!(binding["spec"]["environment"], ENVIRONMENT);
        assert_eq!(binding["spec"]["secrets"][0]["name"], SECRET);
        let deployment = of_kind("Deployment");
        assert_eq!(deployment["metadata"]["name"], DEPLOYMENT);
        let app = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(app["name"], CONTAINER);
        assert_eq!(app["image"], images::APP_IMAGE);
        assert!(app["args"][0].as_str().unwrap().contains(&file()));
    }

    #[test]
    fn another_image_replaces_the_apps_and_nothing_else() {
        let list = with_image(documents(&example()).unwrap(), "busybox");
        let text = list.to_string();
        assert!(text.contains("\"image\":\"busybox\"") && !text.contains(images::APP_IMAGE));
        assert_eq!(list["items"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn measured_pods_differ_in_the_injection_only() {
        let [mut injected, plain] = [true, false].map(|injected| pod(&example(), None, "p", injected).unwrap());
        assert_eq!(injected["metadata"]["labels"]["sealpod.dev/inject"], "true");
        assert_eq!(injected["metadata"]["annotations"]["sealpod.dev/binding"], APPLICATION);
        injected["metadata"].as_object_mut().unwrap().remove("annotations");
        injected["metadata"]["labels"]
            .as_object_mut()
            .unwrap()
            .remove("sealpod.dev/inject");
        assert_eq!(injected, plain);
    }
}
