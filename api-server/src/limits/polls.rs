//! How many long polls each key has open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{CredentialId, Exceeded};

/// What a caller over its share is told to wait: polls end by themselves, but nobody knows when.
const RETRY_AFTER: u64 = 5;

/// Counts of valid credentials only, one for each that has a poll open; so there are never more than open polls.
#[derive(Debug, Clone)]
pub(super) struct OpenPolls {
    most: u32,
    open: Arc<Mutex<HashMap<CredentialId, u32>>>,
}

/// An open poll; it is counted until this is dropped.
#[derive(Debug)]
pub struct PollPermit {
    polls: OpenPolls,
    credential: CredentialId,
}

impl OpenPolls {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            open: Arc::default(),
        }
    }

    pub(super) fn begin(&self, credential: CredentialId) -> Result<PollPermit, Exceeded> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&credential).copied().unwrap_or(0);
        if count >= self.most {
            return Err(Exceeded {
                retry_after: RETRY_AFTER,
            });
        }
        open.insert(credential, count + 1);
        Ok(PollPermit {
            polls: self.clone(),
            credential,
        })
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        let mut open = self.polls.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.credential) {
            Some(count) if *count > 1 => *count -= 1,
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
        let first = polls.begin(one).unwrap();
        let _second = polls.begin(one).unwrap();
        assert!(polls.begin(one).is_err());
        let theirs = polls.begin(other).unwrap();
        drop(first);
        let third = polls.begin(one).unwrap();
        assert!(polls.begin(one).is_err());
        drop((third, theirs));
        assert_eq!(
            polls.open.lock().unwrap().len(),
            1,
            "nothing is kept of who has none open"
        );
    }
}
