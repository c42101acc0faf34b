//! The same work for us and for OpenBao, side by side and by turns.

pub mod openbao;
mod rounds;

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::bars::{Bars, Depends, Limit};
use super::child::{self, Memory};
use super::figures::{mib, milliseconds, shown};
use openbao::OpenBao;
use rounds::{Medians, Run, Subject};

/// For `--filter`.
pub const NAMES: [&str; 2] = ["peer/read", "peer/write"];
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// How long a server is left alone before it is said to be idle.
const REST: Duration = Duration::from_secs(3);
/// Names of the lines: what we are asked for beside what OpenBao is asked for, by their indexes below.
const LINES: [(&str, usize, usize); 3] = [
    ("read by a service account", READ, READ_FROM_OPENBAO),
    ("read by an application", READ_BY_APPLICATION, READ_FROM_OPENBAO),
    ("write", WRITE, WRITE_TO_OPENBAO),
];
const READ_FROM_OPENBAO: usize = 0;
const READ: usize = 1;
const READ_BY_APPLICATION: usize = 2;
const WRITE_TO_OPENBAO: usize = 3;
const WRITE: usize = 4;

/// Figures of OpenBao and of us, in this order.
#[derive(Debug)]
struct Measured {
    version: String,
    medians: Medians,
    idle: [Memory; 2],
    loaded: [Memory; 2],
}

/// Measures both, holds ours against the bars and answers the tables.
pub fn run(bench: &mut Bench) -> Result<String> {
    bench.prepare_stage()?;
    let program = openbao::install(bench.workspace, &mut bench.progress)?;
    let version = openbao::version(&program)?;
    let directory = bench.directory.join("openbao");
    let openbao = bench.progress.step("Loading OpenBao", |step| {
        OpenBao::prepare(program, &bench.client, directory, &bench.runtime, step)
    })?;
    let stage = bench.stage.as_ref().expect("it was prepared above");
    let (bao, server) = bench.progress.step("Starting both", |_| {
        Ok((openbao.start(&bench.runtime)?, stage.launch.start()?))
    })?;
    let pids = [bao.process.pid(), server.process.pid()];
    let memory = || -> Result<[Memory; 2]> { Ok([child::memory(pids[0])?, child::memory(pids[1])?]) };
    thread::sleep(REST);
    let idle = memory()?;
    let theirs = |plan| Subject { plan, pid: pids[0] };
    let ours = |plan| Subject { plan, pid: pids[1] };
    let subjects = [
        theirs(openbao.read(&bao)),
        ours(stage.read(&server)),
        ours(stage.read_by_application(&server)),
        theirs(openbao.write(&bao)),
        ours(stage.write(&server)),
    ];
    let lengths = (bench.options.rounds, bench.options.seconds);
    let medians = bench.progress.step("Asking both by turns", |step| {
        rounds::measure(&bench.wrk, &subjects, &CONNECTIONS, lengths, step)
    })?;
    let measured = Measured {
        version,
        medians,
        idle,
        loaded: memory()?,
    };
    measured.hold(&mut bench.bars);
    Ok(measured.text(&format!("{} × {} s", lengths.0, lengths.1)))
}

impl Measured {
    /// Ours and theirs at so many connections.
    fn pair(&self, (_, ours, theirs): (&str, usize, usize), connections: usize) -> Option<(Run, Run)> {
        let at = CONNECTIONS.iter().position(|count| *count == connections)?;
        let run = |subject: usize| self.medians.get(subject)?.get(at).copied();
        run(ours).zip(run(theirs))
    }

    fn hold(&self, bars: &mut Bars) {
        for line in LINES {
            let (connections, least, p50, p99) = match line.1 {
                WRITE => (64, 4.0, None, 50.0),
                _ => (16, 10.0, Some(1.0), 10.0),
            };
            let Some((ours, theirs)) = self.pair(line, connections) else {
                continue;
            };
            let what = format!("{}, {connections} connections", line.0);
            let ratio = ours.rate / theirs.rate;
            bars.hold(&what, Limit::AtLeast(least), "× OpenBao", Depends::OnNothing, ratio);
            let mut time = |name: &str, most, figure| {
                let figure = milliseconds(figure);
                bars.hold(
                    &format!("{what}, {name}"),
                    Limit::AtMost(most),
                    "ms",
                    Depends::OnDisk,
                    figure,
                );
            };
            if let Some(most) = p50 {
                time("p50", most, ours.p50);
            }
            time("p99", p99, ours.p99);
        }
        let memory = [
            ("resident memory, idle", 20.0, self.idle[1].resident),
            ("resident memory, under load", 64.0, self.loaded[1].peak),
        ];
        for (what, most, kib) in memory {
            bars.hold(what, Limit::AtMost(most), "MiB", Depends::OnNothing, mib(kib));
        }
    }

    fn text(&self, lengths: &str) -> String {
        let mut text = format!(
            "\nSealpod beside {}: medians of {lengths}; p50 and p99 in ms, CPU in seconds for 1,000 requests\n\n",
            self.version
        );
        text += "| | connections | OpenBao /s | p50 | p99 | CPU | Sealpod /s | p50 | p99 | CPU | ratio /s | CPU |\n";
        text += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
        for line in LINES {
            for connections in CONNECTIONS {
                let Some((ours, theirs)) = self.pair(line, connections) else {
                    continue;
                };
                let _ = write!(text, "| {} | {connections} |", line.0);
                for run in [theirs, ours] {
                    let (p50, p99) = (milliseconds(run.p50), milliseconds(run.p99));
                    let _ = write!(
                        text,
                        " {:.0} | {} | {} | {:.3} |",
                        run.rate,
                        shown(p50),
                        shown(p99),
                        run.cpu
                    );
                }
                let cpu = theirs.cpu / ours.cpu.max(f64::EPSILON);
                let _ = writeln!(text, " {:.1} × | {cpu:.1} × less |", ours.rate / theirs.rate);
            }
        }
        text +=
            "\n| memory, MiB | OpenBao | of it proportional | Sealpod | of it proportional |\n|---|---|---|---|---|\n";
        let resident = |memory: Memory| (memory.resident, memory.proportional);
        let peak = |memory: Memory| (memory.peak, memory.proportional);
        for (what, [theirs, ours]) in [
            ("idle, with 10,000 secrets", self.idle.map(resident)),
            ("the most under load; proportional at its end", self.loaded.map(peak)),
        ] {
            let _ = write!(text, "| {what} |");
            for kib in [theirs.0, theirs.1, ours.0, ours.1] {
                let _ = write!(text, " {} |", shown(mib(kib)));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Flushes;
    use super::*;

    fn measured() -> Measured {
        let run = |rate, p50, p99, cpu| Run {
            rate,
            p50: Duration::from_micros(p50),
            p99: Duration::from_micros(p99),
            cpu,
        };
        let theirs = run(1_000.0, 10_000, 20_000, 0.8);
        let [quick, slow] = [run(10_000.0, 1_000, 10_000, 0.1), run(3_999.0, 1_001, 50_001, 0.2)];
        let memory = |resident, peak| Memory {
            resident,
            peak,
            ..Memory::default()
        };
        Measured {
            version: "OpenBao v1".to_owned(),
            medians: [theirs, quick, slow, theirs, slow].map(|run| vec![run; 3]).into(),
            idle: [memory(90 << 10, 90 << 10), memory(16 << 10, 18 << 10)],
            loaded: [memory(90 << 10, 200 << 10), memory(30 << 10, 65 << 10)],
        }
    }

    #[test]
    fn every_bar_of_the_comparison_is_held_against_its_own_figure() {
        let mut bars = Bars::new(&Flushes::of(vec![Duration::from_micros(100)]));
        measured().hold(&mut bars);
        let text = bars.text();
        for line in [
            "| read by a service account, 16 connections | ≥ 10 × OpenBao | 10.0 × OpenBao | PASS |",
            "| read by a service account, 16 connections, p50 | ≤ 1 ms | 1.0 ms | PASS |",
            "| read by a service account, 16 connections, p99 | ≤ 10 ms | 10.0 ms | PASS |",
            "| read by an application, 16 connections | ≥ 10 × OpenBao | 4.0 × OpenBao | **MISS** |",
            "| read by an application, 16 connections, p50 | ≤ 1 ms | 1.0 ms | **MISS** |",
            "| write, 64 connections | ≥ 4 × OpenBao | 4.0 × OpenBao | **MISS** |",
            "| write, 64 connections, p99 | ≤ 50 ms | 50.0 ms | **MISS** |",
            "| resident memory, idle | ≤ 20 MiB | 16.0 MiB | PASS |",
            "| resident memory, under load | ≤ 64 MiB | 65.0 MiB | **MISS** |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_table_shows_both_and_how_much_more_of_ours_there_is() {
        let text = measured().text("3 × 5 s");
        let line = "| read by a service account | 16 | 1000 | 10.0 | 20.0 | 0.800 | 10000 | 1.0 | 10.0 | 0.100 | 10.0 × | 8.0 × less |";
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains("| idle, with 10,000 secrets | 90.0 | 0.00 | 16.0 | 0.00 |"),
            "{text}"
        );
        assert!(text.contains("beside OpenBao v1: medians of 3 × 5 s"), "{text}");
    }
}
