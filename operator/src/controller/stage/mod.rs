//! Whole looks at objects of every kind, in a cluster and against a server that remember.

mod answers;
mod deputy;
mod killed;

use k8s_openapi::jiff::Timestamp;
use sealpod_core::injection::API_KEY_FILE;
use sealpod_core::kubernetes::{COPY_STATE, FINALIZER, KEY_ROTATED_AT};
use serde_json::{Value, json};

use super::binding::world::{Effects, World, world};
use super::error::Error;
use super::kind::{self, Kind};
use super::sealpod::Sealpod;

const NAMESPACE: &str = "/api/v1/namespaces/shop";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets/";
/// The owner label of Application `shop`.
const OWNER: &str = "cluster/shop/ns-uid/shop";

struct Stage {
    world: World,
    sealpod: Sealpod,
    effects: Effects,
}

/// Where an object is: `plural/name`.
fn at(object: &str) -> String {
    format!("/apis/sealpod.dev/v1alpha1/namespaces/shop/{object}")
}

async fn stage() -> Stage {
    let mut world = world().await;
    let effects = Effects::default();
    let sealpod = Sealpod::start(&world.server, effects.clone()).await;
    let namespace = json!({"metadata": {"name": "shop", "uid": "ns-uid"}});
    world.kube.put(NAMESPACE, namespace);
    world.restart(&effects);
    Stage {
        world,
        sealpod,
        effects,
    }
}

impl Stage {
    fn puts(&self, object: &str, spec: &Value) {
        let name = object.split_once('/').unwrap().1;
        let metadata = json!({"name": name, "namespace": "shop", "uid": format!("{name}-uid"), "generation": 1});
        self.world
            .kube
            .put(&at(object), json!({"metadata": metadata, "spec": spec}));
    }

    /// Merges into the object.
    fn edits(&self, path: &str, change: &Value) {
        let mut object = self.world.kube.get(path).unwrap();
        json_patch::merge(&mut object, change);
        self.world.kube.put(path, object);
    }

    fn deletes(&self, object: &str) {
        let now = Timestamp::now().to_string();
        self.edits(&at(object), &json!({"metadata": {"deletionTimestamp": now}}));
    }

    /// Takes away what nobody holds any more, as the API server does.
    fn collects(&self, path: &str) -> bool {
        let Some(object) = self.world.kube.get(path) else {
            return true;
        };
        let finalizers = object["metadata"]["finalizers"].as_array();
        let is_held = finalizers.is_some_and(|all| all.contains(&json!(FINALIZER)));
        let is_gone = object["metadata"]["deletionTimestamp"].is_string() && !is_held;
        if is_gone {
            self.world.kube.remove(path);
        }
        is_gone
    }

    async fn looks<K: Kind>(&self, object: &str) -> Result<(), Error> {
        let path = at(object);
        if self.collects(&path) {
            return Ok(());
        }
        let found: K::Kept = serde_json::from_value(self.world.kube.get(&path).unwrap()).unwrap();
        kind::reconcile::<K>(found.into(), self.world.context.clone()).await?;
        self.collects(&path);
        Ok(())
    }

    /// Until nothing is changed any more.
    async fn settles<K: Kind>(&self, object: &str) {
        for _ in 0..4 {
            let before = self.effects.count();
            self.world.kube.take_calls();
            self.sealpod.take_changes();
            self.looks::<K>(object).await.unwrap();
            if self.effects.count() == before {
                return;
            }
        }
        let changes = (self.world.kube.take_writes(), self.sealpod.take_changes());
        panic!("{object} is written again and again: {changes:?}");
    }

    /// Whether a key that stands in a Secret is one that the server takes.
    fn works(&self, key: &str) -> bool {
        let state = self.sealpod.state();
        let mut of_accounts = state.accounts.values().flat_map(|account| &account.keys);
        state.works(key) || of_accounts.any(|live| live == key)
    }

    /// Every key in a Secret, by the path.
    fn keys(&self) -> Vec<(String, String)> {
        let paths = self.world.kube.paths(SECRETS).into_iter();
        let key = |path: String| Some((path.clone(), self.world.kube.secret_text(&path, API_KEY_FILE)?));
        paths.filter_map(key).collect()
    }

    /// All that is on the server and in Secrets, without what differs each time: ids, keys and times.
    fn shape(&self) -> Value {
        let mut secrets = Vec::new();
        for path in self.world.kube.paths(SECRETS) {
            let mut secret = self.world.kube.get(&path).unwrap();
            if let Some(key) = self.world.kube.secret_text(&path, API_KEY_FILE) {
                secret["data"][API_KEY_FILE] = json!(if self.works(&key) { "works" } else { "dead" });
            }
            for varying in [KEY_ROTATED_AT, COPY_STATE] {
                let annotations = secret["metadata"]["annotations"].as_object_mut();
                annotations.and_then(|all| all.remove(varying));
            }
            let metadata = &secret["metadata"];
            let marks = [&metadata["labels"], &metadata["annotations"]];
            secrets.push(json!([path, secret["type"], secret["data"], marks]));
        }
        let state = self.sealpod.state();
        let part =
            |object: &Value, fields: &[&str]| fields.iter().map(|field| object[field].clone()).collect::<Value>();
        let name_of = |id: &Value| {
            state
                .accounts
                .values()
                .find(|a| a.body["id"] == *id)
                .map(|a| &a.body["name"])
        };
        let applications = state.applications.values();
        let environments = state.environments.iter();
        let configurations = state.configurations.iter();
        let accounts = state.accounts.values();
        let mut rules: Vec<_> = state
            .rules
            .values()
            .map(|rule| {
                let what = part(
                    rule,
                    &[
                        "project_pattern",
                        "env_pattern",
                        "key_pattern",
                        "configurations",
                        "permission",
                    ],
                );
                json!([name_of(&rule["subject_id"]), what]).to_string()
            })
            .collect();
        rules.sort_unstable();
        json!({
            "applications": applications.map(|a| part(a, &["slug", "name", "description", "labels"])).collect::<Value>(),
            "environments": environments.map(|(at, e)| json!([at, part(e, &["name", "labels"])])).collect::<Value>(),
            "configurations": configurations
                .map(|(at, c)| json!([at, part(c, &["value", "description"])]))
                .collect::<Value>(),
            "accounts": accounts.map(|a| part(&a.body, &["name", "project"])).collect::<Value>(),
            "rules": rules,
            "secrets": secrets,
        })
    }
}

/// All that an Application can ask for.
fn application() -> Value {
    json!({
        "displayName": "Shop", "description": "sells", "apiKeySecretName": "key", "deletionPolicy": "Delete",
        "environments": [
            {"name": "Production", "slug": "prod", "configurations": {"LOG_LEVEL": "info", "REGION": "eu"}},
            {"name": "local", "configurations": {"LOG_LEVEL": "debug"}},
            {"name": "old", "configurations": {"LOG_LEVEL": "trace"}},
        ],
    })
}

/// An Environment and its Application.
fn environment(t: &Stage, policy: &str) {
    t.sealpod.state().has_application("shop", Some(OWNER));
    t.puts("applications/shop", &json!({}));
    let spec = json!({
        "applicationRef": {"name": "shop"}, "displayName": "Quality", "deletionPolicy": policy,
        "configurations": {"LOG_LEVEL": "info", "REGION": "eu"},
    });
    t.puts("environments/qa", &spec);
}

/// A SecretBinding with a copy, and its Application.
fn binding(t: &Stage) {
    t.sealpod.state().has_application("shop", Some(OWNER));
    t.sealpod.state().secrets.insert("token", "t1");
    t.puts("applications/shop", &json!({}));
    let spec = json!({
        "applicationRef": {"name": "shop"}, "environment": "prod",
        "secrets": [{"name": "password"}, {"name": "token"}],
        "kubernetesSecret": {"name": "copy", "deletionPolicy": "Delete"},
    });
    t.puts("secretbindings/db", &spec);
}
