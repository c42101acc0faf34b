//! `--watch`: this process stays as the parent of the command.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{Signal as Incoming, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::source::Source;
use super::{CoreLimit, FAILED, Options, Variables, Watch, command, not_run};

/// How long a command may take to end before it is made to.
const GRACE: Duration = Duration::from_secs(10);

/// Signals that are passed on, and whether a terminal sends them to the whole process group by itself.
const PASSED_ON: [(Signal, bool); 7] = [
    (Signal::TERM, false),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::WINCH, true),
];

/// Runs the command until it ends by itself; gives its exit code.
pub(super) async fn run(
    options: &Options,
    watch: Watch,
    mut source: Source,
    mut variables: Variables,
    core: CoreLimit,
) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return crate::commands::tell(&format!("exec: signals cannot be handled: {error}"), FAILED),
    };
    // A child begins with the limit of its parent; this one cannot be dumped anyway.
    core.restore();
    let mut child = match start(options, &variables) {
        Ok(child) => child,
        Err(error) => return not_run(options, &error),
    };
    // A task of its own, so that no signal, however many come, makes it begin anew. Ends with the runtime.
    let (news, mut changes) = mpsc::channel(1);
    tokio::spawn(async move { while news.send(source.changed().await).await.is_ok() {} });
    let mut stopping: Option<Instant> = None;
    // Whoever ends this wants the command ended, not run anew.
    let mut leaving = false;
    loop {
        if let Some(status) = reap(child) {
            // What came together with the command's end must not be lost between it and the next one; any other signal
            // was for the one that has ended.
            leaving |= signals.waiting().await.iter().any(|signal| signal.ends());
            if leaving || stopping.take().is_none() {
                return code(status);
            }
            child = match start(options, &variables) {
                Ok(child) => child,
                Err(error) => return not_run(options, &error),
            };
        }
        let overdue = async {
            match stopping {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            received = signals.next() => {
                if received.ends() {
                    leaving = true;
                    // How long the end may take is theirs to say from here on.
                    stopping = None;
                }
                if let Received::PassOn(signal) = received {
                    send(child, signal);
                }
            },
            () = overdue => {
                send(child, Signal::KILL);
                stopping = Some(Instant::now() + GRACE);
            }
            Some(next) = changes.recv() => {
                if leaving || next == variables {
                    continue;
                }
                variables = next;
                match watch {
                    Watch::Signal(signal) => send(child, signal),
                    Watch::Restart if stopping.is_none() => {
                        say("a value has changed: the command is run anew");
                        send(child, Signal::TERM);
                        stopping = Some(Instant::now() + GRACE);
                    }
                    Watch::Restart => {}
                }
            }
        }
    }
}

/// In the process group and on the terminal of this process, as a shell would run it.
fn start(options: &Options, variables: &Variables) -> std::io::Result<Pid> {
    let child = command(options, variables).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(pid.expect("the kernel numbers processes from 1 to 2^22"))
}

/// Collects every child that has ended, as the first process of a container has to; gives how the command did.
fn reap(child: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            ended = Some(status);
        }
    }
    ended
}

fn code(status: WaitStatus) -> ExitCode {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(FAILED),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(FAILED))
}

fn send(child: Pid, signal: Signal) {
    // One that has just ended is collected by the loop.
    let _ = kill_process(child, signal);
}

pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "exec: {text}");
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Received {
    PassOn(Signal),
    /// The command has it from the terminal already; it only must not end this process.
    Had(Signal),
    /// A child has ended, or only stopped.
    Child,
}

impl Received {
    /// Whether it is to end the command.
    fn ends(self) -> bool {
        matches!(
            self,
            Self::PassOn(Signal::TERM | Signal::INT | Signal::QUIT) | Self::Had(Signal::INT | Signal::QUIT)
        )
    }
}

struct Signals {
    incoming: Vec<(Incoming, Received)>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let terminal = std::io::stdin().is_terminal();
        let mut incoming = Vec::new();
        for (number, by_terminal) in PASSED_ON {
            let received = signal(SignalKind::from_raw(number.as_raw()))?;
            let kind = if by_terminal && terminal {
                Received::Had(number)
            } else {
                Received::PassOn(number)
            };
            incoming.push((received, kind));
        }
        incoming.push((signal(SignalKind::child())?, Received::Child));
        Ok(Self { incoming })
    }

    async fn next(&mut self) -> Received {
        std::future::poll_fn(|context| {
            for (received, kind) in &mut self.incoming {
                if received.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*kind);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Those that have come already.
    async fn waiting(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        // The runtime hears of signals when it has nothing else to do.
        tokio::task::yield_now().await;
        while let Ok(received) = tokio::time::timeout(Duration::ZERO, self.next()).await {
            all.push(received);
        }
        all
    }
}
