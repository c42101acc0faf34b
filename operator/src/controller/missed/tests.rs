use std::sync::Arc;

use sealpod_core::kubernetes::SIDECAR_CONTAINER;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::binding::world::{World, listed, object, world};
use super::super::context::Context;
use super::super::kept::KeptBinding;
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
    let labels = json!({"sealpod.dev/inject": "true"});
    serde_json::from_value(
        json!({"name": "app-1", "namespace": "shop", "uid": "u", "annotations": annotations, "labels": labels}),
    )
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

/// Puts a pod of a controller that runs without injection.
fn put_missed(world: &World, name: &str, controller: &str) {
    let mut pod = pod(&json!([{"name": "app"}]));
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["uid"] = json!(name);
    pod["metadata"]["ownerReferences"][0]["uid"] = json!(controller);
    let metadata: ObjectMeta = serde_json::from_value(pod["metadata"].clone()).unwrap();
    world.kube.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod);
    world.context.missed.saw(&metadata, &Options::default());
}

/// Which evictions a look asks for, by name, of pods in one order.
async fn evictions(world: &World, memory: &mut Memory) -> Vec<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        evict: true,
        injector: listener.local_addr().unwrap().to_string(),
        excluded: vec![],
    };
    world.kube.take_calls();
    look(true, &world.context, &options, memory).await;
    let writes = world.kube.take_writes();
    let names = writes.iter().filter_map(|write| {
        let rest = write.strip_prefix("POST /api/v1/namespaces/shop/pods/")?;
        rest.strip_suffix("/eviction")
    });
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn what_a_budget_keeps_leaves_the_pods_of_others_their_turn() {
    let world = world().await;
    let keep = |name: &str| {
        let call = format!("POST /api/v1/namespaces/shop/pods/{name}/eviction");
        world.kube.refuse(&call, 429, "TooManyRequests");
    };
    for (name, controller) in [("a", "kept"), ("b", "kept"), ("c", "free"), ("d", "last")] {
        put_missed(&world, name, controller);
    }
    keep("a");
    keep("b");
    let mut memory = Memory::default();
    assert_eq!(evictions(&world, &mut memory).await, ["a", "c"], "and one at a time");
    // Also where there are more of them than one look asks for.
    for number in 0..15 {
        let name = format!("c{number:02}");
        put_missed(&world, &name, &name);
        keep(&name);
    }
    let mut memory = Memory::default();
    let kept: Vec<_> = (0..9).map(|number| format!("c{number:02}")).collect();
    assert_eq!(
        evictions(&world, &mut memory).await,
        [&["a".to_owned()], &kept[..]].concat()
    );
    let asked = evictions(&world, &mut memory).await;
    assert_eq!(asked.last().map(String::as_str), Some("d"), "{asked:?}");
}

#[tokio::test]
async fn the_next_pod_of_a_controller_is_evicted_once_one_was_injected_and_is_ready() {
    const NEXT: &str = "/api/v1/namespaces/shop/pods/next";
    let world = world().await;
    for name in ["a", "b"] {
        put_missed(&world, name, "rs");
    }
    let evicts = async || evictions(&world, &mut Memory::default()).await;
    assert_eq!(evicts().await, ["a"]);
    world.kube.remove("/api/v1/namespaces/shop/pods/a");
    assert_eq!(evicts().await, [""; 0], "there is none that is better");
    let mut next = pod(&json!([{"name": "app"}, {"name": SIDECAR_CONTAINER}]));
    next["metadata"]["name"] = json!("next");
    next["metadata"]["uid"] = json!("next");
    next["metadata"]["annotations"] = json!({"sealpod.dev/injected": "db"});
    next["metadata"]["creationTimestamp"] = json!((Timestamp::now() + SignedDuration::from_secs(1)).to_string());
    next["status"] = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]});
    world.kube.put(NEXT, next.clone());
    let metadata: ObjectMeta = serde_json::from_value(next["metadata"].clone()).unwrap();
    world.context.missed.saw(&metadata, &Options::default());
    for _ in 0..3 {
        assert_eq!(evicts().await, [""; 0], "it waits for its files");
    }
    next["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let mut another = next.clone();
    another["metadata"]["uid"] = json!("another");
    world.kube.put(NEXT, another);
    assert_eq!(
        evicts().await,
        [""; 0],
        "one of its name is not the one that was heard of"
    );
    world.context.missed.saw(&metadata, &Options::default());
    world.kube.put(NEXT, next);
    assert_eq!(evicts().await, ["b"]);
    assert_eq!(evicts().await, [""; 0], "it stands for one");
}

/// A cluster with a pod that named no binding, made so long ago, and with bindings `db`, which it was injected with, and
/// `mail`, with these fields of its spec.
async fn with_a_pod_of_one_binding(age: SignedDuration, mail: &Value) -> World {
    let mut world = world().await;
    let mut bindings: Vec<KeptBinding> = Vec::new();
    for (name, fields) in [("db", &json!({})), ("mail", mail)] {
        let mut binding = serde_json::to_value(object()).unwrap();
        binding["metadata"]["name"] = json!(name);
        for (field, value) in fields.as_object().unwrap() {
            binding["spec"][field] = value.clone();
        }
        bindings.push(serde_json::from_value(binding).unwrap());
    }
    let context: &mut Context = Arc::get_mut(&mut world.context).unwrap();
    context.bindings = listed(&bindings).0;
    let mut pod = pod(&json!([{"name": "app"}, {"name": "sealpod"}]));
    pod["metadata"]["labels"]["app"] = json!("web");
    pod["metadata"]["annotations"] = json!({"sealpod.dev/injected": "db"});
    pod["metadata"]["creationTimestamp"] = json!((Timestamp::now() - age).to_string());
    world.kube.put(POD, pod);
    world
}

/// What the watch brings of the pod, and a look that would evict it.
async fn seen(world: &World, edit: impl FnOnce(&mut Value)) {
    let mut pod = world.kube.get(POD).unwrap();
    edit(&mut pod);
    world.kube.put(POD, pod.clone());
    let metadata: ObjectMeta = serde_json::from_value(pod["metadata"].clone()).unwrap();
    world.context.missed.saw(&metadata, &Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        evict: true,
        injector: listener.local_addr().unwrap().to_string(),
        ..Options::default()
    };
    look(true, &world.context, &options, &mut Memory::default()).await;
}

#[tokio::test]
async fn a_pod_that_was_made_a_moment_before_its_second_binding_was_known_is_told() {
    let just_now = SignedDuration::from_secs(5);
    let world = with_a_pod_of_one_binding(just_now, &json!({"podSelector": {"matchLabels": {"app": "web"}}})).await;
    for _ in 0..3 {
        seen(&world, |_| {}).await;
    }
    assert_eq!(
        (events(&world), world.context.metrics.missed.get()),
        (vec![json!("InjectionMissed")], 1)
    );
    let event = &world.kube.events()[0];
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("without SecretBinding mail,") && note.contains("sealpod.dev/binding"),
        "{note}"
    );
    // It is still told of when it is no longer new, and no longer when it is gone.
    seen(&world, |pod| {
        pod["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    })
    .await;
    assert_eq!(world.context.metrics.missed.get(), 1);
    assert!(
        !world
            .kube
            .take_writes()
            .iter()
            .any(|write| write.ends_with("/eviction")),
        "it serves"
    );
    world.kube.remove(POD);
    look(true, &world.context, &Options::default(), &mut Memory::default()).await;
    assert_eq!(world.context.metrics.missed.get(), 0);
}

#[tokio::test]
async fn a_pod_that_has_what_is_for_it_or_was_there_before_is_told_nothing() {
    type Edit = fn(&mut Value);
    let just_now = SignedDuration::from_secs(5);
    let nothing: Edit = |_| {};
    let cases: [(&str, SignedDuration, Value, Edit); 6] = [
        (
            "not selected",
            just_now,
            json!({"podSelector": {"matchLabels": {"app": "other"}}}),
            nothing,
        ),
        (
            "another account",
            just_now,
            json!({"serviceAccountNames": ["other"]}),
            nothing,
        ),
        ("there before", SignedDuration::from_hours(1), json!({}), nothing),
        ("named", just_now, json!({}), |pod| {
            pod["metadata"]["annotations"]["sealpod.dev/binding"] = json!("db");
        }),
        ("both", just_now, json!({}), |pod| {
            pod["metadata"]["annotations"]["sealpod.dev/injected"] = json!("db,mail");
        }),
        ("over", just_now, json!({}), |pod| {
            pod["status"] = json!({"phase": "Succeeded"});
        }),
    ];
    for (what, age, mail, edit) in cases {
        let world = with_a_pod_of_one_binding(age, &mail).await;
        seen(&world, edit).await;
        assert_eq!(
            (events(&world), world.context.missed.to_look_at(true).len()),
            (vec![], 0),
            "{what}"
        );
    }
}

#[tokio::test]
async fn a_label_that_says_yes_in_another_word_is_told_and_one_that_says_no_is_not() {
    let (app, ours) = (
        json!([{"name": "app"}]),
        json!([{"name": "app"}, {"name": SIDECAR_CONTAINER}]),
    );
    for (value, containers, told) in [
        ("True", &app, true),
        ("yes", &app, true),
        ("1", &app, true),
        ("false", &app, false),
        ("Off", &app, false),
        ("disable", &app, false),
        ("", &app, false),
        // Its label was changed after it had been injected.
        ("paused", &ours, false),
    ] {
        let world = world().await;
        let mut pod = pod(containers);
        pod["metadata"]["labels"] = json!({"sealpod.dev/inject": value});
        world.kube.put(POD, pod);
        for _ in 0..2 {
            seen(&world, |_| {}).await;
        }
        let notes: Vec<_> = world.kube.events().iter().map(|event| event["note"].clone()).collect();
        let want = json!(format!(
            "label sealpod.dev/inject is \"{value}\" and not \"true\", so this pod runs without injection"
        ));
        assert_eq!(notes, vec![want; usize::from(told)], "{value}");
        assert_eq!(world.context.metrics.missed.get(), i64::from(told));
        let evicted = world
            .kube
            .take_writes()
            .iter()
            .any(|write| write.ends_with("/eviction"));
        assert!(!evicted, "the next would be no better");
        // Somebody corrects the label: then it is one that was missed, or nothing is wrong.
        seen(&world, |pod| {
            pod["metadata"]["labels"] = json!({"sealpod.dev/inject": "false"});
        })
        .await;
        assert_eq!(world.context.metrics.missed.get(), 0);
    }
}
