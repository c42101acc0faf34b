//! What follows from an answer, or from none.

use std::path::Path;
use std::time::{Duration, Instant};

use sealpod_client::{Error, Fetched};
use sealpod_core::injection::{BindingFile, HandOver};
use sealpod_core::wire::bundle::Bundle;

use super::{Agent, Question, Shown, Standing};
use crate::handover;
use crate::health::Outcome;
use crate::journal::State;
use crate::publish::{FileSet, PublishError, Published};
use crate::selection::{Finding, Selection, select};

impl Agent {
    pub(super) async fn receive(&mut self, question: &Question, answer: Result<Fetched, Error>) -> Duration {
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
        self.reporter.lost();
        if error.is_transient() {
            self.status.count(Outcome::Away);
            self.journal.tell(&State::Away(error));
            self.status.warn(format!(
                "no answer from the server, the files may be old: {}",
                outline(error)
            ));
        } else {
            self.status.count(match error {
                Error::Unauthorized(_) => Outcome::Unauthorized,
                Error::Forbidden(_) => Outcome::Forbidden,
                _ => Outcome::Refused,
            });
            self.journal.tell(&State::Refused(error));
            self.status.warn(format!("the server refuses: {}", outline(error)));
            if matches!(error, Error::Unauthorized(_) | Error::Forbidden(_)) {
                self.give_up(outline(error));
            }
        }
        self.pace.failed(error, !self.status.is_open(), Instant::now())
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
            self.vouch();
        }
        self.tell(None);
        self.rest(Duration::ZERO)
    }

    /// The server has something new.
    async fn update(&mut self, bundle: Bundle) -> Duration {
        let session = self.session.as_ref().expect("a question comes from a session");
        let session = std::sync::Arc::clone(session);
        let selection = select(&session.binding, &bundle);
        self.denied = selection.denied;
        let Bundle {
            etag, next_change_at, ..
        } = bundle;
        let shown = Shown { etag, next_change_at };
        let changed = match self.write(&session.binding, selection, &shown).await {
            Ok((standing, published)) => {
                self.standing = standing;
                self.tell(Some(&published));
                self.pass_on();
                published.changed
            }
            Err(error) => {
                self.status.count(Outcome::Unwritable);
                // Asking again would bring the same files; a broken volume may be whole again next time. What it shows
                // until then nobody knows, so nothing is said to be known.
                let hopeless = matches!(error, PublishError::TooLarge { .. });
                self.status.warn(format!(
                    "the files cannot be written; the old ones stay: {}",
                    error.outline()
                ));
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
        self.vouch();
        let pause = self.pace.updated(changed);
        self.rest(pause)
    }

    /// The files are what the server has.
    fn vouch(&mut self) {
        let now = Instant::now();
        self.freshness.confirmed(now);
        self.reporter.found(now);
        self.status.succeeded();
        self.status.settle();
        if let Some(state) = self.unstated.take() {
            self.unstated = self.write_state(&state).is_err().then_some(state);
        } else if self.status.is_open()
            && let Err(error) = handover::touch(Path::new(&self.mounted.mount_path))
        {
            // Only the age that a next process begins with is wrong.
            tracing::debug!(binding = self.mounted.name, %error, "the state beside the files cannot be dated");
        }
        match &self.standing {
            Standing::Complete(findings) | Standing::Incomplete(findings) if !findings.is_empty() => {
                self.status.warn(crate::journal::count(findings));
            }
            _ if self.unstated.is_some() => {
                self.status
                    .warn("the state beside the files cannot be written; the log says why");
            }
            _ => {}
        }
        if self.denied {
            self.give_up_denied();
        }
    }

    /// Writes the state beside files that are good already: without it, a next process would only fetch them anew.
    fn state(&mut self, state: HandOver) {
        if let Err(error) = self.write_state(&state) {
            self.journal.tell(&State::Unstated(&error));
            self.unstated = Some(state);
        }
    }

    fn write_state(&self, state: &HandOver) -> std::io::Result<()> {
        handover::write(Path::new(&self.mounted.mount_path), state, self.publisher.state_limit())
    }

    /// Files first, then the state that vouches for them.
    async fn write(
        &mut self,
        binding: &BindingFile,
        selection: Selection,
        shown: &Shown,
    ) -> Result<(Standing, Published), PublishError> {
        let blocked = selection.blocked();
        let Selection {
            files,
            required,
            findings,
            versions,
            ..
        } = selection;
        self.make_room(&files).await?;
        self.mark_untold();
        let former = self.publisher.shown();
        let published = self.publisher.publish(files);
        // A swap is one whatever failed behind it. The first files are no change.
        if self.status.is_open() && self.publisher.shown() != former {
            self.untold = Some(self.publisher.swapped());
        }
        let published = published?;
        if self.versions != versions {
            self.versions.clone_from(&versions);
            self.reporter.changed(Instant::now());
        }
        self.status.loaded(&versions);
        let complete = !blocked && !published.lost.iter().any(|path| required.contains(path));
        if complete || self.status.is_open() {
            let state = HandOver {
                etag: shown.etag.clone(),
                settings: handover::digest(binding),
                next_change_at: shown.next_change_at,
                versions,
                settled: complete && !self.denied && !findings.iter().any(Finding::is_required),
                denied: self.denied,
            };
            self.unstated = None;
            if self.status.is_open() {
                self.state(state);
            } else {
                // Nobody else opens the gate.
                self.write_state(&state).map_err(PublishError::State)?;
                self.status.open();
            }
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

    pub(super) fn sweep(&mut self) {
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

/// What anybody who reaches the health port may know of a failure: nothing that the server said, which may hold names.
fn outline(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "it cannot be reached",
        Error::Untrusted { .. } => "its certificate is not trusted",
        Error::Timeout { .. } => "it did not answer in time",
        Error::Unavailable { .. } => "it is not able to answer now",
        Error::BadAnswer { .. } => "the answer is not one of the api-server",
        Error::Unauthorized(_) => "the server does not accept the credential",
        Error::Forbidden(_) => "the server refuses this caller",
        Error::NotFound(_) => "the project or the environment is not found",
        Error::Conflict(_) | Error::Rejected(_) => "it rejects the request",
        Error::TooLarge { .. } => "the answer is too large",
        Error::Unaddressable { .. } => "a name of the binding cannot be part of a URL",
    }
}
