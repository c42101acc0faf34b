//! How many long polls each key has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{CredentialId, Exceeded};

/// What a caller over its share is told to wait: polls end by themselves, but nobody knows when.
const RETRY_AFTER: u64 = 5;
/// Most bytes that one key's polls may hold together of what they ask: as many polls as it may have, each with the longest
/// question that a path can hold.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Counts of valid credentials only, one for each that has a poll open; so there are never more than open polls.
#[derive(Debug, Clone)]
pub(super) struct OpenPolls(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    most: u32,
    open: Mutex<HashMap<CredentialId, Count>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    polls: u32,
    bytes: usize,
}

/// An open poll; it is counted until this is dropped.
#[derive(Debug)]
pub struct PollPermit {
    polls: OpenPolls,
    credential: CredentialId,
    bytes: usize,
}

impl OpenPolls {
    pub(super) fn new(most: u32) -> Self {
        Self(Arc::new(Counts {
            most,
            open: Mutex::default(),
        }))
    }

    /// One more poll, which holds so many bytes of what it asks.
    pub(super) fn begin(&self, credential: CredentialId, bytes: usize) -> Result<PollPermit, Exceeded> {
        let mut open = self.open();
        let count = open.get(&credential).copied().unwrap_or_default();
        let after = Count {
            polls: count.polls + 1,
            bytes: count.bytes.saturating_add(bytes),
        };
        if after.polls > self.0.most || after.bytes > MAX_BYTES {
            return Err(Exceeded {
                retry_after: RETRY_AFTER,
            });
        }
        open.insert(credential, after);
        Ok(PollPermit {
            polls: self.clone(),
            credential,
            bytes,
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CredentialId, Count>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        let mut open = self.polls.open();
        match open.get_mut(&self.credential) {
            Some(count) if count.polls > 1 => {
                count.polls -= 1;
                count.bytes -= self.bytes;
            }
            _ => {
                open.remove(&self.credential);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_share_of_open_polls_and_gets_it_back() {
        let polls = OpenPolls::new(2);
        let (one, other) = (CredentialId(1), CredentialId(2));
        let first = polls.begin(one, 0).unwrap();
        let _second = polls.begin(one, 0).unwrap();
        assert!(polls.begin(one, 0).is_err());
        let theirs = polls.begin(other, 0).unwrap();
        drop(first);
        let third = polls.begin(one, 0).unwrap();
        assert!(polls.begin(one, 0).is_err());
        drop((third, theirs));
        assert_eq!(polls.open().len(), 1, "nothing is kept of who has none open");
    }

    #[test]
    fn what_the_polls_of_a_key_ask_is_bounded_together() {
        let polls = OpenPolls::new(10);
        let (one, other) = (CredentialId(1), CredentialId(2));
        let first = polls.begin(one, MAX_BYTES - 10).unwrap();
        let second = polls.begin(one, 10).unwrap();
        assert!(polls.begin(one, 1).is_err());
        assert!(polls.begin(other, 1).is_ok());
        drop(first);
        let _again = polls.begin(one, MAX_BYTES - 10).unwrap();
        drop(second);
        assert!(polls.begin(one, 11).is_err());
        assert!(polls.begin(one, 10).is_ok());
    }
}
