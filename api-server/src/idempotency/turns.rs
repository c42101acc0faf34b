//! One at a time for each scope: who comes second waits, and then finds what the first one left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Scope = [u8; 32];

/// The scopes that somebody works in or waits for; no others are kept.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<Scope, Arc<AsyncMutex<()>>>>>);

/// The right to work in a scope, until it is dropped. Fields are dropped in this order, and the count in the second one
/// includes the first.
#[derive(Debug)]
pub struct Turn {
    _held: OwnedMutexGuard<()>,
    _place: Place,
}

/// Somebody who works or waits.
#[derive(Debug)]
struct Place {
    turns: Turns,
    scope: Scope,
    lock: Arc<AsyncMutex<()>>,
}

impl Turns {
    pub async fn take(&self, scope: Scope) -> Turn {
        let lock = Arc::clone(self.lock().entry(scope).or_default());
        let place = Place {
            turns: self.clone(),
            scope,
            lock,
        };
        Turn {
            _held: Arc::clone(&place.lock).lock_owned().await,
            _place: place,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, Arc<AsyncMutex<()>>>> {
        // Nothing that runs under this lock leaves the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut scopes = self.turns.lock();
        // The map's own and this one: nobody else works here or waits, and nobody can begin to under this lock.
        if Arc::strong_count(&self.lock) == 2 {
            scopes.remove(&self.scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scope_is_for_one_at_a_time_and_forgotten_behind_the_last_one() {
        let turns = Turns::default();
        let (one, other) = ([1; 32], [2; 32]);
        let first = turns.take(one).await;
        let _beside = turns.take(other).await;
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(one).await }
        });
        // One who gives up waiting takes nothing along.
        let given_up = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take(one).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(turns.lock().len(), 2);
        drop(second);
        assert_eq!(turns.lock().len(), 1);
    }
}
