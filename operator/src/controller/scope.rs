//! Which namespaces this controller works in: all, or those that it was told, by one watch in each.
//!
//! A watch that fails is tried again ever more rarely, for itself: a queue would wait after an error of any of its
//! streams, and so one namespace that cannot be watched would hold up all the others. So errors end here, in the log.

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;

type Watched<T> = Result<T, watcher::Error>;

/// How often one watch that goes on failing is told of.
const TOLD_EVERY: Duration = Duration::from_mins(5);

/// A kind that can be watched in one namespace, or in all.
pub trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

#[derive(Debug, Clone, Default)]
pub struct Scope(Option<Arc<[String]>>);

impl Scope {
    /// All namespaces, if none is named.
    pub fn new(mut namespaces: Vec<String>) -> Self {
        namespaces.sort_unstable();
        namespaces.dedup();
        Self((!namespaces.is_empty()).then(|| namespaces.into()))
    }

    pub fn covers(&self, namespace: &str) -> bool {
        self.0.as_ref().is_none_or(|all| all.iter().any(|one| one == namespace))
    }

    pub fn apis<K>(&self, kube: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.0 {
            None => vec![Api::all(kube.clone())],
            Some(namespaces) => namespaces
                .iter()
                .map(|one| Api::namespaced(kube.clone(), one))
                .collect(),
        }
    }

    /// What all watches tell, each for itself; `relisted` rings as [`ringing`] says.
    pub fn events<K: Namespaced>(
        &self,
        kube: &Client,
        config: &watcher::Config,
        relisted: &Arc<Notify>,
    ) -> impl Stream<Item = Watched<Event<K>>> + use<K> {
        stream::select_all(self.watches(kube, config, relisted))
    }

    /// The watches of [`Self::events`]: a list is one watch's.
    pub fn watches<K: Namespaced>(
        &self,
        kube: &Client,
        config: &watcher::Config,
        relisted: &Arc<Notify>,
    ) -> Vec<BoxStream<'static, Watched<Event<K>>>> {
        let watches = self.apis::<K>(kube).into_iter();
        watches
            .map(|api| ringing(unfailing(api, config), Arc::clone(relisted)).boxed())
            .collect()
    }

    /// What all watches tell, as one watch would: for a store, which a new list of one namespace must not empty of the
    /// others. `known` is that store.
    pub fn merged<K: Namespaced + Sync>(
        &self,
        kube: &Client,
        config: &watcher::Config,
        known: Store<K>,
    ) -> BoxStream<'static, Watched<Event<K>>> {
        let mut apis = self.apis::<K>(kube);
        if let (Some(only), true) = (apis.pop(), apis.is_empty()) {
            return unfailing(only, config);
        }
        let apis = self.apis::<K>(kube);
        let mut merge = Merge::new(apis.len());
        let watches = apis.into_iter().enumerate();
        let tagged = watches.map(|(at, api)| patient(api, config).map(move |event| (at, event)).boxed());
        let last_known = move |gone: &ObjectRef<K>| known.get(gone).map(|object| object.as_ref().clone());
        stream::once(async { Ok(Event::Init) })
            .chain(
                stream::select_all(tagged)
                    .flat_map(move |(at, event)| stream::iter(merge.take(at, event, &last_known))),
            )
            .boxed()
    }
}

/// Rings when a watch has listed anew. It could not go on from where it was, and no event tells of what has gone in
/// between.
pub fn ringing<K>(
    events: impl Stream<Item = Watched<Event<K>>>,
    relisted: Arc<Notify>,
) -> impl Stream<Item = Watched<Event<K>>> {
    let mut listed = false;
    events.inspect(move |event| {
        if matches!(event, Ok(Event::InitDone)) && std::mem::replace(&mut listed, true) {
            relisted.notify_one();
        }
    })
}

/// One watch whose errors end here.
fn unfailing<K: Namespaced>(api: Api<K>, config: &watcher::Config) -> BoxStream<'static, Watched<Event<K>>> {
    patient(api, config)
        .filter_map(|event| ready(event.ok().map(Ok)))
        .boxed()
}

/// One watch that waits after its own errors, and tells of them.
fn patient<K: Namespaced>(api: Api<K>, config: &watcher::Config) -> impl Stream<Item = Watched<Event<K>>> + use<K> {
    let path = api.resource_url().to_owned();
    let mut told: Option<Instant> = None;
    watcher(api, config.clone()).default_backoff().inspect(move |event| {
        let Err(error) = event else { return };
        if told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            tracing::debug!(path, "watching: {error}");
        } else {
            told = Some(Instant::now());
            tracing::warn!(
                path,
                "this cannot be watched, so changes are seen late; trying again: {error}"
            );
        }
    })
}

/// Several watches on their way to be one.
struct Merge<K: Resource<DynamicType = ()>> {
    sources: Vec<Source<K>>,
    /// What goes while the first lists are not complete.
    gone: Vec<K>,
    complete: bool,
}

struct Source<K: Resource<DynamicType = ()>> {
    /// Listed once, or failed: one namespace that cannot be watched must not hold up the others.
    done: bool,
    known: HashSet<ObjectRef<K>>,
    /// Of a list that is under way.
    listing: Option<HashSet<ObjectRef<K>>>,
}

impl<K: Resource<DynamicType = ()> + Clone> Merge<K> {
    fn new(sources: usize) -> Self {
        let source = || Source {
            done: false,
            known: HashSet::new(),
            listing: None,
        };
        Self {
            sources: (0..sources).map(|_| source()).collect(),
            gone: Vec::new(),
            complete: false,
        }
    }

    fn take(
        &mut self,
        at: usize,
        event: Watched<Event<K>>,
        last_known: &impl Fn(&ObjectRef<K>) -> Option<K>,
    ) -> Vec<Watched<Event<K>>> {
        let source = &mut self.sources[at];
        let mut told = Vec::new();
        let mut gone = Vec::new();
        match event {
            Ok(Event::Init) => source.listing = Some(HashSet::new()),
            Ok(Event::InitApply(object)) => {
                let listing = source.listing.get_or_insert_default();
                listing.insert(ObjectRef::from_obj(&object));
                told.push(Ok(self.applied(object)));
            }
            Ok(Event::Apply(object)) => {
                source.known.insert(ObjectRef::from_obj(&object));
                told.push(Ok(self.applied(object)));
            }
            Ok(Event::Delete(object)) => {
                source.known.remove(&ObjectRef::from_obj(&object));
                gone.push(object);
            }
            Ok(Event::InitDone) => {
                let now = source.listing.take().unwrap_or_default();
                gone.extend(source.known.difference(&now).filter_map(last_known));
                source.known = now;
                source.done = true;
            }
            // Told where it came from.
            Err(_) => source.done = true,
        }
        self.gone.append(&mut gone);
        if !self.complete && self.sources.iter().all(|source| source.done) {
            self.complete = true;
            told.push(Ok(Event::InitDone));
        }
        if self.complete {
            told.extend(self.gone.drain(..).map(|object| Ok(Event::Delete(object))));
        }
        told
    }

    fn applied(&self, object: K) -> Event<K> {
        if self.complete {
            Event::Apply(object)
        } else {
            Event::InitApply(object)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::client::Body;
    use kube::runtime::reflector;
    use serde_json::json;
    use tokio::sync::Notify;

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object.metadata.name = Some(name.to_owned());
        object
    }

    /// The store that the events of two watches make.
    struct World {
        merge: Merge<ConfigMap>,
        store: Store<ConfigMap>,
        writer: reflector::store::Writer<ConfigMap>,
        failures: usize,
    }

    impl World {
        fn new() -> Self {
            let (store, mut writer) = reflector::store();
            writer.apply_watcher_event(&Event::Init);
            Self {
                merge: Merge::new(2),
                store,
                writer,
                failures: 0,
            }
        }

        fn take(&mut self, at: usize, event: Watched<Event<ConfigMap>>) -> &mut Self {
            let known = self.store.clone();
            let last_known = |gone: &ObjectRef<ConfigMap>| known.get(gone).map(|found| found.as_ref().clone());
            for event in self.merge.take(at, event, &last_known) {
                match event {
                    Ok(event) => self.writer.apply_watcher_event(&event),
                    Err(_) => self.failures += 1,
                }
            }
            self
        }

        fn list(&mut self, at: usize, objects: &[(&str, &str)]) -> &mut Self {
            self.take(at, Ok(Event::Init));
            for (namespace, name) in objects {
                self.take(at, Ok(Event::InitApply(object(namespace, name))));
            }
            self.take(at, Ok(Event::InitDone))
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = self.store.state().iter().map(|o| o.name_any()).collect();
            names.sort_unstable();
            names
        }
    }

    fn failure() -> watcher::Error {
        watcher::Error::NoResourceVersion
    }

    #[test]
    fn a_scope_covers_what_it_names_and_all_where_it_names_nothing() {
        let some = Scope::new(vec!["b".to_owned(), "a".to_owned(), "b".to_owned()]);
        assert!(some.covers("a") && some.covers("b") && !some.covers("c"));
        assert!(Scope::new(vec![]).covers("c"));
    }

    #[test]
    fn the_store_is_ready_when_all_are_listed_and_not_before() {
        let mut world = World::new();
        world.list(0, &[("a", "one")]);
        assert!(world.names().is_empty(), "what is half known is not known");
        world.list(1, &[("b", "two")]);
        assert_eq!(world.names(), ["one", "two"]);
        world.take(1, Ok(Event::Apply(object("b", "three"))));
        world.take(0, Ok(Event::Delete(object("a", "one"))));
        assert_eq!(world.names(), ["three", "two"]);
    }

    #[test]
    fn a_new_list_of_one_namespace_leaves_the_others_and_finds_what_is_gone() {
        let mut world = World::new();
        world.list(0, &[("a", "one"), ("a", "two")]).list(1, &[("b", "three")]);
        world.list(0, &[("a", "two"), ("a", "four")]);
        assert_eq!(world.names(), ["four", "three", "two"]);
    }

    #[test]
    fn a_namespace_that_cannot_be_watched_holds_up_no_other() {
        let mut world = World::new();
        world.list(0, &[("a", "one")]).take(1, Err(failure()));
        assert_eq!((world.names(), world.failures), (vec!["one".to_owned()], 0));
        world.list(1, &[("b", "two")]);
        assert_eq!(world.names(), ["one", "two"]);
    }

    #[test]
    fn what_goes_before_all_are_listed_is_gone_afterwards() {
        let mut world = World::new();
        world.list(0, &[("a", "one"), ("a", "two")]);
        world.take(0, Ok(Event::Delete(object("a", "one"))));
        world.list(1, &[]);
        assert_eq!(world.names(), ["two"]);
    }

    /// Namespace `a` may not be watched; what is in `b` comes after that is known.
    fn half_dead() -> Client {
        let refused = Arc::new(Notify::new());
        let api = tower::service_fn(move |request: axum::http::Request<Body>| {
            let refused = Arc::clone(&refused);
            async move {
                let watches = request.uri().query().unwrap_or_default().contains("watch=true");
                let (code, answer) = if request.uri().path().contains("/a/") {
                    refused.notify_one();
                    (
                        403,
                        json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "message": "", "code": 403}),
                    )
                } else if watches {
                    std::future::pending().await
                } else {
                    refused.notified().await;
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                    }
                    let item = json!({"metadata": {"name": "one", "namespace": "b", "uid": "u"}});
                    (200, json!({"metadata": {"resourceVersion": "1"}, "items": [item]}))
                };
                let body = Body::from(answer.to_string().into_bytes());
                let response = axum::http::Response::builder().status(code).body(body);
                Ok::<_, tower::BoxError>(response.unwrap())
            }
        });
        Client::new(api, "x")
    }

    #[tokio::test]
    async fn errors_of_one_namespace_are_passed_on_to_no_queue() {
        let scope = Scope::new(vec!["a".to_owned(), "b".to_owned()]);
        let config = watcher::Config::default();
        let (store, _) = reflector::store();
        let events = scope
            .events::<ConfigMap>(&half_dead(), &config, &Arc::default())
            .boxed();
        let merged = scope.merged::<ConfigMap>(&half_dead(), &config, store);
        for mut stream in [events, merged] {
            loop {
                let event = stream.next().await.unwrap();
                if let Event::InitApply(object) | Event::Apply(object) = event.expect("no error") {
                    assert_eq!(object.name_any(), "one");
                    break;
                }
            }
        }
    }
}
