//! When to look at an object again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealpod_client::backoff::Backoff;

use super::uid::Uid;

/// How long after a reconciliation the next one comes without any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// All is as it should be. Whatever moves tells of it; the look is for what was missed.
    Settled,
    /// At the latest then, and sooner where the others are.
    Within(Duration),
    /// Something on the server or in the cluster has to appear first, which is told, too.
    Waiting,
    /// Only a change of the object helps; the look is for the case that its event was lost.
    Stuck,
}

/// The first delay after a failure, and what the doubled ones end at. Each is drawn from its upper half, so that objects
/// that failed together do not come back together: 1 s … 5 min.
const BASE: Duration = Duration::from_secs(2);
const CAP: Duration = Duration::from_mins(5);
/// Longest time without any event, and the part of it that passes in any case.
const SETTLED: (Duration, f64) = (Duration::from_hours(3), 2.0 / 3.0);

/// Failures by the UID of the object.
#[derive(Debug, Default)]
pub struct Retries(Mutex<HashMap<String, Backoff>>);

impl Retries {
    /// Counts one more failure: how many there are now, and how long to wait.
    pub fn failed(&self, uid: &str) -> (u32, Duration) {
        let mut objects = self.objects();
        let backoff = objects.entry(uid.to_owned()).or_insert_with(|| Backoff::new(BASE, CAP));
        let ceiling = BASE.saturating_mul(1 << backoff.failures().min(20)).min(CAP);
        backoff.next_delay();
        (backoff.failures(), backoff.jittered(ceiling, 0.5))
    }

    /// Failures since the last success.
    pub fn count(&self, uid: &str) -> u32 {
        self.objects().get(uid).map_or(0, Backoff::failures)
    }

    pub fn succeeded(&self, uid: &str) {
        self.objects().remove(uid);
    }

    /// Forgets objects, whose rows begin with their UIDs.
    pub fn forget_all(&self, gone: &HashSet<Uid>) {
        let uid = |row: &str| Uid::of(row.split('/').next().unwrap_or_default());
        self.objects().retain(|row, _| !gone.contains(&uid(row)));
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<String, Backoff>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Again {
    /// The delay, spread by a tenth and more so that objects made together do not stay together.
    pub fn delay(self) -> Duration {
        let (longest, low) = match self {
            Self::Settled => SETTLED,
            // Behind the time, never before it; and where that is far off, not all at one moment.
            Self::Within(time) => {
                let time = time + Backoff::new(BASE, CAP).jittered(time / 20, 0.0);
                return time.min(Self::Settled.delay());
            }
            Self::Waiting => (Duration::from_mins(2), 0.5),
            Self::Stuck => (Duration::from_secs(330), 270.0 / 330.0),
        };
        Backoff::new(BASE, CAP).jittered(longest, low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_for_each_object_until_it_succeeds() {
        let retries = Retries::default();
        for (count, most) in (1..10).zip([2, 4, 8, 16, 32, 64, 128, 256, 300]) {
            let (failures, delay) = retries.failed("a");
            assert_eq!(failures, count);
            let most = Duration::from_secs(most);
            assert!((most / 2..=most).contains(&delay), "{delay:?} after {count} failures");
        }
        assert_eq!(retries.failed("b").0, 1);
        assert_eq!((retries.count("a"), retries.count("c")), (9, 0));
        retries.succeeded("a");
        assert_eq!(retries.failed("a").0, 1);
    }

    #[test]
    fn looks_come_in_their_time_but_not_together() {
        for (again, from, to) in [
            (Again::Settled, 7_200, 10_800),
            (Again::Within(Duration::from_secs(100)), 100, 105),
            (Again::Within(Duration::from_hours(24)), 7_200, 10_800),
            (Again::Waiting, 60, 120),
            (Again::Stuck, 270, 330),
        ] {
            let delays: Vec<_> = (0..50).map(|_| again.delay()).collect();
            let range = Duration::from_secs(from)..=Duration::from_secs(to);
            assert!(delays.iter().all(|d| range.contains(d)), "{again:?}");
            assert!(delays.iter().any(|d| *d != delays[0]), "{again:?}");
        }
    }
}
