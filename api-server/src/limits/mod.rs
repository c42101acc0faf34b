//! How much one caller may take: requests a key, failures a source, open polls a key; which address a request came from,
//! behind proxies; and how much all of them together. Why it is the way it is: `docs/adr/0008-rate-limits.md`.
//!
//! Nothing here waits or allocates for each request, and nothing grows with what strangers send: see [`Buckets`].

mod buckets;
mod polls;
mod sources;
mod work;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use sealpod_runtime::serve;
use tokio::sync::OwnedSemaphorePermit;

pub use buckets::{Buckets, Exceeded, Rate};
pub use polls::PollPermit;
pub use sources::{Networks, NotANetwork};
pub use work::{Bounds, Overloaded, Place, carried, hold, resting};

/// Requests that one key may make at once, beyond those of `SEALPOD_RATE_PER_KEY` in each second.
const KEY_BURST: u32 = 10_000;
/// Requests without a valid credential that one source may make at once, and in each second.
const FAILURE_BURST: u32 = 100;
const FAILURES_PER_SECOND: u32 = 2;
/// Calls that ask for a login code or show one, likewise: each costs the writer a transaction before it is refused by
/// the counts that are kept there. A count of its own, so that failing keys keep nobody beside them from signing in.
const LOGIN_BURST: u32 = 100;
const LOGINS_PER_SECOND: u32 = 2;
/// Long polls that one key may have open at a time.
const MAX_POLLS: u32 = 2_000;
/// Connections of one source on which nobody has shown a valid credential, and how long each may stay.
const STRANGERS_PER_SOURCE: usize = 64;
const STRANGER_TIME: Duration = Duration::from_mins(2);
/// Longest time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(20);
/// What the server takes on at a time, whoever asks. At 5,000 requests a second the last one of so many is answered after
/// 200 ms, and on a fifth of a core after some seconds; more of them would only wait longer, each for some 16 KiB. Bodies
/// are in memory up to four times (as they came, as JSON, as bytes, sealed), of 256 MiB that a container has.
const WORK: Bounds = Bounds {
    requests: 1_024,
    waiting: 2_048,
    patience: Duration::from_secs(1),
    woken: 256,
    bodies: 32 * 1024 * 1024,
};

/// What a server limits, and how far.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Proxies whose word for the client's address counts.
    pub trusted_proxies: Networks,
    /// How often one valid key may be used; none: without limit.
    pub per_key: Option<Rate>,
    /// How often one source may fail to show a valid credential.
    pub failures: Rate,
    /// How often one source may ask for a login code, or show one.
    pub logins: Rate,
    /// How many polls one key may have open.
    pub polls: u32,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How many connections one source may have before it has shown a valid credential on them.
    pub strangers_per_source: usize,
    /// How much is worked on at a time.
    pub work: Bounds,
    /// How many TLS handshakes may be under way; none: as many as the machine can do in time.
    pub handshakes: Option<usize>,
}

impl Settings {
    /// The server's own figures; `rate_per_key` is in requests a second, 0 for no limit.
    pub fn new(trusted_proxies: Networks, rate_per_key: u32) -> Self {
        let fixed = |figure| NonZeroU32::new(figure).expect("the figures above are not 0");
        Self {
            trusted_proxies,
            per_key: NonZeroU32::new(rate_per_key).map(|per_second| Rate::per_second(per_second, fixed(KEY_BURST))),
            failures: Rate::per_second(fixed(FAILURES_PER_SECOND), fixed(FAILURE_BURST)),
            logins: Rate::per_second(fixed(LOGINS_PER_SECOND), fixed(LOGIN_BURST)),
            polls: MAX_POLLS,
            body_time: BODY_TIME,
            strangers_per_source: STRANGERS_PER_SOURCE,
            work: WORK,
            handshakes: None,
        }
    }
}

/// A credential, by a number that says nothing about it and is another after each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CredentialId(u64);

/// The counts of one server.
#[derive(Debug)]
pub struct Limits {
    proxies: Networks,
    per_key: Option<Buckets>,
    failures: Buckets,
    logins: Buckets,
    polls: polls::OpenPolls,
    body_time: Duration,
    strangers_per_source: usize,
    work: Arc<work::Work>,
    handshakes: Option<usize>,
    hasher: RandomState,
    started: Instant,
    /// Whether the log has heard of a proxy that nobody trusts: once is enough.
    warned: AtomicBool,
}

impl Limits {
    pub fn new(settings: Settings) -> Self {
        let Settings {
            trusted_proxies,
            per_key,
            failures,
            logins,
            polls,
            body_time,
            strangers_per_source,
            work,
            handshakes,
        } = settings;
        Self {
            proxies: trusted_proxies,
            per_key: per_key.map(Buckets::new),
            failures: Buckets::new(failures),
            logins: Buckets::new(logins),
            polls: polls::OpenPolls::new(polls),
            body_time,
            strangers_per_source,
            work: work::Work::new(work),
            handshakes,
            hasher: RandomState::new(),
            started: Instant::now(),
            warned: AtomicBool::new(false),
        }
    }

    /// The address that a request came from: the peer's, or what trusted proxies say of it.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if sources::is_forwarded(headers) && !self.proxies.contains(peer) && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                %peer,
                "a request with X-Forwarded-For came from an address that SEALPOD_TRUSTED_PROXIES does not name; if that is \
                 a proxy of yours, name it there: until then all who come through it count as one for limits and in the \
                 audit log"
            );
        }
        sources::client(&self.proxies, peer, headers)
    }

    /// What the listener bounds. A proxy speaks for others, so its connections are nobody's.
    pub fn listener(&self) -> serve::Limits {
        let (proxies, own) = (self.proxies.clone(), serve::Limits::default());
        serve::Limits {
            strangers: Some(serve::Strangers {
                from: 0,
                per_source: self.strangers_per_source,
                time: STRANGER_TIME,
                exempt: Arc::new(move |peer| proxies.contains(peer)),
            }),
            handshakes: self.handshakes.unwrap_or(own.handshakes),
            ..own
        }
    }

    /// Names a credential for the counts of this server.
    pub fn credential(&self, text: &str) -> CredentialId {
        CredentialId(self.hasher.hash_one(text))
    }

    /// Counts a use of a valid credential.
    pub fn used(&self, credential: CredentialId) -> Result<(), Exceeded> {
        match &self.per_key {
            Some(buckets) => buckets.take(credential.0, self.started.elapsed()),
            None => Ok(()),
        }
    }

    /// Counts a request without a valid credential. Requests whose source nobody knows share one count.
    pub fn failed(&self, source: Option<IpAddr>) -> Result<(), Exceeded> {
        self.of_source(&self.failures, source)
    }

    /// Counts a call that asks for a login code or shows one, right or wrong.
    pub fn login(&self, source: Option<IpAddr>) -> Result<(), Exceeded> {
        self.of_source(&self.logins, source)
    }

    fn of_source(&self, buckets: &Buckets, source: Option<IpAddr>) -> Result<(), Exceeded> {
        let network = source.map(sources::network);
        buckets.take(self.hasher.hash_one(network), self.started.elapsed())
    }

    /// Counts an open poll, which holds so many bytes of what it asks, until the permit is dropped.
    pub fn poll(&self, credential: CredentialId, bytes: usize) -> Result<PollPermit, Exceeded> {
        self.polls.begin(credential, bytes)
    }

    /// A place for a request that waited without one, as soon as there is one; in the order of asking.
    pub async fn woken(&self) -> Option<OwnedSemaphorePermit> {
        self.work.woken().await
    }

    /// A place among the requests that are worked on.
    pub async fn begin(&self) -> Result<Place, Overloaded> {
        self.work.begin().await
    }

    pub fn body_time(&self) -> Duration {
        self.body_time
    }
}
