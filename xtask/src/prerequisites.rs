//! Programs of the system that the local cluster and some tests need: finds what is missing, says why it is needed, installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// A program, the Debian package that has it, and what the cluster does with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool {
        program,
        package,
        purpose,
    }
}

/// All that the cluster calls, in the order in which it is listed to the user.
const CLUSTER_TOOLS: [Tool; 13] = [
    tool("containerd", "containerd", "runs the containers"),
    tool("ctr", "containerd", "loads images into containerd"),
    tool("runc", "runc", "starts a container for containerd"),
    tool("ptp", "containernetworking-plugins", "connects a pod to the network"),
    tool("portmap", "containernetworking-plugins", "forwards host ports to a pod"),
    tool("host-local", "containernetworking-plugins", "gives a pod its address"),
    tool("ip", "iproute2", "makes the cluster's network namespace"),
    tool("iptables", "iptables", "kube-proxy's Services"),
    tool("ipset", "ipset", "kube-proxy's Services"),
    tool(
        "conntrack",
        "conntrack",
        "kube-proxy forgets connections to pods that are gone",
    ),
    tool("socat", "socat", "kubectl port-forward"),
    tool("nsenter", "util-linux", "enters the cluster's network namespace"),
    tool("setsid", "util-linux", "lets the cluster outlive the terminal"),
];

const BROWSER: &str = "chromium-headless-shell";
/// Not a program, but what Debian keeps apart from Python.
const VENV: &str = "python3's venv";

/// What the tests of the API's description call.
const API_TOOLS: [Tool; 3] = [
    tool("python3", "python3", "runs Schemathesis"),
    tool(
        VENV,
        "python3-venv",
        "keeps Schemathesis apart from the system's Python",
    ),
    tool(BROWSER, BROWSER, "opens the page /docs"),
];

/// What the bench calls.
const BENCH_TOOLS: [Tool; 3] = [
    tool("wrk", "wrk", "makes the load of the comparison"),
    tool("python3", "python3", "installs OpenBao"),
    tool(VENV, "python3-venv", "keeps OpenBao apart from the system's Python"),
];

/// What some tests call, which pass over without them.
const TEST_TOOLS: [Tool; 5] = [
    tool("mkfs.ext4", "e2fsprogs", "makes a small disk that a test fills"),
    tool("fallocate", "util-linux", "fills it"),
    tool("faketime", "faketime", "moves the clock of programs under test"),
    tool("ip", "iproute2", "makes a network of its own for a test"),
    tool("iptables", "iptables", "loses the packets of a test"),
];

/// Folders beside `PATH` where Debian and others put these programs.
const EXTRA_FOLDERS: [&str; 5] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/cni", "/opt/cni/bin"];

/// The path of `program`, in `PATH` or where system programs usually are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(EXTRA_FOLDERS.iter().map(PathBuf::from));
    folders.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Whoever starts a cluster makes namespaces and mounts, so has to be root.
pub fn require_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("{what} takes network namespaces and mounts, which only root may change"))
        .advice("run it as root (`sudo -E env PATH=\"$PATH\" cargo xtask …`), or use a cluster that you have: set KUBECONFIG and pass --existing")
        .into())
}

/// The `go` command: from `PATH`, or where its own installer puts it.
pub fn find_go() -> Result<PathBuf> {
    let installed = Path::new("/usr/local/go/bin/go");
    find("go").or_else(|| installed.is_file().then(|| installed.to_path_buf())).ok_or_else(|| {
        Failure::new("Go is missing; the local Kubernetes is built with it")
            .advice("install Go 1.25 or later (https://go.dev/dl) and put its bin folder on PATH, or use a cluster that you have: set KUBECONFIG and pass --existing")
            .into()
    })
}

/// Installs what the cluster needs and the system lacks.
pub fn ensure_cluster_tools(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let missing = missing(&CLUSTER_TOOLS, |program| find(program).is_some());
    if !missing.is_empty() {
        require_root("starting the cluster, and installing what it needs,")?;
    }
    install(&missing, workspace, progress)
}

/// Installs what the tests of the API's description need and the system lacks.
pub fn ensure_api_tools(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    install(&missing(&API_TOOLS, is_there), workspace, progress)
}

/// Installs what some tests need and the system lacks, where this process may.
pub fn ensure_test_tools(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    let missing = missing(&TEST_TOOLS, |program| find(program).is_some());
    if rustix::process::geteuid().is_root() && find("apt-get").is_some() {
        install(&missing, workspace, progress)?;
    }
    Ok(())
}

/// Installs what the bench needs and the system lacks.
pub fn ensure_bench_tools(workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    install(&missing(&BENCH_TOOLS, is_there), workspace, progress)
}

fn is_there(program: &str) -> bool {
    match program {
        BROWSER => find_browser().is_ok(),
        VENV => find("python3")
            .is_some_and(|python| process::succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]))),
        other => find(other).is_some(),
    }
}

/// A browser that takes Chromium's options.
pub fn find_browser() -> Result<PathBuf> {
    let browsers = [BROWSER, "chromium", "chromium-browser", "google-chrome"];
    browsers.into_iter().find_map(find).ok_or_else(|| {
        Failure::new("there is no Chromium on this machine")
            .advice("install one, for example Debian's chromium-headless-shell")
            .into()
    })
}

fn install(missing: &[&Tool], workspace: &Workspace, progress: &mut Progress) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages = packages(missing);
    let Some(apt_get) = find("apt-get") else {
        return Err(
            Failure::new(format!("programs are missing: {}", reasons(missing).join("; ")))
                .advice("this system has no apt-get: install them with its own package manager")
                .into(),
        );
    };
    if !rustix::process::geteuid().is_root() {
        return Err(
            Failure::new(format!("programs are missing: {}", reasons(missing).join("; ")))
                .advice(format!("install them as root: apt-get install {}", packages.join(" ")))
                .into(),
        );
    }
    for reason in reasons(missing) {
        progress.say(&format!("missing: {reason}"));
    }
    let log = workspace.target.join("apt.log");
    progress.step(&format!("Installing {} from Debian", packages.join(", ")), |step| {
        if !packages.iter().all(|package| is_known(package)) {
            step.note("reading the package lists");
            process::run_logged(&mut apt(&apt_get, &["update"]), &log)?;
        }
        let install = [
            &["install", "--yes", "--no-install-recommends", "--no-remove"],
            packages.as_slice(),
        ]
        .concat();
        if process::run_logged(&mut apt(&apt_get, &install), &log).is_err() {
            // Old lists name packages that the mirror no longer has: read them anew, then it is a real failure.
            step.note("reading the package lists anew");
            process::run_logged(&mut apt(&apt_get, &["update"]), &log)?;
            process::run_logged(&mut apt(&apt_get, &install), &log)?;
        }
        Ok(())
    })
}

/// A statically linked busybox: the file system of the small images which have a shell.
///
/// The package is unpacked, not installed, because installing it would remove the system's own busybox.
pub fn static_busybox(workspace: &Workspace, progress: &mut Progress) -> Result<PathBuf> {
    let system = Path::new("/bin/busybox");
    if std::fs::read(system).is_ok_and(|elf| is_static_elf(&elf)) {
        return Ok(system.to_path_buf());
    }
    let dir = workspace.target.join("cluster/busybox");
    let unpacked = dir.join("root/bin/busybox");
    if unpacked.is_file() {
        return Ok(unpacked);
    }
    let log = workspace.target.join("cluster/busybox.log");
    progress.step("Fetching busybox-static from Debian, for an image that has a shell", |step| {
        std::fs::create_dir_all(&dir)?;
        let Some(apt_get) = find("apt-get") else {
            return Err(Failure::new("a statically linked busybox is missing")
                .advice("this system has no apt-get: put one at /bin/busybox")
                .into());
        };
        let mut download = apt(&apt_get, &["download", "busybox-static"]);
        download.current_dir(&dir);
        if process::run_logged(&mut download, &log).is_err() {
            step.note("reading the package lists");
            require_root("reading the package lists")?;
            process::run_logged(&mut apt(&apt_get, &["update"]), &log)?;
            process::run_logged(&mut download, &log)?;
        }
        // Unpacked beside its place and then moved, so that a half unpacked one is never taken for whole.
        let unpack = "rm -rf new root && for deb in *.deb; do dpkg-deb --extract \"$deb\" new; done && mv new root && rm -f -- *.deb";
        process::run_logged(Command::new("sh").args(["-ec", unpack]).current_dir(&dir), &log)?;
        Ok(unpacked)
    })
}

fn missing(tools: &'static [Tool], exists: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    tools.iter().filter(|tool| !exists(tool.program)).collect()
}

/// The packages to install, each once.
fn packages(missing: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn reasons(missing: &[&Tool]) -> Vec<String> {
    missing
        .iter()
        .map(|tool| format!("{} ({}): {}", tool.program, tool.package, tool.purpose))
        .collect()
}

fn is_known(package: &str) -> bool {
    process::succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
}

fn apt(apt_get: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(apt_get);
    // Another apt at work (unattended upgrades) is waited for instead of failing.
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Whether these bytes are a 64-bit ELF program that needs no dynamic loader (no program header of type `PT_INTERP`).
pub fn is_static_elf(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let u16_at = |at: usize| {
        elf.get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_le_bytes)
    };
    let u32_at = |at: usize| {
        elf.get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let u64_at = |at: usize| {
        elf.get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes)
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let (Some(offset), Some(size), Some(count)) = (u64_at(32), u16_at(54), u16_at(56)) else {
        return false;
    };
    let Ok(offset) = usize::try_from(offset) else {
        return false;
    };
    (0..usize::from(count)).all(|index| {
        let kind = offset.checked_add(index * usize::from(size)).and_then(u32_at);
        kind.is_some_and(|kind| kind != PT_INTERP)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_missing_programs_are_installed_and_each_once() {
        let absent = ["ptp", "portmap", "containerd", "ctr"];
        let missing = missing(&CLUSTER_TOOLS, |program| !absent.contains(&program));
        assert_eq!(packages(&missing), ["containerd", "containernetworking-plugins"]);
        let reasons = reasons(&missing);
        assert_eq!(reasons.len(), 4);
        assert_eq!(reasons[0], "containerd (containerd): runs the containers");
    }

    #[test]
    fn a_containerd_that_came_from_elsewhere_is_left_alone() {
        assert!(missing(&CLUSTER_TOOLS, |_| true).is_empty());
    }

    #[test]
    fn a_program_that_needs_a_loader_is_not_static() {
        let shell = std::fs::read("/bin/sh").unwrap();
        assert!(shell.starts_with(b"\x7fELF"), "/bin/sh is a program");
        assert!(!is_static_elf(&shell));
        assert!(!is_static_elf(b"#!/bin/sh"));
        assert!(
            !is_static_elf(b"\x7fELF\x02\x01"),
            "a truncated file is nothing we can run"
        );
    }
}
