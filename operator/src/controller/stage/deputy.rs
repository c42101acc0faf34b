//! A user with every right in one namespace writes whatever there is to write, and nothing of another moves by it: no
//! application, key, account or rule on the server, and no Secret of another namespace.

use sealpod_core::kubernetes::{
    ADOPTABLE_BY_LABEL, API_KEY_SECRET_LABEL, BINDING_UID_LABEL, COPY_DELETION_POLICY, COPY_OF_LABEL, MANAGED_BY,
    MANAGED_BY_LABEL, OWNER_LABEL, RELEASED_BY_LABEL, ROLLED_OUT_FOR, controls,
};
use sealpod_crds::{Application, Environment, SecretBinding};
use uuid::Uuid;

use super::*;
use crate::controller::sealpod::Account;

/// What the victim's namespace was when its objects were made.
const VICTIM: &str = "cluster/victim/victim-uid/theirs";
const ACCOUNT: Uuid = Uuid::from_u128(5);
const APPLICATION_KEY: &str = "grm_theirs";
const ACCOUNT_KEY: &str = "cr_sa_theirstheirstheirstheirstheirsthei";

/// A user's object, in a namespace that is the user's.
struct Mine {
    namespace: &'static str,
    plural: &'static str,
    name: &'static str,
    spec: Value,
}

impl Mine {
    fn path(&self) -> String {
        let Self {
            namespace,
            plural,
            name,
            ..
        } = self;
        format!("/apis/sealpod.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}")
    }
}

/// The victim's application with a key, an environment and an account, and a Secret in its namespace.
async fn scene() -> Stage {
    let t = stage().await;
    {
        let mut state = t.sealpod.state();
        state.has_application("theirs", Some(VICTIM));
        let labels = &mut state.applications.get_mut("theirs").unwrap()["labels"];
        labels[API_KEY_SECRET_LABEL] = json!("their-uid/key");
        state.application_keys.push((APPLICATION_KEY.to_owned(), None));
        let body = json!({
            "id": ACCOUNT, "name": "k8s/cluster/victim/db", "project": "theirs", "key_prefix": ACCOUNT_KEY[..12],
            "expires_at": null, "labels": {OWNER_LABEL: "cluster/victim/victim-uid/secretbindings/db"},
            "created_at": "2026-01-01T00:00:00Z", "last_used_at": null,
        });
        let keys = vec![ACCOUNT_KEY.to_owned()];
        state.accounts.insert(ACCOUNT, Account { body, keys });
        let rule = json!({
            "id": ACCOUNT, "subject_type": "service_account", "subject_id": ACCOUNT, "project_pattern": "theirs",
            "env_pattern": "prod", "key_pattern": "*", "configurations": false, "permission": "read",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        state.rules.insert(ACCOUNT, rule);
    }
    let kube = &t.world.kube;
    // Deleted and made again: another namespace of the same name.
    kube.put(
        "/api/v1/namespaces/victim",
        json!({"metadata": {"name": "victim", "uid": "another-uid"}}),
    );
    let theirs = json!({"kind": "Secret", "metadata": {"name": "theirs", "namespace": "kept"}, "data": {"a": "YQ=="}});
    kube.put("/api/v1/namespaces/kept/secrets/theirs", theirs);
    t
}

/// What a user can write into the object itself: labels, annotations and status, all of which say that it is another's.
fn lie(object: &mut Value) {
    let marks = json!({
        OWNER_LABEL: "victim", ADOPTABLE_BY_LABEL: "victim", RELEASED_BY_LABEL: "victim", API_KEY_SECRET_LABEL: "theirs",
    });
    object["metadata"]["labels"] = marks.clone();
    object["metadata"]["annotations"] = marks;
    object["metadata"]["annotations"][OWNER_LABEL] = json!(VICTIM);
    object["metadata"]["annotations"][controls::ROTATE_KEY] = json!("1");
    object["status"] = json!({
        "slug": "theirs", "id": ACCOUNT, "serviceAccountID": ACCOUNT, "keySecretName": "theirs",
        "apiKeySecretName": "theirs", "environments": ["prod"], "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Synced", "message": "", "observedGeneration": 1,
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
}

/// Every Secret that the operator may take for one of its own.
fn forge(t: &Stage, mine: &Mine) {
    let kind = if mine.plural == "applications" {
        "Application"
    } else {
        "SecretBinding"
    };
    let owner = json!([{"apiVersion": "sealpod.dev/v1alpha1", "kind": kind, "name": mine.name, "uid": "my-uid",
        "controller": true}]);
    let labels = json!({MANAGED_BY_LABEL: MANAGED_BY, BINDING_UID_LABEL: "my-uid", COPY_OF_LABEL: "my-uid"});
    for (name, key) in [
        ("key", APPLICATION_KEY),
        ("db-sealpod-key", ACCOUNT_KEY),
        ("copy", ACCOUNT_KEY),
    ] {
        let annotations = json!({
            controls::ROTATE_KEY: "1", COPY_DELETION_POLICY: "Delete", KEY_ROTATED_AT: "2999-01-01T00:00:00Z",
            ROLLED_OUT_FOR: r#"{"versions": {"password": 1}}"#,
        });
        let metadata = json!({
            "name": name, "namespace": mine.namespace, "uid": name, "labels": labels, "annotations": annotations,
            "ownerReferences": owner,
        });
        let data = json!({API_KEY_FILE: data_encoding::BASE64.encode(key.as_bytes())});
        let secret = json!({"kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data});
        t.world
            .kube
            .put(&format!("/api/v1/namespaces/{}/secrets/{name}", mine.namespace), secret);
    }
}

/// All that is the victim's. A namespace that came back ends the rights of bindings of the one before, whose names are
/// its bindings' now: of that, nothing is looked at but the key.
fn theirs(t: &Stage, mine: &Mine) -> Value {
    let state = t.sealpod.state();
    let account = state.accounts.get(&ACCOUNT).filter(|_| mine.namespace != "victim");
    let rule = state.rules.get(&ACCOUNT).filter(|_| mine.namespace != "victim");
    json!([
        state.applications["theirs"],
        state.environments[&("theirs".to_owned(), "prod".to_owned())],
        state.configurations.len(),
        state.works(APPLICATION_KEY),
        account.map(|account| (&account.body, &account.keys)),
        rule,
        t.world.kube.get("/api/v1/namespaces/kept/secrets/theirs"),
    ])
}

async fn moves_nothing_of_others<K: Kind>(mine: &Mine, beside: &[Mine]) {
    for with_secrets in [false, true] {
        let t = scene().await;
        for one in beside.iter().chain([mine]) {
            let metadata = json!({
                "name": one.name, "namespace": one.namespace, "uid": "my-uid", "generation": 1,
            });
            let mut object = json!({"metadata": metadata, "spec": one.spec});
            lie(&mut object);
            t.world.kube.put(&one.path(), object);
        }
        if with_secrets {
            forge(&t, mine);
        }
        let before = theirs(&t, mine);
        let what = format!("{} {:?}", mine.path(), mine.spec);
        let look = async || {
            let found: K::Kept = serde_json::from_value(t.world.kube.get(&mine.path()).unwrap()).unwrap();
            drop(kind::reconcile::<K>(found.into(), t.world.context.clone()).await);
        };
        for _ in 0..3 {
            look().await;
        }
        assert_eq!(theirs(&t, mine), before, "{what}");
        let ready = &t.world.kube.get(&mine.path()).unwrap()["status"]["conditions"][0];
        assert_ne!(ready["status"], "True", "{what}: {ready}");
        t.edits(
            &mine.path(),
            &json!({"metadata": {"deletionTimestamp": Timestamp::now().to_string()}}),
        );
        look().await;
        assert_eq!(theirs(&t, mine), before, "{what}, deleted");
        let changes = t.sealpod.take_changes();
        let touched = changes
            .iter()
            .find(|line| line.contains("/theirs") || line.ends_with("/rotate"));
        assert_eq!(touched, None, "{what}");
        let secrets = t.world.kube.paths(&format!("/namespaces/{}/secrets/", mine.namespace));
        for path in secrets.iter().filter(|_| !with_secrets) {
            let key = t.world.kube.secret_text(path, API_KEY_FILE).unwrap_or_default();
            assert!(
                ![APPLICATION_KEY, ACCOUNT_KEY].contains(&key.as_str()),
                "{what}: handed over in {path}"
            );
        }
    }
}

fn application_of(namespace: &'static str) -> Mine {
    Mine {
        namespace,
        plural: "applications",
        name: "theirs",
        spec: json!({
            "slug": "theirs", "adopt": true, "deletionPolicy": "Delete", "apiKeySecretName": "key", "displayName": "Mine",
            "allowedNamespaces": {"from": "All"},
            "environments": [{"name": "prod", "configurations": {"LOG_LEVEL": "mine"}}],
        }),
    }
}

/// The user's own namespace, and one that came back under the victim's name.
const NAMESPACES: [&str; 2] = ["shop", "victim"];

#[tokio::test]
async fn by_an_application() {
    for namespace in NAMESPACES {
        moves_nothing_of_others::<Application>(&application_of(namespace), &[]).await;
    }
}

#[tokio::test]
async fn by_an_environment() {
    for namespace in NAMESPACES {
        let mine = Mine {
            namespace,
            plural: "environments",
            name: "prod",
            spec: json!({
                "applicationRef": {"name": "theirs"}, "displayName": "Mine", "deletionPolicy": "Delete",
                "configurations": {"LOG_LEVEL": "mine"},
            }),
        };
        moves_nothing_of_others::<Environment>(&mine, &[application_of(namespace)]).await;
    }
}

#[tokio::test]
async fn by_a_binding() {
    for (namespace, reference) in [
        ("shop", json!({"name": "theirs"})),
        ("shop", json!({"name": "theirs", "namespace": "victim"})),
        ("victim", json!({"name": "theirs"})),
    ] {
        let mine = Mine {
            namespace,
            plural: "secretbindings",
            name: "db",
            spec: json!({
                "applicationRef": reference, "environment": "prod", "configurations": {"enabled": true},
                "kubernetesSecret": {"name": "copy", "deletionPolicy": "Delete"}, "onChange": {"restart": "Rollout"},
            }),
        };
        moves_nothing_of_others::<SecretBinding>(&mine, &[application_of(namespace)]).await;
    }
}
