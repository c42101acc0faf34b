//! Secrets of our own in our own namespace: made once, read by name, changed only by compare-and-swap.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use sealpod_core::kubernetes::{MANAGED_BY, MANAGED_BY_LABEL};
use zeroize::Zeroizing;

use crate::certs::Pair;

/// The type of Secrets with a certificate and its key.
pub const TLS_TYPE: &str = "kubernetes.io/tls";
pub const OPAQUE_TYPE: &str = "Opaque";
pub const CERTIFICATE: &str = "tls.crt";
pub const KEY: &str = "tls.key";
/// The authorities by which `tls.crt` is to be checked.
pub const AUTHORITIES: &str = "ca.crt";

/// A Secret of ours.
pub fn new(name: &str, kind: &str, data: impl IntoIterator<Item = (&'static str, Zeroizing<String>)>) -> Secret {
    let data: BTreeMap<_, _> = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
        .collect();
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// The one that was read, with this in it; what others added to it stays.
pub fn with(read: &Secret, data: impl IntoIterator<Item = (&'static str, Zeroizing<String>)>) -> Secret {
    let mut secret = read.clone();
    let entries = secret.data.get_or_insert_default();
    for (key, value) in data {
        entries.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
    }
    secret
}

/// Whether we made it: what others made is never overwritten.
pub fn is_ours(secret: &Secret) -> bool {
    secret.labels().get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY)
}

/// The text under a key; none where it is absent or no UTF-8.
pub fn text(secret: &Secret, key: &str) -> Option<Zeroizing<String>> {
    std::str::from_utf8(bytes(secret, key)?)
        .ok()
        .map(|text| Zeroizing::new(text.to_owned()))
}

/// What is under a key.
pub fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    Some(&secret.data.as_ref()?.get(key)?.0)
}

/// The certificate and key in it.
pub fn pair(secret: &Secret) -> Option<Pair> {
    Some(Pair {
        certificate: text(secret, CERTIFICATE)?.to_string(),
        key: text(secret, KEY)?,
    })
}

/// Creates it; false where one of that name is there already.
pub async fn create(api: &Api<Secret>, secret: &Secret) -> kube::Result<bool> {
    match api.create(&PostParams::default(), secret).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Replaces it if it is still the one that was read, which its `resourceVersion` tells; false where it is not.
pub async fn replace(api: &Api<Secret>, secret: &Secret) -> kube::Result<bool> {
    match api.replace(&secret.name_any(), &PostParams::default(), secret).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}
