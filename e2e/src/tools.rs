//! kubectl and helm as child processes, for what a person would do with them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::settings::Settings;

#[derive(Debug, Clone)]
pub struct Tools {
    bin: PathBuf,
    kubeconfig: PathBuf,
}

impl Tools {
    pub fn new(settings: &Settings) -> Self {
        Self {
            bin: settings.bin.clone(),
            kubeconfig: settings.kubeconfig.clone(),
        }
    }

    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.tool("kubectl", arguments)
    }

    pub fn helm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.tool("helm", arguments)
    }

    fn tool<S: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args(arguments);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.stdin(Stdio::null());
        // A test that ends early must not leave port-forwards and execs behind.
        command.kill_on_drop(true);
        command
    }
}

/// What the command prints; its failure with what it said.
pub async fn output(mut command: Command) -> Result<Vec<u8>> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = start(&mut command)?;
    succeeded(&command, child.wait_with_output().await?)
}

fn start(command: &mut Command) -> Result<Child> {
    let started = command.spawn();
    started.with_context(|| format!("cannot run {}", command.as_std().get_program().display()))
}

fn succeeded(command: &Command, output: Output) -> Result<Vec<u8>> {
    if !output.status.success() {
        bail!(
            "{:?} failed ({}): {}",
            command.as_std(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// As [`output`], with something to read.
pub async fn fed(mut command: Command, input: &[u8]) -> Result<Vec<u8>> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = start(&mut command)?;
    let mut stdin = child.stdin.take().context("its stdin is a pipe")?;
    stdin.write_all(input).await?;
    drop(stdin);
    succeeded(&command, child.wait_with_output().await?)
}

/// As [`output`], as text.
pub async fn text(command: Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command).await?).into_owned())
}
