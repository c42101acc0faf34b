//! What waiting calls share: most of them are copies of a few, and would all look at the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sealpod_core::Time;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::look::Looked;
use crate::error::ApiError;
use crate::store::Sequence;

/// How many answers of more than [`super::LIGHT`] bytes are made at a time.
const LARGE_TURNS: usize = 2;

/// What all waiting calls of a server share.
#[derive(Debug)]
pub struct Polls {
    large: Semaphore,
    looks: Mutex<HashMap<LookId, Weak<Shared>>>,
}

/// Names who looks, at what, and what they know of it: two with one name would see the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LookId(pub [u8; 32]);

/// What a look must have seen to be of use: this change, and the database as of this instant or later.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    pub change: Sequence,
    pub instant: Option<Time>,
}

/// What a look that begins now will see.
#[derive(Debug, Clone, Copy)]
pub struct Sees {
    /// The last change so far.
    pub change: Sequence,
    pub instant: Time,
}

impl Sees {
    fn meets(self, need: Need) -> bool {
        self.change >= need.change && need.instant.is_none_or(|instant| self.instant >= instant)
    }
}

struct Shared {
    /// Noted before it began.
    sees: Sees,
    looked: OnceCell<Looked>,
}

/// A look that may have other users.
pub struct Joined<'a> {
    polls: &'a Polls,
    id: LookId,
    /// Until it is dropped.
    shared: Option<Arc<Shared>>,
}

impl Default for Polls {
    fn default() -> Self {
        Self {
            large: Semaphore::new(LARGE_TURNS),
            looks: Mutex::default(),
        }
    }
}

impl Polls {
    /// A turn for an answer that takes much memory.
    pub async fn large(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.large.acquire().await.ok()
    }

    /// Joins a look that sees what is needed, or begins one that sees what there is now.
    pub fn join(&self, id: LookId, need: Need, now: Sees) -> Joined<'_> {
        let mut looks = self.looks();
        let running = looks.get(&id).and_then(Weak::upgrade);
        let shared = running.filter(|shared| shared.sees.meets(need)).unwrap_or_else(|| {
            let shared = Arc::new(Shared {
                sees: now,
                looked: OnceCell::new(),
            });
            looks.insert(id, Arc::downgrade(&shared));
            shared
        });
        Joined {
            polls: self,
            id,
            shared: Some(shared),
        }
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<LookId, Weak<Shared>>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined<'_> {
    /// What was seen. Whoever comes first looks for all; a failure is the looker's own, and the next one tries again.
    pub async fn looked<F>(&self, look: impl FnOnce() -> F) -> Result<&Looked, ApiError>
    where
        F: Future<Output = Result<Looked, ApiError>>,
    {
        let shared = self.shared.as_ref().expect("it is there until it is dropped");
        shared.looked.get_or_try_init(look).await
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut looks = self.polls.looks();
        self.shared = None;
        if looks.get(&self.id).is_some_and(|shared| shared.strong_count() == 0) {
            looks.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::crypto::Keyring;
    use crate::store::{Options, Store};

    const ONE: LookId = LookId([1; 32]);

    /// Two numbers of changes, the lower one first.
    async fn changes() -> (Sequence, Sequence) {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::parse(crate::crypto::generate_master_key().expose()).unwrap();
        let store = Store::open(&Options::new(folder.path().join("sealpod.db")), &keyring).unwrap();
        let before = store.sequence();
        store
            .ensure_organization("acme", crate::audit::By::system("test"))
            .await
            .unwrap();
        (before, store.sequence())
    }

    fn at(microseconds: i64) -> Time {
        Time::from_microseconds(microseconds).unwrap()
    }

    #[tokio::test]
    async fn a_look_is_shared_by_those_for_whom_it_is_new_enough() {
        let (before, after) = changes().await;
        assert!(before < after);
        let polls = Polls::default();
        let now = Sees {
            change: before,
            instant: at(10),
        };
        let need = |change, instant: Option<i64>| Need {
            change,
            instant: instant.map(at),
        };
        let first = polls.join(ONE, need(before, None), now);
        let is_first =
            |joined: &Joined<'_>| Arc::ptr_eq(joined.shared.as_ref().unwrap(), first.shared.as_ref().unwrap());
        assert!(is_first(&polls.join(ONE, need(before, Some(10)), now)));
        assert!(!is_first(&polls.join(LookId([2; 32]), need(before, None), now)));
        let late = Sees {
            change: after,
            instant: at(11),
        };
        let newer = polls.join(ONE, need(before, Some(11)), late);
        assert!(!is_first(&newer));
        assert!(!is_first(&polls.join(ONE, need(after, None), late)));
        drop((first, newer));
        assert!(polls.looks().is_empty(), "nothing is kept that nobody uses");
    }

    #[tokio::test]
    async fn a_look_that_failed_is_tried_again_by_the_next_one() {
        let (change, _) = changes().await;
        let polls = Polls::default();
        let now = Sees {
            change,
            instant: at(10),
        };
        let tries = AtomicUsize::new(0);
        let failing = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err(ApiError::Unauthorized)
        };
        let joined: Vec<_> = (0..3)
            .map(|_| polls.join(ONE, Need { change, instant: None }, now))
            .collect();
        for one in &joined {
            assert!(matches!(one.looked(failing).await, Err(ApiError::Unauthorized)));
        }
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }
}
