//! What runs before our init container, which is not always the first.

use super::*;

/// A pod of init containers `inits`, of which `stays` is a native sidecar, and the containers `app` and `log`.
fn pod_of(inits: &[&str], annotations: Value) -> Value {
    let inits: Vec<_> = inits
        .iter()
        .map(|name| match *name {
            "stays" => json!({"name": name, "restartPolicy": "Always"}),
            _ => json!({"name": name}),
        })
        .collect();
    annotated(
        annotations,
        &json!({"initContainers": inits, "containers": [{"name": "app"}, {"name": "log"}]}),
    )
}

#[test]
fn a_container_that_runs_before_ours_is_not_started_by_a_program_that_comes_later() {
    for mode in ["sidecar", "native", "init"] {
        for (inits, after, exec, is_refused) in [
            (vec!["vpn"], "vpn", "vpn", true),
            (vec!["stays"], "stays", "stays", true),
            (vec!["migrate", "vpn"], "vpn", "migrate", true),
            (vec!["migrate", "istio-proxy"], "", "migrate", true),
            (vec!["sealpod-init", "migrate", "linkerd-proxy"], "", "migrate", true),
            (vec!["vpn", "migrate"], "vpn", "migrate", false),
            (vec!["vpn", "migrate"], "", "vpn", false),
            (vec!["istio-proxy", "migrate"], "", "migrate", false),
            (vec!["vpn"], "vpn", "app", false),
        ] {
            let all = json!({
                annotations::MODE: mode, annotations::AFTER: after, annotations::EXEC: exec, annotations::INJECTED: "db",
            });
            let mut pod = pod_of(&inits, all);
            if inits[0] == "sealpod-init" {
                pod["spec"]["initContainers"][0]["env"] = json!([{"name": "SEALPOD_SETTINGS", "value": "{}"}]);
            }
            let result = planned(&pod, &[binding("db")]);
            assert_eq!(result.is_err(), is_refused, "{inits:?} {after} {exec}: {result:?}");
            let Err(text) = result else { continue };
            let named = format!("sealpod.dev/exec names container \"{exec}\", which runs before Sealpod's own");
            assert!(text.contains(&named) && text.contains("sealpod.dev/after"), "{text}");
        }
    }
}

#[test]
fn who_names_a_container_that_runs_before_ours_is_told_that_it_finds_nothing() {
    let told = |inits: &[&str], containers: Option<&str>| {
        let mut all = json!({annotations::AFTER: inits[0]});
        if let Some(containers) = containers {
            all[annotations::CONTAINERS] = json!(containers);
        }
        planned(&pod_of(inits, all), &[binding("db")]).unwrap().warnings
    };
    let text = "sealpod.dev/containers names \"vpn\", which runs before Sealpod's own and finds an empty directory";
    assert_eq!(told(&["vpn", "migrate"], Some("vpn,migrate,app")), [text]);
    let later = told(&["stays", "migrate"], Some("stays"));
    assert!(later[0].ends_with("an empty directory at first"), "{later:?}");
    assert_eq!(told(&["vpn", "migrate"], Some("migrate")), [""; 0]);
    assert_eq!(told(&["vpn", "migrate"], None), [""; 0], "nobody asked for it");
}
