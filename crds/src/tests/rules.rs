//! Each CEL rule of each kind, broken once and alone: a rule that no object breaks, or that has no row here, fails.

use std::collections::BTreeSet;

use super::*;

/// Place of the rule, its message, and what breaks it: fields of the spec. `@name` is that of the object, `@before` are
/// the fields before the update.
type Row = (&'static str, &'static str, Value);

const VALUES: &str = "In and NotIn go with values, at least one, and the other operators with none";

/// A selector with one expression.
fn expressions(operator: &str, values: &Value) -> Value {
    let mut expression = json!({"key": "tier", "operator": operator});
    if !values.is_null() {
        expression["values"] = values.clone();
    }
    json!({"matchExpressions": [expression]})
}

fn of_applications_and_environments() -> Vec<Row> {
    let no_slug = "metadata.name is no slug (a-z, 0-9 and single hyphens inside): set spec.slug";
    vec![
        ("Application", no_slug, json!({"@name": "a.b"})),
        (
            "Application.spec",
            "spec.slug cannot change: it is the name under which the server keeps the application",
            json!({"slug": "new", "@before": {"slug": "old"}}),
        ),
        (
            "Application.spec.allowedNamespaces",
            "selector goes with from: Selector, and with nothing else",
            json!({"allowedNamespaces": {"from": "All", "selector": {}}}),
        ),
        (
            "Application.spec.allowedNamespaces.selector.matchExpressions[]",
            VALUES,
            json!({"allowedNamespaces": {"from": "Selector", "selector": expressions("NotIn", &json!([]))}}),
        ),
        (
            "Application.spec.environments",
            "two environments have the same slug",
            json!({"environments": [{"name": "a"}, {"name": "A", "slug": "a"}]}),
        ),
        (
            "Application.spec.environments[]",
            "name is no slug (a-z, 0-9 and single hyphens inside): set slug",
            json!({"environments": [{"name": "A"}]}),
        ),
        ("Environment", no_slug, json!({"@name": "a.b"})),
        (
            "Environment.spec",
            "spec.slug cannot change: it is the name under which the server keeps the environment",
            json!({"slug": "new", "@before": {}}),
        ),
        (
            "Environment.spec",
            "spec.applicationRef cannot change: make a new Environment",
            json!({"applicationRef": {"name": "other"}, "@before": {}}),
        ),
    ]
}

fn of_the_figures_of_bindings() -> Vec<Row> {
    let rotation = |interval: &str, overlap: &str| json!({"keyRotation": {"interval": interval, "overlap": overlap}});
    vec![
        (
            "SecretBinding",
            "metadata.name must be at most 200 characters",
            json!({"@name": "b".repeat(201)}),
        ),
        (
            "SecretBinding.spec.mountPath",
            "mountPath must not hold `.` or `..`",
            json!({"mountPath": "/a/../b"}),
        ),
        (
            "SecretBinding.spec.sizeLimit",
            "sizeLimit must be 64Ki to 4Gi",
            json!({"sizeLimit": "1Ki"}),
        ),
        (
            "SecretBinding.spec.refreshInterval",
            "refreshInterval must be 5s to 24h",
            json!({"refreshInterval": "1s"}),
        ),
        (
            "SecretBinding.spec.staleness.max",
            "max must be 1m to 8760h",
            json!({"staleness": {"max": "1s"}}),
        ),
        (
            "SecretBinding.spec.keyRotation",
            "overlap must be at least 10m: the kubelet takes up to 90 seconds to bring a new key to running pods",
            rotation("24h", "9m"),
        ),
        (
            "SecretBinding.spec.keyRotation",
            "overlap must be at most 720h: the server keeps no replaced key longer",
            rotation("2000h", "721h"),
        ),
        (
            "SecretBinding.spec.keyRotation",
            "interval must be at least twice the overlap",
            rotation("1h", "1h"),
        ),
    ]
}

fn of_the_selectors_of_bindings() -> Vec<Row> {
    let wrong = [
        ("In", json!(null)),
        ("NotIn", json!([])),
        ("Exists", json!(["x"])),
        ("DoesNotExist", json!(["x"])),
    ];
    let row = |(operator, values): (&str, Value)| {
        let selector = expressions(operator, &values);
        (
            "SecretBinding.spec.podSelector.matchExpressions[]",
            VALUES,
            json!({"podSelector": selector}),
        )
    };
    wrong.into_iter().map(row).collect()
}

fn of_the_entries_of_bindings() -> Vec<Row> {
    let name_or_pattern = "give either name or pattern";
    let template = json!({"path": "a", "format": "template", "template": "x", "include": [{"name": "a"}]});
    vec![
        (
            "SecretBinding.spec.onChange",
            "give one of signal, http and restart",
            json!({"onChange": {"http": {"port": 80}, "restart": "Rollout"}}),
        ),
        (
            "SecretBinding.spec.secrets[]",
            name_or_pattern,
            json!({"secrets": [{"name": "a", "pattern": "b"}]}),
        ),
        (
            "SecretBinding.spec.secrets[]",
            "version goes with name, not with pattern",
            json!({"secrets": [{"pattern": "a", "version": 1}]}),
        ),
        (
            "SecretBinding.spec.secrets[]",
            "this name is no file name: set path",
            json!({"secrets": [{"name": "a/b"}]}),
        ),
        (
            "SecretBinding.spec.files[]",
            "template goes with format: template, and with nothing else",
            json!({"files": [{"path": "a", "format": "env", "template": "x"}]}),
        ),
        (
            "SecretBinding.spec.files[]",
            "include does not go with format: template, which names what it takes itself",
            json!({ "files": [template] }),
        ),
        (
            "SecretBinding.spec.files",
            "the templates together must be at most 262144 characters",
            json!({"files": large_templates(5)}),
        ),
        (
            "SecretBinding.spec.files[].include[]",
            name_or_pattern,
            json!({"files": [{"path": "a", "format": "env", "include": [{}]}]}),
        ),
        (
            "SecretBinding.spec.kubernetesSecret.name",
            "name must not end with -sealpod-key: such are the Secrets with the keys of bindings",
            json!({"kubernetesSecret": {"name": "db-sealpod-key"}}),
        ),
        (
            "SecretBinding.spec.kubernetesSecret.data",
            "the templates together must be at most 262144 characters",
            json!({"kubernetesSecret": {"name": "copy", "data": large_entries()}}),
        ),
        (
            "SecretBinding.spec.kubernetesSecret.data[]",
            "give either secret or template",
            json!({"kubernetesSecret": {"name": "copy", "data": [{"key": "a"}]}}),
        ),
    ]
}

/// Files with a template of 64 KiB each, the largest.
pub(super) fn large_templates(number: usize) -> Value {
    let file = |at: usize| json!({"path": format!("f{at}"), "format": "template", "template": "x".repeat(65_536)});
    (0..number).map(file).collect()
}

fn large_entries() -> Value {
    let entry = |at: usize| json!({"key": format!("k{at}"), "template": "x".repeat(65_536)});
    (0..5).map(entry).collect()
}

/// With the defaults that the API server puts in before it looks at the rules.
fn object(kind: &str, fields: &Value) -> Value {
    let mut spec = match kind {
        "Application" => json!({}),
        "Environment" => json!({"applicationRef": {"name": "shop"}}),
        _ => {
            json!({"applicationRef": {"name": "shop"}, "environment": "prod", "sizeLimit": "16Mi", "refreshInterval": "30s",
                    "keyRotation": {"interval": "24h", "overlap": "1h"}})
        }
    };
    let fields = fields.as_object().unwrap();
    for (field, value) in fields.iter().filter(|(field, _)| !field.starts_with('@')) {
        spec[field] = value.clone();
    }
    let name = fields.get("@name").cloned().unwrap_or_else(|| json!("a"));
    json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

#[test]
fn selectors_that_can_be_read_break_no_rule() {
    for (operator, values) in [
        ("In", json!(["a"])),
        ("NotIn", json!(["a", "b"])),
        ("Exists", json!(null)),
        ("Exists", json!([])),
        ("DoesNotExist", json!(null)),
    ] {
        let selector = json!({"podSelector": expressions(operator, &values)});
        let messages = broken(&definition("SecretBinding"), &object("SecretBinding", &selector), None);
        assert!(messages.is_empty(), "{operator} {values}: {messages:?}");
    }
}

#[test]
fn every_rule_is_broken_by_one_object_and_by_that_alone() {
    let rows = of_applications_and_environments()
        .into_iter()
        .chain(of_the_figures_of_bindings())
        .chain(of_the_selectors_of_bindings())
        .chain(of_the_entries_of_bindings());
    let mut told = BTreeSet::new();
    for (place, message, fields) in rows {
        let kind = place.split('.').next().unwrap();
        let old = fields.get("@before").map(|before| object(kind, before));
        let messages = broken(&definition(kind), &object(kind, &fields), old.as_ref());
        assert_eq!(messages, [message], "{place}");
        told.insert((place.to_owned(), message.to_owned()));
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
