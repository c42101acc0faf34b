//! How many requests are worked on at a time, and how much memory their bodies take. Why: `docs/adr/0011-overload.md`.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::poll_fn;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// In bytes, what bodies are counted in; the first piece of each is free, so that what most calls send never waits.
const PIECE: usize = 64 * 1024;
/// Who is refused is told to come back after 1 to so many seconds, so that not all of them come at once.
const SPREAD: u64 = 3;
/// How often the log tells of refusals.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// How much of it there may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most requests that are worked on. Those that wait for a change or for their body do not count.
    pub requests: usize,
    /// Most requests that wait for a place, and how long each of them may: who is refused at once and asks again at once
    /// costs more than who waits.
    pub waiting: usize,
    pub patience: Duration,
    /// Most requests that are worked on after such a wait. They are not refused, they queue up: a change that wakes
    /// thousands takes nothing from those who come meanwhile.
    pub woken: usize,
    /// Bytes of bodies in memory, beside the first 64 KiB of each.
    pub bodies: usize,
}

/// The work of one server.
#[derive(Debug)]
pub(super) struct Work {
    fresh: Arc<Semaphore>,
    waiting: Semaphore,
    patience: Duration,
    woken: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    refused: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

/// There is more to do than this server takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded {
    /// After how many seconds another try may do.
    pub retry_after: u64,
}

/// A request's place among those that are worked on. Clones are the same place, which is free again once all are gone.
#[derive(Debug, Clone)]
pub struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    work: Arc<Work>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    /// For its body.
    memory: Mutex<Option<OwnedSemaphorePermit>>,
}

tokio::task_local! {
    /// The place of the request that the running code works on.
    static PLACE: Place;
}

impl Work {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let Bounds {
            requests,
            waiting,
            patience,
            woken,
            bodies,
        } = bounds;
        Arc::new(Self {
            fresh: Arc::new(Semaphore::new(requests)),
            waiting: Semaphore::new(waiting),
            patience,
            woken: Arc::new(Semaphore::new(woken)),
            bodies: Arc::new(Semaphore::new(bodies / PIECE)),
            refused: AtomicU64::new(0),
            logged: Mutex::default(),
        })
    }

    /// A place, at once or soon, in the order of asking. Nobody waits for longer: a queue without an end is one in which
    /// everybody waits in vain.
    pub(super) async fn begin(self: &Arc<Self>) -> Result<Place, Overloaded> {
        if let Ok(permit) = Arc::clone(&self.fresh).try_acquire_owned() {
            return Ok(self.place(permit));
        }
        let Ok(_seat) = self.waiting.try_acquire() else {
            return Err(self.refuse("as many are worked on, and wait, as this server takes on at a time"));
        };
        let waited = tokio::time::timeout(self.patience, Arc::clone(&self.fresh).acquire_owned()).await;
        match waited {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_)) | Err(_) => Err(self.refuse("as many are worked on as this server takes on at a time")),
        }
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        Place(Arc::new(Held {
            work: Arc::clone(self),
            permit: Mutex::new(Some(permit)),
            memory: Mutex::default(),
        }))
    }

    pub(super) async fn woken(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.woken).acquire_owned().await.ok()
    }

    fn refuse(&self, why: &str) -> Overloaded {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = lock(&self.logged);
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(refused, "refusing requests: {why}");
        }
        Overloaded {
            retry_after: 1 + refused % SPREAD,
        }
    }
}

impl Place {
    /// Does this in the request's place, which [`resting`] and [`hold`] find.
    pub async fn work<T>(self, work: impl Future<Output = T>) -> T {
        PLACE.scope(self, work).await
    }

    async fn again(&self) {
        let permit = self.0.work.woken().await;
        *lock(&self.0.permit) = permit;
    }
}

/// Waits for what is not this server's work: the request's place is another's meanwhile. Takes nothing back from what is
/// ready at once.
pub async fn resting<T>(wait: impl Future<Output = T>) -> T {
    let mut wait = std::pin::pin!(wait);
    let mut rested = None;
    let done = poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        if let (Poll::Pending, None) = (&polled, &rested) {
            rested = PLACE.try_with(Clone::clone).ok();
            if let Some(Place(held)) = &rested {
                drop(lock(&held.permit).take());
            }
        }
        polled
    })
    .await;
    if let Some(place) = rested {
        place.again().await;
    }
    done
}

/// Counts `bytes` of the request's body, all of those that there are so far, until the request is done.
pub fn hold(bytes: usize) -> Result<(), Overloaded> {
    let Ok(Place(held)) = PLACE.try_with(Clone::clone) else {
        return Ok(());
    };
    let pieces = bytes.saturating_sub(1) / PIECE;
    let mut memory = lock(&held.memory);
    let more = pieces - memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits).min(pieces);
    if more == 0 {
        return Ok(());
    }
    // A body is a few MiB at most.
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    match Arc::clone(&held.work.bodies).try_acquire_many_owned(more) {
        Ok(permit) => match memory.as_mut() {
            Some(all) => all.merge(permit),
            None => *memory = Some(permit),
        },
        Err(_) => {
            return Err(held
                .work
                .refuse("their bodies take as much memory as there is for them"));
        }
    }
    Ok(())
}

/// For a task of its own that goes on with a request: it keeps the request's place.
pub fn carried<T>(work: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let place = PLACE.try_with(Clone::clone).ok();
    async move {
        match place {
            Some(place) => place.work(work).await,
            None => work.await,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    fn work(requests: usize, woken: usize) -> Arc<Work> {
        Work::new(Bounds {
            requests,
            waiting: 1,
            patience: Duration::from_millis(20),
            woken,
            bodies: 4 * PIECE,
        })
    }

    #[tokio::test]
    async fn there_are_so_many_places_and_who_finds_none_soon_is_refused() {
        let work = work(2, 1);
        let first = work.begin().await.unwrap();
        let _second = work.begin().await.unwrap();
        let waits: Vec<_> = (0..6).map(|_| work.refuse("test").retry_after).collect();
        assert_eq!(waits, [2, 3, 1, 2, 3, 1], "not all of them come back at once");
        // One may wait for a place; another finds not even room to wait.
        let (waiting, at_once) = (work.begin(), work.begin());
        let mut waiting = std::pin::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(at_once.now_or_never().unwrap().is_err());
        assert!(waiting.await.is_err(), "nor does it wait for long");
        let carried = first.clone();
        drop(first);
        assert!(
            work.begin().await.is_err(),
            "a task of its own goes on with the request"
        );
        let (next, ()) = tokio::join!(work.begin(), async { drop(carried) });
        drop(next.unwrap());
        assert_eq!(work.waiting.available_permits(), 1);
    }

    #[tokio::test]
    async fn who_rests_gives_its_place_away_and_queues_up_for_another() {
        let work = work(1, 1);
        let (wake, sleep) = oneshot::channel::<()>();
        let place = work.begin().await.unwrap();
        let poll = tokio::spawn(place.work(async {
            resting(sleep).await.unwrap();
            let all = PLACE.with(|place| place.0.work.woken.available_permits());
            assert_eq!(all, 0, "it works again");
        }));
        while work.fresh.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        let _other = work.begin().await.unwrap();
        // The one place of those that were woken is taken, so it waits, and does not fail.
        let taken = Arc::clone(&work.woken).acquire_owned().await.unwrap();
        wake.send(()).unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!poll.is_finished());
        drop(taken);
        poll.await.unwrap();
        assert_eq!(work.woken.available_permits(), 1);
    }

    #[tokio::test]
    async fn what_is_ready_costs_no_place_and_what_has_none_may_rest_too() {
        let work = work(1, 1);
        let place = work.begin().await.unwrap();
        let ready = place.work(async {
            resting(std::future::ready(())).await;
            PLACE.with(|place| place.0.work.fresh.available_permits())
        });
        assert_eq!(ready.await, 0, "it kept the place that it had");
        assert_eq!(work.fresh.available_permits(), 1);
        resting(tokio::task::yield_now()).await;
        assert_eq!(carried(async { 1 }).now_or_never(), Some(1));
    }

    #[tokio::test]
    async fn bodies_are_counted_by_what_has_come_of_them() {
        let work = work(3, 1);
        let hold = |place: &Place, bytes| place.clone().work(async move { hold(bytes) }).now_or_never().unwrap();
        let (first, second, small) = (
            work.begin().await.unwrap(),
            work.begin().await.unwrap(),
            work.begin().await.unwrap(),
        );
        for bytes in [1, PIECE, PIECE + 1, PIECE + 1, 2 * PIECE, 3 * PIECE] {
            hold(&first, bytes).unwrap();
        }
        assert_eq!(work.bodies.available_permits(), 2);
        hold(&second, 3 * PIECE).unwrap();
        hold(&second, 3 * PIECE + 1).unwrap_err();
        hold(&small, PIECE).unwrap();
        drop(first);
        hold(&second, 3 * PIECE + 1).unwrap();
        drop(second);
        assert_eq!(work.bodies.available_permits(), 4);
    }
}
