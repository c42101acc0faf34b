//! Logins by code: the codes, and what bounds guessing them.
//!
//! Everything is counted before anything is compared, in one transaction of the one writer, so parallel guesses count
//! one after the other; the counts are rows, so a restart forgets none. Four bounds nest, from near to far:
//!
//! | bound | logins, in 15 minutes | failed verifications, in an hour |
//! |---|---|---|
//! | (address, network) | 5 | 10 |
//! | address | 30 | 100 |
//! | site | 300 | 300 |
//! | everybody | 3,000 | 2,000 |
//!
//! That of the address bounds how often all networks together may guess at one person's codes, and kill them by it. The
//! last two bound what a spray over many addresses can write to disk, send or guess; a site is all that one customer of a
//! provider has, so that nobody gets around them with the many networks of one line of IPv6. So that nobody else can use
//! these bounds to keep somebody out, an address that has signed in from a network within [`FAMILIAR_SECONDS`] answers in
//! that network for itself alone: to the first bound. For the same reason the codes of such a network are the last to
//! make room for new ones.

use std::sync::Arc;

use sealpod_core::{Email, Time};

use super::{NewSession, Result, Session, Store, sqlite};
use crate::audit::Source;

/// Life of a code: ten minutes.
pub const CODE_SECONDS: i64 = 600;
/// Most live codes of an address.
pub const MAX_CODES: usize = 3;
/// Wrong guesses from elsewhere that kill a code. From the network that asked for it, one does.
pub const MAX_MISSES: u32 = 5;
/// For how long a network stays familiar after a login: as long as a session can have lasted, twice.
pub const FAMILIAR_SECONDS: i64 = 60 * 24 * 3_600;

/// What an address, its network and site, and the address in that network are counted under: keyed hashes.
#[derive(Debug, Clone, Copy)]
pub struct LoginKeys {
    pub address: [u8; 32],
    pub network: [u8; 32],
    pub site: [u8; 32],
    pub pair: [u8; 32],
}

#[derive(Debug, Clone)]
pub struct CodeRequest {
    pub keys: LoginKeys,
    pub email: Email,
    /// The code, hashed under the pepper along with its address.
    pub digest: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    Stored {
        /// Whether the address is that of somebody in an organization, who signed in before or was only invited.
        known: bool,
        expires_at: Time,
    },
    /// Too many logins; another may succeed after so many seconds.
    Limited { seconds: u64 },
}

#[derive(Debug, Clone)]
pub struct Attempt {
    pub keys: LoginKeys,
    pub email: Email,
    /// `None`: what was sent is no code, and is counted as a wrong one.
    pub digest: Option<[u8; 32]>,
    /// Whether the address may sign in where no user has it.
    pub strangers: bool,
    /// What to begin if the code is right.
    pub session: NewSession,
    pub source: Arc<Source>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    Session(Session),
    Wrong,
    /// Too many failures; nothing was compared.
    Limited {
        seconds: u64,
    },
}

impl Store {
    /// Counts a login and stores its code. Runs the same statements for every address.
    pub async fn request_code(&self, request: CodeRequest) -> Result<Requested> {
        let clock = self.engine.settled_clock().await;
        self.engine
            .write(move |tx| sqlite::login::request(tx, clock.max(tx.now), &request))
            .await
    }

    /// Counts a failure, compares, and takes the failure back where the code was right: then begins a session, which
    /// makes or activates the user, and ends every other code of the address.
    pub async fn verify_code(&self, attempt: Attempt) -> Result<Verified> {
        let clock = self.engine.settled_clock().await;
        self.engine
            .write(move |tx| sqlite::login::verify(tx, clock.max(tx.now), attempt))
            .await
    }
}
