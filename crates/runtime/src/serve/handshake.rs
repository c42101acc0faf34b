//! TLS handshakes: taken in turn, so that a flood of them leaves the threads to requests too.
//!
//! A handshake costs a thread about a millisecond, a request a tenth of one, and the runtime works through what is
//! ready in the order in which it became so: behind a thousand peers that have sent their hello, a request of a caller
//! that is long known would wait for a second. So a handshake takes a turn first, of which there are few, and then
//! queues up once more: a request finds no more than these few before it.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum_server::accept::Accept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::PollSemaphore;

use super::door::Arrived;

/// Handshakes that are ready to go on, for each core: one that is at it, one that follows without a gap.
const TURNS_PER_CORE: usize = 2;
/// Handshakes that are under way, for each core. At a millisecond each, the last one's first step is done 128 ms after
/// its peer was accepted; at some 40 KiB each, they take 5 MiB a core.
const PLACES_PER_CORE: usize = 128;
/// How long a peer may let us wait, in all, before its place goes to the next one: its handshake goes on, but silent
/// peers do not keep others from being accepted.
const LINGER: Duration = Duration::from_millis(250);

/// Most handshakes under way at a time.
pub(super) fn places() -> usize {
    cores() * PLACES_PER_CORE
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Lets handshakes in, in turn.
#[derive(Debug, Clone)]
pub(super) struct Handshakes<A> {
    inner: A,
    turns: Arc<Semaphore>,
}

impl<A> Handshakes<A> {
    pub(super) fn new(inner: A) -> Self {
        Self {
            inner,
            turns: Arc::new(Semaphore::new(cores() * TURNS_PER_CORE)),
        }
    }
}

impl<S, A: Accept<Arrived, S>> Accept<Arrived, S> for Handshakes<A> {
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Handshake<A::Future>;

    fn accept(&self, mut arrived: Arrived, service: S) -> Self::Future {
        let place = arrived.place.take().map(|permit| Place::new(permit, LINGER));
        Handshake::new(self.inner.accept(arrived, service), place, Arc::clone(&self.turns))
    }
}

/// A handshake under way.
pub(super) struct Handshake<F> {
    work: Pin<Box<F>>,
    turns: PollSemaphore,
    turn: Option<OwnedSemaphorePermit>,
    place: Option<Place>,
}

/// One of the places of handshakes.
struct Place {
    _permit: OwnedSemaphorePermit,
    /// How long its peer may still let us wait: see [`LINGER`].
    left: Duration,
    /// While the peer is waited for.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<F> Handshake<F> {
    fn new(work: F, place: Option<Place>, turns: Arc<Semaphore>) -> Self {
        Self {
            work: Box::pin(work),
            turns: PollSemaphore::new(turns),
            turn: None,
            place,
        }
    }
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, left: Duration) -> Self {
        Self {
            _permit: permit,
            left,
            waiting: None,
        }
    }

    /// The peer did something, or has let us wait for too long.
    fn waited(&mut self) {
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
    }

    /// The peer is waited for from here on; false if it has no time left.
    fn wait(&mut self, cx: &mut Context<'_>) -> bool {
        if self.left.is_zero() {
            return false;
        }
        let mut alarm = Box::pin(tokio::time::sleep(self.left));
        if alarm.as_mut().poll(cx).is_ready() {
            return false;
        }
        self.waiting = Some((Instant::now(), alarm));
        true
    }
}

impl<T, F: Future<Output = io::Result<T>>> Future for Handshake<F> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if let Some(place) = &mut self.place {
            place.waited();
        }
        if self.turn.is_none() {
            self.turn = Some(ready!(self.turns.poll_acquire(cx)).expect("turns are never closed"));
            // Behind whatever is ready by now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let progress = self.work.as_mut().poll(cx);
        self.turn = None;
        if progress.is_pending() && self.place.as_mut().is_some_and(|place| !place.wait(cx)) {
            self.place = None;
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_handshakes_are_ready_to_go_on_than_there_are_turns() {
        let (turns, done) = (Arc::new(Semaphore::new(2)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..10 {
            let done = Arc::clone(&done);
            let work = poll_fn(move |_| {
                done.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            });
            tokio::spawn(Handshake::new(work, None, Arc::clone(&turns)));
        }
        // A request that goes through the queue again and again finds no more than these before it.
        let request = async move {
            let mut before = 0;
            for _ in 0..20 {
                let now = done.load(Ordering::Relaxed);
                assert!(now - before <= 2, "{} of them at once", now - before);
                before = now;
                let mut again = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut again, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
            before
        };
        assert_eq!(tokio::spawn(request).await.unwrap(), 10);
        assert_eq!(turns.available_permits(), 2);
    }

    /// Stands for [`LINGER`].
    const SHORT: Duration = Duration::from_millis(50);

    async fn place(places: &Arc<Semaphore>) -> Option<Place> {
        let permit = Arc::clone(places).acquire_owned().await.unwrap();
        Some(Place::new(permit, SHORT))
    }

    #[tokio::test]
    async fn a_silent_peer_gives_its_place_back_and_may_go_on() {
        let (turns, places) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let (answer, waiting) = tokio::sync::oneshot::channel();
        let slow = async { waiting.await.map_err(io::Error::other) };
        let slow = tokio::spawn(Handshake::new(slow, place(&places).await, Arc::clone(&turns)));
        let asked = Instant::now();
        let _next = places.acquire().await.unwrap();
        assert!(asked.elapsed() >= SHORT && !slow.is_finished());
        answer.send("done").unwrap();
        assert_eq!(slow.await.unwrap().unwrap(), "done");
    }

    #[tokio::test]
    async fn waiting_for_a_turn_is_not_the_peers_fault() {
        let (turns, places) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let taken = turns.acquire().await.unwrap();
        let silent = Handshake::new(pending::<io::Result<()>>(), place(&places).await, Arc::clone(&turns));
        let silent = tokio::spawn(silent);
        tokio::time::sleep(SHORT * 4).await;
        assert_eq!(places.available_permits(), 0, "the server is what it waits for");
        drop(taken);
        let _next = places.acquire().await.unwrap();
        assert_eq!(turns.available_permits(), 1);
        silent.abort();
    }

    #[tokio::test]
    async fn a_handshake_that_ends_leaves_its_place_at_once() {
        let (turns, places) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let failing = async { Err::<(), _>(io::Error::other("no TLS")) };
        let place = place(&places).await;
        Handshake::new(failing, place, turns).await.unwrap_err();
        assert_eq!(places.available_permits(), 1);
    }
}
