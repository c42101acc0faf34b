//! What a pod that is made by hand gets of what it pretends.

use super::*;

#[test]
fn a_container_that_only_looks_like_ours_runs_our_program_as_ours_and_nothing_else() {
    let honest = injected(&pod_with(&json!({})), &[binding("db")]);
    let mut forged = honest.clone();
    let key = honest["spec"]["volumes"][2]["name"].clone();
    for pointer in ["/spec/initContainers/0", "/spec/containers/1"] {
        let ours = forged.pointer_mut(pointer).unwrap();
        ours["image"] = json!("evil.test/exfiltrate:1");
        ours["envFrom"] = json!([{"secretRef": {"name": "x"}}]);
        ours["command"] = json!(["/bin/sh"]);
        ours["args"] = json!(["-c", "cat"]);
        ours["lifecycle"] = json!({"postStart": {"exec": {"command": ["x"]}}});
        ours["securityContext"] = json!({"privileged": true, "runAsUser": 0});
        ours["env"] = json!([{"name": "SEALPOD_SETTINGS", "value": "{}"}, {"name": "SEALPOD_KEY_FILE", "value": "/x"}]);
        ours["resources"] = json!({"limits": {"memory": "1Mi"}});
        ours["readinessProbe"] = json!({"exec": {"command": ["x"]}});
        ours["volumeMounts"] = json!([{"name": key, "mountPath": "/elsewhere"}]);
    }
    forged["spec"]["containers"][0]["volumeMounts"] = json!([{"name": key, "mountPath": "/stolen"}]);
    let patched = injected(&forged, &[binding("db")]);
    for pointer in ["/spec/initContainers/0", "/spec/containers/1"] {
        let (got, want) = (patched.pointer(pointer).unwrap(), honest.pointer(pointer).unwrap());
        pretty(&show(got), &show(want));
    }
    assert!(!patched["spec"]["containers"][0].to_string().contains("sealpod-key-"));
}

#[test]
fn the_image_and_the_rights_of_ours_are_the_injectors_own_whatever_the_pod_says() {
    let honest = injected(&pod_with(&json!({})), &[binding("db")]);
    for (field, forged) in [
        ("image", json!("evil.test/sealpod-sidecar:1")),
        ("image", json!("registry.test/sealpod-sidecar:1@sha256:ab")),
        ("image", json!("registry.test/sealpod-sidecar@sha256:ab")),
        ("seLinuxOptions", json!({"type": "spc_t"})),
        ("appArmorProfile", json!({"type": "Unconfined"})),
        (
            "appArmorProfile",
            json!({"type": "RuntimeDefault", "localhostProfile": "x"}),
        ),
        ("privileged", json!(true)),
        ("procMount", json!("Unmasked")),
    ] {
        let mut pod = honest.clone();
        let ours = &mut pod["spec"]["containers"][1];
        match field {
            "image" => ours[field] = forged.clone(),
            _ => ours["securityContext"][field] = forged.clone(),
        }
        let patched = injected(&pod, &[binding("db")]);
        assert_eq!(patched["spec"]["containers"], honest["spec"]["containers"], "{forged}");
    }
}

#[test]
fn what_a_policy_takes_from_ours_stays_taken_beside_what_is_forged() {
    let taken = json!({"privileged": false, "procMount": "Default", "appArmorProfile": {"type": "RuntimeDefault"}});
    for forged in [
        json!({}),
        json!({"runAsUser": 0, "runAsNonRoot": false, "allowPrivilegeEscalation": true}),
        json!({"capabilities": {"add": ["SYS_PTRACE"]}, "seccompProfile": {"type": "Unconfined"}}),
        json!({"seLinuxOptions": {"type": "spc_t"}, "readOnlyRootFilesystem": false}),
    ] {
        let mut pod = injected(&pod_with(&json!({})), &[binding("db")]);
        let mut want = pod.clone();
        for (pod, rights) in [(&mut pod, [&taken, &forged]), (&mut want, [&taken, &json!({})])] {
            let ours = pod["spec"]["containers"][1]["securityContext"].as_object_mut().unwrap();
            for rights in rights {
                ours.extend(rights.as_object().unwrap().clone());
            }
        }
        assert_eq!(injected(&pod, &[binding("db")]), want, "{forged}");
    }
}

#[test]
fn a_gate_that_only_looks_like_ours_is_put_back() {
    let honest = injected(&pod_with(&json!({"restartPolicy": "Never"})), &[binding("db")]);
    for (pointer, forged) in [
        ("/httpGet/host", json!("192.0.2.1")),
        ("/httpGet/scheme", json!("HTTPS")),
        ("/httpGet/httpHeaders", json!([{"name": "Host", "value": "x"}])),
        ("/initialDelaySeconds", json!(3_600)),
        ("/successThreshold", json!(7)),
        ("/terminationGracePeriodSeconds", json!(0)),
    ] {
        let mut pod = honest.clone();
        let gate = &mut pod["spec"]["initContainers"][0]["startupProbe"];
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        gate.pointer_mut(parent).unwrap()[field] = forged;
        assert_eq!(injected(&pod, &[binding("db")]), honest, "{pointer}");
    }
}

#[test]
fn nothing_that_keeps_ours_from_running_stays_in_it() {
    let honest = injected(&pod_with(&json!({})), &[binding("db")]);
    for (field, forged) in [
        ("terminationMessagePath", json!("/sealpod-sidecar")),
        (
            "volumeDevices",
            json!([{"name": "v", "devicePath": "/sealpod-sidecar"}]),
        ),
        ("stdin", json!(true)),
        ("restartPolicyRules", json!([{"action": "Restart"}])),
    ] {
        let mut pod = honest.clone();
        pod["spec"]["containers"][1][field] = forged;
        assert_eq!(injected(&pod, &[binding("db")]), honest, "{field}");
    }
    let mut pod = honest.clone();
    pod["spec"]["containers"][1]["volumeMounts"][0]["readOnly"] = json!(true);
    let ours = |pod: &Value| {
        let mut mounts = items(&pod["spec"]["containers"][1], "volumeMounts").to_vec();
        mounts.sort_by_key(Value::to_string);
        mounts
    };
    assert_eq!(
        ours(&injected(&pod, &[binding("db")])),
        ours(&honest),
        "files are written there"
    );
    let mut pod = honest.clone();
    pod["spec"]["volumes"][2]["secret"]["optional"] = json!(true);
    assert_eq!(injected(&pod, &[binding("db")]), honest, "the pod waits for its key");
}

#[test]
fn a_port_that_our_container_says_it_was_told_is_not_believed() {
    let honest = injected(&pod_with(&json!({})), &[binding("db")]);
    for port in ["0", "80", "443", "65535"] {
        let mut pod = honest.clone();
        for pointer in ["/spec/initContainers/0", "/spec/containers/1"] {
            let variable = pod.pointer_mut(pointer).unwrap()["env"].as_array_mut().unwrap();
            let settings = variable.last_mut().unwrap();
            let forged = settings["value"].as_str().unwrap().replace("19765", port);
            settings["value"] = json!(forged);
        }
        for probe in ["readinessProbe", "livenessProbe"] {
            pod["spec"]["containers"][1][probe]["httpGet"]["port"] = json!(port.parse::<u16>().unwrap());
        }
        assert_eq!(injected(&pod, &[binding("db")]), honest, "{port}");
    }
}
