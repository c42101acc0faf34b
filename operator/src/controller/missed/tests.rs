use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::binding::world::{World, world};
use super::run::{Memory, look};
use super::*;

const POD: &str = "/api/v1/namespaces/shop/pods/app-1";

fn pod(containers: &Value) -> Value {
    json!({
        "metadata": {
            "name": "app-1", "namespace": "shop", "uid": "u", "labels": {"sealpod.dev/inject": "true"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "app", "uid": "rs", "controller": true}],
        },
        "spec": {"containers": containers},
    })
}

/// What a watch of metadata sees of it.
fn metadata(annotations: &Value) -> ObjectMeta {
    serde_json::from_value(json!({"name": "app-1", "namespace": "shop", "uid": "u", "annotations": annotations}))
        .unwrap()
}

async fn with_a_missed_pod() -> World {
    let world = world().await;
    world.kube.put(POD, pod(&json!([{"name": "app"}])));
    world.context.missed.saw(&metadata(&json!({})), &Options::default());
    world
}

fn events(world: &World) -> Vec<Value> {
    let events = world.kube.events();
    events.iter().map(|event| event["reason"].clone()).collect()
}

#[tokio::test]
async fn a_missed_pod_is_counted_and_told_once_and_forgotten_when_it_is_gone() {
    let world = with_a_missed_pod().await;
    let (options, mut memory) = (Options::default(), Memory::default());
    for _ in 0..3 {
        look(true, &world.context, &options, &mut memory).await;
    }
    assert_eq!(
        (events(&world), world.context.metrics.missed.get()),
        (vec![json!("InjectionMissed")], 1)
    );
    assert_eq!(world.kube.events()[0]["regarding"]["name"], "app-1");
    world.kube.remove(POD);
    look(true, &world.context, &options, &mut memory).await;
    assert_eq!(world.context.metrics.missed.get(), 0);
}

#[tokio::test]
async fn injected_pods_and_those_of_excluded_namespaces_are_never_looked_at() {
    let world = world().await;
    let saw = |annotations: &Value, excluded: &[&str]| {
        let options = Options {
            excluded: excluded.iter().map(|namespace| (*namespace).to_owned()).collect(),
            ..Options::default()
        };
        world.context.missed.saw(&metadata(annotations), &options);
        world.context.missed.to_look_at(true).len()
    };
    assert_eq!(saw(&json!({"sealpod.dev/injected": "db"}), &[]), 0);
    assert_eq!(saw(&json!({}), &["shop"]), 0);
    assert_eq!(saw(&json!({}), &["other"]), 1);
}

#[tokio::test]
async fn a_pod_with_our_containers_is_fine_whatever_became_of_its_annotation() {
    let world = with_a_missed_pod().await;
    world.kube.put(POD, pod(&json!([{"name": "app"}, {"name": "sealpod"}])));
    look(true, &world.context, &Options::default(), &mut Memory::default()).await;
    assert_eq!(
        (events(&world), world.context.missed.to_look_at(true).len()),
        (vec![], 0)
    );
}

#[tokio::test]
async fn eviction_is_asked_for_only_while_the_webhook_answers_and_not_all_at_once() {
    let world = with_a_missed_pod().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = Options {
        evict: true,
        injector: listener.local_addr().unwrap().to_string(),
        excluded: vec![],
    };
    let evictions = |world: &World| {
        let writes = world.kube.take_writes();
        writes
            .iter()
            .filter(|write| **write == format!("POST {POD}/eviction"))
            .count()
    };
    look(true, &world.context, &Options::default(), &mut Memory::default()).await;
    assert_eq!(evictions(&world), 0, "off by default");
    let mut memory = Memory::default();
    look(true, &world.context, &options, &mut memory).await;
    look(true, &world.context, &options, &mut memory).await;
    assert_eq!(evictions(&world), 1, "the next one has to wait");
    drop(listener);
    options.injector = "127.0.0.1:1".to_owned();
    look(true, &world.context, &options, &mut Memory::default()).await;
    assert_eq!(evictions(&world), 0, "without the webhook nothing takes its place");
}

#[tokio::test]
async fn the_next_pod_of_a_controller_is_evicted_again_once_one_was_injected() {
    let world = with_a_missed_pod().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        evict: true,
        injector: listener.local_addr().unwrap().to_string(),
        excluded: vec![],
    };
    let evicts = async || {
        world.kube.take_calls();
        look(true, &world.context, &options, &mut Memory::default()).await;
        world.kube.take_writes().contains(&format!("POST {POD}/eviction"))
    };
    assert!(evicts().await);
    let now = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(1);
    let mut next = pod(&json!([{"name": "app"}]));
    next["metadata"]["creationTimestamp"] = json!(now.to_string());
    world.kube.put(POD, next.clone());
    assert!(!evicts().await, "the next is no better");
    let mut sibling: ObjectMeta = serde_json::from_value(next["metadata"].clone()).unwrap();
    sibling.uid = Some("sibling".to_owned());
    sibling.annotations = Some([("sealpod.dev/injected".to_owned(), "db".to_owned())].into());
    world.context.missed.saw(&sibling, &options);
    assert!(evicts().await);
}
