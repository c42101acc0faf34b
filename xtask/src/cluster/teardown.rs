//! Takes a cluster away, in whatever condition it is: whole, half started, killed, or without its files.
//!
//! What belongs to the cluster is known by more than one sign, so that no single lost file leaves anything behind:
//!
//! 1. components by the pid and start time that they recorded themselves,
//! 2. what components started (containerd's shims above all) by a mark in the environment that they inherited,
//! 3. the processes of pods by the cgroup that all pods are below,
//! 4. mounts by their place below the run folder,
//! 5. traces outside the run folder by the names which lead into it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

use super::components::recorded;
use super::identity::{self, ProcessId};
use super::layout::Layout;
use super::network::Network;
use super::state::{self, RunState};
use crate::process::Failure;

/// How long killed processes and their cgroups may take to go.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether anything of a cluster is there: running, half started, or left by a killed one.
pub fn is_needed(layout: &Layout, network: &Network) -> bool {
    layout.run().exists()
        || layout.kubeconfig().exists()
        || network.namespace_file().exists()
        || !cgroups(network).is_empty()
}

/// Removes everything that [`is_needed`] finds. May be called again after it was itself interrupted.
pub fn teardown(layout: &Layout, network: &Network) -> Result<()> {
    // First, so that no one takes up a cluster that is about to go.
    remove_if_there(&layout.kubeconfig())?;
    end_processes(layout, network)?;
    let sockets = shim_sockets(layout);
    unmount_below(&layout.run())?;
    network.delete()?;
    for cgroup in cgroups(network) {
        remove_cgroup(&cgroup)?;
    }
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    remove_traces(layout, network);
    if let Some(state) = RunState::read(layout) {
        state::restore_sysctls(&state.sysctls);
    }
    keep_logs(layout);
    remove_run_folder(&layout.run())
}

fn end_processes(layout: &Layout, network: &Network) -> Result<()> {
    let begun = Instant::now();
    // Again and again until none is left: a process that dies may have just started another.
    loop {
        let left = processes(layout, network);
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let pids: Vec<_> = left.iter().map(|process| process.pid.to_string()).collect();
            let summary = format!("processes of the cluster do not end: {}", pids.join(", "));
            return Err(Failure::new(summary)
                .advice("look at them with `ps`; one in state D waits for the disk: try `cargo xtask cluster down` again later")
                .into());
        }
        for process in left {
            process.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every living process of the cluster.
fn processes(layout: &Layout, network: &Network) -> Vec<ProcessId> {
    let mut found = identity::with_environment(&layout.mark());
    // After a reboot the recorded pids belong to others.
    if RunState::read(layout).is_none_or(|state| state.boot_id == identity::boot_id()) {
        let files = fs::read_dir(layout.pids()).into_iter().flatten().flatten();
        found.extend(
            files
                .filter_map(|file| recorded(&file.path()))
                .filter(|process| process.is_alive()),
        );
    }
    for cgroup in cgroups(network) {
        found.extend(cgroup_processes(&cgroup));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The cgroup of all pods, in every hierarchy that the machine has (one with cgroup v2, a dozen with v1).
fn cgroups(network: &Network) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    std::iter::once(PathBuf::from("/sys/fs/cgroup"))
        .chain(hierarchies)
        .map(|hierarchy| hierarchy.join(&network.namespace))
        .filter(|cgroup| cgroup.join("cgroup.procs").exists())
        .collect()
}

fn cgroup_processes(cgroup: &Path) -> Vec<ProcessId> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<_> = own
        .lines()
        .filter_map(|pid| ProcessId::running(pid.parse().ok()?))
        .collect();
    found.extend(subdirectories(cgroup).iter().flat_map(|child| cgroup_processes(child)));
    found
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    for child in subdirectories(cgroup) {
        remove_cgroup(&child)?;
    }
    let begun = Instant::now();
    // The kernel lets go of the last process a moment after it has ended.
    while let Err(error) = fs::remove_dir(cgroup) {
        if error.kind() == std::io::ErrorKind::NotFound {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return Err(error).with_context(|| format!("cannot remove the cgroup {}", cgroup.display()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Sockets that containerd's shims make below `/run/containerd/s`, wherever containerd's own state is.
fn shim_sockets(layout: &Layout) -> Vec<PathBuf> {
    let bundles = layout.containerd_state().join("io.containerd.runtime.v2.task/k8s.io");
    let addresses = subdirectories(&bundles)
        .into_iter()
        .filter_map(|bundle| fs::read_to_string(bundle.join("address")).ok());
    addresses
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .collect()
}

fn unmount_below(dir: &Path) -> Result<()> {
    // One mount may hide another on the same place, so look again until there is none.
    for _ in 0..10 {
        let mounts = mounts_below(dir)?;
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts.iter().rev() {
            // One that went with its parent is no longer there to be unmounted; the next look tells.
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
    }
    let left = mounts_below(dir)?;
    let Some(first) = left.first() else { return Ok(()) };
    Err(Failure::new(format!(
        "{} mounts of the cluster cannot be unmounted, the first at {}",
        left.len(),
        first.display()
    ))
    .advice(format!(
        "as root: umount --lazy {}, then `cargo xtask cluster down` again",
        first.display()
    ))
    .into())
}

fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(mount_points(&text)
        .into_iter()
        .filter(|mount| mount.starts_with(dir))
        .collect())
}

/// The mount points of a `mountinfo`, in the order of mounting.
fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .collect()
}

/// `mountinfo` writes a blank, a tab, a line break and a backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_string(), |text, (code, character)| {
            text.replace(code, character)
        })
}

/// Files that components write to fixed places of the machine, as far as they lead to this cluster.
fn remove_traces(layout: &Layout, network: &Network) {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries(Path::new("/var/log/containers")) {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(layout.pod_logs())) {
            let _ = fs::remove_file(entry.path());
        }
    }
    // libcni caches a result for each network of each sandbox; the loopback network bears the same name in every cluster.
    let sandboxes = layout.run().join("containerd/root/io.containerd.grpc.v1.cri/sandboxes");
    let loopbacks =
        entries(&sandboxes).map(|sandbox| format!("cni-loopback-{}-lo", sandbox.file_name().to_string_lossy()));
    let loopbacks: HashSet<_> = loopbacks.collect();
    for entry in entries(Path::new("/var/lib/cni/results")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&format!("{}-", network.namespace)) || loopbacks.contains(&name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The logs of the last cluster stay, to find out why it ended.
fn keep_logs(layout: &Layout) {
    if layout.logs().exists() {
        let _ = fs::remove_dir_all(layout.last_logs());
        let _ = fs::rename(layout.logs(), layout.last_logs());
    }
}

fn remove_run_folder(run: &Path) -> Result<()> {
    // A volume is a bind mount: removing what is below one would remove what it shows. Never do without this look.
    if let Some(mount) = mounts_below(run)?.first() {
        return Err(
            Failure::new(format!("{} is mounted; its folder is not removed", mount.display()))
                .advice("run `cargo xtask cluster down` again")
                .into(),
        );
    }
    match fs::remove_dir_all(run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", run.display()))
        }
        _ => Ok(()),
    }
}

fn remove_if_there(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let text = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                    90 22 0:40 / /a\\040b/run/kubelet/x rw shared:1 - tmpfs tmpfs rw\n";
        assert_eq!(
            mount_points(text),
            [PathBuf::from("/"), PathBuf::from("/a b/run/kubelet/x")]
        );
    }

    #[test]
    fn a_folder_with_a_similar_name_is_not_below() {
        let mounts = mount_points("1 1 0:1 / /t/cluster/running rw - tmpfs tmpfs rw\n");
        assert!(!mounts[0].starts_with("/t/cluster/run"));
    }

    #[test]
    fn nothing_is_needed_where_there_never_was_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let network = Network::new("test0000", super::super::network::Subnet::DEFAULT);
        assert!(!is_needed(&Layout::new(dir.path()), &network));
    }

    #[test]
    fn an_absent_run_folder_is_as_good_as_a_removed_one() {
        let dir = tempfile::tempdir().unwrap();
        remove_run_folder(&dir.path().join("run")).unwrap();
    }
}
