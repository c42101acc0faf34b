//! The table.

use std::fmt::Write as _;

use super::super::client::Times;
use super::super::figures::milliseconds;
use super::cases::{Bar, Percent};
use super::seed::Seed;

/// What was measured of one case.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub callers: usize,
    pub bar: Option<Bar>,
    /// By one caller, and by so many at a time.
    pub alone: Times,
    pub together: Times,
}

impl Line {
    fn verdict(&self) -> String {
        let Some(Bar { percent, most }) = self.bar else {
            return String::new();
        };
        let figure = |times: &Times| match percent {
            Percent::P50 => ("p50", times.p50),
            Percent::P99 => ("p99", times.p99),
        };
        let (name, slowest) = figure(&self.alone).max(figure(&self.together));
        let word = if slowest <= most { "PASS" } else { "MISS" };
        format!("{word}: {name} ≤ {} ms", most.as_millis())
    }
}

/// A Markdown table.
pub fn text(seed: &Seed, requests: usize, lines: &[Line]) -> String {
    let facts = &seed.facts;
    let mut text = format!(
        "\n{} audit entries, {} secrets, {} members; {requests} requests a case and concurrency\n\n",
        facts.audit_rows, facts.secrets, facts.members,
    );
    text += "| ms | p50 | p99 | max | /s | at a time | p50 | p99 | max | /s | bar |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for line in lines {
        let _ = write!(text, "| {}", line.name);
        for (callers, times) in [(None, &line.alone), (Some(line.callers), &line.together)] {
            if let Some(callers) = callers {
                let _ = write!(text, " | {callers}");
            }
            for time in [times.p50, times.p99, times.max] {
                let _ = write!(text, " | {:.2}", milliseconds(time));
            }
            let _ = write!(text, " | {:.0}", times.rate());
        }
        let _ = writeln!(text, " | {} |", line.verdict());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_case_passes_only_if_it_does_at_both_concurrencies() {
        const BAR: Bar = Bar {
            percent: Percent::P99,
            most: Duration::from_millis(20),
        };
        let measured = |milliseconds| Times {
            answers: 100,
            p50: Duration::from_millis(1),
            p99: Duration::from_millis(milliseconds),
            max: Duration::from_millis(99),
            took: Duration::from_secs(1),
        };
        let verdict = |alone, together, bar| {
            let line = Line {
                name: "org/x".to_owned(),
                callers: 8,
                bar,
                alone: measured(alone),
                together: measured(together),
            };
            line.verdict()
        };
        assert_eq!(verdict(1, 20, Some(BAR)), "PASS: p99 ≤ 20 ms");
        assert_eq!(verdict(1, 21, Some(BAR)), "MISS: p99 ≤ 20 ms");
        assert_eq!(verdict(21, 1, Some(BAR)), "MISS: p99 ≤ 20 ms");
        assert_eq!(verdict(21, 21, None), "");
    }
}
