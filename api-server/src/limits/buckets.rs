//! Token buckets in bounded memory.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most buckets of one generation; twice as many are remembered. A bucket takes some 32 bytes.
const GENERATION: usize = 50_000;

/// How often something may happen: `burst` times at once, and then once in each `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub interval: Duration,
    pub burst: NonZeroU32,
}

impl Rate {
    pub fn per_second(count: NonZeroU32, burst: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(1) / count.get(),
            burst,
        }
    }
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Whole seconds after which another try may do; at least 1.
    pub retry_after: u64,
}

/// One token bucket for each of many keys.
///
/// A bucket is one number: the time at which it is full again. It is full for whoever is not remembered, so a full one
/// need not be kept. Memory is bounded by two generations: new and used buckets go to the younger one, and when that
/// is full the older one is dropped as a whole. So a call never walks the buckets, and it takes at least
/// [`GENERATION`] other keys to make one forgotten; those get tokens back, nobody loses any.
#[derive(Debug)]
pub struct Buckets {
    /// Nanoseconds in which one token comes back.
    interval: u64,
    /// Nanoseconds in which an empty bucket fills.
    depth: u64,
    generation: usize,
    generations: Mutex<Generations>,
}

/// By key, when each bucket is full again, in nanoseconds from the server's start.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
}

impl Buckets {
    pub fn new(rate: Rate) -> Self {
        Self::with_generation(rate, GENERATION)
    }

    fn with_generation(rate: Rate, generation: usize) -> Self {
        let interval = u64::try_from(rate.interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self {
            interval,
            depth: interval.saturating_mul(u64::from(rate.burst.get())),
            generation,
            generations: Mutex::default(),
        }
    }

    /// Takes a token out of the bucket of `key`; `now` is counted from the server's start and never goes back.
    pub fn take(&self, key: u64, now: Duration) -> Result<(), Exceeded> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = generations.find(key).unwrap_or(0).max(now);
        let after = full_at.saturating_add(self.interval);
        let missing = after.saturating_sub(now).saturating_sub(self.depth);
        if missing > 0 {
            return Err(Exceeded {
                retry_after: missing.div_ceil(1_000_000_000),
            });
        }
        generations.keep(key, after, self.generation);
        Ok(())
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        let generations = self.generations.lock().unwrap();
        generations.young.len() + generations.old.len()
    }
}

impl Generations {
    fn find(&self, key: u64) -> Option<u64> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn keep(&mut self, key: u64, full_at: u64, most: usize) {
        if let Some(known) = self.young.get_mut(&key) {
            *known = full_at;
            return;
        }
        if self.young.len() >= most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, full_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::per_second(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_at_once_and_then_what_comes_back() {
        let buckets = Buckets::new(rate(2, 5));
        let passed = |at| (0..100).filter(|_| buckets.take(1, at).is_ok()).count();
        assert_eq!(passed(Duration::ZERO), 5);
        assert_eq!(passed(SECOND), 2);
        assert_eq!(passed(SECOND * 100), 5, "no more than a burst is saved up");
        assert!(
            buckets.take(2, SECOND * 100).is_ok(),
            "another key has a bucket of its own"
        );
    }

    #[test]
    fn the_time_to_wait_is_told_in_whole_seconds_and_is_enough() {
        let slow = Buckets::new(rate(1, 1));
        slow.take(1, Duration::ZERO).unwrap();
        assert_eq!(slow.take(1, Duration::ZERO), Err(Exceeded { retry_after: 1 }));
        assert_eq!(slow.take(1, SECOND / 2), Err(Exceeded { retry_after: 1 }));
        slow.take(1, SECOND).unwrap();
        let fast = Buckets::new(rate(1_000, 1));
        fast.take(1, Duration::ZERO).unwrap();
        assert_eq!(fast.take(1, Duration::ZERO), Err(Exceeded { retry_after: 1 }));
    }

    #[test]
    fn any_number_of_keys_takes_a_bounded_memory() {
        let buckets = Buckets::with_generation(rate(1, 1), 100);
        for key in 0..100_000 {
            buckets.take(key, Duration::ZERO).unwrap();
            assert!(buckets.remembered() <= 200);
        }
        // One that is in use is not forgotten by a flood that is smaller than a generation.
        let buckets = Buckets::with_generation(rate(1, 2), 100);
        buckets.take(7, Duration::ZERO).unwrap();
        buckets.take(7, Duration::ZERO).unwrap();
        for key in 1_000..1_100 {
            buckets.take(key, Duration::ZERO).unwrap();
        }
        assert!(buckets.take(7, Duration::ZERO).is_err());
    }

    proptest! {
        /// In any time `t`, no more than `burst + t × per_second` pass; and who keeps to the rate is never refused.
        #[test]
        fn the_rate_is_kept(per_second in 1u32..1_000, burst in 1u32..50, gaps in prop::collection::vec(0u64..50, 1..400)) {
            let buckets = Buckets::new(rate(per_second, burst));
            let (mut now, mut passed) = (Duration::ZERO, 0u64);
            for gap in gaps {
                now += Duration::from_millis(gap);
                passed += u64::from(buckets.take(1, now).is_ok());
                // The interval is rounded down to a nanosecond, which is worth less than one request here.
                let most = u64::from(burst) + u64::try_from(now.as_nanos()).unwrap() * u64::from(per_second) / 1_000_000_000 + 1;
                prop_assert!(passed <= most, "{passed} of {most}");
            }
            let polite = Buckets::new(rate(per_second, 1));
            for n in 0..100 {
                prop_assert!(polite.take(1, Duration::from_secs(n) / per_second + Duration::from_nanos(n)).is_ok());
            }
        }
    }
}
