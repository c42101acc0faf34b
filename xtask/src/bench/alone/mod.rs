//! What OpenBao has nothing to compare with, and what we promise whoever runs us.

mod polls;
mod strace;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Bench;
use super::bars::{Depends, Limit};
use super::child;
use super::figures::{Rows, median, mib, milliseconds, shown};
use super::server::Server;
use super::stage::Stage;
use super::wrk::{Load, Plan};
use polls::Over;

/// For `--filter`.
pub const NAMES: [&str; 9] = [
    START, LONE_WRITE, BUNDLE, SAME, MEMORY, WAKE, POLLS[0].0, POLLS[1].0, POLLS[2].0,
];
const START: &str = "alone/start";
const LONE_WRITE: &str = "alone/lone write";
const BUNDLE: &str = "alone/bundle";
const SAME: &str = "alone/304";
const MEMORY: &str = "alone/memory";
const WAKE: &str = "alone/wake";
const POLLS: [(&str, Over); 3] = [
    ("alone/polls over HTTP", Over::Http),
    ("alone/polls over TLS", Over::Tls),
    ("alone/polls over TLS, HTTP/2", Over::Http2),
];

/// What the sidecar of a pod with many secrets asks for.
const BUNDLE_KEYS: usize = 20;
const STARTS: usize = 5;
const WRITES: usize = 20;
const CONNECTIONS: [usize; 2] = [16, 64];
/// Requests behind which the memory is looked at.
const MANY: u64 = 1_000_000;
/// Until then at the longest.
const MANY_WITHIN: Duration = Duration::from_mins(4);
/// On as many connections as the disk allows for, so that it does not take longer than it must.
const MANY_CONNECTIONS: usize = 64;
/// How long each run of wrk takes meanwhile.
const SLICE: u64 = 10;

/// Measures what the filter names, holds it against the bars and answers the table.
pub fn run(bench: &mut Bench) -> Result<String> {
    bench.prepare_stage()?;
    let wanted = |bench: &Bench, name: &str| bench.options.names(name);
    let mut rows = Rows::default();
    if wanted(bench, START) {
        start(bench, &mut rows)?;
    }
    if [LONE_WRITE, BUNDLE, SAME, MEMORY]
        .iter()
        .any(|name| wanted(bench, name))
    {
        let server = stage(bench).launch.start()?;
        if wanted(bench, LONE_WRITE) {
            lone_write(bench, &server, &mut rows)?;
        }
        if wanted(bench, BUNDLE) {
            let plan = bundle(stage(bench), &server);
            ask(bench, &server, &plan, &mut rows)?;
        }
        if wanted(bench, SAME) {
            let plan = same(bench, &server)?;
            ask(bench, &server, &plan, &mut rows)?;
        }
        if wanted(bench, MEMORY) {
            memory(bench, &server, &mut rows)?;
        }
    }
    if wanted(bench, WAKE) {
        polls::wake(bench, &mut rows)?;
    }
    for (name, over) in POLLS {
        if wanted(bench, name) {
            polls::wait(bench, over, &mut rows)?;
        }
    }
    Ok(format!("\n| Sealpod alone | |\n|---|---|\n{}", rows.0))
}

fn stage<'a>(bench: &'a Bench) -> &'a Stage {
    bench
        .stage
        .as_ref()
        .expect("it was prepared before anything is measured")
}

fn start(bench: &mut Bench, rows: &mut Rows) -> Result<()> {
    let launch = stage(bench).launch.clone();
    let times = bench.progress.step("Starting it again and again", |_| {
        (0..STARTS)
            .map(|_| {
                let server = launch.start()?;
                let took = server.ready_after;
                server.process.stop()?;
                Ok(took)
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let most = times.iter().max().copied().unwrap_or_default();
    let took = milliseconds(median(times).unwrap_or_default());
    rows.add(
        "start to ready, 10,000 secrets",
        &format!(
            "{} ms, at the most {} ms of {STARTS}",
            shown(took),
            shown(milliseconds(most))
        ),
    );
    let what = "start to ready, 10,000 secrets";
    bench.bars.hold(what, Limit::AtMost(200.0), "ms", Depends::OnDisk, took);
    Ok(())
}

/// Writes that come one after the other, with nothing else to share a flush with.
fn lone_write(bench: &mut Bench, server: &Server, rows: &mut Rows) -> Result<()> {
    let requests: Vec<_> = (0..WRITES).map(|n| stage(bench).put(n)).collect();
    let (client, directory) = (bench.client.clone(), bench.directory.clone());
    let flushes = bench.progress.step("Counting the flushes of lone writes", |_| {
        strace::flushes(server.process.pid(), &directory, || {
            client.ask(server.address, 1, 0, &requests).map(drop)
        })
    })?;
    let Some(flushes) = flushes else {
        rows.add(
            "flushes of a lone write",
            "not counted: there is no strace on this machine",
        );
        return Ok(());
    };
    #[allow(clippy::cast_precision_loss, reason = "a few of them")]
    let each = flushes as f64 / WRITES as f64;
    rows.add(
        "flushes of a lone write",
        &format!("{} (fdatasync and fsync; {flushes} of {WRITES} writes)", shown(each)),
    );
    bench
        .bars
        .hold("a lone write", Limit::AtMost(2.0), "flushes", Depends::OnNothing, each);
    Ok(())
}

fn bundle(stage: &Stage, server: &Server) -> Plan {
    Plan {
        name: "bundle of 20 keys",
        path: Stage::bundle(BUNDLE_KEYS),
        keys: 1,
        ..stage.read(server)
    }
}

/// The same question by somebody who has the answer.
fn same(bench: &Bench, server: &Server) -> Result<Plan> {
    let mut plan = bundle(stage(bench), server);
    let etag = bench.runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut request = client.get(format!("{}{}", server.url(), plan.path));
        for (name, value) in &plan.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await?.error_for_status()?;
        let etag = response.headers().get("etag").context("a bundle has an ETag")?;
        Ok::<_, anyhow::Error>(etag.to_str()?.to_owned())
    })?;
    plan.name = "304 to the same";
    plan.headers.push(("if-none-match", etag));
    plan.expect = 304;
    Ok(plan)
}

fn ask(bench: &mut Bench, server: &Server, plan: &Plan, rows: &mut Rows) -> Result<()> {
    let (wrk, seconds) = (&bench.wrk, bench.options.seconds);
    bench.progress.step(&format!("Asking for a {}", plan.name), |_| {
        wrk.check(plan, CONNECTIONS[0])?;
        for connections in CONNECTIONS {
            let before = child::cpu(server.process.pid())?;
            let load = wrk.run(plan, connections, seconds)?;
            let worked = child::cpu(server.process.pid())?.saturating_sub(before);
            rows.add(
                &format!("{}, {connections} connections", plan.name),
                &described(&load, worked),
            );
        }
        Ok(())
    })
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
fn described(load: &Load, worked: Duration) -> String {
    let [p50, p99] = [load.p50, load.p99].map(|time| shown(milliseconds(time)));
    let cpu = worked.as_secs_f64() * 1_000.0 / load.requests as f64;
    format!(
        "{:.0} /s; p50 {p50} ms, p99 {p99} ms; CPU {cpu:.3} s for 1,000",
        load.rate()
    )
}

fn memory(bench: &mut Bench, server: &Server, rows: &mut Rows) -> Result<()> {
    let plan = stage(bench).read(server);
    let wrk = &bench.wrk;
    let done = bench.progress.step("Reading a million times", |step| {
        let (began, mut done) = (std::time::Instant::now(), 0);
        while done < MANY && began.elapsed() < MANY_WITHIN {
            step.follow(&format!("{done} requests"));
            done += wrk.run(&plan, MANY_CONNECTIONS, SLICE)?.requests;
        }
        Ok(done)
    })?;
    thread::sleep(Duration::from_secs(1));
    let memory = child::memory(server.process.pid())?;
    let [now, peak, proportional] = [memory.resident, memory.peak, memory.proportional].map(|kib| shown(mib(kib)));
    rows.add(
        &format!("resident memory after {done} reads on {MANY_CONNECTIONS} connections"),
        &format!("{now} MiB (proportional {proportional} MiB), at the most {peak} MiB"),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_described_by_what_it_cost_the_server() {
        let load = Load {
            requests: 20_000,
            took: Duration::from_secs(2),
            p50: Duration::from_micros(900),
            p99: Duration::from_millis(4),
            max: Duration::from_millis(9),
        };
        assert_eq!(
            described(&load, Duration::from_secs(1)),
            "10000 /s; p50 0.90 ms, p99 4.0 ms; CPU 0.050 s for 1,000"
        );
    }
}
