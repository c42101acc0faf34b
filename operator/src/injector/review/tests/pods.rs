//! What somebody may ask for, made at random.

use proptest::prelude::*;
use sealpod_core::kubernetes::annotations;

use super::*;

/// Any JSON, with a liking for the names that pods have.
pub fn any_json() -> impl Strategy<Value = Value> {
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
pub fn almost_a_pod() -> impl Strategy<Value = Value> {
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

/// A pod that can be injected, with what else pods have.
pub fn a_pod() -> impl Strategy<Value = Value> {
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
pub fn annotations() -> impl Strategy<Value = Value> {
    let of = |name: &'static str, values: Vec<&'static str>| {
        prop::option::of(prop::sample::select(values)).prop_map(move |value| value.map(|value| (name, value)))
    };
    let amounts = || vec!["1m", "0.5", "100M", "2Gi", "1"];
    // The last one is refused.
    let bytes = || vec!["8Mi", "64Mi", "100M", "2Gi", "1m"];
    let all = [
        of(annotations::AFTER, vec!["istio-proxy", "istio-proxy-1", "absent"]),
        of(annotations::CONTAINERS, vec!["app"]),
        of(annotations::CPU_REQUEST, amounts()),
        of(annotations::CPU_LIMIT, amounts()),
        of(annotations::MEMORY_REQUEST, bytes()),
        of(annotations::MEMORY_LIMIT, bytes()),
    ];
    Vec::from(all).prop_map(|all| {
        all.into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect()
    })
}

/// Three bindings, of which some meet each other, or a place that is taken.
pub fn some_bindings() -> impl Strategy<Value = Vec<Binding>> {
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
