//! What the kernel counts as the memory of a container: that of its control group.
//!
//! The figure is the kubelet's working set, by which it evicts pods: all that is charged to the group, tmpfs too, but for
//! pages of files that nobody has used for a while.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::child;

const ROOT: &str = "/sys/fs/cgroup";

/// A group for one program. Removed with this, once the program has ended.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// None where this process may not make one.
    pub fn make(name: &str) -> Option<Self> {
        let root = Path::new(ROOT);
        let memory = if unified() {
            root.to_owned()
        } else {
            root.join("memory")
        };
        let path = memory.join(format!("sealpod-bench-{}-{name}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        working_set(&group.0).is_ok().then_some(group)
    }

    /// The beginning of a command that runs `program`, in this group from its first page on.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = child::command(Path::new("/bin/sh"));
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        command.arg(self.0.join("cgroup.procs")).arg(program);
        command
    }

    /// Its memory, in KiB.
    pub fn memory(&self) -> Result<u64> {
        working_set(&self.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The memory of the group that a process is in, in KiB.
pub fn of_process(pid: u32) -> Result<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("process {pid} is gone"))?;
    let path = path_of(&groups).context("the process is in no group that counts memory")?;
    working_set(&path)
}

/// One line for each hierarchy: number, controllers, path. That of the only one of version 2 names no controllers.
fn path_of(groups: &str) -> Option<PathBuf> {
    let of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let has = controllers.split(',').any(|controller| controller == wanted);
            has.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let root = Path::new(ROOT);
    match of("memory") {
        Some(path) => Some(root.join("memory").join(path)),
        None => of("").map(|path| root.join(path)),
    }
}

fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn working_set(group: &Path) -> Result<u64> {
    let read = |file: &str| {
        let path = group.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (charged, idle) = if group.join("memory.current").exists() {
        ("memory.current", "inactive_file ")
    } else {
        ("memory.usage_in_bytes", "total_inactive_file ")
    };
    let charged: u64 = read(charged)?.trim().parse()?;
    Ok(charged.saturating_sub(entry(&read("memory.stat")?, idle)) / 1_024)
}

fn entry(stat: &str, name: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|figure| figure.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn the_group_of_a_process_is_that_which_counts_memory() {
        let first = "11:pids:/a\n7:cpu,memory:/kubepods/pod1/c1\n1:name=systemd:/b\n0::/c\n";
        assert_eq!(
            path_of(first),
            Some(PathBuf::from("/sys/fs/cgroup/memory/kubepods/pod1/c1"))
        );
        assert_eq!(
            path_of("0::/kubepods/c1\n"),
            Some(PathBuf::from("/sys/fs/cgroup/kubepods/c1"))
        );
        assert_eq!(path_of("11:pids:/a\n"), None);
    }

    #[test]
    fn pages_of_files_that_nobody_uses_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        write("memory.usage_in_bytes", "8192\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 4096\n");
        assert_eq!(working_set(dir.path()).unwrap(), 4);
        write("memory.current", "1048576\n");
        write("memory.stat", "anon 1\ninactive_file 524288\n");
        assert_eq!(working_set(dir.path()).unwrap(), 512);
    }

    #[test]
    fn a_program_is_in_its_group_from_the_beginning() {
        // Takes rights that not everybody has.
        let Some(group) = Group::make("test") else { return };
        let mut command = group.command(Path::new("/bin/sleep"));
        let running = child::Running::start(command.arg("60").stdin(Stdio::null())).unwrap();
        let began = std::time::Instant::now();
        let in_it = || fs::read_to_string(group.0.join("cgroup.procs")).unwrap().trim() == running.pid().to_string();
        // What it takes is charged to the group in batches, so nothing may be there at first.
        while !in_it() || group.memory().unwrap() == 0 {
            assert!(began.elapsed() < std::time::Duration::from_secs(10));
            std::thread::yield_now();
        }
        let [own, asked] = [group.memory().unwrap(), of_process(running.pid()).unwrap()];
        assert!(own.abs_diff(asked) < 1_024, "{own} {asked}");
        let path = group.0.clone();
        drop(running);
        drop(group);
        assert!(!path.exists());
    }
}
