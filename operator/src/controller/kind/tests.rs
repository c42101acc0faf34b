use super::super::binding::world::{World, object, world};
use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sealpod_crds::SecretBinding;
use serde_json::{Value, json};

use super::super::conditions::STALLED;

#[test]
fn a_deletion_lets_go_after_its_time_and_whatever_the_clocks_say() {
    let minute = Some(PATIENCE);
    for (tries, waited, want) in [
        (1, minute, false),
        (TRIES - 1, Some(PATIENCE * 60), false),
        (TRIES, minute, true),
        (TRIES, Some(PATIENCE / 2), false),
        (TRIES, None, false),
        (MOST_TRIES, None, true),
        (MOST_TRIES, Some(Duration::ZERO), true),
    ] {
        assert_eq!(lets_go(tries, waited), want, "{tries} tries in {waited:?}");
    }
}

#[test]
fn failures_before_a_deletion_are_not_those_of_the_deletion() {
    let mut object = object();
    let before = row(&object);
    object.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    assert_ne!(row(&object), before);
}

const BINDING: &str = "/apis/sealpod.dev/v1alpha1/namespaces/shop/secretbindings/db";

/// A binding in Kubernetes, with its finalizer, and the namespace it is in.
fn install(world: &World) {
    world.kube.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop", "uid": "ns-uid"}}),
    );
    let mut binding = serde_json::to_value(object()).unwrap();
    binding["metadata"]["finalizers"] = json!([FINALIZER]);
    world.kube.put(BINDING, binding);
}

async fn look(world: &World) -> Result<Action, Error> {
    let object = serde_json::from_value(world.kube.get(BINDING).unwrap()).unwrap();
    reconcile::<SecretBinding>(Arc::new(object), Arc::clone(&world.context)).await
}

#[tokio::test]
async fn at_rest_nothing_is_written_whatever_conditions_others_add() {
    let world = world().await;
    install(&world);
    world.answers("GET", "/service-accounts$", 200, json!([])).await;
    look(&world).await.unwrap();
    let writes = world.kube.take_writes();
    assert_eq!(writes[0], format!("PATCH {BINDING}/status"));
    assert!(writes[1].contains("/events"), "{writes:?}");
    look(&world).await.unwrap();
    assert_eq!(world.kube.take_writes(), [""; 0]);
    let mut object = world.kube.get(BINDING).unwrap();
    assert_eq!(object["status"]["conditions"][0]["reason"], "ApplicationNotFound");
    let mut foreign = object["status"]["conditions"][0].clone();
    foreign["type"] = json!("Audited");
    object["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .insert(0, foreign);
    world.kube.put(BINDING, object);
    look(&world).await.unwrap();
    assert_eq!(world.kube.take_writes(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_no_right_and_no_secret() {
    let world = world().await;
    install(&world);
    let application = json!({"metadata": {"name": "shop"}, "spec": {}});
    world.kube.put(
        "/apis/sealpod.dev/v1alpha1/namespaces/shop/applications/shop",
        application,
    );
    world.answers("GET", ".*", 503, Value::Null).await;
    let error = look(&world).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(world.asked().await.iter().all(|call| call.starts_with("GET ")));
    let writes = world.kube.take_writes();
    assert!(
        writes
            .iter()
            .all(|call| call.ends_with("/status") || call.contains("/events")),
        "{writes:?}"
    );
}

fn annotate(world: &World, key: &str, value: Value) {
    let mut object = world.kube.get(BINDING).unwrap();
    object["metadata"]["annotations"][key] = value;
    world.kube.put(BINDING, object);
}

#[tokio::test]
async fn while_paused_nothing_is_changed_and_only_the_condition_says_so() {
    let world = world().await;
    install(&world);
    world.answers("GET", "/service-accounts$", 200, json!([])).await;
    annotate(&world, controls::PAUSED, json!("true"));
    let mut fresh = world.kube.get(BINDING).unwrap();
    fresh["metadata"].as_object_mut().unwrap().remove("finalizers");
    world.kube.put(BINDING, fresh);
    look(&world).await.unwrap();
    // Rights that others have ended would end; nothing else is looked for.
    assert!(world.asked().await.iter().all(|call| call.starts_with("GET ")));
    let writes = world.kube.take_writes();
    assert_eq!(writes[0], format!("PATCH {BINDING}/status"));
    assert!(writes[1..].iter().all(|call| call.contains("/events")), "{writes:?}");
    let object = world.kube.get(BINDING).unwrap();
    let ready = &object["status"]["conditions"][0];
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("Unknown"), &json!("Paused"))
    );
    assert!(ready["message"].as_str().unwrap().contains("take the annotation off"));
    assert_eq!(object["metadata"].get("finalizers"), None, "it is not even protected");
    look(&world).await.unwrap();
    assert_eq!(world.kube.take_writes(), [""; 0]);
    // Any other value is no pause.
    install(&world);
    annotate(&world, controls::PAUSED, json!("false"));
    look(&world).await.unwrap();
    let object = world.kube.get(BINDING).unwrap();
    assert_eq!(object["status"]["conditions"][0]["reason"], "ApplicationNotFound");
}

fn remember(world: &World) {
    world.context.resolutions.has_account("uid", uuid::Uuid::nil());
    world.context.echoes.wrote_secret("uid", Some("1".to_owned()));
}

fn assert_forgotten(world: &World) {
    assert_eq!(world.context.resolutions.account("uid"), None);
    assert!(!world.context.echoes.is_own_secret("uid", Some("1")));
}

#[tokio::test]
async fn a_paused_object_that_is_deleted_is_let_go_at_once_and_nothing_is_cleaned_up() {
    let world = world().await;
    install(&world);
    annotate(&world, controls::PAUSED, json!("true"));
    let mut going = world.kube.get(BINDING).unwrap();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.kube.put(BINDING, going);
    remember(&world);
    look(&world).await.unwrap();
    assert!(world.asked().await.is_empty());
    assert_forgotten(&world);
    let finalizers = &world.kube.get(BINDING).unwrap()["metadata"]["finalizers"];
    assert!(finalizers.as_array().is_none_or(Vec::is_empty), "{finalizers}");
    let event = world.kube.events().pop().unwrap();
    assert_eq!(event["reason"], "ServerNotCleanedUp");
    assert!(event["note"].as_str().unwrap().contains("while paused"), "{event}");
}

#[tokio::test]
async fn a_server_that_is_down_holds_a_deletion_up_for_a_minute_and_no_longer() {
    let world = world().await;
    install(&world);
    world.answers("GET", ".*", 503, Value::Null).await;
    let mut going = world.kube.get(BINDING).unwrap();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.kube.put(BINDING, going);
    let object: Tolerant<SecretBinding> = serde_json::from_value(world.kube.get(BINDING).unwrap()).unwrap();
    for _ in 1..TRIES {
        let error = look(&world).await.unwrap_err();
        after_failure::<SecretBinding>(Arc::new(object.clone().into()), &error, Arc::clone(&world.context));
    }
    remember(&world);
    look(&world).await.unwrap();
    assert_forgotten(&world);
    let finalizers = &world.kube.get(BINDING).unwrap()["metadata"]["finalizers"];
    assert!(finalizers.as_array().is_none_or(Vec::is_empty), "{finalizers}");
    let event = world.kube.events().pop().unwrap();
    assert_eq!(event["reason"], "ServerNotCleanedUp");
    assert!(event["note"].as_str().unwrap().contains("status 503"), "{event}");
}

#[tokio::test]
async fn what_only_an_edit_helps_with_is_stalled_until_it_is_edited() {
    let world = world().await;
    install(&world);
    let conditions = |world: &World| {
        let object = world.kube.get(BINDING).unwrap();
        let all = object["status"]["conditions"].as_array().unwrap().clone();
        let of = |kind: &str| all.iter().find(|c| c["type"] == kind).map(|c| c["status"].clone());
        (of(READY), of(STALLED))
    };
    let refused = |again| {
        let context = Arc::clone(&world.context);
        let object: Tolerant<SecretBinding> = serde_json::from_value(world.kube.get(BINDING).unwrap()).unwrap();
        async move {
            let api = Api::namespaced(context.kube.clone(), "shop");
            let mut wanted = vec![Wanted::not_ready(reasons::INVALID_SPEC, "edit it")];
            report::say_whether_stalled(&object.0, &mut wanted, again == Again::Stuck);
            let status = sealpod_crds::SecretBindingStatus::default();
            report::write_status(&api, &object.0, status, &wanted, &context)
                .await
                .unwrap();
        }
    };
    refused(Again::Waiting).await;
    assert_eq!(conditions(&world), (Some(json!("False")), None));
    refused(Again::Stuck).await;
    assert_eq!(conditions(&world), (Some(json!("False")), Some(json!("True"))));
    refused(Again::Waiting).await;
    assert_eq!(conditions(&world), (Some(json!("False")), Some(json!("False"))));
}
