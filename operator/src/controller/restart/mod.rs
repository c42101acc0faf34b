//! `onChange.restart: Rollout`: workloads that use what a binding delivers are rolled out anew when it changes.
//!
//! The versions for which they were last rolled out stand in an annotation of the binding's key Secret, written after
//! the last of them. A binding without it is seen for the first time, and rolls out nothing; neither does a new leader, a
//! restart or a re-list, because what it sees is what stands there. A crash in between does all of it again: the mark on
//! a pod template is made of the versions that it uses, so that a second time changes nothing.

mod evaluate;
mod run;
mod workloads;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use sealpod_client::backoff::Backoff;
use sealpod_crds::{Restart, SecretBinding};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::binding::Known;
use super::uid::Uid;
pub use evaluate::{ALL, Copy, State, injected};
pub use run::{recorded, run};

/// For so long nothing more has to change before workloads are rolled out: what is set together is rolled out once.
const QUIET: Duration = Duration::from_secs(2);
/// And so long after the first change they are, whatever still changes.
const LONGEST: Duration = Duration::from_secs(10);
/// How often somebody looks whether a binding is still paused; the end of a pause is told, too.
const HELD: Duration = Duration::from_mins(1);
/// Delays after failures.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(5));

/// Bindings whose workloads may have to be rolled out, by UID.
#[derive(Debug, Default)]
pub struct Restarts {
    bindings: Mutex<HashMap<String, Entry>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    /// The number of the last state that was dealt with, and what workloads follow since. The latter stands on the key
    /// Secret, too, which somebody may delete.
    settled: Option<u64>,
    followed: Option<Arc<State>>,
    pending: Option<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    job: Arc<Job>,
    due: Instant,
    /// When the first change of those that wait was seen.
    since: Instant,
    failures: u32,
    /// Whether its binding is paused, as far as is known.
    held: bool,
}

/// A look at the workloads of one binding.
#[derive(Debug)]
struct Job {
    binding: SecretBinding,
    uid: String,
    namespace: String,
    state: State,
    /// Names that the key may not read just now; they are as they were.
    denied: Vec<String>,
}

impl Restarts {
    /// Takes note of what a binding delivers now. Costs nothing where that is what it delivered before, and the record
    /// of it is on the key Secret.
    pub fn consider(&self, binding: &SecretBinding, known: &Known, copy: Option<Copy>, is_recorded: bool) {
        self.consider_at(Instant::now(), binding, known, copy, is_recorded);
    }

    fn consider_at(&self, now: Instant, binding: &SecretBinding, known: &Known, copy: Option<Copy>, is_recorded: bool) {
        let uid = binding.uid().unwrap_or_default();
        let wants = binding.spec.on_change.as_ref().and_then(|on_change| on_change.restart) == Some(Restart::Rollout);
        if !wants {
            return self.forget(&uid);
        }
        let state = State::new(known.secrets.clone(), copy);
        let mut bindings = self.bindings();
        let entry = bindings.entry(uid.clone()).or_default();
        let number = state.number();
        if let Some(pending) = entry.pending.as_mut().filter(|pending| pending.job.state == state) {
            // Whoever looks at a binding does not find it paused.
            if std::mem::take(&mut pending.held) {
                pending.due = now + QUIET;
                self.changed.notify_one();
            }
            return;
        }
        if entry.settled == Some(number) && entry.pending.is_none() && is_recorded {
            return;
        }
        let since = entry.pending.as_ref().map_or(now, |pending| pending.since);
        entry.pending = Some(Pending {
            job: Arc::new(Job {
                binding: SecretBinding {
                    // For events, and no more.
                    status: None,
                    ..binding.clone()
                },
                namespace: binding.namespace().unwrap_or_default(),
                uid,
                state,
                denied: known.denied.iter().cloned().collect(),
            }),
            due: (now + QUIET).min(since + LONGEST),
            since,
            failures: 0,
            held: false,
        });
        drop(bindings);
        self.changed.notify_one();
    }

    pub fn forget(&self, uid: &str) {
        self.bindings().remove(uid);
    }

    pub fn forget_all(&self, gone: &HashSet<Uid>) {
        self.bindings().retain(|uid, _| !gone.contains(&Uid::of(uid)));
    }

    /// What workloads follow, as far as this process has seen to it.
    fn followed(&self, uid: &str) -> Option<Arc<State>> {
        self.bindings().get(uid)?.followed.clone()
    }

    fn follow(&self, uid: &str, state: State) {
        if let Some(entry) = self.bindings().get_mut(uid) {
            entry.followed = Some(Arc::new(state));
        }
    }

    /// One that is due, or when the next is.
    fn next(&self, now: Instant) -> Result<Arc<Job>, Option<Instant>> {
        let bindings = self.bindings();
        let pending = bindings.values().filter_map(|entry| entry.pending.as_ref());
        let first = pending.min_by_key(|pending| pending.due);
        match first {
            Some(pending) if pending.due <= now => Ok(Arc::clone(&pending.job)),
            other => Err(other.map(|pending| pending.due)),
        }
    }

    /// Puts a look off because its binding is paused.
    fn hold(&self, job: &Arc<Job>, now: Instant) {
        let mut bindings = self.bindings();
        let pending = bindings.get_mut(&job.uid).and_then(|entry| entry.pending.as_mut());
        if let Some(pending) = pending.filter(|pending| Arc::ptr_eq(&pending.job, job)) {
            pending.due = now + HELD;
            pending.held = true;
        }
    }

    /// What became of a look. A change that came in the meantime waits on.
    fn done(&self, job: &Arc<Job>, succeeded: bool, now: Instant) {
        let mut bindings = self.bindings();
        let Some(entry) = bindings.get_mut(&job.uid) else {
            return;
        };
        if succeeded {
            entry.settled = Some(job.state.number());
        }
        let Some(pending) = entry.pending.as_mut().filter(|pending| Arc::ptr_eq(&pending.job, job)) else {
            return;
        };
        if succeeded {
            entry.pending = None;
            return;
        }
        pending.failures += 1;
        let (base, cap) = RETRY;
        let ceiling = base.saturating_mul(1 << pending.failures.min(8)).min(cap);
        pending.due = now + Backoff::new(base, cap).jittered(ceiling, 0.5);
    }

    fn bindings(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
