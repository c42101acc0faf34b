//! A certificate that somebody else keeps, cert-manager for one: we read it, and register the CA that comes with it.

use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::evaluate::{Webhook, path};
use super::segment::{SEGMENT, new_segment, read_segment, registered_segment};
use super::{Current, KeepError, Keeper, Lives, MOST_STEPS};
use crate::authority::{self, Leaf};
use crate::certs::{self, CertError};
use crate::secrets::{self, AUTHORITIES, OPAQUE_TYPE};

/// The key in our own Secret under which stands which certificate was found last, and when it was found first. Its own times
/// do not tell: it may have been issued long before it was put in.
const FOUND: &str = "certificate-found";

/// What is in the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    leaf: Leaf,
    authorities: String,
}

impl Keeper {
    /// Does what is missing, and says what to serve. At rest it only reads.
    pub(super) async fn keep_given(&self, now: Timestamp) -> Result<Current, KeepError> {
        for _ in 0..MOST_STEPS {
            let secret = self.secret(&self.names.certificate_secret).await?;
            let given = self.given(secret.as_ref(), now)?;
            let own = self.secret(&self.names.authority_secret).await?;
            let configuration = self.configuration().await?;
            let webhooks = self.webhooks(&configuration)?;
            let segment = own.as_ref().and_then(read_segment);
            let recorded = own.as_ref().and_then(|own| found(own, &given.leaf, now));
            let found = recorded.or_else(|| self.found_here(&given.leaf));
            let (Some(segment), Some(found)) = (&segment, found) else {
                let has_segment = segment.is_some();
                // Where the Secret is gone, the other replicas go on with the path that is registered until they look.
                let segment = match segment.or_else(|| registered_segment(&webhooks)) {
                    Some(segment) => segment,
                    None => new_segment()?,
                };
                let data = [
                    (SEGMENT, Zeroizing::new(segment)),
                    (FOUND, Zeroizing::new(format!("{} {now}", digest(&given.leaf)))),
                ];
                let written = self.write(&self.names.authority_secret, OPAQUE_TYPE, own.as_ref(), data);
                match written.await {
                    // All that is needed is there: only the record is missing.
                    Err(error) if has_segment && is_refused(&error) => self.find_here(&given.leaf, now, &error),
                    written => written?,
                }
                continue;
            };
            let bundle = wanted(&given, &webhooks, found, now);
            let is_registered = |webhook: &Webhook| {
                webhook.bundle.as_ref() == Some(&bundle) && webhook.path.as_ref() == Some(&path(segment))
            };
            if webhooks.iter().all(is_registered) {
                return Ok(Current {
                    pair: given.leaf.pair,
                    segment: segment.clone(),
                    authority_until: None,
                    certificate_until: given.leaf.validity.until,
                });
            }
            self.register(&configuration, &webhooks, &bundle, segment).await?;
        }
        Err(KeepError::Contended)
    }

    fn found_here(&self, leaf: &Leaf) -> Option<Timestamp> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, at) = found.as_ref()?;
        (*of == digest(leaf)).then_some(*at)
    }

    fn find_here(&self, leaf: &Leaf, now: Timestamp, why: &KeepError) {
        tracing::warn!(
            error = %why,
            "when the webhook's certificate was found cannot be written down, so each start of a replica counts as that"
        );
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest(leaf), now));
    }

    fn given(&self, secret: Option<&Secret>, now: Timestamp) -> Result<Given, KeepError> {
        let server = self.names.server_name();
        let unusable = |reason: String| KeepError::Given {
            name: self.names.certificate_secret.clone(),
            server: server.clone(),
            reason,
        };
        let secret = secret.ok_or_else(|| unusable("it is not there yet".to_owned()))?;
        read(secret, &server, now).map_err(|error| unusable(error.to_string()))
    }
}

fn read(secret: &Secret, server: &str, now: Timestamp) -> Result<Given, CertError> {
    let leaf = authority::read_leaf(secret)?;
    let authorities = secrets::text(secret, AUTHORITIES).ok_or(CertError::NoCertificate)?;
    // An API server would not accept it either, so nothing is registered.
    certs::check_server_and_roots(&leaf.pair.certificate, &authorities, server, now)?;
    Ok(Given {
        leaf,
        authorities: certs::bundle(&authorities, ""),
    })
}

/// When the certificate was found first. None where it is another one than was found last, and where that is long to come:
/// then the clock of some replica was ahead, and the CA before would stay for as long. Where it is soon to come, our own
/// clock may be behind, and with an earlier time the CA before would go too early.
fn found(own: &Secret, leaf: &Leaf, now: Timestamp) -> Option<Timestamp> {
    let text = secrets::text(own, FOUND)?;
    let (of, at) = text.split_once(' ')?;
    let at = at.parse().ok()?;
    (of == digest(leaf) && at <= now + overlap(leaf)).then_some(at)
}

/// Whether it would be so again: the Secret is not ours, or we may not write it.
fn is_refused(error: &KeepError) -> bool {
    match error {
        KeepError::NotOurs(_) => true,
        KeepError::Secret { source, .. } => {
            matches!(source.as_ref(), kube::Error::Api(status) if status.is_forbidden())
        }
        _ => false,
    }
}

/// For how long those that are registered stay. Long before the next certificate, however short they live, because the CA
/// before has to go.
fn overlap(leaf: &Leaf) -> Duration {
    Lives::default().overlap().min(leaf.validity.life() / 6)
}

fn digest(leaf: &Leaf) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(leaf.pair.certificate.as_bytes()))
}

/// The CA that comes with it, and for a while those that are registered: other replicas may still serve the certificate
/// before it.
fn wanted(given: &Given, webhooks: &[Webhook], found: Timestamp, now: Timestamp) -> String {
    let here = Duration::try_from(now.duration_since(found)).unwrap_or_default();
    if here >= overlap(&given.leaf) {
        return given.authorities.clone();
    }
    let registered = webhooks.iter().filter_map(|webhook| webhook.bundle.as_deref());
    let registered = registered.map(|bundle| certs::not_ended(bundle, now));
    registered.fold(given.authorities.clone(), |all, bundle| certs::bundle(&all, &bundle))
}

#[cfg(test)]
mod tests;
