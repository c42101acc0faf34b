//! `cargo xtask bench`: how fast the server answers, on this machine, with as much in its database as a large
//! organization has after years. `bench/README.md` says how to read it.

mod cases;
mod disk;
mod load;
mod machine;
mod planes;
mod report;
mod seed;
mod server;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::process::Failure;
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};
use cases::Case;
use report::Line;
use seed::Seed;
use server::Server;

const WARM_UP: usize = 50;

#[derive(Debug, Args)]
pub struct Options {
    /// Only the cases whose name contains this, such as `org` or `org/audit`
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,

    /// Requests of each case at each concurrency
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    requests: usize,

    /// Entries of the audit log
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    audit_rows: usize,

    /// Fill a new database, also where one of an earlier run is there
    #[arg(long)]
    reseed: bool,
}

pub fn server(options: &Options, workspace: &Workspace) -> Result<()> {
    // The HTTP client wants one, although it is not asked to encrypt anything.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    let programs = build(workspace, &mut progress)?;
    let seed = progress.step("Filling the database", |step| {
        Seed::prepare(&programs, &directory, options, step)
    })?;
    let flushes = disk::flushes(&directory)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let server = progress.step("Starting the server", |_| Server::start(&programs.server, &seed))?;
    let mut lines = Vec::new();
    let wanted = |case: &Case| case.name.contains(&options.filter);
    let mut cases: Vec<Case> = cases::all(&seed).into_iter().filter(wanted).collect();
    if planes::NAMES.iter().any(|name| name.contains(&options.filter)) {
        let made = progress.step("Making applications", |step| {
            runtime.block_on(planes::all(&server, &seed, step))
        })?;
        cases.extend(made.into_iter().filter(wanted));
    }
    for case in cases {
        let line = progress.step(&case.name, |_| {
            let measured = [1, case.callers].map(|callers| {
                runtime.block_on(async {
                    load::run(&server.url, &case, callers, WARM_UP).await?;
                    load::run(&server.url, &case, callers, options.requests).await
                })
            });
            let [alone, together] = measured;
            Ok(Line {
                name: case.name.clone(),
                callers: case.callers,
                bar: case.bar,
                alone: alone?,
                together: together?,
            })
        })?;
        lines.push(line);
    }
    drop(server);
    if lines.is_empty() {
        return Err(Failure::new(format!("no case has `{}` in its name", options.filter)).into());
    }
    print!("{}", report::text(&seed, &flushes, options.requests, &lines));
    Ok(())
}

/// What the bench runs.
#[derive(Debug)]
pub struct Programs {
    server: PathBuf,
    seed: PathBuf,
}

fn build(workspace: &Workspace, progress: &mut Progress) -> Result<Programs> {
    let log = workspace.target.join("bench").join("build.log");
    progress.step("Building the server", |step| {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--package", "sealpod-api-server"]);
        command.args(["--bin", "sealpod-api-server", "--example", "seed_org"]);
        crate::process::run_followed(&mut command, &log, step)
    })?;
    let release = workspace.target.join("release");
    Ok(Programs {
        server: release.join("sealpod-api-server"),
        seed: release.join("examples").join("seed_org"),
    })
}
