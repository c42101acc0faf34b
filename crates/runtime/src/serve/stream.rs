//! A connection's bytes, with an end to waiting.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connections::{Awaited, Connection};
use super::pending::Pending;

/// What a peer must take of what is written to it, in bytes, to get the whole patience again.
const PROGRESS: usize = 64 * 1024;

/// Fails instead of waiting longer than the connection's limits allow.
pub(super) struct Guarded<I> {
    io: I,
    connection: Connection,
    pending: Pending,
    /// While it is a stranger's: rings when it has to go.
    waiting: Option<Waiting>,
    /// While the peer does not take what is written: when that has lasted too long.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes that it took since then.
    taken: usize,
}

struct Waiting {
    until: Pin<Box<Sleep>>,
    leave: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<I> Guarded<I> {
    pub(super) fn new(io: I, connection: Connection, pending: Pending) -> Self {
        let ticket = connection.ticket();
        let waiting = Waiting {
            until: Box::pin(tokio::time::sleep_until(ticket.awaited().1.into())),
            leave: Box::pin(ticket.leave.clone().cancelled_owned()),
        };
        Self {
            io,
            connection,
            pending,
            waiting: Some(waiting),
            stalled: None,
            taken: 0,
        }
    }

    /// An error once the connection has to go.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.pending.is_overdue() {
            return Err(gone("an answer was not taken in time"));
        }
        let Some(waiting) = &mut self.waiting else {
            return Ok(());
        };
        loop {
            let (awaited, until) = self.connection.ticket().awaited();
            if awaited == Awaited::Nothing {
                self.waiting = None;
                return Ok(());
            }
            if waiting.leave.as_mut().poll(cx).is_ready() {
                return Err(gone("another connection took its place"));
            }
            if waiting.until.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            if until <= Instant::now() {
                return Err(gone("no request or no valid credential came in time"));
            }
            // A request came meanwhile, and the credential has more time.
            waiting.until.as_mut().reset(until.into());
        }
    }

    /// What came of a write, unless the peer has let us wait for too long.
    fn written(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(bytes)) => {
                self.taken = self.taken.saturating_add(bytes);
                if self.taken >= PROGRESS {
                    self.stalled = None;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                let patience = self.connection.ticket().patience();
                if self.stalled.is_none() {
                    self.taken = 0;
                }
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(stalled.as_mut().poll(cx));
                Poll::Ready(Err(gone("the peer does not take its answer")))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
        }
    }
}

fn gone(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl<I: AsyncRead + Unpin> AsyncRead for Guarded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guarded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Whoever flushes has written everything, so nobody is waited for any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stalled = None;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::connections::{Connections, Limits};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    const PATIENCE: Duration = Duration::from_millis(100);

    fn guarded() -> (Guarded<DuplexStream>, DuplexStream, Connection) {
        let all = Connections::new(Limits {
            patience: PATIENCE,
            ..Limits::default()
        });
        let connection = all.begin("192.0.2.1".parse().unwrap()).unwrap();
        let (ours, theirs) = tokio::io::duplex(1024);
        (
            Guarded::new(ours, connection.clone(), Pending::new(PATIENCE)),
            theirs,
            connection,
        )
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let (mut ours, mut theirs, _) = guarded();
        theirs.write_all(b"GET /").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 5, "a piece of a request is none");
        let error = ours.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_sent_a_request_may_rest() {
        let (mut ours, mut theirs, connection) = guarded();
        connection.requested();
        let mut buffer = [0; 64];
        let waited = tokio::time::timeout(PATIENCE * 3, ours.read(&mut buffer)).await;
        assert!(waited.is_err(), "{waited:?}");
        theirs.write_all(b"more").await.unwrap();
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn who_takes_nothing_or_a_byte_now_and_then_is_dropped() {
        let (mut ours, mut theirs, connection) = guarded();
        connection.requested();
        let dripping = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(PATIENCE / 20).await;
            }
        });
        let error = ours.write_all(&vec![0; 1024 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        dripping.abort();
    }

    #[tokio::test]
    async fn who_takes_what_there_is_gets_all_of_it() {
        let (mut ours, mut theirs, connection) = guarded();
        connection.requested();
        let reading = tokio::spawn(async move {
            let mut all = 0;
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(bytes @ 1..) = theirs.read(&mut buffer).await {
                all += bytes;
            }
            all
        });
        for _ in 0..4 {
            ours.write_all(&vec![0; 1024 * 1024]).await.unwrap();
            ours.flush().await.unwrap();
            tokio::time::sleep(PATIENCE / 2).await;
        }
        drop(ours);
        assert_eq!(reading.await.unwrap(), 4 * 1024 * 1024);
    }
}
