//! R12: each single read that a look makes is answered with everything that it should not be, and no Secret goes, no
//! value in one changes, and no key that is in use ends.

use sealpod_core::wire::problem;
use sealpod_crds::{Application, SecretBinding};

use super::*;
use crate::controller::sealpod::Failing;

const HTML: &str = "text/html";
const JSON: &str = "application/json";

/// Status, media type, body.
const ANSWERS: [(u16, &str, &str); 17] = [
    (404, HTML, "<html>no such page</html>"),
    (404, problem::CONTENT_TYPE, r#"{"status": 404, "code": "not_found"}"#),
    (403, HTML, ""),
    (403, problem::CONTENT_TYPE, r#"{"status": 403, "code": "forbidden"}"#),
    (401, problem::CONTENT_TYPE, r#"{"status": 401, "code": "unauthorized"}"#),
    (
        400,
        problem::CONTENT_TYPE,
        r#"{"status": 400, "code": "validation_failed"}"#,
    ),
    (500, HTML, ""),
    (500, problem::CONTENT_TYPE, r#"{"status": 500, "code": "internal"}"#),
    (503, problem::CONTENT_TYPE, r#"{"status": 503, "code": "unavailable"}"#),
    (204, JSON, ""),
    (304, JSON, ""),
    (200, JSON, ""),
    (200, HTML, "<html>"),
    (200, JSON, "{}"),
    (200, JSON, "[]"),
    (200, JSON, "null"),
    (200, JSON, r#"{"etag": "e1", "secrets": {"#),
];

/// What is in Secrets.
fn contents(t: &Stage) -> Vec<(String, Value)> {
    let paths = t.world.kube.paths(SECRETS).into_iter();
    paths
        .map(|path| (path.clone(), t.world.kube.get(&path).unwrap()["data"].clone()))
        .collect()
}

/// Everything that is read of the server in a look at an object that has just been changed.
async fn reads<K: Kind>(object: &str, make: fn(&Stage), change: fn(&Stage)) -> Vec<String> {
    let t = stage().await;
    make(&t);
    t.settles::<K>(object).await;
    change(&t);
    t.sealpod.state().calls.clear();
    t.looks::<K>(object).await.unwrap();
    let mut reads: Vec<_> = t.sealpod.state().calls.iter().map(|call| call.line.clone()).collect();
    reads.retain(|line| line.starts_with("GET "));
    reads.sort_unstable();
    reads.dedup();
    reads
}

/// `change` makes the look that follows read all that it can, and write nothing but values.
async fn keeps_its_secrets<K: Kind>(object: &str, make: fn(&Stage), change: fn(&Stage), least: usize) {
    let reads = reads::<K>(object, make, change).await;
    assert!(reads.len() >= least, "{reads:?}");
    for read in &reads {
        let t = stage().await;
        make(&t);
        t.settles::<K>(object).await;
        let wanted = t.shape();
        for (status, media_type, body) in ANSWERS {
            let what = format!("{read} answered with {status} {body:?}");
            let before = contents(&t);
            change(&t);
            t.sealpod.state().failing = Some(Failing {
                only: Some(read.clone()),
                status,
                media_type,
                body: body.to_owned(),
            });
            for _ in 0..2 {
                drop(t.looks::<K>(object).await);
            }
            for (path, data) in before {
                let now = t
                    .world
                    .kube
                    .get(&path)
                    .unwrap_or_else(|| panic!("{what}: {path} is gone"));
                for (key, value) in data.as_object().unwrap() {
                    let is_key = key == API_KEY_FILE;
                    let is_kept = if is_key {
                        now["data"][key].is_string()
                    } else {
                        now["data"][key] == *value
                    };
                    // A new value is one that was read whole.
                    assert!(is_kept || key == "password", "{what}: {key} of {path}");
                }
            }
            for (path, key) in t.keys() {
                assert!(t.works(&key), "{what}: a dead key in {path}");
            }
            t.sealpod.state().failing = None;
            t.settles::<K>(object).await;
            let mut now = t.shape();
            // Of this, the values move on from one answer to the next.
            now["secrets"] = Value::Null;
            let mut wanted = wanted.clone();
            wanted["secrets"] = Value::Null;
            assert_eq!(now, wanted, "{what}: it does not heal");
        }
    }
}

#[tokio::test]
async fn an_application_keeps_its_key_whatever_a_read_is_answered_with() {
    let make = |t: &Stage| t.puts("applications/shop", &application());
    keeps_its_secrets::<Application>("applications/shop", make, |_| (), 4).await;
}

#[tokio::test]
async fn a_binding_keeps_key_and_copy_whatever_a_read_is_answered_with() {
    let longer = |t: &Stage| {
        let mut state = t.sealpod.state();
        let value = state.secrets["password"];
        // Another length is another version.
        let value = if value.len() > 20 {
            "short"
        } else {
            "a value of another length"
        };
        state.secrets.insert("password", value);
    };
    keeps_its_secrets::<SecretBinding>("secretbindings/db", binding, longer, 7).await;
}

/// What Kubernetes answers, as it does where its rights or its own store fail.
#[tokio::test]
async fn nor_does_anything_go_because_kubernetes_does_not_answer() {
    let t = stage().await;
    binding(&t);
    t.settles::<SecretBinding>("secretbindings/db").await;
    t.world.kube.take_calls();
    t.looks::<SecretBinding>("secretbindings/db").await.unwrap();
    let reads = t.world.kube.take_calls();
    assert!(reads.len() >= 4, "{reads:?}");
    let before = contents(&t);
    t.sealpod.take_changes();
    for read in reads {
        for (code, reason) in [
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (500, "InternalError"),
            (503, "ServiceUnavailable"),
            (429, "TooManyRequests"),
        ] {
            t.world.kube.refuse(&read, code, reason);
            t.looks::<SecretBinding>("secretbindings/db").await.unwrap_err();
            t.world.kube.allow();
            assert_eq!(contents(&t), before, "{read}: {code}");
            assert_eq!(t.sealpod.take_changes(), [""; 0], "{read}: {code}");
        }
        t.looks::<SecretBinding>("secretbindings/db").await.unwrap();
    }
}
