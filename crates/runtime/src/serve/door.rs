//! Where connections come in.
//!
//! A connection whose TLS handshake is still to be done has one of a bounded number of places. When all are taken,
//! nothing is accepted: those who come wait in the system's queue, where they cost nothing, and the handshakes that have
//! begun end in time. Without the bound all of a returning fleet would shake hands at once, so slowly that every one of
//! them gave up and began anew.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum_server::{AddrListener, Address};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The address of a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(SocketAddr);

impl Address for Peer {
    type Stream = Arrived;
    type Listener = Door;
}

impl Connected<Peer> for SocketAddr {
    fn connect_info(peer: Peer) -> Self {
        peer.0
    }
}

/// A connection that was just accepted.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) stream: TcpStream,
    /// Held while the handshake goes on; none where there is no TLS.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    places: Option<Arc<Semaphore>>,
    shutdown: CancellationToken,
}

impl Door {
    /// Accepts while fewer than `handshakes` are under way; without such a bound, whoever comes. Nobody after `shutdown`:
    /// the library would go on for as long as somebody comes.
    pub(super) fn new(
        listener: std::net::TcpListener,
        handshakes: Option<usize>,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            places: handshakes.map(|places| Arc::new(Semaphore::new(places))),
            shutdown,
        })
    }
}

impl AddrListener<Arrived, Peer> for Door {
    async fn bind_to(Peer(address): Peer) -> io::Result<Self> {
        Self::new(super::bind(address)?, None, CancellationToken::new())
    }

    async fn accept_stream(&self) -> io::Result<(Arrived, Peer)> {
        let place = match &self.places {
            Some(places) => Some(Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?),
            None => None,
        };
        let Some(accepted) = self.shutdown.run_until_cancelled(self.listener.accept()).await else {
            return std::future::pending().await;
        };
        let (stream, peer) = accepted?;
        Ok((Arrived { stream, place }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn soon<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(50), work).await.ok()
    }

    #[tokio::test]
    async fn who_comes_behind_the_last_place_is_accepted_when_one_is_free() {
        let listener = super::super::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::new(listener, Some(1), CancellationToken::new()).unwrap();
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let (first, _) = door.accept_stream().await.unwrap();
        assert!(soon(door.accept_stream()).await.is_none());
        // Its handshake is done; the connection stays.
        let Arrived { stream: _stream, place } = first;
        drop(place);
        door.accept_stream().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_is_accepted_once_the_server_stops() {
        let listener = super::super::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let door = Door::new(listener, None, stop.clone()).unwrap();
        let _clients = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        door.accept_stream().await.unwrap();
        stop.cancel();
        assert!(soon(door.accept_stream()).await.is_none());
    }
}
