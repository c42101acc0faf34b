//! The planes with the data of a large organization after years.

mod cases;
mod planes;
mod report;
mod seed;

use anyhow::Result;

use super::Bench;
use super::server::Launch;
use crate::process::Failure;
use cases::Case;
use report::Line;
use seed::Seed;

/// For `--filter`: how the names of the cases begin.
pub const NAMES: [&str; 3] = ["org/", "applications/", "read/"];
const WARM_UP: usize = 50;

/// Asks for each case alone and by several at a time; answers the table.
pub fn run(bench: &mut Bench) -> Result<String> {
    let options = bench.options;
    let seed = bench.progress.step("Filling the database", |step| {
        Seed::prepare((&bench.server, &bench.seed), &bench.directory, options, step)
    })?;
    let launch = Launch::new(&bench.server, &seed.folder)?;
    let server = bench.progress.step("Starting the server", |_| launch.start())?;
    let wanted = |case: &Case| options.names(&case.name);
    let mut cases: Vec<Case> = cases::all(&seed).into_iter().filter(wanted).collect();
    if planes::NAMES.iter().any(|name| options.names(name)) {
        let made = bench.progress.step("Making applications", |step| {
            bench
                .runtime
                .block_on(planes::all(&server, &launch.admin_key, &seed, step))
        })?;
        cases.extend(made.into_iter().filter(wanted));
    }
    let mut lines = Vec::new();
    for case in cases {
        let line = bench.progress.step(&case.name, |_| {
            let count = WARM_UP + case.most.map_or(options.requests, |most| options.requests.min(most));
            let [alone, together] = [1, case.callers].map(|callers| {
                let requests = case.requests(count);
                bench.client.ask(server.address, callers, WARM_UP, &requests)
            });
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
    if lines.is_empty() {
        return Err(Failure::new(format!("no case has `{}` in its name", options.filter)).into());
    }
    Ok(report::text(&seed, options.requests, &lines))
}
