//! Objects of the API server, read down to what a decision needs of them.
//!
//! Nothing else is kept, so that the cache stays small, and nothing else is parsed, so that no object which a user wrote
//! into a corner that we do not read (a time of the year 9999, say) can stop the reading of the others.

use std::borrow::Cow;
use std::marker::PhantomData;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// An object of kind `K`: where it is, and `spec` and `status` as far as `S` and `T` read them.
pub struct Slim<K, S, T = IgnoredAny> {
    /// Name, namespace and resource version only.
    pub metadata: ObjectMeta,
    /// Whether its deletion has begun.
    pub deleted: bool,
    pub spec: S,
    pub status: Option<T>,
    kind: PhantomData<fn() -> K>,
}

impl<K, S, T> Slim<K, S, T> {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Raw<S, T> {
    metadata: Metadata,
    #[serde(default)]
    spec: S,
    status: Option<T>,
}

impl<'de, K, S: Deserialize<'de> + Default, T: Deserialize<'de>> Deserialize<'de> for Slim<K, S, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Raw { metadata, spec, status } = Raw::deserialize(deserializer)?;
        Ok(Self {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
            deleted: metadata.deletion_timestamp.is_some(),
            spec,
            status,
            kind: PhantomData,
        })
    }
}

impl<K, S: Clone, T: Clone> Clone for Slim<K, S, T> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            deleted: self.deleted,
            spec: self.spec.clone(),
            status: self.status.clone(),
            kind: PhantomData,
        }
    }
}

impl<K, S, T> std::fmt::Debug for Slim<K, S, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.name())
    }
}

impl<K: Resource, S, T> Resource for Slim<K, S, T> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
