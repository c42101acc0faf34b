//! Schemathesis: makes requests out of the description, those that it allows and those that it does not, and holds the
//! answers against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::server::{Caller, Server};
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::python;
use crate::workspace::Workspace;

/// Longest part of a log that a failure shows, in lines.
const SHOWN_LINES: usize = 120;

/// Schemathesis itself, in a virtual environment below the target folder.
pub struct Environment {
    program: PathBuf,
    pub folder: PathBuf,
    settings: PathBuf,
    hooks: PathBuf,
}

impl Environment {
    /// Installs what `requirements.txt` pins, unless an earlier run did.
    pub fn prepare(workspace: &Workspace, progress: &mut Progress) -> Result<Self> {
        let source = workspace.root.join("xtask/schemathesis");
        let folder = workspace.target.join("schemathesis");
        let requirements = source.join("requirements.txt");
        let program = python::install("Schemathesis", "st", &requirements, &folder, progress)?;
        Ok(Self {
            program,
            settings: source.join("schemathesis.toml"),
            hooks: source.join("hooks.py"),
            folder,
        })
    }
}

/// What came of one caller's run.
pub struct Outcome {
    pub caller: Caller,
    pub passed: bool,
    /// What Schemathesis printed.
    log: String,
    /// The server's metrics behind it.
    pub metrics: String,
}

impl Outcome {
    /// Its own last line: how many failures, in how many seconds.
    pub fn summary(&self) -> String {
        let last = self.log.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.unwrap_or_default().trim_matches(['=', ' ']);
        format!("{}: {last}", self.caller.name())
    }

    /// The part of its output that says what is wrong.
    pub fn failures(&self) -> String {
        let of_interest = self.log.find(" ERRORS =").or_else(|| self.log.find(" FAILURES ="));
        let text = &self.log[of_interest.unwrap_or_default()..];
        let text = text.split(" WARNINGS =").next().unwrap_or(text);
        let lines: Vec<_> = text.lines().skip(1).take(SHOWN_LINES).collect();
        format!("\n-- as {} --\n{}", self.caller.name(), lines.join("\n"))
    }
}

/// Calls a server of its own as `caller`.
pub fn run(environment: &Environment, workspace: &Workspace, caller: Caller) -> Result<Outcome> {
    let folder = environment.folder.join(caller.name());
    let mut server = Server::start(workspace, &folder)?;
    let credential = server.populate(caller)?;
    let settings = settings(environment, &folder, caller)?;
    let log = folder.join("schemathesis.log");
    let mut command = Command::new(&environment.program);
    command.arg("--config-file").arg(settings);
    command.arg("run").arg(format!("{}/openapi.json", server.url));
    command.args(["--no-color", "--warnings", "off"]).args(part(caller));
    command.current_dir(&folder);
    command.env("SCHEMATHESIS_HOOKS", &environment.hooks);
    // By the environment, because everybody on the machine can read arguments.
    command.env("SEALPOD_CREDENTIAL", credential.unwrap_or_default());
    let ran = process::run_logged(&mut command, &log);
    let text = fs::read_to_string(&log).unwrap_or_default();
    // It prints a summary whatever it finds; without one it did not get that far.
    if ran.is_err() && !text.contains(" SUMMARY =") {
        return Err(Failure::new(format!("Schemathesis did not run as {}", caller.name()))
            .log(&log)
            .into());
    }
    Ok(Outcome {
        caller,
        passed: ran.is_ok(),
        log: text,
        metrics: server.metrics()?,
    })
}

/// What of the description and of the phases is worth the time: all of it for the admin key, the planes that a credential
/// is for; that each is refused everywhere else is the integration tests' (`contract.rs`).
fn part(caller: Caller) -> &'static [&'static str] {
    match caller {
        Caller::Admin => &[],
        Caller::Session | Caller::Account => &["--include-path-regex", "^/api/(orgs|auth|audit-logs)"],
        Caller::Application => &["--include-path-regex", "^/api/consumer/"],
        Caller::Nobody => &["--phases", "examples,fuzzing", "--max-examples", "2"],
    }
}

/// The common settings with the caller's credential behind them.
fn settings(environment: &Environment, folder: &Path, caller: Caller) -> Result<PathBuf> {
    let common = fs::read_to_string(&environment.settings)
        .with_context(|| format!("cannot read {}", environment.settings.display()))?;
    let credential = match caller.scheme() {
        None => String::new(),
        Some(scheme) => {
            let kind = if scheme.ends_with("_key") && scheme != "admin_key" {
                "api_key"
            } else {
                "bearer"
            };
            format!("\n[auth.openapi.{scheme}]\n{kind} = \"${{SEALPOD_CREDENTIAL}}\"\n")
        }
    };
    let path = folder.join("schemathesis.toml");
    fs::write(&path, common + &credential).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
