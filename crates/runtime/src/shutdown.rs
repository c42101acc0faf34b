//! The one stop signal of a process.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT. A second one ends the process at once with the shell's
/// code for that signal, so that a person at a terminal is never stuck behind a slow drain.
///
/// Call it inside the runtime, early: from then on the signals no longer end the process by themselves.
pub fn signalled() -> CancellationToken {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    let cancelled = token.clone();
    // Owned by the process: it lives until exit, because a second signal may come at any time.
    tokio::spawn(async move {
        loop {
            let (name, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            if cancelled.is_cancelled() {
                std::process::exit(code);
            }
            tracing::info!(signal = name, "stopping");
            cancelled.cancel();
        }
    });
    token
}
