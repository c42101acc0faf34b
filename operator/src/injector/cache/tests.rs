use super::super::denial::NotSelected;
use super::super::select::{Files, NotReady};
use super::*;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cache that a test fills.
#[derive(Default)]
pub struct Filled(pub Cache);

impl Filled {
    pub fn put(&self, binding: &Value) {
        let read: binding::Read = serde_json::from_value(binding.clone()).unwrap();
        Filler::new(Arc::clone(&self.0.bindings)).take(Event::Apply(read));
    }
}

pub fn secret_binding(namespace: &str, name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"applicationRef": {"name": "shop"}, "environment": "prod", "sizeLimit": "16Mi"},
        "status": status,
    })
}

fn read(binding: Value) -> Binding {
    let read: binding::Read = serde_json::from_value(binding).unwrap();
    Binding::from(read)
}

fn ready(status: &str) -> Value {
    let condition = json!({
        "type": "Ready", "status": status, "reason": "EnvironmentNotFound", "message": "create it",
        "lastTransitionTime": "2026-11-03T12:00:00Z",
    });
    json!({"conditions": [condition]})
}

#[test]
fn a_namespace_sees_its_own_bindings_only() {
    let filled = Filled::default();
    for (namespace, name) in [("shop", "db"), ("shop", "mail"), ("other", "db")] {
        filled.put(&secret_binding(namespace, name, &json!({})));
    }
    let names = |namespace| -> Vec<String> {
        let known = filled.0.of(namespace);
        known.bindings.iter().map(|binding| binding.name.clone()).collect()
    };
    assert_eq!(names("shop"), ["db", "mail"]);
    assert!(names("absent").is_empty());
    assert_eq!(filled.0.bindings(), 3);
}

/// Objects of one namespace that are good, empty as programs in Go write it, or of no shape that we know.
fn some_of_each(good: &Value) -> Value {
    let specs = [
        good.clone(),
        json!(null),
        json!({"limits": null, "hard": null}),
        json!(7),
        json!({"limits": 7, "hard": 7}),
    ];
    let items = specs.iter().enumerate().map(
        |(at, spec)| json!({"metadata": {"name": format!("r{at}"), "namespace": "shop"}, "spec": spec, "status": at}),
    );
    json!({"metadata": {"resourceVersion": "1"}, "items": items.collect::<Vec<_>>()})
}

/// An API server that answers each list with what is there and each watch with silence. `lists` counts those under way
/// and the most that ever were.
fn answering(bindings: &'static str, lists: &Arc<[AtomicUsize; 2]>) -> Client {
    let lists = Arc::clone(lists);
    let answer = tower::service_fn(move |request: axum::http::Request<kube::client::Body>| {
        let lists = Arc::clone(&lists);
        answer_one(bindings, lists, request)
    });
    Client::new(answer, "sealpod")
}

async fn answer_one(
    bindings: &'static str,
    lists: Arc<[AtomicUsize; 2]>,
    request: axum::http::Request<kube::client::Body>,
) -> Result<axum::http::Response<kube::client::Body>, tower::BoxError> {
    let query = request.uri().query().unwrap_or_default();
    if query.contains("watch=true") {
        std::future::pending::<()>().await;
    }
    assert!(query.contains(&format!("limit={PAGE}")), "{query}");
    let [now, most] = &*lists;
    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    now.fetch_sub(1, Ordering::SeqCst);
    let path = request.uri().path();
    let list = if path.ends_with("/secretbindings") {
        crate::tolerant::tests::list(bindings)
    } else if path.ends_with("/limitranges") {
        some_of_each(&json!({"limits": [{"type": "Container", "min": {"memory": "64Mi"}, "max": null}]}))
    } else {
        some_of_each(&json!({"hard": {"limits.cpu": "4"}}))
    };
    Ok::<_, tower::BoxError>(axum::http::Response::new(kube::client::Body::from(
        list.to_string().into_bytes(),
    )))
}

#[tokio::test]
async fn the_cache_fills_whatever_users_have_written_into_one_object_and_is_ready_only_then() {
    for time in crate::tolerant::tests::UNREADABLE_TIMES {
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        let lists = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let (cache, fill) = follow(&answering(time, &lists), &readiness, stop.clone());
        assert_eq!(readiness.reasons().len(), 3, "each of its lists is still to come");
        let filled = async {
            while !readiness.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        let task = tokio::spawn(fill);
        tokio::time::timeout(Duration::from_secs(5), filled)
            .await
            .expect("one object stopped a list");
        let known = cache.of("shop");
        assert_eq!(known.bindings.len(), 2);
        assert_eq!(known.rules.memory.min, crate::injector::quantity::nanos("64Mi"));
        assert!(
            known.rules.cpu.needs_limit,
            "the quota beside the LimitRange of the same name"
        );
        stop.cancel();
        task.await.unwrap();
        assert_eq!(lists[1].load(Ordering::SeqCst), 1, "one list at a time is in memory");
    }
}

#[test]
fn a_list_that_failed_for_long_is_soon_tried_again() {
    let delays: Vec<Duration> = Soon::default().take(20).collect();
    assert!(
        delays.len() == 20 && delays.iter().all(|delay| *delay <= LONGEST_RETRY),
        "{delays:?}"
    );
}

#[test]
fn a_binding_is_read_with_its_defaults() {
    let binding = read(secret_binding("shop", "db", &ready("True")));
    assert_eq!(binding, super::super::tests::binding("db"));
}

#[test]
fn nothing_of_a_binding_has_to_be_there_and_what_cannot_be_read_takes_no_pod() {
    let mut raw = secret_binding(
        "shop",
        "db",
        &json!({"secrets": null, "conditions": null, "nextChangeAt": null}),
    );
    for field in ["mountPath", "podSelector", "serviceAccountNames", "onChange"] {
        raw["spec"][field] = json!(null);
    }
    let waits = Some(NotReady {
        files: Files::Unknown,
        why: "the controller has not looked at it yet".to_owned(),
    });
    let plain = super::super::tests::binding("db");
    assert_eq!(
        read(raw.clone()),
        Binding {
            not_ready: waits,
            ..plain
        }
    );

    raw["status"] = json!({"secrets": 7});
    assert!(read(raw.clone()).not_ready.is_some());
    for spec in [json!(7), json!({"mountPath": 7}), json!({"onChange": {"signal": {}}})] {
        raw["spec"] = spec;
        let binding = read(raw.clone());
        assert_eq!(
            (binding.name.as_str(), binding.pod_selector),
            ("db", Some(Err(NotSelected::Unreadable)))
        );
    }
    raw["spec"] = json!(null);
    assert!(read(raw).size_limit.is_err());
}

#[test]
fn what_selects_and_what_signals_is_read() {
    let mut raw = secret_binding("shop", "db", &ready("True"));
    raw["metadata"]["deletionTimestamp"] = json!("9999-12-31T23:59:59Z");
    raw["spec"]["mountPath"] = json!("/x");
    raw["spec"]["serviceAccountNames"] = json!(["a"]);
    raw["spec"]["onChange"] = json!({"signal": {"container": "app", "name": "SIGHUP"}});
    raw["spec"]["podSelector"] = json!({"matchLabels": {"app": "web"}});
    let binding = read(raw.clone());
    assert_eq!(
        (binding.mount_path.as_str(), binding.signals.as_deref()),
        ("/x", Some("app"))
    );
    assert!(binding.deleted && binding.service_accounts == ["a"] && binding.pod_selector.unwrap().is_ok());
    assert!(!binding.calls);
    raw["spec"]["onChange"] = json!({"http": {"port": 8080, "path": "/reload"}});
    let binding = read(raw.clone());
    assert!(binding.calls && binding.signals.is_none());
    raw["spec"]["onChange"] = json!({"restart": "Rollout"});
    raw["spec"]["podSelector"] = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    let binding = read(raw);
    assert_eq!(
        (binding.signals, binding.pod_selector),
        (None, Some(Err(NotSelected::InvalidSelector)))
    );
}

#[test]
fn what_is_not_ready_says_why_in_few_words() {
    let reason = |status| Some(read(secret_binding("shop", "db", &status)).not_ready?.why);
    assert_eq!(reason(ready("True")), None);
    assert_eq!(reason(ready("False")).unwrap(), "EnvironmentNotFound: create it");
    assert_eq!(reason(json!({})).unwrap(), "the controller has not looked at it yet");
    let mut long = ready("False");
    long["conditions"][0]["message"] = json!("é".repeat(5_000));
    assert!(reason(long).unwrap().len() <= 200);
}

/// As a test of the controller holds it to that page, too.
#[test]
fn the_conditions_that_keep_files_from_pods_have_the_names_that_the_documentation_has() {
    let documentation = include_str!("../../../../docs/OPERATOR.md");
    for kind in binding::OF_FILES {
        assert!(documentation.contains(&format!("| `{kind}` |")), "{kind}");
    }
}

#[test]
fn the_next_change_is_read_where_it_can_be() {
    let of = |status: &Value| read(secret_binding("shop", "db", status)).changes;
    let changes = |time: &str| of(&json!({"nextChangeAt": time}));
    assert_eq!(changes("2026-11-03T12:00:00Z").unwrap().at.as_second(), 1_793_707_200);
    for time in ["2026-01-01T00:00:00+99:99", ""] {
        assert_eq!(changes(time), None, "{time}");
    }
    let turn = |name: &str, change: &str| json!({"name": name, "change": change});
    let (long, new) = ("n".repeat(5_000), turn("x", "BrandNew"));
    let secrets = [
        new,
        turn(&long, "Ends"),
        turn("a", "Begins"),
        turn("b", "Ends"),
        turn("c", "Ends"),
    ];
    let at = "2026-11-03T12:00:00Z";
    let told = of(&json!({"nextChangeAt": at, "nextChange": {"secrets": secrets, "more": -7}})).unwrap();
    let begins: Vec<bool> = told.secrets.iter().map(|turn| turn.begins).collect();
    assert_eq!((begins, told.more), (vec![false, true, false], 0));
    assert!(told.secrets[0].name.len() <= 200, "what is kept of a name");
    for nothing in [json!(null), json!({"secrets": null, "more": null})] {
        let told = of(&json!({"nextChangeAt": at, "nextChange": nothing})).unwrap();
        assert_eq!((told.secrets.len(), told.more), (0, 0));
    }
}

#[test]
fn secrets_that_pods_do_not_get_are_told_by_their_state_and_counted() {
    let secret = |name: &str, state: &str| json!({"name": name, "state": state, "version": 1});
    let mut secrets = vec![secret("a", "Active"), secret("b", "Denied"), secret("c", "BrandNew")];
    secrets.extend((0..5).map(|n| secret(&format!("m{n}"), "Missing")));
    let binding = read(secret_binding("shop", "db", &json!({"secrets": secrets})));
    let told: Vec<_> = binding
        .unavailable
        .iter()
        .map(|u| (u.state, u.names.len(), u.more))
        .collect();
    assert_eq!(told, [("Missing", 3, 2), ("Denied", 1, 0)]);
}

#[test]
fn a_status_as_the_controller_writes_it_is_read() {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use sealpod_crds::{ChangeKind, NextChange, SecretBindingStatus, SecretChange, SecretState, SecretStatus};
    let at = Time("2026-11-03T12:00:00Z".parse().unwrap());
    let withheld = [SecretState::Missing, SecretState::Denied, SecretState::Inactive];
    let status = SecretBindingStatus {
        next_change_at: Some(at.clone()),
        next_change: Some(NextChange {
            secrets: [ChangeKind::Begins, ChangeKind::Ends]
                .map(|change| SecretChange {
                    name: "password".to_owned(),
                    change,
                })
                .to_vec(),
            more: 4,
        }),
        secrets: withheld
            .map(|state| SecretStatus {
                name: "password".to_owned(),
                version: None,
                state,
            })
            .to_vec(),
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: "False".to_owned(),
            reason: "EnvironmentNotFound".to_owned(),
            message: "create it".to_owned(),
            last_transition_time: at.clone(),
            observed_generation: None,
        }],
        ..SecretBindingStatus::default()
    };
    let binding = read(secret_binding("shop", "db", &serde_json::to_value(status).unwrap()));
    assert_eq!(binding.not_ready.unwrap().why, "EnvironmentNotFound: create it");
    let changes = binding.changes.unwrap();
    let turns: Vec<_> = changes
        .secrets
        .iter()
        .map(|turn| (turn.name.as_str(), turn.begins))
        .collect();
    assert_eq!((changes.at, changes.more), (at.0, 4));
    assert_eq!(turns, [("password", true), ("password", false)]);
    let told: Vec<_> = binding.unavailable.iter().map(|u| (u.state, &*u.names)).collect();
    let password = &["password".to_owned()][..];
    assert_eq!(
        told,
        [("Missing", password), ("Denied", password), ("Inactive", password)]
    );
}

#[test]
fn an_object_as_large_as_etcd_takes_is_read_in_little_more_than_its_text() {
    use crate::injector::tests::memory;
    const NAME: &str = "injector::cache::tests::an_object_as_large_as_etcd_takes_is_read_in_little_more_than_its_text";
    if let Some(grown) = memory::grown_in_a_process_of(NAME) {
        assert!(grown < 8 << 20, "grown by {grown} bytes");
        return;
    }
    let maps = r#"{"a":1},"#.repeat(180_000);
    let text = format!(
        r#"{{"metadata":{{"name":"db","namespace":"shop"}},"spec":{{"files":[{maps}7]}},"status":{{"secrets":[],"x":[{maps}7]}}}}"#
    );
    let before = memory::now();
    let read: binding::Read = serde_json::from_str(&text).unwrap();
    assert!(read.spec.is_ok());
    memory::tell_growth(before);
}
