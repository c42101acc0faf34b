//! Namespaces whose bindings read Applications of others: their labels decide with `spec.allowedNamespaces`, and are the
//! only thing that nothing tells of, because a controller of a few namespaces may not watch any.
//!
//! So their metadata is read every half minute, however many bindings are in them; those bindings are looked at when it
//! has changed, and at no other time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::changes::Wakes;
use super::context::Context;
use super::error::describe;
use super::kept::KeptBinding;
use super::namespace;
use super::told::Told;

const INTERVAL: Duration = Duration::from_secs(30);
/// Namespaces that are read at a time: what one of them takes long for is not waited for by the others.
const AT_A_TIME: usize = 8;

/// The version in which each namespace was last seen; none for one that is not there. Not its labels: those may have
/// been others in between, and a binding been looked at by them.
type Seen = HashMap<String, Option<String>>;
type Reference = ObjectRef<KeptBinding>;

/// Wakes bindings for ever.
pub async fn run(context: Arc<Context>, wakes: Wakes) {
    let (mut seen, mut told) = (Seen::new(), Told::default());
    loop {
        tokio::time::sleep(INTERVAL).await;
        let unread = look(&context, &mut seen, |binding| wakes.binding(binding)).await;
        match unread {
            // In the same words, whichever they are: they are told as one.
            Some(Unread { count, first }) if told.is_news("", "", Instant::now()) => {
                tracing::warn!(namespaces = count, "labels of namespaces cannot be read: {first}");
            }
            Some(Unread { count, first }) => tracing::debug!(namespaces = count, "still not read: {first}"),
            None => told.passed(""),
        }
    }
}

/// Namespaces that could not be read.
#[derive(Debug, PartialEq)]
struct Unread {
    count: usize,
    /// The first of them, and why.
    first: String,
}

/// Wakes the bindings of namespaces that are seen in another version than before, or for the first time: each as soon as
/// it is read.
async fn look(context: &Context, seen: &mut Seen, mut wake: impl FnMut(Reference)) -> Option<Unread> {
    let guests = guests(context);
    seen.retain(|namespace, _| guests.contains_key(namespace));
    let reads = guests.into_iter().map(|(namespace, bindings)| {
        let kube = context.kube.clone();
        async move {
            let read = namespace::read(&kube, &namespace).await;
            (namespace, bindings, read)
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(AT_A_TIME);
    let mut unread: Option<Unread> = None;
    while let Some((namespace, bindings, read)) = reads.next().await {
        let version = match read {
            Ok(found) => found.and_then(|found| found.resource_version()),
            // An answer that cannot be read says nothing.
            Err(error) => {
                let first = || format!("{namespace}: {}", describe(&error));
                unread
                    .get_or_insert_with(|| Unread {
                        count: 0,
                        first: first(),
                    })
                    .count += 1;
                continue;
            }
        };
        if seen.get(&namespace) != Some(&version) {
            seen.insert(namespace, version);
            bindings.into_iter().for_each(&mut wake);
        }
    }
    unread
}

/// Bindings to Applications of other namespaces, by their own.
fn guests(context: &Context) -> HashMap<String, Vec<Reference>> {
    let abroad = context
        .bindings
        .state_filter(|b| b.application_namespace() != b.namespace());
    let mut guests: HashMap<String, Vec<Reference>> = HashMap::new();
    for binding in abroad {
        let of_namespace = guests.entry(binding.namespace().unwrap_or_default()).or_default();
        of_namespace.push(ObjectRef::from_obj(binding.as_ref()));
    }
    guests
}

#[cfg(test)]
mod tests {
    use super::super::binding::world::world;
    use super::*;
    use kube::client::Body;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    fn guest(namespace: &str, name: &str, of: &Value) -> Event<KeptBinding> {
        let spec = json!({"applicationRef": of, "environment": "prod"});
        let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
        Event::Apply(serde_json::from_value(object).unwrap())
    }

    /// Of eight namespaces, in whatever order, seven never answer.
    #[tokio::test]
    async fn namespaces_that_are_slow_hold_up_no_other() {
        let mut world = world().await;
        let (store, mut writer) = reflector::store();
        let slow = (1..AT_A_TIME).map(|n| format!("slow-{n}"));
        for namespace in slow.chain(["quick".to_owned()]) {
            writer.apply_watcher_event(&guest(
                &namespace,
                &namespace,
                &json!({"name": "shop", "namespace": "shop"}),
            ));
        }
        world
            .kube
            .put("/api/v1/namespaces/quick", json!({"metadata": {"name": "quick"}}));
        let kube = world.kube.client();
        let service = tower::service_fn(move |request: axum::http::Request<Body>| {
            let kube = kube.clone();
            async move {
                if request.uri().path().contains("/slow-") {
                    std::future::pending::<()>().await;
                }
                kube.send(request).await
            }
        });
        let context = Arc::get_mut(&mut world.context).unwrap();
        (context.bindings, context.kube) = (store, kube::Client::new(service, "default"));
        let (woken, mut names) = futures::channel::mpsc::unbounded();
        let mut seen = Seen::new();
        let looked = look(&world.context, &mut seen, |b| woken.unbounded_send(b.name).unwrap());
        tokio::select! {
            unread = looked => panic!("one never answers: {unread:?}"),
            name = names.next() => assert_eq!(name.as_deref(), Some("quick")),
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("nobody was woken"),
        }
    }

    #[tokio::test]
    async fn guests_are_looked_at_when_their_namespace_has_changed_and_at_no_other_time() {
        let mut world = world().await;
        let (store, mut writer) = reflector::store();
        for (namespace, name, of) in [
            ("shop", "own", json!({"name": "shop"})),
            ("shop", "named", json!({"name": "shop", "namespace": "shop"})),
            ("guest", "a", json!({"name": "shop", "namespace": "shop"})),
            ("guest", "b", json!({"name": "other", "namespace": "shop"})),
        ] {
            writer.apply_watcher_event(&guest(namespace, name, &of));
        }
        Arc::get_mut(&mut world.context).unwrap().bindings = store;
        let path = "/api/v1/namespaces/guest";
        let label = |team: &str| json!({"metadata": {"name": "guest", "labels": {"team": team}}});
        world.kube.put(path, label("a"));
        let mut seen = Seen::new();
        let mut look = async || {
            let mut woken = Vec::new();
            let unread = look(&world.context, &mut seen, |b| woken.push(b.name)).await;
            woken.sort_unstable();
            assert!(unread.is_none_or(|unread| unread.count == 1 && unread.first.starts_with("guest: ")));
            woken
        };
        assert_eq!(look().await, ["a", "b"], "nobody knows what was before");
        world.kube.take_calls();
        assert_eq!(look().await, [""; 0]);
        assert_eq!(
            world.kube.take_calls(),
            [format!("GET {path}")],
            "one read for all of its bindings"
        );
        world.kube.put(path, label("b"));
        world.kube.refuse(&format!("GET {path}"), 500, "InternalError");
        assert_eq!(look().await, [""; 0], "what cannot be read is no change");
        world.kube.allow();
        assert_eq!(look().await, ["a", "b"]);
        // There and back between two looks.
        world.kube.put(path, label("c"));
        world.kube.put(path, label("b"));
        assert_eq!(look().await, ["a", "b"]);
        world.kube.remove(path);
        assert_eq!(look().await, ["a", "b"]);
        assert_eq!(look().await, [""; 0]);
    }
}
