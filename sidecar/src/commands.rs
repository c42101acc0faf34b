//! The subcommands, each from configuration to exit code.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Until};
use crate::config::Config;
use crate::gate::Gate;
use crate::health::Health;
use crate::pace::Timing;
use crate::{check, exec, install, probe};

const USAGE: &str = "usage: sealpod-sidecar <command>

  run    write the files and keep them fresh until SIGTERM
  init   write the first files and exit
  wait   exit as soon as the files are there (the startup probe, where the kubelet does not reach the health port)
  check  show what would be written, and what is wrong; exit code 1 where something is
  exec   run a command with the values in its environment; `exec --help` says how
  healthz, readyz, metrics
         ask the sidecar that runs in this pod, and print its answer; exit code 1 unless that is 200

The injector configures it with SEALPOD_SETTINGS; SEALPOD_LOG and SEALPOD_LOG_FORMAT (text|json) say how to log.";

/// What a shell gives for a process that SIGTERM ended. `init` must not exit 0 without files: the app would start.
const STOPPED: u8 = 143;
/// How long open work may take after SIGTERM.
const DRAIN: Duration = Duration::from_millis(500);
/// Longest time that a probe waits for an answer.
const ASK: Duration = Duration::from_secs(2);
/// Threads that look up the server's address; one look-up is open at a time and binding.
const BLOCKING_THREADS: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Run,
    Init,
    Wait,
    Check,
    Exec(Box<exec::Options>),
    /// One of the paths of the health port.
    Ask(&'static str),
}

impl Command {
    /// Parses the arguments, the program's name first. The error is a text and an exit code, and not always one: `--help`.
    pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, (Cow<'static, str>, u8)> {
        let program = arguments.next().unwrap_or_default();
        if Path::new(&program).file_name() == Some(install::NAME.as_ref()) {
            return Self::exec(arguments);
        }
        let command = match arguments.next().as_ref().and_then(|argument| argument.to_str()) {
            Some("run") => Self::Run,
            Some("init") => Self::Init,
            Some("wait") => Self::Wait,
            Some("check") => Self::Check,
            Some("healthz") => Self::Ask("/healthz"),
            Some("readyz") => Self::Ask("/readyz"),
            Some("metrics") => Self::Ask("/metrics"),
            Some("exec") => return Self::exec(arguments),
            Some("--help" | "-h" | "help") => return Err((USAGE.into(), 0)),
            Some("--version" | "-V") => return Err((concat!("sealpod-sidecar ", env!("CARGO_PKG_VERSION")).into(), 0)),
            _ => return Err((USAGE.into(), 2)),
        };
        match arguments.next() {
            None => Ok(command),
            Some(_) => Err((USAGE.into(), 2)),
        }
    }

    fn exec(arguments: impl Iterator<Item = OsString>) -> Result<Self, (Cow<'static, str>, u8)> {
        let mut arguments = arguments.peekable();
        let first = arguments.peek().and_then(|argument| argument.to_str());
        if matches!(first, Some("--help" | "-h")) {
            return Err((exec::USAGE.into(), 0));
        }
        match exec::Options::parse(arguments) {
            Ok(options) => Ok(Self::Exec(Box::new(options))),
            // As its other failures: no code that the command could have given.
            Err(error) => Err((format!("exec: {error}\n\n{}", exec::USAGE).into(), 125)),
        }
    }
}

/// Says something to whoever started the process, and gives the exit code.
pub fn tell(text: &str, code: u8) -> ExitCode {
    // Nobody may be listening; then there is nobody to tell.
    let _ = match code {
        0 => writeln!(std::io::stdout(), "{text}"),
        _ => writeln!(std::io::stderr(), "{text}"),
    };
    ExitCode::from(code)
}

/// Works until SIGTERM.
pub fn run(config: &Config) -> ExitCode {
    block_on(async {
        let shutdown = sealpod_runtime::shutdown::signalled();
        let port = config.settings.health_port;
        work(config, Until::Stopped, port, Timing::default(), shutdown).await
    })
}

/// Works until everything that pods wait for is there.
pub fn init(config: &Config) -> ExitCode {
    block_on(async {
        let shutdown = sealpod_runtime::shutdown::signalled();
        work(config, Until::Complete, None, Timing::default(), shutdown).await
    })
}

/// The agents of all bindings, and the health port.
pub async fn work(
    config: &Config,
    until: Until,
    health_port: Option<u16>,
    timing: Timing,
    shutdown: CancellationToken,
) -> ExitCode {
    if let Some(directory) = &config.settings.exec_directory
        && let Err(error) = install::own_binary(Path::new(directory))
    {
        return tell(
            &format!("cannot copy this program into {directory}, as the pod asks for: {error}"),
            1,
        );
    }
    let bindings = &config.settings.bindings;
    let (health, statuses) = Health::new(bindings.iter().map(|binding| binding.name.as_str()), config.versions);
    let mut agents = JoinSet::new();
    for (mounted, status) in bindings.iter().zip(statuses) {
        match Agent::new(&config.settings, mounted, timing, until, status) {
            Ok(agent) => agents.spawn(agent.run(shutdown.clone())),
            Err(error) => return tell(&format!("binding {:?}: {error}", mounted.name), 1),
        };
    }
    let serving = health_port.map(|port| tokio::spawn(health.serve(port, Gate::of(bindings), shutdown.clone())));
    let mut done = true;
    while let Some(ended) = agents.join_next().await {
        match ended {
            Ok(complete) => done &= complete,
            Err(error) => return tell(&format!("an agent failed: {error}"), 1),
        }
    }
    if let Some(serving) = serving {
        let _ = tokio::time::timeout(DRAIN, serving).await;
    }
    match until {
        Until::Complete if !done => ExitCode::from(STOPPED),
        Until::Complete | Until::Stopped => ExitCode::SUCCESS,
    }
}

/// Blocks until the gate of every binding is open. How long that may take is the kubelet's business.
pub fn wait(config: &Config) -> ExitCode {
    block_on(async {
        Gate::of(&config.settings.bindings).opened().await;
        ExitCode::SUCCESS
    })
}

/// Prints what each binding selects, and asks the server what of it is there. Exit code 1 where something is wrong.
pub fn check(config: &Config) -> ExitCode {
    block_on(async {
        let mut good = true;
        for binding in &config.settings.bindings {
            let report = check::binding(&config.settings.server_url, binding).await;
            good &= report.good;
            let _ = write!(std::io::stdout(), "{}", report.text);
        }
        ExitCode::from(u8::from(!good))
    })
}

/// Asks the sidecar that runs beside this process. Where it has no port, as on `hostNetwork`, `readyz` looks at the files.
pub fn ask(config: &Config, path: &str) -> ExitCode {
    let Some(port) = config.settings.health_port else {
        let ready = Gate::of(&config.settings.bindings).is_open();
        return match path {
            "/healthz" => tell("ok", 0),
            "/readyz" if ready => tell("ok", 0),
            "/readyz" => tell("the files are not there yet, or not any more", 1),
            _ => tell("this sidecar has no port, and so no metrics", 1),
        };
    };
    block_on(async {
        match tokio::time::timeout(ASK, probe::get(port, path)).await {
            Ok(Ok((200, body))) => tell(body.trim_end(), 0),
            Ok(Ok((_, body))) => tell(body.trim_end(), 1),
            Ok(Err(error)) => tell(&format!("no answer on port {port}: {error}"), 1),
            Err(_) => tell(&format!("no answer on port {port} within {} s", ASK.as_secs()), 1),
        }
    })
}

fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A look-up of an address may hang in its thread; nobody waits for it.
            runtime.shutdown_background();
            code
        }
        Err(error) => tell(&format!("the runtime cannot be set up: {error}"), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, (String, u8)> {
        let all = std::iter::once("/sealpod-sidecar").chain(arguments.iter().copied());
        Command::parse(all.map(OsString::from)).map_err(|(text, code)| (text.into_owned(), code))
    }

    #[test]
    fn one_command_and_nothing_else_is_taken() {
        assert_eq!(parse(&["run"]), Ok(Command::Run));
        assert_eq!(parse(&["check"]), Ok(Command::Check));
        assert_eq!(parse(&["readyz"]), Ok(Command::Ask("/readyz")));
        for bad in [&[][..], &["runs"], &["run", "now"]] {
            assert_eq!(parse(bad), Err((USAGE.to_owned(), 2)), "{bad:?}");
        }
        assert_eq!(parse(&["--help"]), Err((USAGE.to_owned(), 0)));
        assert!(parse(&["--version"]).unwrap_err().0.starts_with("sealpod-sidecar "));
    }

    #[test]
    fn its_copy_is_exec_by_its_name() {
        let words = ["/sealpod/exec", "--from", "/m", "--", "env"];
        let copy = Command::parse(words.iter().map(OsString::from)).unwrap();
        assert_eq!(Ok(copy), parse(&["exec", "--from", "/m", "--", "env"]));
        assert_eq!(parse(&["exec", "--help"]), Err((exec::USAGE.to_owned(), 0)));
        let (text, code) = parse(&["exec", "env"]).unwrap_err();
        assert!(text.starts_with("exec: ") && code == 125, "{text}");
    }
}
