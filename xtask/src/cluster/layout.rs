//! The files of the cluster, all below `target/cluster`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Failure;

/// Longest path of a Unix socket that the kernel takes.
const SOCKET_PATH_MAX: usize = 107;

/// Names the variable of [`Layout::mark`].
pub const MARK: &str = "SEALPOD_CLUSTER_RUN";

/// `dir` outlives the cluster (the built binary, images); `run` is the running cluster and goes with it.
#[derive(Debug, Clone)]
pub struct Layout {
    pub dir: PathBuf,
}

impl Layout {
    pub fn new(target: &Path) -> Self {
        Self {
            dir: target.join("cluster"),
        }
    }

    /// Symlinks by the names of the components; kubectl and helm for use by hand are here too.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// For `KUBECONFIG`; exists while the cluster does.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Held by whoever changes the cluster.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// `NAME=value` in the environment of all that runs for this cluster, outside the pods.
    pub fn mark(&self) -> String {
        format!("{MARK}={}", self.run().display())
    }

    pub fn state(&self) -> PathBuf {
        self.run().join("state.json")
    }

    /// One file a component: the line of `/proc/PID/stat` that it wrote before it became the component.
    pub fn pids(&self) -> PathBuf {
        self.run().join("pids")
    }

    pub fn logs(&self) -> PathBuf {
        self.run().join("logs")
    }

    /// Logs of the cluster that was stopped last.
    pub fn last_logs(&self) -> PathBuf {
        self.dir.join("last-logs")
    }

    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    pub fn certs(&self) -> PathBuf {
        self.run().join("certs")
    }

    pub fn config(&self, file: &str) -> PathBuf {
        self.run().join("config").join(file)
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.run().join("containerd/containerd.sock")
    }

    pub fn containerd_state(&self) -> PathBuf {
        self.run().join("containerd/state")
    }

    /// Logs of the pods.
    pub fn pod_logs(&self) -> PathBuf {
        self.run().join("pods")
    }

    /// Folders that local `PersistentVolumes` stand for.
    pub fn volumes(&self) -> PathBuf {
        self.run().join("volumes")
    }

    /// The folders that components expect to exist.
    pub fn create_run(&self) -> Result<()> {
        let run = self.run();
        let socket = self.containerd_socket();
        // containerd adds ".ttrpc" for a second socket.
        if socket.as_os_str().len() + ".ttrpc".len() > SOCKET_PATH_MAX {
            let summary = format!(
                "the path of the checkout is too long for a Unix socket: {}",
                socket.display()
            );
            return Err(Failure::new(summary)
                .advice("set CARGO_TARGET_DIR to a shorter path, such as /tmp/sealpod")
                .into());
        }
        for dir in [
            self.pids(),
            self.logs(),
            self.certs(),
            run.join("config/cni"),
            run.join("containerd"),
            self.pod_logs(),
            self.volumes(),
        ] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(())
    }
}

/// Writes a whole file or leaves what was there: a killed process or a full disk never leaves half of it.
pub fn write_whole(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_too_deep_for_sockets_is_refused_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let deep = Layout::new(&dir.path().join("x".repeat(90)));
        let error = deep.create_run().unwrap_err().to_string();
        assert!(error.contains("CARGO_TARGET_DIR"), "{error}");
        assert!(!deep.run().exists(), "nothing is made before the check");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        write_whole(&path, "one").unwrap();
        write_whole(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }
}
