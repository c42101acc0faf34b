//! What the log was told last about each thing, so that it is not told the same again and again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::uid::digest;

/// After which the same is told again.
const AGAIN_AFTER: Duration = Duration::from_mins(5);
/// From so many on, what is older than that is dropped: things may go without ever having passed.
const MANY: usize = 1_024;

/// By the thing: the hash of the text, and when it was told.
#[derive(Debug, Default)]
pub struct Told(HashMap<[u8; 16], ([u8; 16], Instant)>);

impl Told {
    /// Whether this is to be told now: it is another text than the last about `what`, or minutes have passed since.
    pub fn is_news(&mut self, what: &str, text: &str, now: Instant) -> bool {
        let (what, text) = (digest(what.as_bytes()), digest(text.as_bytes()));
        let is_recent = |at: Instant| now.duration_since(at) < AGAIN_AFTER;
        if self
            .0
            .get(&what)
            .is_some_and(|(last, at)| *last == text && is_recent(*at))
        {
            return false;
        }
        if self.0.len() >= MANY {
            self.0.retain(|_, (_, at)| is_recent(*at));
        }
        self.0.insert(what, (text, now));
        true
    }

    /// All is well with it: whatever fails next is news.
    pub fn passed(&mut self, what: &str) {
        self.0.remove(&digest(what.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_about_one_thing_is_told_once_in_five_minutes_and_anything_new_at_once() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert!(told.is_news("shop/db", "refused", start));
        for seconds in [0, 1, 299] {
            assert!(!told.is_news("shop/db", "refused", start + Duration::from_secs(seconds)));
        }
        assert!(told.is_news("shop/other", "refused", start));
        assert!(told.is_news("shop/db", "gone", start));
        assert!(told.is_news("shop/db", "gone", start + AGAIN_AFTER));
        assert!(!told.is_news("shop/db", "gone", start + AGAIN_AFTER));
        told.passed("shop/db");
        assert!(told.is_news("shop/db", "gone", start + AGAIN_AFTER));
    }

    #[test]
    fn what_went_without_having_passed_is_not_kept_for_ever() {
        let (mut told, start) = (Told::default(), Instant::now());
        for n in 0..MANY {
            assert!(told.is_news(&n.to_string(), "refused", start));
        }
        assert!(told.is_news("one more", "refused", start + AGAIN_AFTER));
        assert_eq!(told.0.len(), 1);
    }
}
