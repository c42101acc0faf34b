//! Login by e-mail code: somebody who can read the mail of an address is its owner.
//!
//! [`request`] stores a code and queues its mail, [`verify`] turns a code into a session. Both do the same work, and
//! run the same statements, whoever owns the address and whether anybody does; what differs happens in the task behind
//! the queue. The figures that bound guessing are those of [`crate::store::login`].

mod code;
mod network;

use std::sync::Arc;

use sealpod_core::{Email, SecretText};

pub use code::Code;
pub use network::Network;

use crate::app::App;
use crate::audit::Source;
use crate::crypto::{Pepper, SessionToken};
use crate::error::ApiError;
use crate::mail::{LoginMail, Outbox};
use crate::store::{Attempt, CodeRequest, LoginKeys, NewSession, Requested, Session, Verified};

/// Life of a session: 30 days, in seconds.
pub const SESSION_SECONDS: i64 = 30 * 24 * 3_600;

/// Who may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signup {
    /// Any address.
    Open,
    /// Whoever is in an organization, and superadmins. Others, and who was removed from all of them, get the same answers,
    /// and no mail.
    Invited,
}

/// How logins are done on this server.
#[derive(Debug, Clone)]
pub struct Login {
    signup: Signup,
    /// `None`: codes could reach nobody.
    outbox: Option<Outbox>,
}

impl Login {
    pub fn new(signup: Signup, outbox: Option<Outbox>) -> Self {
        Self { signup, outbox }
    }

    fn outbox(&self) -> Result<&Outbox, ApiError> {
        self.outbox.as_ref().ok_or(ApiError::MailDisabled)
    }
}

/// Whether an address may sign in that nobody in any organization has.
fn strangers(app: &App, email: &Email) -> bool {
    match app.login().signup {
        Signup::Open => true,
        Signup::Invited => app.superadmins().contain(email.as_str()),
    }
}

/// Makes a code for the address, for a mail to carry.
pub async fn request(app: &App, email: Email, source: Arc<Source>) -> Result<(), ApiError> {
    let outbox = app.login().outbox()?;
    app.limits().login(source.ip)?;
    let code = Code::generate();
    let pepper = app.store().pepper();
    let request = CodeRequest {
        keys: keys(pepper, &email, &source),
        digest: digest(pepper, &email, &code),
        email: email.clone(),
    };
    match app.store().request_code(request).await? {
        Requested::Stored { known, expires_at } => {
            // Queued for everybody: the task behind the queue drops those that may not sign in.
            outbox.post(LoginMail {
                wanted: known || strangers(app, &email),
                to: email,
                code,
                ip: source.ip,
                expires_at,
            });
            Ok(())
        }
        Requested::Limited { seconds } => Err(ApiError::RateLimited { seconds }),
    }
}

/// A session, for the right code.
pub async fn verify(
    app: &App,
    email: Email,
    code: &SecretText,
    source: Arc<Source>,
) -> Result<(SessionToken, Session), ApiError> {
    app.login().outbox()?;
    app.limits().login(source.ip)?;
    let pepper = app.store().pepper();
    let token = SessionToken::generate();
    let attempt = Attempt {
        keys: keys(pepper, &email, &source),
        // A text that is no code is counted like a wrong one.
        digest: Code::parse(code.expose()).map(|code| digest(pepper, &email, &code)),
        strangers: strangers(app, &email),
        session: NewSession {
            digest: token.digest(pepper),
            expires_at: sealpod_core::Time::now().plus_seconds(SESSION_SECONDS),
        },
        email,
        source,
    };
    match app.store().verify_code(attempt).await? {
        Verified::Session(session) => Ok((token, session)),
        Verified::Wrong => Err(ApiError::WrongCode),
        Verified::Limited { seconds } => Err(ApiError::RateLimited { seconds }),
    }
}

fn keys(pepper: &Pepper, email: &Email, source: &Source) -> LoginKeys {
    let network = Network::of(source.ip);
    let site = network.site();
    let (email, network) = (email.as_str().as_bytes(), network.as_bytes());
    LoginKeys {
        address: pepper.mac("login/address/1", &[email]),
        network: pepper.mac("login/network/1", &[network]),
        site: pepper.mac("login/site/1", &[site.as_bytes()]),
        pair: pepper.mac("login/pair/1", &[email, network]),
    }
}

/// A code as it is stored: good for its address only.
fn digest(pepper: &Pepper, email: &Email, code: &Code) -> [u8; 32] {
    pepper.mac("login/code/1", &[email.as_str().as_bytes(), code.expose().as_bytes()])
}
