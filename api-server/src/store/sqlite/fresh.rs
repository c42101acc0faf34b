//! Whether what was read a while ago is still so, told without looking at the database.
//!
//! Commits that change what is remembered are numbered. Whoever reads notes the number of the last one *before* looking;
//! what is found is true until a commit with a higher number touches it. While a commit is under way nothing that it
//! touches counts as true, and its number stands before its callers hear of it: a key that was revoked is dead at the
//! next request, and nobody sees an old state after somebody saw the new one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::SecretId;

/// Counters for secrets. Two that share one cost each other a look at the database, nothing else.
const SLOTS: usize = 1024;
/// Of what a commit that is under way touches.
const IN_FLUX: u64 = u64::MAX;

/// When what was read was so: before the change with the next number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64);

/// What a change may have made untrue.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// All that is remembered, for whatever is not known to be narrower.
    pub(super) everything: bool,
    /// The versions of these.
    pub(super) secrets: Vec<SecretId>,
}

#[derive(Debug)]
pub(super) struct Freshness {
    last: AtomicU64,
    everything: AtomicU64,
    secrets: Box<[AtomicU64]>,
}

/// A commit under way; when this is dropped it is over, well or not.
pub(super) struct Changing<'a> {
    freshness: &'a Freshness,
    touched: &'a Touched,
}

impl Freshness {
    pub(super) fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            secrets: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Take it before looking.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.last.load(Ordering::SeqCst))
    }

    /// Whether names, places and rights are as they were.
    pub(super) fn holds(&self, stamp: Stamp) -> bool {
        stamp.0 >= self.everything.load(Ordering::SeqCst)
    }

    /// Whether, moreover, the versions of the secret are.
    pub(super) fn holds_for(&self, stamp: Stamp, secret: SecretId) -> bool {
        self.holds(stamp) && stamp.0 >= self.slot(secret).load(Ordering::SeqCst)
    }

    /// Only the one thread that writes calls this.
    pub(super) fn change<'a>(&'a self, touched: &'a Touched) -> Changing<'a> {
        self.mark(touched, IN_FLUX);
        Changing {
            freshness: self,
            touched,
        }
    }

    fn mark(&self, touched: &Touched, number: u64) {
        if touched.everything {
            self.everything.store(number, Ordering::SeqCst);
        }
        for secret in &touched.secrets {
            self.slot(*secret).store(number, Ordering::SeqCst);
        }
    }

    fn slot(&self, secret: SecretId) -> &AtomicU64 {
        // The last bytes of these ids are random.
        let [.., high, low] = *secret.0.as_bytes();
        &self.secrets[usize::from(u16::from_be_bytes([high, low])) % SLOTS]
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        let number = self.freshness.last.load(Ordering::SeqCst) + 1;
        self.freshness.mark(self.touched, number);
        // Last: who notes this number sees the change.
        self.freshness.last.store(number, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two secrets that share no counter.
    fn secrets(freshness: &Freshness) -> (SecretId, SecretId) {
        let one = SecretId::new();
        loop {
            let other = SecretId::new();
            if !std::ptr::eq(freshness.slot(one), freshness.slot(other)) {
                return (one, other);
            }
        }
    }

    #[test]
    fn a_change_of_one_secret_leaves_the_others_true() {
        let freshness = Freshness::new();
        let (one, other) = secrets(&freshness);
        let before = freshness.stamp();
        drop(freshness.change(&Touched {
            everything: false,
            secrets: vec![one],
        }));
        assert!(!freshness.holds_for(before, one));
        assert!(freshness.holds_for(before, other) && freshness.holds(before));
        assert!(freshness.holds_for(freshness.stamp(), one));
    }

    #[test]
    fn a_change_of_everything_leaves_nothing_true() {
        let freshness = Freshness::new();
        let (one, _) = secrets(&freshness);
        let before = freshness.stamp();
        drop(freshness.change(&Touched {
            everything: true,
            secrets: vec![],
        }));
        assert!(!freshness.holds(before) && !freshness.holds_for(before, one));
        assert!(freshness.holds_for(freshness.stamp(), one));
    }

    #[test]
    fn what_was_read_while_a_commit_was_under_way_never_counts_as_true() {
        let freshness = Freshness::new();
        let (one, _) = secrets(&freshness);
        let touched = Touched {
            everything: false,
            secrets: vec![one],
        };
        let before = freshness.stamp();
        let changing = freshness.change(&touched);
        let during = freshness.stamp();
        assert!(!freshness.holds_for(before, one) && !freshness.holds_for(during, one));
        drop(changing);
        assert!(!freshness.holds_for(before, one) && !freshness.holds_for(during, one));
    }
}
