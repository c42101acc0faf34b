#![forbid(unsafe_code)]

use std::process::ExitCode;

use sealpod_sidecar::commands::{self, Command};
use sealpod_sidecar::config::Config;
use sealpod_sidecar::exec::{self, CoreLimit};

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os()) {
        Ok(command) => command,
        Err((text, code)) => return commands::tell(&text, code),
    };
    let core = CoreLimit::current();
    if let Err(error) = sealpod_runtime::process::harden() {
        return commands::tell(&format!("cannot switch core dumps off: {error}"), 1);
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nobody installed a provider before main did");
    if let Command::Exec(options) = command {
        return exec::run(&options, core);
    }
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return commands::tell(&error.to_string(), 2),
    };
    if let Err(error) = sealpod_runtime::telemetry::init(&config.log, config.log_format) {
        return commands::tell(&error.to_string(), 2);
    }
    match command {
        Command::Run => commands::run(&config),
        Command::Init => commands::init(&config),
        Command::Wait => commands::wait(&config),
        Command::Check => commands::check(&config),
        Command::Ask(path) => commands::ask(&config, path),
        Command::Exec(_) => unreachable!("it has run already"),
    }
}
