//! Secrets that belong to an object, which alone writes them.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use sealpod_core::kubernetes::{MANAGED_BY, MANAGED_BY_LABEL};

/// What stands where such a Secret belongs.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Owned<C> {
    #[default]
    Absent,
    /// A Secret of that name that the object does not own. It is never touched.
    NotOurs,
    Ours(C),
}

impl<C> Owned<C> {
    /// `contents` reads what is the object's own.
    pub fn observe<K: Resource>(secret: Option<Secret>, object: &K, contents: impl FnOnce(&Secret) -> C) -> Self {
        let Some(secret) = secret else { return Self::Absent };
        let uid = object.uid();
        let ours = |owner: &OwnerReference| owner.controller == Some(true) && Some(&owner.uid) == uid.as_ref();
        if uid.is_some() && secret.owner_references().iter().any(ours) {
            Self::Ours(contents(&secret))
        } else {
            Self::NotOurs
        }
    }

    pub fn ours(&self) -> Option<&C> {
        match self {
            Self::Ours(contents) => Some(contents),
            Self::Absent | Self::NotOurs => None,
        }
    }
}

/// Text under a key of a Secret; nothing for what is none.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?.0.clone();
    String::from_utf8(bytes).ok()
}

/// Whether the labels are there by which the controller finds it; `label` holds the UID of its owner.
pub fn is_labelled<K: Resource>(secret: &Secret, label: &str, object: &K) -> bool {
    let labels = secret.labels();
    labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY) && labels.get(label) == object.uid().as_ref()
}
