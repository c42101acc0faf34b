//! Reading from Kubernetes by what a user has written: names become part of a URL as they are, and calls have an end.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use kube::client::Body;
use kube::{Api, Client};
use sealpod_core::names::check_dns_name;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tower::BoxError;

/// How long one call of a reconciliation may take, with all of its answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Calls that are under way at a time. The client keeps a connection for each, with its buffers, for a minute and more:
/// as many as reconciliations ask at once were a third of the memory, and brought nothing about sooner.
const CALLS: usize = 8;

/// Whether Kubernetes may be asked for it: in a URL, `?watch=true` would be another question, and a space an error for
/// ever.
pub fn is_name(name: &str) -> bool {
    check_dns_name(name).is_ok()
}

/// The object of this name. What cannot be a name is nobody's, and Kubernetes is not asked.
pub async fn find<K>(api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if is_name(name) {
        api.get_opt(name).await
    } else {
        Ok(None)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs_f32())]
struct NoAnswer(Duration);

/// A client none of whose calls takes longer than `limit`, the answer included, and of whose calls only a few are under
/// way at a time: not for watches. Without it, a call that never ends would keep one of the few workers of a queue for
/// ever. A call's time begins when it is its turn.
pub fn within(limit: Duration, kube: Client) -> Client {
    let turns = Arc::new(Semaphore::new(CALLS));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (kube, turns) = (kube.clone(), Arc::clone(&turns));
        async move {
            let _turn = turns.acquire_owned().await?;
            let whole = async {
                let (parts, body) = kube.send(request).await?.into_parts();
                let bytes = body.collect_bytes().await?;
                Ok::<_, BoxError>(Response::from_parts(parts, Body::from(bytes)))
            };
            match tokio::time::timeout(limit, whole).await {
                Ok(answer) => answer,
                Err(_) => Err(NoAnswer(limit).into()),
            }
        }
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::error::{Class, Error};
    use crate::fake::FakeApi;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    #[tokio::test]
    async fn what_cannot_be_a_name_is_never_asked_for() {
        let fake = FakeApi::default();
        let map = json!({"metadata": {"name": "a.b-1", "namespace": "n"}});
        fake.put("/api/v1/namespaces/n/configmaps/a.b-1", map);
        let api: Api<ConfigMap> = Api::namespaced(fake.client(), "n");
        assert!(find(&api, "a.b-1").await.unwrap().is_some());
        assert!(find(&api, "gone").await.unwrap().is_none());
        fake.take_calls();
        for name in [
            "",
            "a b",
            "?watch=true",
            "a/b",
            "..",
            "a%20b",
            "A",
            "-a",
            &"a".repeat(254),
        ] {
            assert!(find(&api, name).await.unwrap().is_none(), "{name:?}");
        }
        assert_eq!(fake.take_calls(), [""; 0]);
    }

    #[tokio::test]
    async fn an_answer_that_never_ends_is_given_up_and_tried_again() {
        // The head comes at once, and one half of the body.
        let endless = tower::service_fn(async |_: Request<Body>| {
            let (mut sender, body) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, BoxError>>();
            sender.start_send(Ok(b"{".to_vec())).unwrap();
            std::mem::forget(sender);
            let body = axum::body::Body::from_stream(body);
            Ok::<_, BoxError>(Response::new(body))
        });
        let client = within(Duration::from_millis(20), Client::new(endless, "default"));
        let api: Api<ConfigMap> = Api::namespaced(client, "n");
        let error = Error::kubernetes("reading")(find(&api, "a").await.unwrap_err());
        assert_eq!(error.class(), Class::Transient);
        assert!(error.to_string().contains("no answer within 0.02 s"), "{error}");
    }

    #[tokio::test]
    async fn what_is_answered_in_time_is_answered_as_it_was() {
        let fake = FakeApi::default();
        let map = json!({"metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}});
        fake.put("/api/v1/namespaces/n/configmaps/a", map);
        let api: Api<ConfigMap> = Api::namespaced(within(PATIENCE, fake.client()), "n");
        let found = api.get("a").await.unwrap();
        assert_eq!(found.data.unwrap()["k"], "v");
        assert!(api.get_opt("gone").await.unwrap().is_none());
    }
}
