//! What is being done, and how long each step took.
//!
//! Progress goes to standard error, so that standard output carries only results (`cluster up` prints a path there).

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs steps one after the other and remembers their times.
#[derive(Debug)]
pub struct Progress {
    interactive: bool,
    done: Vec<(String, Duration)>,
}

/// The step that is under way.
#[derive(Debug)]
pub struct Step {
    title: String,
    begun: Instant,
    /// `None`: plain lines.
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Draws a spinner on a terminal, and plain lines elsewhere and in CI.
    pub fn new() -> Self {
        let interactive = std::io::stdout().is_terminal() && std::io::stderr().is_terminal() && !in_ci();
        Self {
            interactive,
            done: Vec::new(),
        }
    }

    /// Plain lines even on a terminal, for steps whose programs write to it themselves.
    pub fn plain() -> Self {
        Self {
            interactive: false,
            done: Vec::new(),
        }
    }

    /// Runs `work` as the step `title`; the title says what happens, in the present ("Starting the cluster").
    pub fn step<T>(&mut self, title: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step::begin(title, self.interactive);
        let result = work(&step);
        let took = step.begun.elapsed();
        step.end(result.is_ok(), took);
        self.done.push((title.to_string(), took));
        result
    }

    /// A line that is no step: a result, or what was skipped and why.
    pub fn say(&self, line: &str) {
        if self.interactive {
            eprintln!("  {line}");
        } else {
            eprintln!("{line}");
        }
    }

    /// The steps in their order and the time each took.
    pub fn times(&self) -> &[(String, Duration)] {
        &self.done
    }
}

impl Step {
    fn begin(title: &str, interactive: bool) -> Self {
        let spinner = interactive.then(|| {
            let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::new_spinner()
                .with_style(style)
                .with_message(title.to_string());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        if spinner.is_none() {
            eprintln!("{title} …");
        }
        Self {
            title: title.to_string(),
            begun: Instant::now(),
            spinner,
        }
    }

    /// Says what the step is at. On a terminal it replaces the last note.
    pub fn note(&self, note: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(format!("{}: {note}", self.title)),
            None => eprintln!("  {note}"),
        }
    }

    /// Shows what the step is doing right now, on a terminal only: it changes too often for a log.
    pub fn follow(&self, line: &str) {
        if let Some(spinner) = &self.spinner {
            let line: String = line.trim().chars().take(60).collect();
            spinner.set_message(format!("{}: {line}", self.title));
        }
    }

    fn end(self, ok: bool, took: Duration) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let (mark, word) = if ok { ("✓", "done") } else { ("✗", "FAILED") };
        if self.spinner.is_some() {
            eprintln!("{mark} {} ({})", self.title, seconds(took));
        } else {
            eprintln!("{} … {word} ({})", self.title, seconds(took));
        }
    }
}

/// Whether a CI service runs this: they all set `CI`.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "false" | "0"))
}

/// A duration as a person reads it: `0.4 s`, `12.3 s`, `4 min 05 s`.
pub fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(100) {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    let whole = duration.as_secs();
    format!("{} min {:02} s", whole / 60, whole % 60)
}

/// Two columns, the second one flush right, for a closing table.
pub fn table(rows: &[(String, String)]) -> String {
    let left = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let right = rows.iter().map(|(_, right)| right.chars().count()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |table, (name, value)| {
        table + &format!("  {name:<left$}  {value:>right$}\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_naturally() {
        assert_eq!(seconds(Duration::from_millis(440)), "0.4 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }

    #[test]
    fn a_table_lines_up_its_columns() {
        let rows = [
            ("one".to_string(), "1 s".to_string()),
            ("longer".to_string(), "10 s".to_string()),
        ];
        assert_eq!(table(&rows), "  one      1 s\n  longer  10 s\n");
    }

    #[test]
    fn every_step_is_timed_even_one_that_fails() {
        let mut progress = Progress::plain();
        assert_eq!(progress.step("First", |_| Ok(7)).unwrap(), 7);
        let failed: Result<()> = progress.step("Second", |_| anyhow::bail!("broken"));
        assert_eq!(failed.unwrap_err().to_string(), "broken");
        let titles: Vec<_> = progress.times().iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["First", "Second"]);
    }
}
