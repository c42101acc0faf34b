//! Objects of the API server, read down to what a decision needs of them.
//!
//! Nothing else is kept, so that the cache stays small, and nothing else is parsed, so that no object which a user wrote
//! into a corner that we do not read (a time of the year 9999, say) can stop the reading of the others. Nor can what we do
//! read: a list or a watch that meets one object it cannot read fails as a whole, for every namespace and for ever.

use std::marker::PhantomData;

use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::tolerant::as_kind;

/// An object of kind `K`: where it is, and `spec` and `status` as far as `S` and `T` read them.
pub struct Slim<K, S, T = IgnoredAny> {
    /// Name, namespace and resource version only.
    pub metadata: ObjectMeta,
    /// Whether its deletion has begun.
    pub deleted: bool,
    /// Or what is wrong with it.
    pub spec: Result<S, String>,
    /// None also where it cannot be read.
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

/// As text first, so that what does not fit is left behind and not the rest of the list. Not as values: of a small map,
/// such as a selector has by the ten thousand if its author wants, they take a hundred times what its text does.
#[derive(Deserialize)]
struct Raw {
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

/// What of it `T` reads, or its default where there is nothing.
fn read<T: DeserializeOwned + Default>(raw: Option<Box<RawValue>>) -> Result<T, serde_json::Error> {
    raw.map_or_else(|| Ok(T::default()), |raw| serde_json::from_str(raw.get()))
}

/// `null` is what a program in Go writes for an empty list or map, and as good as nothing.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl<'de, K, S: DeserializeOwned + Default, T: DeserializeOwned> Deserialize<'de> for Slim<K, S, T> {
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
            spec: read(spec).map_err(|error| error.to_string()),
            status: read(status).unwrap_or_default(),
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
    as_kind!(K);

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
