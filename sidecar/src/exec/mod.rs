//! `exec`: runs a command with the values as variables of its environment, for programs that cannot read files.
//!
//! Without `--watch` nothing of this process stays: the command takes its place, and with it its number, its terminal, its
//! process group, every signal and the exit code. With `--watch` it stays as the parent, passes signals on, and ends as the
//! command does.

mod options;
mod source;
mod supervise;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealpod_core::injection::SETTINGS_VARIABLE;
use zeroize::Zeroizing;

pub use options::{From, Options, USAGE, Watch};
use source::Source;

/// Exit codes of `exec` itself, which no shell gives to a command that it has run.
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Variables by name.
type Variables = BTreeMap<String, Zeroizing<String>>;

/// Why the command was not run. None of these texts holds a value.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("{path}: {cause}; is the binding mounted here, and the path that of its mount?")]
    Unreadable { path: String, cause: io::Error },
    #[error("{path} changes too often to be read in one state")]
    Restless { path: String },
    #[error("{key:?} is not text, which a variable has to be: leave it out with --only")]
    NotText { key: String },
    #[error("{0:?} is named by --only and is not there")]
    Absent(String),
    #[error("{0}")]
    Variables(#[from] sealpod_render::Error),
    #[error("{path}: {cause}")]
    KeyFile { path: String, cause: io::Error },
    #[error("the key file holds more than a key: it is not text")]
    Key,
    #[error("{0}")]
    Client(#[from] sealpod_client::BuildError),
    #[error("{0}")]
    Server(#[from] sealpod_client::Error),
    #[error("the runtime cannot be set up: {0}")]
    Runtime(io::Error),
}

/// Core dumps of this process are off; those of the command are its own business.
#[derive(Debug, Clone, Copy)]
pub struct CoreLimit(Rlimit);

impl CoreLimit {
    /// As it is now. Call it before core dumps are switched off.
    pub fn current() -> Self {
        Self(getrlimit(Resource::Core))
    }

    /// Has to succeed: it was allowed when the process began, and the hard limit is untouched.
    fn restore(self) {
        let _ = setrlimit(Resource::Core, self.0);
    }
}

/// Runs the command; comes back only where it could not be run, or has ended.
pub fn run(options: &Options, core: CoreLimit) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&ExecError::Runtime(error)),
    };
    let loaded = Source::open(&options.from, &options.only).and_then(|mut source| {
        let variables = runtime.block_on(source.load())?;
        Ok((source, variables))
    });
    let (source, variables) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return failed(&error),
    };
    let Some(watch) = options.watch else {
        // Its threads and descriptors are none of the command's.
        runtime.shutdown_background();
        core.restore();
        let error = command(options, &variables).exec();
        return not_run(options, &error);
    };
    let ended = runtime.block_on(supervise::run(options, watch, source, variables, core));
    runtime.shutdown_background();
    ended
}

/// The command with its variables; what this process was configured by is not for it.
fn command(options: &Options, variables: &Variables) -> Command {
    let mut command = Command::new(&options.command);
    command.args(&options.arguments).env_remove(SETTINGS_VARIABLE);
    for (name, text) in variables {
        command.env(name, text.as_str());
    }
    command
}

fn failed(error: &ExecError) -> ExitCode {
    crate::commands::tell(&format!("exec: {error}"), FAILED)
}

fn not_run(options: &Options, error: &io::Error) -> ExitCode {
    let (hint, code) = match error.kind() {
        io::ErrorKind::NotFound => ("", NOT_FOUND),
        io::ErrorKind::ArgumentListTooLong => (
            "; one variable may have 128 KiB, and all together 2 MiB",
            NOT_EXECUTABLE,
        ),
        _ => ("", NOT_EXECUTABLE),
    };
    let command = options.command.to_string_lossy();
    crate::commands::tell(&format!("exec: cannot run {command:?}: {error}{hint}"), code)
}
