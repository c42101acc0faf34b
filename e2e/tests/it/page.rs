//! The commands for Kubernetes of docs/OPERATIONS.md, run as a person would.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use sealpod_e2e::Sandbox;
use sealpod_e2e::install::NAMESPACE;
use tokio::process::Command;

const PAGE: &str = include_str!("../../../docs/OPERATIONS.md");
/// What the others need first.
const FIRST: &str = "On Kubernetes";
/// The number of the copy that the way back goes to.
pub const COPY: &str = "1";

/// What the commands under this heading print, behind all those of [`FIRST`].
pub async fn run(t: &Sandbox, heading: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let all = [&blocks(FIRST)?[1..], &blocks(heading)?].concat();
    run_in(t, folder.path(), heading, &all.concat()).await
}

/// What these commands of `heading` print where somebody works who has the files of the folder, and the tools in its `bin`; of
/// [`FIRST`] behind what others need alone, so that there need be no server.
pub async fn run_in(t: &Sandbox, folder: &Path, heading: &str, commands: &str) -> Result<String> {
    let kubectl = t.tools().kubectl(["version"]);
    let kubectl = kubectl.as_std();
    let tools = Path::new(kubectl.get_program()).parent().context("it is in a folder")?;
    let mut script = Command::new("bash");
    let commands = format!("set -euo pipefail\n{}{commands}", blocks(FIRST)?[0]);
    script.args(["-c", &commands]).current_dir(folder);
    for (name, value) in kubectl.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let own = folder.join("bin");
    script.env("PATH", format!("{}:{}:{path}", own.display(), tools.display()));
    script.env("IMAGE", t.image()).env("OLD", COPY);
    script.kill_on_drop(true).stdin(Stdio::null());
    let ended = script.output().await?;
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    for pod in ["sealpod-volume", "sealpod-recovery"] {
        drop(pods.delete(pod, &DeleteParams::default()).await);
    }
    let (said, why) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    ensure!(ended.status.success(), "{heading}: {}\n{said}\n{why}", ended.status);
    Ok(said.into_owned())
}

/// The blocks under a heading.
pub fn blocks(heading: &str) -> Result<Vec<&'static str>> {
    let (_, section) = PAGE
        .split_once(&format!("\n## {heading}\n"))
        .with_context(|| format!("no heading {heading}"))?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let blocks = section.split("```bash\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|block| block.split("```").next()).collect();
    ensure!(!blocks.is_empty(), "no commands under {heading}");
    Ok(blocks)
}
