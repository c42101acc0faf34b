//! How many connections there are, and which of them have to go.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::handshake;
use crate::process;

/// Descriptors that are kept for files, and at least half of those that there are.
const RESERVED_FILES: u64 = 512;
/// Most connections, however many descriptors there are.
const MAX_CONNECTIONS: u64 = 65_536;
/// What one that waits takes of memory at most: measured were 37 KiB with TLS and HTTP/2, and the half of that without.
const MEMORY_OF_ONE: u64 = 40 * 1024;
/// As many as three quarters of the memory hold, and never fewer than these.
const FEW_CONNECTIONS: u64 = 512;
/// A stranger that is younger than this is not sent away for a newer one: it may just be about to show who it is.
const GRACE: Duration = Duration::from_secs(5);
/// How often the log tells of connections that were refused.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// What a listener bounds.
#[derive(Clone)]
pub struct Limits {
    /// Most connections at a time; more are closed as they come.
    pub connections: usize,
    /// Most TLS handshakes under way at a time; who comes behind them is not accepted before one is done.
    pub handshakes: usize,
    /// What is asked of connections that have shown no valid credential; none: a first request is all.
    pub strangers: Option<Strangers>,
    /// How long a connection may take to its first request, TLS included, and another to take 64 KiB of its answer.
    pub patience: Duration,
}

/// Limits for connections on which nobody has shown a valid credential yet: see [`Connection::known`].
#[derive(Clone)]
pub struct Strangers {
    /// Most of them from one source, an IPv4 address or an IPv6 /64. One more takes the place of the oldest, unless
    /// that one is only seconds old; then it is closed as it comes.
    pub per_source: usize,
    /// From so many connections on, strangers' or not: where there is room, a burst of one source is let in.
    pub from: usize,
    /// How long one may stay.
    pub time: Duration,
    /// Peers that speak for many others, such as proxies, and so are no strangers: a first request is all.
    pub exempt: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Default for Limits {
    /// As many connections as the process may have open files, less some for other files, and as its memory holds: to
    /// close some is better than to be killed with all.
    fn default() -> Self {
        let connections = most(process::open_files(), process::memory());
        Self {
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            handshakes: handshake::places(),
            strangers: None,
            patience: Duration::from_secs(30),
        }
    }
}

/// How many connections so many files and so much memory allow.
fn most(files: u64, memory: Option<u64>) -> u64 {
    let by_files = files - RESERVED_FILES.min(files / 2);
    let by_memory = memory.map_or(u64::MAX, |bytes| (bytes / 4 * 3 / MEMORY_OF_ONE).max(FEW_CONNECTIONS));
    by_files.min(by_memory).min(MAX_CONNECTIONS)
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("connections", &self.connections)
            .field("handshakes", &self.handshakes)
            .field(
                "strangers",
                &self.strangers.as_ref().map(|strangers| strangers.per_source),
            )
            .field("patience", &self.patience)
            .finish()
    }
}

/// The connections of one listener.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Those that have shown no credential, by source, oldest first.
    strangers: HashMap<IpAddr, Vec<Stranger>>,
    refused: u64,
    logged: Option<Instant>,
}

#[derive(Debug)]
struct Stranger {
    id: u64,
    since: Instant,
    /// Cancelled to send it away.
    leave: CancellationToken,
}

/// One connection. Requests carry it as an extension.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Ticket>);

#[derive(Debug)]
pub(super) struct Ticket {
    shared: Arc<Shared>,
    id: u64,
    source: IpAddr,
    exempt: bool,
    pub(super) since: Instant,
    pub(super) leave: CancellationToken,
    state: AtomicU8,
}

/// No request yet.
const SILENT: u8 = 0;
/// A request, but no valid credential.
const STRANGER: u8 = 1;
/// Whoever it is may stay.
const KNOWN: u8 = 2;

/// What a connection is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    Request,
    Credential,
    Nothing,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            open: Mutex::default(),
        }))
    }

    /// Counts a new connection, or refuses it.
    pub(super) fn begin(&self, peer: IpAddr) -> io::Result<Connection> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (id, since, leave) = (
            NEXT.fetch_add(1, Ordering::Relaxed),
            Instant::now(),
            CancellationToken::new(),
        );
        let source = source(peer);
        let strangers = self.0.limits.strangers.as_ref();
        let strangers = strangers.filter(|strangers| !(strangers.exempt)(peer));
        let mut open = self.0.open();
        if open.total >= self.0.limits.connections {
            return Err(open.refuse("there are as many connections as this server takes"));
        }
        let open_now = open.total;
        if let Some(strangers) = strangers {
            let of_source = open.strangers.entry(source).or_default();
            if of_source.len() >= strangers.per_source && open_now >= strangers.from {
                match of_source.first() {
                    Some(oldest) if oldest.since.elapsed() >= GRACE => of_source.remove(0).leave.cancel(),
                    _ => return Err(open.refuse("its source has as many as it may have without a valid credential")),
                }
            }
            of_source.push(Stranger {
                id,
                since,
                leave: leave.clone(),
            });
        }
        open.total += 1;
        Ok(Connection(Arc::new(Ticket {
            shared: Arc::clone(&self.0),
            id,
            source,
            exempt: strangers.is_none(),
            since,
            leave,
            state: AtomicU8::new(SILENT),
        })))
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn refuse(&mut self, why: &str) -> io::Error {
        self.refused += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::warn!(
                refused = self.refused,
                open = self.total,
                "closing new connections: {why}"
            );
        }
        io::Error::new(io::ErrorKind::ConnectionRefused, "over a limit")
    }

    fn forget(&mut self, source: IpAddr, id: u64) {
        if let Some(of_source) = self.strangers.get_mut(&source) {
            of_source.retain(|stranger| stranger.id != id);
            if of_source.is_empty() {
                self.strangers.remove(&source);
            }
        }
    }
}

impl Connection {
    /// Somebody showed a valid credential on it: it counts as a stranger's no more.
    pub fn known(&self) {
        if self.0.state.swap(KNOWN, Ordering::Relaxed) != KNOWN {
            self.0.shared.open().forget(self.0.source, self.0.id);
        }
    }

    /// A request came.
    pub(super) fn requested(&self) {
        if self.0.exempt {
            self.known();
            return;
        }
        let state = &self.0.state;
        // It may be known already, and stays so.
        let _ = state.compare_exchange(SILENT, STRANGER, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn ticket(&self) -> &Ticket {
        &self.0
    }
}

impl Ticket {
    /// What it is waited for, and until when.
    pub(super) fn awaited(&self) -> (Awaited, Instant) {
        let limits = &self.shared.limits;
        match (self.state.load(Ordering::Relaxed), &limits.strangers) {
            (SILENT, _) => (Awaited::Request, self.since + limits.patience),
            (STRANGER, Some(strangers)) => (Awaited::Credential, self.since + strangers.time),
            _ => (Awaited::Nothing, self.since),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.shared.limits.patience
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        open.total -= 1;
        open.forget(self.source, self.id);
    }
}

/// What counts as one source: see [`Strangers::per_source`].
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            IpAddr::V6(network.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_source: usize) -> Connections {
        Connections::new(Limits {
            connections: total,
            strangers: Some(Strangers {
                per_source,
                from: 0,
                time: Duration::from_mins(1),
                exempt: Arc::new(|peer| peer == ip("10.0.0.1")),
            }),
            patience: Duration::from_mins(1),
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn files_and_memory_bound_connections() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(most(1_024, None), 512);
        assert_eq!(most(100, None), 50);
        assert_eq!(most(1_000_000, None), MAX_CONNECTIONS);
        assert_eq!(most(1_000_000, Some(256 * MIB)), 4_915);
        assert_eq!(most(1_000_000, Some(4 * MIB)), FEW_CONNECTIONS);
        // As the first version of control groups writes no limit.
        assert_eq!(most(1_000_000, Some(0x7fff_ffff_ffff_f000)), MAX_CONNECTIONS);
    }

    #[test]
    fn there_are_no_more_than_the_limit_and_places_come_back() {
        let all = connections(2, 10);
        let first = all.begin(ip("192.0.2.1")).unwrap();
        let _second = all.begin(ip("192.0.2.2")).unwrap();
        assert!(all.begin(ip("192.0.2.3")).is_err());
        drop(first);
        all.begin(ip("192.0.2.3")).unwrap();
    }

    #[test]
    fn a_source_has_its_share_of_strangers_and_any_number_of_known_connections() {
        let all = connections(1_000, 2);
        let one = ip("192.0.2.1");
        let kept: Vec<_> = (0..10)
            .map(|_| {
                let connection = all.begin(one).unwrap();
                connection.requested();
                connection.known();
                connection
            })
            .collect();
        let _strangers = [all.begin(one).unwrap(), all.begin(one).unwrap()];
        assert!(all.begin(one).is_err());
        assert!(all.begin(ip("::ffff:192.0.2.1")).is_err(), "it is the same address");
        let other = all.begin(ip("192.0.2.2")).unwrap();
        // A proxy speaks for many.
        let proxied: Vec<_> = (0..10).map(|_| all.begin(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(proxied[0].ticket().awaited().0, Awaited::Request);
        proxied[0].requested();
        assert_eq!(proxied[0].ticket().awaited().0, Awaited::Nothing);
        assert_eq!(all.0.open().total, 10 + 2 + 1 + 10);
        drop((kept, other, proxied));
        assert_eq!(
            all.0.open().strangers.len(),
            1,
            "nothing is kept of sources that are gone"
        );
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let all = connections(1_000, 1);
        let _first = all.begin(ip("2001:db8::1")).unwrap();
        assert!(all.begin(ip("2001:db8::ffff:2")).is_err());
        assert!(all.begin(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn an_old_stranger_makes_room_for_a_new_connection() {
        let all = connections(1_000, 1);
        let one = ip("192.0.2.1");
        let old = all.begin(one).unwrap();
        assert!(all.begin(one).is_err());
        let long_ago = Instant::now().checked_sub(GRACE).unwrap();
        all.0.open().strangers.get_mut(&one).unwrap()[0].since = long_ago;
        let new = all.begin(one).unwrap();
        assert!(old.ticket().leave.is_cancelled() && !new.ticket().leave.is_cancelled());
        drop(old);
        assert!(all.begin(one).is_err(), "the place of the old one was taken already");
    }

    #[test]
    fn a_listener_without_credentials_waits_for_a_request_only() {
        let all = Connections::new(Limits::default());
        let connection = all.begin(ip("192.0.2.1")).unwrap();
        assert_eq!(connection.ticket().awaited().0, Awaited::Request);
        connection.requested();
        assert_eq!(connection.ticket().awaited().0, Awaited::Nothing);

        let all = connections(1, 1);
        let connection = all.begin(ip("192.0.2.1")).unwrap();
        connection.requested();
        assert_eq!(connection.ticket().awaited().0, Awaited::Credential);
        connection.known();
        connection.requested();
        assert_eq!(connection.ticket().awaited().0, Awaited::Nothing);
    }
}
