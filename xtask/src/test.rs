//! `cargo xtask test`: everything that has to hold before a change is merged, what fails fastest first.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process::{self, Failure};
use crate::progress::{Progress, in_ci, seconds, table};
use crate::workspace::Workspace;
use crate::{api, generate, images, prerequisites};

/// Runs all suites; `fast` stops before those that need programs from elsewhere.
pub fn run(workspace: &Workspace, fast: bool) -> Result<()> {
    let mut progress = Progress::plain();
    let begun = Instant::now();
    let result = suites(workspace, fast, &mut progress);
    if !fast && in_ci() {
        // Nothing is left running on a CI machine, whatever happened before.
        let down = Cluster::open(workspace, None).down(&mut progress);
        print_times(&progress, begun);
        return result.and(down);
    }
    print_times(&progress, begun);
    result
}

fn suites(workspace: &Workspace, fast: bool, progress: &mut Progress) -> Result<()> {
    cargo(workspace, progress, "Formatting", &["fmt", "--all", "--check"])
        .map_err(|error| error.context("the formatting differs: run `cargo fmt --all`"))?;
    progress.step("Generated files", |_| generate::run(workspace, true))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    cargo(workspace, progress, "Clippy", &clippy)?;
    if !fast {
        prerequisites::ensure_test_tools(workspace, progress)?;
    }
    // All but the tests that need a cluster.
    let tests = ["test", "--workspace", "--exclude", E2E_PACKAGE];
    cargo(workspace, progress, "Unit and integration tests", &tests)?;
    if fast {
        return Ok(());
    }
    api::run(workspace, progress)?;
    on_the_cluster(workspace, progress, &[])
}

/// Only the end-to-end tests whose names hold one of `filters`; all where there is none. The cluster stays.
pub fn end_to_end(workspace: &Workspace, filters: &[String]) -> Result<()> {
    on_the_cluster(workspace, &mut Progress::plain(), filters)
}

const E2E_PACKAGE: &str = "sealpod-e2e";
/// The claim of the api-server that the end-to-end tests install.
const E2E_CLAIM: &str = "sealpod/data-sealpod-api-server-0";

/// The end-to-end tests with all that they are told by their environment.
fn on_the_cluster(workspace: &Workspace, progress: &mut Progress, filters: &[String]) -> Result<()> {
    let cluster = Cluster::open(workspace, None);
    cluster.up(workspace, progress)?;
    let images = images::build(workspace, &workspace.target.join("images"), progress)?;
    progress.step("Loading the images", |_| images.load(&cluster))?;
    eprint!("{}", images.report());
    cluster.create_volume(&E2E_CLAIM.parse()?, "1Gi")?;
    progress.step("End-to-end tests", |_| {
        let mut command = workspace.cargo();
        // They wait most of the time, so more of them than there are processors run at once.
        command.args(["test", "--package", E2E_PACKAGE, "--", "--test-threads=6"]);
        command.args(filters);
        command.env("KUBECONFIG", cluster.kubeconfig());
        command.env("SEALPOD_E2E_BIN", cluster.bin());
        command.env("SEALPOD_E2E_IMAGE_REGISTRY", images::REGISTRY);
        command.env("SEALPOD_E2E_IMAGE_TAG", &images.tag);
        command.env("SEALPOD_E2E_APP_IMAGE", images::APP_IMAGE);
        command.env("SEALPOD_E2E_VOLUMES", cluster.volumes());
        command.env(
            "SEALPOD_E2E_XTASK",
            std::env::current_exe().context("a program has a path")?,
        );
        process::run_visible(&mut command).with_context(|| {
            format!(
                "the cluster is still there to look around: export KUBECONFIG={}",
                cluster.kubeconfig().display()
            )
        })
    })
}

fn cargo(workspace: &Workspace, progress: &mut Progress, title: &str, arguments: &[&str]) -> Result<()> {
    progress.step(title, |_| {
        let mut command = workspace.cargo();
        process::run_visible(command.args(arguments))
            .map_err(|_| Failure::new(format!("`cargo {}` failed; it says why above", arguments.join(" "))).into())
    })
}

fn print_times(progress: &Progress, begun: Instant) {
    let mut rows: Vec<_> = progress
        .times()
        .iter()
        .map(|(title, took)| (title.clone(), seconds(*took)))
        .collect();
    rows.push(("all".to_string(), seconds(begun.elapsed())));
    eprint!("\n{}", table(&rows));
}
