use serde_json::{Value, json};

use super::super::cache::Known;
use super::super::cache::tests::{Filled, secret_binding};
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
        not_ready: Some(NotReady {
            files: Files::Awaited,
            why: "EnvironmentNotFound: create it".to_owned(),
        }),
        ..binding("db")
    };
    let plan = planned(&pod_with(&json!({})), &[waiting]).unwrap();
    assert_eq!(
        plan.warnings,
        ["SecretBinding \"db\" is not ready, and the pod waits until it is: \"EnvironmentNotFound: create it\""]
    );
}

/// The warning of a binding whose status has these conditions: type, status, reason and message.
fn with_conditions(all: &[[&str; 4]]) -> String {
    let condition = |[kind, status, reason, message]: &[&str; 4]| json!({"type": kind, "status": status, "reason": reason, "message": message});
    let status = json!({"conditions": all.iter().map(condition).collect::<Vec<_>>()});
    let filled = Filled::default();
    filled.put(&secret_binding("shop", "db", &status));
    let plan = plan(Pod(&pod_with(&json!({}))), "shop", &filled.0.of("shop"), &settings());
    plan.unwrap().warnings.join("\n")
}

#[test]
fn whether_the_pod_waits_is_told_by_the_condition_that_keeps_the_binding_from_being_ready() {
    let owned = "Secret `copy` is not this binding's: delete it, or choose another name";
    let granted = ["AccessGranted", "True", "Granted", "x"];
    let resolved = ["SecretsResolved", "True", "Resolved", "1 secret is delivered"];
    let fresh = ["KeyFresh", "True", "Fresh", "x"];
    for (conditions, want) in [
        (
            vec![
                ["Ready", "False", "SecretNotOwned", owned],
                granted,
                resolved,
                fresh,
                ["KubernetesSecretSynced", "False", "SecretNotOwned", owned],
            ],
            "though its files are delivered: \"SecretNotOwned: Secret `copy`",
        ),
        (
            vec![
                ["Ready", "False", "KubernetesRefused", "no"],
                granted,
                ["SecretsResolved", "False", "NeedsPath", "no file name"],
                fresh,
                ["KubernetesSecretSynced", "False", "KubernetesRefused", "no"],
            ],
            "though its files are delivered: \"KubernetesRefused",
        ),
        (
            vec![
                ["Ready", "False", "SecretsMissing", "there is no `a`"],
                granted,
                ["SecretsResolved", "False", "SecretsMissing", "there is no `a`"],
                fresh,
            ],
            "and the pod waits until it is: \"SecretsMissing: there is no `a`\"",
        ),
        (
            vec![
                ["Ready", "False", "KeyRejected", "a new one follows"],
                granted,
                ["SecretsResolved", "Unknown", "KeyRejected", "nothing can be asked"],
                ["KeyFresh", "False", "KeyRejected", "a new one follows"],
            ],
            "and the pod waits until it is: \"KeyRejected",
        ),
        // Refused before anything was asked: what else there is, is from before. The key Secret may be somebody else's.
        (
            vec![
                ["Ready", "False", "SecretNotOwned", "no"],
                resolved,
                ["Stalled", "True", "SecretNotOwned", "no"],
            ],
            "and the pod may have to wait until it is: \"SecretNotOwned",
        ),
        (
            vec![["Ready", "Unknown", "Paused", "on request"], resolved, fresh],
            "and the pod may have to wait until it is: \"Paused",
        ),
        (
            vec![],
            "and the pod may have to wait until it is: \"the controller has not looked at it yet\"",
        ),
    ] {
        let text = with_conditions(&conditions);
        assert!(text.contains(want) && text.lines().count() == 1, "{want}\n{text}");
    }
}

#[test]
fn a_long_reason_fills_what_a_warning_may_have() {
    let names: Vec<_> = (0..5)
        .map(|n| format!("`team/service-{n}/database/password`"))
        .collect();
    let missing = format!(
        "there is no {} and 3 more: set a value, or make it optional",
        names.join(", ")
    );
    for (message, least) in [
        (missing.clone(), MOST_BYTES - 2),
        // Escaped, each takes several bytes.
        ("\u{1b}\"é".repeat(1_000), MOST_BYTES - 12),
        ("é".repeat(1_000), MOST_BYTES - 4),
    ] {
        let all = [
            ["Ready", "False", "SecretsMissing", &message],
            ["SecretsResolved", "False", "SecretsMissing", &message],
        ];
        let text = with_conditions(&all);
        assert!(
            text.ends_with("\"…") && (least..=MOST_BYTES).contains(&text.len()),
            "{}: {text}",
            text.len()
        );
    }
    let short = [["Ready", "False", "SecretsMissing", "there is no `a`"]];
    assert!(with_conditions(&short).ends_with("there is no `a`\""));
}

#[test]
fn that_nothing_can_tell_the_app_of_a_change_is_a_warning() {
    let of = |signals: Option<&str>, calls| Binding {
        signals: signals.map(str::to_owned),
        calls,
        ..binding("db")
    };
    for (binding, mode, spec, told) in [
        (of(Some("absent"), false), "init", json!({}), true),
        (of(None, true), "init", json!({}), true),
        (
            of(None, true),
            "init",
            json!({"hostNetwork": true, "dnsPolicy": "None"}),
            true,
        ),
        (of(None, false), "init", json!({}), false),
        (of(None, true), "sidecar", json!({}), false),
    ] {
        let pod = annotated(json!({annotations::MODE: mode}), &spec);
        let text = planned(&pod, &[binding]).unwrap().warnings;
        let want = [
            "sealpod.dev/mode: init leaves nothing in the pod that could tell it of a change, so onChange has no effect",
        ];
        assert_eq!(text, &want[..usize::from(told)], "{spec}");
    }
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
fn an_annotation_in_other_case_is_another_one_and_told_to_be_unknown() {
    for (key, told) in [
        ("Sealpod.dev/containers", "did you mean sealpod.dev/containers?"),
        ("SEALPOD.DEV/MODE", "did you mean sealpod.dev/mode?"),
        ("sealpod.dev/Exec", "did you mean sealpod.dev/exec?"),
        ("Sealpod.dev/inject", "is a label"),
    ] {
        let text = warnings_of(&annotated(json!({key: "app"}), &json!({})));
        assert!(text.len() == 1 && text[0].contains(told), "{key}: {text:?}");
    }
    for key in ["sealpod.dev.example/mode", "Sealpod.devs/mode", "mode"] {
        assert_eq!(
            warnings_of(&annotated(json!({key: "app"}), &json!({}))),
            [""; 0],
            "{key}"
        );
    }
}

#[test]
fn many_annotations_without_a_meaning_push_nothing_else_out() {
    let waiting = Binding {
        not_ready: Some(NotReady {
            files: Files::Awaited,
            why: "EnvironmentNotFound: create it".to_owned(),
        }),
        ..binding("db")
    };
    let mut pod = pod_with(&json!({"containers": [{"name": "app"}, {"name": "istio-proxy"}]}));
    for number in 0..100 {
        pod["metadata"]["annotations"][format!("sealpod.dev/x{number}")] = json!("");
    }
    let warnings = planned(&pod, &[waiting]).unwrap().warnings;
    assert!(warnings[0].contains("is not ready"), "{warnings:?}");
    assert!(warnings[1].contains("Istio's proxy"), "{warnings:?}");
    assert_eq!(warnings.len(), 2 + UNKNOWN);
    assert!(
        warnings[2..]
            .iter()
            .all(|warning| warning.contains("unknown annotation"))
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

/// What is told at noon of a change at that time.
fn told_of_change(time: &str, secrets: &[(&str, bool)], more: usize) -> Vec<String> {
    let at = |time: &str| time.parse::<jiff::Timestamp>().unwrap();
    let turn = |(name, begins): &(&str, bool)| Turn {
        name: (*name).to_owned(),
        begins: *begins,
    };
    let change = Change {
        at: at(time),
        secrets: secrets.iter().map(turn).collect(),
        more,
    };
    let binding = Binding {
        changes: Some(Box::new(change)),
        ..binding("db")
    };
    let known = Known {
        now: at("2026-11-03T12:00:00Z"),
        ..known(&[binding])
    };
    plan(Pod(&pod_with(&json!({}))), "shop", &known, &settings())
        .unwrap()
        .warnings
}

#[test]
fn a_version_that_ends_within_an_hour_is_a_warning() {
    let told = |time: &str| told_of_change(time, &[], 0);
    assert_eq!(
        told("2026-11-03T12:59:00Z"),
        [
            "SecretBinding \"db\": a version of its secrets ends or begins at 2026-11-03T12:59:00Z, which is within an hour"
        ]
    );
    assert_eq!(told("2026-11-03T13:01:00Z"), [""; 0]);
    assert_eq!(told("2026-11-03T11:59:00Z"), [""; 0], "what is over is no news");
}

#[test]
fn what_ends_within_an_hour_is_named() {
    let told = |secrets: &[(&str, bool)], more| {
        let all = told_of_change("2026-11-03T12:59:00Z", secrets, more);
        let [text] = all.as_slice() else { panic!("{all:?}") };
        assert!(text.len() <= MOST_BYTES, "{text}");
        let text = text.strip_prefix("SecretBinding \"db\": ").unwrap();
        let end = " at 2026-11-03T12:59:00Z, which is within an hour";
        text.strip_suffix(end).unwrap().to_owned()
    };
    assert_eq!(told(&[("db-password", false)], 0), "\"db-password\" ends");
    assert_eq!(
        told(&[("a", false), ("b", true)], 2),
        "\"a\" ends, a newer version of \"b\" begins and 2 more"
    );
    // What there is no room for is counted, and the time is never cut off.
    let long = ["a", "b", "c"].map(|name| name.repeat(200));
    let cut = told(&long.each_ref().map(|name| (name.as_str(), false)), 2);
    assert_eq!(cut, format!("\"{}\"… ends and 4 more", "a".repeat(100)));
    let escaped = "\u{1b}".repeat(100);
    assert_eq!(told(&[(&escaped, false)], 0), "a version of its secrets ends or begins");
}
