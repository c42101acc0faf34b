//! Brings the CAs that are trusted into the key Secrets of all bindings, whatever else holds a binding up: a pause, a spec
//! that cannot be acted on, or a server that is away. Their pods read the new CA there, and nowhere else.

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use sealpod_core::injection::CA_FILE;
use sealpod_core::kubernetes::{FIELD_MANAGER, key_secret_name};
use sealpod_crds::SecretBinding;
use serde_json::json;

use super::error::KeepError;
use crate::certs;
use crate::controller::error::describe;
use crate::controller::kind::name;
use crate::controller::lookup;
use crate::controller::owned::{self, Owned};
use crate::controller::scope::Scope;
use crate::controller::streams::metadata_only;
use crate::tolerant::Tolerant;

/// Bindings of one page of a list.
const PAGE: u32 = 50;
/// Secrets that are read at a time.
const CONCURRENCY: usize = 4;

type Binding = Tolerant<PartialObjectMeta<SecretBinding>>;

/// Who has to have the CAs.
pub struct Holders {
    kube: Client,
    scope: Scope,
    /// What the reconciliations write into key Secrets.
    written: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Holders {
    pub fn new(kube: Client, scope: Scope, written: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self {
            kube: lookup::within(lookup::PATIENCE, kube),
            scope,
            written: Arc::new(written),
        }
    }

    /// Adds them where they are missing; an error says how many still are without them.
    pub async fn deliver(&self, trusted: &str) -> Result<(), KeepError> {
        // None are written where the server is trusted otherwise.
        let Some(written) = (self.written)() else { return Ok(()) };
        if !certs::holds(&written, trusted) {
            // What is written now a reconciliation would take back.
            return Err(KeepError::NotHere);
        }
        let mut missing = Vec::new();
        for api in self.scope.apis::<Binding>(&metadata_only(self.kube.clone())) {
            // One namespace that cannot be listed, such as one that has gone, does not hold up the others.
            if let Err(error) = self.deliver_by(&api, (trusted, &written), &mut missing).await {
                let whose = format!("the SecretBindings of {}", api.namespace().unwrap_or("all namespaces"));
                missing.push((whose, describe(&error)));
            }
        }
        let count = missing.len();
        match missing.into_iter().next() {
            None => Ok(()),
            Some((first, reason)) => Err(KeepError::Undelivered { count, first, reason }),
        }
    }

    /// To the bindings of one list.
    async fn deliver_by(
        &self,
        api: &Api<Binding>,
        (trusted, written): (&str, &str),
        missing: &mut Vec<(String, String)>,
    ) -> Result<(), kube::Error> {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await?;
            let next = list.metadata.continue_.filter(|next| !next.is_empty());
            let bindings = list
                .items
                .into_iter()
                .filter(|b| b.metadata.deletion_timestamp.is_none());
            let refused = stream::iter(bindings)
                .map(|binding| self.give(binding, trusted, written))
                .buffer_unordered(CONCURRENCY)
                .filter_map(std::future::ready);
            missing.extend(refused.collect::<Vec<_>>().await);
            match next {
                Some(next) => page = page.continue_token(&next),
                None => return Ok(()),
            }
        }
    }

    /// The key Secret that is without them, and why.
    async fn give(&self, binding: Binding, trusted: &str, written: &str) -> Option<(String, String)> {
        let namespace = binding.namespace().unwrap_or_default();
        let api: Api<Tolerant<Secret>> = Api::namespaced(self.kube.clone(), &namespace);
        let given = async {
            let secret = api.get_opt(&key_secret_name(&binding.name_any())).await?;
            let secret = secret.map(|secret| secret.0);
            let observed = Owned::observe(secret, &binding, |secret| (secret.uid(), owned::text(secret, CA_FILE)));
            let Some((uid, ca)) = observed.ours() else {
                return Ok(());
            };
            if ca.as_ref().is_some_and(|ca| certs::holds(ca, trusted)) {
                return Ok(());
            }
            // Of this very Secret, and nothing else in it.
            let patch = json!({
                "metadata": {"uid": uid}, "data": {CA_FILE: ByteString(written.as_bytes().to_vec())},
            });
            let parameters = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let name = key_secret_name(&binding.name_any());
            api.patch(&name, &parameters, &Patch::Merge(&patch)).await.map(|_| ())
        };
        match given.await {
            Ok(()) => None,
            // It has gone, or another is there, which was made with what is written now.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => None,
            Err(error) => Some((name(&binding), describe(&error))),
        }
    }
}
