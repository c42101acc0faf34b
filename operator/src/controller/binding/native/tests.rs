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
async fn a_secret_of_somebody_else_is_never_written() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "deletionPolicy": "Delete"}));
    for labels in [json!({}), json!({COPY_OF_LABEL: "uid-of-an-earlier-binding"})] {
        let foreign = json!({"kind": "Secret", "metadata": {"name": "copy", "uid": "x", "labels": labels}, "data": {"a": "eA=="}});
        world.kube.put(COPY, foreign);
        let outcome = look(&world, &object).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::SECRET_NOT_OWNED);
        let message = outcome.condition.message;
        assert!(
            message.contains("label --overwrite secret copy sealpod.dev/copy-of=uid"),
            "{message}"
        );
        assert!(outcome.copy.is_none(), "no workload follows it");
        clean_up(&object, &world.context).await.unwrap();
        assert_eq!(text(&world, "a").as_deref(), Some("x"));
    }
    assert_eq!((world.kube.take_writes().len(), reads(&world).await), (0, 0));
    // Whoever may write it hands it over.
    let mut foreign = world.kube.get(COPY).unwrap();
    foreign["metadata"]["labels"][COPY_OF_LABEL] = json!("uid");
    world.kube.put(COPY, foreign);
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
    assert_eq!(text(&world, "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn one_that_appears_between_two_looks_is_not_written() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 409, "AlreadyExists");
    assert!(matches!(look(&world, &object).await, Err(Error::NotNow(_))));
    world.kube.allow();
    look(&world, &object).await.unwrap();
    // Changed between reading and writing.
    has(&world, "e2", &[("a", "2", 2)]).await;
    world.kube.refuse(&format!("PUT {COPY}"), 409, "Conflict");
    assert!(matches!(look(&world, &object).await, Err(Error::NotNow(_))));
    assert_eq!(text(&world, "a").as_deref(), Some("1"));
}

/// R12.
#[tokio::test]
async fn no_failure_of_the_server_deletes_or_blanks_the_secret() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "deletionPolicy": "Delete"}));
    look(&world, &object).await.unwrap();
    let before = world.kube.get(COPY);
    world.kube.take_writes();
    for (status, body) in [
        (404, json!({})),
        (403, json!({})),
        (401, json!({})),
        (500, json!({})),
        (200, json!({})),
        (200, json!("")),
        (200, json!({"etag": "e9", "next_change_at": null, "secrets": {}})),
    ] {
        world.server.reset().await;
        world.answers("GET", BUNDLE, status, body.clone()).await;
        // Whatever it comes to.
        let _ = look(&world, &object).await;
        world.context.copies.compared.forget("uid");
        assert_eq!(world.kube.get(COPY), before, "{status} {body}");
    }
    // The state moves, and the values cannot be read.
    for status in [404, 403, 401, 500] {
        world.server.reset().await;
        let moved = json!({"etag": "e2", "next_change_at": null, "secrets": {"a": {"version": 2}}});
        wiremock::Mock::given(wiremock::matchers::query_param("values", "false"))
            .respond_with(wiremock::ResponseTemplate::new(200).set_body_json(moved))
            .mount(&world.server)
            .await;
        world.answers("GET", BUNDLE, status, json!({})).await;
        assert!(look(&world, &object).await.is_err(), "{status}");
        assert_eq!(world.kube.get(COPY), before, "{status}");
    }
    assert_eq!(world.kube.take_writes(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_written_is_told_without_reading_it_again_and_again() {
    let world = world().await;
    has(&world, "e1", &[("tls.crt", "1", 1)]).await;
    let object = binding(&json!({"name": "copy", "type": "kubernetes.io/tls"}));
    for _ in 0..3 {
        assert_eq!(
            condition(&world, &object).await,
            (Status::False, reasons::SECRETS_MISSING)
        );
    }
    assert_eq!((world.kube.get(COPY), reads(&world).await), (None, 1));
    has(&world, "e2", &[("tls.crt", "1", 1), ("tls.key", "1", 1)]).await;
    assert_eq!(condition(&world, &object).await, (Status::True, "Synced"));
}

#[tokio::test]
async fn what_kubernetes_refuses_is_told_without_its_words() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    let object = binding(&json!({"name": "copy"}));
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
        world.kube.refuse("POST /api/v1/namespaces/shop/secrets", code, reason);
        let outcome = look(&world, &object).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::KUBERNETES_REFUSED);
        let message = outcome.condition.message;
        assert!(
            message.contains(reason) && !message.contains("as a test wants it"),
            "{message}"
        );
    }
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 500, "InternalError");
    let error = look(&world, &object).await.err().unwrap();
    assert!(!error.to_string().contains("as a test wants it"), "{error}");
}

#[tokio::test]
async fn another_type_and_what_was_made_immutable_are_made_anew() {
    let world = world().await;
    has(&world, "e1", &[("password", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    let other = binding(&json!({"name": "copy", "type": "kubernetes.io/basic-auth"}));
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    assert_eq!(world.kube.get(COPY).unwrap()["type"], "kubernetes.io/basic-auth");
    let mut immutable = world.kube.get(COPY).unwrap();
    immutable["immutable"] = json!(true);
    world.kube.put(COPY, immutable);
    has(&world, "e2", &[("password", "2", 2)]).await;
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    let secret = world.kube.get(COPY).unwrap();
    assert_eq!(
        (text(&world, "password").as_deref(), &secret["immutable"]),
        (Some("2"), &json!(null))
    );
}

#[tokio::test]
async fn a_secret_that_could_not_be_made_anew_is_not_deleted() {
    let world = world().await;
    has(&world, "e1", &[("password", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    let before = world.kube.get(COPY).unwrap();
    world.kube.take_writes();
    let other = binding(&json!({"name": "copy", "type": "kubernetes.io/basic-auth"}));
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid")] {
        world.kube.refuse("POST /api/v1/namespaces/shop/secrets", code, reason);
        let outcome = look(&world, &other).await.unwrap().unwrap();
        assert_eq!(outcome.condition.reason, reasons::KUBERNETES_REFUSED);
        assert!(
            outcome.condition.message.contains("stays as it was"),
            "{}",
            outcome.condition.message
        );
    }
    world
        .kube
        .refuse("POST /api/v1/namespaces/shop/secrets", 500, "InternalError");
    assert!(look(&world, &other).await.is_err());
    assert_eq!(world.kube.get(COPY).unwrap(), before);
    let deletes = world
        .kube
        .take_writes()
        .into_iter()
        .filter(|write| write.starts_with("DELETE"));
    assert_eq!(deletes.count(), 0);
    world.kube.allow();
    assert_eq!(condition(&world, &other).await, (Status::True, "Synced"));
    assert_eq!(world.kube.get(COPY).unwrap()["type"], "kubernetes.io/basic-auth");
}

/// The watch has seen the Secret.
fn watched(world: &mut World) {
    let (store, mut writer) = kube::runtime::reflector::store();
    let secret = serde_json::from_value(world.kube.get(COPY).unwrap()).unwrap();
    writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(secret));
    std::sync::Arc::get_mut(&mut world.context).unwrap().copies = Copies::new(store);
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

#[tokio::test]
async fn the_former_secret_goes_or_stays_as_its_policy_says() {
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let mut world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = |name: &str| binding(&json!({"name": name, "deletionPolicy": policy}));
        look(&world, &native("copy")).await.unwrap();
        watched(&mut world);
        look(&world, &native("other")).await.unwrap();
        assert!(world.kube.get("/api/v1/namespaces/shop/secrets/other").is_some());
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, renamed");
    }
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let mut world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = binding(&json!({"name": "copy", "deletionPolicy": policy}));
        look(&world, &native).await.unwrap();
        watched(&mut world);
        assert!(look(&world, &object()).await.unwrap().is_none());
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, taken out");
    }
    for (policy, stays) in [("Delete", false), ("Retain", true)] {
        let world = world().await;
        has(&world, "e1", &[("a", "1", 1)]).await;
        let native = binding(&json!({"name": "copy", "deletionPolicy": policy}));
        look(&world, &native).await.unwrap();
        clean_up(&native, &world.context).await.unwrap();
        assert_eq!(world.kube.get(COPY).is_some(), stays, "{policy}, the binding deleted");
    }
}

#[tokio::test]
async fn an_edit_of_the_policy_reaches_the_secret_before_it_is_needed() {
    let world = world().await;
    has(&world, "e1", &[("a", "1", 1)]).await;
    look(&world, &binding(&json!({"name": "copy"}))).await.unwrap();
    look(&world, &binding(&json!({"name": "copy", "deletionPolicy": "Delete"})))
        .await
        .unwrap();
    let secret = world.kube.get(COPY).unwrap();
    assert_eq!(secret["metadata"]["annotations"][COPY_DELETION_POLICY], "Delete");
    assert!(
        secret["metadata"]["annotations"][COPY_STATE]
            .as_str()
            .unwrap()
            .contains("\"a\":1")
    );
}
