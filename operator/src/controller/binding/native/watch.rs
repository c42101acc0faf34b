//! The watch of the Secrets that bindings made: metadata only, and only those that carry our label, so that nobody's
//! other Secrets are ever listed.

use std::sync::Arc;

use futures::Stream;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use sealpod_core::kubernetes::{COPY_BINDING, COPY_OF_LABEL};
use tokio::sync::Notify;

use crate::controller::kept::KeptBinding;
use crate::controller::scope::{Scope, ringing};
use crate::controller::streams::metadata_only;
use crate::tolerant::Tolerant;

/// Secrets of one page of a list: their metadata is anybody's, and may be as large as Kubernetes lets it be.
const PAGE: u32 = 50;

pub type Watched = Tolerant<PartialObjectMeta<Secret>>;

/// What is there, and what is touched by anybody. `relisted` rings as [`ringing`] says.
pub fn watch(
    kube: &Client,
    scope: &Scope,
    relisted: &Arc<Notify>,
) -> (
    Store<Watched>,
    impl Stream<Item = Result<Watched, watcher::Error>> + use<>,
) {
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().page_size(PAGE).labels(COPY_OF_LABEL);
    let events = scope.merged(&metadata_only(kube.clone()), &config, store.clone());
    let touched = ringing(events, Arc::clone(relisted))
        .modify(|secret: &mut Watched| {
            secret.annotations_mut().retain(|key, _| key == COPY_BINDING);
            secret.labels_mut().retain(|key, _| key == COPY_OF_LABEL);
        })
        .reflect(writer)
        .touched_objects();
    (store, touched)
}

/// The binding that a touched Secret is of: by the name on it, else by its UID. To look at a binding once more gives
/// nobody anything.
pub fn binding_of(secret: &Watched, bindings: &Store<KeptBinding>) -> Option<ObjectRef<KeptBinding>> {
    let namespace = secret.namespace()?;
    if let Some(name) = secret.annotations().get(COPY_BINDING) {
        let named = ObjectRef::new(name).within(&namespace);
        if bindings.get(&named).is_some() {
            return Some(named);
        }
    }
    let uid = secret.labels().get(COPY_OF_LABEL)?;
    let found = bindings.find(|b| b.uid().as_ref() == Some(uid) && b.namespace().as_ref() == Some(&namespace))?;
    Some(ObjectRef::from_obj(found.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use futures::StreamExt;
    use kube::client::Body;
    use serde_json::json;

    /// Whatever others have in their Secrets, of whatever size, never reaches this process.
    #[tokio::test]
    async fn secrets_of_others_are_never_listed_and_of_ours_the_metadata_only() {
        for (scope, paths) in [
            (Scope::default(), vec!["/api/v1/secrets"]),
            (
                Scope::new(vec!["a".to_owned(), "b".to_owned()]),
                vec!["/api/v1/namespaces/a/secrets", "/api/v1/namespaces/b/secrets"],
            ),
        ] {
            let asked = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&asked);
            let api = tower::service_fn(move |request: axum::http::Request<Body>| {
                let accept = request.headers()["accept"].to_str().unwrap().to_owned();
                let uri = request.uri().clone();
                let watches = uri.query().unwrap_or_default().contains("watch=true");
                seen.lock().unwrap().push((uri, accept));
                async move {
                    if watches {
                        std::future::pending::<()>().await;
                    }
                    let item = json!({"metadata": {"name": "copy", "namespace": "a", "uid": "u"}});
                    let list = json!({"metadata": {"resourceVersion": "1"}, "items": [item]});
                    let body = Body::from(list.to_string().into_bytes());
                    Ok::<_, tower::BoxError>(axum::http::Response::new(body))
                }
            });
            let (_, touched) = watch(&Client::new(api, "x"), &scope, &Arc::default());
            let mut touched = std::pin::pin!(touched);
            for _ in &paths {
                touched.next().await.unwrap().unwrap();
            }
            let asked = asked.lock().unwrap();
            for path in paths {
                assert!(asked.iter().any(|(uri, _)| uri.path() == path), "{path} in {asked:?}");
            }
            for (uri, accept) in asked.iter() {
                assert!(accept.contains("as=PartialObjectMetadata"), "{accept}");
                let query = uri.query().unwrap_or_default();
                assert!(query.contains("labelSelector=sealpod.dev%2Fcopy-of"), "{query}");
            }
        }
    }
}
