//! Running other programs, and failures in the form a person can act on.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::progress::Step;

/// Lines of a log that a failure shows.
const TAIL_LINES: usize = 20;

/// What went wrong, where to read more, and what to do about it.
///
/// Its text may have several lines; it is the innermost cause of an error, so it is printed last.
#[derive(Debug)]
pub struct Failure {
    summary: String,
    tail: Vec<String>,
    log: Option<PathBuf>,
    advice: Option<String>,
}

impl Failure {
    pub fn new(summary: impl Into<String>) -> Self {
        Self {
            summary: summary.into(),
            tail: Vec::new(),
            log: None,
            advice: None,
        }
    }

    /// What the reader should do next.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Shows the last lines of `log` and its path.
    #[must_use]
    pub fn log(mut self, log: &Path) -> Self {
        let text = fs::read(log).unwrap_or_default();
        self.tail = last_lines(&String::from_utf8_lossy(&text), TAIL_LINES);
        self.log = Some(log.to_path_buf());
        self
    }

    /// Shows the last lines of `output`, for a program that has no log.
    #[must_use]
    pub fn output(mut self, output: &[u8]) -> Self {
        self.tail = last_lines(&String::from_utf8_lossy(output), TAIL_LINES);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        for line in &self.tail {
            write!(f, "\n    | {line}")?;
        }
        if let Some(log) = &self.log {
            write!(f, "\n  log: {}", log.display())?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "\n  what to do: {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

fn last_lines(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The command as one would type it, for messages.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with its output in `log`, which is begun anew.
pub fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = begin_log(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = command.status().map_err(|error| not_started(command, &error))?;
    require_success(command, status, log)
}

/// As [`run_logged`], for long work: on a terminal, `step` shows the last line of the log as it grows.
pub fn run_followed(command: &mut Command, log: &Path, step: &Step) -> Result<()> {
    let file = begin_log(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Some(line) = last_line(log) {
            step.follow(&line);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    require_success(command, status, log)
}

/// Runs `command` and returns what it wrote to its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = if output.stderr.is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    Err(Failure::new(format!("`{}` failed ({})", shown(command), output.status))
        .output(said)
        .into())
}

/// Runs `command` for its exit code only.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` on the terminal of the user and fails when it does.
pub fn run_visible(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` failed ({status})", shown(command))).into())
}

/// Opens a log for a process that outlives this one.
pub fn append_to(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write the log {}", log.display()))
}

fn begin_log(log: &Path) -> Result<File> {
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    File::create(log).with_context(|| format!("cannot write the log {}", log.display()))
}

fn require_success(command: &Command, status: ExitStatus, log: &Path) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{}` failed ({status})", shown(command)))
        .log(log)
        .into())
}

/// The end of a log that is being written.
fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1000))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    last_lines(&String::from_utf8_lossy(&end), 1).pop()
}

fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{}`: {error}", shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_log_its_path_and_the_advice() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("step.log");
        let mut command = Command::new("sh");
        command.args(["-c", "seq 1 30; echo no space left >&2; exit 3"]);
        let error = run_logged(&mut command, &log).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(
            error.contains("    | 12\n") && error.contains("    | no space left\n"),
            "{error}"
        );
        assert!(!error.contains("    | 11\n"), "only the end is shown: {error}");
        assert!(error.ends_with(&format!("log: {}", log.display())), "{error}");
        let advised = Failure::new("it broke").advice("mend it").to_string();
        assert_eq!(advised, "it broke\n  what to do: mend it");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = capture(&mut Command::new("sealpod-no-such-program"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot start `sealpod-no-such-program`"), "{error}");
    }

    #[test]
    fn the_output_of_a_program_comes_back_and_its_complaint_is_shown() {
        assert_eq!(capture(Command::new("echo").arg("hello")).unwrap(), "hello\n");
        let error = capture(Command::new("sh").args(["-c", "echo broken >&2; false"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("| broken"), "{error}");
    }
}
