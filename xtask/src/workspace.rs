//! Where things are in the checkout and on its disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::Failure;

/// The checkout that `cargo xtask` was called in.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder; all that xtask builds and runs lives below it.
    pub target: PathBuf,
}

impl Workspace {
    pub fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies directly below the root of the workspace")?
            .to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir).context("CARGO_TARGET_DIR is not a usable path")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The cargo that runs this xtask, at the root of the checkout.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// `path` as a person in the root of the checkout would write it.
    pub fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

/// Refuses to begin what a full disk would break half way.
///
/// `purpose` completes "… needs N GiB of free disk".
pub fn require_free_disk(dir: &Path, gib: u64, purpose: &str) -> Result<()> {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(existing).with_context(|| format!("cannot ask how full {} is", dir.display()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    match disk_shortage(free, gib) {
        None => Ok(()),
        Some(shortage) => Err(Failure::new(format!(
            "{purpose} needs {gib} GiB of free disk at {}: {shortage}",
            dir.display()
        ))
        .advice("free some space (cargo clean, go clean -cache), or set CARGO_TARGET_DIR to a folder on a larger disk")
        .into()),
    }
}

/// What to say when `free` bytes are less than `gib` GiB.
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn disk_shortage(free: u64, gib: u64) -> Option<String> {
    const GIB: u64 = 1 << 30;
    (free < gib * GIB).then(|| format!("{:.1} GiB are free", free as f64 / GIB as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_refused_with_the_space_that_is_left() {
        assert_eq!(disk_shortage(3 << 30, 3), None);
        assert_eq!(disk_shortage((3 << 30) - 1, 3).as_deref(), Some("3.0 GiB are free"));
        assert_eq!(disk_shortage(1 << 29, 3).as_deref(), Some("0.5 GiB are free"));
    }

    #[test]
    fn a_folder_that_does_not_exist_yet_is_measured_by_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        require_free_disk(&dir.path().join("not/there"), 0, "the test").unwrap();
    }
}
