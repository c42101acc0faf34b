//! The webhook configuration: what it says, what is written into it, and when somebody else has done so.

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::ResourceExt;
use kube::api::{PatchParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::evaluate::{Webhook, path};
use super::{FIELD_MANAGER, KeepError, Keeper, Names};

/// Between a watch that has ended, as each does after some minutes, and the next.
const WATCH_AGAIN: Duration = Duration::from_secs(2);

impl Keeper {
    /// Tells of each change of the configuration, by whomever, and of each moment at which one may have been missed.
    ///
    /// A watch without a list, and of that one name: more the injector's role does not allow.
    pub async fn watch(&self, changed: &Notify) -> Infallible {
        let only = WatchParams::default().fields(&format!("metadata.name={}", self.names.configuration));
        let mut failing = false;
        loop {
            // From version 0: the first event is what there is.
            match self.watched.watch(&only, "0").await {
                Ok(events) => {
                    failing = false;
                    let mut events = std::pin::pin!(events);
                    while let Some(Ok(event)) = events.next().await {
                        match event {
                            WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => {
                                changed.notify_one();
                            }
                            WatchEvent::Bookmark(_) => {}
                            WatchEvent::Error(_) => break,
                        }
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "cannot watch the webhook configuration; looking at it now and then");
                }
                Err(_) => {}
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    /// Patches CA bundle and path into the webhooks that call us, if the object is still the one that was read.
    pub(super) async fn register(
        &self,
        configuration: &MutatingWebhookConfiguration,
        webhooks: &[Webhook],
        bundle: &str,
        segment: &str,
    ) -> Result<(), KeepError> {
        let add = |path: &[&str], value: Value| {
            let path = PointerBuf::from_tokens(path.iter().copied());
            PatchOperation::Add(AddOperation { path, value })
        };
        let version = configuration.resource_version().unwrap_or_default();
        let mut operations = vec![add(&["metadata", "resourceVersion"], json!(version))];
        let bundle = data_encoding::BASE64.encode(bundle.as_bytes());
        for webhook in webhooks {
            let index = webhook.index.to_string();
            operations.push(add(&["webhooks", &index, "clientConfig", "caBundle"], json!(bundle)));
            operations.push(add(
                &["webhooks", &index, "clientConfig", "service", "path"],
                json!(path(segment)),
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

    pub(super) async fn configuration(&self) -> Result<MutatingWebhookConfiguration, KeepError> {
        let name = &self.names.configuration;
        let found = self.configurations.get_opt(name).await;
        let found = found.map_err(|source| KeepError::Configuration {
            name: name.clone(),
            source: Box::new(source),
        })?;
        found.ok_or_else(|| KeepError::NoConfiguration(name.clone()))
    }

    /// Those that call our Service.
    pub(super) fn webhooks(&self, configuration: &MutatingWebhookConfiguration) -> Result<Vec<Webhook>, KeepError> {
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
