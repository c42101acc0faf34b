use super::super::apply::Granted;
use super::super::evaluate::{Account, Key};
use super::super::layout::Layout;
use super::super::resolve::{Known, Resolution, resolve};
use super::super::selection::Selection;
use super::super::world::{ACCOUNT, World, object, world};
use super::super::{Delivery, Plan};
use super::*;
use sealpod_core::kubernetes::{COPY_BINDING, COPY_DELETION_POLICY, COPY_STATE};
use sealpod_core::{SecretText, Time};
use serde_json::{Value, json};

mod counted;
mod former;
mod others;

const COPY: &str = "/api/v1/namespaces/shop/secrets/copy";
const BUNDLE: &str = "/bundle$";

fn binding(native: &Value) -> SecretBinding {
    let mut object = object();
    object.spec.kubernetes_secret = Some(serde_json::from_value(native.clone()).unwrap());
    object
}

/// The server as it is from now on: names, values and versions, and its mark for them.
async fn has(world: &World, etag: &str, secrets: &[(&str, &str, u64)]) {
    world.server.reset().await;
    let secrets: serde_json::Map<_, _> = secrets
        .iter()
        .map(|(name, value, version)| ((*name).to_owned(), json!({"value": value, "version": version})))
        .collect();
    let bundle = json!({"etag": etag, "next_change_at": null, "secrets": secrets});
    world.answers("GET", BUNDLE, 200, bundle).await;
}

/// One look at the binding, from the question for versions on.
async fn look(world: &World, object: &SecretBinding) -> Result<Option<Outcome>, Error> {
    let selection = Selection::parse(&object.spec).unwrap();
    let plan = Plan {
        layout: Layout::default(),
        configurations: object.spec.configurations.as_ref().is_some_and(|c| c.enabled),
        project: "shop".to_owned(),
        grant: vec![],
        account: Account::Keep(ACCOUNT.parse().unwrap()),
        revoke: vec![],
        key: Key::Keep,
        overlap: 3_600,
        rotate_every: std::time::Duration::from_hours(24),
        binding: "{}".to_owned(),
        selection,
    };
    let granted = Granted {
        account: ACCOUNT.parse().unwrap(),
        key: SecretText::new("cr_sa_own"),
        rotated_at: Time::from_microseconds(0).unwrap(),
    };
    let request = super::request(object, &plan);
    let resolution = resolve(object, &granted.key, granted.account, "shop", request, &world.context).await?;
    let none = Known::default();
    let known = match &resolution {
        Resolution::Known(known) => known,
        _ => &none,
    };
    let delivery = Delivery {
        object,
        plan: &plan,
        granted: &granted,
        known,
    };
    sync(delivery, &world.context).await
}

/// Its condition: status and reason.
async fn condition(world: &World, object: &SecretBinding) -> (Status, &'static str) {
    let outcome = look(world, object).await.unwrap().unwrap();
    (outcome.condition.status, outcome.condition.reason)
}

/// How often values were read; names and versions are asked for beside.
async fn reads(world: &World) -> usize {
    let requests = world.server.received_requests().await.unwrap();
    let of_values = requests
        .iter()
        .filter(|r| !r.url.query().unwrap_or_default().contains("values=false"));
    let own_key = |r: &wiremock::Request| r.headers.get("x-api-key").is_some_and(|key| key == "cr_sa_own");
    assert!(requests.iter().all(own_key), "only the binding's own key reads");
    of_values.count()
}

fn text(world: &World, key: &str) -> Option<String> {
    world.kube.secret_text(COPY, key)
}

#[tokio::test]
async fn a_secret_is_made_once_and_then_neither_read_nor_written_at_rest() {
    let world = world().await;
    has(&world, "e1", &[("password", "hunter2", 1)]).await;
    let object = binding(&json!({"name": "copy", "labels": {"team": "a"}, "annotations": {"x/y": "z"}}));
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    let secret = world.kube.get(COPY).unwrap();
    assert_eq!(
        (text(&world, "password").as_deref(), &secret["type"]),
        (Some("hunter2"), &json!("Opaque"))
    );
    let labels = &secret["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels[COPY_OF_LABEL]), (&json!("a"), &json!("uid")));
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!(
        (&annotations["x/y"], &annotations[COPY_BINDING]),
        (&json!("z"), &json!("db"))
    );
    assert!(!annotations.to_string().contains("hunter2"));
    assert!(
        secret["metadata"]["ownerReferences"].is_null(),
        "it goes by deletionPolicy alone"
    );
    assert_eq!((world.kube.take_writes().len(), reads(&world).await), (1, 1));
    for _ in 0..3 {
        assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    }
    // A new leader, or this process started again, knows nothing but what the Secret says.
    world.context.copies.compared.forget("uid");
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    assert_eq!((world.kube.take_writes().len(), reads(&world).await), (0, 1));
}

#[tokio::test]
async fn a_change_on_the_server_is_written_and_counted_by_entry() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1), ("b", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    look(&world, &object).await.unwrap();
    has(&world, "e2", &[("a", "2", 2), ("b", "1", 1), ("c", "1", 1)]).await;
    let outcome = look(&world, &object).await.unwrap().unwrap();
    assert_eq!(
        (text(&world, "a"), text(&world, "c")),
        (Some("2".to_owned()), Some("1".to_owned()))
    );
    let revisions: Vec<_> = outcome.copy.unwrap().revisions.into_iter().collect();
    assert_eq!(
        revisions,
        [("a", 2), ("b", 1), ("c", 1)].map(|(key, n)| (key.to_owned(), n))
    );
    // The same number of a version, and another value: the secret was deleted and made again.
    has(&world, "e3", &[("a", "3", 2)]).await;
    let outcome = look(&world, &object).await.unwrap().unwrap();
    assert_eq!((text(&world, "a"), text(&world, "b")), (Some("3".to_owned()), None));
    assert_eq!(outcome.copy.unwrap().revisions["a"], 3);
}

#[tokio::test]
async fn what_somebody_edits_or_deletes_is_put_back_and_is_no_change() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    look(&world, &object).await.unwrap();
    world.kube.edit_secret(COPY, "a", "edited");
    world.kube.edit_secret(COPY, "foreign", "x");
    let outcome = look(&world, &object).await.unwrap().unwrap();
    assert_eq!(
        (text(&world, "a").as_deref(), text(&world, "foreign")),
        (Some("1"), None)
    );
    assert_eq!(outcome.copy.unwrap().revisions["a"], 1);
    world.kube.remove(COPY);
    let outcome = look(&world, &object).await.unwrap().unwrap();
    assert_eq!(text(&world, "a").as_deref(), Some("1"));
    assert_eq!(outcome.copy.unwrap().revisions["a"], 1);
    world.kube.take_writes();
    look(&world, &object).await.unwrap();
    assert_eq!(world.kube.take_writes(), [""; 0]);
}

#[tokio::test]
async fn labels_of_others_stay_and_those_that_the_spec_no_longer_has_go() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy", "labels": {"old": "1"}})))
        .await
        .unwrap();
    let mut secret = world.kube.get(COPY).unwrap();
    secret["metadata"]["labels"]["foreign"] = json!("1");
    world.kube.put(COPY, secret);
    look(&world, &binding(&json!({"name": "copy", "labels": {"new": "1"}})))
        .await
        .unwrap();
    let labels = world.kube.get(COPY).unwrap()["metadata"]["labels"].clone();
    let has = |label: &str| labels.get(label).is_some();
    assert!(
        has("foreign") && has("new") && has(COPY_OF_LABEL) && !has("old"),
        "{labels}"
    );
}

#[tokio::test]
async fn a_record_of_writers_that_was_taken_out_costs_one_read_and_no_more() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    look(&world, &object).await.unwrap();
    let mut secret = world.kube.get(COPY).unwrap();
    secret["metadata"]["managedFields"] = json!(null);
    world.kube.put(COPY, secret);
    world.kube.take_writes();
    for _ in 0..3 {
        assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    }
    assert_eq!((world.kube.take_writes().len(), reads(&world).await), (0, 2));
}

#[tokio::test]
async fn configurations_are_asked_for_where_a_template_may_take_them() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let asked = async |native: Value, enabled: bool| {
        let mut object = binding(&native);
        object.spec.configurations = Some(serde_json::from_value(json!({"enabled": enabled})).unwrap());
        world.kube.remove(COPY);
        world.server.reset().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        look(&world, &object).await.unwrap();
        let requests = world.server.received_requests().await.unwrap();
        requests
            .iter()
            .all(|r| r.url.query().unwrap_or_default().contains("configurations=true"))
    };
    let template = json!({"name": "copy", "data": [{"key": "k", "template": "x"}]});
    assert!(asked(template.clone(), true).await);
    assert!(!asked(template, false).await);
    assert!(!asked(json!({"name": "copy"}), true).await);
}
