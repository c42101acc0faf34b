//! The namespace of an object, as far as it matters here.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::GetParams;
use kube::core::{PartialObjectMeta, Request};
use kube::{Client, Resource, ResourceExt};

use super::error::Error;
use crate::tolerant::Tolerant;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub name: String,
    /// Part of every owner label: a namespace that was deleted and made again is another one.
    pub uid: String,
    /// In a namespace that goes, nothing can be made any more.
    pub terminating: bool,
}

/// The metadata of a namespace, read now; nothing where there is none. Whoever may patch their own namespace can write
/// what our types do not hold, and must gain nothing by it: rights end only where the namespace is read.
pub async fn read(client: &Client, name: &str) -> kube::Result<Option<Tolerant<PartialObjectMeta<Namespace>>>> {
    let path = Namespace::url_path(&(), None);
    let request = Request::new(path).get_metadata(name, &GetParams::default());
    match client.request(request.map_err(kube::Error::BuildRequest)?).await {
        Ok(namespace) => Ok(Some(namespace)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

pub async fn observe(client: &Client, name: &str) -> Result<Observed, Error> {
    let namespace = read(client, name)
        .await
        .map_err(Error::kubernetes("reading the namespace"))?
        .ok_or(Error::NotNow("the namespace is gone"))?;
    Ok(Observed {
        name: name.to_owned(),
        uid: namespace.uid().ok_or(Error::NotNow("the namespace has no UID yet"))?,
        terminating: namespace.meta().deletion_timestamp.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;
    use crate::tolerant::tests::UNREADABLE_TIMES;
    use serde_json::json;

    #[tokio::test]
    async fn a_namespace_is_read_whatever_its_managers_say() {
        let fake = FakeApi::default();
        for time in UNREADABLE_TIMES {
            let managers = json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "time": time}]);
            let metadata = json!({"name": "shop", "uid": "ns-uid", "labels": {"a": "b"}, "managedFields": managers});
            fake.put("/api/v1/namespaces/shop", json!({"metadata": metadata}));
            let read = read(&fake.client(), "shop").await.unwrap().unwrap();
            assert_eq!(read.labels()["a"], "b", "{time}");
            assert_eq!(observe(&fake.client(), "shop").await.unwrap().uid, "ns-uid", "{time}");
        }
        assert!(read(&fake.client(), "gone").await.unwrap().is_none());
    }
}
