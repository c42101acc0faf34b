//! The api-server's own CA and certificate after the bootstrap has made them: both are renewed after two thirds of their
//! lives, and what the server shows is trusted by everybody who looked within the last day.
//!
//! The state is in the two Secrets alone, each step is one compare-and-swap, and the next look goes on from what it
//! finds, whoever wrote it. From the server's Secret the rest follows by itself: the server and this controller read
//! their files again, and the controller writes the CA into the key Secrets of all bindings.

mod clock;
mod deliver;
mod error;
mod evaluate;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use deliver::Holders;
use error::KeepError;
use evaluate::{Observed, Step, evaluate, with_signer};

use super::lookup;
use super::metrics::Metrics;
use super::told::Told;
use crate::authority::{self, Authority, SERVER_AUTHORITY};
use crate::certs::{self, Lives, Pair};
use crate::secrets::{self, AUTHORITIES, CERTIFICATE, KEY};

/// Since when `ca.crt` is what it is: a time, a space and the SHA-256 of that text, by which an edit is noticed.
const SINCE: &str = "ca.crt.since";
/// As [`SINCE`], when every key Secret had it.
const DELIVERED: &str = "ca.crt.delivered";
/// As [`SINCE`], when some key Secret could not be given it for the first time.
const UNDELIVERED: &str = "ca.crt.undelivered";
const LOOK_EVERY: Duration = Duration::from_hours(1);
const RETRY: Duration = Duration::from_secs(30);
/// What reads the key Secrets of all bindings is not done twice a minute.
const RETRY_DELIVERY: Duration = Duration::from_mins(10);
/// More than the longest way takes; each lost race is one more.
const MOST_STEPS: usize = 20;

/// The Secrets by name, in our own namespace, and what the certificate is for.
#[derive(Debug, Clone)]
pub struct Settings {
    pub namespace: String,
    /// The CA with its key.
    pub authority: String,
    /// The server's certificate with its key, and the CAs that all trust.
    pub certificate: String,
    /// The first is the one by which the server is called.
    pub dns_names: Vec<String>,
}

impl Settings {
    /// None where somebody else keeps the certificate.
    pub fn new(
        namespace: &str,
        authority: Option<String>,
        certificate: Option<String>,
        dns_names: Vec<String>,
    ) -> Option<Self> {
        Some(Self {
            namespace: namespace.to_owned(),
            authority: authority?,
            certificate: certificate?,
            dns_names,
        })
    }
}

/// When what there is ends, of what could be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    pub authority: Option<Timestamp>,
    pub serving: Option<Timestamp>,
}

/// Keeps the two Secrets as they have to be.
struct Keeper {
    kube: Client,
    secrets: Api<Secret>,
    holders: Holders,
    settings: Settings,
    lives: Lives,
}

/// The Secrets as they were read, for the compare in compare-and-swap.
struct Read {
    authority: Secret,
    certificate: Secret,
}

/// Looks at once, every hour, and soon after a failure.
pub async fn run(kube: Client, settings: Option<Settings>, holders: Holders, metrics: Metrics) -> Infallible {
    let Some(settings) = settings else {
        return std::future::pending().await;
    };
    let keeper = Keeper::new(kube, settings, holders, Lives::default());
    let mut told = Told::default();
    loop {
        let pause = keeper.turn(Timestamp::now(), &metrics, &mut told).await;
        tokio::time::sleep(pause).await;
    }
}

impl Keeper {
    fn new(kube: Client, settings: Settings, holders: Holders, lives: Lives) -> Self {
        let kube = lookup::within(lookup::PATIENCE, kube);
        Self {
            secrets: Api::namespaced(kube.clone(), &settings.namespace),
            kube,
            holders,
            settings,
            lives,
        }
    }

    /// One look, told; answers when the next one is due.
    async fn turn(&self, now: Timestamp, metrics: &Metrics, told: &mut Told) -> Duration {
        let mut ends = Ends::default();
        let kept = self.keep(now, &mut ends).await;
        for (certificate, until) in [("ca", ends.authority), ("serving", ends.serving)] {
            if let Some(until) = until {
                metrics.expiry(certificate, until);
            }
        }
        metrics.certificate_failing.set(i64::from(kept.is_err()));
        let Err(error) = kept else {
            told.passed("");
            return LOOK_EVERY;
        };
        let text = error.to_string();
        if told.is_news("", &text, Instant::now()) {
            tracing::warn!("the api-server's certificates cannot be looked after: {text}; trying again");
        }
        match error {
            KeepError::Undelivered { .. } => RETRY_DELIVERY,
            _ => RETRY,
        }
    }

    /// Does what is missing by now. At rest it only reads. `ends` is of what was read last, whatever came of it.
    async fn keep(&self, now: Timestamp, ends: &mut Ends) -> Result<(), KeepError> {
        for _ in 0..MOST_STEPS {
            if self.step(now, ends).await? {
                return Ok(());
            }
        }
        Err(KeepError::Contended)
    }

    /// One look and at most one write; whether nothing was missing.
    async fn step(&self, now: Timestamp, ends: &mut Ends) -> Result<bool, KeepError> {
        let (authority, certificate) = tokio::join!(
            self.secret(&self.settings.authority),
            self.secret(&self.settings.certificate)
        );
        if let Ok(secret) = &authority {
            ends.authority = authority::ends(secret);
        }
        if let Ok(secret) = &certificate {
            ends.serving = authority::ends(secret);
        }
        let server = self.settings.dns_names.first().ok_or(KeepError::NoNames)?;
        let read = Read {
            authority: authority?,
            certificate: certificate?,
        };
        let observed = read.observed(now)?;
        let step = evaluate(&observed, server, now);
        if step == Step::Nothing {
            return Ok(true);
        }
        clock::check(&self.kube, now).await?;
        self.apply(step, &read, &observed, now).await?;
        Ok(false)
    }

    /// A lost race is no error: the next look finds what the winner wrote.
    async fn apply(&self, step: Step, read: &Read, observed: &Observed, now: Timestamp) -> Result<(), KeepError> {
        match (step, &observed.authority) {
            (Step::NewAuthority, _) => self.new_authority(read, observed, now).await,
            (Step::Trust(bundle), Some(authority)) => {
                // Nobody has to trust a CA for a day that turns out to be of no use after it.
                self.sign(authority, now)?;
                let trusted = certs::count(&bundle);
                let what = "the CAs of the api-server that are trusted";
                if self.write(&read.certificate, trust(bundle, now)).await? {
                    tracing::info!(secret = self.settings.certificate, trusted, "{what}");
                }
                Ok(())
            }
            (Step::Deliver, _) => self.deliver(read, observed, now).await,
            (Step::NewLeaf, Some(authority)) => {
                let pair = self.sign(authority, now)?;
                let data = [(CERTIFICATE, Zeroizing::new(pair.certificate)), (KEY, pair.key)];
                if self.write(&read.certificate, data).await? {
                    tracing::info!(
                        secret = self.settings.certificate,
                        "made a new certificate for the api-server"
                    );
                }
                Ok(())
            }
            (Step::Tidy, Some(authority)) => {
                let data = authority::data(&authority.pair, &authority.pair.certificate);
                self.write(&read.authority, data).await.map(|_| ())
            }
            (Step::Trust(_) | Step::NewLeaf | Step::Tidy | Step::Nothing, _) => Ok(()),
        }
    }

    async fn deliver(&self, read: &Read, observed: &Observed, now: Timestamp) -> Result<(), KeepError> {
        let note = Zeroizing::new(note(&observed.trusted, now));
        let delivered = self.holders.deliver(&observed.trusted).await;
        match &delivered {
            Ok(()) => {
                self.write(&read.certificate, [(DELIVERED, note)]).await?;
            }
            Err(KeepError::Undelivered { .. }) if observed.undelivered.is_none() => {
                self.write(&read.certificate, [(UNDELIVERED, note)]).await?;
            }
            Err(_) => {}
        }
        delivered
    }

    async fn new_authority(&self, read: &Read, observed: &Observed, now: Timestamp) -> Result<(), KeepError> {
        let before = observed.authority.as_ref();
        if let Some(from) = before.map(|a| a.validity).filter(|v| v.is_ahead(now)).map(|v| v.from) {
            tracing::warn!(%from, "the api-server's CA is not valid yet: the clock of some node is or was wrong");
        }
        let pair = certs::new_authority_for(SERVER_AUTHORITY, now, self.lives.authority).map_err(KeepError::Make)?;
        // The bootstrap, which may run again at any time, checks the certificate that is there by these.
        let known = before.map_or("", |a| a.bundle.as_str());
        let server = self.settings.dns_names.first().map_or("", String::as_str);
        let first = with_signer(&pair.certificate, observed, server, now);
        let bundle = certs::bundle(&certs::bundle(&first, &observed.trusted), known);
        if self.write(&read.authority, authority::data(&pair, &bundle)).await? {
            tracing::info!(secret = self.settings.authority, "made a new CA for the api-server");
        }
        Ok(())
    }

    fn sign(&self, authority: &Authority, now: Timestamp) -> Result<Pair, KeepError> {
        let signed = certs::issue(&authority.pair, &self.settings.dns_names, now, self.lives.leaf);
        signed.map_err(|source| KeepError::Signing {
            name: self.settings.authority.clone(),
            source,
        })
    }

    /// Replaces the Secret that was read; false where it is another by now.
    async fn write(
        &self,
        read: &Secret,
        data: impl IntoIterator<Item = (&'static str, Zeroizing<String>)>,
    ) -> Result<bool, KeepError> {
        let secret = secrets::with(read, data);
        secrets::replace(&self.secrets, &secret)
            .await
            .map_err(|source| KeepError::Secret {
                name: secret.metadata.name.clone().unwrap_or_default(),
                source: Box::new(source),
            })
    }

    /// One of ours.
    async fn secret(&self, name: &str) -> Result<Secret, KeepError> {
        let found = self.secrets.get_opt(name).await;
        let found = found.map_err(|source| KeepError::Secret {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        let secret = found.ok_or_else(|| KeepError::Missing(name.to_owned()))?;
        if secrets::is_ours(&secret) {
            Ok(secret)
        } else {
            Err(KeepError::NotOurs(name.to_owned()))
        }
    }
}

impl Read {
    fn observed(&self, now: Timestamp) -> Result<Observed, KeepError> {
        let trusted = secrets::text(&self.certificate, AUTHORITIES).unwrap_or_default();
        let noted = |key| secrets::text(&self.certificate, key).and_then(|text| read_note(&text, &trusted));
        Ok(Observed {
            authority: self.usable_authority(now)?,
            leaf: authority::read_leaf(&self.certificate).ok(),
            since: noted(SINCE),
            delivered: noted(DELIVERED),
            undelivered: noted(UNDELIVERED),
            trusted: trusted.to_string(),
        })
    }

    /// None where one of ours takes the place of what is there, which is never somebody else's that is of no use, or not
    /// yet: it may be half of what is being brought.
    fn usable_authority(&self, now: Timestamp) -> Result<Option<Authority>, KeepError> {
        let reason = match authority::read(&self.authority) {
            Ok(found)
                if found.validity.is_ahead(now) && !certs::is_named(&found.pair.certificate, SERVER_AUTHORITY) =>
            {
                format!("it is not valid before {}", found.validity.from)
            }
            Ok(found) => return Ok(Some(found)),
            Err(_) if authority::is_replaceable(&self.authority, SERVER_AUTHORITY) => return Ok(None),
            Err(unusable) => unusable.to_string(),
        };
        Err(KeepError::Unusable {
            name: self.authority.name_any(),
            reason,
        })
    }
}

fn trust(bundle: String, now: Timestamp) -> [(&'static str, Zeroizing<String>); 2] {
    let since = note(&bundle, now);
    [(AUTHORITIES, Zeroizing::new(bundle)), (SINCE, Zeroizing::new(since))]
}

fn note(trusted: &str, now: Timestamp) -> String {
    format!("{now} {}", digest(trusted))
}

fn read_note(text: &str, trusted: &str) -> Option<Timestamp> {
    let (time, of) = text.split_once(' ')?;
    if of == digest(trusted) { time.parse().ok() } else { None }
}

fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests;
