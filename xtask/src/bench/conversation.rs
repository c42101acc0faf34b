//! A program that does what it is told line by line, and answers each line with one of JSON.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::child::Running;
use crate::process::Failure;

/// The program is killed when this is dropped.
#[derive(Debug)]
pub struct Conversation {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
    _running: Running,
}

impl Conversation {
    /// What the program complains of goes to `log`.
    pub fn begin(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut running = Running::start(&mut command)?;
        let input = running.0.stdin.take().context("its input is a pipe")?;
        let output = running.0.stdout.take().context("its output is a pipe")?;
        Ok(Self {
            input,
            output: BufReader::new(output).lines(),
            log: log.to_owned(),
            _running: running,
        })
    }

    pub fn say(&mut self, line: &str) -> Result<()> {
        let said = writeln!(self.input, "{line}");
        said.map_err(|_| Failure::new("the bench's client ended early").log(&self.log).into())
    }

    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let Some(line) = self.output.next() else {
            return Err(Failure::new("the bench's client met a fault").log(&self.log).into());
        };
        serde_json::from_str(&line?).context("the bench's client answers in JSON")
    }
}
