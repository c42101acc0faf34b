//! A certificate that somebody else keeps, cert-manager for one: we read it, and register the CA that comes with it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use zeroize::Zeroizing;

use super::evaluate::{Webhook, path};
use super::segment::{SEGMENT, new_segment, read_segment, registered_segment};
use super::{Current, KeepError, Keeper, Lives, MOST_STEPS};
use crate::authority::{self, Leaf};
use crate::certs::{self, CertError};
use crate::secrets::{self, AUTHORITIES, OPAQUE_TYPE};

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
            let Some(segment) = own.as_ref().and_then(read_segment) else {
                // Where the Secret is gone, the other replicas go on with the path that is registered until they look.
                let segment = registered_segment(&webhooks).map_or_else(new_segment, Ok)?;
                let data = [(SEGMENT, Zeroizing::new(segment))];
                self.write(&self.names.authority_secret, OPAQUE_TYPE, own.as_ref(), data)
                    .await?;
                continue;
            };
            let bundle = wanted(&given, &webhooks, now);
            let is_registered = |webhook: &Webhook| {
                webhook.bundle.as_ref() == Some(&bundle) && webhook.path.as_ref() == Some(&path(&segment))
            };
            if webhooks.iter().all(is_registered) {
                return Ok(Current {
                    pair: given.leaf.pair,
                    segment,
                    authority_until: None,
                    certificate_until: given.leaf.validity.until,
                });
            }
            self.register(&configuration, &webhooks, &bundle, &segment).await?;
        }
        Err(KeepError::Contended)
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

/// The CA that comes with it, and while it is young those that are registered: other replicas may still serve the
/// certificate before it. Long before the next, however short they live, because the CA before has to go.
fn wanted(given: &Given, webhooks: &[Webhook], now: Timestamp) -> String {
    let validity = given.leaf.validity;
    if validity.age(now) >= Lives::default().overlap().min(validity.life() / 6) {
        return given.authorities.clone();
    }
    let registered = webhooks.iter().filter_map(|webhook| webhook.bundle.as_deref());
    let registered = registered.map(|bundle| certs::not_ended(bundle, now));
    registered.fold(given.authorities.clone(), |all, bundle| certs::bundle(&all, &bundle))
}

#[cfg(test)]
mod tests;
