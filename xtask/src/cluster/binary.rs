//! Builds the one binary that is every component, once for each state of its sources.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::layout::Layout;
use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::{Progress, Step};
use crate::workspace::{Workspace, require_free_disk};

/// The names that `e2e/cluster/main.go` knows.
const NAMES: [&str; 9] = [
    "coredns",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// Free disk for Go's modules and build cache.
const BUILD_GIB: u64 = 8;

/// Builds the binary unless it is there, points the symlinks to it and returns its file.
pub fn ensure(workspace: &Workspace, layout: &Layout, progress: &mut Progress) -> Result<PathBuf> {
    let module = workspace.root.join("e2e/cluster");
    let version = kubernetes_version(&module)?;
    let binary = layout.dir.join(format!("cluster-{}", hash_of_sources(&module)?));
    if !binary.is_file() {
        let title = format!("Building Kubernetes {version} (about 5 minutes on 2 cores, then never again)");
        progress.step(&title, |step| build(workspace, &module, &version, &binary, step))?;
        remove_others(layout, &binary);
    }
    link(layout, &binary)?;
    Ok(binary)
}

fn build(workspace: &Workspace, module: &Path, version: &str, binary: &Path, step: &Step) -> Result<()> {
    let go = prerequisites::find_go()?;
    require_free_disk(&workspace.target, BUILD_GIB, "building Kubernetes")?;
    let log = workspace.target.join("cluster/build.log");
    let new = binary.with_extension("new");
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={version} -X k8s.io/client-go/pkg/version.gitVersion={version}"
    );
    let mut command = Command::new(go);
    command
        .args(["build", "-trimpath", "-buildvcs=false", "-v", "-ldflags", &flags, "-o"])
        .arg(&new)
        .arg(".");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS");
    process::run_followed(&mut command, &log, step).context("Go could not build the local Kubernetes")?;
    fs::rename(&new, binary).with_context(|| format!("cannot write {}", binary.display()))
}

/// The version of `k8s.io/kubernetes` that `go.mod` requires, which the components shall report.
fn kubernetes_version(module: &Path) -> Result<String> {
    let file = module.join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    required_version(&text).map(ToString::to_string).ok_or_else(|| {
        Failure::new(format!("{} requires no k8s.io/kubernetes", file.display()))
            .advice("restore the file from git: it says which Kubernetes to build")
            .into()
    })
}

fn required_version(go_mod: &str) -> Option<&str> {
    go_mod
        .lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "))
        .map(str::trim)
}

/// Changes with any file that goes into the binary.
fn hash_of_sources(module: &Path) -> Result<String> {
    let is_source = |name: &str| {
        Path::new(name).extension().is_some_and(|extension| extension == "go") || name == "go.mod" || name == "go.sum"
    };
    let entries = fs::read_dir(module).with_context(|| format!("cannot read {}", module.display()))?;
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_source(name))
        .collect();
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        let content = fs::read(module.join(&name)).with_context(|| format!("cannot read {name}"))?;
        hash.update(format!("{name}\n{}\n", content.len()));
        hash.update(content);
    }
    Ok(HEXLOWER.encode(&hash.finalize()[..8]))
}

fn link(layout: &Layout, binary: &Path) -> Result<()> {
    let bin = layout.bin();
    fs::create_dir_all(&bin).with_context(|| format!("cannot create {}", bin.display()))?;
    for name in NAMES {
        let (link, new) = (bin.join(name), bin.join(format!(".{name}.new")));
        if fs::read_link(&link).is_ok_and(|target| target == binary) {
            continue;
        }
        let _ = fs::remove_file(&new);
        symlink(binary, &new)
            .and_then(|()| fs::rename(&new, &link))
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(())
}

/// Binaries of former sources: 150 MB each.
fn remove_others(layout: &Layout, keep: &Path) {
    for entry in fs::read_dir(&layout.dir).into_iter().flatten().flatten() {
        let is_binary = entry.file_name().to_string_lossy().starts_with("cluster-");
        if is_binary && entry.path() != keep {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_every_source_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("main.go"), "package main").unwrap();
        fs::write(dir.path().join("go.mod"), "module x").unwrap();
        let first = hash_of_sources(dir.path()).unwrap();
        fs::write(dir.path().join("README.md"), "prose").unwrap();
        assert_eq!(hash_of_sources(dir.path()).unwrap(), first);
        fs::write(dir.path().join("go.mod"), "module y").unwrap();
        assert_ne!(hash_of_sources(dir.path()).unwrap(), first);
    }

    #[test]
    fn the_version_is_the_required_one_not_a_replaced_one() {
        let text = "require (\n\tk8s.io/kubectl v0.35.4\n\tk8s.io/kubernetes v1.35.4\n)\nreplace k8s.io/api => k8s.io/api v0.35.4\n";
        assert_eq!(required_version(text), Some("v1.35.4"));
        assert_eq!(required_version("module x\n"), None);
    }

    #[test]
    fn the_names_are_those_of_the_go_program() {
        let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/cluster/main.go")).unwrap();
        for name in NAMES {
            assert!(
                source.contains(&format!("\"{name}\":")),
                "main.go has no component {name}"
            );
        }
    }
}
