//! What the queues are woken by: watches that keep little, and pass on only what is news. Because they keep little, one
//! that has to list anew cannot tell what has gone: it rings `relisted`, by which everything is looked at.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
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

/// The objects of a queue's own kind, and the store of all of them. Those of a new list come when all of it is in the
/// store: before, a queue would find in there what was known before the list, and of what is new nothing.
pub fn own<K: Kind>(
    kube: &Client,
    scope: &Scope,
    echoes: Arc<Echoes>,
) -> (impl Stream<Item = Watched<K::Kept>> + use<K>, Store<K::Kept>) {
    let (store, writer) = reflector::store();
    let known = store.clone();
    let mut held = Vec::new();
    let objects = scope
        .merged(kube, &watcher::Config::default().page_size(PAGE), store.clone())
        .modify(K::Kept::slim)
        .reflect(writer)
        .flat_map(move |event| {
            let is_news = |object: K::Kept| {
                let object = Arc::new(object);
                echoes.is_news(&object.open().0).then_some(object)
            };
            let (now, listed) = match event {
                Ok(Event::Apply(object)) => (is_news(object).map(|object| Ok(Arc::unwrap_or_clone(object))), vec![]),
                Ok(Event::InitApply(object)) => {
                    // Its place only: the store has the rest.
                    held.extend(is_news(object).map(|object| ObjectRef::from_obj(object.as_ref())));
                    (None, vec![])
                }
                Ok(Event::InitDone) => (None, std::mem::take(&mut held)),
                // A list that is begun anew has what was news in the one before, or it is gone.
                Ok(Event::Init | Event::Delete(_)) => (None, vec![]),
                Err(error) => (Some(Err(error)), vec![]),
            };
            let known = known.clone();
            let listed = listed.into_iter().filter_map(move |place| known.get(&place));
            stream::iter(now).chain(stream::iter(listed.map(|object| Ok(object.as_ref().clone()))))
        });
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
    let watches = scope.watches::<Tolerant<K>>(kube, &watcher::Config::default().page_size(PAGE), relisted);
    stream::select_all(watches.into_iter().map(|events| {
        let mut seen = Seen::default();
        events
            .filter_map(move |event| ready(event.map(|event| seen.news(event)).transpose()))
            .boxed()
    }))
}

/// What one watch has told, by UID.
#[derive(Default)]
struct Seen {
    gists: HashMap<String, u64>,
    /// Of a list that is under way.
    listed: HashSet<String>,
}

impl Seen {
    /// The object, if the event tells anything new of it.
    fn news<K>(&mut self, event: Event<Tolerant<K>>) -> Option<Tolerant<K>>
    where
        K: Resource<DynamicType = ()> + HasStatus<Status: StatusOf>,
    {
        let uid = |object: &Tolerant<K>| object.0.meta().uid.clone().unwrap_or_default();
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(uid(&object));
                return self.is_news(uid(&object), &object.0).then_some(object);
            }
            // Of what went before a new list, `relisted` has told.
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.gists.retain(|uid, _| listed.contains(uid));
            }
            Event::Apply(object) => return self.is_news(uid(&object), &object.0).then_some(object),
            Event::Delete(object) => {
                self.gists.remove(&uid(&object));
                return Some(object);
            }
        }
        None
    }

    fn is_news<K: Resource + HasStatus<Status: StatusOf>>(&mut self, uid: String, object: &K) -> bool {
        let now = gist(object);
        self.gists.insert(uid, now) != Some(now)
    }
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

/// Pods that ask for injection, or whose label would if its value were `true`, a moment after each turn of their lives: by
/// then their sidecars have said what they have loaded, or are gone. Nothing of them is kept. Where they may not be
/// watched, only `status.pods` is late.
pub fn pods(
    kube: &Client,
    scope: &Scope,
    relisted: &Arc<Notify>,
) -> impl Stream<Item = Watched<Tolerant<PartialObjectMeta<Pod>>>> + use<> {
    let config = watcher::Config::default().page_size(PAGE).labels(INJECT_LABEL);
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
    use sealpod_core::kubernetes::{APPLICATION_UID_LABEL, BINDING_UID_LABEL, FINALIZER};
    use sealpod_crds::{Application, Environment};
    use serde_json::{Value, json};

    fn application(name: &str, generation: u32) -> Value {
        let metadata = json!({"name": name, "namespace": "shop", "uid": name, "generation": generation, "finalizers": [FINALIZER]});
        json!({"metadata": metadata, "spec": {}})
    }

    fn answer(body: &Value) -> axum::http::Response<Body> {
        axum::http::Response::new(Body::from(format!("{body}\n").into_bytes()))
    }

    fn expired() -> Value {
        let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""});
        json!({"type": "ERROR", "object": gone})
    }

    /// Has `old`, then forgets where the watch was and has two others, each on a page of its own. The second page is
    /// there once it is released; that it is asked for is told.
    fn paging(asked: Arc<Notify>, released: Arc<Notify>) -> Client {
        let lists = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let (asked, released, lists) = (Arc::clone(&asked), Arc::clone(&released), Arc::clone(&lists));
            async move {
                let query = request.uri().query().unwrap_or_default();
                let page = |items: Value, next: &str| json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items});
                let body = if query.contains("continue=") {
                    asked.notify_one();
                    released.notified().await;
                    page(json!([application("last", 1)]), "")
                } else if query.contains("watch=true") {
                    if lists.load(Ordering::Relaxed) > 1 {
                        std::future::pending::<()>().await;
                    }
                    expired()
                } else if lists.fetch_add(1, Ordering::Relaxed) == 0 {
                    page(json!([application("old", 1), application("same", 1)]), "")
                } else {
                    page(
                        json!([application("new", 1), application("old", 2), application("same", 1)]),
                        "more",
                    )
                };
                Ok::<_, tower::BoxError>(answer(&body))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn what_is_listed_anew_is_passed_on_when_all_of_it_is_in_the_store() {
        let (asked, released) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let kube = paging(Arc::clone(&asked), Arc::clone(&released));
        let (objects, store) = own::<Application>(&kube, &Scope::default(), Arc::default());
        let mut objects = Box::pin(objects);
        for _ in ["old", "same"] {
            objects.next().await.unwrap().unwrap();
        }
        let before = select(objects.next(), Box::pin(asked.notified())).await;
        assert!(
            matches!(before, futures::future::Either::Right(_)),
            "a queue would look at what was known before the list"
        );
        drop(before);
        released.notify_one();
        let mut passed = Vec::new();
        for _ in ["new", "old", "last"] {
            let object = objects.next().await.unwrap().unwrap();
            let stored = store.get(&ObjectRef::from_obj(&object)).expect("it is in the store");
            assert_eq!(*stored, object);
            passed.push((object.name_any(), object.0.metadata.generation));
        }
        passed.sort();
        let want = [("last", 1), ("new", 1), ("old", 2)];
        assert_eq!(
            passed,
            want.map(|(name, generation)| (name.to_owned(), Some(generation)))
        );
    }

    /// Has nothing any more, and no watch of it can go on. Counts how often it is listed.
    fn forgetful(lists: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let body = if request.uri().query().unwrap_or_default().contains("watch=true") {
                expired()
            } else {
                lists.fetch_add(1, Ordering::Relaxed);
                json!({"metadata": {"resourceVersion": "1"}, "items": []})
            };
            ready(Ok::<_, tower::BoxError>(answer(&body)))
        });
        Client::new(service, "default")
    }

    #[test]
    fn of_what_went_while_a_watch_listed_anew_nothing_is_kept() {
        let one = |name: &str, generation: u32| -> Tolerant<Application> {
            serde_json::from_value(application(name, generation)).unwrap()
        };
        let mut seen = Seen::default();
        let mut list = |names: &[&str]| {
            seen.news::<Application>(Event::Init);
            let told = names
                .iter()
                .filter(|name| seen.news(Event::InitApply(one(name, 1))).is_some());
            let told = told.count();
            seen.news::<Application>(Event::InitDone);
            (told, seen.gists.len())
        };
        assert_eq!(list(&["a", "b", "c"]), (3, 3));
        assert_eq!(list(&["b"]), (0, 1), "two have gone, and the third is as it was");
        assert_eq!(list(&["a", "b"]), (1, 2), "one has come again");
        // A list that was not finished.
        seen.news::<Application>(Event::Init);
        seen.news(Event::InitApply(one("d", 1)));
        seen.news::<Application>(Event::Init);
        seen.news::<Application>(Event::InitDone);
        assert_eq!((seen.gists.len(), seen.listed.len()), (0, 0));
        assert!(seen.news(Event::Apply(one("a", 1))).is_some());
        assert!(seen.news(Event::Apply(one("a", 1))).is_none());
        assert!(seen.news(Event::Apply(one("a", 2))).is_some());
        assert!(seen.news(Event::Delete(one("a", 2))).is_some());
        assert!(seen.gists.is_empty());
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
