//! The table.

use std::fmt::Write as _;
use std::time::Duration;

use sealpod_core::Time;

use super::BAR;
use super::load::Measured;
use super::machine;
use super::seed::Seed;

/// What was measured of one case.
#[derive(Debug)]
pub struct Line {
    pub name: String,
    pub judged: bool,
    /// By one caller, and by eight at a time.
    pub alone: Measured,
    pub together: Measured,
}

impl Line {
    fn verdict(&self) -> &'static str {
        let slowest = self.alone.percentile(99).max(self.together.percentile(99));
        match (self.judged, slowest <= BAR) {
            (false, _) => "",
            (true, true) => "PASS",
            (true, false) => "MISS",
        }
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
    text += "| ms | p50 | p99 | max | /s | p50, 8 at a time | p99 | max | /s | p99 ≤ 20 ms |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for line in lines {
        let _ = write!(text, "| {}", line.name);
        for measured in [&line.alone, &line.together] {
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
        let measured = |milliseconds| Measured::of(vec![Duration::from_millis(milliseconds); 100], BAR);
        let verdict = |alone, together, judged| {
            let line = Line {
                name: "org/x".to_owned(),
                judged,
                alone: measured(alone),
                together: measured(together),
            };
            line.verdict()
        };
        assert_eq!(verdict(1, 20, true), "PASS");
        assert_eq!(verdict(1, 21, true), "MISS");
        assert_eq!(verdict(21, 1, true), "MISS");
        assert_eq!(verdict(21, 21, false), "");
    }
}
