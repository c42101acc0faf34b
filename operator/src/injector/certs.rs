//! The webhook's own CA and certificate, and their place in the MutatingWebhookConfiguration.
//!
//! Every replica runs the same loop on the same three objects: observe, evaluate (pure, the first step that is missing),
//! apply by compare-and-swap, and again until nothing is missing. None of them leads; whoever is late reads what the
//! other wrote. The API server trusts a new CA before anything signed by it is served, and an old one until nothing is.

mod evaluate;

use std::time::Duration;

use jiff::Timestamp;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PatchParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use evaluate::path;
use evaluate::{Authority, Leaf, Observed, Step, Webhook, evaluate};

use crate::certs::{self, CertError, Pair};
use crate::secrets::{self, AUTHORITIES, CERTIFICATE, KEY, TLS_TYPE};

const AUTHORITY_NAME: &str = "Sealpod webhook CA";
/// Life of the certificate: renewed after 60 days.
const LEAF_LIFE: Duration = Duration::from_hours(90 * 24);
/// Key of the path's random part in the certificate's Secret, where all replicas find it.
const SEGMENT: &str = "webhook-path-segment";
const SEGMENT_BYTES: usize = 16;
pub const FIELD_MANAGER: &str = "sealpod-injector";
/// More steps than the longest way takes, by far; each lost race is one more.
const MOST_STEPS: usize = 20;

/// The objects, all by name.
#[derive(Debug, Clone)]
pub struct Names {
    /// Our own namespace.
    pub namespace: String,
    pub authority_secret: String,
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
    pub authority_until: Timestamp,
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
    #[error("cannot make a certificate: {0}")]
    Make(#[source] CertError),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("other replicas kept changing the certificates; trying again")]
    Contended,
}

/// Keeps the three objects as they have to be.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    names: Names,
}

/// The objects as they were read, for the compare in compare-and-swap.
struct Read {
    authority: Option<Secret>,
    leaf: Option<Secret>,
    configuration: MutatingWebhookConfiguration,
    observed: Observed,
}

impl Keeper {
    pub fn new(client: Client, names: Names) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            configurations: Api::all(client),
            names,
        }
    }

    /// Does what is missing, and says what to serve. At rest it only reads.
    pub async fn keep(&self, now: Timestamp) -> Result<Current, KeepError> {
        for _ in 0..MOST_STEPS {
            let read = self.observe().await?;
            let step = evaluate(&read.observed, &self.names.server_name(), now);
            match (step, &read.observed.authority, &read.observed.leaf) {
                (Step::Nothing, Some(authority), Some(leaf)) => {
                    return Ok(Current {
                        pair: leaf.pair.clone(),
                        segment: leaf.segment.clone(),
                        authority_until: authority.validity.until,
                        certificate_until: leaf.validity.until,
                    });
                }
                _ => self.apply(step, &read, now).await?,
            }
        }
        Err(KeepError::Contended)
    }

    async fn observe(&self) -> Result<Read, KeepError> {
        let authority = self.secret(&self.names.authority_secret).await?;
        let leaf = self.secret(&self.names.certificate_secret).await?;
        let configuration = self.configuration().await?;
        let observed = Observed {
            authority: authority.as_ref().and_then(read_authority),
            leaf: leaf.as_ref().and_then(read_leaf),
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
    async fn apply(&self, step: Step, read: &Read, now: Timestamp) -> Result<(), KeepError> {
        let Observed { authority, leaf, .. } = &read.observed;
        match (step, authority, leaf) {
            (Step::NewAuthority, _, _) => {
                let pair = certs::new_authority(AUTHORITY_NAME, now).map_err(KeepError::Make)?;
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
                    read.authority.as_ref(),
                    authority_data(&pair, &bundle),
                )
                .await?;
                tracing::info!(secret = self.names.authority_secret, "made a new CA for the webhook");
            }
            (Step::ForgetOldAuthorities, Some(authority), _) => {
                let data = authority_data(&authority.pair, &authority.pair.certificate);
                self.write(&self.names.authority_secret, read.authority.as_ref(), data)
                    .await?;
            }
            (Step::NewLeaf, Some(authority), _) => {
                let name = self.names.server_name();
                let pair = certs::issue(&authority.pair, &[name], now, LEAF_LIFE).map_err(KeepError::Make)?;
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
                self.write(&self.names.certificate_secret, read.leaf.as_ref(), data)
                    .await?;
                tracing::info!(
                    secret = self.names.certificate_secret,
                    "made a new certificate for the webhook"
                );
            }
            (Step::Register, Some(authority), Some(leaf)) => self.register(read, authority, leaf).await?,
            (Step::Register | Step::NewLeaf | Step::ForgetOldAuthorities | Step::Nothing, _, _) => {}
        }
        Ok(())
    }

    /// Creates a Secret, or replaces the one that was read.
    async fn write(
        &self,
        name: &str,
        read: Option<&Secret>,
        data: impl IntoIterator<Item = (&'static str, Zeroizing<String>)>,
    ) -> Result<(), KeepError> {
        let mut secret = secrets::new(name, TLS_TYPE, data);
        let written = match read {
            None => secrets::create(&self.secrets, &secret).await,
            Some(read) if !secrets::is_ours(read) => return Err(KeepError::NotOurs(name.to_owned())),
            Some(read) => {
                // What others added to it stays; its type cannot change.
                secret.metadata = read.metadata.clone();
                secret.type_.clone_from(&read.type_);
                secrets::replace(&self.secrets, &secret).await
            }
        };
        written.map(|_| ()).map_err(|source| KeepError::Secret {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    /// Patches CA bundle and path into the webhooks that call us, if the object is still the one that was read.
    async fn register(&self, read: &Read, authority: &Authority, leaf: &Leaf) -> Result<(), KeepError> {
        let add = |path: &[&str], value: Value| {
            let path = PointerBuf::from_tokens(path.iter().copied());
            PatchOperation::Add(AddOperation { path, value })
        };
        let version = read.configuration.resource_version().unwrap_or_default();
        let mut operations = vec![add(&["metadata", "resourceVersion"], json!(version))];
        let bundle = data_encoding::BASE64.encode(authority.bundle.as_bytes());
        for webhook in &read.observed.webhooks {
            let index = webhook.index.to_string();
            operations.push(add(&["webhooks", &index, "clientConfig", "caBundle"], json!(bundle)));
            operations.push(add(
                &["webhooks", &index, "clientConfig", "service", "path"],
                json!(path(&leaf.segment)),
            ));
        }
        let name = &self.names.configuration;
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = kube::api::Patch::Json::<()>(Patch(operations));
        match self.configurations.patch(name, &params, &patch).await {
            Ok(_) => {
                tracing::info!(
                    configuration = name,
                    "put the CA and the path into the webhook configuration"
                );
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(()),
            Err(source) => Err(KeepError::Configuration {
                name: name.clone(),
                source: Box::new(source),
            }),
        }
    }

    async fn secret(&self, name: &str) -> Result<Option<Secret>, KeepError> {
        self.secrets.get_opt(name).await.map_err(|source| KeepError::Secret {
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    async fn configuration(&self) -> Result<MutatingWebhookConfiguration, KeepError> {
        let name = &self.names.configuration;
        let found = self.configurations.get_opt(name).await;
        let found = found.map_err(|source| KeepError::Configuration {
            name: name.clone(),
            source: Box::new(source),
        })?;
        found.ok_or_else(|| KeepError::NoConfiguration(name.clone()))
    }

    fn webhooks(&self, configuration: &MutatingWebhookConfiguration) -> Result<Vec<Webhook>, KeepError> {
        let Names { namespace, service, .. } = &self.names;
        let all = configuration.webhooks.iter().flatten().enumerate();
        let ours: Vec<_> = all
            .filter_map(|(index, webhook)| {
                let config = &webhook.client_config;
                let called = config.service.as_ref()?;
                (called.name == *service && called.namespace == *namespace).then(|| Webhook {
                    index,
                    bundle: config
                        .ca_bundle
                        .as_ref()
                        .map(|pem| String::from_utf8_lossy(&pem.0).into_owned()),
                    path: called.path.clone(),
                })
            })
            .collect();
        if ours.is_empty() {
            return Err(KeepError::NoWebhook {
                name: self.names.configuration.clone(),
                namespace: namespace.clone(),
                service: service.clone(),
            });
        }
        Ok(ours)
    }
}

fn authority_data(pair: &Pair, bundle: &str) -> [(&'static str, Zeroizing<String>); 3] {
    [
        (CERTIFICATE, Zeroizing::new(pair.certificate.clone())),
        (KEY, pair.key.clone()),
        (AUTHORITIES, Zeroizing::new(bundle.to_owned())),
    ]
}

fn read_authority(secret: &Secret) -> Option<Authority> {
    let pair = secrets::pair(secret)?;
    let validity = certs::check_authority(&pair).ok()?;
    let others = secrets::text(secret, AUTHORITIES).unwrap_or_default();
    let bundle = certs::bundle(&pair.certificate, &others);
    Some(Authority { pair, validity, bundle })
}

fn read_leaf(secret: &Secret) -> Option<Leaf> {
    let pair = secrets::pair(secret)?;
    let validity = certs::check_pair(&pair).ok()?;
    let segment = read_segment(secret)?;
    Some(Leaf {
        pair,
        validity,
        segment,
    })
}

fn read_segment(secret: &Secret) -> Option<String> {
    let segment = secrets::text(secret, SEGMENT)?;
    is_segment(&segment).then(|| segment.to_string())
}

fn registered_segment(webhooks: &[Webhook]) -> Option<String> {
    let mut paths = webhooks.iter().filter_map(|webhook| webhook.path.as_deref());
    let segment = paths.find_map(|registered| registered.strip_prefix(&path("")).filter(|rest| is_segment(rest)))?;
    Some(segment.to_owned())
}

fn is_segment(text: &str) -> bool {
    text.len() == 2 * SEGMENT_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn new_segment() -> Result<String, KeepError> {
    let mut bytes = [0; SEGMENT_BYTES];
    getrandom::fill(&mut bytes).map_err(KeepError::Random)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

#[cfg(test)]
#[path = "certs/tests.rs"]
mod tests;
