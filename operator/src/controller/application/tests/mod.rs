//! Whole reconciliations against a server in memory.

use std::sync::Arc;

use kube::ResourceExt;
use sealpod_core::injection::API_KEY_FILE;
use sealpod_core::kubernetes::{API_KEY_SECRET_LABEL, FINALIZER, OWNER_LABEL, controls};
use sealpod_crds::{Application, ApplicationStatus};
use serde_json::{Value, json};

use super::super::binding::world::{Effects, World, world};
use super::super::conditions::{READY, Status};
use crate::controller::error::Error;
use crate::controller::kind::{self, Kind, Outcome};
use crate::controller::sealpod::Sealpod;
use crate::tolerant::Tolerant;

const APPLICATION: &str = "/apis/sealpod.dev/v1alpha1/namespaces/shop/applications/shop";
const OWNER: &str = "cluster/shop/ns-uid/shop";

struct Fixture {
    world: World,
    server: Sealpod,
}

fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/shop/secrets/{name}")
}

fn object(spec: Value) -> Application {
    let mut object = Application::new("shop", serde_json::from_value(spec).unwrap());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.uid = Some("app-uid".to_owned());
    object
}

fn asking(mut object: Application, value: &str) -> Application {
    object
        .annotations_mut()
        .insert(controls::ROTATE_KEY.to_owned(), value.to_owned());
    object
}

async fn fixture() -> Fixture {
    let world = world().await;
    let server = Sealpod::start(&world.server, Effects::default()).await;
    let namespace = json!({"metadata": {"name": "shop", "uid": "ns-uid"}});
    world.kube.put("/api/v1/namespaces/shop", namespace);
    Fixture { world, server }
}

impl Fixture {
    async fn try_once(&self, object: &Application) -> Result<Outcome<ApplicationStatus>, Error> {
        Application::reconcile(object, &self.world.context).await
    }

    async fn bring(&self, object: &Application) -> Outcome<ApplicationStatus> {
        self.try_once(object).await.unwrap()
    }

    /// What has been changed on the server since the last time.
    fn changes(&self) -> Vec<String> {
        self.server.take_changes()
    }

    fn key_in(&self, name: &str) -> Option<String> {
        self.world.kube.secret_text(&secret(name), API_KEY_FILE)
    }

    fn label(&self) -> Option<String> {
        let state = self.server.state();
        state.applications["shop"]["labels"][API_KEY_SECRET_LABEL]
            .as_str()
            .map(str::to_owned)
    }
}

fn everything() -> Value {
    json!({
        "displayName": "Shop", "description": "sells", "apiKeySecretName": "key",
        "environments": [
            {"name": "Production", "slug": "prod", "configurations": {"LOG_LEVEL": "info", "REGION": "eu"}},
            {"name": "local", "configurations": {"LOG_LEVEL": "debug"}},
        ],
    })
}

#[tokio::test]
async fn every_field_reaches_the_server_and_a_second_look_changes_nothing() {
    let t = fixture().await;
    let object = object(everything());
    let outcome = t.bring(&object).await;
    assert_eq!(
        (outcome.conditions[0].kind, outcome.conditions[0].status),
        (READY, Status::True)
    );
    assert_eq!(outcome.status.api_key_secret_name.as_deref(), Some("key"));
    assert_eq!(outcome.status.environments, ["local", "prod"]);
    {
        let state = t.server.state();
        let application = &state.applications["shop"];
        assert_eq!(
            (&application["name"], &application["description"]),
            (&json!("Shop"), &json!("sells"))
        );
        assert_eq!(application["labels"][OWNER_LABEL], OWNER);
        let at = |environment: &str, key: &str| {
            state.configurations[&("shop".to_owned(), environment.to_owned(), key.to_owned())]["value"].clone()
        };
        assert_eq!(
            (at("prod", "LOG_LEVEL"), at("prod", "REGION")),
            (json!("info"), json!("eu"))
        );
        assert_eq!(at("local", "LOG_LEVEL"), json!("debug"));
    }
    assert!(t.server.state().works(&t.key_in("key").unwrap()));
    let story = t.world.kube.events().pop().unwrap();
    assert_eq!(
        (&story["reason"], &story["type"]),
        (&json!("Applied"), &json!("Normal"))
    );
    assert!(
        !story.to_string().contains("grm_") && !story.to_string().contains("info"),
        "{story}"
    );
    t.changes();
    t.world.kube.take_writes();
    t.bring(&object).await;
    assert_eq!(t.changes(), [""; 0]);
    assert_eq!(t.world.kube.take_writes(), [""; 0]);
}

#[tokio::test]
async fn drift_is_put_back_and_what_is_taken_out_goes() {
    let t = fixture().await;
    t.bring(&object(everything())).await;
    t.changes();
    let at = |environment: &str, key: &str| ("shop".to_owned(), environment.to_owned(), key.to_owned());
    {
        let mut state = t.server.state();
        state.configurations.get_mut(&at("prod", "LOG_LEVEL")).unwrap()["value"] = json!("trace");
        let mut theirs = state.configurations[&at("prod", "REGION")].clone();
        theirs["key"] = json!("THEIRS");
        theirs["description"] = Value::Null;
        state.configurations.insert(at("prod", "THEIRS"), theirs);
        state.applications.get_mut("shop").unwrap()["name"] = json!("drifted");
    }
    t.bring(&object(everything())).await;
    assert_eq!(t.changes(), ["PUT /shop", "PUT /shop/configurations/prod/LOG_LEVEL"]);
    let mut less = everything();
    less["environments"] = json!([{"name": "Production", "slug": "prod", "configurations": {"REGION": "eu"}}]);
    t.bring(&object(less)).await;
    assert_eq!(
        t.changes(),
        [
            "DELETE /shop/configurations/prod/LOG_LEVEL",
            "DELETE /shop/configurations/local/LOG_LEVEL"
        ]
    );
    assert!(t.server.state().configurations.contains_key(&at("prod", "THEIRS")));
}

#[tokio::test]
async fn an_administrators_configuration_is_contested_and_the_rest_is_done() {
    let t = fixture().await;
    t.bring(&object(json!({}))).await;
    let theirs = json!({
        "id": "00000000-0000-0000-0000-000000000099", "environmentSlug": "local", "key": "LOG_LEVEL", "value": "theirs",
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    });
    let at = ("shop".to_owned(), "local".to_owned(), "LOG_LEVEL".to_owned());
    t.server.state().configurations.insert(at.clone(), theirs);
    let outcome = t.bring(&object(everything())).await;
    let ready = &outcome.conditions[0];
    assert_eq!((ready.status, ready.reason), (Status::False, "Conflict"));
    assert!(
        ready.message.contains("local/LOG_LEVEL") && !ready.message.contains("theirs"),
        "{}",
        ready.message
    );
    assert_eq!(t.server.state().configurations[&at]["value"], "theirs");
    assert!(t.key_in("key").is_some(), "everything else is done");
}

#[tokio::test]
async fn a_rotation_is_made_once_for_each_value_and_the_key_in_use_lives_through_the_overlap() {
    let t = fixture().await;
    t.bring(&object(everything())).await;
    let first = t.key_in("key").unwrap();
    let asked = asking(object(everything()), "1");
    t.bring(&asked).await;
    let now = t.key_in("key").unwrap();
    assert!(now != first && t.server.state().works(&now));
    assert_eq!(t.server.state().application_keys[0], (first, Some(3_600)));
    t.changes();
    t.bring(&asked).await;
    assert_eq!(t.changes(), [""; 0]);
}

#[tokio::test]
async fn a_secret_that_users_edit_or_delete_gets_a_key_that_works_and_no_endless_row_of_them() {
    let t = fixture().await;
    let wanted = object(everything());
    t.bring(&wanted).await;
    let mut edited = t.world.kube.get(&secret("key")).unwrap();
    edited["data"][API_KEY_FILE] = json!(data_encoding::BASE64.encode(b"grm_forged"));
    t.world.kube.put(&secret("key"), edited);
    t.bring(&wanted).await;
    assert!(t.server.state().works(&t.key_in("key").unwrap()));
    for _ in 0..4 {
        t.world.kube.remove(&secret("key"));
        t.bring(&wanted).await;
        let version = t.world.kube.get(&secret("key")).unwrap()["metadata"]["resourceVersion"].clone();
        let echoes = &t.world.context.echoes;
        assert!(
            echoes.is_own_secret("app-uid", version.as_str()),
            "its event is no news"
        );
        assert!(t.server.state().works(&t.key_in("key").unwrap()));
    }
    t.world.kube.remove(&secret("key"));
    let error = t.try_once(&wanted).await.err().unwrap();
    assert!(error.to_string().contains("five new keys"), "{error}");
    // It waits, and says so; it has not failed.
    let mut waits = wanted;
    waits.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    t.world.kube.put(APPLICATION, serde_json::to_value(&waits).unwrap());
    let context = Arc::clone(&t.world.context);
    kind::reconcile::<Application>(Arc::new(Tolerant(waits)), context)
        .await
        .unwrap();
    let status = t.world.kube.get(APPLICATION).unwrap()["status"].to_string();
    assert!(status.contains("five new keys"), "{status}");
}

#[tokio::test]
async fn a_secret_that_is_somebody_elses_is_left_alone() {
    let t = fixture().await;
    let theirs = json!({"metadata": {"name": "key", "uid": "x"}, "data": {"api-key": "dGhlaXJz"}});
    t.world.kube.put(&secret("key"), theirs);
    let outcome = t.bring(&object(everything())).await;
    assert_eq!(outcome.conditions[0].reason, "SecretNotOwned");
    assert_eq!(outcome.status.api_key_secret_name, None);
    assert_eq!(t.key_in("key").as_deref(), Some("theirs"));
    assert_eq!(t.server.state().configurations.len(), 3, "everything else is done");
}

#[tokio::test]
async fn a_new_name_takes_the_key_along_and_no_name_withdraws_it() {
    let t = fixture().await;
    t.bring(&object(everything())).await;
    let key = t.key_in("key").unwrap();
    let mut renamed = everything();
    renamed["apiKeySecretName"] = json!("other");
    t.bring(&object(renamed)).await;
    assert_eq!(
        (t.key_in("key"), t.key_in("other").as_deref()),
        (None, Some(key.as_str()))
    );
    assert_eq!(t.label().as_deref(), Some("app-uid/other"));
    let mut without = everything();
    without.as_object_mut().unwrap().remove("apiKeySecretName");
    t.bring(&object(without.clone())).await;
    assert_eq!((t.key_in("other"), t.label()), (None, None));
    assert_eq!(t.server.state().application_keys[0], (key, Some(3_600)));
    t.changes();
    t.bring(&object(without)).await;
    assert_eq!(t.changes(), [""; 0]);
}

#[tokio::test]
async fn an_object_of_the_same_name_in_a_namespace_made_again_gets_nothing() {
    let t = fixture().await;
    t.bring(&object(everything())).await;
    let key = t.key_in("key").unwrap();
    t.changes();
    t.world.kube.remove(&secret("key"));
    let again = json!({"metadata": {"name": "shop", "uid": "another-uid"}});
    t.world.kube.put("/api/v1/namespaces/shop", again);
    let mut other = object(everything());
    other.metadata.uid = Some("other-uid".to_owned());
    // Nor does a status help that says otherwise.
    other.status = Some(ApplicationStatus {
        slug: Some("shop".to_owned()),
        ..ApplicationStatus::default()
    });
    let outcome = t.bring(&other).await;
    assert_eq!(outcome.conditions[0].reason, "AlreadyExists");
    Application::clean_up(&other, &t.world.context).await.unwrap();
    assert_eq!(t.changes(), [""; 0]);
    assert_eq!(t.key_in("key"), None);

    // Handed over by an administrator, it ends what the one before was given.
    let consent = json!({
        "sealpod.dev/adoptable-by": "cluster/shop/another-uid/shop", API_KEY_SECRET_LABEL: "app-uid/key",
    });
    t.server.state().applications.get_mut("shop").unwrap()["labels"] = consent;
    other.spec.adopt = true;
    t.bring(&other).await;
    t.bring(&other).await;
    assert!(!t.server.state().works(&key), "the old key is dead");
    assert!(t.server.state().works(&t.key_in("key").unwrap()));
    assert_eq!(t.label().as_deref(), Some("other-uid/key"));
}

#[tokio::test]
async fn a_deletion_with_retain_releases_the_application_and_ends_its_key() {
    let t = fixture().await;
    t.bring(&object(everything())).await;
    let key = t.key_in("key").unwrap();
    let mut going = object(everything());
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    Application::clean_up(&going, &t.world.context).await.unwrap();
    let state = t.server.state();
    assert_eq!(
        state.applications["shop"]["labels"],
        json!({"sealpod.dev/released-by": OWNER})
    );
    assert!(!state.works(&key));
    assert_eq!(state.configurations.len(), 3, "what it set stays with the environment");
}

#[tokio::test]
async fn no_answer_that_is_not_the_servers_own_word_changes_anything() {
    for (status, body) in [(404, "<html>"), (403, ""), (500, "{}"), (200, ""), (200, "<html>")] {
        let world = world().await;
        let namespace = json!({"metadata": {"name": "shop", "uid": "ns-uid"}});
        world.kube.put("/api/v1/namespaces/shop", namespace);
        let answer = wiremock::ResponseTemplate::new(status).set_body_raw(body, "text/html");
        wiremock::Mock::given(wiremock::matchers::any())
            .respond_with(answer)
            .mount(&world.server)
            .await;
        let error = Application::reconcile(&object(everything()), &world.context)
            .await
            .err()
            .unwrap();
        assert_eq!(error.reason(), "ServerUnavailable", "{status} {body:?}: {error}");
        assert!(world.asked().await.iter().all(|call| call.starts_with("GET ")));
        assert_eq!(world.kube.take_writes(), [""; 0]);
    }
}
