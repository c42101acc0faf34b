//! One binding in one pod, from its key Secret to its files, for as long as the pod lives.

mod answers;
mod news;
mod report;
mod stale;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpod_core::Time;
use sealpod_core::injection::{HandOver, MountedBinding, SidecarSettings};
use sealpod_core::wire::bundle::MAX_WAIT;
use tokio_util::sync::CancellationToken;

use crate::credentials::{CredentialError, Credentials, Session};
use crate::handover;
use crate::health::Status;
use crate::journal::{Journal, State};
use crate::notify::Notifier;
use crate::pace::{Pace, Timing};
use crate::publish::{PublishError, Publisher};
use crate::selection::Finding;
use report::Reporter;
use stale::Freshness;

/// When an agent's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When everything that pods wait for is there, and the server has been asked once.
    Complete,
    Stopped,
}

/// Something happened while an agent was busy.
enum Event<T> {
    Done(T),
    Credentials(Result<Arc<Session>, CredentialError>),
}

/// Longest time that taking back a report may hold a stop up.
const FAREWELL: Duration = Duration::from_millis(400);

/// What the files show.
#[derive(Debug, Clone)]
struct Shown {
    etag: String,
    next_change_at: Option<Time>,
}

/// How the files stand to the last answer.
#[derive(Debug)]
enum Standing {
    Complete(Vec<Finding>),
    Incomplete(Vec<Finding>),
    /// The answer could not be written; the files are older than it.
    Unwritable(PublishError),
}

/// A question to the server, and what it was.
struct Question {
    etag: Option<String>,
    /// Seconds that the server was asked to wait.
    wait: u64,
    asked: Instant,
}

pub struct Agent {
    mounted: MountedBinding,
    timing: Timing,
    until: Until,
    credentials: Credentials,
    publisher: Publisher,
    pace: Pace,
    journal: Journal,
    status: Arc<Status>,
    /// None until the key Secret's files could be used once.
    session: Option<Arc<Session>>,
    /// None where the next question must bring everything.
    shown: Option<Shown>,
    standing: Standing,
    /// Version of each secret that is delivered.
    versions: BTreeMap<String, u64>,
    /// Whether the account may not read something that pods wait for.
    denied: bool,
    /// What could not be written of the files that are shown; what is there instead is about former ones.
    unstated: Option<HandOver>,
    /// When the app's files changed without it being told, where they did, as time since the node started.
    untold: Option<Duration>,
    freshness: Freshness,
    reporter: Reporter,
    notifier: Notifier,
}

impl Agent {
    pub fn new(
        settings: &SidecarSettings,
        mounted: &MountedBinding,
        timing: Timing,
        until: Until,
        status: Arc<Status>,
    ) -> Result<Self, PublishError> {
        let seed = format!("{}/{}", settings.pod.uid, mounted.name);
        // Without a port of its own, the sidecar is on the node's network.
        let calls = settings.health_port.is_some();
        let notifier = Notifier::start(&mounted.name, &seed, timing.notify, calls, Arc::clone(&status));
        Ok(Self {
            timing,
            until,
            credentials: Credentials::new(&settings.server_url, mounted),
            publisher: Publisher::open(Path::new(&mounted.mount_path), mounted.size_limit, timing.grace)?,
            pace: Pace::new(timing, &seed),
            journal: Journal::new(&mounted.name),
            mounted: mounted.clone(),
            status,
            session: None,
            shown: None,
            standing: Standing::Incomplete(Vec::new()),
            versions: BTreeMap::new(),
            denied: false,
            unstated: None,
            untold: None,
            freshness: Freshness::new(Instant::now()),
            reporter: Reporter::new(settings.pod.clone(), &seed),
            notifier,
        })
    }

    /// Works until done or stopped; gives whether it is done.
    pub async fn run(mut self, shutdown: CancellationToken) -> bool {
        let done = shutdown.run_until_cancelled(self.work()).await.is_some();
        if let Some(session) = &self.session {
            // Whoever waits for this would wait for a server that may be away.
            let _ = tokio::time::timeout(FAREWELL, self.reporter.withdraw(session)).await;
        }
        done
    }

    async fn work(&mut self) {
        let read = self.credentials.read();
        self.take(read);
        self.resume();
        loop {
            let Some(pause) = self.ask().await else { continue };
            if self.until == Until::Complete {
                if self.status.is_open() {
                    return;
                }
            } else {
                self.report().await;
            }
            self.pause(pause).await;
        }
    }

    /// Rests, unless there is something new to ask with; a report that falls due on the way is made.
    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let step = self.reporter.due_in(Instant::now()).map_or(left, |due| left.min(due));
            if let Event::Credentials(read) = self.meanwhile(tokio::time::sleep(step)).await {
                return self.take(read);
            }
            if Instant::now() >= until {
                return;
            }
            self.report().await;
        }
    }

    /// One question and what follows from the answer; gives how long to rest. None where the key Secret's files
    /// changed before there was an answer.
    async fn ask(&mut self) -> Option<Duration> {
        let Some(session) = self.session.clone() else {
            let Event::Credentials(read) = self.meanwhile(std::future::pending::<()>()).await else {
                return None;
            };
            self.take(read);
            return None;
        };
        let question = Question {
            etag: self.shown.as_ref().map(|shown| shown.etag.clone()),
            wait: self.wait(&session),
            asked: Instant::now(),
        };
        let etag = question.etag.clone();
        let wait = question.wait;
        let answer = async move {
            let mut request = session.request.clone();
            request.wait = wait;
            let binding = &session.binding;
            let org = session.client.org(&binding.organization);
            org.bundle(&binding.project, &binding.environment, &request, etag.as_deref())
                .await
        };
        match self.meanwhile(answer).await {
            Event::Done(answer) => Some(self.receive(&question, answer).await),
            Event::Credentials(read) => {
                self.take(read);
                None
            }
        }
    }

    /// Does `work`, sweeping former files aside and watching the key Secret's files, whose change ends it.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Event<T> {
        tokio::pin!(work);
        loop {
            let sweep = self.publisher.next_sweep(Instant::now());
            let sweeping = async {
                match sweep {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let stale = self.stale_in(Instant::now());
            let aging = async {
                match stale {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                done = &mut work => return Event::Done(done),
                () = sweeping => self.sweep(),
                () = aging => self.grow_stale(),
                () = self.notifier.finished() => self.mark_told(),
                read = self.credentials.changed(self.timing.credentials) => return Event::Credentials(read),
            }
        }
    }

    /// New files of the key Secret. Those that cannot be used change nothing.
    fn take(&mut self, read: Result<Arc<Session>, CredentialError>) {
        match read {
            Ok(session) => {
                if self.session.as_ref().is_some_and(|old| old.binding != session.binding) {
                    self.shown = None;
                }
                self.session = Some(session);
                self.pace.restart();
            }
            Err(error) => {
                self.journal.tell(&State::Credentials(&error));
            }
        }
    }

    /// Goes on from what a former process of this pod left, if it was under the same settings.
    fn resume(&mut self) {
        let mount = Path::new(&self.mounted.mount_path);
        // What begins behind `init` reads the new files anyway.
        let untold = self.until == Until::Stopped && handover::is_untold(mount);
        self.untold = untold.then(|| self.publisher.swapped());
        self.mark_told();
        let Some((state, written)) = handover::read(mount) else {
            return;
        };
        let Some(shown_since) = self.publisher.shown_since() else {
            return;
        };
        let age = Duration::try_from(Time::now().timestamp().duration_since(written.timestamp())).unwrap_or_default();
        self.status.open();
        self.status.known_since(age);
        self.status.loaded(&state.versions);
        self.freshness.resume(age, Instant::now());
        self.standing = Standing::Complete(Vec::new());
        self.denied = state.denied;
        if self.denied {
            self.give_up_denied();
        }
        // Files younger than the state are of a process that was killed between the two; nobody vouches for them.
        let vouched = written >= shown_since && self.publisher.is_intact() && state.settled;
        let session = self.session.as_ref();
        if vouched && session.is_some_and(|session| handover::digest(&session.binding) == state.settings) {
            self.versions = state.versions;
            self.reporter.changed(Instant::now());
            self.shown = Some(Shown {
                etag: state.etag,
                next_change_at: state.next_change_at,
            });
            self.pass_on();
        }
    }

    /// Seconds to ask the server to wait: up to the next refresh or the next change that time brings.
    fn wait(&mut self, session: &Session) -> u64 {
        // Who only asks once does not hold the app up until something changes.
        let once = self.until == Until::Complete && self.status.is_open();
        if self.shown.is_none() || !session.binding.watch || once {
            return 0;
        }
        let refresh = self.until_refresh(session);
        let report = self.reporter.due_in(Instant::now()).unwrap_or(refresh);
        let wait = refresh.min(report).as_secs_f64().ceil();
        // Between 1 and 120 after the clamp, so nothing is cut off.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let wait = wait.clamp(1.0, MAX_WAIT as f64) as u64;
        wait
    }

    fn until_refresh(&mut self, session: &Session) -> Duration {
        let interval = Duration::from_secs(session.binding.refresh_interval);
        let next = self.shown.as_ref().and_then(|shown| shown.next_change_at);
        let hurry = !session.binding.watch && !self.status.is_open();
        self.pace.refresh(interval, next, hurry)
    }
}
