//! What the controller does, as anybody can see it.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use sealpod_crds::SecretBinding;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::objects::{COPY_KEY, SECRET};

#[derive(Debug)]
pub enum Seen {
    /// The binding of this name is ready as its spec is now.
    Ready(String),
    /// The copy of the value that changes.
    Copy(Vec<u8>),
    /// Anything else that was written.
    Other,
}

pub struct Watch(UnboundedReceiver<(Seen, Instant)>);

impl Watch {
    pub fn start(kube: &Client, namespace: &str) -> Self {
        let (say, heard) = unbounded_channel();
        let bindings = Api::<SecretBinding>::namespaced(kube.clone(), namespace);
        let secrets = Api::<Secret>::namespaced(kube.clone(), namespace);
        // Those of other people are large, and none of the matter.
        let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=sealpod");
        tokio::spawn(follow(bindings, watcher::Config::default(), say.clone(), binding));
        tokio::spawn(follow(secrets, ours, say, secret));
        Self(heard)
    }

    pub async fn next(&mut self) -> Result<(Seen, Instant)> {
        self.0.recv().await.context("the watches have ended")
    }
}

async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    say: UnboundedSender<(Seen, Instant)>,
    what: impl Fn(&K) -> Seen,
) where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config));
    while let Some(event) = events.next().await {
        let seen = match &event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => what(object),
            Ok(Event::Delete(_)) => Seen::Other,
            Ok(Event::Init | Event::InitDone) => continue,
            Err(error) => {
                eprintln!("a watch was interrupted: {error}");
                continue;
            }
        };
        if say.send((seen, Instant::now())).is_err() {
            return;
        }
    }
}

fn binding(object: &SecretBinding) -> Seen {
    let conditions = object.status.as_ref().map(|status| &status.conditions[..]);
    let ready = conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "Ready"
            && condition.status == "True"
            && condition.observed_generation == object.metadata.generation
    });
    if ready {
        Seen::Ready(object.name_any())
    } else {
        Seen::Other
    }
}

fn secret(object: &Secret) -> Seen {
    let copy = object.data.as_ref().and_then(|data| data.get(COPY_KEY));
    match copy {
        Some(value) if object.name_any() == SECRET => Seen::Copy(value.0.clone()),
        _ => Seen::Other,
    }
}
