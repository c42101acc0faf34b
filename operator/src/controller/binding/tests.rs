//! Whole looks at a binding, against a server and a cluster that remember: killed after every effect, lied to by
//! everybody who may write in the namespace, and answered with every kind of nonsense.

use sealpod_core::kubernetes::{BINDING_UID_LABEL, KEY_ROTATED_AT, MANAGED_BY, MANAGED_BY_LABEL};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{Effects, SECRET, World, object, world};
use super::*;
use crate::controller::kind;
use crate::controller::sealpod::{Account, Failing, Sealpod};
use crate::tolerant::Tolerant;

mod rights;
mod turns;

const BINDING: &str = "/apis/sealpod.dev/v1alpha1/namespaces/shop/secretbindings/db";
const NAMESPACE: &str = "/api/v1/namespaces/shop";
/// The owner label of the Application.
const OWNER: &str = "cluster/shop/ns-uid/shop";
const APPLICATION: &str = "/apis/sealpod.dev/v1alpha1/namespaces/shop/applications/shop";
/// Of an account that is not the binding's.
const STRANGER: Uuid = Uuid::from_u128(5);
const STRANGERS_KEY: &str = "cr_sa_strangerskeystrangerskeystrangerskey";

struct Test {
    world: World,
    sealpod: Sealpod,
    effects: Effects,
}

/// A cluster with an Application and a new binding, and a server that has the application.
async fn test() -> Test {
    let mut world = world().await;
    let effects = Effects::default();
    let sealpod = Sealpod::start(&world.server, effects.clone()).await;
    sealpod.state().has_application("shop", Some(OWNER));
    world
        .kube
        .put(NAMESPACE, json!({"metadata": {"name": "shop", "uid": "ns-uid"}}));
    let application = json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": {}});
    world.kube.put(APPLICATION, application);
    world.kube.put(BINDING, serde_json::to_value(object()).unwrap());
    world.restart(&effects);
    Test {
        world,
        sealpod,
        effects,
    }
}

impl Test {
    async fn look(&self) -> Result<(), Error> {
        let object: KeptBinding = serde_json::from_value(self.world.kube.get(BINDING).unwrap()).unwrap();
        kind::reconcile::<SecretBinding>(object.into(), self.world.context.clone())
            .await
            .map(drop)
    }

    /// As long as nothing is new.
    async fn settle(&self) {
        for _ in 0..2 {
            self.look().await.unwrap();
        }
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.world.kube.get(path).unwrap();
        edit(&mut object);
        self.world.kube.put(path, object);
    }

    fn reason(&self) -> String {
        let conditions = &self.world.kube.get(BINDING).unwrap()["status"]["conditions"];
        let ready = conditions.as_array().unwrap().iter().find(|c| c["type"] == "Ready");
        ready.unwrap()["reason"].as_str().unwrap().to_owned()
    }

    /// One account, one rule, and a key in the Secret that the server takes as its newest.
    fn assert_whole(&self, what: &str) {
        let state = self.sealpod.state();
        let own: Vec<&Account> = state
            .accounts
            .values()
            .filter(|a| a.body["id"] != json!(STRANGER))
            .collect();
        assert_eq!(own.len(), 1, "{what}: accounts");
        assert_eq!(own[0].body["name"], "k8s/cluster/shop/db", "{what}");
        assert_eq!(state.rules.len(), 1, "{what}: {:?}", state.rules);
        let rule = state.rules.values().next().unwrap();
        assert_eq!(rule["subject_id"], own[0].body["id"], "{what}");
        assert_eq!(
            self.world.stored_key().as_ref(),
            own[0].keys.last(),
            "{what}: the newest key"
        );
        drop(state);
        assert_eq!(self.reason(), "Synced", "{what}");
    }

    fn add_stranger(&self) {
        let body = json!({
            "id": STRANGER, "name": "k8s/cluster/other/db", "project": "shop", "key_prefix": STRANGERS_KEY[..12],
            "expires_at": null, "labels": {}, "created_at": "2026-01-01T00:00:00Z", "last_used_at": null,
        });
        let keys = vec![STRANGERS_KEY.to_owned()];
        self.sealpod.state().accounts.insert(STRANGER, Account { body, keys });
    }

    fn assert_stranger_untouched(&self, what: &str) {
        let state = self.sealpod.state();
        assert_eq!(state.accounts[&STRANGER].keys, [STRANGERS_KEY], "{what}");
        let touched = state
            .calls
            .iter()
            .find(|call| call.line.contains(&STRANGER.to_string()));
        assert_eq!(touched.map(|call| &call.line), None, "{what}");
    }
}

#[tokio::test]
async fn at_rest_nothing_is_changed_and_no_value_is_ever_asked_with_the_admin_key() {
    let test = test().await;
    test.look().await.unwrap();
    test.effects.go_on();
    test.settle().await;
    assert_eq!(test.effects.count(), 0);
    let state = test.sealpod.state();
    let about_values = |call: &str| call.contains("/bundle") || call.contains("/secrets");
    let (asked, by_admin): (Vec<_>, Vec<_>) = state
        .calls
        .iter()
        .filter(|call| about_values(&call.line))
        .map(|call| (call.line.clone(), call.by_admin))
        .unzip();
    assert!(!asked.is_empty() && by_admin.iter().all(|admin| !admin), "{asked:?}");
}

#[tokio::test]
async fn a_key_that_the_server_no_longer_knows_is_replaced_at_once() {
    for lose in [
        // Rotated by somebody else, who killed the others.
        |sealpod: &Sealpod| {
            let mut state = sealpod.state();
            let account = state.accounts.values_mut().next().unwrap();
            account.keys = vec!["cr_sa_somebodyelses".to_owned()];
            account.body["key_prefix"] = json!("cr_sa_somebo");
        },
        // A restore: the account is as it was listed, and its key is another.
        |sealpod: &Sealpod| sealpod.state().accounts.values_mut().next().unwrap().keys.clear(),
        // A restore of before the binding.
        |sealpod: &Sealpod| {
            let mut state = sealpod.state();
            state.accounts.clear();
            state.rules.clear();
        },
    ] {
        let test = test().await;
        test.look().await.unwrap();
        let before = test.world.stored_key();
        lose(&test.sealpod);
        test.look().await.unwrap();
        assert_ne!(test.world.stored_key(), before);
        test.assert_whole("healed");
    }
}

#[tokio::test]
async fn whatever_the_server_answers_to_reads_no_secret_and_no_right_goes() {
    for (status, code) in [
        (500, "internal"),
        (503, "unavailable"),
        (403, "forbidden"),
        (401, "unauthorized"),
        (400, "x"),
        (404, "not_found"),
        (200, "no answer of its kind"),
    ] {
        let test = test().await;
        test.look().await.unwrap();
        let secret = test.world.kube.get(SECRET);
        test.sealpod.state().failing = Some(Failing {
            only: None,
            status,
            media_type: sealpod_core::wire::problem::CONTENT_TYPE,
            body: json!({"status": status, "code": code}).to_string(),
        });
        test.effects.go_on();
        test.sealpod.take_changes();
        test.look().await.unwrap_err();
        assert_eq!(test.world.kube.get(SECRET), secret, "{status}");
        assert_eq!(test.sealpod.take_changes(), [""; 0], "{status}");
        let state = test.sealpod.state();
        assert_eq!((state.accounts.len(), state.rules.len()), (1, 1));
    }
    // An application that is not there is an authoritative no: the right goes, the Secret stays.
    let test = test().await;
    test.look().await.unwrap();
    let secret = test.world.kube.get(SECRET);
    test.sealpod.state().is_owned_by("shop", None);
    test.look().await.unwrap();
    assert_eq!(test.world.kube.get(SECRET), secret);
    assert!(test.sealpod.state().rules.is_empty());
    assert_eq!(test.reason(), "ApplicationNotReady");
}

#[tokio::test]
async fn a_pause_does_not_keep_a_right_alive() {
    let test = test().await;
    test.look().await.unwrap();
    test.edit(BINDING, |binding| {
        binding["metadata"]["annotations"] = json!({"sealpod.dev/paused": "true"});
    });
    test.look().await.unwrap();
    assert_eq!(test.sealpod.state().rules.len(), 1, "a pause alone ends nothing");
    test.sealpod.state().is_owned_by("shop", Some("cluster/other/uid/shop"));
    test.look().await.unwrap();
    assert!(test.sealpod.state().rules.is_empty());
}

#[tokio::test]
async fn a_forged_key_secret_leads_to_nobody_elses_account() {
    // Not owned by the binding, with all our labels: it is left alone, and no key is put into it.
    let test = test().await;
    test.add_stranger();
    let labels = json!({MANAGED_BY_LABEL: MANAGED_BY, BINDING_UID_LABEL: "uid"});
    let data = json!({"api-key": data_encoding::BASE64.encode(STRANGERS_KEY.as_bytes())});
    let forged = json!({"metadata": {"name": "db-sealpod-key", "labels": labels}, "data": data});
    test.world.kube.put(SECRET, forged.clone());
    test.look().await.unwrap();
    assert_eq!(test.reason(), "SecretNotOwned");
    assert_eq!(test.world.stored_key().as_deref(), Some(STRANGERS_KEY));
    assert!(
        test.sealpod
            .state()
            .calls
            .iter()
            .all(|call| !call.line.ends_with("/rotate"))
    );
    // With owner references that are forged, too: the key is replaced by the binding's own.
    let owner = json!([{"apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "name": "db", "uid": "uid",
        "controller": true}]);
    test.edit(SECRET, |secret| secret["metadata"]["ownerReferences"] = owner);
    test.settle().await;
    test.assert_whole("a forged owner");
    test.assert_stranger_untouched("a forged owner");
}

#[tokio::test]
async fn what_users_edit_selects_no_account_and_hands_out_no_key_of_another() {
    type Edit = fn(&mut Value);
    let in_secret: [(&str, Edit); 4] = [
        ("the labels", |secret| {
            secret["metadata"]["labels"] = json!({BINDING_UID_LABEL: "another"});
        }),
        ("the time", |secret| {
            secret["metadata"]["annotations"][KEY_ROTATED_AT] = json!("2999-01-01T00:00:00Z");
        }),
        ("the key", |secret| {
            secret["data"]["api-key"] = json!(data_encoding::BASE64.encode(STRANGERS_KEY.as_bytes()));
        }),
        ("everything", |secret| secret["data"] = json!({})),
    ];
    for (what, edit) in in_secret {
        let test = test().await;
        test.look().await.unwrap();
        test.add_stranger();
        test.edit(SECRET, edit);
        test.settle().await;
        test.assert_whole(what);
        test.assert_stranger_untouched(what);
    }
    let test = test().await;
    test.add_stranger();
    test.look().await.unwrap();
    test.edit(BINDING, |binding| {
        binding["status"] = json!({"serviceAccountID": STRANGER, "keySecretName": "another", "conditions": []});
        binding["metadata"]["annotations"] = json!({"sealpod.dev/owner": "cluster/other/uid/secretbindings/db"});
    });
    test.settle().await;
    test.assert_whole("the status");
    test.assert_stranger_untouched("the status");
    assert_eq!(
        test.world.kube.get(BINDING).unwrap()["status"]["keySecretName"],
        "db-sealpod-key"
    );
}

#[tokio::test]
async fn a_namespace_or_an_application_that_came_back_under_its_name_inherits_nothing() {
    // Another namespace: the application is not its own, and the account of the earlier one loses its rule.
    let test = test().await;
    test.look().await.unwrap();
    test.world
        .kube
        .put(NAMESPACE, json!({"metadata": {"name": "shop", "uid": "another"}}));
    test.look().await.unwrap();
    assert_eq!(test.reason(), "ApplicationNotReady");
    assert!(test.sealpod.state().rules.is_empty());
    // Also where its Application was given to it by an administrator, the account is a new one with a new key.
    let old = test.world.stored_key();
    test.sealpod
        .state()
        .is_owned_by("shop", Some("cluster/shop/another/shop"));
    test.settle().await;
    test.assert_whole("another namespace");
    assert_ne!(test.world.stored_key(), old);
    // Another application of the same slug.
    let old = test.world.stored_key();
    test.sealpod.state().is_another("shop");
    test.settle().await;
    test.assert_whole("another application");
    assert_ne!(test.world.stored_key(), old);
}

#[tokio::test]
async fn another_namespaces_application_is_not_even_looked_up_unless_it_admits() {
    let test = test().await;
    let platform = json!({"metadata": {"name": "platform", "uid": "platform-uid", "labels": {}}});
    test.world.kube.put("/api/v1/namespaces/platform", platform);
    let application = "/apis/sealpod.dev/v1alpha1/namespaces/platform/applications/shop";
    let spec = |allowed: Value| json!({"metadata": {"name": "shop", "namespace": "platform"}, "spec": {"allowedNamespaces": allowed}});
    test.world.kube.put(application, spec(json!({})));
    test.sealpod
        .state()
        .is_owned_by("shop", Some("cluster/platform/platform-uid/shop"));
    test.edit(BINDING, |binding| {
        binding["spec"]["applicationRef"]["namespace"] = json!("platform");
    });
    test.look().await.unwrap();
    assert_eq!(test.reason(), "NamespaceNotAdmitted");
    let state = |test: &Test| {
        let state = test.sealpod.state();
        let asked = state.calls.iter().any(|call| call.line == "GET /shop");
        (asked, state.accounts.len(), state.rules.len())
    };
    assert_eq!(state(&test), (false, 0, 0));
    let team = json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}});
    test.world.kube.put(application, spec(team));
    let label = |team: &str| json!({"metadata": {"name": "shop", "uid": "ns-uid", "labels": {"team": team}}});
    test.world.kube.put(NAMESPACE, label("a"));
    test.look().await.unwrap();
    test.assert_whole("admitted");
    test.world.kube.put(NAMESPACE, label("b"));
    test.look().await.unwrap();
    assert_eq!((test.reason().as_str(), state(&test).2), ("NamespaceNotAdmitted", 0));
}

#[test]
fn names_of_full_length_fit_the_server_and_stay_apart() {
    let longest = service_account_name(&"c".repeat(36), &"n".repeat(63), &"b".repeat(200));
    assert!(longest.len() <= sealpod_core::names::MAX_ACCOUNT_NAME);
    // No part can hold the slash that parts them.
    assert_ne!(
        service_account_name("c", "a", "b-c"),
        service_account_name("c", "a-b", "c")
    );
}

/// Nothing tells that it is gone, and neither may what the clock brings be late for it.
#[tokio::test]
async fn a_secret_of_somebody_else_in_the_way_is_looked_at_again_soon() {
    let test = test().await;
    test.edit(BINDING, |binding| {
        binding["spec"]["kubernetesSecret"] = json!({"name": "copy"});
    });
    let foreign = json!({"kind": "Secret", "metadata": {"name": "copy", "uid": "x"}, "data": {}});
    test.world.kube.put("/api/v1/namespaces/shop/secrets/copy", foreign);
    test.look().await.unwrap();
    assert_eq!(test.reason(), "SecretNotOwned");
    let object: Tolerant<SecretBinding> = serde_json::from_value(test.world.kube.get(BINDING).unwrap()).unwrap();
    let outcome = SecretBinding::reconcile(&object.0, &test.world.context).await.unwrap();
    let soon = std::time::Duration::from_mins(2);
    assert!(
        matches!(outcome.again, crate::controller::retries::Again::Within(time) if time <= soon),
        "{:?}",
        outcome.again
    );
}
