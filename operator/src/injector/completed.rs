//! A container of ours that is in the pod already, as today's plan wants it.
//!
//! It may be from a moment ago, with what other webhooks have changed since: an image from a mirror, probes that go through a
//! proxy, variables and mounts for every container. Or the pod is a copy, of last year, from another namespace, or made by
//! hand: then all else that decides what runs there, as whom and with what, is the plan's.

use serde_json::{Map, Value};

use super::earlier::{Earlier, covers, is_mount};
use super::plan::name_of;
use super::pod::{items, text};
use super::quantity;

/// Variables with this prefix are ours.
const OUR_VARIABLES: &str = "SEALPOD_";
/// What would run something else than the plan's program and arguments. The plan has none of them.
const NEVER: [&str; 3] = ["command", "lifecycle", "workingDir"];
/// What in a security context would give more rights. The plan has none of them.
const RIGHTS: [&str; 2] = ["privileged", "procMount"];

/// `present` with all of `wanted`.
pub fn completed(present: &Value, wanted: &Value, earlier: &Earlier<'_>) -> Value {
    let mut whole = present.as_object().cloned().unwrap_or_default();
    whole.retain(|field, _| !NEVER.contains(&field.as_str()));
    let both = |field: &str| (present.get(field).filter(|value| !value.is_null()), wanted.get(field));
    for field in ["name", "args", "restartPolicy", "startupProbe"] {
        set(&mut whole, field, both(field), |present, wanted| {
            covers(present, wanted)
        });
    }
    set(&mut whole, "imagePullPolicy", both("imagePullPolicy"), |_, _| true);
    set(&mut whole, "image", both("image"), is_same_image);
    for probe in ["readinessProbe", "livenessProbe"] {
        set(&mut whole, probe, both(probe), asks_alike);
    }
    set(&mut whole, "resources", both("resources"), is_enough);
    let computed = [
        (
            "securityContext",
            rights(present.get("securityContext"), wanted.get("securityContext")),
        ),
        ("env", env(items(present, "env"), items(wanted, "env"))),
        (
            "volumeMounts",
            mounts(items(present, "volumeMounts"), items(wanted, "volumeMounts"), earlier),
        ),
    ];
    whole.extend(computed.map(|(field, value)| (field.to_owned(), value)));
    Value::Object(whole)
}

/// Leaves a field where it `may_stay`; else it is as wanted, or goes.
fn set(
    whole: &mut Map<String, Value>,
    field: &str,
    (present, wanted): (Option<&Value>, Option<&Value>),
    may_stay: impl Fn(&Value, &Value) -> bool,
) {
    match (present, wanted) {
        (_, None) => drop(whole.remove(field)),
        (Some(present), Some(wanted)) if may_stay(present, wanted) => {}
        (_, Some(wanted)) => drop(whole.insert(field.to_owned(), wanted.clone())),
    }
}

/// The last name of an image, its tag and its digest.
fn parts(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (tagged, digest) = image
        .split_once('@')
        .map_or((image, None), |(tagged, digest)| (tagged, Some(digest)));
    let last = tagged.rsplit('/').next().unwrap_or_default();
    let (name, tag) = last
        .split_once(':')
        .map_or((last, None), |(name, tag)| (name, Some(tag)));
    (name, tag, digest)
}

/// Whether an image is the wanted one, from whatever registry, and with a digest in place of its tag or beside it: so write
/// those who keep mirrors, and those who pin images.
fn is_same_image(present: &Value, wanted: &Value) -> bool {
    let (Some(present), Some(wanted)) = (present.as_str(), wanted.as_str()) else {
        return false;
    };
    let ((name, tag, digest), (wanted_name, wanted_tag, wanted_digest)) = (parts(present), parts(wanted));
    let same_tag = tag == wanted_tag || (tag.is_none() && digest.is_some());
    let same_digest = digest == wanted_digest || wanted_digest.is_none();
    name == wanted_name && same_tag && same_digest
}

/// Whether a probe asks by the same means as the wanted one; where it asks, a proxy may have changed.
fn asks_alike(present: &Value, wanted: &Value) -> bool {
    let means = |probe: &Value| ["httpGet", "exec"].map(|means| probe.get(means).is_some());
    means(present) == means(wanted)
}

/// Whether amounts that somebody has changed leave room for the files.
fn is_enough(present: &Value, wanted: &Value) -> bool {
    let memory = |resources: &Value| quantity::nanos(text(resources.get("limits")?, "memory")?);
    match (memory(present), memory(wanted)) {
        (Some(present), Some(wanted)) => present >= wanted,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

fn rights(present: Option<&Value>, wanted: Option<&Value>) -> Value {
    let object = |context: Option<&Value>| context.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut whole = object(present);
    whole.retain(|field, value| !RIGHTS.contains(&field.as_str()) || *value == Value::Bool(false));
    whole.extend(object(wanted));
    Value::Object(whole)
}

/// Ours first, because they refer to each other in their order, then those that others have added.
fn env(present: &[Value], wanted: &[Value]) -> Value {
    let is_ours = |variable: &Value| {
        let name = name_of(variable);
        name.starts_with(OUR_VARIABLES) || wanted.iter().any(|wanted| name_of(wanted) == name)
    };
    let ours = wanted
        .iter()
        .map(|wanted| present.iter().find(|there| covers(there, wanted)).unwrap_or(wanted));
    let others = present.iter().filter(|variable| !is_ours(variable));
    ours.chain(others).cloned().collect()
}

fn mounts(present: &[Value], wanted: &[Value], earlier: &Earlier<'_>) -> Value {
    let is_wanted = |mount: &Value| wanted.iter().any(|wanted| is_mount(mount, wanted));
    let is_in_the_way = |mount: &Value| wanted.iter().any(|wanted| wanted["mountPath"] == mount["mountPath"]);
    let kept: Vec<&Value> = present
        .iter()
        // No two may be at one path, whoever brought the other.
        .filter(|mount| is_wanted(mount) || !earlier.has_volume(name_of(mount)) && !is_in_the_way(mount))
        .collect();
    let new = wanted
        .iter()
        .filter(|wanted| !kept.iter().any(|mount| is_mount(mount, wanted)));
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
        ];
        let wanted = [json!({"name": "sealpod-nothing", "mountPath": token, "readOnly": true})];
        let pod = json!({});
        let earlier = Earlier::of(crate::injector::pod::Pod(&pod));
        assert_eq!(mounts(&present, &wanted, &earlier), json!([present[1], wanted[0]]));
    }

    #[test]
    fn an_image_is_the_same_from_a_mirror_and_with_a_digest_and_no_other() {
        let wanted = json!("registry.test:5000/sealpod-sidecar:1.2");
        for (image, same) in [
            ("registry.test:5000/sealpod-sidecar:1.2", true),
            ("mirror.test/registry.test/sealpod-sidecar:1.2", true),
            ("mirror.test/sealpod-sidecar:1.2@sha256:ab", true),
            ("mirror.test/sealpod-sidecar@sha256:ab", true),
            ("registry.test:5000/sealpod-sidecar:1.1", false),
            ("registry.test:5000/sealpod-sidecar", false),
            ("registry.test:5000/evil:1.2", false),
            ("registry.test/evil-sealpod-sidecar:1.2", false),
        ] {
            assert_eq!(is_same_image(&json!(image), &wanted), same, "{image}");
        }
        let pinned = json!("registry.test/sealpod-sidecar@sha256:ab");
        assert!(is_same_image(&json!("mirror.test/sealpod-sidecar@sha256:ab"), &pinned));
        assert!(!is_same_image(&json!("mirror.test/sealpod-sidecar@sha256:cd"), &pinned));
        assert!(!is_same_image(&json!("mirror.test/sealpod-sidecar:1.2"), &pinned));
        assert!(!is_same_image(&json!(7), &wanted));
    }
}
