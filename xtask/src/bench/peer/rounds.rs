//! Rounds of wrk, by turns, so that whatever else the machine does meets all alike.

use std::time::Duration;

use anyhow::Result;

use super::super::child;
use super::super::figures::median;
use super::super::wrk::{Plan, Wrk};
use crate::progress::Step;

/// Something of a server that is asked for.
#[derive(Debug)]
pub struct Subject {
    pub plan: Plan,
    pub pid: u32,
}

/// One run of wrk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Answers in a second.
    pub rate: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Seconds of a processor that the server worked for 1,000 answers.
    pub cpu: f64,
}

impl Run {
    /// Of each figure the one in the middle.
    pub fn median(runs: &[Self]) -> Option<Self> {
        Some(Self {
            rate: median(runs.iter().map(|run| run.rate))?,
            p50: median(runs.iter().map(|run| run.p50))?,
            p99: median(runs.iter().map(|run| run.p99))?,
            cpu: median(runs.iter().map(|run| run.cpu))?,
        })
    }
}

/// Medians, by the index of the subject and then of the number of connections.
pub type Medians = Vec<Vec<Run>>;

/// Every subject at every number of connections, in every round; each other round begins with the last subject.
pub fn measure(
    wrk: &Wrk,
    subjects: &[Subject],
    connections: &[usize],
    (rounds, seconds): (u16, u64),
    step: &Step,
) -> Result<Medians> {
    for subject in subjects {
        wrk.check(&subject.plan, connections.iter().copied().max().unwrap_or(1))?;
    }
    let mut runs = vec![vec![Vec::with_capacity(rounds.into()); connections.len()]; subjects.len()];
    for round in 0..rounds {
        for (at, count) in connections.iter().enumerate() {
            for turn in 0..subjects.len() {
                let index = if round % 2 == 0 {
                    turn
                } else {
                    subjects.len() - 1 - turn
                };
                let subject = &subjects[index];
                step.note(&format!(
                    "round {} of {rounds}: {} on {count} connections",
                    round + 1,
                    subject.plan.name
                ));
                runs[index][at].push(run(wrk, subject, *count, seconds)?);
            }
        }
    }
    let medians = runs
        .iter()
        .map(|runs| runs.iter().filter_map(|runs| Run::median(runs)).collect());
    Ok(medians.collect())
}

#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn run(wrk: &Wrk, subject: &Subject, connections: usize, seconds: u64) -> Result<Run> {
    let before = child::cpu(subject.pid)?;
    let load = wrk.run(&subject.plan, connections, seconds)?;
    let worked = child::cpu(subject.pid)?.saturating_sub(before);
    Ok(Run {
        rate: load.rate(),
        p50: load.p50,
        p99: load.p99,
        cpu: worked.as_secs_f64() * 1_000.0 / load.requests as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_of_the_median_is_that_of_some_round() {
        let run = |rate, p50, p99, cpu| Run {
            rate,
            p50: Duration::from_millis(p50),
            p99: Duration::from_millis(p99),
            cpu,
        };
        let runs = [run(100.0, 1, 30, 0.2), run(300.0, 2, 10, 0.3), run(200.0, 3, 20, 0.1)];
        assert_eq!(Run::median(&runs), Some(run(200.0, 2, 20, 0.2)));
        assert_eq!(Run::median(&[]), None);
    }
}
