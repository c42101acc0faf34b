//! What the watches keep of objects. There are thousands of bindings, so that of each the store has what finds it, and
//! the rest packed: it is opened when the binding is looked at.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use sealpod_core::kubernetes::controls;
use sealpod_crds::{BindingApplicationReference, FileFormat, SecretBinding, SecretSelection};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::tolerant::{Tolerant, as_kind};

/// A copy of the spec that `kubectl apply` leaves behind.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// A binding as most are, with a few of each thing that its status says: what they have in common is in none of them. A
/// binding that shares nothing with it is only larger.
const USUAL: &[u8] = include_bytes!("kept/usual.json");

/// What a store has of an object of kind `K`.
pub trait Kept<K>:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Drops what nobody asks for once the watch has passed it on.
    fn slim(&mut self);

    /// The object as it was read, but for what is never an input to a decision.
    fn open(self: &Arc<Self>) -> Arc<Tolerant<K>>;
}

/// All of it.
impl<K> Kept<K> for Tolerant<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    fn slim(&mut self) {
        self.meta_mut().managed_fields = None;
        self.annotations_mut().remove(LAST_APPLIED);
    }

    fn open(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self)
    }
}

/// A SecretBinding.
#[derive(Clone)]
pub struct KeptBinding {
    /// Name, namespace and UID; of one that goes, the finalizers, too; and whether it is paused.
    metadata: ObjectMeta,
    pub application_ref: BindingApplicationReference,
    pub environment: String,
    /// Names and patterns of secrets; none where it reads all.
    pub secrets: Option<Box<[Selected]>>,
    /// Whether configurations count.
    pub configurations: bool,
    /// The whole object.
    packed: Box<[u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    Name(Box<str>),
    Pattern(Box<str>),
}

impl KeptBinding {
    /// The namespace of the Application that it refers to.
    pub fn application_namespace(&self) -> Option<String> {
        self.application_ref.namespace.clone().or_else(|| self.namespace())
    }
}

impl Kept<SecretBinding> for KeptBinding {
    fn slim(&mut self) {
        // The watch goes on from it.
        self.metadata.resource_version = None;
    }

    fn open(self: &Arc<Self>) -> Arc<Tolerant<SecretBinding>> {
        let json = decompress_size_prepended_with_dict(&self.packed, USUAL).expect("it was packed here");
        Arc::new(serde_json::from_slice(&json).expect("it was read before it was packed"))
    }
}

impl From<Tolerant<SecretBinding>> for KeptBinding {
    fn from(Tolerant(mut object): Tolerant<SecretBinding>) -> Self {
        object.annotations_mut().remove(LAST_APPLIED);
        let json = serde_json::to_vec(&object).expect("an object that was read can be written");
        let packed = compress_prepend_size_with_dict(&json, USUAL).into_boxed_slice();
        let SecretBinding { metadata, spec, .. } = object;
        let configurations = spec.configurations.is_some()
            || spec.kubernetes_secret.is_some()
            || spec.files.iter().any(|file| file.format == FileFormat::Template);
        Self {
            metadata: found_by(metadata),
            application_ref: spec.application_ref,
            environment: spec.environment,
            secrets: spec.secrets.map(|all| all.into_iter().flat_map(selected).collect()),
            configurations,
            packed,
        }
    }
}

fn found_by(all: ObjectMeta) -> ObjectMeta {
    let is_going = all.deletion_timestamp.is_some();
    let annotations = all.annotations.unwrap_or_default();
    let paused = annotations.into_iter().filter(|(name, _)| name == controls::PAUSED);
    ObjectMeta {
        name: all.name,
        namespace: all.namespace,
        uid: all.uid,
        resource_version: all.resource_version,
        deletion_timestamp: all.deletion_timestamp,
        finalizers: all.finalizers.filter(|_| is_going),
        annotations: Some(paused.collect()),
        ..ObjectMeta::default()
    }
}

fn selected(entry: SecretSelection) -> impl Iterator<Item = Selected> {
    let name = entry.name.map(|name| Selected::Name(name.into()));
    let pattern = entry.pattern.map(|pattern| Selected::Pattern(pattern.into()));
    name.into_iter().chain(pattern)
}

impl<'de> Deserialize<'de> for KeptBinding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Tolerant::deserialize(deserializer).map(Self::from)
    }
}

impl Debug for KeptBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace().unwrap_or_default(), self.name_any())
    }
}

impl Resource for KeptBinding {
    as_kind!(SecretBinding);

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tolerant::tests::{UNREADABLE_TIMES, list};
    use serde_json::{Value, json};

    /// As the API server gives it, by the sample.
    fn usual() -> Value {
        let mut object: Value = serde_json::from_slice(USUAL).unwrap();
        object["metadata"]["uid"] = json!("7c9ee1f0-52f7-4a0a-8f5d-3f0f6c1d2b10");
        object["metadata"]["name"] = json!("payments-database");
        object["metadata"]["namespace"] = json!("team-payments");
        object["metadata"]["resourceVersion"] = json!("8812345");
        object["metadata"]["annotations"] = json!({LAST_APPLIED: "{}", "team": "payments"});
        object["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
        object["spec"]["secrets"] = json!([{"name": "DATABASE_URL"}, {"pattern": "tls-*", "path": "tls/"}]);
        object["status"]["serviceAccountID"] = json!("f3b1c2d4-0000-4000-8000-000000000001");
        object
    }

    fn kept(object: &Value) -> Arc<KeptBinding> {
        Arc::new(serde_json::from_value(object.clone()).unwrap())
    }

    #[test]
    fn what_is_opened_is_what_was_read() {
        let object = usual();
        let mut read: Tolerant<SecretBinding> = serde_json::from_value(object.clone()).unwrap();
        read.slim();
        assert_eq!(*kept(&object).open(), read);
        for time in UNREADABLE_TIMES {
            let object = &list(time)["items"][0];
            let read: Tolerant<SecretBinding> = serde_json::from_value(object.clone()).unwrap();
            let opened = kept(object).open();
            assert_eq!((&opened.spec, &opened.status), (&read.spec, &read.status), "{time}");
        }
    }

    #[test]
    fn a_usual_binding_takes_a_few_hundred_bytes() {
        let object = usual();
        let (kept, whole) = (kept(&object), object.to_string().len());
        assert!(kept.packed.len() < 400, "{} of {whole}", kept.packed.len());
    }

    #[test]
    fn a_binding_is_found_without_being_opened() {
        let mut object = usual();
        object["spec"]["applicationRef"] = json!({"name": "shop", "namespace": "shop"});
        let mut found = KeptBinding::clone(&kept(&object));
        found.slim();
        assert_eq!(format!("{found:?}"), "team-payments/payments-database");
        assert_eq!(found.uid().as_deref(), object["metadata"]["uid"].as_str());
        assert_eq!((&*found.application_ref.name, &*found.environment), ("shop", "prod"));
        assert_eq!(found.application_namespace().as_deref(), Some("shop"));
        let selected = [Selected::Name("DATABASE_URL".into()), Selected::Pattern("tls-*".into())];
        assert_eq!(found.secrets.as_deref(), Some(&selected[..]));
        assert!(!found.configurations && found.annotations().is_empty() && found.finalizers().is_empty());
        object["metadata"]["annotations"][controls::PAUSED] = json!("true");
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["spec"]["configurations"] = json!({});
        let found = kept(&object);
        assert!(found.configurations && crate::controller::kind::is_paused(found.as_ref()));
        assert!(found.meta().deletion_timestamp.is_some());
        assert_eq!(json!(found.finalizers()), object["metadata"]["finalizers"]);
    }

    /// Where the order of fields differs, little is shared.
    #[test]
    fn the_sample_is_written_as_objects_are() {
        let read: Tolerant<SecretBinding> = serde_json::from_slice(USUAL).unwrap();
        assert_eq!(
            serde_json::to_string(&read).unwrap(),
            String::from_utf8_lossy(USUAL).trim_end()
        );
    }
}
