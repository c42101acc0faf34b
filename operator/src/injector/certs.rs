//! The webhook's own CA and certificate, and their place in the MutatingWebhookConfiguration.
//!
//! Every replica runs the same loop on the same three objects: observe, evaluate (pure, the first step that is missing),
//! apply by compare-and-swap, and again until nothing is missing. None of them leads; whoever is late reads what the
//! other wrote. The API server trusts a new CA before anything signed by it is served, and an old one until nothing is.

mod evaluate;
mod given;
mod registration;
mod segment;

use std::sync::Mutex;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use evaluate::{Observed, Served, Step, evaluate};
use segment::{SEGMENT, new_segment, read_segment, registered_segment};

use super::cache::Slim;
use crate::authority;
pub use crate::certs::Lives;
use crate::certs::{self, CertError, Pair};
use crate::secrets::{self, CERTIFICATE, KEY, TLS_TYPE};

const AUTHORITY_NAME: &str = "Sealpod webhook CA";
pub const FIELD_MANAGER: &str = "sealpod-injector";
/// More steps than the longest way takes, by far; each lost race is one more.
const MOST_STEPS: usize = 20;

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// We make it, and its CA.
    Own(Lives),
    /// Somebody else, such as cert-manager, keeps it in a Secret with `tls.crt`, `tls.key` and `ca.crt`.
    Given,
}

/// The objects, all by name.
#[derive(Debug, Clone)]
pub struct Names {
    /// Our own namespace.
    pub namespace: String,
    /// Ours: the CA; with a certificate that is given, the random part of the path, and when that one was found.
    pub authority_secret: String,
    /// The certificate.
    pub certificate_secret: String,
    pub configuration: String,
    /// The Service by which the API server calls us.
    pub service: String,
}

impl Names {
    /// The one name that the API server asks for.
    fn server_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// What to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub pair: Pair,
    /// The random part of the path.
    pub segment: String,
    /// Where we know it.
    pub authority_until: Option<Timestamp>,
    pub certificate_until: Timestamp,
}

/// What is in the way of a working webhook. For people, on the readiness probe and in the log.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("Secret {name}: {source}")]
    Secret { name: String, source: Box<kube::Error> },
    #[error("MutatingWebhookConfiguration {name}: {source}")]
    Configuration { name: String, source: Box<kube::Error> },
    #[error("there is no MutatingWebhookConfiguration {0}; install it, or correct --webhook-configuration")]
    NoConfiguration(String),
    #[error(
        "MutatingWebhookConfiguration {name} has no webhook that calls Service {namespace}/{service}; correct it, or --webhook-service"
    )]
    NoWebhook {
        name: String,
        namespace: String,
        service: String,
    },
    #[error("Secret {0} was not made by Sealpod and is left as it is; delete it, or give the injector another name")]
    NotOurs(String),
    #[error(
        "Secret {name} does not hold a certificate for {server} that works: {reason}; it needs tls.crt, tls.key and the \
         ca.crt by which tls.crt is checked"
    )]
    Given {
        name: String,
        server: String,
        reason: String,
    },
    #[error("cannot make a CA: {0}")]
    Make(#[source] CertError),
    #[error(
        "Secret {name}: its CA cannot sign the webhook's certificate, so the one before stays: {source}; empty tls.crt and \
         tls.key to get another"
    )]
    Signing { name: String, source: CertError },
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("other replicas kept changing the certificates; trying again")]
    Contended,
}

/// Keeps the three objects as they have to be.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    /// The same, for events of which nothing is read.
    watched: Api<Slim<MutatingWebhookConfiguration, IgnoredAny>>,
    names: Names,
    source: Source,
    /// The digest of a given certificate and when this process found it, where the Secret cannot take that.
    found: Mutex<Option<(String, Timestamp)>>,
}

/// The objects as they were read, for the compare in compare-and-swap.
struct Read {
    authority: Option<Secret>,
    leaf: Option<Secret>,
    configuration: MutatingWebhookConfiguration,
    observed: Observed,
}

impl Keeper {
    pub fn new(client: Client, names: Names, source: Source) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            configurations: Api::all(client.clone()),
            watched: Api::all(client),
            names,
            source,
            found: Mutex::default(),
        }
    }

    /// Does what is missing, and says what to serve. At rest it only reads.
    pub async fn keep(&self, now: Timestamp) -> Result<Current, KeepError> {
        match self.source {
            Source::Own(lives) => self.keep_own(lives, now).await,
            Source::Given => self.keep_given(now).await,
        }
    }

    async fn keep_own(&self, lives: Lives, now: Timestamp) -> Result<Current, KeepError> {
        for _ in 0..MOST_STEPS {
            let read = self.observe().await?;
            let step = evaluate(&read.observed, &self.names.server_name(), lives, now);
            match (step, &read.observed.authority, &read.observed.served) {
                (Step::Nothing, Some(authority), Some(Served { leaf, segment })) => {
                    return Ok(Current {
                        pair: leaf.pair.clone(),
                        segment: segment.clone(),
                        authority_until: Some(authority.validity.until),
                        certificate_until: leaf.validity.until,
                    });
                }
                _ => self.apply(step, &read, lives, now).await?,
            }
        }
        Err(KeepError::Contended)
    }

    async fn observe(&self) -> Result<Read, KeepError> {
        let authority = self.secret(&self.names.authority_secret).await?;
        let leaf = self.secret(&self.names.certificate_secret).await?;
        let configuration = self.configuration().await?;
        let observed = Observed {
            authority: authority.as_ref().and_then(|secret| authority::read(secret).ok()),
            served: leaf.as_ref().and_then(read_served),
            webhooks: self.webhooks(&configuration)?,
        };
        Ok(Read {
            authority,
            leaf,
            configuration,
            observed,
        })
    }

    /// One step. A lost race is no error: the next look finds what the winner wrote.
    async fn apply(&self, step: Step, read: &Read, lives: Lives, now: Timestamp) -> Result<(), KeepError> {
        let Observed { authority, served, .. } = &read.observed;
        match (step, authority, served) {
            (Step::NewAuthority, _, _) => {
                if let Some(from) = authority
                    .as_ref()
                    .filter(|a| a.validity.is_ahead(now))
                    .map(|a| a.validity.from)
                {
                    tracing::warn!(%from, "the webhook's CA is not valid yet: the clock of some node is or was wrong");
                }
                let pair = certs::new_authority_for(AUTHORITY_NAME, now, lives.authority).map_err(KeepError::Make)?;
                // Where the Secret is gone or damaged, what is served is still signed by what the API server trusts.
                let registered = || {
                    read.observed
                        .webhooks
                        .iter()
                        .filter_map(|w| w.bundle.as_deref())
                        .collect()
                };
                let before = authority.as_ref().map_or_else(registered, |a| a.bundle.clone());
                let bundle = certs::bundle(&pair.certificate, &before);
                self.write(
                    &self.names.authority_secret,
                    TLS_TYPE,
                    read.authority.as_ref(),
                    authority::data(&pair, &bundle),
                )
                .await?;
                tracing::info!(secret = self.names.authority_secret, "made a new CA for the webhook");
            }
            (Step::ForgetOldAuthorities, Some(authority), _) => {
                let data = authority::data(&authority.pair, &authority.pair.certificate);
                self.write(&self.names.authority_secret, TLS_TYPE, read.authority.as_ref(), data)
                    .await?;
            }
            (Step::NewLeaf, Some(authority), _) => {
                let name = self.names.server_name();
                let pair =
                    certs::issue(&authority.pair, &[name], now, lives.leaf).map_err(|source| KeepError::Signing {
                        name: self.names.authority_secret.clone(),
                        source,
                    })?;
                // Where the Secret is gone, the other replicas go on with the path that is registered until they look.
                let known = read.leaf.as_ref().and_then(read_segment);
                let segment = match known.or_else(|| registered_segment(&read.observed.webhooks)) {
                    Some(segment) => segment,
                    None => new_segment()?,
                };
                let data = [
                    (CERTIFICATE, Zeroizing::new(pair.certificate)),
                    (KEY, pair.key),
                    (SEGMENT, Zeroizing::new(segment)),
                ];
                self.write(&self.names.certificate_secret, TLS_TYPE, read.leaf.as_ref(), data)
                    .await?;
                tracing::info!(
                    secret = self.names.certificate_secret,
                    "made a new certificate for the webhook"
                );
            }
            (Step::Register, Some(authority), Some(Served { segment, .. })) => {
                let webhooks = &read.observed.webhooks;
                self.register(&read.configuration, webhooks, &authority.bundle, segment)
                    .await?;
            }
            (Step::Register | Step::NewLeaf | Step::ForgetOldAuthorities | Step::Nothing, _, _) => {}
        }
        Ok(())
    }

    /// Creates a Secret, or replaces the one that was read.
    async fn write(
        &self,
        name: &str,
        kind: &str,
        read: Option<&Secret>,
        data: impl IntoIterator<Item = (&'static str, Zeroizing<String>)>,
    ) -> Result<(), KeepError> {
        let written = match read {
            None => secrets::create(&self.secrets, &secrets::new(name, kind, data)).await,
            Some(read) if !secrets::is_ours(read) => return Err(KeepError::NotOurs(name.to_owned())),
            Some(read) => secrets::replace(&self.secrets, &secrets::with(read, data)).await,
        };
        written.map(|_| ()).map_err(|source| KeepError::Secret {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>, KeepError> {
        self.secrets.get_opt(name).await.map_err(|source| KeepError::Secret {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }
}

fn read_served(secret: &Secret) -> Option<Served> {
    Some(Served {
        leaf: authority::read_leaf(secret).ok()?,
        segment: read_segment(secret)?,
    })
}

#[cfg(test)]
pub mod tests;
