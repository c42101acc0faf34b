//! kubectl of the cluster binary, with the cluster's kubeconfig.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::layout::Layout;
use crate::process::{self, Failure};

/// A kubectl command for this cluster.
pub fn kubectl(layout: &Layout, arguments: &[&str]) -> Command {
    let mut command = Command::new(layout.bin().join("kubectl"));
    command.args(arguments).env("KUBECONFIG", layout.kubeconfig());
    // The API server is at a private address of this machine: no proxy of its user leads there.
    for variable in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env_remove(variable);
    }
    command
}

/// `kubectl apply` of objects.
pub fn apply(layout: &Layout, objects: &serde_json::Value) -> Result<()> {
    use std::io::Write;
    let mut command = kubectl(
        layout,
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=xtask",
            "-f",
            "-",
        ],
    );
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    // It reads all of it before it complains about anything.
    stdin.write_all(objects.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`kubectl apply` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
    .into())
}
