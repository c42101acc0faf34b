//! `--down`: removes the demo, also one that was killed at any point.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::quickstart;
use super::release::{self, NAMESPACE, RELEASE, is_marked};
use super::tools::{self, Tools};
use crate::cluster::Cluster;
use crate::cluster::network::Subnet;
use crate::process::{self, Failure};
use crate::progress::{Progress, Step};
use crate::workspace::Workspace;

/// Our kinds, what depends on another one first.
const KINDS: [&str; 3] = ["secretbindings", "environments", "applications"];
const GROUP: &str = sealpod_core::kubernetes::GROUP;
/// How long the controller may take over finalizers before they are taken off by hand.
const FINALIZE: Duration = Duration::from_secs(30);

/// The local cluster goes with all that is in it.
pub fn local(workspace: &Workspace, subnet: Option<Subnet>, progress: &mut Progress) -> Result<()> {
    Cluster::open(workspace, subnet).down(progress)?;
    let _ = fs::remove_dir_all(tools::logs(workspace));
    Ok(())
}

/// Takes everything of the demo out of a cluster that stays.
pub fn existing(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let tools = Tools::from_path(workspace)?;
    tools.require_reachable()?;
    let namespace = tools.get(&["namespace", NAMESPACE])?;
    if namespace.as_ref().is_some_and(|namespace| !is_marked(namespace)) {
        return Err(Failure::new(format!(
            "the namespace {NAMESPACE} was not made by the demo; nothing is removed"
        ))
        .advice(format!(
            "if nobody uses its Sealpod: `kubectl label namespace {NAMESPACE} {mark}=true`, then again",
            mark = release::MARK
        ))
        .into());
    }
    let definitions = definitions(&tools)?;
    if namespace.is_none() && definitions.is_empty() && tools.get(&["namespace", quickstart::NAMESPACE])?.is_none() {
        progress.say("Nothing of the demo is in this cluster.");
        return Ok(());
    }
    if namespace.is_some() {
        require_no_other_users(&tools, &definitions)?;
    }
    progress.step(
        &format!("Deleting the example (namespace {})", quickstart::NAMESPACE),
        |step| {
            delete_objects(&tools, &definitions, step)?;
            delete_namespace(&tools, quickstart::NAMESPACE)
        },
    )?;
    progress.step(&format!("Uninstalling the release {RELEASE}"), |_| {
        if release::status(&tools).is_some() {
            let namespace = format!("--namespace={NAMESPACE}");
            process::capture(&mut tools.helm(["uninstall", RELEASE, &namespace, "--wait"]))?;
        }
        delete_left_over(&tools)
    })?;
    progress.step("Deleting the kinds of Sealpod (CustomResourceDefinitions)", |_| {
        definitions
            .iter()
            .try_for_each(|name| delete(&tools, &["customresourcedefinition", name]))
    })?;
    // The last: its label says that the demo is to be removed.
    progress.step(
        &format!("Deleting keys, certificates and data (namespace {NAMESPACE})"),
        |_| delete(&tools, &["namespace", NAMESPACE]),
    )?;
    let _ = fs::remove_dir_all(tools::logs(workspace));
    Ok(())
}

fn delete(tools: &Tools, what: &[&str]) -> Result<()> {
    let mut command = tools.kubectl(["delete", "--ignore-not-found", "--wait", "--timeout=120s"]);
    process::capture(command.args(what)).map(drop)
}

fn delete_namespace(tools: &Tools, namespace: &str) -> Result<()> {
    let Err(error) = delete(tools, &["namespace", namespace]) else {
        return Ok(());
    };
    match tools.get(&["namespace", namespace])? {
        Some(object) if object["metadata"]["deletionTimestamp"].is_string() => Err(Failure::new(format!(
            "the namespace {namespace} does not go: {}",
            release::held_by(&object)
        ))
        .advice("take away what holds it (a finalizer that is not Sealpod's), then run --down again")
        .into()),
        _ => Err(error),
    }
}

/// The definitions of our kinds that belong to the demo's release.
fn definitions(tools: &Tools) -> Result<Vec<String>> {
    let all = tools.list(&["customresourcedefinitions"])?;
    let ours = all
        .iter()
        .filter(|object| object["spec"]["group"] == GROUP && is_of_release(object));
    Ok(ours.filter_map(name).collect())
}

/// What helm writes on each object of a release.
fn is_of_release(object: &Value) -> bool {
    let annotations = &object["metadata"]["annotations"];
    annotations["meta.helm.sh/release-name"] == RELEASE && annotations["meta.helm.sh/release-namespace"] == NAMESPACE
}

fn name(object: &Value) -> Option<String> {
    object["metadata"]["name"].as_str().map(ToString::to_string)
}

/// Secrets of other namespaces would be lost with the server that keeps them: their owner decides.
fn require_no_other_users(tools: &Tools, definitions: &[String]) -> Result<()> {
    let mut others = BTreeSet::new();
    for definition in definitions {
        let found = tools.list(&[definition, "--all-namespaces"])?;
        let namespaces = found
            .iter()
            .filter_map(|object| object["metadata"]["namespace"].as_str());
        others.extend(
            namespaces
                .filter(|namespace| *namespace != quickstart::NAMESPACE)
                .map(ToString::to_string),
        );
    }
    if others.is_empty() {
        return Ok(());
    }
    let others: Vec<_> = others.into_iter().collect();
    Err(Failure::new(format!(
        "other namespaces keep secrets in the demo's server: {}",
        others.join(", ")
    ))
    .advice(format!(
        "delete what you no longer need, then again: kubectl -n {} delete sealpod --all",
        others[0]
    ))
    .into())
}

/// Deletes all of our objects while the controller is there to finish them; takes the finalizers off where it is not.
fn delete_objects(tools: &Tools, definitions: &[String], step: &Step) -> Result<()> {
    let resources: Vec<_> = KINDS.iter().map(|kind| format!("{kind}.{GROUP}")).collect();
    let there: Vec<_> = resources
        .iter()
        .filter(|resource| definitions.contains(resource))
        .cloned()
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let timeout = format!("--timeout={}s", FINALIZE.as_secs());
    let mut all = tools.kubectl([
        "delete",
        &there.join(","),
        "--all",
        "--all-namespaces",
        "--wait",
        &timeout,
    ]);
    if process::succeeds(&mut all) {
        return Ok(());
    }
    for resource in &there {
        for object in tools.list(&[resource, "--all-namespaces"])? {
            let (Some(name), Some(namespace)) = (name(&object), object["metadata"]["namespace"].as_str()) else {
                continue;
            };
            step.note(&format!(
                "the controller does not finish {resource} {namespace}/{name}: its finalizer is taken off"
            ));
            let patch = r#"--patch={"metadata":{"finalizers":null}}"#;
            let mut patch = tools.kubectl([
                "patch",
                resource,
                &name,
                "--namespace",
                namespace,
                "--type=merge",
                patch,
            ]);
            // One that has just gone by itself is as good.
            let _ = process::succeeds(&mut patch);
        }
    }
    Ok(())
}

/// What a release whose record was lost leaves outside of its namespace.
fn delete_left_over(tools: &Tools) -> Result<()> {
    for kind in ["mutatingwebhookconfigurations", "clusterrolebindings", "clusterroles"] {
        for object in tools.list(&[kind])?.iter().filter(|object| is_of_release(object)) {
            if let Some(name) = name(object) {
                delete(tools, &[kind, &name])?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_objects_of_our_release_are_ours() {
        let object = |release: &str, namespace: &str| {
            json!({"metadata": {"annotations": {
                "meta.helm.sh/release-name": release, "meta.helm.sh/release-namespace": namespace}}})
        };
        assert!(is_of_release(&object(RELEASE, NAMESPACE)));
        assert!(!is_of_release(&object(RELEASE, "production")));
        assert!(!is_of_release(&object("vault", NAMESPACE)));
        assert!(!is_of_release(&json!({"metadata": {}})));
    }

    #[test]
    fn the_kinds_are_all_that_have_a_definition() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sealpod/templates/crds");
        let files = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = files
            .map(|file| file.path().file_stem().unwrap().display().to_string())
            .collect();
        let mut kinds = KINDS.map(String::from).to_vec();
        names.sort();
        kinds.sort();
        assert_eq!(names, kinds);
    }
}
