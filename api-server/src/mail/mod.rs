//! Mail that carries login codes, off the path of any request.
//!
//! A handler [posts](Outbox::post) a mail and goes on. One task, the [`Courier`], takes it from there: it sends a few at
//! a time and tries again what failed, for as long as the code in it lives. A mail server that is slow or gone is seen
//! in the log and in `/metrics`, and in no answer.

mod courier;
mod message;
mod smtp;
mod url;

use std::net::IpAddr;

use sealpod_core::{Email, Time};
use tokio::sync::mpsc;

pub use courier::{Courier, Pace};
pub use smtp::Smtp;
pub use url::{SmtpUrl, UrlError};

use crate::app::Metrics;
use crate::login::Code;

/// Most mails that wait for the courier, and most that it keeps for another try.
const CAPACITY: usize = 1_000;

/// How codes reach people.
#[derive(Debug)]
pub enum Transport {
    /// Into the log, for trying out.
    Log,
    Smtp(Box<Smtp>),
}

impl Transport {
    /// Says at start how codes travel, where whoever runs the server should know.
    pub fn announce(transport: Option<&Self>) {
        match transport {
            None => tracing::info!("nobody can sign in by e-mail code: SEALPOD_SMTP_URL is not set"),
            Some(Self::Log) => tracing::warn!("login codes are printed into this log: SEALPOD_SMTP_URL is `log`"),
            Some(Self::Smtp(smtp)) if smtp.exposed => {
                tracing::warn!("login codes travel to the mail server in clear text: SEALPOD_SMTP_URL says `tls=none`");
            }
            Some(Self::Smtp(_)) => {}
        }
    }

    /// Lets go of what is kept for the next mail and was not needed for a while.
    fn tidy(&self) {
        match self {
            Self::Log => {}
            Self::Smtp(smtp) => smtp.forget_old(),
        }
    }
}

/// A login code on its way.
#[derive(Debug)]
pub struct LoginMail {
    pub to: Email,
    pub code: Code,
    /// Who asked for it.
    pub ip: Option<IpAddr>,
    pub expires_at: Time,
    /// Whether it is to be sent at all: those that are not come this far too, so that asking for them takes as long.
    pub wanted: bool,
}

/// Where mails are posted. Clones are one outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<LoginMail>,
    metrics: Metrics,
}

impl Outbox {
    /// An outbox, and the courier that empties it for as long as somebody runs it.
    pub fn new(transport: Transport, pace: Pace, metrics: Metrics) -> (Self, Courier) {
        let (queue, posted) = mpsc::channel(CAPACITY);
        let courier = Courier::new(transport, pace, posted, metrics.clone());
        (Self { queue, metrics }, courier)
    }

    /// Never waits. A mail that finds no room is lost; whoever misses it asks again.
    pub fn post(&self, mail: LoginMail) {
        if self.queue.try_send(mail).is_err() {
            self.metrics.mail(Fate::Refused);
            tracing::warn!("a login code was not queued for sending: too many mails wait already");
        }
    }
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Sent,
    /// Its address may not sign in.
    Unwanted,
    /// There was no room to keep it.
    Refused,
    /// The mail server will not take it, or its code died before one did.
    Failed,
}

impl Fate {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Unwanted => "unwanted",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
