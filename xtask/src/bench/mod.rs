//! `cargo xtask bench`: how fast the server answers, on this machine. `bench/README.md` says how to read it.

mod alone;
mod bars;
mod cgroup;
mod child;
mod client;
mod conversation;
mod disk;
mod durability;
mod figures;
pub mod http;
mod injector;
mod machine;
mod operator;
mod org;
mod peer;
mod plane;
mod server;
mod sidecar;
mod soak;
mod stage;
mod wrk;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use sealpod_core::Time;
use tokio::runtime::Runtime;

use crate::images;
use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};
use bars::Bars;
pub use child::Running;
use client::Client;
use disk::Flushes;
pub use durability::Options as DurabilityOptions;
pub use durability::run as durability;
pub use injector::Options as InjectorOptions;
pub use injector::run as injector;
pub use operator::Options as OperatorOptions;
pub use operator::run as operator;
pub use sidecar::Options as SidecarOptions;
pub use sidecar::run as sidecar;
pub use soak::Options as SoakOptions;
pub use soak::run as soak;
use stage::Stage;
use wrk::Wrk;

#[derive(Debug, Args)]
pub struct Options {
    /// Only this part [default: peer and alone]
    #[arg(long, value_name = "PART")]
    only: Option<Part>,

    /// Only what has this in its name, such as `alone/polls` or `org/audit`, of the parts whose names begin so
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,

    /// Rounds of the comparison
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// How long each round of wrk takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Of `org`: requests of each case at each concurrency
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    requests: usize,

    /// Of `org`: entries of the audit log
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    audit_rows: usize,

    /// Of `org`: fill a new database, also where one of an earlier run is there
    #[arg(long)]
    reseed: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The same work for us and for OpenBao
    Peer,
    /// What nobody else has, and what we alone promise
    Alone,
    /// The planes with the data of a large organization after years
    Org,
}

impl Options {
    fn names(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// The parts to run: what was said, or those with names that begin like the filter.
    fn parts(&self) -> Vec<Part> {
        let all = [
            (Part::Peer, peer::NAMES.to_vec()),
            (Part::Alone, alone::NAMES.to_vec()),
            (Part::Org, org::NAMES.to_vec()),
        ];
        let wanted = |part: Part, names: &[&str]| match self.only {
            Some(only) => only == part,
            None if self.filter.is_empty() => part != Part::Org,
            None => names
                .iter()
                .any(|name| name.starts_with(&self.filter) || self.filter.starts_with(name)),
        };
        let wanted = all.into_iter().filter(|(part, names)| wanted(*part, names));
        wanted.map(|(part, _)| part).collect()
    }
}

/// What all parts share.
struct Bench<'a> {
    options: &'a Options,
    workspace: &'a Workspace,
    progress: Progress,
    runtime: Runtime,
    directory: PathBuf,
    server: PathBuf,
    seed: PathBuf,
    client: Client,
    wrk: Wrk,
    bars: Bars,
    stage: Option<Stage>,
}

pub fn server(options: &Options, workspace: &Workspace) -> Result<()> {
    // The HTTP client wants one, although it is not asked to encrypt anything.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let parts = options.parts();
    if parts.is_empty() {
        return Err(Failure::new(format!("no name begins with `{}`", options.filter))
            .advice(format!(
                "names are {}",
                [&peer::NAMES[..], &alone::NAMES, &org::NAMES].concat().join(", ")
            ))
            .into());
    }
    // Before the build, which is a load of its own.
    let load = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    if parts != [Part::Org] {
        prerequisites::ensure_bench_tools(workspace, &mut progress)?;
    }
    let programs = build(workspace, &mut progress)?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let mut bench = Bench {
        options,
        workspace,
        progress,
        runtime: Runtime::new()?,
        server: programs.server,
        seed: programs.seed,
        client: Client {
            program: programs.client,
            log: directory.join("client.log"),
        },
        wrk: Wrk::prepare(&directory)?,
        bars: Bars::new(&flushes),
        directory,
        stage: None,
    };
    let mut text = String::new();
    for part in parts {
        text += &match part {
            Part::Peer => peer::run(&mut bench)?,
            Part::Alone => alone::run(&mut bench)?,
            Part::Org => org::run(&mut bench)?,
        };
    }
    // The machine may have become another one meanwhile, such as one with a busy neighbour.
    let then = bench
        .progress
        .step("Asking the disk again", |_| Flushes::measure(&bench.directory))?;
    let header = header(workspace, &bench.server)?;
    let (flushes, then) = (flushes.describe(), then.describe());
    print!(
        "\n{header}\nload before it began {load}; {flushes}; behind it {then}\n{text}{}",
        bench.bars.text()
    );
    Ok(())
}

impl Bench<'_> {
    /// Loads the secrets, unless another part did.
    fn prepare_stage(&mut self) -> Result<()> {
        if self.stage.is_none() {
            let made = self.progress.step("Loading Sealpod", |step| {
                let directory = self.directory.join("sealpod");
                Stage::prepare(&self.server, &self.client, &directory, &self.runtime, step)
            })?;
            self.stage = Some(made);
        }
        Ok(())
    }
}

/// Day, machine and version, by which one knows what a table is of.
fn header(workspace: &Workspace, program: &Path) -> Result<String> {
    let version = process::capture(Command::new(program).arg("--version"))?;
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(&workspace.root);
    let commit = process::capture(&mut git).unwrap_or_default();
    let commit = commit.trim();
    Ok(format!(
        "{} · {} · {} {commit}",
        &Time::now().to_string()[..10],
        machine::describe(),
        version.trim()
    ))
}

/// What a bench runs: the server as its image has it, because that is what users run, and programs that no image has.
struct Programs {
    server: PathBuf,
    client: PathBuf,
    /// Writes a database with a large organization.
    seed: PathBuf,
}

fn build(workspace: &Workspace, progress: &mut Progress) -> Result<Programs> {
    let log = workspace.target.join("bench").join("build.log");
    progress.step("Building the server", |step| {
        let server = images::program(workspace, "sealpod-api-server", step)?;
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--package", "sealpod-api-server"]);
        command.args(["--example", "seed_org", "--example", "bench_client"]);
        // Minutes of optimizing these over all crates would be for nothing.
        command.env("CARGO_PROFILE_RELEASE_LTO", "false");
        process::run_followed(&mut command, &log, step)?;
        let examples = workspace.target.join("release").join("examples");
        Ok(Programs {
            server,
            client: examples.join("bench_client"),
            seed: examples.join("seed_org"),
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parts(line: &[&str]) -> Vec<Part> {
        Line::parse_from(std::iter::once(&"bench").chain(line)).options.parts()
    }

    #[test]
    fn a_filter_chooses_the_parts_that_it_can_be_about() {
        assert_eq!(parts(&[]), [Part::Peer, Part::Alone]);
        assert_eq!(parts(&["--only", "org"]), [Part::Org]);
        assert_eq!(parts(&["--only", "org", "--filter", "audit"]), [Part::Org]);
        assert_eq!(parts(&["--filter", "org/audit, a busy"]), [Part::Org]);
        assert_eq!(parts(&["--filter", "applications"]), [Part::Org]);
        assert_eq!(parts(&["--filter", "read"]), [Part::Org]);
        assert_eq!(parts(&["--filter", "alone/polls"]), [Part::Alone]);
        assert_eq!(parts(&["--filter", "peer"]), [Part::Peer]);
        assert_eq!(parts(&["--filter", "nothing"]), []);
    }
}
