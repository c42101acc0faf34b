//! Work that waits for a thread. Bounded: a caller waits, without blocking its own thread, until there is room.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    ready: Condvar,
    room: Semaphore,
}

struct Inner<T> {
    items: VecDeque<T>,
    closed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    Item(T),
    Late,
    /// Closed, and all that was in it is done.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                closed: false,
            }),
            ready: Condvar::new(),
            room: Semaphore::new(capacity),
        }
    }

    pub(super) async fn push(&self, item: T) -> Result<(), Closed> {
        let permit = self.room.acquire().await.map_err(|_| Closed)?;
        let mut inner = self.lock();
        if inner.closed {
            return Err(Closed);
        }
        inner.items.push_back(item);
        permit.forget();
        drop(inner);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for an item, until `deadline` if there is one.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Next<T> {
        let mut inner = self.lock();
        loop {
            if let Some(item) = inner.items.pop_front() {
                self.room.add_permits(1);
                return Next::Item(item);
            }
            if inner.closed {
                return Next::Closed;
            }
            inner = match deadline {
                None => self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Late;
                    }
                    let waited = self.ready.wait_timeout(inner, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// An item that is there already.
    pub(super) fn waiting(&self) -> Option<T> {
        let item = self.lock().items.pop_front()?;
        self.room.add_permits(1);
        Some(item)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Nothing is taken from now on; what is in it will still be handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.ready.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // Nothing that runs under this lock can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_makes_callers_wait() {
        let queue = Arc::new(Queue::new(1));
        queue.push(1).await.unwrap();
        let second = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.push(2).await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!second.is_finished());
        assert_eq!(queue.waiting(), Some(1));
        second.await.unwrap().unwrap();
        assert_eq!(queue.next(None), Next::Item(2));
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_what_is_in_it_and_takes_no_more() {
        let queue = Queue::new(8);
        queue.push(1).await.unwrap();
        queue.close();
        assert_eq!(queue.push(2).await, Err(Closed));
        assert_eq!(queue.next(None), Next::Item(1));
        assert_eq!(queue.next(None), Next::Closed);
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let queue = Queue::<u8>::new(1);
        assert_eq!(queue.next(Some(Instant::now() + Duration::from_millis(5))), Next::Late);
    }
}
