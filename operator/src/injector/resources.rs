//! What our containers request, so that the pod keeps its quality-of-service class.

use serde_json::{Value, json};

use super::pod::{Pod, items, text};
use super::quantity;

const CPU_REQUEST: &str = "5m";
const MEMORY_REQUEST: &str = "8Mi";
/// For the process alone; the tmpfs pages that it writes are charged to it and come on top.
const MEMORY_LIMIT_BYTES: u64 = 32 * 1024 * 1024;
/// In a Guaranteed pod a limit on CPU is inevitable. Of 5m, 0.5 ms in each 100 ms, a TLS handshake would take seconds.
const CPU_GUARANTEED: &str = "50m";

/// `resources` of each of our containers beside tmpfs volumes of `volume_bytes` in all.
pub fn of_ours(pod: Pod<'_>, is_ours: impl Fn(&str) -> bool, volume_bytes: u64) -> Value {
    if is_sized_as_a_whole(pod) {
        // The pod's own limits bound all its containers together; requests of ours could exceed what is left of them.
        return json!({});
    }
    let memory = quantity::format(MEMORY_LIMIT_BYTES.saturating_add(volume_bytes));
    if is_guaranteed(pod, is_ours) {
        let both = json!({"cpu": CPU_GUARANTEED, "memory": memory});
        return json!({"requests": both, "limits": both});
    }
    json!({
        "requests": {"cpu": CPU_REQUEST, "memory": MEMORY_REQUEST},
        "limits": {"memory": memory},
    })
}

/// Pod-level resources: `spec.resources`.
fn is_sized_as_a_whole(pod: Pod<'_>) -> bool {
    ["requests", "limits"].into_iter().any(|field| {
        let amounts = pod.spec().get("resources").and_then(|resources| resources.get(field));
        amounts
            .and_then(Value::as_object)
            .is_some_and(|amounts| !amounts.is_empty())
    })
}

/// Whether every container but ours has limits on CPU and memory, and requests equal to them or none.
fn is_guaranteed(pod: Pod<'_>, is_ours: impl Fn(&str) -> bool) -> bool {
    let fixed = |container: &Value, resource: &str| {
        let amount = |kind: &str| {
            let amounts = container.get("resources")?.get(kind)?;
            quantity::nanos(text(amounts, resource)?)
        };
        match (amount("limits"), amount("requests")) {
            (Some(limit), Some(request)) => limit == request,
            (Some(limit), None) => limit > 0,
            (None, _) => false,
        }
    };
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| items(pod.spec(), list))
        .filter(|container| !is_ours(text(container, "name").unwrap_or_default()))
        .all(|container| fixed(container, "cpu") && fixed(container, "memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn ours(containers: &Value) -> Value {
        let pod = json!({"spec": {"containers": containers}});
        of_ours(Pod(&pod), |name| name == "sealpod", 16 * MIB)
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
        let want = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "48Mi"}});
        for resources in [
            json!({}),
            json!({"limits": {"memory": "1Gi"}}),
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
            json!({"limits": {"cpu": "1", "memory": 5}}),
        ] {
            assert_eq!(
                ours(&json!([{"name": "a", "resources": resources}])),
                want,
                "{resources}"
            );
        }
    }

    #[test]
    fn a_pod_that_is_sized_as_a_whole_is_not_changed_by_ours() {
        let pod = json!({"spec": {"resources": {"limits": {"cpu": "1"}}, "containers": [{"name": "a"}]}});
        assert_eq!(of_ours(Pod(&pod), |_| false, MIB), json!({}));
    }
}
