//! How the kubelet asks, and by which port.

use super::*;

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
fn the_gate_is_a_request_where_it_reaches_our_sidecar_and_nothing_else_and_a_command_elsewhere() {
    let stays = json!({"name": "vpn", "restartPolicy": "Always"});
    let port = json!({"path": "/wait", "port": HEALTH_PORT});
    for (spec, by_request) in [
        (json!({}), true),
        (json!({"initContainers": [{"name": "migrate"}, stays]}), true),
        (json!({"hostNetwork": true}), false),
        (json!({"initContainers": [{"name": "istio-proxy"}]}), false),
        (
            json!({"containers": [{"name": "app"}, {"name": "linkerd-proxy"}]}),
            false,
        ),
        (json!({"initContainers": [stays], "after": "vpn"}), false),
    ] {
        let mut spec = spec;
        spec["restartPolicy"] = json!("Never");
        let after = spec.as_object_mut().unwrap().remove("after").unwrap_or_default();
        let pod = annotated(json!({annotations::AFTER: after}), &spec);
        let plan = planned(&pod, &[binding("db")]).unwrap();
        let gate = &plan.ours[0].container["startupProbe"];
        let command = json!({"command": ["/sealpod-sidecar", "wait"]});
        let (request, command) = if by_request {
            (port.clone(), Value::Null)
        } else {
            (Value::Null, command)
        };
        assert_eq!((&gate["httpGet"], &gate["exec"]), (&request, &command), "{pod}");
        // While later init containers run, these ask by the same way as the gate.
        for probe in ["readinessProbe", "livenessProbe"] {
            let probe = &plan.ours[0].container[probe];
            let is_asked = (probe["httpGet"].is_object(), probe["exec"].is_object());
            let none = spec["hostNetwork"] == true && probe.is_null();
            assert!(none || is_asked == (by_request, !by_request), "{pod}: {probe}");
        }
        assert_eq!(
            (
                &gate["periodSeconds"],
                &gate["timeoutSeconds"],
                &gate["failureThreshold"]
            ),
            (&json!(1), &json!(600), &json!(i32::MAX))
        );
    }
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
fn a_regular_sidecar_is_asked_on_the_pods_address_behind_a_proxy_that_lets_requests_in() {
    for inits in [json!([]), json!([{"name": "linkerd-proxy", "restartPolicy": "Always"}])] {
        let containers = match inits.as_array().unwrap().len() {
            0 => json!([{"name": "app"}, {"name": "linkerd-proxy"}]),
            _ => json!([{"name": "app"}]),
        };
        let spec = json!({"initContainers": inits, "containers": containers});
        let plan = planned(&pod_with(&spec), &[binding("db")]).unwrap();
        for probe in ["readinessProbe", "livenessProbe"] {
            assert_eq!(plan.ours[1].container[probe]["httpGet"]["port"], HEALTH_PORT, "{spec}");
        }
    }
}
