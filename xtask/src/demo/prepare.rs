//! Everything before the first word to the product: a cluster, and images that its nodes have.

use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use super::options::{Existing, Source};
use super::release::{self, Chart};
use super::tools::Tools;
use crate::cluster::Cluster;
use crate::cluster::network::Subnet;
use crate::images::{self, Images};
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// The claim of the api-server, for which the local cluster has no provisioner.
const CLAIM: &str = "sealpod/data-sealpod-api-server-0";

/// The stage that the demo plays on.
#[derive(Debug)]
pub struct Stage {
    pub tools: Tools,
    pub chart: Chart,
    /// `None`: the one that the example names.
    pub app_image: Option<String>,
    /// `None`: they come from a registry, so their files are not here.
    pub images: Option<Images>,
    /// Version of Kubernetes.
    pub kubernetes: String,
    /// The flags that also `--down` needs.
    pub flags: &'static str,
}

/// The local cluster, and images built from this checkout.
pub fn local(workspace: &Workspace, subnet: Option<Subnet>, progress: &mut Progress) -> Result<Stage> {
    let cluster = Cluster::open(workspace, subnet);
    cluster.up(workspace, progress)?;
    let images = images::build(workspace, &workspace.target.join("images"), progress)?;
    progress.step("Loading the images", |_| images.load(&cluster))?;
    cluster.create_volume(&CLAIM.parse()?, "1Gi")?;
    let tools = Tools::local(&cluster, workspace);
    let mut arguments = image_arguments(images::REGISTRY, Some(&images.tag));
    arguments.push("--set-string=apiServer.persistence.storageClassName=-".to_string());
    // The cluster is ours: what another release left in it is no one's.
    arguments.push("--take-ownership".to_string());
    Ok(Stage {
        kubernetes: tools.require_reachable()?,
        tools,
        chart: Chart::new(workspace, arguments),
        app_image: None,
        images: Some(images),
        flags: "",
    })
}

/// The cluster of `KUBECONFIG`, with images as the flags say.
pub fn existing(workspace: &Workspace, existing: Existing, progress: &mut Progress) -> Result<Stage> {
    let tools = Tools::from_path(workspace)?;
    let kubernetes = progress.step("Asking the cluster of KUBECONFIG", |step| {
        let version = tools.require_reachable()?;
        let context = process::capture(&mut tools.kubectl(["config", "current-context"]))?;
        step.note(&format!("context {}, Kubernetes {version}", context.trim()));
        release::require_ours(&tools)?;
        require_volume(&tools, &existing.values)?;
        Ok(version)
    })?;
    let (mut arguments, images) = match existing.source {
        Source::Registry { registry, tag } => (image_arguments(&registry, tag.as_deref()), None),
        Source::Archives { command, dir } => {
            let images = match dir {
                Some(dir) => images::open(&dir)?,
                None => images::build(workspace, &workspace.target.join("images"), progress)?,
            };
            progress.step("Loading the images", |_| load(&images, &command))?;
            let registry = images::REGISTRY;
            (image_arguments(registry, Some(&images.tag)), Some(images))
        }
    };
    arguments.extend(existing.values.iter().map(|value| format!("--set={value}")));
    Ok(Stage {
        tools,
        chart: Chart::new(workspace, arguments),
        app_image: Some(existing.app_image),
        images,
        kubernetes,
        flags: " --existing",
    })
}

/// Fails when the api-server's claim would wait for ever, because nothing in the cluster makes volumes by default.
fn require_volume(tools: &Tools, values: &[String]) -> Result<()> {
    let told = values.iter().any(|value| value.contains("apiServer.persistence."));
    let (namespace, claim) = CLAIM.split_once('/').unwrap_or_default();
    if told
        || tools
            .get(&["persistentvolumeclaim", claim, "--namespace", namespace])?
            .is_some()
    {
        return Ok(());
    }
    let classes = tools.list(&["storageclasses"])?;
    if classes.iter().any(is_default) {
        return Ok(());
    }
    let names: Vec<_> = classes
        .iter()
        .filter_map(|class| class["metadata"]["name"].as_str())
        .collect();
    let way = match names.first() {
        Some(first) => format!(
            "name one of {}: --set apiServer.persistence.storageClassName={first}",
            names.join(", ")
        ),
        None => {
            "try without a volume: --set apiServer.persistence.enabled=false (the secrets go with the server's pod)"
                .to_string()
        }
    };
    Err(
        Failure::new("the cluster has no default StorageClass, so the api-server would wait for its volume for ever")
            .advice(way)
            .into(),
    )
}

fn is_default(class: &Value) -> bool {
    class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
}

fn image_arguments(registry: &str, tag: Option<&str>) -> Vec<String> {
    let registry = format!("--set-string=image.registry={registry}");
    let tag = tag.map(|tag| format!("--set-string=image.tag={tag}"));
    std::iter::once(registry).chain(tag).collect()
}

/// Runs the user's command once for each archive.
fn load(images: &Images, command: &str) -> Result<()> {
    for image in &images.images {
        // The path reaches the shell as a parameter, so nothing in it is taken for shell code.
        let script = command.replace("{}", "\"$1\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh"]).arg(&image.archive);
        process::capture(&mut shell).map_err(|error| {
            let summary = format!("the archive {} could not be loaded: {error}", image.archive.display());
            Failure::new(summary).advice(format!(
                "try it by hand: {}",
                command.replace("{}", &image.archive.display().to_string())
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::BuiltImage;

    #[test]
    fn the_chart_is_told_the_registry_and_a_tag_if_there_is_one() {
        let both = ["--set-string=image.registry=ghcr.io/me", "--set-string=image.tag=v1"];
        assert_eq!(image_arguments("ghcr.io/me", Some("v1")), both);
        assert_eq!(image_arguments("ghcr.io/me", None), both[..1]);
    }

    #[test]
    fn a_storage_class_is_the_default_by_its_annotation() {
        let class = |value: &str| serde_json::json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": value}}});
        assert!(is_default(&class("true")));
        assert!(!is_default(&class("false")));
        assert!(!is_default(&serde_json::json!({"metadata": {"name": "fast"}})));
    }

    #[test]
    fn the_load_command_runs_for_each_archive_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let image = |name: &str| BuiltImage {
            reference: format!("r/{name}:t"),
            archive: dir.path().join(name),
            unpacked: 1,
        };
        let images = Images {
            tag: "t".into(),
            images: vec![image("a b.tar"), image("$(c).tar")],
        };
        let list = dir.path().join("list");
        load(&images, &format!("echo {{}} >> '{}'", list.display())).unwrap();
        let loaded = std::fs::read_to_string(&list).unwrap();
        assert!(
            loaded.contains("/a b.tar\n") && loaded.contains("/$(c).tar\n"),
            "{loaded}"
        );
        let error = load(&images, "echo no such node >&2; false {}")
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such node") && error.contains("a b.tar"), "{error}");
    }
}
