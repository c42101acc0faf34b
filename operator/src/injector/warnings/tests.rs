use serde_json::{Value, json};

use super::super::cache::Known;
use super::super::plan::plan;
use super::super::plan::tests::{annotated, planned};
use super::super::tests::{binding, known, pod_with, settings};
use super::*;

fn warnings_of(pod: &Value) -> Vec<String> {
    planned(pod, &[binding("db")]).unwrap().warnings
}

#[test]
fn a_binding_that_is_not_ready_is_a_warning_with_its_reason() {
    let waiting = Binding {
        not_ready: Some("EnvironmentNotFound: create it".to_owned()),
        ..binding("db")
    };
    let plan = planned(&pod_with(&json!({})), &[waiting]).unwrap();
    assert_eq!(
        plan.warnings,
        ["SecretBinding \"db\" is not ready, and the pod waits until it is: \"EnvironmentNotFound: create it\""]
    );
}

#[test]
fn unknown_annotations_are_warnings_with_the_nearest_valid_name() {
    let pod = annotated(
        json!({
            "sealpod.dev/bindings": "db", "sealpod.dev/colour": "red", "sealpod.dev/inject": "true",
            "sealpod.dev.example/binding": "x", "other/binding": "x", annotations::CONTAINERS: "app",
        }),
        &json!({}),
    );
    assert_eq!(
        warnings_of(&pod),
        [
            "unknown annotation \"sealpod.dev/bindings\" has no effect; did you mean sealpod.dev/binding?",
            "unknown annotation \"sealpod.dev/colour\" has no effect; there are binding, containers, mode, \
             after, exec, cpu-request, cpu-limit, memory-request, memory-limit, metrics-versions",
            "sealpod.dev/inject is a label; as an annotation it has no effect",
        ]
    );
}

#[test]
fn what_works_but_surprises_is_a_warning() {
    let text = warnings_of(&annotated(
        json!({annotations::MODE: "sidecar"}),
        &json!({"restartPolicy": "Never"}),
    ));
    assert!(text[0].contains("keeps this pod from ever completing"), "{text:?}");
    let text = warnings_of(&annotated(json!({annotations::AFTER: "vpn"}), &json!({})));
    assert!(text[0].contains("there is no init container \"vpn\""), "{text:?}");
    let text = warnings_of(&pod_with(&json!({"shareProcessNamespace": true})));
    assert!(text[0].contains("shareProcessNamespace"), "{text:?}");
    assert_eq!(warnings_of(&pod_with(&json!({}))), [""; 0]);
}

#[test]
fn who_may_read_the_keys_in_a_shared_process_namespace_is_told() {
    let spec = json!({"shareProcessNamespace": true, "securityContext": {"runAsUser": 7}});
    let told = |signals: Option<&str>| {
        let signalling = Binding {
            signals: signals.map(str::to_owned),
            ..binding("mail")
        };
        planned(&pod_with(&spec), &[binding("db"), signalling])
            .unwrap()
            .warnings
    };
    assert_eq!(
        told(None),
        ["with shareProcessNamespace, a container that runs as root may read the keys of this pod's SecretBindings"]
    );
    assert_eq!(
        told(Some("app")),
        [
            "with shareProcessNamespace and onChange.signal, a container that runs as root, or as the user of container \
          \"app\" and with the group 64999, may read the keys of this pod's SecretBindings"
        ]
    );
}

#[test]
fn a_pod_that_cannot_find_the_server_is_told_so() {
    for (spec, told) in [
        (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"}), true),
        (json!({"hostNetwork": true}), true),
        (json!({"dnsPolicy": "Default"}), true),
        (
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            false,
        ),
        (json!({"hostNetwork": true, "dnsPolicy": "None"}), false),
        (json!({"dnsPolicy": "ClusterFirst"}), false),
    ] {
        let text = warnings_of(&pod_with(&spec));
        assert_eq!(
            text.iter().any(|w| w.contains("cluster's DNS")),
            told,
            "{spec}: {text:?}"
        );
    }
    let mut elsewhere = settings();
    elsewhere.server_url = "https://sealpod.example:7100".to_owned();
    let pod = pod_with(&json!({"hostNetwork": true}));
    let plan = plan(Pod(&pod), "shop", &known(&[binding("db")]), &elsewhere).unwrap();
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn secrets_that_the_pod_will_not_get_are_warnings() {
    let of = |state, names: &[&str], more| Unavailable {
        state,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        more,
    };
    let binding = Binding {
        unavailable: vec![
            of("Missing", &["a", "b"], 3),
            of("Denied", &["c"], 0),
            of("Inactive", &["d"], 0),
        ],
        ..binding("db")
    };
    assert_eq!(
        planned(&pod_with(&json!({})), &[binding]).unwrap().warnings,
        [
            "SecretBinding \"db\": there is no value of \"a\", \"b\" and 3 more (Missing)",
            "SecretBinding \"db\": its key may not read \"c\" (Denied)",
            "SecretBinding \"db\": no version is active now of \"d\" (Inactive)",
        ]
    );
}

#[test]
fn a_version_that_ends_within_an_hour_is_a_warning() {
    let at = |time: &str| time.parse::<jiff::Timestamp>().unwrap();
    let told = |changes: &str| {
        let binding = Binding {
            changes_at: Some(at(changes)),
            ..binding("db")
        };
        let known = Known {
            now: at("2026-11-03T12:00:00Z"),
            ..known(&[binding])
        };
        plan(Pod(&pod_with(&json!({}))), "shop", &known, &settings())
            .unwrap()
            .warnings
    };
    let text = told("2026-11-03T12:59:00Z");
    assert!(
        text[0].contains("\"db\"") && text[0].contains("2026-11-03T12:59:00Z"),
        "{text:?}"
    );
    assert_eq!(told("2026-11-03T13:01:00Z"), [""; 0]);
    assert_eq!(told("2026-11-03T11:59:00Z"), [""; 0], "what is over is no news");
}
