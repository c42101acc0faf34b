use super::super::containers::TOKEN_MOUNT;
use super::super::select::Binding;
use super::super::tests::{binding, known, pod_with, settings};
use super::*;
use proptest::prelude::*;
use sealpod_core::kubernetes::annotations;

fn review(request: &Value) -> Value {
    let mut whole = json!({
        "uid": "0f7e", "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
        "namespace": "shop", "object": pod_with(&json!({})), "userInfo": {"username": "u"}, "novel": 1,
    });
    for (key, value) in request.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": API_VERSION, "kind": KIND, "request": whole})
}

fn parse(body: &[u8]) -> Result<Request, Malformed> {
    open(body)?.read()
}

fn respond(request: &Value, bindings: &[Binding]) -> Value {
    let request = parse(review(request).to_string().as_bytes()).unwrap();
    let decision = decide(&request, &known(bindings), &settings());
    answer(&request, decision)
}

#[test]
fn a_pod_is_answered_with_operations_that_apply() {
    let answer = respond(&json!({}), &[binding("db")]);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("0f7e"), &json!(true)));
    assert_eq!(response["patchType"], "JSONPatch");
    let operations = data_encoding::BASE64
        .decode(response["patch"].as_str().unwrap().as_bytes())
        .unwrap();
    let operations: Patch = serde_json::from_slice(&operations).unwrap();
    let mut pod = pod_with(&json!({}));
    json_patch::patch(&mut pod, &operations).unwrap();
    assert_eq!(pod["spec"]["containers"][1]["name"], "sealpod");
}

#[test]
fn a_refusal_carries_its_sentence_and_no_patch() {
    let pod = {
        let mut pod = pod_with(&json!({}));
        pod["metadata"]["annotations"] = json!({"sealpod.dev/binding": "nowhere"});
        pod
    };
    let answer = respond(&json!({"object": pod}), &[binding("db")]);
    let response = &answer["response"];
    assert_eq!(response["allowed"], false);
    assert!(response.get("patch").is_none());
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("SecretBinding \"nowhere\"") && message.contains("namespace \"shop\""),
        "{message}"
    );
}

#[test]
fn the_namespace_is_the_requests_and_not_the_objects() {
    let mut pod = pod_with(&json!({}));
    pod["metadata"]["namespace"] = json!("other");
    let answer = respond(&json!({"object": pod}), &[]);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("namespace \"shop\""), "{message}");
}

#[test]
fn what_does_not_ask_is_left_alone() {
    let mut unlabelled = pod_with(&json!({}));
    unlabelled["metadata"]["labels"] = json!({"sealpod.dev/inject": "yes"});
    for request in [
        json!({"object": unlabelled}),
        json!({"operation": "UPDATE"}),
        json!({"operation": "DELETE"}),
    ] {
        let answer = respond(&request, &[]);
        assert_eq!(answer["response"], json!({"uid": "0f7e", "allowed": true}), "{request}");
    }
}

#[test]
fn what_is_no_pod_is_refused() {
    for request in [
        json!({"resource": {"group": "apps", "resource": "deployments"}}),
        json!({"resource": {"resource": "pods"}, "subResource": "exec"}),
    ] {
        let answer = respond(&request, &[binding("db")]);
        assert_eq!(answer["response"]["allowed"], false, "{request}");
    }
}

#[test]
fn warnings_are_bounded() {
    let mut pod = pod_with(&json!({}));
    for i in 0..100 {
        pod["metadata"]["annotations"][format!("sealpod.dev/{}{i}", "é".repeat(300))] = json!("");
    }
    let answer = respond(&json!({"object": pod}), &[binding("db")]);
    let warnings = answer["response"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), WARNINGS);
    assert!(
        warnings
            .iter()
            .all(|warning| warning.as_str().unwrap().len() <= WARNING_BYTES)
    );
}

#[test]
fn another_version_is_refused_by_name() {
    let mut other = review(&json!({}));
    other["apiVersion"] = json!("admission.k8s.io/v1beta1");
    assert_eq!(parse(other.to_string().as_bytes()).unwrap_err(), Malformed::Version);
    assert_eq!(
        parse(b"{\"canary\"").unwrap_err().to_string(),
        "the body is not an AdmissionReview with a request"
    );
}

/// Any JSON, with a liking for the names that pods have.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "metadata",
            "annotations",
            "labels",
            "spec",
            "containers",
            "initContainers",
            "volumes",
            "volumeMounts",
            "name",
            "mountPath",
            "securityContext",
            "supplementalGroups",
            "resources",
            "limits",
            "requests",
            "cpu",
            "memory",
            "ports",
            "containerPort",
            "env",
            "value",
            "readOnly",
            "hostNetwork",
            "restartPolicy",
            "sealpod.dev/binding",
            "sealpod.dev/containers",
            "sealpod.dev/mode",
            "sealpod.dev/after",
            "sealpod.dev/exec",
            "sealpod.dev/cpu-limit",
            "shareProcessNamespace",
            "runAsUser",
            "sealpod.dev/injected",
            "sealpod.dev/x",
        ])
        .prop_map(str::to_owned),
        "[a-z/~$.-]{0,8}",
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "db",
            "app",
            "sealpod",
            "sealpod-init",
            "SEALPOD_SETTINGS",
            "istio-proxy",
            "1Gi",
            "true"
        ])
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A pod that is one as far as its outline goes, with anything in any place.
fn almost_a_pod() -> impl Strategy<Value = Value> {
    let container = (
        any_json(),
        prop::sample::select(vec!["app", "sealpod", "istio-proxy", "b"]),
    )
        .prop_map(|(any, name)| {
            let mut container = if any.is_object() { any } else { json!({}) };
            container["name"] = json!(name);
            container
        });
    let container = container.boxed();
    let some = prop::collection::vec(container, 1..3);
    (any_json(), any_json(), some.clone(), some, any::<bool>()).prop_map(
        |(annotations, spec, regular, init, has_init)| {
            let mut pod = json!({"metadata": {"labels": {"sealpod.dev/inject": "true"}, "annotations": annotations}});
            pod["spec"] = if spec.is_object() { spec } else { json!({}) };
            pod["spec"]["containers"] = Value::from(regular);
            if has_init {
                pod["spec"]["initContainers"] = Value::from(init);
            }
            pod
        },
    )
}

/// Whether all of `part` is in `whole`, lists in the same order with others between.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(key, value)| value.is_null() || whole.get(key).is_some_and(|found| holds(found, value))),
        (Value::Array(whole), Value::Array(part)) => {
            let mut whole = whole.iter();
            part.iter().all(|value| whole.any(|found| holds(found, value)))
        }
        _ => whole == part || part.is_null(),
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers"))
}

fn mounts(pod: &Value) -> Vec<String> {
    let mounts = containers(pod)
        .filter_map(|container| container["volumeMounts"].as_array())
        .flatten();
    mounts
        .filter_map(|mount| Some(mount["mountPath"].as_str()?.to_owned()))
        .collect()
}

/// A pod that can be injected, with what else pods have.
fn a_pod() -> impl Strategy<Value = Value> {
    let resources = prop::sample::select(vec![
        json!({}),
        json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
        json!({"requests": {"cpu": "100m"}, "novel": [1]}),
    ]);
    let container = (resources, any::<bool>(), any_json()).prop_map(|(resources, mounted, novel)| {
        let mut container = json!({
            "image": "x", "resources": resources, "novel": novel, "securityContext": {"runAsUser": 7},
            "env": [{"name": "A", "value": "$(B)"}],
        });
        if mounted {
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/data", "readOnly": true}]);
        }
        container
    });
    let named = |prefix: &'static str, containers: Vec<Value>| -> Vec<Value> {
        let numbered = containers.into_iter().enumerate();
        let with_name = numbered.map(|(n, mut container)| {
            container["name"] = match n {
                0 => json!(prefix),
                n => json!(format!("{prefix}-{n}")),
            };
            container
        });
        with_name.collect()
    };
    let some = prop::collection::vec(container.boxed(), 1..4);
    let policy = prop::sample::select(vec!["Always", "Never", "OnFailure"]);
    let mode = prop::sample::select(vec!["auto", "sidecar", "native", "init"]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (some.clone(), some, policy, mode, flags, any_json()).prop_map(
        move |(regular, init, policy, mode, (exec, host, has_init), novel)| {
            let mut pod = json!({
                "metadata": {"labels": {INJECT_LABEL: "true", "a": "b"}, "annotations": {annotations::MODE: mode, "a/b": "~"}},
                "spec": {
                    "containers": named("app", regular), "restartPolicy": policy, "hostNetwork": host,
                    "volumes": [{"name": "v", "emptyDir": {}}], "novel": novel,
                    "securityContext": {"supplementalGroups": [1], "fsGroup": 2},
                },
            });
            if exec {
                pod["metadata"]["annotations"][annotations::EXEC] = json!("app");
            }
            if has_init {
                pod["spec"]["initContainers"] = Value::from(named("istio-proxy", init));
            }
            pod
        },
    )
}

/// Annotations with what is valid for each, for a pod of [`a_pod`].
fn annotations() -> impl Strategy<Value = Value> {
    let of = |name: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values)).prop_map(move |value| value.map(|value| (name, value)))
    };
    let amounts = || vec!["1m", "0.5", "100M", "2Gi", "1"];
    let all = [
        of(annotations::AFTER, vec!["istio-proxy", "istio-proxy-1", "absent"]),
        of(annotations::CONTAINERS, vec!["app"]),
        of(annotations::CPU_REQUEST, amounts()),
        of(annotations::CPU_LIMIT, amounts()),
        of(annotations::MEMORY_REQUEST, amounts()),
        of(annotations::MEMORY_LIMIT, amounts()),
    ];
    Vec::from(all).prop_map(|all| {
        all.into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect()
    })
}

/// Three bindings, of which some meet each other, or a place that is taken.
fn some_bindings() -> impl Strategy<Value = Vec<Binding>> {
    let path = prop_oneof![
        6 => "/[a-c]{1,2}(/[a-c]{1,2}){0,2}",
        1 => prop::sample::select(vec!["/proc/x", "/data", "/data/in", "/var/run/secrets", "/sealpod", "/var/run/sealpod/a"])
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(path, 3).prop_map(|paths| {
        let named = ["a", "b", "c"].into_iter().zip(paths);
        named
            .map(|(name, mount_path)| Binding {
                mount_path,
                ..binding(name)
            })
            .collect()
    })
}

fn applied(object: &Value, decision: &Decision) -> Option<Value> {
    let mut patched = object.clone();
    match decision {
        Decision::Injected { patch, .. } => json_patch::patch(&mut patched, patch).expect("the operations apply"),
        Decision::Unchanged { .. } => {}
        Decision::Denied(_) => return None,
    }
    Some(patched)
}

fn asked(object: &Value, bindings: &[Binding]) -> Decision {
    let request = parse(review(&json!({"object": object})).to_string().as_bytes()).unwrap();
    decide(&request, &known(bindings), &settings())
}

/// Where our volumes are mounted in the user's containers.
fn of_ours(pod: &Value) -> Vec<(String, String)> {
    let users = containers(pod).filter(|container| !plan::is_ours(plan::name_of(container)));
    let mounts = users
        .filter_map(|container| container["volumeMounts"].as_array())
        .flatten();
    let ours = mounts.filter(|mount| plan::name_of(mount).starts_with("sealpod-"));
    ours.map(|mount| {
        (
            plan::name_of(mount).to_owned(),
            mount["mountPath"].as_str().unwrap_or_default().to_owned(),
        )
    })
    .collect()
}

proptest! {
    #[test]
    fn a_copy_gets_what_a_fresh_pod_gets_whatever_both_ask_for(
        object in a_pod(), first in annotations(), second in annotations(), before in some_bindings(), today in some_bindings(),
        stolen in any::<bool>(),
    ) {
        let with = |pod: &Value, all: &Value| {
            let mut pod = pod.clone();
            let there = pod["metadata"]["annotations"].as_object_mut().unwrap();
            there.retain(|name, _| [annotations::MODE, annotations::EXEC, annotations::INJECTED].contains(&name.as_str()));
            there.extend(all.as_object().unwrap().clone());
            pod
        };
        let decision = asked(&with(&object, &first), &before);
        let Some(mut then) = applied(&with(&object, &first), &decision) else {
            // The amounts may cross, the paths may meet; nothing else is in the way of such a pod.
            let Decision::Denied(denial) = decision else { unreachable!() };
            prop_assert!(["conflict", "annotation"].contains(&denial.word()), "{denial}");
            return Ok(());
        };
        if stolen {
            let volumes = then["spec"]["volumes"].as_array().unwrap();
            let key = volumes.iter().map(plan::name_of).find(|name| name.starts_with("sealpod-key-"));
            let mount = json!({"name": key, "mountPath": "/stolen"});
            then["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount.clone());
            let mut fresh = with(&object, &first);
            fresh["spec"]["containers"][0]["volumeMounts"] = json!([mount]);
            let is_refused = matches!(asked(&fresh, &before), Decision::Denied(Denial::MountsOurs { .. }));
            prop_assert!(is_refused);
        }
        let (copy, fresh) = (with(&then, &second), with(&object, &second));
        match (applied(&copy, &asked(&copy, &today)), applied(&fresh, &asked(&fresh, &today))) {
            (Some(copy), Some(fresh)) => {
                let again = asked(&copy, &today);
                prop_assert!(matches!(again, Decision::Unchanged { .. }), "{again:?}");
                let (mut got, mut want) = (of_ours(&copy), of_ours(&fresh));
                got.sort();
                want.sort();
                prop_assert_eq!(got, want);
                let names = |pod: &Value| {
                    let mut all: Vec<_> = pod["spec"]["volumes"].as_array().unwrap().iter().map(|v| plan::name_of(v).to_owned()).collect();
                    all.sort();
                    (all, containers(pod).map(|c| plan::name_of(c).to_owned()).collect::<Vec<_>>())
                };
                prop_assert_eq!(names(&copy), names(&fresh));
            }
            (copy, fresh) => prop_assert_eq!(copy.is_none(), fresh.is_none()),
        }
    }

    #[test]
    fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), json in any_json()) {
        let _ = parse(&body);
        for text in [json.to_string(), json!({"apiVersion": API_VERSION, "kind": KIND, "request": json}).to_string()] {
            if let Ok(request) = parse(text.as_bytes()) {
                let decision = decide(&request, &known(&[binding("db")]), &settings());
                answer(&request, decision);
            }
        }
    }

    #[test]
    fn whatever_is_admitted_applies_and_is_admitted_again_without_a_change(object in almost_a_pod()) {
        let ask = |object: &Value| {
            let request = parse(review(&json!({"object": object})).to_string().as_bytes()).unwrap();
            let decision = decide(&request, &known(&[binding("db")]), &settings());
            answer(&request, decision.clone());
            decision
        };
        if let Decision::Injected { patch, .. } = ask(&object) {
            let mut patched = object;
            json_patch::patch(&mut patched, &patch).expect("the operations apply");
            let again = ask(&patched);
            prop_assert!(matches!(again, Decision::Unchanged { .. }), "{again:?}");
        }
    }

    #[test]
    fn nothing_of_a_pod_is_lost_and_every_path_is_the_bindings_own(object in a_pod(), shared in any::<bool>()) {
        let mut object = object;
        object["spec"]["shareProcessNamespace"] = json!(shared);
        let bindings = [binding("db"), Binding { signals: shared.then(|| "app".to_owned()), ..binding("mail") }];
        let ask = |object: &Value| {
            let request = parse(review(&json!({"object": object})).to_string().as_bytes()).unwrap();
            decide(&request, &known(&bindings), &settings())
        };
        let decision = ask(&object);
        let Decision::Injected { patch, .. } = decision else {
            return Err(TestCaseError::fail(format!("{decision:?}")));
        };
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &patch).expect("the operations apply");
        let again = ask(&patched);
        prop_assert!(matches!(again, Decision::Unchanged { .. }), "{again:?}");
        prop_assert!(holds(&patched, &object), "something of the pod is lost: {patched}");
        let before: Vec<String> = mounts(&object);
        for path in mounts(&patched).into_iter().filter(|path| !before.contains(path)) {
            let known = ["/var/run/secrets/sealpod.dev/db", "/var/run/secrets/sealpod.dev/mail", "/var/run/sealpod/db",
                "/var/run/sealpod/mail", "/var/run/sealpod-exec", "/sealpod", TOKEN_MOUNT];
            prop_assert!(known.contains(&path.as_str()), "{path}");
        }
        // The key is mounted in our containers alone.
        for container in containers(&patched).filter(|container| !plan::is_ours(plan::name_of(container))) {
            prop_assert!(!container.to_string().contains("sealpod-key-"), "{container}");
        }
    }
}
