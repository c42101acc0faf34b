//! One binding in one pod, from its key Secret to its files, for as long as the pod lives.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpod_client::{Error, Fetched};
use sealpod_core::Time;
use sealpod_core::injection::{BindingFile, HandOver, MountedBinding, SidecarSettings};
use sealpod_core::wire::bundle::{Bundle, MAX_WAIT};
use tokio_util::sync::CancellationToken;

use crate::credentials::{CredentialError, Credentials, Session};
use crate::handover;
use crate::health::{Outcome, Status};
use crate::journal::{Journal, State};
use crate::pace::{Pace, Timing};
use crate::publish::{FileSet, PublishError, Published, Publisher};
use crate::selection::{Finding, Selection, select};

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
}

impl Agent {
    pub fn new(
        settings: &SidecarSettings,
        mounted: &MountedBinding,
        timing: Timing,
        status: Arc<Status>,
    ) -> Result<Self, PublishError> {
        let seed = format!("{}/{}", settings.pod.uid, mounted.name);
        Ok(Self {
            timing,
            credentials: Credentials::new(&settings.server_url, mounted),
            publisher: Publisher::open(Path::new(&mounted.mount_path), mounted.size_limit, timing.grace)?,
            pace: Pace::new(timing, &seed),
            journal: Journal::new(&mounted.name),
            mounted: mounted.clone(),
            status,
            session: None,
            shown: None,
            standing: Standing::Incomplete(Vec::new()),
        })
    }

    /// Works until done or stopped; gives whether it is done.
    pub async fn run(mut self, until: Until, shutdown: CancellationToken) -> bool {
        shutdown.run_until_cancelled(self.work(until)).await.is_some()
    }

    async fn work(&mut self, until: Until) {
        let read = self.credentials.read();
        self.take(read);
        self.resume();
        loop {
            let Some(pause) = self.ask().await else { continue };
            if until == Until::Complete && self.status.is_open() {
                return;
            }
            if let Event::Credentials(read) = self.meanwhile(tokio::time::sleep(pause)).await {
                self.take(read);
            }
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
            tokio::select! {
                biased;
                done = &mut work => return Event::Done(done),
                () = sweeping => self.sweep(),
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
        let Some((state, written)) = handover::read(mount) else {
            return;
        };
        let Some(shown_since) = self.publisher.shown_since() else {
            return;
        };
        self.status.open();
        self.status.succeeded(written);
        self.standing = Standing::Complete(Vec::new());
        // Files younger than the state are of a process that was killed between the two; nobody vouches for them.
        let vouched = written >= shown_since && self.publisher.is_intact();
        let session = self.session.as_ref();
        if vouched && session.is_some_and(|session| session.binding == state.binding) {
            self.shown = Some(Shown {
                etag: state.etag,
                next_change_at: state.next_change_at,
            });
        }
    }

    /// Seconds to ask the server to wait: up to the next refresh or the next change that time brings.
    fn wait(&mut self, session: &Session) -> u64 {
        if self.shown.is_none() || !session.binding.watch {
            return 0;
        }
        let wait = self.until_refresh(session).as_secs_f64().ceil();
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

    async fn receive(&mut self, question: &Question, answer: Result<Fetched, Error>) -> Duration {
        match answer {
            Ok(Fetched::Bundle(bundle)) if question.etag.as_ref() != Some(&bundle.etag) => self.update(*bundle).await,
            // The same again: either it took as long as it was asked to, or somebody between us answers for the server.
            Ok(_) => {
                let early = question.asked.elapsed() < Duration::from_secs(question.wait).mul_f64(0.9);
                if early {
                    self.status.count(Outcome::Early);
                    self.journal.tell(&State::Early);
                    return self.pace.early();
                }
                self.confirmed()
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &Error) -> Duration {
        if error.is_transient() {
            self.status.count(Outcome::Away);
            self.journal.tell(&State::Away(error));
        } else {
            self.status.count(Outcome::Refused);
            self.journal.tell(&State::Refused(error));
        }
        self.pace.failed(error, Instant::now())
    }

    /// The server says that nothing changed.
    fn confirmed(&mut self) -> Duration {
        self.status.count(Outcome::Unchanged);
        self.pace.confirmed();
        if !matches!(self.standing, Standing::Unwritable(_)) {
            if !self.publisher.is_intact() {
                self.journal.tell(&State::Disturbed);
                self.shown = None;
                return self.timing.settle;
            }
            self.status.succeeded(Time::now());
        }
        self.tell(None);
        self.rest(Duration::ZERO)
    }

    /// The server has something new.
    async fn update(&mut self, bundle: Bundle) -> Duration {
        let session = self.session.as_ref().expect("a question comes from a session");
        let binding = session.binding.clone();
        let selection = select(&binding, &bundle);
        let Bundle {
            etag, next_change_at, ..
        } = bundle;
        let shown = Shown { etag, next_change_at };
        let changed = match self.write(binding, selection, &shown).await {
            Ok((standing, published)) => {
                self.standing = standing;
                self.tell(Some(&published));
                published.changed
            }
            Err(error) => {
                self.status.count(Outcome::Unwritable);
                // Asking again would bring the same files; a broken volume may be whole again next time. What it shows
                // until then nobody knows, so nothing is said to be known.
                let hopeless = matches!(error, PublishError::TooLarge { .. });
                self.standing = Standing::Unwritable(error);
                self.tell(None);
                self.shown = hopeless.then_some(shown);
                if !hopeless {
                    return self.pace.unwritable();
                }
                let pause = self.pace.updated(false);
                return self.rest(pause);
            }
        };
        self.shown = Some(shown);
        self.status
            .count(if changed { Outcome::Updated } else { Outcome::Unchanged });
        self.status.succeeded(Time::now());
        let pause = self.pace.updated(changed);
        self.rest(pause)
    }

    /// Files first, then the state that vouches for them.
    async fn write(
        &mut self,
        binding: BindingFile,
        selection: Selection,
        shown: &Shown,
    ) -> Result<(Standing, Published), PublishError> {
        let blocked = selection.blocked();
        let Selection {
            files,
            required,
            findings,
            versions,
        } = selection;
        self.make_room(&files).await?;
        let published = self.publisher.publish(files)?;
        let complete = !blocked && !published.lost.iter().any(|path| required.contains(path));
        if complete || self.status.is_open() {
            let state = HandOver {
                etag: shown.etag.clone(),
                binding,
                next_change_at: shown.next_change_at,
                versions,
            };
            handover::write(Path::new(&self.mounted.mount_path), &state).map_err(PublishError::State)?;
            self.status.open();
        }
        let standing = if complete {
            Standing::Complete(findings)
        } else {
            Standing::Incomplete(findings)
        };
        Ok((standing, published))
    }

    /// Waits until a large set fits beside the ones that readers may still use: at most one grace.
    async fn make_room(&mut self, files: &FileSet) -> Result<(), PublishError> {
        loop {
            let wait = self.publisher.wait_for_room(files, Instant::now())?;
            if wait.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            self.publisher.sweep(Instant::now())?;
        }
    }

    fn sweep(&mut self) {
        if let Err(error) = self.publisher.sweep(Instant::now()) {
            self.journal.tell(&State::Unwritable(&error));
        }
    }

    fn tell(&mut self, published: Option<&Published>) {
        self.journal.tell(&match &self.standing {
            Standing::Complete(findings) => State::Current { published, findings },
            Standing::Incomplete(findings) => State::Incomplete { findings },
            Standing::Unwritable(error) => State::Unwritable(error),
        });
    }

    /// The rest after an answer: `pause`, or up to the next refresh where the server is not to be waited on.
    fn rest(&mut self, pause: Duration) -> Duration {
        match self.session.clone() {
            Some(session) if !session.binding.watch => self.until_refresh(&session),
            _ => pause,
        }
    }
}
