//! What is in the way of a directory or a name, and who may not mount what is ours.

use super::*;

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
        (at("/var/run"), &json!({"name": "v", "secret": {"secretName": "x"}})),
        (at("/var/run"), &json!({"name": "v", "downwardAPI": {}})),
        (at("/var/run"), &json!({"name": "v", "projected": {"sources": []}})),
        (at("/data/../var/run/secrets/sealpod.dev/db"), &scratch),
    ] {
        let text = refusal(&pod_with(&spec(mount.clone(), volume.clone())));
        assert!(
            text.starts_with("container \"log\" already mounts volume \"v\" at "),
            "{mount}: {text}"
        );
        assert!(text.contains(ours), "{text}");
    }
    for mount in [
        at("/run/secrets"),
        at("/var/run/secrets/sealpod.dev/db/../other"),
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
fn what_one_container_writes_may_have_a_directory_for_ours_where_another_only_reads_it() {
    let at = |path: &str, read_only: bool| json!([{"name": "v", "mountPath": path, "readOnly": read_only}]);
    let spec = |writer: Value, reader: Value, volume: Value| {
        json!({
            "initContainers": [{"name": "prepare", "volumeMounts": writer}],
            "containers": [{"name": "app", "volumeMounts": reader}], "volumes": [volume],
        })
    };
    let scratch = || json!({"name": "v", "emptyDir": {}});
    let here = "/var/run/secrets";
    let warnings = doubts(
        &spec(at("/var//run/secrets/", false), at(here, true), scratch()),
        &[binding("db")],
    );
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("container \"app\" can start only if volume \"v\", which is read-only at"),
        "{warnings:?}"
    );
    let of_the_api = json!({"name": "v", "configMap": {"name": "c"}});
    for (writer, reader, volume) in [
        (at("/elsewhere", false), at(here, true), scratch()),
        (at(here, true), at(here, true), scratch()),
        (at(here, false), at(here, true), of_the_api),
    ] {
        let text = refusal(&pod_with(&spec(writer.clone(), reader, volume)));
        assert!(text.contains("already mounts volume \"v\" at "), "{writer}: {text}");
    }
}

/// A binding whose directory is elsewhere.
fn at(name: &str, path: &str) -> Binding {
    Binding {
        mount_path: path.to_owned(),
        ..binding(name)
    }
}

/// The warnings of a pod with a binding `db`, but for that it is not ready.
fn doubts(spec: &Value, bindings: &[Binding]) -> Vec<String> {
    planned(&pod_with(spec), bindings).unwrap().warnings
}

#[test]
fn what_a_volume_may_hold_is_a_warning() {
    let read_only = |mut mount: Value| {
        mount["readOnly"] = json!(true);
        mount
    };
    let mount = json!({"name": "v", "mountPath": "/var/run"});
    let claim = json!({"claimName": "x"});
    for (mount, source) in [
        (mount.clone(), json!({"image": {"reference": "x"}})),
        (mount.clone(), json!({"csi": {"driver": "x", "readOnly": true}})),
        (
            mount.clone(),
            json!({"persistentVolumeClaim": {"claimName": "x", "readOnly": true}}),
        ),
        (
            mount.clone(),
            json!({"nfs": {"server": "x", "path": "/", "readOnly": true}}),
        ),
        (read_only(mount.clone()), json!({"image": {"reference": "x"}})),
        (read_only(mount.clone()), json!({"persistentVolumeClaim": claim})),
        (read_only(mount.clone()), json!({"hostPath": {"path": "/run"}})),
    ] {
        let mut volume = json!({"name": "v"});
        volume
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().unwrap().clone());
        let reader = |name: &str| json!({"name": name, "volumeMounts": [mount]});
        let spec = json!({"containers": [{"name": "app"}, reader("log"), reader("web")], "volumes": [volume]});
        assert_eq!(
            doubts(&spec, &[binding("db")]),
            [
                "container \"log\" and 1 more can start only if volume \"v\", which is read-only at \"/var/run\", has a \
                 directory for SecretBinding \"db\" at \"/var/run/secrets/sealpod.dev/db\"; else set another mountPath"
            ],
            "{source}"
        );
    }
    let volume = json!({"name": "v", "persistentVolumeClaim": claim});
    let spec = json!({"containers": [{"name": "log", "volumeMounts": [mount]}], "volumes": [volume]});
    assert_eq!(doubts(&spec, &[binding("db")]), [""; 0], "a writable one");
}

#[test]
fn what_meets_ours_by_a_link_of_the_image_alone_is_a_warning() {
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let spec = |path: &str, source: &Value| {
        let mut volume = json!({"name": "kube-api-access-x7k2p"});
        volume
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().unwrap().clone());
        let mount = json!({"name": "kube-api-access-x7k2p", "mountPath": path});
        json!({"containers": [{"name": "app", "volumeMounts": [mount]}], "volumes": [volume]})
    };
    let (scratch, fixed) = (json!({"emptyDir": {}}), json!({"projected": {"sources": []}}));
    for (ours, theirs, source) in [
        ("/run/secrets", token, &fixed),
        ("/run", token, &fixed),
        ("/run/secrets/kubernetes.io/serviceaccount", token, &fixed),
        ("/run/secrets/kubernetes.io/serviceaccount/x", token, &fixed),
        ("/var/run/secrets/x", "/run/secrets/x", &scratch),
        ("/var/run/x", "/run/x/y", &scratch),
        ("/var/run/secrets/x", "/run/secrets", &fixed),
    ] {
        assert_eq!(
            doubts(&spec(theirs, source), &[at("db", ours)]),
            [format!(
                "container \"app\" may not start, or lack files, where the image links /var/run to /run: \
                 SecretBinding \"db\" at \
                 {ours:?} meets the mount at {theirs:?}; set another mountPath"
            )]
        );
    }
    for (ours, theirs, source) in [
        ("/var/run/secrets/x", "/run/secrets", &scratch),
        ("/var/running", "/run", &fixed),
        ("/var/run/x", "/run/y", &fixed),
        ("/run/x", "/var", &scratch),
    ] {
        assert_eq!(
            doubts(&spec(theirs, source), &[at("db", ours)]),
            [""; 0],
            "{ours} {theirs}"
        );
    }
}

#[test]
fn our_own_directories_are_in_our_own_image_which_has_no_link() {
    let plain = json!({"containers": [{"name": "app"}]});
    for path in [
        "/run/sealpod",
        "/run",
        "/run/sealpod/db",
        "/run/sealpod-exec",
        "/run/sealpod-exec/x",
    ] {
        let mut pod = pod_with(&plain);
        pod["metadata"]["annotations"] = json!({annotations::EXEC: "app"});
        planned(&pod, &[at("db", path)]).unwrap();
    }
    for path in ["/var/run/sealpod", "/var/run/sealpod/db/x", "/var/run/sealpod-exec"] {
        let mut pod = pod_with(&plain);
        pod["metadata"]["annotations"] = json!({annotations::EXEC: "app"});
        planned(&pod, &[at("db", path)]).unwrap_err();
    }
    for (one, other) in [
        ("/run/x", "/var/run/x"),
        ("/run/secrets", "/var/run/secrets/sealpod.dev/b"),
    ] {
        assert_eq!(
            doubts(&plain, &[at("a", one), at("b", other)]),
            [format!(
                "container \"app\" may not start, or lack files, where the image links /var/run to /run: \
                 SecretBinding \"a\" at \
                 {one:?} meets \"b\" at {other:?}; set another mountPath"
            )]
        );
    }
}

#[test]
fn warnings_of_one_pod_are_bounded() {
    let mounts: Vec<_> = (0..100)
        .map(|number| json!({"name": "v", "mountPath": format!("/run/{number}")}))
        .collect();
    let spec =
        json!({"containers": [{"name": "app", "volumeMounts": mounts}], "volumes": [{"name": "v", "emptyDir": {}}]});
    let bindings: Vec<_> = (0..60)
        .map(|number| at(&format!("b{number}"), &format!("/var/run/{number}")))
        .collect();
    assert_eq!(doubts(&spec, &bindings).len(), 16);
}

#[test]
fn two_bindings_in_one_directory_are_refused() {
    for (one, other) in [
        ("/var", "/var/run/x"),
        ("/x", "/y/../x"),
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
