//! Namespaces whose bindings read Applications of others: their labels decide with `spec.allowedNamespaces`, and are the
//! only thing that nothing tells of, because a controller of a few namespaces may not watch any.
//!
//! So their metadata is read every half minute, however many bindings are in them; those bindings are looked at when it
//! has changed, and at no other time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::changes::Wakes;
use super::context::Context;
use super::error::describe;
use super::kept::KeptBinding;

const INTERVAL: Duration = Duration::from_secs(30);

/// The version in which each namespace was last seen; none for one that is not there. Not its labels: those may have
/// been others in between, and a binding been looked at by them.
type Seen = HashMap<String, Option<String>>;
type Reference = ObjectRef<KeptBinding>;

/// Wakes bindings for ever.
pub async fn run(context: Arc<Context>, wakes: Wakes) {
    let mut seen = Seen::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        for binding in changed(&context, &mut seen).await {
            wakes.binding(binding);
        }
    }
}

/// The bindings of namespaces that are seen in another version than before, or for the first time.
async fn changed(context: &Context, seen: &mut Seen) -> Vec<Reference> {
    let guests = guests(context);
    seen.retain(|namespace, _| guests.contains_key(namespace));
    let api: Api<Namespace> = Api::all(context.kube.clone());
    let mut woken = Vec::new();
    for (namespace, bindings) in guests {
        let version = match api.get_metadata_opt(&namespace).await {
            Ok(found) => found.and_then(|found| found.resource_version()),
            // An answer that cannot be read says nothing.
            Err(error) => {
                tracing::warn!(namespace, "its labels cannot be read: {}", describe(&error));
                continue;
            }
        };
        if seen.get(&namespace) != Some(&version) {
            seen.insert(namespace, version);
            woken.extend(bindings);
        }
    }
    woken
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
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

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
            let spec = json!({"applicationRef": of, "environment": "prod"});
            let object = json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec});
            writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
        }
        Arc::get_mut(&mut world.context).unwrap().bindings = store;
        let path = "/api/v1/namespaces/guest";
        let label = |team: &str| json!({"metadata": {"name": "guest", "labels": {"team": team}}});
        world.kube.put(path, label("a"));
        let mut seen = Seen::new();
        let mut look = async || {
            let mut woken: Vec<_> = changed(&world.context, &mut seen)
                .await
                .into_iter()
                .map(|b| b.name)
                .collect();
            woken.sort_unstable();
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
