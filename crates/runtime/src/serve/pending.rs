//! What HTTP/2 holds for a peer that has not asked for it yet.
//!
//! On HTTP/1 a peer that takes no answer shows as a write that stands still. On HTTP/2 it shows nowhere: the library
//! keeps the data until the peer opens its window, and the connection itself looks idle. So the data carries a mark
//! with it, and the connection is given up once the oldest mark is too old. Pings make sure that somebody looks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::later::then;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::Version;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The answers of one connection that its peer has not taken.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    patience: Duration,
    marks: Arc<Mutex<Marks>>,
}

#[derive(Debug, Default)]
struct Marks {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// Lives for as long as what it marks.
struct Mark {
    id: u64,
    pending: Pending,
}

impl Pending {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            marks: Arc::default(),
        }
    }

    pub(super) fn is_overdue(&self) -> bool {
        let marks = self.marks();
        let oldest = marks.since.first_key_value();
        oldest.is_some_and(|(_, since)| since.elapsed() >= self.patience)
    }

    fn mark(&self) -> Mark {
        let mut marks = self.marks();
        let id = marks.next;
        marks.next += 1;
        marks.since.insert(id, Instant::now());
        Mark {
            id,
            pending: self.clone(),
        }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.pending.marks().since.remove(&self.id);
    }
}

/// The layer that marks answers.
pub(super) async fn mark(request: Request, next: Next) -> Response {
    let pending = (request.version() == Version::HTTP_2)
        .then(|| request.extensions().get::<Pending>().cloned())
        .flatten();
    let response = next.run(request).await;
    match pending {
        Some(pending) => then(response, |response| {
            response.map(|body| Body::new(Marked::new(body, pending)))
        }),
        None => response,
    }
}

struct Marked {
    body: Body,
    pending: Pending,
    /// Until somebody asks for the first piece, all of it is held here.
    untouched: Option<Mark>,
}

impl Marked {
    fn new(body: Body, pending: Pending) -> Self {
        let untouched = (!body.is_end_stream()).then(|| pending.mark());
        Self {
            body,
            pending,
            untouched,
        }
    }
}

struct Piece {
    bytes: Bytes,
    _mark: Mark,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.untouched = None;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let marked = |bytes: Bytes| {
            let mark = self.pending.mark();
            Bytes::from_owner(Piece { bytes, _mark: mark })
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(marked))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mark_lives_as_long_as_the_data() {
        let pending = Pending::new(Duration::ZERO);
        assert!(!pending.is_overdue());
        let body = Body::new(Marked::new(Body::from("answer"), pending.clone()));
        assert!(pending.is_overdue(), "nobody has asked for it");
        assert_eq!(body.size_hint().exact(), Some(6));
        let bytes = axum::body::to_bytes(body, 100).await.unwrap();
        assert_eq!(bytes, "answer");
        let rest = bytes.slice(3..);
        drop(bytes);
        assert!(pending.is_overdue(), "a part of it is still held");
        drop(rest);
        assert!(!pending.is_overdue());
        drop(Marked::new(Body::from("never sent"), pending.clone()));
        assert!(!pending.is_overdue());
    }
}
