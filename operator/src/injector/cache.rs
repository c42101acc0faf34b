//! The SecretBindings of the cluster, kept by a watch, so that a decision needs no call.

use std::future::Future;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use sealpod_crds::SecretBinding;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use super::select::Binding;
use crate::tolerant::Tolerant;

const READINESS: &str = "bindings";

/// What the watch has brought so far.
#[derive(Clone)]
pub struct Bindings(Store<Tolerant<SecretBinding>>);

impl Bindings {
    /// All of a namespace.
    pub fn of(&self, namespace: &str) -> Vec<Binding> {
        let in_namespace = |binding: &Tolerant<SecretBinding>| binding.metadata.namespace.as_deref() == Some(namespace);
        let found = self.0.state_filter(in_namespace);
        found.iter().map(|binding| Binding::from(&binding.0)).collect()
    }
}

impl From<&SecretBinding> for Binding {
    fn from(binding: &SecretBinding) -> Self {
        Self {
            name: binding.name_any(),
            mount_path: binding.mount_path(),
            size_limit: binding.spec.size_limit(),
            pod_selector: binding.spec.pod_selector.clone(),
            service_accounts: binding.spec.service_account_names.clone(),
            not_ready: not_ready(binding),
            deleted: binding.metadata.deletion_timestamp.is_some(),
        }
    }
}

fn not_ready(binding: &SecretBinding) -> Option<String> {
    let mut conditions = binding.status.iter().flat_map(|status| &status.conditions);
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(Condition { status, .. }) if status == "True" => None,
        Some(Condition { reason, message, .. }) => Some(format!("{reason}: {message}")),
        None => Some("the controller has not looked at it yet".to_owned()),
    }
}

/// A cache and the task that fills it until `shutdown`. Not ready until the first list is complete; after that a watch
/// that breaks is taken up again, and decisions go on with what is known.
pub fn follow(
    client: Client,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> (Bindings, impl Future<Output = ()> + Send) {
    readiness.block(READINESS, "the SecretBindings are not listed yet");
    let (store, writer) = reflector::store();
    let cache = Bindings(store.clone());
    // Across all namespaces, because pods of any may ask; a decision sees those of its own namespace only.
    let events = watcher(Api::<Tolerant<SecretBinding>>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    let fill = async move {
        let mut events = std::pin::pin!(events);
        while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
            match event {
                Ok(watcher::Event::InitDone) => readiness.clear(READINESS),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot watch SecretBindings; trying again"),
            }
        }
    };
    (cache, fill)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use kube::runtime::reflector::store::Writer;
    use serde_json::{Value, json};
    use std::time::Duration;

    /// A cache that a test fills.
    pub fn cache() -> (Bindings, Writer<Tolerant<SecretBinding>>) {
        let (store, writer) = reflector::store();
        (Bindings(store), writer)
    }

    pub fn secret_binding(namespace: &str, name: &str, status: &Value) -> Tolerant<SecretBinding> {
        serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"applicationRef": {"name": "shop"}, "environment": "prod"},
            "status": status,
        }))
        .unwrap()
    }

    fn ready(status: &str) -> Value {
        let condition = json!({
            "type": "Ready", "status": status, "reason": "EnvironmentNotFound", "message": "create it",
            "lastTransitionTime": "2026-11-03T12:00:00Z",
        });
        json!({"conditions": [condition]})
    }

    #[test]
    fn a_namespace_sees_its_own_bindings_only() {
        let (cache, mut writer) = cache();
        for (namespace, name) in [("shop", "db"), ("shop", "mail"), ("other", "db")] {
            writer.apply_watcher_event(&watcher::Event::Apply(secret_binding(namespace, name, &json!({}))));
        }
        let mut names: Vec<_> = cache.of("shop").into_iter().map(|binding| binding.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["db", "mail"]);
        assert_eq!(cache.of("absent"), []);
    }

    #[tokio::test]
    async fn the_cache_fills_whatever_users_have_written_into_one_object() {
        let answer = tower::service_fn(|request: axum::http::Request<kube::client::Body>| async move {
            if request.uri().query().unwrap_or_default().contains("watch=true") {
                std::future::pending::<()>().await;
            }
            let list = crate::tolerant::tests::list("9999-12-31T23:59:59Z").to_string();
            Ok::<_, tower::BoxError>(axum::http::Response::new(kube::client::Body::from(list.into_bytes())))
        });
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        let (cache, fill) = follow(Client::new(answer, "sealpod"), readiness, stop);
        let filled = async {
            while cache.of("shop").len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = fill => panic!("the watch ended"),
            found = tokio::time::timeout(Duration::from_secs(5), filled) => found.expect("one object stopped the list"),
        }
    }

    #[test]
    fn a_binding_is_read_with_its_defaults() {
        let binding = Binding::from(&*secret_binding("shop", "db", &ready("True")));
        assert_eq!(binding, super::super::tests::binding("db"));
    }

    #[test]
    fn what_is_not_ready_says_why() {
        let reason = |status| Binding::from(&*secret_binding("shop", "db", &status)).not_ready;
        assert_eq!(reason(ready("True")), None);
        assert_eq!(reason(ready("False")).unwrap(), "EnvironmentNotFound: create it");
        assert_eq!(reason(json!({})).unwrap(), "the controller has not looked at it yet");
    }
}
