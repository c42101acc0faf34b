use super::super::plan::plan;
use super::super::select::Binding;
use super::super::tests::{binding, known, pod_with, settings};
use super::*;
use sealpod_core::kubernetes::annotations;
use std::collections::BTreeSet;

mod forged;

/// The pod after injection. A second run on the result must yield nothing.
fn injected(pod: &Value, bindings: &[Binding]) -> Value {
    let run = |pod: &Value| {
        operations(
            Pod(pod),
            &plan(Pod(pod), "shop", &known(bindings), &settings()).unwrap(),
        )
    };
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &run(pod)).expect("the operations apply");
    assert_eq!(run(&patched), [], "a second injection changes nothing");
    patched
}

fn show(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn a_pod_that_runs_for_ever() {
    let pod = pod_with(&json!({"initContainers": [{"name": "migrate", "image": "registry.test/migrate:1"}]}));
    insta::assert_snapshot!(show(&injected(&pod, &[binding("db")])));
}

#[test]
fn a_pod_of_a_job() {
    let mut pod = pod_with(&json!({"restartPolicy": "OnFailure"}));
    pod["metadata"]["generateName"] = json!("report-");
    insta::assert_snapshot!(show(&injected(&pod, &[binding("db")])));
}

#[test]
fn a_pod_that_gets_its_files_once() {
    let mut pod = pod_with(&json!({}));
    pod["metadata"]["annotations"] = json!({annotations::MODE: "init"});
    insta::assert_snapshot!(show(&injected(&pod, &[binding("db")])));
}

#[test]
fn a_pod_on_the_nodes_network() {
    insta::assert_snapshot!(show(&injected(
        &pod_with(&json!({"hostNetwork": true})),
        &[binding("db")]
    )));
}

#[test]
fn a_guaranteed_pod_with_two_bindings() {
    let fixed = json!({"cpu": "1", "memory": "1Gi"});
    let app = json!([{"name": "app", "image": "app", "resources": {"limits": fixed, "requests": fixed}}]);
    insta::assert_snapshot!(show(&injected(
        &pod_with(&json!({"containers": app})),
        &[binding("mail"), binding("db")]
    )));
}

#[test]
fn a_pod_behind_a_regular_mesh_proxy() {
    let mut pod = pod_with(&json!({
        "initContainers": [{"name": "istio-validation", "image": "proxy"}],
        "containers": [{"name": "app", "image": "app"}, {"name": "istio-proxy", "image": "proxy"}],
    }));
    pod["metadata"]["annotations"] = json!({"traffic.sidecar.istio.io/excludeOutboundPorts": "3306"});
    insta::assert_snapshot!(show(&injected(&pod, &[binding("db")])));
}

#[test]
fn a_pod_with_every_annotation_and_a_signal() {
    let user = json!({"runAsUser": 10_001});
    let mut pod = pod_with(&json!({
        "shareProcessNamespace": true,
        "initContainers": [{"name": "vpn", "image": "registry.test/vpn:1"}],
        "containers": [
            {"name": "app", "image": "registry.test/app:1", "securityContext": user, "env": [{"name": "A", "value": "1"}]},
            {"name": "legacy", "image": "registry.test/legacy:1"},
            {"name": "other", "image": "registry.test/other:1"},
        ],
    }));
    pod["metadata"]["annotations"] = json!({
        annotations::BINDING: "db, mail", annotations::CONTAINERS: "legacy", annotations::MODE: "native",
        annotations::AFTER: "vpn", annotations::EXEC: "legacy", annotations::CPU_REQUEST: "10m",
        annotations::CPU_LIMIT: "1", annotations::MEMORY_REQUEST: "16Mi", annotations::MEMORY_LIMIT: "96Mi",
        annotations::METRICS_VERSIONS: "true",
    });
    let written: BTreeSet<_> = Pod(&pod).annotations().map(|(key, _)| key.to_owned()).collect();
    let known = annotations::FOR_USERS.iter();
    assert_eq!(written, known.map(|annotation| annotation.name.to_owned()).collect());
    let signalling = Binding {
        signals: Some("app".to_owned()),
        ..binding("mail")
    };
    insta::assert_snapshot!(show(&injected(&pod, &[signalling, binding("db")])));
}

#[test]
fn a_copy_of_an_injected_pod_gets_the_user_that_signals_need_today() {
    let spec = json!({"shareProcessNamespace": true, "securityContext": {"runAsUser": 7}});
    let pod = injected(&pod_with(&spec), &[binding("db")]);
    let signalling = Binding {
        signals: Some("app".to_owned()),
        ..binding("db")
    };
    let patched = injected(&pod, &[signalling]);
    for pointer in ["/spec/initContainers/0", "/spec/containers/1"] {
        assert_eq!(patched.pointer(pointer).unwrap()["securityContext"]["runAsUser"], 7);
    }
    let variable = json!([{"name": "SEALPOD_CONTAINER", "value": "app"}]);
    assert_eq!(patched["spec"]["containers"][0]["env"], variable);
}

#[test]
fn only_add_operations_are_used_on_a_pod_that_comes_for_the_first_time() {
    let pod = pod_with(&json!({"initContainers": [{"name": "istio-proxy"}, {"name": "migrate"}]}));
    let plan = plan(Pod(&pod), "shop", &known(&[binding("db")]), &settings()).unwrap();
    let all = operations(Pod(&pod), &plan);
    assert!(
        all.iter().all(|operation| matches!(operation, PatchOperation::Add(_))),
        "{all:?}"
    );
}

#[test]
fn missing_parents_are_made() {
    let bare = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    let null = json!({
        "metadata": {"annotations": null},
        "spec": {
            "containers": [{"name": "app", "volumeMounts": null}], "initContainers": null, "volumes": null,
            "securityContext": {"supplementalGroups": null},
        },
    });
    for pod in [
        bare,
        null,
        json!({"metadata": {}, "spec": {"containers": [{"name": "app"}], "securityContext": null}}),
    ] {
        let patched = injected(&pod, &[binding("db")]);
        assert_eq!(
            patched["spec"]["securityContext"]["supplementalGroups"],
            json!([SHARED_GID])
        );
        assert_eq!(
            patched["spec"]["containers"][0]["volumeMounts"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(patched["metadata"]["annotations"][annotations::INJECTED], "db");
    }
}

#[test]
fn groups_and_annotations_of_the_pod_stay() {
    let mut pod = pod_with(&json!({"securityContext": {"supplementalGroups": [7], "fsGroup": 8, "runAsUser": 9}}));
    pod["metadata"]["annotations"] = json!({"a~b/c": "d"});
    let patched = injected(&pod, &[binding("db")]);
    let want = json!({"supplementalGroups": [7, SHARED_GID], "fsGroup": 8, "runAsUser": 9});
    assert_eq!(patched["spec"]["securityContext"], want);
    assert_eq!(patched["metadata"]["annotations"]["a~b/c"], "d");
}

#[test]
fn fields_that_are_newer_than_we_are_survive() {
    let mut pod =
        pod_with(&json!({"flux": {"capacitor": [1, {"x": null}]}, "initContainers": [{"name": "i", "era": 7}]}));
    pod["metadata"]["hoverboard"] = json!(true);
    pod["spec"]["containers"][0]["warp"] = json!({"factor": 9.75});
    pod["spec"]["containers"][0]["volumeMounts"][0]["phase"] = json!("new");
    pod["novel"] = json!("top");
    let patched = injected(&pod, &[binding("db")]);
    for pointer in [
        "/spec/flux",
        "/metadata/hoverboard",
        "/spec/containers/0/warp",
        "/spec/containers/0/volumeMounts/0",
        "/novel",
    ] {
        assert_eq!(patched.pointer(pointer), pod.pointer(pointer), "{pointer}");
    }
    assert_eq!(patched["spec"]["initContainers"][1], {
        let mut init = pod["spec"]["initContainers"][0].clone();
        init["volumeMounts"] = patched["spec"]["initContainers"][1]["volumeMounts"].clone();
        init
    });
}

#[test]
fn ours_moves_behind_a_proxy_that_another_webhook_adds_later_and_keeps_what_was_added_to_it() {
    let mut pod = injected(
        &pod_with(&json!({"initContainers": [{"name": "migrate"}]})),
        &[binding("db")],
    );
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init[0]["terminationMessagePath"] = json!("/dev/termination-log");
    init.push(json!({"name": "istio-proxy", "restartPolicy": "Always"}));
    init.swap(1, 2);
    let patched = injected(&pod, &[binding("db")]);
    let init = patched["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(name_of).collect();
    assert_eq!(names, ["istio-proxy", "sealpod-init", "migrate"]);
    assert_eq!(init[1]["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(
        init[0]["volumeMounts"].as_array().unwrap().len(),
        1,
        "the newcomer gets its mount"
    );
}

#[test]
fn ours_goes_back_to_the_front_when_something_was_put_before_it() {
    let mut pod = injected(&pod_with(&json!({"restartPolicy": "Never"})), &[binding("db")]);
    pod["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "other"}));
    let patched = injected(&pod, &[binding("db")]);
    assert_eq!(patched["spec"]["initContainers"][0]["name"], "sealpod");
}

#[test]
fn what_other_webhooks_and_defaults_add_to_ours_is_no_reason_to_touch_it() {
    let mut pod = injected(&pod_with(&json!({})), &[binding("db")]);
    let ours = &mut pod["spec"]["containers"][1];
    ours["terminationMessagePath"] = json!("/dev/termination-log");
    ours["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
    ours["readinessProbe"] = json!({"httpGet": {"port": 15020}});
    let token = json!({"name": "token", "mountPath": "/var/run/secrets/mesh"});
    ours["volumeMounts"].as_array_mut().unwrap().push(token);
    ours["imagePullPolicy"] = json!("Always");
    ours["resources"]["limits"] = json!({"memory": "1Gi"});
    ours["securityContext"]["appArmorProfile"] = json!({"type": "RuntimeDefault"});
    ours["securityContext"]["privileged"] = json!(false);
    ours["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "HTTPS_PROXY", "value": "http://proxy.test"}));
    assert_eq!(injected(&pod, &[binding("db")]), pod);
}

#[test]
fn a_mesh_that_comes_behind_us_turns_the_gate_into_a_command() {
    let mut pod = injected(&pod_with(&json!({"restartPolicy": "Never"})), &[binding("db")]);
    let gate = |pod: &Value| pod["spec"]["initContainers"][0]["startupProbe"].clone();
    assert_eq!(gate(&pod)["httpGet"]["path"], "/wait");
    // As Kubernetes stores it.
    pod["spec"]["initContainers"][0]["startupProbe"]["httpGet"]["scheme"] = json!("HTTP");
    assert_eq!(injected(&pod, &[binding("db")]), pod);
    let proxy = json!({"name": "linkerd-proxy", "image": "mesh.test/proxy:1"});
    pod["spec"]["containers"].as_array_mut().unwrap().push(proxy);
    let gate = gate(&injected(&pod, &[binding("db")]));
    assert_eq!(
        (&gate["httpGet"], &gate["exec"]["command"][1]),
        (&Value::Null, &json!("wait"))
    );
}

#[test]
fn a_copy_of_an_injected_pod_gets_the_bindings_of_today() {
    let pod = injected(&pod_with(&json!({})), &[binding("db")]);
    let patched = injected(&pod, &[binding("db"), binding("mail")]);
    assert_eq!(patched["metadata"]["annotations"][annotations::INJECTED], "db,mail");
    for pointer in ["/spec/initContainers/0", "/spec/containers/1"] {
        let ours = patched.pointer(pointer).unwrap();
        let settings = items(ours, "env").last().unwrap()["value"].as_str().unwrap();
        assert!(settings.contains(r#""name":"mail""#), "{settings}");
        // A tmpfs and a key for each binding, and what covers the place of the token.
        assert_eq!(items(ours, "volumeMounts").len(), 5);
    }
    assert_eq!(patched["spec"]["containers"].as_array().unwrap().len(), 2);
}

#[test]
fn the_health_port_moves_when_a_container_that_came_later_listens_there() {
    let mut pod = injected(&pod_with(&json!({})), &[binding("db")]);
    let probes = ["readinessProbe", "livenessProbe"];
    let ports = |pod: &Value| probes.map(|probe| pod["spec"]["containers"][1][probe]["httpGet"]["port"].clone());
    let [usual, _] = ports(&pod);
    // As a proxy has it asked.
    pod["spec"]["containers"][1]["livenessProbe"]["httpGet"]["port"] = json!(15_020);
    let late = json!({"name": "late", "image": "x", "ports": [{"containerPort": usual}]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    let patched = injected(&pod, &[binding("db")]);
    let next = usual.as_u64().unwrap() + 1;
    assert_eq!(ports(&patched), [json!(next), json!(15_020)]);
    let settings = items(&patched["spec"]["containers"][1], "env").last().unwrap()["value"].as_str();
    assert!(
        settings.unwrap().contains(&format!("\"healthPort\":{next}")),
        "{settings:?}"
    );
}

#[test]
fn a_copy_of_an_injected_pod_gets_the_amounts_of_today() {
    let plain = pod_with(&json!({"containers": [{"name": "app"}]}));
    let mut fixed = plain.clone();
    let amounts = json!({"cpu": "1", "memory": "1Gi"});
    fixed["spec"]["containers"][0]["resources"] = json!({"limits": amounts, "requests": amounts});
    let mut wished = plain.clone();
    wished["metadata"]["annotations"] = json!({
        annotations::CPU_REQUEST: "20m", annotations::CPU_LIMIT: "100m", annotations::MEMORY_REQUEST: "16Mi",
        annotations::MEMORY_LIMIT: "32Mi",
    });
    let resources = |pod: &Value| {
        let ours = ["/spec/initContainers/0", "/spec/containers/1"].map(|pointer| pod.pointer(pointer).unwrap());
        ours.map(|ours| ours["resources"].clone())
    };
    let ours = |pod: &Value| resources(&injected(pod, &[binding("db")]));
    for (then, today) in [
        (&plain, &fixed),
        (&plain, &wished),
        (&wished, &fixed),
        (&fixed, &wished),
    ] {
        let mut copy = injected(then, &[binding("db")]);
        copy["spec"]["containers"][0]["resources"] = today["spec"]["containers"][0]["resources"].clone();
        copy["metadata"]["annotations"] = today["metadata"]["annotations"].clone();
        copy["metadata"]["annotations"][annotations::INJECTED] = json!("db");
        assert_eq!(ours(&copy), ours(today), "{today}");
    }
    let disk = |pod: &Value| ours(pod).map(|ours| ours["limits"]["ephemeral-storage"].clone());
    fixed["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1Gi"}});
    assert_eq!(disk(&fixed), [json!("32Mi"), json!("32Mi")]);
    let mut copy = injected(&fixed, &[binding("db")]);
    copy["spec"]["containers"][0]["resources"] = json!({});
    assert_eq!(
        disk(&copy),
        [Value::Null, Value::Null],
        "it would hold for the whole pod"
    );
}

/// Everything of a pod that an earlier injection may have left, for a plan of today that is another.
#[test]
fn a_copy_of_an_injected_pod_keeps_nothing_of_the_earlier_plan() {
    let spec = json!({
        "shareProcessNamespace": true, "securityContext": {"runAsUser": 7},
        "containers": [{"name": "app"}, {"name": "log"}], "initContainers": [{"name": "vpn"}, {"name": "migrate"}],
    });
    let mut plain = pod_with(&spec);
    plain["metadata"]["annotations"] = json!({annotations::EXEC: "log", annotations::AFTER: "vpn"});
    let at = |name: &str, path: &str| Binding {
        mount_path: path.to_owned(),
        ..binding(name)
    };
    let before = [
        Binding {
            signals: Some("app".to_owned()),
            ..at("db", "/old")
        },
        at("mail", "/mail"),
    ];
    let then = injected(&plain, &before);
    for (mode, policy) in [("sidecar", "Always"), ("native", "Never"), ("init", "Always")] {
        let changed = |pod: &Value| {
            let mut pod = pod.clone();
            let all = pod["metadata"]["annotations"].as_object_mut().unwrap();
            all.remove(annotations::EXEC);
            all.insert(annotations::CONTAINERS.to_owned(), json!("app,vpn"));
            all.insert(annotations::MODE.to_owned(), json!(mode));
            pod["spec"]["restartPolicy"] = json!(policy);
            pod
        };
        let today = [at("db", "/new"), at("web", "/mail")];
        let (copy, fresh) = (injected(&changed(&then), &today), injected(&changed(&plain), &today));
        // Empty lists stay where something was, and volumes in their order.
        let told = |pod: &Value| {
            let mut pod = pod.clone();
            let mut volumes = pod["spec"]["volumes"].as_array().unwrap().clone();
            volumes.sort_by_key(Value::to_string);
            pod["spec"]["volumes"] = volumes.into();
            for list in ["containers", "initContainers"] {
                for container in pod["spec"][list].as_array_mut().unwrap() {
                    let fields = container.as_object_mut().unwrap();
                    fields.retain(|_, value| *value != json!([]));
                    if let Some(mounts) = fields.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                        mounts.sort_by_key(Value::to_string);
                    }
                }
            }
            show(&pod)
        };
        pretty(&told(&copy), &told(&fresh));
    }
}

fn pretty(copy: &str, fresh: &str) {
    assert!(copy == fresh, "the copy is\n{copy}\nand a fresh one\n{fresh}");
}
