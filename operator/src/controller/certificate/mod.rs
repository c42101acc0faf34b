//! The api-server's own CA and certificate after the bootstrap has made them: both are renewed after two thirds of their
//! lives, and what the server shows is trusted by everybody who looked within the last day.
//!
//! The state is in the two Secrets alone, each step is one compare-and-swap, and the next look goes on from what it
//! finds, whoever wrote it. From the server's Secret the rest follows by itself: the server and this controller read
//! their files again, and the controller writes the CA into the key Secrets of all bindings.

mod evaluate;

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use evaluate::{Leaf, Observed, Step, evaluate};

use super::error::describe;
use super::lookup;
use super::metrics::Metrics;
use crate::authority::{self, SERVER_AUTHORITY};
use crate::certs::{self, CertError, Lives};
use crate::secrets::{self, AUTHORITIES, CERTIFICATE, KEY};

/// Since when `ca.crt` is what it is: a time, a space and the SHA-256 of that text, by which an edit is noticed.
const SINCE: &str = "ca.crt.since";
const LOOK_EVERY: Duration = Duration::from_hours(1);
const RETRY: Duration = Duration::from_secs(30);
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

/// When what there is ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub authority: Timestamp,
    pub serving: Timestamp,
}

/// What is in the way of the renewal, for the log.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("Secret {name}: {}", describe(source))]
    Secret { name: String, source: Box<kube::Error> },
    #[error(
        "Secret {0} is not there; the bootstrap Job makes it: delete that Job and upgrade the release to run it again"
    )]
    Missing(String),
    #[error(
        "Secret {0} was not made by Sealpod and is left as it is; set tls.mode to existingSecret to use a certificate of yours"
    )]
    NotOurs(String),
    #[error("cannot make a certificate: {0}")]
    Make(#[source] CertError),
    #[error("no DNS name is given for the server's certificate; set --server-dns-name")]
    NoNames,
    #[error("the Secrets kept changing")]
    Contended,
}

/// Keeps the two Secrets as they have to be.
struct Keeper {
    secrets: Api<Secret>,
    settings: Settings,
    lives: Lives,
}

/// The Secrets as they were read, for the compare in compare-and-swap.
struct Read {
    authority: Secret,
    certificate: Secret,
}

/// Looks at once, every hour, and soon after a failure.
pub async fn run(kube: Client, settings: Option<Settings>, metrics: Metrics) -> Infallible {
    let Some(settings) = settings else {
        return std::future::pending().await;
    };
    let keeper = Keeper::new(lookup::within(lookup::PATIENCE, kube), settings, Lives::default());
    let mut last_error = String::new();
    loop {
        let pause = match keeper.keep(Timestamp::now()).await {
            Ok(ends) => {
                metrics.expiry("ca", ends.authority);
                metrics.expiry("serving", ends.serving);
                last_error.clear();
                LOOK_EVERY
            }
            Err(error) => {
                let text = error.to_string();
                if text != last_error {
                    tracing::warn!("the api-server's certificates cannot be looked after: {text}; trying again");
                }
                last_error = text;
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Keeper {
    fn new(kube: Client, settings: Settings, lives: Lives) -> Self {
        Self {
            secrets: Api::namespaced(kube, &settings.namespace),
            settings,
            lives,
        }
    }

    /// Does what is missing by now. At rest it only reads.
    async fn keep(&self, now: Timestamp) -> Result<Ends, KeepError> {
        for _ in 0..MOST_STEPS {
            if let Some(ends) = self.step(now).await? {
                return Ok(ends);
            }
        }
        Err(KeepError::Contended)
    }

    /// One look and at most one write; answers where nothing was missing.
    async fn step(&self, now: Timestamp) -> Result<Option<Ends>, KeepError> {
        let server = self.settings.dns_names.first().ok_or(KeepError::NoNames)?;
        let read = Read {
            authority: self.secret(&self.settings.authority).await?,
            certificate: self.secret(&self.settings.certificate).await?,
        };
        let observed = read.observed();
        let step = evaluate(&observed, server, now);
        if let (Step::Nothing, Some(authority), Some(leaf)) = (&step, &observed.authority, &observed.leaf) {
            return Ok(Some(Ends {
                authority: authority.validity.until,
                serving: leaf.validity.until,
            }));
        }
        self.apply(step, &read, &observed, now).await?;
        Ok(None)
    }

    /// A lost race is no error: the next look finds what the winner wrote.
    async fn apply(&self, step: Step, read: &Read, observed: &Observed, now: Timestamp) -> Result<(), KeepError> {
        match (step, &observed.authority) {
            (Step::NewAuthority, before) => {
                if let Some(from) = before.as_ref().map(|a| a.validity).filter(|v| v.is_ahead(now)) {
                    let from = from.from;
                    tracing::warn!(%from, "the api-server's CA is not valid yet: the clock of some node is or was wrong");
                }
                let pair =
                    certs::new_authority_for(SERVER_AUTHORITY, now, self.lives.authority).map_err(KeepError::Make)?;
                // The bootstrap, which may run again at any time, checks the certificate that is there by these.
                let known = before.as_ref().map_or("", |a| a.bundle.as_str());
                let bundle = certs::bundle(&certs::bundle(&pair.certificate, &observed.trusted), known);
                let data = authority::data(&pair, &bundle);
                if self.write(&read.authority, data).await? {
                    tracing::info!(secret = self.settings.authority, "made a new CA for the api-server");
                }
            }
            (Step::Trust(bundle), _) => {
                let trusted = certs::count(&bundle);
                if self.write(&read.certificate, trust(bundle, now)).await? {
                    tracing::info!(
                        secret = self.settings.certificate,
                        trusted,
                        "the CAs of the api-server that are trusted"
                    );
                }
            }
            (Step::NewLeaf, Some(authority)) => {
                let names = &self.settings.dns_names;
                let pair = certs::issue(&authority.pair, names, now, self.lives.leaf).map_err(KeepError::Make)?;
                let data = [(CERTIFICATE, Zeroizing::new(pair.certificate)), (KEY, pair.key)];
                if self.write(&read.certificate, data).await? {
                    tracing::info!(
                        secret = self.settings.certificate,
                        "made a new certificate for the api-server"
                    );
                }
            }
            (Step::Tidy, Some(authority)) => {
                let data = authority::data(&authority.pair, &authority.pair.certificate);
                self.write(&read.authority, data).await?;
            }
            (Step::NewLeaf | Step::Tidy | Step::Nothing, _) => {}
        }
        Ok(())
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
    fn observed(&self) -> Observed {
        let trusted = secrets::text(&self.certificate, AUTHORITIES).unwrap_or_default();
        Observed {
            authority: authority::read(&self.authority).ok(),
            leaf: read_leaf(&self.certificate),
            since: secrets::text(&self.certificate, SINCE).and_then(|text| read_since(&text, &trusted)),
            trusted: trusted.to_string(),
        }
    }
}

fn read_leaf(secret: &Secret) -> Option<Leaf> {
    let pair = secrets::pair(secret)?;
    let validity = certs::check_pair(&pair).ok()?;
    Some(Leaf { pair, validity })
}

fn trust(bundle: String, now: Timestamp) -> [(&'static str, Zeroizing<String>); 2] {
    let since = format!("{now} {}", digest(&bundle));
    [(AUTHORITIES, Zeroizing::new(bundle)), (SINCE, Zeroizing::new(since))]
}

fn read_since(text: &str, trusted: &str) -> Option<Timestamp> {
    let (time, of) = text.split_once(' ')?;
    if of == digest(trusted) { time.parse().ok() } else { None }
}

fn digest(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests;
