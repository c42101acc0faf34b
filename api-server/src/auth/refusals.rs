//! How many refusals of one caller go on record.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_mins(1);
/// Refusals of one caller that are recorded within [`WINDOW`].
const PER_WINDOW: u32 = 30;
/// Most callers that are counted at a time.
const MAX_CALLERS: usize = 10_000;

/// Counts per caller. A caller over its share is still refused, only without another entry.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<[u8; 16], (Instant, u32)>>);

impl Refusals {
    /// Whether this refusal goes on record.
    pub fn admit(&self, caller: [u8; 16]) -> bool {
        self.admit_at(caller, Instant::now())
    }

    fn admit_at(&self, caller: [u8; 16], now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_CALLERS && !counts.contains_key(&caller) {
            counts.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if counts.len() >= MAX_CALLERS {
                return false;
            }
        }
        let (since, count) = counts.entry(caller).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_keeps_asking_is_recorded_at_a_bounded_rate() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let recorded = (0..1_000).filter(|_| refusals.admit_at([1; 16], start)).count();
        assert_eq!(recorded, PER_WINDOW as usize);
        assert!(refusals.admit_at([2; 16], start), "another caller has its own share");
        assert!(
            refusals.admit_at([1; 16], start + WINDOW),
            "a new minute is a new share"
        );
    }
}
