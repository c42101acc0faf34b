//! The injector: its webhook as a process of this machine, and what injection adds to the start of pods.

mod pods;
mod webhook;

use std::fs;

use anyhow::{Context, Result};
use clap::Args;
use tokio::runtime::Runtime;

use super::bars::Bars;
use super::disk::Flushes;
use super::figures::Rows;
use super::operator::require_no_controller;
use super::wrk::Wrk;
use super::{header, machine};
use crate::cluster::Cluster;
use crate::images;
use crate::prerequisites;
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};

#[derive(Debug, Args)]
pub struct Options {
    /// SecretBindings in the cluster while the webhook is asked
    #[arg(long, value_name = "N", default_value_t = 2_500)]
    bindings: usize,

    /// How long each run of wrk takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Pods of each shape that are started one after the other; 0: only the webhook
    #[arg(long, value_name = "N", default_value_t = 30)]
    pods: usize,

    /// Pods that are started at once
    #[arg(long, value_name = "N", default_value_t = 30)]
    at_once: usize,

    /// How often so many are started at once, without and with injection
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
}

/// Measures all of it, holds it against the bars and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let load = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench").join("injector");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    prerequisites::ensure_bench_tools(workspace, &mut progress)?;
    let cluster = Cluster::open(workspace, None);
    cluster.up(workspace, &mut progress)?;
    // It would work on each binding that is made, and hold them when they go.
    require_no_controller(&cluster)?;
    // As its image has it, of which all is resident that is ever used.
    let program = progress.step("Building the injector", |step| {
        images::program(workspace, "sealpod-operator", step)
    })?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let runtime = Runtime::new()?;
    let mut bars = Bars::new(&flushes);
    let mut rows = Rows::default();
    let wrk = Wrk::prepare(&directory)?.over_tls();
    let stage = webhook::Stage {
        workspace,
        cluster: &cluster,
        program: &program,
        directory: &directory,
        runtime: &runtime,
        wrk: &wrk,
    };
    webhook::measure(options, &stage, &mut progress, (&mut bars, &mut rows))?;
    if options.pods > 0 {
        pods::measure(options, workspace, &runtime, &mut progress, (&mut bars, &mut rows))?;
    }
    print!(
        "\n{}\nload before it began {load}\n\n| the injector | |\n|---|---|\n{}{}",
        header(workspace, &program)?,
        rows.0,
        bars.text()
    );
    Ok(())
}
