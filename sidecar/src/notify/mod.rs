//! Telling the app that its files have changed: once for each change, however often that takes.
//!
//! A change that follows soon is the same news; one that comes while the app is still being told takes the place of the
//! one before. What cannot be told is logged and counted: the app reads the new files at its next start in any case.

mod http;
mod process;

use std::sync::Arc;
use std::time::Duration;

use sealpod_client::backoff::Backoff;
use sealpod_core::injection::OnChange;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use process::of_name as signal_of_name;

use crate::health::Status;

/// The waits of a notifier. The defaults are the product's; tests take shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Quiet time after a change, so that a burst of them is one piece of news…
    pub quiet: Duration,
    /// …but not longer than this after the first.
    pub latest: Duration,
    /// Ceilings of the first and of every delay between two tries.
    pub retry: Duration,
    pub retry_cap: Duration,
    /// How long it is tried: an app may just be starting again.
    pub give_up: Duration,
    /// Of one HTTP call, from the first byte sent to the status read.
    pub call: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(500),
            latest: Duration::from_secs(5),
            retry: Duration::from_millis(500),
            retry_cap: Duration::from_secs(10),
            give_up: Duration::from_mins(2),
            call: Duration::from_secs(5),
        }
    }
}

/// Why the app was not told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error(
        "no main process of the container {container:?} is to be seen; it is not running, or the pod was made before the \
         binding had this onChange: start it anew"
    )]
    NoProcess { container: String },
    #[error(
        "which process is the main one of the container {container:?} cannot be told: on this node neither mounts nor \
         environment of {} name one; use onChange.http, or give each container a runAsUser of its own",
        .pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Ambiguous { container: String, pids: Vec<i32> },
    #[error("process {pid} has just begun and may not await a signal yet; it is sent later")]
    Starting { pid: i32 },
    #[error("{0:?} is not the name of a signal")]
    NoSignal(String),
    #[error("the path {0:?} is none that a request can carry")]
    BadPath(String),
    #[error(
        "the pod has been on the node's network since before the binding had onChange.http, which would reach what listens \
         on the node there; use onChange.signal or onChange.restart in the binding"
    )]
    NodeNetwork,
    #[error("cannot signal process {pid}: {cause}")]
    Signal { pid: i32, cause: rustix::io::Errno },
    #[error("nobody answers on port {port}: {cause}")]
    Connect { port: u16, cause: std::io::ErrorKind },
    #[error("the app answers with status {0}, not 2xx")]
    Status(u16),
    #[error("the app does not answer in HTTP")]
    NotHttp,
    #[error("the app does not answer in time")]
    Late,
}

impl NotifyError {
    /// Whether another try is pointless until somebody edits the binding.
    fn is_final(&self) -> bool {
        matches!(self, Self::NoSignal(_) | Self::BadPath(_) | Self::NodeNetwork)
    }
}

/// How the app knows of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Sent,
    /// It began after the change.
    Reads,
}

/// A change of files.
#[derive(Debug, Clone)]
struct Change {
    /// How the app is to be told.
    how: OnChange,
    /// Since when readers find the new files, as time since the node started.
    swapped: Duration,
}

/// The last change, and how many there have been.
type News = (u64, Option<Change>);

/// The task that tells one app. Ends when this is dropped.
#[derive(Debug)]
pub struct Notifier {
    news: watch::Sender<News>,
    done: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Notifier {
    /// `calls` is whether the pod has a network of its own, in which alone an HTTP call is made.
    pub fn start(binding: &str, seed: &str, timing: Timing, calls: bool, status: Arc<Status>) -> Self {
        let (news, changes) = watch::channel((0, None));
        let (finished, done) = watch::channel(0);
        let worker = Worker {
            binding: binding.to_owned(),
            backoff: Backoff::seeded(timing.retry, timing.retry_cap, seed),
            timing,
            calls,
            status,
            changes,
            finished,
        };
        Self {
            news,
            done,
            task: tokio::spawn(worker.work()),
        }
    }

    /// The files have changed, `swapped` after the node started.
    pub fn changed(&self, how: &OnChange, swapped: Duration) {
        self.news.send_modify(|(count, news)| {
            *count += 1;
            *news = Some(Change {
                how: how.clone(),
                swapped,
            });
        });
    }

    /// Whether the app knows of every change, or has been given up.
    pub fn is_idle(&self) -> bool {
        *self.done.borrow() == self.news.borrow().0
    }

    /// Waits until the app knows of one more change.
    pub async fn finished(&mut self) {
        if self.done.changed().await.is_err() {
            // The task is gone; so is this, soon.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker {
    binding: String,
    timing: Timing,
    /// Whether `127.0.0.1` is the pod and not the node.
    calls: bool,
    backoff: Backoff,
    status: Arc<Status>,
    changes: watch::Receiver<News>,
    /// Up to which change the app has been told, or given up.
    finished: watch::Sender<u64>,
}

impl Worker {
    async fn work(mut self) {
        while self.changes.changed().await.is_ok() {
            self.settle().await;
            let (count, Some(change)) = self.changes.borrow_and_update().clone() else {
                continue;
            };
            if self.tell(&change).await {
                self.finished.send_replace(count);
            }
        }
    }

    /// Waits for the end of a burst.
    async fn settle(&mut self) {
        let latest = Instant::now() + self.timing.latest;
        loop {
            let quiet = (Instant::now() + self.timing.quiet).min(latest);
            match tokio::time::timeout_at(quiet, self.changes.changed()).await {
                Ok(Ok(())) if Instant::now() < latest => {}
                _ => return,
            }
        }
    }

    /// Tries until the app knows, there is newer news, or it has taken too long. Gives whether there is nothing left to do.
    async fn tell(&mut self, change: &Change) -> bool {
        let give_up = Instant::now() + self.timing.give_up;
        self.backoff.reset();
        loop {
            let error = match self.attempt(change).await {
                Ok(heard) => {
                    self.status.notified(true);
                    match heard {
                        Heard::Sent => tracing::info!(binding = self.binding, "the app has been told of the change"),
                        Heard::Reads => tracing::info!(binding = self.binding, "the app began after the change"),
                    }
                    return true;
                }
                Err(error) => error,
            };
            let delay = self.backoff.next_delay();
            if error.is_final() || Instant::now() + delay >= give_up {
                self.status.notified(false);
                tracing::error!(binding = self.binding, %error, "the app could not be told of the change");
                return true;
            }
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_ok() {
                        // Told by the next round, together with this.
                        self.changes.mark_changed();
                    }
                    return false;
                }
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    async fn attempt(&self, change: &Change) -> Result<Heard, NotifyError> {
        match &change.how {
            OnChange::Signal { container, name } => process::signal(container, name, change.swapped),
            OnChange::Http { .. } if !self.calls => Err(NotifyError::NodeNetwork),
            OnChange::Http { port, path } => tokio::time::timeout(self.timing.call, http::post(*port, path))
                .await
                .unwrap_or(Err(NotifyError::Late))
                .map(|()| Heard::Sent),
        }
    }
}
