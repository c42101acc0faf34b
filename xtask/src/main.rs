//! Tasks of the repository: `cargo xtask --help`.
#![forbid(unsafe_code)]

mod api;
mod bench;
mod cli;
mod cluster;
mod demo;
mod generate;
mod images;
mod moto;
mod prerequisites;
mod process;
mod progress;
mod python;
mod test;
mod torture;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
