//! Watches the secret's file from inside the app's container, through one long `kubectl exec`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::quickstart::{CONTAINER, DEPLOYMENT, NAMESPACE};
use super::tools::Tools;
use crate::process::{self, Failure};

/// Prints the hash of the file whenever it changes, never its content. It looks every 20 ms, so what is measured is
/// 10 ms too much on average. It ends with its input, so it never stays in the container.
const SCRIPT: &str = r#"
exec 3<&0
(cat <&3 >/dev/null; kill $$) 2>/dev/null &
while :; do
    sum=$(sha256sum "$1" 2>/dev/null) && [ "$sum" != "$last" ] && last=$sum && echo "${sum%% *}"
    sleep 0.02
done
"#;

/// How long a new value may take before something is wrong.
const PATIENCE: Duration = Duration::from_mins(1);

/// A watched file.
pub struct Watch {
    kubectl: Child,
    input: Option<ChildStdin>,
    seen: Receiver<(Instant, String)>,
    log: PathBuf,
}

impl Watch {
    pub fn open(tools: &Tools, file: &str) -> Result<Self> {
        let deployment = format!("deployment/{DEPLOYMENT}");
        let namespace = format!("--namespace={NAMESPACE}");
        let mut command = tools.kubectl(["exec", "--stdin", &deployment, &namespace, "--container", CONTAINER]);
        command.args(["--", "sh", "-c", SCRIPT, "sh", file]);
        Self::start(&mut command, tools.log("watch"))
    }

    fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(process::append_to(&log)?);
        let mut kubectl = command.spawn().context("cannot start kubectl exec")?;
        let input = kubectl.stdin.take();
        let lines = BufReader::new(kubectl.stdout.take().context("its output is a pipe")?).lines();
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            kubectl,
            input,
            seen,
            log,
        })
    }

    /// Waits until the file holds this value; when it did.
    pub fn until(&self, value: &str) -> Result<Instant> {
        let wanted = HEXLOWER.encode(&Sha256::digest(value));
        let begun = Instant::now();
        loop {
            match self.seen.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok((at, hash)) if hash == wanted => return Ok(at),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::new(format!(
                        "the value did not arrive in the app's file within {} s",
                        PATIENCE.as_secs()
                    ))
                    .advice(format!("ask the sidecar: kubectl --namespace {NAMESPACE} logs deployment/{DEPLOYMENT} --container sealpod"))
                    .into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new("`kubectl exec` in the app's container ended")
                        .log(&self.log)
                        .advice(
                            "the app's image needs sh, sleep and sha256sum; otherwise look whether the pod still runs",
                        )
                        .into());
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The script ends with its input; kubectl does then, or is told to.
        self.input.take();
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_seen_and_the_script_ends_with_its_input() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        // The script, run here instead of in a container.
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh"]).arg(&file);
        let mut watch = Watch::start(&mut shell, dir.path().join("log")).unwrap();
        std::fs::write(&file, "one").unwrap();
        watch.until("one").unwrap();
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        watch.until("two").unwrap();
        watch.input.take();
        let begun = Instant::now();
        while watch.kubectl.try_wait().unwrap().is_none() {
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "the script goes on without its input"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
