//! The table.

use std::fmt::Write as _;
use std::time::Duration;

use sealpod_core::Time;

use super::cases::Bar;
use super::load::Measured;
use super::machine;
use super::seed::Seed;

/// What was measured of one case.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub callers: usize,
    pub bar: Option<Bar>,
    /// By one caller, and by so many at a time.
    pub alone: Measured,
    pub together: Measured,
}

impl Line {
    fn verdict(&self) -> String {
        let Some(Bar { percent, most }) = self.bar else {
            return String::new();
        };
        let slowest = self.alone.percentile(percent).max(self.together.percentile(percent));
        let word = if slowest <= most { "PASS" } else { "MISS" };
        format!("{word}: p{percent} ≤ {} ms", most.as_millis())
    }
}

/// A Markdown table with what one has to know to compare it with another.
pub fn text(seed: &Seed, flushes: &Measured, requests: usize, lines: &[Line]) -> String {
    let facts = &seed.facts;
    let mut text = format!(
        "\n{} · {}\n{} audit entries, {} secrets, {} members; {requests} requests a case and concurrency; \
         fdatasync p50 {} ms, p99 {} ms\n\n",
        &Time::now().to_string()[..10],
        machine::describe(),
        facts.audit_rows,
        facts.secrets,
        facts.members,
        milliseconds(flushes.percentile(50)),
        milliseconds(flushes.percentile(99)),
    );
    text += "| ms | p50 | p99 | max | /s | at a time | p50 | p99 | max | /s | bar |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|\n";
    for line in lines {
        let _ = write!(text, "| {}", line.name);
        for (callers, measured) in [(None, &line.alone), (Some(line.callers), &line.together)] {
            if let Some(callers) = callers {
                let _ = write!(text, " | {callers}");
            }
            for percent in [50, 99, 100] {
                let _ = write!(text, " | {}", milliseconds(measured.percentile(percent)));
            }
            let _ = write!(text, " | {:.0}", measured.rate());
        }
        let _ = writeln!(text, " | {} |", line.verdict());
    }
    text
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_passes_only_if_it_does_at_both_concurrencies() {
        const BAR: Bar = Bar {
            percent: 99,
            most: Duration::from_millis(20),
        };
        let measured = |milliseconds| Measured::of(vec![Duration::from_millis(milliseconds); 100], BAR.most);
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
