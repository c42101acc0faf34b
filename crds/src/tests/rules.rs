//! Each CEL rule of each kind, broken once and alone: a rule that no object breaks, or that has no row here, fails.

use std::collections::BTreeSet;

use super::*;

/// Kind, place of the rule and its message; the name and the fields of the spec that break it, and the fields before the
/// update where it is about one.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Value,
    Option<Value>,
);

const NO_SLUG: &str = "metadata.name is no slug (a-z, 0-9 and single hyphens inside): set spec.slug";
const NAME_OR_PATTERN: &str = "give either name or pattern";

fn rows() -> Vec<Row> {
    let binding = "SecretBinding";
    let rotation = |interval: &str, overlap: &str| json!({"keyRotation": {"interval": interval, "overlap": overlap}});
    let native = |fields: Value| {
        let mut native = json!({"name": "copy"});
        json_merge(&mut native, &fields);
        json!({ "kubernetesSecret": native })
    };
    let file = |fields: Value| {
        let mut file = json!({"path": "a", "format": "env"});
        json_merge(&mut file, &fields);
        json!({ "files": [file] })
    };
    vec![
        ("Application", "", NO_SLUG, "a.b", json!({}), None),
        (
            "Application",
            ".spec",
            "spec.slug cannot change: it is the name under which the server keeps the application",
            "a",
            json!({"slug": "new"}),
            Some(json!({"slug": "old"})),
        ),
        (
            "Application",
            ".spec.allowedNamespaces",
            "selector goes with from: Selector, and with nothing else",
            "a",
            json!({"allowedNamespaces": {"from": "All", "selector": {}}}),
            None,
        ),
        (
            "Application",
            ".spec.environments",
            "two environments have the same slug",
            "a",
            json!({"environments": [{"name": "a"}, {"name": "A", "slug": "a"}]}),
            None,
        ),
        (
            "Application",
            ".spec.environments[]",
            "name is no slug (a-z, 0-9 and single hyphens inside): set slug",
            "a",
            json!({"environments": [{"name": "A"}]}),
            None,
        ),
        ("Environment", "", NO_SLUG, "a.b", json!({}), None),
        (
            "Environment",
            ".spec",
            "spec.slug cannot change: it is the name under which the server keeps the environment",
            "a",
            json!({"slug": "new"}),
            Some(json!({})),
        ),
        (
            "Environment",
            ".spec",
            "spec.applicationRef cannot change: make a new Environment",
            "a",
            json!({"applicationRef": {"name": "other"}}),
            Some(json!({})),
        ),
        (
            binding,
            "",
            "metadata.name must be at most 200 characters",
            LONG,
            json!({}),
            None,
        ),
        (
            binding,
            ".spec.mountPath",
            "mountPath must not hold `.` or `..`",
            "a",
            json!({"mountPath": "/a/../b"}),
            None,
        ),
        (
            binding,
            ".spec.sizeLimit",
            "sizeLimit must be 64Ki to 4Gi",
            "a",
            json!({"sizeLimit": "1Ki"}),
            None,
        ),
        (
            binding,
            ".spec.refreshInterval",
            "refreshInterval must be 5s to 24h",
            "a",
            json!({"refreshInterval": "1s"}),
            None,
        ),
        (
            binding,
            ".spec.staleness.max",
            "max must be 1m to 8760h",
            "a",
            json!({"staleness": {"max": "1s"}}),
            None,
        ),
        (
            binding,
            ".spec.keyRotation",
            "overlap must be at least 10m: the kubelet takes up to 90 seconds to bring a new key to running pods",
            "a",
            rotation("24h", "9m"),
            None,
        ),
        (
            binding,
            ".spec.keyRotation",
            "overlap must be at most 720h: the server keeps no replaced key longer",
            "a",
            rotation("2000h", "721h"),
            None,
        ),
        (
            binding,
            ".spec.keyRotation",
            "interval must be at least twice the overlap",
            "a",
            rotation("1h", "1h"),
            None,
        ),
        (
            binding,
            ".spec.onChange",
            "give one of signal, http and restart",
            "a",
            json!({"onChange": {"http": {"port": 80}, "restart": "Rollout"}}),
            None,
        ),
        (
            binding,
            ".spec.secrets[]",
            NAME_OR_PATTERN,
            "a",
            json!({"secrets": [{"name": "a", "pattern": "b"}]}),
            None,
        ),
        (
            binding,
            ".spec.secrets[]",
            "version goes with name, not with pattern",
            "a",
            json!({"secrets": [{"pattern": "a", "version": 1}]}),
            None,
        ),
        (
            binding,
            ".spec.secrets[]",
            "this name is no file name: set path",
            "a",
            json!({"secrets": [{"name": "a/b"}]}),
            None,
        ),
        (
            binding,
            ".spec.files[]",
            "template goes with format: template, and with nothing else",
            "a",
            file(json!({"template": "x"})),
            None,
        ),
        (
            binding,
            ".spec.files[]",
            "include does not go with format: template, which names what it takes itself",
            "a",
            file(json!({"format": "template", "template": "x", "include": [{"name": "a"}]})),
            None,
        ),
        (
            binding,
            ".spec.files[].include[]",
            NAME_OR_PATTERN,
            "a",
            file(json!({"include": [{}]})),
            None,
        ),
        (
            binding,
            ".spec.kubernetesSecret.name",
            "name must not end with -sealpod-key: such are the Secrets with the keys of bindings",
            "a",
            native(json!({"name": "db-sealpod-key"})),
            None,
        ),
        (
            binding,
            ".spec.kubernetesSecret.data[]",
            "give either secret or template",
            "a",
            native(json!({"data": [{"key": "a"}]})),
            None,
        ),
    ]
}

const LONG: &str = "long";

fn json_merge(into: &mut Value, fields: &Value) {
    for (field, value) in fields.as_object().unwrap() {
        into[field] = value.clone();
    }
}

/// With the defaults that the API server puts in before it looks at the rules.
fn object(kind: &str, name: &str, fields: &Value) -> Value {
    let mut spec = match kind {
        "Application" => json!({}),
        "Environment" => json!({"applicationRef": {"name": "shop"}}),
        _ => {
            json!({"applicationRef": {"name": "shop"}, "environment": "prod", "sizeLimit": "16Mi", "refreshInterval": "30s",
                    "keyRotation": {"interval": "24h", "overlap": "1h"}})
        }
    };
    json_merge(&mut spec, fields);
    let name = if name == LONG { "b".repeat(201) } else { name.to_owned() };
    json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[test]
fn every_rule_is_broken_by_one_object_and_by_that_alone() {
    let mut told = BTreeSet::new();
    for (kind, place, message, name, fields, before) in rows() {
        let old = before.map(|before| object(kind, name, &before));
        let messages = broken(&definition(kind), &object(kind, name, &fields), old.as_ref());
        assert_eq!(messages, [message], "{kind}{place}");
        told.insert((format!("{kind}{place}"), message.to_owned()));
    }
    let mut there = BTreeSet::new();
    for crd in all() {
        each_node(&crd.spec.names.kind, &schema(&crd), &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                there.insert((path.to_owned(), rule["message"].as_str().unwrap().to_owned()));
            }
        });
    }
    assert_eq!(told, there);
}
