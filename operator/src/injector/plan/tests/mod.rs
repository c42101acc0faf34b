mod order;
mod places;
mod probes;

use sealpod_core::kubernetes::{SHARED_GID, SIDECAR_UID};
use serde_json::json;

use super::super::tests::{binding, known, pod_with, settings};
use super::*;

pub fn planned(pod: &Value, bindings: &[Binding]) -> Result<Plan, String> {
    plan(Pod(pod), "shop", &known(bindings), &settings()).map_err(|denial| denial.to_string())
}

pub fn annotated(annotations: Value, spec: &Value) -> Value {
    let mut pod = pod_with(spec);
    pod["metadata"]["annotations"] = annotations;
    pod
}

/// Our containers by list and name.
fn shape(pod: &Value) -> Vec<(&'static str, String)> {
    let plan = planned(pod, &[binding("db")]).unwrap();
    plan.ours
        .iter()
        .map(|ours| (ours.list.field(), name_of(&ours.container).to_owned()))
        .collect()
}

fn refusal(pod: &Value) -> String {
    planned(pod, &[binding("db")]).unwrap_err()
}

fn owned(shape: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    shape.iter().map(|(list, name)| (*list, (*name).to_owned())).collect()
}

#[test]
fn the_shape_follows_the_restart_policy_unless_the_annotation_says_otherwise() {
    let sidecar = owned(&[("initContainers", "sealpod-init"), ("containers", "sealpod")]);
    let native = owned(&[("initContainers", "sealpod")]);
    let init = owned(&[("initContainers", "sealpod-init")]);
    for (policy, mode, want) in [
        (json!("Always"), None, &sidecar),
        (json!(null), None, &sidecar),
        (json!("OnFailure"), None, &native),
        (json!("Never"), None, &native),
        (json!("Never"), Some("auto"), &native),
        (json!("Never"), Some("sidecar"), &sidecar),
        (json!("Always"), Some(" native "), &native),
        (json!("Always"), Some("init"), &init),
        (json!("Never"), Some("init"), &init),
    ] {
        let mut pod = pod_with(&json!({"restartPolicy": policy}));
        if let Some(mode) = mode {
            pod["metadata"]["annotations"] = json!({annotations::MODE: mode});
        }
        assert_eq!(&shape(&pod), want, "{policy} {mode:?}");
    }
}

#[test]
fn an_unknown_mode_is_refused_with_the_nearest() {
    assert_eq!(
        refusal(&annotated(json!({annotations::MODE: "natve"}), &json!({}))),
        "annotation sealpod.dev/mode: \"natve\" is none of auto, sidecar, native, init (did you mean \"native\"?)"
    );
}

#[test]
fn pods_for_which_it_cannot_work_are_refused_with_the_reason() {
    let options = json!({"windowsOptions": {"runAsUserName": "ContainerUser"}});
    for (pod, want) in [
        (json!(null), "carries no pod"),
        (json!({"metadata": {}, "spec": {"containers": []}}), "carries no pod"),
        (json!({"metadata": {}, "spec": {"containers": [{}]}}), "carries no pod"),
        (pod_with(&json!({"os": {"name": "windows"}})), "Windows"),
        (
            pod_with(&json!({"nodeSelector": {"kubernetes.io/os": "windows"}})),
            "Windows",
        ),
        (pod_with(&json!({"securityContext": options})), "Windows"),
        (
            pod_with(&json!({"containers": [{"name": "app"}, {"name": "log", "securityContext": options}]})),
            "Windows",
        ),
        (pod_with(&nodes(&json!([["windows"], ["windows"]]))), "Windows"),
        (
            annotated(json!({"kubernetes.io/config.mirror": "x"}), &json!({})),
            "static pod",
        ),
    ] {
        let text = refusal(&pod);
        assert!(text.contains(want), "{text}");
    }
    for pod in [
        nodes(&json!([])),
        nodes(&json!([["windows"], ["linux"]])),
        nodes(&json!([["windows", "linux"]])),
        json!({"securityContext": {"windowsOptions": {}}, "os": {"name": "linux"}}),
    ] {
        planned(&pod_with(&pod), &[binding("db")]).unwrap();
    }
}

#[test]
fn options_for_windows_count_only_where_nothing_says_linux() {
    let user = json!({"windowsOptions": {"runAsUserName": "ContainerUser"}});
    let none = json!({"windowsOptions": {"hostProcess": false, "runAsUserName": null}});
    let mut not_windows = nodes(&json!([["windows"], ["windows"]]));
    let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    for term in not_windows.pointer_mut(terms).unwrap().as_array_mut().unwrap() {
        term["matchExpressions"][1]["operator"] = json!("NotIn");
    }
    let linux = [
        json!({"os": {"name": "linux"}}),
        json!({"nodeSelector": {"kubernetes.io/os": "linux"}}),
        json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
        nodes(&json!([["linux"], ["linux"]])),
        not_windows,
    ];
    let open = [
        json!({}),
        json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}),
        nodes(&json!([["linux"], ["linux", "windows"]])),
        nodes(&json!([["linux"], []])),
    ];
    let with = |spec: &Value, options: &Value| {
        let mut of_pod = spec.clone();
        of_pod["securityContext"] = options.clone();
        let mut of_container = spec.clone();
        of_container["containers"] = json!([{"name": "app", "securityContext": options}]);
        [of_pod, of_container].map(|spec| planned(&pod_with(&spec), &[binding("db")]))
    };
    for spec in linux.iter().chain(&open) {
        assert!(with(spec, &none).iter().all(Result::is_ok), "{spec}");
    }
    for spec in &linux {
        assert!(with(spec, &user).iter().all(Result::is_ok), "{spec}");
    }
    for spec in &open {
        let refused = |result: &Result<Plan, String>| result.as_ref().is_err_and(|text| text.contains("Windows"));
        assert!(with(spec, &user).iter().all(refused), "{spec}");
    }
}

/// A pod whose node has to match one of these terms, each the operating systems that it takes.
fn nodes(terms: &Value) -> Value {
    let term = |systems: &Value| {
        json!({"matchExpressions": [
            {"key": "zone", "operator": "Exists"},
            {"key": "kubernetes.io/os", "operator": "In", "values": systems},
        ]})
    };
    let terms: Vec<_> = terms.as_array().unwrap().iter().map(term).collect();
    let required = json!({"nodeSelectorTerms": terms});
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
}

#[test]
fn only_the_containers_that_are_named_get_the_mounts() {
    let spec = json!({"initContainers": [{"name": "migrate"}], "containers": [{"name": "app"}, {"name": "log"}]});
    let readers = |annotations| {
        let plan = planned(&annotated(annotations, &spec), &[binding("db")])?;
        Ok::<_, String>(
            plan.containers
                .iter()
                .map(|all| (all.list, all.index))
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        readers(json!({})).unwrap(),
        [(List::Init, 0), (List::Regular, 0), (List::Regular, 1)]
    );
    let named = readers(json!({annotations::CONTAINERS: "log, migrate"})).unwrap();
    assert_eq!(named, [(List::Init, 0), (List::Regular, 1)]);
    assert_eq!(
        readers(json!({annotations::CONTAINERS: "app,migrat"})).unwrap_err(),
        "annotation sealpod.dev/containers names container \"migrat\", which this pod does not have (did you mean \
         \"migrate\"?); its containers are \"migrate\", \"app\", \"log\""
    );
    assert!(readers(json!({annotations::CONTAINERS: "sealpod"})).is_err());
    assert!(
        readers(json!({annotations::CONTAINERS: ""}))
            .unwrap_err()
            .contains("is not the name of a container")
    );
}

#[test]
fn a_binding_with_an_unreadable_size_is_named() {
    let broken = Binding {
        size_limit: Err(sealpod_crds::ParseError::Size),
        ..binding("db")
    };
    let text = planned(&pod_with(&json!({})), &[broken]).unwrap_err();
    assert!(
        text.starts_with("SecretBinding \"db\": sizeLimit must be a whole number of bytes"),
        "{text}"
    );
}

#[test]
fn the_program_goes_into_a_container_that_has_the_files() {
    let spec = json!({"containers": [{"name": "app"}, {"name": "log"}]});
    let of = |annotations: Value| planned(&annotated(annotations, &spec), &[binding("db")]);
    let plan = of(json!({annotations::EXEC: " log "})).unwrap();
    let mounts = |index: usize| {
        plan.containers[index]
            .mounts
            .iter()
            .filter(|mount| mount["mountPath"] == "/sealpod")
            .count()
    };
    assert_eq!((mounts(0), mounts(1)), (0, 1));
    assert_eq!(
        of(json!({annotations::EXEC: "lgo"})).unwrap_err(),
        "annotation sealpod.dev/exec names container \"lgo\", which is none of those that get the files (did you mean \
         \"log\"?); name one of \"app\", \"log\""
    );
    let without = of(json!({annotations::EXEC: "log", annotations::CONTAINERS: "app"})).unwrap_err();
    assert!(without.ends_with("name one of \"app\""), "{without}");
}

#[test]
fn what_is_in_the_way_of_the_program_is_named() {
    let exec = |spec: &Value| annotated(json!({annotations::EXEC: "app"}), spec);
    let mount = json!([{"name": "v", "mountPath": "/sealpod/x"}]);
    let text = refusal(&exec(&json!({"containers": [{"name": "app", "volumeMounts": mount}]})));
    assert!(
        text.contains("container \"app\" already mounts") && text.contains("sealpod.dev/exec"),
        "{text}"
    );
    let device = json!([{"name": "v", "devicePath": "/sealpod"}]);
    let text = refusal(&exec(
        &json!({"containers": [{"name": "app", "volumeDevices": device}]}),
    ));
    assert!(text.contains("already mounts volume \"v\" at \"/sealpod\""), "{text}");
    let taken = json!({"volumes": [{"name": "sealpod-exec", "emptyDir": {}}]});
    assert!(refusal(&exec(&taken)).contains("already has a volume named \"sealpod-exec\""));
    for path in ["/sealpod", "/sealpod/db", "/var/run/sealpod-exec"] {
        let there = Binding {
            mount_path: path.to_owned(),
            ..binding("db")
        };
        let text = planned(&exec(&json!({})), std::slice::from_ref(&there)).unwrap_err();
        assert!(text.contains("Sealpod's own program"), "{text}");
        planned(&pod_with(&json!({})), &[there]).unwrap();
    }
}

#[test]
fn a_signal_gives_the_sidecar_the_user_alone_and_the_container_its_name() {
    let signalling = Binding {
        signals: Some("app".to_owned()),
        ..binding("db")
    };
    let spec = |env: Value| {
        json!({
            "shareProcessNamespace": true,
            "containers": [{"name": "app", "env": env, "securityContext": {"runAsUser": 10_001, "runAsGroup": 10_001}}, {"name": "log"}],
        })
    };
    let plan = planned(&pod_with(&spec(json!(null))), std::slice::from_ref(&signalling)).unwrap();
    for ours in &plan.ours {
        assert_eq!(ours.container["securityContext"]["runAsUser"], 10_001);
        assert_eq!(ours.container["securityContext"]["runAsGroup"], SHARED_GID);
    }
    let named = |name| json!([{"name": "SEALPOD_CONTAINER", "value": name}]);
    let variables: Vec<_> = plan.containers.iter().map(|all| json!(all.env)).collect();
    assert_eq!(variables, [named("app"), json!([])], "that one container's, no other's");
    assert!(planned(&pod_with(&spec(named("app"))), std::slice::from_ref(&signalling)).is_ok());
    let taken = spec(named("other"));
    let text = planned(&pod_with(&taken), std::slice::from_ref(&signalling)).unwrap_err();
    assert!(text.contains("already has a variable SEALPOD_CONTAINER"), "{text}");
    assert!(
        planned(&pod_with(&taken), &[binding("db")]).is_ok(),
        "in nobody's way without signals"
    );
    let mut elsewhere = spec(json!(null));
    elsewhere["initContainers"] = json!([{"name": "migrate", "env": named("app")}]);
    assert!(planned(&pod_with(&elsewhere), std::slice::from_ref(&signalling)).is_ok());
}

#[test]
fn a_pod_that_gets_its_files_once_needs_nothing_for_a_signal_that_is_never_sent() {
    let signalling = Binding {
        signals: Some("absent".to_owned()),
        ..binding("db")
    };
    let once = annotated(json!({annotations::MODE: "init"}), &json!({}));
    let plan = planned(&once, &[signalling]).unwrap();
    let user = &plan.ours[0].container["securityContext"]["runAsUser"];
    assert_eq!((plan.ours.len(), user), (1, &json!(SIDECAR_UID)));
    assert!(plan.containers.iter().all(|all| all.env.is_empty()));
}

#[test]
fn a_request_on_a_change_never_goes_to_the_node() {
    let calling = Binding {
        calls: true,
        ..binding("db")
    };
    let all = [calling, binding("mail")];
    let host = json!({"hostNetwork": true});
    for mode in ["auto", "native", "sidecar"] {
        let text = planned(&annotated(json!({annotations::MODE: mode}), &host), &all).unwrap_err();
        assert!(
            text.contains("SecretBinding \"db\"") && text.contains("a port of the node"),
            "{text}"
        );
        assert!(
            text.contains("onChange.signal") && text.contains("hostNetwork: false"),
            "{text}"
        );
    }
    assert!(planned(&pod_with(&json!({"hostNetwork": false})), &all).is_ok());
    assert!(planned(&pod_with(&host), &[binding("mail")]).is_ok());
    planned(&annotated(json!({annotations::MODE: "init"}), &host), &all).unwrap();
}

#[test]
fn the_log_of_our_containers_is_as_the_injector_is_told() {
    let plan = planned(&pod_with(&json!({})), &[binding("db")]).unwrap();
    for ours in &plan.ours {
        let env = ours.container["env"].as_array().unwrap();
        for (name, value) in [("SEALPOD_LOG", "info"), ("SEALPOD_LOG_FORMAT", "json")] {
            assert!(env.contains(&json!({"name": name, "value": value})), "{name}");
        }
    }
}

#[test]
fn metrics_tell_versions_only_where_the_pod_asks_for_it() {
    let told = |annotations: Value| {
        let plan = planned(&annotated(annotations, &json!({})), &[binding("db")]).unwrap();
        let variable = json!({"name": "SEALPOD_METRICS_VERSIONS", "value": "true"});
        let env = |ours: &Ours| ours.container["env"].as_array().unwrap().contains(&variable);
        plan.ours.iter().map(env).collect::<Vec<_>>()
    };
    assert_eq!(told(json!({})), [false, false]);
    assert_eq!(told(json!({annotations::METRICS_VERSIONS: "false"})), [false, false]);
    assert_eq!(told(json!({annotations::METRICS_VERSIONS: " true "})), [true, true]);
    assert_eq!(
        refusal(&annotated(json!({annotations::METRICS_VERSIONS: "yes"}), &json!({}))),
        "annotation sealpod.dev/metrics-versions: \"yes\" is neither true nor false"
    );
}
