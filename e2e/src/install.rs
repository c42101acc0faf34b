//! Installing the chart as a user would.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::settings::Settings;
use crate::tools::{Tools, fed, output};

pub const RELEASE: &str = "sealpod";
pub const NAMESPACE: &str = "sealpod";

/// Name of an object of the release: the chart's full name is that of the release.
pub fn object(component: &str) -> String {
    format!("{RELEASE}-{component}")
}

/// The chart of this checkout.
pub fn chart() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sealpod")
}

/// Installs the release, or brings the one that is there to this checkout's state, and waits until all of it is ready.
pub async fn install(tools: &Tools, settings: &Settings) -> Result<()> {
    clear_interrupted(tools).await?;
    create_namespace(tools).await?;
    let mut command = tools.helm([
        "upgrade",
        "--install",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "5m",
    ]);
    // The definitions stay when a release goes, and would belong to that one.
    command.arg("--take-ownership").arg(chart());
    for (key, value) in [("image.registry", &settings.registry), ("image.tag", &settings.tag)] {
        if let Some(value) = value {
            command.arg("--set-string").arg(format!("{key}={value}"));
        }
    }
    // What the procedures of docs/OPERATIONS.md expect.
    command.args(["--set-string", "apiServer.backup.url=file:///var/lib/sealpod/backups"]);
    if settings.hand_made_volume {
        command.args(["--set-string", "apiServer.persistence.storageClassName=-"]);
    }
    output(command).await.context("the chart cannot be installed")?;
    Ok(())
}

/// The release's namespace under the strictest standard, so that no part of the chart can need more.
async fn create_namespace(tools: &Tools) -> Result<()> {
    let namespace = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    });
    // With a manager of its own it leaves the labels of others, such as the demo's.
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=sealpod-e2e",
        "--filename=-",
    ];
    let apply = tools.kubectl(apply);
    fed(apply, namespace.to_string().as_bytes()).await?;
    Ok(())
}

/// A helm that was killed leaves its release pending, and every later one would refuse to touch it.
async fn clear_interrupted(tools: &Tools) -> Result<()> {
    #[derive(Deserialize)]
    struct Release {
        name: String,
        status: String,
    }
    let list = output(tools.helm(["list", "--namespace", NAMESPACE, "--output", "json"])).await?;
    let releases: Vec<Release> = serde_json::from_slice(&list).context("helm prints a list of releases")?;
    let Some(release) = releases.into_iter().find(|release| release.name == RELEASE) else {
        return Ok(());
    };
    match release.status.as_str() {
        "pending-install" | "uninstalling" => {
            output(tools.helm(["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"])).await?;
        }
        "pending-upgrade" | "pending-rollback" => {
            output(tools.helm(["rollback", RELEASE, "--namespace", NAMESPACE])).await?;
        }
        _ => {}
    }
    Ok(())
}
