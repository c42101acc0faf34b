//! One way to serve HTTP or HTTPS: bounded connections, handshakes, headers and patience, no Nagle delay, a bounded drain
//! at the end.

mod accept;
mod connections;
mod door;
mod handshake;
pub mod later;
mod pending;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;

use accept::Gate;
use connections::Connections;
use door::{Door, Peer};
use handshake::Handshakes;

/// How long a client may take to send its headers, and how long a kept connection may rest between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest head of a request, in bytes: the query of a bundle may name many keys.
const MAX_HEAD: u32 = 64 * 1024;
/// Most requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 200;
/// What a peer may send on one HTTP/2 connection, and on one request of it, before anybody has asked for it: it is held in
/// memory, whoever the peer is; 8 MiB from the other end of the world still come in time. And what is held of an answer that
/// its peer does not take.
const UNREAD: u32 = 512 * 1024;
const UNREAD_OF_ONE: u32 = 256 * 1024;
const UNSENT_OF_ONE: usize = 64 * 1024;
/// Connections that wait to be accepted. The system bounds it by its own setting, 4,096 on Linux.
const QUEUE: i32 = 4096;

pub use connections::{Connection, Limits, Strangers};

/// Binds a listener; the error names the address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
    listener.set_nonblocking(true)?;
    // The library asks for 128; behind these the system drops who comes, and they try again after a second, then three.
    rustix::net::listen(&listener, QUEUE)?;
    Ok(listener)
}

/// Serves `router` until `shutdown`, then lets open requests finish for at most `drain`. Handlers find the peer's
/// address as `ConnectInfo<SocketAddr>`.
pub async fn run(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    run_within(listener, tls, router, Limits::default(), shutdown, drain).await
}

/// As [`run`], with limits of its own. Handlers find their [`Connection`] as an extension.
pub async fn run_within(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
    drain: Duration,
) -> io::Result<()> {
    let handle = Handle::new();
    let router = router.layer(from_fn(pending::mark));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let door = Door::new(listener, tls.is_some().then_some(limits.handshakes), shutdown.clone())?;
    let server = prepare(Server::from_listener(door), &handle).acceptor(Gate(Connections::new(limits)));
    let serving = async {
        match tls {
            Some(config) => {
                server
                    .map(|plain| Handshakes::new(RustlsAcceptor::new(config).acceptor(plain)))
                    .serve(service)
                    .await
            }
            None => server.serve(service).await,
        }
    };
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown.cancelled() => handle.graceful_shutdown(Some(drain)),
    }
    serving.await
}

fn prepare(mut server: Server<Peer>, handle: &Handle<Peer>) -> Server<Peer> {
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // Also what it reads ahead of a body.
        .max_buf_size(MAX_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEADER_TIMEOUT)
        .keep_alive_timeout(HEADER_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(UNREAD)
        .initial_stream_window_size(UNREAD_OF_ONE)
        .max_send_buf_size(UNSENT_OF_ONE)
        .max_header_list_size(MAX_HEAD)
        // Streams that a peer opens only to reset them, and those that its faults make us reset: then the connection ends.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024);
    server.handle(handle.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn start(
        router: Router,
        drain: Duration,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(listener, None, router, shutdown.clone(), drain));
        (address, shutdown, task)
    }

    async fn fetch(address: SocketAddr) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_request_in_flight_at_the_stop_is_answered() {
        let (arrived, mut seen) = tokio::sync::mpsc::channel(1);
        let router = Router::new().route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
                arrived.send(()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                peer.ip().to_string()
            }),
        );
        let (address, shutdown, task) = start(router, Duration::from_secs(10));
        let request = tokio::spawn(fetch(address));
        seen.recv().await.unwrap();
        shutdown.cancel();
        assert!(request.await.unwrap().ends_with("127.0.0.1"));
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_does_not_hold_the_stop() {
        let (arrived, mut seen) = tokio::sync::mpsc::channel(1);
        let never = get(|| async move {
            arrived.send(()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let router = Router::new().route("/", never);
        let (address, shutdown, task) = start(router, Duration::from_millis(100));
        let request = tokio::spawn(fetch(address));
        seen.recv().await.unwrap();
        let before = Instant::now();
        shutdown.cancel();
        task.await.unwrap().unwrap();
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_eq!(request.await.unwrap(), "", "no answer was made up");
    }

    #[test]
    fn an_occupied_port_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        assert!(bind(address).unwrap_err().to_string().contains(&address.to_string()));
    }
}
