#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sealpod_operator::cli::{Cli, Command};
use sealpod_operator::{bootstrap, controller, injector};
use sealpod_runtime::{process, telemetry};

/// The C library's gives nothing back: when 2,500 bindings were gone again, the controller still had all that they took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// As many as there is work for, and not one for each core of a large node: the parts wait for others most of the time.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("no provider is installed before main");
    let cli = Cli::parse();
    if matches!(cli.command, Command::Crds) {
        for crd in sealpod_crds::all() {
            print!("---\n{}", sealpod_crds::yaml(&crd));
        }
        return ExitCode::SUCCESS;
    }
    match Box::pin(start(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpod-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(cli: Cli) -> anyhow::Result<()> {
    telemetry::init(&cli.log.filter, cli.log.format)?;
    process::harden()?;
    match cli.command {
        Command::Controller(args) => controller::run(args).await,
        Command::Injector(args) => injector::run(args).await,
        Command::Bootstrap(args) => bootstrap::run(args).await,
        Command::Crds => Ok(()),
    }
}
