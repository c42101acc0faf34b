mod memory;

use super::*;

const BYTES: u64 = 16 * 1024 * 1024;

fn in_namespace(pod: &Value, rules: &Rules) -> Result<Value, String> {
    let resources = of_ours(Pod(pod), |name| name == "sealpod", BYTES, rules);
    resources
        .map(|resources| resources.amounts)
        .map_err(|denial| denial.to_string())
}

fn ours(containers: &Value) -> Value {
    in_namespace(&json!({"spec": {"containers": containers}}), &Rules::default()).unwrap()
}

fn annotated(annotations: &Value, containers: &Value) -> Result<Value, String> {
    let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": containers}});
    in_namespace(&pod, &Rules::default())
}

fn plain() -> Value {
    json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "48Mi"}})
}

fn fixed() -> Value {
    json!([{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}])
}

#[test]
fn a_guaranteed_pod_stays_guaranteed() {
    let fixed = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    let limits_only = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    let want = json!({"cpu": "50m", "memory": "48Mi"});
    let got = ours(&json!([
        {"name": "a", "resources": fixed},
        {"name": "b", "resources": limits_only},
        {"name": "sealpod", "resources": {}},
    ]));
    assert_eq!(got, json!({"requests": want, "limits": want}));
}

#[test]
fn any_other_pod_gets_no_cpu_limit() {
    for resources in [
        json!({}),
        json!({"limits": {"memory": "1Gi"}}),
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
        json!({"limits": {"cpu": "1", "memory": 5}}),
    ] {
        assert_eq!(
            ours(&json!([{"name": "a", "resources": resources}])),
            plain(),
            "{resources}"
        );
    }
}

#[test]
fn a_pod_that_is_sized_as_a_whole_is_not_changed_by_ours_but_by_its_annotations() {
    let mut pod = json!({"spec": {"resources": {"limits": {"cpu": "1"}}, "containers": [{"name": "a"}]}});
    assert_eq!(in_namespace(&pod, &Rules::default()), Ok(json!({})));
    pod["metadata"] = json!({"annotations": {annotations::MEMORY_LIMIT: "64Mi"}});
    assert_eq!(
        in_namespace(&pod, &Rules::default()),
        Ok(json!({"limits": {"memory": "64Mi"}}))
    );
}

#[test]
fn annotations_win_over_the_defaults() {
    let app = json!([{"name": "a"}]);
    let all = json!({
        annotations::CPU_REQUEST: "0.01", annotations::CPU_LIMIT: "1", annotations::MEMORY_REQUEST: " 16Mi ",
        annotations::MEMORY_LIMIT: "64Mi",
    });
    let want = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}});
    assert_eq!(annotated(&all, &app), Ok(want));
    let large = annotated(&json!({annotations::MEMORY_REQUEST: "100Mi"}), &app).unwrap();
    assert_eq!(large["limits"]["memory"], "100Mi", "the limit follows a larger request");
    let small = annotated(&json!({annotations::CPU_LIMIT: "2m"}), &app).unwrap();
    assert_eq!(small["requests"]["cpu"], "2m", "the request follows a smaller limit");
    // Of memory a limit below the default request is refused, so a bound of the namespace makes the larger one.
    let request = Amount {
        request: 64 * MIB,
        limit: Some(256 * MIB),
    };
    let wish = Wish {
        request: None,
        limit: Some(16 * MIB),
    };
    let both = request.with(wish, false);
    assert_eq!(
        (both.request, both.limit),
        (16 * MIB, Some(16 * MIB)),
        "so it does of memory"
    );
    let tight = annotated(&json!({annotations::MEMORY_LIMIT: "8Mi"}), &app).unwrap();
    assert_eq!(
        (&tight["requests"]["memory"], &tight["limits"]["memory"]),
        (&json!("8Mi"), &json!("8Mi"))
    );
    // Guaranteed: one amount for both, whichever is written.
    for annotation in [annotations::CPU_REQUEST, annotations::CPU_LIMIT] {
        let got = annotated(&json!({annotation: "100m"}), &fixed()).unwrap();
        assert_eq!(
            (&got["requests"]["cpu"], &got["limits"]["cpu"]),
            (&json!("100m"), &json!("100m"))
        );
    }
}

#[test]
fn what_is_no_amount_is_refused_by_its_annotation() {
    for bad in ["", "much", "-1", "0", "1mi"] {
        let text = annotated(&json!({annotations::CPU_LIMIT: bad}), &json!([])).unwrap_err();
        assert!(
            text.contains("sealpod.dev/cpu-limit") && text.contains("500m"),
            "{bad:?}: {text}"
        );
    }
    let crossed = json!({annotations::MEMORY_REQUEST: "64Mi", annotations::MEMORY_LIMIT: "32Mi"});
    let text = annotated(&crossed, &json!([])).unwrap_err();
    assert!(
        text.contains("memory-request") && text.contains("memory-limit"),
        "{text}"
    );
}

fn bounds(min: Option<&str>, max: Option<&str>, ratio: Option<&str>) -> Bounds {
    let amount = |text: Option<&str>| text.map(|text| quantity::nanos(text).unwrap());
    Bounds {
        min: amount(min),
        max: amount(max),
        ratio: amount(ratio),
        needs_limit: max.is_some() || ratio.is_some(),
    }
}

#[test]
fn a_limit_range_is_kept_to() {
    let app = json!({"spec": {"containers": [{"name": "a"}]}});
    for (cpu, memory, want) in [
        (
            bounds(Some("10m"), None, None),
            bounds(Some("64Mi"), None, None),
            json!({"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}),
        ),
        (
            bounds(None, Some("100m"), None),
            bounds(None, Some("32Mi"), None),
            json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}}),
        ),
        // No amount is written as more than a bound.
        (
            bounds(None, Some("0.0125"), None),
            bounds(None, Some("40M"), None),
            json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "12500000n", "memory": "40M"}}),
        ),
        (
            bounds(None, Some("3m"), Some("1")),
            bounds(None, Some("8400001"), None),
            json!({"requests": {"cpu": "3m", "memory": "8Mi"}, "limits": {"cpu": "3m", "memory": "8400001"}}),
        ),
        (
            bounds(None, None, Some("4")),
            bounds(None, None, Some("2.5")),
            json!({"requests": {"cpu": "50m", "memory": "20132660"}, "limits": {"cpu": "200m", "memory": "48Mi"}}),
        ),
    ] {
        let rules = Rules {
            cpu,
            memory,
            ..Rules::default()
        };
        assert_eq!(in_namespace(&app, &rules), Ok(want), "{rules:?}");
    }
    let rules = Rules {
        memory: bounds(Some("64Mi"), None, None),
        ..Rules::default()
    };
    let guaranteed = in_namespace(&json!({"spec": {"containers": fixed()}}), &rules).unwrap();
    assert_eq!(guaranteed["requests"], guaranteed["limits"]);
    assert_eq!(guaranteed["limits"]["memory"], "64Mi");
}

#[test]
fn a_namespace_that_asks_for_a_limit_on_cpu_gets_one() {
    let rules = Rules {
        cpu: Bounds {
            needs_limit: true,
            ..Bounds::default()
        },
        ..Rules::default()
    };
    let got = in_namespace(&json!({"spec": {"containers": [{"name": "a"}]}}), &rules).unwrap();
    assert_eq!(got["limits"], json!({"cpu": "200m", "memory": "48Mi"}));
    let wished = json!({
        "metadata": {"annotations": {annotations::CPU_REQUEST: "1"}}, "spec": {"containers": [{"name": "a"}]},
    });
    assert_eq!(in_namespace(&wished, &rules).unwrap()["limits"]["cpu"], "1");
}

#[test]
fn the_disk_is_limited_only_beside_a_limit_of_the_users() {
    let disk = |resources: &Value| ["requests", "limits"].map(|kind| resources[kind]["ephemeral-storage"].clone());
    let limited = json!({"limits": {"ephemeral-storage": "1Gi"}});
    let requested = json!({"requests": {"ephemeral-storage": "1Gi"}});
    let (ours, none) = ([json!("32Mi"), json!("32Mi")], [Value::Null, Value::Null]);
    for (spec, want) in [
        (
            json!({"containers": [{"name": "a"}, {"name": "b", "resources": limited}]}),
            &ours,
        ),
        (
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "b", "resources": limited}]}),
            &ours,
        ),
        (
            json!({"containers": [{"name": "a", "resources": limited}], "resources": {"limits": {"cpu": "1"}}}),
            &ours,
        ),
        (json!({"containers": [{"name": "a", "resources": requested}]}), &none),
        (
            json!({"containers": [{"name": "a"}, {"name": "sealpod", "resources": limited}]}),
            &none,
        ),
    ] {
        let got = in_namespace(&json!({"spec": spec}), &Rules::default()).unwrap();
        assert_eq!(&disk(&got), want, "{spec}");
    }
    let least = Rules {
        disk: bounds(Some("50Mi"), None, None),
        ..Rules::default()
    };
    let pod = json!({"spec": {"containers": [{"name": "a", "resources": limited}]}});
    assert_eq!(
        disk(&in_namespace(&pod, &least).unwrap()),
        [json!("50Mi"), json!("50Mi")]
    );
}

#[test]
fn no_amount_overflows() {
    let huge = json!({
        annotations::CPU_REQUEST: "9e18", annotations::CPU_LIMIT: "9e18",
        annotations::MEMORY_LIMIT: "99999999999999999999",
    });
    assert!(annotated(&huge, &json!([])).is_ok());
    let most = json!({annotations::MEMORY_LIMIT: "170141183460469231731687303715884105727n"});
    assert_eq!(
        annotated(&most, &json!([])).unwrap()["limits"]["memory"],
        u64::MAX.to_string()
    );
    let rules = Rules {
        memory: bounds(Some("9E"), None, Some("0.000000001")),
        ..Rules::default()
    };
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    assert!(of_ours(Pod(&pod), |_| false, u64::MAX, &rules).is_ok());
}

#[test]
fn a_limit_on_cpu_that_somebody_else_has_set_stays_where_no_rule_could_be_broken_by_it() {
    let may = |cpu: Bounds, spec: Value| {
        let rules = Rules {
            cpu,
            ..Rules::default()
        };
        of_ours(Pod(&json!({"spec": spec})), |_| false, BYTES, &rules)
            .unwrap()
            .leeway
            .cpu
    };
    let ratio = Bounds {
        ratio: quantity::nanos("4"),
        ..Bounds::default()
    };
    for spec in [
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "a"}], "resources": {"limits": {"cpu": "1"}}}),
    ] {
        assert!(may(Bounds::default(), spec.clone()));
        assert!(!may(ratio, spec.clone()), "of whole pods");
        assert!(!may(bounds(None, Some("1"), None), spec));
    }
}
