//! `serve`.

use std::future::Future;

use sealpod_runtime::{process, shutdown, telemetry};

use super::{Failure, Outcome};
use crate::app;
use crate::config::{Config, Environment, Faults, LogArgs, ServeArgs};

pub fn serve(args: ServeArgs, log: &LogArgs) -> Outcome {
    process::harden()?;
    let mut faults = Faults::default();
    start_log(log, &mut faults);
    let environment = Environment::of_process();
    environment.check(&mut faults);
    let config = Config::check(args, &environment, &mut faults);
    let config = faults.finish(config).map_err(Failure::Configuration)?;
    drop(environment);
    block_on(async { Ok(app::run(config, shutdown::signalled(), |_| {}).await?) })
}

/// Starts logging; what is wrong with its settings is one of the faults.
pub fn start_log(log: &LogArgs, faults: &mut Faults) {
    let format = log
        .log_format
        .parse()
        .map_err(|why| faults.add("SEALPOD_LOG_FORMAT", why));
    if let Err(why) = telemetry::init(&log.log, format.unwrap_or_default()) {
        faults.add("SEALPOD_LOG", why);
    }
}

pub fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
