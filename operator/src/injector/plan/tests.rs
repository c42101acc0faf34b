use super::super::tests::{binding, known, pod_with, settings};
use super::*;
use sealpod_core::kubernetes::SHARED_GID;
use serde_json::json;

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
    for (pod, want) in [
        (json!(null), "carries no pod"),
        (json!({"metadata": {}, "spec": {"containers": []}}), "carries no pod"),
        (json!({"metadata": {}, "spec": {"containers": [{}]}}), "carries no pod"),
        (pod_with(&json!({"os": {"name": "windows"}})), "Windows"),
        (
            pod_with(&json!({"nodeSelector": {"kubernetes.io/os": "windows"}})),
            "Windows",
        ),
        (
            annotated(json!({"kubernetes.io/config.mirror": "x"}), &json!({})),
            "static pod",
        ),
    ] {
        let text = refusal(&pod);
        assert!(text.contains(want), "{text}");
    }
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
fn a_container_or_volume_of_our_name_is_a_conflict() {
    for spec in [
        json!({"containers": [{"name": "sealpod"}]}),
        json!({"initContainers": [{"name": "sealpod-init"}]}),
    ] {
        let text = refusal(&pod_with(&spec));
        assert!(text.contains("already has a container named \"sealpod"), "{text}");
    }
    // Saying so does not make it ours.
    let forged = annotated(
        json!({annotations::INJECTED: "db"}),
        &json!({"containers": [{"name": "sealpod"}]}),
    );
    assert!(refusal(&forged).contains("already has a container named"));

    let [volume, _] = volume_names();
    let taken = json!({"volumes": [{"name": volume, "hostPath": {"path": "/tmp"}}]});
    for pod in [
        pod_with(&taken),
        annotated(json!({annotations::INJECTED: "db"}), &taken),
    ] {
        let text = refusal(&pod);
        assert!(text.contains("already has a volume named \"sealpod-"), "{text}");
    }
}

#[test]
fn a_mount_in_the_way_names_the_container_and_the_path() {
    let spec = |mount: Value, volume: Value| {
        let containers = json!([{"name": "app"}, {"name": "log", "volumeMounts": [mount]}]);
        json!({"containers": containers, "volumes": [volume]})
    };
    let scratch = json!({"name": "v", "emptyDir": {}});
    let at = |path: &str| json!({"name": "v", "mountPath": path});
    let ours = "/var/run/secrets/sealpod.dev/db";
    for (mount, volume) in [
        (at(ours), &scratch),
        (at("/var/run/secrets/sealpod.dev//db/"), &scratch),
        (at("/var/run/secrets/sealpod.dev/db/inside"), &scratch),
        (
            at("/var/run/secrets"),
            &json!({"name": "v", "configMap": {"name": "c"}}),
        ),
        (
            json!({"name": "v", "mountPath": "/var/run/secrets", "readOnly": true}),
            &scratch,
        ),
    ] {
        let text = refusal(&pod_with(&spec(mount.clone(), volume.clone())));
        assert!(
            text.starts_with("container \"log\" already mounts volume \"v\" at "),
            "{mount}: {text}"
        );
        assert!(text.contains(ours), "{text}");
    }
    for mount in [
        at("/var/run/secrets"),
        at("/var/run/secrets/sealpod.dev/db2"),
        at("/data"),
    ] {
        planned(&pod_with(&spec(mount, scratch.clone())), &[binding("db")]).unwrap();
    }
    // A container that gets no mount has no conflict.
    let mut pod = pod_with(&spec(at(ours), scratch));
    pod["metadata"]["annotations"] = json!({annotations::CONTAINERS: "app"});
    planned(&pod, &[binding("db")]).unwrap();
}

#[test]
fn two_bindings_in_one_directory_are_refused() {
    let at = |name: &str, path: &str| Binding {
        mount_path: path.to_owned(),
        ..binding(name)
    };
    for (one, other) in [
        ("/x", "/x"),
        ("/x", "/x/y"),
        ("/x/y", "/x"),
        ("/x", "/var/run/sealpod/a"),
    ] {
        let text = planned(&pod_with(&json!({})), &[at("a", one), at("b", other)]).unwrap_err();
        assert!(
            text.contains("one directory must not be the other or lie in it"),
            "{one} {other}: {text}"
        );
    }
    planned(&pod_with(&json!({})), &[at("a", "/x"), at("b", "/xy")]).unwrap();
    assert!(
        planned(&pod_with(&json!({})), &[at("a", "/")]).is_err(),
        "it would hide the program"
    );
}

#[test]
fn the_health_port_is_one_that_no_container_uses() {
    let ours = |spec: Value| {
        let plan = planned(&pod_with(&spec), &[binding("db")]).unwrap();
        plan.ours[1].container.clone()
    };
    let port = |container: &Value| container["readinessProbe"]["httpGet"]["port"].clone();
    assert_eq!(port(&ours(json!({}))), HEALTH_PORT);
    let taken = json!([{"name": "app", "ports": [{"containerPort": HEALTH_PORT}, {"containerPort": HEALTH_PORT + 1}]}]);
    let container = ours(json!({"containers": taken}));
    assert_eq!(port(&container), HEALTH_PORT + 2);
    let settings = container["env"].as_array().unwrap().last().unwrap()["value"]
        .as_str()
        .unwrap();
    assert!(
        settings.contains(&format!("\"healthPort\":{}", HEALTH_PORT + 2)),
        "{settings}"
    );
}

#[test]
fn on_the_nodes_network_no_port_is_opened_and_a_command_tells_whether_the_files_are_there() {
    let plan = planned(&pod_with(&json!({"hostNetwork": true})), &[binding("db")]).unwrap();
    let container = &plan.ours[1].container;
    let text = container.to_string();
    assert!(
        !text.contains("httpGet") && text.contains("\\\"healthPort\\\":null"),
        "{text}"
    );
    assert_eq!(
        container["readinessProbe"]["exec"]["command"],
        json!(["/sealpod-sidecar", "readyz"])
    );
    assert_eq!(container.get("livenessProbe"), None, "nothing could answer");
}

#[test]
fn behind_a_proxy_that_takes_inbound_connections_a_command_asks() {
    let spec = json!({"initContainers": [{"name": "istio-proxy"}]});
    let plan = planned(&pod_with(&spec), &[binding("db")]).unwrap();
    let container = &plan.ours[1].container;
    assert!(!container.to_string().contains("httpGet"), "{container}");
    for (probe, question) in [("readinessProbe", "readyz"), ("livenessProbe", "healthz")] {
        assert_eq!(
            container[probe]["exec"]["command"],
            json!(["/sealpod-sidecar", question])
        );
    }
    assert_eq!(plan.ours[0].place, 1);
}

#[test]
fn places_without_which_no_container_starts_are_refused_from_both_sides() {
    for (path, place) in [
        ("/sealpod-sidecar", "/sealpod-sidecar"),
        ("/sealpod-sidecar/x", "/sealpod-sidecar"),
        ("/proc", "/proc"),
        ("/proc/1", "/proc"),
        ("/sys/fs", "/sys"),
        ("//dev/", "/dev"),
        ("/dev/termination-log", "/dev/termination-log"),
        ("/", "/dev"),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount",
            "/var/run/secrets/kubernetes.io/serviceaccount",
        ),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount/x",
            "/var/run/secrets/kubernetes.io/serviceaccount",
        ),
    ] {
        let there = Binding {
            mount_path: path.to_owned(),
            ..binding("db")
        };
        let without_token = json!({"containers": [{"name": "app"}], "automountServiceAccountToken": false});
        let text = planned(&pod_with(&without_token), &[there]).unwrap_err();
        assert!(text.contains(&format!("which meets {place}, ")), "{path}: {text}");
    }
    for path in [
        "/process",
        "/devices",
        "/dev/shm",
        "/sealpod-sidecar2",
        "/var/run/secrets",
    ] {
        let there = Binding {
            mount_path: path.to_owned(),
            ..binding("db")
        };
        planned(&pod_with(&json!({"containers": [{"name": "app"}]})), &[there]).unwrap();
    }
}

#[test]
fn many_directories_that_lie_in_none_of_the_others_are_taken_and_one_that_does_is_found() {
    let at = |number: usize, path: String| Binding {
        mount_path: path,
        ..binding(&format!("b{number}"))
    };
    let mut all: Vec<_> = (0..63).map(|n| at(n, format!("/x/{n}-{}", n % 7))).collect();
    planned(&pod_with(&json!({})), &all).unwrap();
    all.push(at(63, "/x/20-6/y".to_owned()));
    let text = planned(&pod_with(&json!({})), &all).unwrap_err();
    assert!(text.contains("\"/x/20-6\"") && text.contains("\"/x/20-6/y\""), "{text}");
}

#[test]
fn more_mounts_than_a_pod_has_are_refused() {
    let containers: Vec<_> = (0..600).map(|n| json!({"name": format!("c{n}")})).collect();
    let pod = pod_with(&json!({ "containers": containers }));
    planned(&pod, &[binding("db")]).unwrap();
    let text = planned(&pod, &[binding("db"), binding("mail")]).unwrap_err();
    assert!(
        text.contains("2 SecretBindings in 600 containers") && text.contains("sealpod.dev/containers"),
        "{text}"
    );
}

/// Names of the volumes of binding `db`: of its files, and of its key.
fn volume_names() -> [String; 2] {
    let volumes = planned(&pod_with(&json!({})), &[binding("db")]).unwrap().volumes;
    [0, 1].map(|at| name_of(&volumes[at]).to_owned())
}

#[test]
fn nobody_else_mounts_a_volume_of_ours_by_its_name() {
    let [files, key] = volume_names();
    let path = "/var/run/secrets/sealpod.dev/db";
    let spec = |mount: &Value| json!({"containers": [{"name": "app"}, {"name": "log", "volumeMounts": [mount]}]});
    let device = json!({"containers": [{"name": "log", "volumeDevices": [{"name": key, "devicePath": "/dev/x"}]}]});
    let mut all = vec![device];
    all.extend(
        [
            json!({"name": key, "mountPath": "/stolen"}),
            json!({"name": key, "mountPath": "/stolen", "readOnly": true}),
            json!({"name": files, "mountPath": path}),
            json!({"name": files, "mountPath": "/elsewhere", "readOnly": true}),
            json!({"name": files, "mountPath": path, "readOnly": true, "subPath": "..data"}),
        ]
        .iter()
        .map(spec),
    );
    for spec in &all {
        let text = refusal(&pod_with(spec));
        assert!(
            text.starts_with("container \"log\" mounts volume \"sealpod-") && text.contains("Sealpod's own"),
            "{spec}: {text}"
        );
    }
    let ours = spec(&json!({"name": files, "mountPath": path, "readOnly": true}));
    planned(&pod_with(&ours), &[binding("db")]).unwrap();
    let mut other = pod_with(&ours);
    other["metadata"]["annotations"] = json!({annotations::CONTAINERS: "app"});
    assert!(
        refusal(&other).contains("Sealpod's own"),
        "not in one that gets no files"
    );
    let exec = json!({"containers": [{"name": "app"}, {"name": "log", "volumeMounts": [{"name": "sealpod-exec", "mountPath": "/p"}]}]});
    assert!(refusal(&annotated(json!({annotations::EXEC: "app"}), &exec)).contains("\"sealpod-exec\""));
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
    let once = annotated(json!({annotations::MODE: "init"}), &spec(json!(null)));
    let warnings = planned(&once, &[signalling]).unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("onChange has no effect")),
        "{warnings:?}"
    );
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
    let warnings = planned(&annotated(json!({annotations::MODE: "init"}), &host), &all)
        .unwrap()
        .warnings;
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("onChange has no effect")),
        "{warnings:?}"
    );
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
