//! What is done with a connection before it is served.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use axum::http::Request;
use axum::response::Response;
use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tower::Service;

use super::connections::{Connection, Connections};
use super::door::Arrived;
use super::later::Answering;
use super::pending::Pending;
use super::stream::Guarded;

/// Counts connections, guards their bytes, and lets their requests know them.
#[derive(Debug, Clone)]
pub(super) struct Gate(pub(super) Connections);

impl<S> Accept<Arrived, S> for Gate {
    type Stream = Guarded<TcpStream>;
    type Service = Announced<S>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, arrived: Arrived, service: S) -> Self::Future {
        ready(self.admit(arrived.stream, service))
    }
}

impl Gate {
    fn admit<S>(&self, stream: TcpStream, service: S) -> io::Result<(Guarded<TcpStream>, Announced<S>)> {
        let connection = self.0.begin(stream.peer_addr()?.ip())?;
        stream.set_nodelay(true)?;
        let pending = Pending::new(connection.ticket().patience() * 4);
        Ok((
            Guarded::new(stream, connection.clone(), pending.clone()),
            Announced {
                service,
                connection,
                pending,
            },
        ))
    }
}

/// Gives each request its [`Connection`], and waits for answers that come later.
#[derive(Debug, Clone)]
pub(super) struct Announced<S> {
    service: S,
    connection: Connection,
    pending: Pending,
}

impl<S: Service<Request<B>, Response = Response>, B> Service<Request<B>> for Announced<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        self.connection.requested();
        let extensions = request.extensions_mut();
        extensions.insert(self.connection.clone());
        extensions.insert(self.pending.clone());
        Answering::new(self.service.call(request))
    }
}
