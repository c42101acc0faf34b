//! `cargo xtask soak`: a server that does everything it can for a while, at a rate that it does not notice, and whether it
//! takes ever more of the machine for it.

mod load;
mod report;
mod sample;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::runtime::Runtime;

use super::client::Client;
use super::disk::Flushes;
use super::server::Launch;
use super::stage::Stage;
use super::{build, header, machine};
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};
use load::Busy;
use report::{Report, Verdict};

#[derive(Debug, Args)]
pub struct Options {
    /// How long; the first third warms up and is not judged
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

/// Fails where memory, file descriptors or the write-ahead log do not stay what they were, or anything is not answered.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let before = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench").join("soak");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the soak")?;
    let programs = build(workspace, &mut progress)?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let client = Client {
        program: programs.client,
        log: directory.join("client.log"),
    };
    let runtime = Runtime::new()?;
    let mut stage = progress.step("Loading 10,000 secrets", |step| {
        Stage::prepare(&programs.server, &client, &directory.join("server"), &runtime, step)
    })?;
    stage.launch = Launch {
        backups: Some(directory.join("server").join("backups")),
        ..stage.launch
    };
    let server = stage.launch.start()?;
    let length = Duration::from_mins(options.minutes);
    let mut samples = Vec::new();
    let kept = progress.step(&format!("Keeping it busy for {} minutes", options.minutes), |step| {
        let mut busy = Busy::begin(&stage, &server, &client, &runtime)?;
        busy.go_on(length, step, &mut samples)
    });
    let peak = super::child::memory(server.process.pid()).unwrap_or_default().peak;
    let report = Report::of(&samples, length / 3);
    print!(
        "\n{}\nload before it began {before}; {}; {}\n\n{}",
        header(workspace, &programs.server)?,
        flushes.describe(),
        load::describe(),
        report.text(peak)
    );
    kept?;
    server.process.stop()?;
    match report.verdict() {
        Verdict::Pass => Ok(()),
        Verdict::NotTold => bail!("these samples do not tell whether the server stays what it was: run it for longer"),
        Verdict::Miss => bail!("the server does not stay what it was: see the table"),
    }
}
