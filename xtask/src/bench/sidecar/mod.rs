//! The sidecar as its container runs it, and beside it `bao agent`, which does the same for OpenBao.

mod agent;
mod cluster;
mod pods;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use tokio::runtime::Runtime;

use super::bars::{Bars, Depends, Limit};
use super::cgroup::Group;
use super::child::{self, Memory};
use super::client::Client;
use super::disk::Flushes;
use super::figures::{median, mib, milliseconds, percentile, shown};
use super::peer::openbao::{self, OpenBao};
use super::{Programs, header, machine};
use crate::images;
use crate::prerequisites;
use crate::process::Failure;
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};
use agent::Agent;
use pods::{Pods, Running};

/// How long a file may take to show what it has to.
const WITHIN: Duration = Duration::from_mins(1);

/// Bindings of the sidecar that polls so often: each polls for itself, at most four times in a second, because a sidecar
/// rests after a change. Each has all 20 files, so that no pod with fewer takes more memory.
const BINDINGS: usize = 5;

#[derive(Debug, Args)]
pub struct Options {
    /// Sidecars that watch while values change
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    sidecars: u16,

    /// Values that change while all of them watch, half a second apart
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    changes: u16,

    /// Polls of one sidecar, each with a change of its 20 files, before its memory is looked at: twenty in a second
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    polls: usize,

    /// Starts of each program
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    starts: u16,

    /// How long nothing happens, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    rest: u64,

    /// Injected pods on the local cluster that watch while values change; 0: no cluster
    #[arg(long, value_name = "N", default_value_t = 100)]
    pods: usize,
}

/// What is asked of both.
#[derive(Debug, Default)]
struct Figures {
    starts: Vec<Duration>,
    changes: Vec<Duration>,
    /// Answers that it had before its memory was looked at; none where it does not tell.
    polls: Option<usize>,
    memory: Memory,
    /// Of its control group, in KiB; none where this process may not make one.
    group: Option<u64>,
    /// Thousandths of a processor while nothing happens.
    millicores: f64,
}

/// Measures both, holds ours against the bars and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if options.pods > 0 {
        prerequisites::require_root("a cluster for the pods, which `--pods 0` leaves out,")?;
    }
    let load = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench").join("sidecar");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    prerequisites::ensure_bench_tools(workspace, &mut progress)?;
    let programs = super::build(workspace, &mut progress)?;
    let program = progress.step("Building the sidecar", |step| {
        images::program(workspace, "sealpod-sidecar", step)
    })?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let runtime = Runtime::new()?;
    let ours = ours(options, workspace, (&programs, &program), &mut progress, &runtime)?;
    let bao = openbao::install(workspace, &mut progress)?;
    let version = openbao::version(&bao)?;
    let theirs = theirs(options, workspace, (&programs, bao), &mut progress, &runtime)?;
    let mut bars = Bars::new(&flushes);
    hold(&mut bars, &ours);
    let mut table = table(options, &ours, &theirs);
    if options.pods > 0 {
        let fleet = cluster::measure(options, workspace, &runtime, &mut progress)?;
        fleet.hold(&mut bars);
        table += &fleet.table();
    }
    let size = fs::metadata(&program)?.len() / 1024;
    print!(
        "\n{}\nload before it began {load}; {}\n\nthe sidecar ({} MiB, static) beside `bao agent` of {version}\n\n{table}{}",
        header(workspace, &programs.server)?,
        flushes.describe(),
        shown(mib(size)),
        bars.text()
    );
    Ok(())
}

fn ours(
    options: &Options,
    workspace: &Workspace,
    (programs, program): (&Programs, &Path),
    progress: &mut Progress,
    runtime: &Runtime,
) -> Result<Figures> {
    let directory = workspace.target.join("bench").join("sidecar");
    let pods = progress.step("Starting the server", |_| {
        Pods::new(&programs.server, program, &directory, runtime)
    })?;
    let mut figures = Figures::default();
    let mut values = 0;
    progress.step("Starts", |_| {
        for _ in 0..options.starts {
            let began = Instant::now();
            let running = pods.start("init")?;
            figures.starts.push(until(&[&running], &value(values), began)?[0]);
        }
        anyhow::Ok(())
    })?;
    let fleet = progress.step(&format!("{} sidecars", options.sidecars), |_| {
        let fleet: Vec<_> = (0..options.sidecars)
            .map(|_| pods.start("run"))
            .collect::<Result<_>>()?;
        until(&fleet.iter().collect::<Vec<_>>(), &value(values), Instant::now())?;
        Ok(fleet)
    })?;
    progress.step("Values that change", |_| {
        for _ in 0..options.changes {
            std::thread::sleep(Duration::from_millis(500));
            values += 1;
            pods.change(runtime, values)?;
            let all: Vec<_> = fleet.iter().collect();
            figures.changes.extend(until(&all, &value(values), Instant::now())?);
        }
        anyhow::Ok(())
    })?;
    drop(fleet);
    progress.step(&format!("{} polls", options.polls), |step| {
        let group = Group::make("sidecar");
        let one = pods.start_apart(BINDINGS, group.as_ref())?.in_group(group);
        until(&[&one], &value(values), Instant::now())?;
        while one.polls()? < options.polls {
            for _ in 0..options.polls.div_ceil(BINDINGS).min(100) {
                values += 1;
                pods.change(runtime, values)?;
                until(&[&one], &value(values), Instant::now())?;
            }
            step.follow(&format!("{} answers", one.polls()?));
        }
        figures.polls = Some(one.polls()?);
        rest(&one, options.rest, &mut figures)
    })?;
    Ok(figures)
}

fn theirs(
    options: &Options,
    workspace: &Workspace,
    (programs, program): (&Programs, PathBuf),
    progress: &mut Progress,
    runtime: &Runtime,
) -> Result<Figures> {
    let client = Client {
        program: programs.client.clone(),
        log: workspace.target.join("bench").join("sidecar").join("client.log"),
    };
    let directory = workspace.target.join("bench").join("sidecar").join("openbao");
    let agent = progress.step("Loading OpenBao", |step| {
        let openbao = OpenBao::prepare(program.clone(), &client, directory, runtime, step)?;
        Agent::new(program, openbao, runtime)
    })?;
    let mut figures = Figures::default();
    agent.set(runtime, 0)?;
    progress.step("Starts of its agent", |_| {
        for _ in 0..options.starts {
            let began = Instant::now();
            let running = agent.start(None)?;
            figures.starts.push(until(&[&running], &value(0), began)?[0]);
        }
        anyhow::Ok(())
    })?;
    let one = agent.start(Group::make("agent"))?;
    until(&[&one], &value(0), Instant::now())?;
    progress.step("Values that change", |_| {
        for number in 1..=usize::from(options.changes) {
            agent.set(runtime, number)?;
            figures.changes.extend(until(&[&one], &value(number), Instant::now())?);
        }
        anyhow::Ok(())
    })?;
    progress.step("Nothing happens", |_| rest(&one, options.rest, &mut figures))?;
    Ok(figures)
}

/// The value that is looked at, after so many changes.
fn value(number: usize) -> String {
    format!("value {number}")
}

/// When each file showed `value`, from `began` on.
fn until(running: &[&Running], value: &str, began: Instant) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(running.len());
    let mut left: Vec<_> = running.iter().flat_map(|running| &running.files).collect();
    while !left.is_empty() {
        left.retain(|file| {
            let shows = fs::read_to_string(file).is_ok_and(|text| text == value);
            if shows {
                took.push(began.elapsed());
            }
            !shows
        });
        if began.elapsed() > WITHIN {
            let file = left[0].display();
            return Err(Failure::new(format!("{file} does not show its value within {} s", WITHIN.as_secs())).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(took)
}

/// What it takes while nothing happens.
fn rest(one: &Running, seconds: u64, figures: &mut Figures) -> Result<()> {
    let pid = one.process.pid();
    figures.memory = child::memory(pid)?;
    // What the last changes brought about ends first: a sidecar keeps the files of before for 5 s.
    std::thread::sleep(Duration::from_secs(7));
    let before = child::cpu(pid)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let worked = child::cpu(pid)?.saturating_sub(before);
    figures.millicores = worked.as_secs_f64() * 1_000.0 / Duration::from_secs(seconds).as_secs_f64();
    figures.group = one.group.as_ref().map(Group::memory).transpose()?;
    Ok(())
}

fn percentiles(times: &[Duration]) -> (f64, f64) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    (
        milliseconds(percentile(&sorted, 50)),
        milliseconds(percentile(&sorted, 99)),
    )
}

fn hold(bars: &mut Bars, ours: &Figures) {
    let mut at_most = |what: &str, most: f64, unit: &str, depends, figure| {
        bars.hold(what, Limit::AtMost(most), unit, depends, figure);
    };
    let resident = mib(ours.memory.resident);
    at_most("resident memory", 8.0, "MiB", Depends::OnNothing, resident);
    if let Some(group) = ours.group {
        at_most(
            "memory of its control group",
            8.0,
            "MiB",
            Depends::OnNothing,
            mib(group),
        );
    }
    at_most("idle", 1.0, "millicores", Depends::OnNothing, ours.millicores);
    let start = median(ours.starts.iter().copied()).map_or(0.0, milliseconds);
    at_most("start → first file, median", 100.0, "ms", Depends::OnNothing, start);
    let (p50, p99) = percentiles(&ours.changes);
    at_most("change → file, p50", 200.0, "ms", Depends::OnDisk, p50);
    at_most("change → file, p99", 1_000.0, "ms", Depends::OnDisk, p99);
}

fn table(options: &Options, ours: &Figures, theirs: &Figures) -> String {
    let mut text = "| | sidecar | bao agent |\n|---|---|---|\n".to_owned();
    let mut row = |what: &str, figure: &dyn Fn(&Figures) -> String| {
        let _ = writeln!(text, "| {what} | {} | {} |", figure(ours), figure(theirs));
    };
    row("start → first file, median, ms", &|of| {
        shown(median(of.starts.iter().copied()).map_or(0.0, milliseconds))
    });
    let what = format!(
        "change → file, p50 / p99, ms; {} sidecars that wait, one agent that asks each second",
        options.sidecars
    );
    row(&what, &|of| {
        let (p50, p99) = percentiles(&of.changes);
        format!("{} / {}", shown(p50), shown(p99))
    });
    let what = format!(
        "resident memory, MiB; the sidecar's after {} polls, of {BINDINGS} bindings with 20 files each",
        ours.polls.unwrap_or_default()
    );
    row(&what, &|of| shown(mib(of.memory.resident)));
    row("of it proportional, MiB", &|of| shown(mib(of.memory.proportional)));
    row("the most that was resident, MiB", &|of| shown(mib(of.memory.peak)));
    row("memory of its control group at the end, MiB", &|of| {
        of.group
            .map_or_else(|| "not counted here".to_owned(), |kib| shown(mib(kib)))
    });
    row("idle, millicores", &|of| shown(of.millicores));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_held_against_its_own_figure() {
        let figures = Figures {
            starts: vec![Duration::from_millis(40); 3],
            changes: (1..=100).map(Duration::from_millis).collect(),
            memory: Memory {
                resident: 9 << 10,
                ..Memory::default()
            },
            group: Some(6 << 10),
            millicores: 0.5,
            polls: None,
        };
        let mut bars = Bars::new(&Flushes::of(vec![Duration::from_micros(100)]));
        hold(&mut bars, &figures);
        let text = bars.text();
        for line in [
            "| resident memory | ≤ 8 MiB | 9.0 MiB | **MISS** |",
            "| memory of its control group | ≤ 8 MiB | 6.0 MiB | PASS |",
            "| idle | ≤ 1 millicores | 0.50 millicores | PASS |",
            "| start → first file, median | ≤ 100 ms | 40.0 ms | PASS |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("PASS").count(), 5, "{text}");
    }
}
