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
}

impl Door {
    /// Accepts while fewer than `handshakes` are under way; without such a bound, whoever comes.
    pub(super) fn new(listener: std::net::TcpListener, handshakes: Option<usize>) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            places: handshakes.map(|places| Arc::new(Semaphore::new(places))),
        })
    }
}

impl AddrListener<Arrived, Peer> for Door {
    async fn bind_to(Peer(address): Peer) -> io::Result<Self> {
        Self::new(super::bind(address)?, None)
    }

    async fn accept_stream(&self) -> io::Result<(Arrived, Peer)> {
        let place = match &self.places {
            Some(places) => Some(Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?),
            None => None,
        };
        let (stream, peer) = self.listener.accept().await?;
        Ok((Arrived { stream, place }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.listener.local_addr().map(Peer)
    }
}
