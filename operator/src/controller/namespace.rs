//! The namespace of an object, as far as it matters here.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};

use super::error::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub name: String,
    /// Part of every owner label: a namespace that was deleted and made again is another one.
    pub uid: String,
    /// In a namespace that goes, nothing can be made any more.
    pub terminating: bool,
}

pub async fn observe(client: &Client, name: &str) -> Result<Observed, Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api
        .get_metadata(name)
        .await
        .map_err(Error::kubernetes("reading the namespace"))?;
    Ok(Observed {
        name: name.to_owned(),
        uid: namespace.uid().ok_or(Error::NotNow("the namespace has no UID yet"))?,
        terminating: namespace.metadata.deletion_timestamp.is_some(),
    })
}
