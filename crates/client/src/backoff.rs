//! Full-jitter backoff: each delay is drawn from zero to a ceiling that doubles, so that callers who failed together
//! do not come back together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Delays for one caller; [`Backoff::reset`] after a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Ceilings of `base`, twice that, … up to `cap`. Callers with different seeds draw different delays; those with
    /// the same seed (the UID of one pod, say) draw the same ones again.
    pub fn seeded(base: Duration, cap: Duration, seed: &str) -> Self {
        // FNV-1a: the same number for the same text in every build, which the standard library does not promise.
        let random = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            base,
            cap,
            failures: 0,
            random,
        }
    }

    /// As [`Backoff::seeded`], with a seed of the process's own.
    pub fn new(base: Duration, cap: Duration) -> Self {
        let mut backoff = Self::seeded(base, cap, "");
        backoff.random = RandomState::new().hash_one(0);
        backoff
    }

    /// How long to wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.failures.min(20)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(self.fraction())
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// `duration` times a number drawn from `low` to 1, so that a fleet started together spreads out.
    pub fn jittered(&mut self, duration: Duration, low: f64) -> Duration {
        duration.mul_f64(low + (1.0 - low) * self.fraction())
    }

    /// A number in 0..1, by splitmix64: good enough to spread callers, and one line of state.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits are left");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_mins(1);

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_to_the_cap() {
        let mut backoff = Backoff::seeded(BASE, CAP, "pod");
        for failure in 0..100_u32 {
            let ceiling = BASE.saturating_mul(1 << failure.min(20)).min(CAP);
            assert!(backoff.next_delay() <= ceiling);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= BASE);
    }

    #[test]
    fn delays_spread_over_the_whole_range() {
        let mut backoff = Backoff::seeded(CAP, CAP, "pod");
        let mut quarters = [0_u32; 4];
        for _ in 0..4_000 {
            quarters[usize::try_from(backoff.next_delay().as_secs() / 15).unwrap().min(3)] += 1;
        }
        assert!(quarters.iter().all(|n| (800..1_200).contains(n)), "{quarters:?}");
    }

    #[test]
    fn a_seed_decides_the_delays() {
        let delays = |seed| {
            let mut backoff = Backoff::seeded(BASE, CAP, seed);
            (0..5).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays("a"), delays("a"));
        assert_ne!(delays("a"), delays("b"));
    }
}
