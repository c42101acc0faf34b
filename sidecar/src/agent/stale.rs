//! What becomes of the files while nobody can say that they are right: `spec.staleness`.

use std::path::Path;
use std::time::{Duration, Instant};

use sealpod_core::injection::{Stale, Staleness};

use super::Agent;
use crate::handover;
use crate::journal::State;
use crate::publish::{FileSet, PublishError};

/// The server is asked at least once before files are given up whose age a new process only reads off.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// For how long nobody has said that the files are right. Counted by the monotonic clock: the other one jumps.
#[derive(Debug)]
pub(super) struct Freshness {
    /// When somebody last did; the start where nobody has.
    since: Instant,
    /// What they were older than at the start.
    before: Duration,
    /// Whether they have been given up, which is done once.
    given_up: bool,
}

impl Freshness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            before: Duration::ZERO,
            given_up: false,
        }
    }

    /// The files are those of a former process, which was sure of them so long ago.
    pub(super) fn resume(&mut self, age: Duration, now: Instant) {
        *self = Self {
            before: age,
            ..Self::new(now)
        };
    }

    pub(super) fn confirmed(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// How long until the files are too old; none where they never are, or have been given up already.
    fn due_in(&self, max: Option<u64>, now: Instant) -> Option<Duration> {
        let max = Duration::from_secs(max.filter(|_| !self.given_up)?);
        let left = if self.before.is_zero() {
            max
        } else {
            max.saturating_sub(self.before).max(FIRST_ANSWER.min(max))
        };
        Some(left.saturating_sub(now.saturating_duration_since(self.since)))
    }
}

impl Agent {
    fn staleness(&self) -> Option<Staleness> {
        let session = self.session.as_ref()?;
        session
            .binding
            .staleness
            .filter(|staleness| staleness.then != Stale::Keep)
    }

    /// How long until [`Agent::grow_stale`] has something to do. Before the first files there are none to give up.
    pub(super) fn stale_in(&self, now: Instant) -> Option<Duration> {
        let staleness = self.staleness().filter(|_| self.status.is_open())?;
        self.freshness.due_in(staleness.max, now)
    }

    pub(super) fn grow_stale(&mut self) {
        let seconds = self.staleness().and_then(|staleness| staleness.max).unwrap_or_default();
        self.give_up(&format!("nobody has confirmed the files for {seconds} s"));
    }

    /// Does what the binding wants done with files that nobody vouches for. Once, until somebody does again.
    pub(super) fn give_up(&mut self, why: &str) {
        let Some(then) = self.staleness().map(|staleness| staleness.then) else {
            return;
        };
        if self.freshness.given_up || !self.status.is_open() {
            return;
        }
        if then == Stale::Remove
            && let Err(error) = self.remove_files()
        {
            // Tried again with the next answer, or none.
            self.journal.tell(&State::Unwritable(&error));
            return;
        }
        self.freshness.given_up = true;
        self.journal.tell(&State::GivenUp { then, why });
        self.status
            .close(format!("{why}; the binding's staleness says {then:?}"));
    }

    /// The answer is good, but a right to something that pods wait for is gone; under `Remove` so is its file.
    pub(super) fn give_up_denied(&mut self) {
        if let Some(staleness) = self.staleness().filter(|_| self.status.is_open()) {
            self.status.close(format!(
                "a required secret is refused; the binding's staleness says {:?}",
                staleness.then
            ));
        }
    }

    fn remove_files(&mut self) -> Result<(), PublishError> {
        let mount = Path::new(&self.mounted.mount_path);
        // First what vouches for them: a process that is killed between the two leaves files that nobody believes.
        handover::remove(mount).map_err(PublishError::State)?;
        self.publisher.publish(FileSet::default())?;
        self.shown = None;
        self.unstated = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn files_grow_old_by_the_clock_that_does_not_jump() {
        let start = Instant::now();
        let mut fresh = Freshness::new(start);
        assert_eq!(fresh.due_in(None, start), None, "for ever");
        assert_eq!(fresh.due_in(Some(60), start + SECONDS(20)), Some(SECONDS(40)));
        assert_eq!(fresh.due_in(Some(60), start + SECONDS(99)), Some(Duration::ZERO));
        fresh.given_up = true;
        assert_eq!(fresh.due_in(Some(60), start + SECONDS(99)), None, "once");
        fresh.confirmed(start + SECONDS(100));
        assert_eq!(fresh.due_in(Some(60), start + SECONDS(100)), Some(SECONDS(60)));
    }

    #[test]
    fn a_new_process_asks_before_it_gives_files_up() {
        let start = Instant::now();
        let mut fresh = Freshness::new(start);
        fresh.resume(SECONDS(45), start);
        assert_eq!(fresh.due_in(Some(60), start), Some(SECONDS(15)));
        fresh.resume(Duration::from_hours(9), start);
        assert_eq!(fresh.due_in(Some(60), start), Some(SECONDS(10)));
        assert_eq!(fresh.due_in(Some(5), start), Some(SECONDS(5)));
    }
}
