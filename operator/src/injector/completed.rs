//! A container of ours that is in the pod already, as today's plan wants it.
//!
//! It may be from a moment ago, with what other webhooks have changed since: probes that go through a proxy, variables and
//! mounts for every container. Or the pod is a copy, of last year, from another namespace, or made by
//! hand: then all else that decides what runs there, as whom and with what, is the plan's.

use serde_json::{Map, Value, json};

use super::conflicts::contains;
use super::containers::PROGRAM;
use super::earlier::{Earlier, agrees};
use super::plan::{Ours, name_of, told_port};
use super::pod::items;
use super::quantity;
use super::resources::{KINDS, Leeway};

/// Variables with this prefix are ours.
const OUR_VARIABLES: &str = "SEALPOD_";
/// What says nothing of what runs, and is filled in by the API server.
const FILLED_IN: [&str; 2] = ["terminationMessagePolicy", "resizePolicy"];
/// So is this; the runtime mounts a file there, so no other place will do.
const TERMINATION_MESSAGE: (&str, &str) = ("terminationMessagePath", "/dev/termination-log");

/// What `ours` wants, with what of `present` may stay; a field of which nothing is said here goes.
pub fn completed(present: &Value, ours: &Ours, earlier: &Earlier<'_>) -> Value {
    let wanted = &ours.container;
    let left = told_port(present).filter(|port| Some(*port) != told_port(wanted));
    let still_asks = |there: &Value, planned: &Value| {
        asks_alike(there, planned) && left.is_none_or(|port| there["httpGet"]["port"] != port)
    };
    let mut whole = Map::new();
    for (field, planned) in wanted.as_object().into_iter().flatten() {
        let there = &present[field.as_str()];
        let value = match field.as_str() {
            "resources" => sized(there, planned, ours.leeway),
            "env" => env(items(present, field), items(wanted, field)),
            "volumeMounts" => mounts(items(present, field), items(wanted, field), earlier),
            "imagePullPolicy" if there.is_string() => there.clone(),
            "readinessProbe" | "livenessProbe" if still_asks(there, planned) => there.clone(),
            _ if agrees(there, planned) => there.clone(),
            "securityContext" => confined(there, planned),
            _ => planned.clone(),
        };
        whole.insert(field.clone(), value);
    }
    let (message, place) = TERMINATION_MESSAGE;
    let message = Some(message).filter(|message| present[*message] == place);
    for field in FILLED_IN.into_iter().chain(message) {
        if let Some(value) = present.get(field) {
            whole.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(whole)
}

/// The rights that are planned, less what a policy has taken away: nothing stays but what can take away alone.
fn confined(present: &Value, planned: &Value) -> Value {
    let mut whole = planned.clone();
    for (field, least) in [
        ("privileged", json!(false)),
        ("procMount", json!("Default")),
        ("appArmorProfile", json!({"type": "RuntimeDefault"})),
    ] {
        if whole.get(field).is_none() && present.get(field) == Some(&least) {
            whole[field] = least;
        }
    }
    whole
}

/// Whether a probe asks by the same means as the wanted one; where it asks, a proxy may have changed.
fn asks_alike(present: &Value, wanted: &Value) -> bool {
    let means = |probe: &Value| ["httpGet", "exec"].map(|means| probe.get(means).is_some());
    means(present) == means(wanted)
}

/// Resources as planned, amount by amount. What the plan leaves open may have been set by the defaults and policies of
/// the namespace, and stays.
fn sized(present: &Value, wanted: &Value, leeway: Leeway) -> Value {
    let of = |resources: &Value, kind: &str| {
        resources
            .get(kind)
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let [planned_requests, planned_limits] = KINDS.map(|kind| of(wanted, kind));
    let [mut requests, mut limits] = KINDS.map(|kind| of(present, kind));
    limits.retain(
        |resource, amount| match (resource.as_str(), planned_limits.get(resource)) {
            ("memory", Some(planned)) if leeway.memory => is_least(planned, amount),
            (_, Some(planned)) => is_least(planned, amount) && is_least(amount, planned),
            // A limit on the disk holds for the whole pod.
            ("ephemeral-storage", None) => false,
            ("cpu", None) if !leeway.cpu => false,
            (_, None) => planned_requests
                .get(resource)
                .is_none_or(|request| is_least(request, amount)),
        },
    );
    requests.retain(|resource, amount| match planned_requests.get(resource) {
        Some(planned) => is_least(planned, amount) && is_least(amount, planned),
        // The API server makes a request of a limit that has none: it goes with that.
        None if !limits.contains_key(resource) && of(present, "limits").get(resource) == Some(amount) => false,
        None => planned_limits.get(resource).is_none_or(|limit| is_least(amount, limit)),
    });
    let mut whole = present.as_object().cloned().unwrap_or_default();
    for (kind, mut amounts, planned) in [
        (KINDS[0], requests, planned_requests),
        (KINDS[1], limits, planned_limits),
    ] {
        for (resource, amount) in planned {
            amounts.entry(resource).or_insert(amount);
        }
        if amounts.is_empty() {
            whole.remove(kind);
        } else {
            whole.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(whole)
}

/// Whether one amount is no more than another; not where one cannot be read.
fn is_least(least: &Value, most: &Value) -> bool {
    let nanos = |amount: &Value| quantity::nanos(amount.as_str()?);
    matches!((nanos(least), nanos(most)), (Some(least), Some(most)) if least <= most)
}

/// Ours first, because they refer to each other in their order, then those that others have added.
fn env(present: &[Value], wanted: &[Value]) -> Value {
    let is_ours = |variable: &Value| {
        let name = name_of(variable);
        name.starts_with(OUR_VARIABLES) || wanted.iter().any(|wanted| name_of(wanted) == name)
    };
    let ours = wanted
        .iter()
        .map(|wanted| present.iter().find(|there| agrees(there, wanted)).unwrap_or(wanted));
    let others = present.iter().filter(|variable| !is_ours(variable));
    ours.chain(others).cloned().collect()
}

fn mounts(present: &[Value], wanted: &[Value], earlier: &Earlier<'_>) -> Value {
    let is_wanted = |mount: &Value| wanted.iter().any(|wanted| agrees(mount, wanted));
    let path = |mount: &Value| mount["mountPath"].as_str().unwrap_or_default().to_owned();
    let ours: Vec<String> = wanted.iter().map(path).collect();
    // What is mounted over the program would run in its place, with the key; what is mounted into a directory of ours would
    // be read in place of what is there.
    let is_in_the_way = |mount: &Value| {
        let at = path(mount);
        contains(&at, PROGRAM) || ours.iter().any(|ours| contains(ours, &at))
    };
    let is_others = |mount: &Value| !earlier.has_volume(name_of(mount));
    let kept: Vec<&Value> = present
        .iter()
        // No two may be at one path, whoever brought the other.
        .filter(|mount| is_wanted(mount) || is_others(mount) && !is_in_the_way(mount))
        .collect();
    let new = wanted
        .iter()
        .filter(|wanted| !kept.iter().any(|mount| agrees(mount, wanted)));
    kept.iter().copied().chain(new).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_somebody_else_mounts_where_ours_comes_to_be_gives_way_and_the_rest_stays() {
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        let present = [
            json!({"name": "kube-api-access-x", "mountPath": token, "readOnly": true}),
            json!({"name": "proxy", "mountPath": "/proxy"}),
            json!({"name": "forged", "mountPath": "/sealpod-sidecar", "subPath": "program"}),
            json!({"name": "forged", "mountPath": "//sealpod-sidecar/."}),
            json!({"name": "forged", "mountPath": "/x/../sealpod-sidecar"}),
            json!({"name": "proxy", "mountPath": "/sealpod-sidecar/../x"}),
            json!({"name": "forged", "mountPath": format!("{token}/")}),
            json!({"name": "forged", "mountPath": format!("{token}/ca.crt")}),
        ];
        let wanted = [json!({"name": "sealpod-nothing", "mountPath": token, "readOnly": true})];
        let pod = json!({});
        let earlier = Earlier::of(crate::injector::pod::Pod(&pod));
        assert_eq!(
            mounts(&present, &wanted, &earlier),
            json!([present[1], present[5], wanted[0]])
        );
    }

    #[test]
    fn amounts_that_somebody_else_has_set_stay_where_the_plan_has_none_that_they_contradict() {
        let wanted = json!({"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"memory": "48Mi"}});
        let free = Leeway {
            memory: true,
            cpu: true,
        };
        let ruled = Leeway {
            memory: false,
            cpu: false,
        };
        for (present, leeway, want) in [
            (json!(null), free, json!({})),
            (
                json!({"limits": {"memory": "1Gi"}}),
                free,
                json!({"limits": {"memory": "1Gi"}}),
            ),
            (json!({"limits": {"memory": "1Gi"}}), ruled, json!({})),
            (json!({"limits": {"memory": "47Mi"}}), free, json!({})),
            (json!({"requests": {"cpu": "10m", "memory": "16Mi"}}), free, json!({})),
            (
                json!({"requests": {"cpu": "0.005"}}),
                free,
                json!({"requests": {"cpu": "0.005"}}),
            ),
            (
                json!({"limits": {"cpu": "500m"}}),
                free,
                json!({"limits": {"cpu": "500m"}}),
            ),
            (json!({"limits": {"cpu": "3m"}}), free, json!({})),
            (json!({"limits": {"ephemeral-storage": "32Mi"}}), free, json!({})),
            (
                json!({"limits": {"novel.test/x": "1"}}),
                free,
                json!({"limits": {"novel.test/x": "1"}}),
            ),
            (
                json!({"claims": [{"name": "x"}]}),
                free,
                json!({"claims": [{"name": "x"}]}),
            ),
            (json!({"limits": {"cpu": "500m"}}), ruled, json!({})),
            (
                json!({"limits": {"ephemeral-storage": "32Mi"}, "requests": {"ephemeral-storage": "32Mi"}}),
                free,
                json!({}),
            ),
            (
                json!({"requests": {"ephemeral-storage": "50Mi"}}),
                free,
                json!({"requests": {"ephemeral-storage": "50Mi"}}),
            ),
        ] {
            let mut whole = wanted.clone();
            for (field, value) in want.as_object().unwrap() {
                match value.as_object() {
                    Some(amounts) => whole[field].as_object_mut().unwrap().extend(amounts.clone()),
                    None => whole[field] = value.clone(),
                }
            }
            assert_eq!(sized(&present, &wanted, leeway), whole, "{present}");
        }
        let present = json!({"requests": {"memory": "96Mi"}});
        let wanted = json!({"limits": {"memory": "64Mi"}});
        assert_eq!(sized(&present, &wanted, ruled), wanted, "no request above its limit");
        assert_eq!(sized(&present, &json!({}), ruled), present);
    }
}
