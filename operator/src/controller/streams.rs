//! What the queues are woken by: watches that keep little, and pass on only what is news. Because they keep little, one
//! that has to list anew cannot tell what has gone: it rings `relisted`, by which everything is looked at.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::client::Body;
use kube::core::PartialObjectMeta;
use kube::core::object::HasStatus;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use sealpod_core::kubernetes::{INJECT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, annotations};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::conditions::{READY, find};
use super::echo::{Echoes, SETTLING};
use super::kept::{Kept, KeptBinding};
use super::kind::{Kind, StatusOf};
use super::scope::Scope;
use crate::tolerant::Tolerant;

/// Objects of one page of a list: anybody's may be as large as Kubernetes lets them be.
const PAGE: u32 = 50;
/// How long a sidecar takes to say what it has loaded.
const REPORTED_WITHIN: Duration = Duration::from_secs(2);
/// Events that are held back at a time.
const HELD: usize = 4_096;

type Watched<K> = Result<K, watcher::Error>;

/// The objects of a queue's own kind, and the store of all of them.
pub fn own<K: Kind>(
    kube: &Client,
    scope: &Scope,
    echoes: Arc<Echoes>,
) -> (impl Stream<Item = Watched<K::Kept>> + use<K>, Store<K::Kept>) {
    let (store, writer) = reflector::store();
    let objects = scope
        .merged(kube, &watcher::Config::default().page_size(PAGE), store.clone())
        .modify(K::Kept::slim)
        .reflect(writer)
        .applied_objects()
        .map_ok(Arc::new)
        .try_filter(move |object| ready(echoes.is_news(&object.open().0)))
        .map_ok(Arc::unwrap_or_clone);
    (objects, store)
}

/// Objects of another kind that a queue's own rest on, when something about them has changed that counts: the spec, the
/// deletion, or whether they are ready.
pub fn others<K>(
    kube: &Client,
    scope: &Scope,
    relisted: &Arc<Notify>,
) -> impl Stream<Item = Watched<Tolerant<K>>> + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus<Status: StatusOf>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let mut seen: HashMap<String, u64> = HashMap::new();
    scope
        .events::<Tolerant<K>>(kube, &watcher::Config::default().page_size(PAGE), relisted)
        .filter_map(move |event| {
            ready(match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => {
                    let now = gist(&object.0);
                    let before = seen.insert(object.uid().unwrap_or_default(), now);
                    (before != Some(now)).then_some(Ok(object))
                }
                Ok(Event::Delete(object)) => {
                    seen.remove(&object.uid().unwrap_or_default());
                    Some(Ok(object))
                }
                // Of what went before a new list, `relisted` has told.
                Ok(Event::Init | Event::InitDone) => None,
                Err(error) => Some(Err(error)),
            })
        })
}

fn gist<K: Resource + HasStatus<Status: StatusOf>>(object: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.meta().generation.hash(&mut hasher);
    object.meta().deletion_timestamp.is_some().hash(&mut hasher);
    let conditions = object.status().map(StatusOf::conditions).unwrap_or_default();
    find(conditions, READY).map(|ready| &ready.status).hash(&mut hasher);
    hasher.finish()
}

/// The metadata of the key Secrets that somebody else has touched: those whose `owner` label has the UID of the object
/// that they were made for. Their contents are not asked for: anybody may put our labels on a Secret of a mebibyte.
pub fn key_secrets(
    kube: &Client,
    scope: &Scope,
    owner: &'static str,
    echoes: Arc<Echoes>,
    relisted: &Arc<Notify>,
) -> impl Stream<Item = Watched<Tolerant<PartialObjectMeta<Secret>>>> + use<> {
    let labels = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{owner}");
    let config = watcher::Config::default().page_size(PAGE).labels(&labels);
    scope
        .events::<Tolerant<PartialObjectMeta<_>>>(&metadata_only(kube.clone()), &config, relisted)
        .touched_objects()
        .map(async |secret| {
            // The answer to our own write may still be on its way.
            tokio::time::sleep(SETTLING).await;
            secret
        })
        .buffered(HELD)
        .try_filter(move |secret| {
            let uid = secret.labels().get(owner).map_or("", String::as_str);
            ready(!echoes.is_own_secret(uid, secret.meta().resource_version.as_deref()))
        })
}

/// Pods that ask for injection, a moment after each turn of their lives: by then their sidecars have said what they
/// have loaded, or are gone. Nothing of them is kept. Where they may not be watched, only `status.pods` is late.
pub fn pods(
    kube: &Client,
    scope: &Scope,
    relisted: &Arc<Notify>,
) -> impl Stream<Item = Watched<Tolerant<PartialObjectMeta<Pod>>>> + use<> {
    let config = watcher::Config::default()
        .page_size(PAGE)
        .labels(&format!("{INJECT_LABEL}=true"));
    scope
        .events::<Tolerant<PartialObjectMeta<_>>>(&metadata_only(kube.clone()), &config, relisted)
        .touched_objects()
        .map(async |pod| {
            tokio::time::sleep(REPORTED_WITHIN).await;
            pod
        })
        .buffered(HELD)
}

/// The bindings that a pod was injected with.
pub fn injected_with<K>(pod: &Tolerant<K>) -> Vec<ObjectRef<KeptBinding>>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = pod.namespace().unwrap_or_default();
    let names = pod.annotations().get(annotations::INJECTED).map_or("", String::as_str);
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| ObjectRef::new(name).within(&namespace)).collect()
}

/// The same Kubernetes API, answering with nothing but the metadata of objects. The client's own way of asking for that
/// cannot read what [`Tolerant`] reads.
pub fn metadata_only(kube: Client) -> Client {
    let service = tower::service_fn(move |mut request: axum::http::Request<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let kind = if is_watch {
            "PartialObjectMetadata"
        } else {
            "PartialObjectMetadataList"
        };
        let accept = format!("application/json;as={kind};g=meta.k8s.io;v=v1");
        let accept = accept.parse().expect("a media type is a header value");
        request.headers_mut().insert(axum::http::header::ACCEPT, accept);
        let kube = kube.clone();
        async move { kube.send(request).await }
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::controller::binding::native;
    use futures::future::{join_all, select};
    use futures::stream::BoxStream;
    use sealpod_core::kubernetes::{APPLICATION_UID_LABEL, BINDING_UID_LABEL};
    use sealpod_crds::{Application, Environment};
    use serde_json::json;

    /// Has nothing any more, and no watch of it can go on. Counts how often it is listed.
    fn forgetful(lists: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let answer = if request.uri().query().unwrap_or_default().contains("watch=true") {
                let gone =
                    json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""});
                json!({"type": "ERROR", "object": gone})
            } else {
                lists.fetch_add(1, Ordering::Relaxed);
                json!({"metadata": {"resourceVersion": "1"}, "items": []})
            };
            let body = Body::from(format!("{answer}\n").into_bytes());
            ready(Ok::<_, tower::BoxError>(axum::http::Response::new(body)))
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn every_watch_of_what_others_rest_on_rings_once_it_has_listed_anew() {
        type Watch = fn(&Client, &Scope, &Arc<Notify>) -> BoxStream<'static, ()>;
        let all: [Watch; 6] = [
            |kube, scope, relisted| others::<Application>(kube, scope, relisted).map(drop).boxed(),
            |kube, scope, relisted| others::<Environment>(kube, scope, relisted).map(drop).boxed(),
            |kube, scope, relisted| {
                key_secrets(kube, scope, BINDING_UID_LABEL, Arc::default(), relisted)
                    .map(drop)
                    .boxed()
            },
            |kube, scope, relisted| {
                key_secrets(kube, scope, APPLICATION_UID_LABEL, Arc::default(), relisted)
                    .map(drop)
                    .boxed()
            },
            |kube, scope, relisted| pods(kube, scope, relisted).map(drop).boxed(),
            |kube, scope, relisted| native::watch(kube, scope, relisted).1.map(drop).boxed(),
        ];
        join_all(all.iter().enumerate().map(async |(at, watch)| {
            let (lists, relisted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
            let events = watch(&forgetful(Arc::clone(&lists)), &Scope::default(), &relisted);
            let ended = std::pin::pin!(events.collect::<Vec<()>>());
            let rung = std::pin::pin!(tokio::time::timeout(Duration::from_secs(20), relisted.notified()));
            let futures::future::Either::Right((rung, _)) = select(ended, rung).await else {
                panic!("watch {at} has ended");
            };
            assert!(rung.is_ok(), "watch {at} has listed anew and says nothing");
            assert!(
                lists.load(Ordering::Relaxed) >= 2,
                "watch {at} rings for its first list"
            );
        }))
        .await;
    }
}
