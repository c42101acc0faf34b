use serde_json::{Value, json};

use super::*;

mod rules;

fn schema(crd: &CustomResourceDefinition) -> Value {
    let version = &crd.spec.versions[0];
    let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    serde_json::to_value(schema.expect("every kind has a schema")).unwrap()
}

fn definition(kind: &str) -> CustomResourceDefinition {
    all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

fn each_node(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        each_node(&format!("{path}.{name}"), child, visit);
    }
    for key in ["items", "additionalProperties"] {
        if node[key].is_object() {
            each_node(&format!("{path}[]"), &node[key], visit);
        }
    }
}

#[test]
fn kubectl_explain_has_a_text_for_every_field() {
    for crd in all() {
        each_node(&crd.spec.names.kind, &schema(&crd), &mut |path, node| {
            for (name, child) in node["properties"].as_object().into_iter().flatten() {
                assert!(child["description"].is_string(), "{path}.{name}");
            }
        });
    }
}

#[test]
fn the_schemas_are_structural_and_every_list_says_how_it_merges() {
    for crd in all() {
        each_node(&crd.spec.names.kind, &schema(&crd), &mut |path, node| {
            assert!(node["type"].is_string(), "{path} has no type");
            for forbidden in ["$ref", "oneOf", "anyOf", "definitions", "const", "nullable", "title"] {
                assert!(node.get(forbidden).is_none(), "{path} has {forbidden}");
            }
            if node["type"] == "array" {
                assert!(node["x-kubernetes-list-type"].is_string(), "{path}");
            }
            // The API server warns about formats that it does not know.
            let known = [Value::Null, json!("int32"), json!("int64"), json!("date-time")];
            assert!(known.contains(&node["format"]), "{path}: {}", node["format"]);
        });
    }
}

#[test]
fn each_kind_has_its_names_columns_and_a_status_of_its_own() {
    let names: Vec<_> = all().into_iter().map(|crd| crd.spec.names).collect();
    let short: Vec<_> = names.iter().flat_map(|n| n.short_names.clone().unwrap()).collect();
    assert_eq!(short, ["app", "senv", "sb"]);
    assert!(names.iter().all(|n| n.categories == Some(vec!["sealpod".to_owned()])));
    for crd in all() {
        let version = &crd.spec.versions[0];
        assert!(version.subresources.as_ref().unwrap().status.is_some());
        let columns: Vec<_> = version.additional_printer_columns.as_ref().unwrap().iter().collect();
        for name in ["Ready", "Reason", "Age"] {
            assert!(columns.iter().any(|c| c.name == name), "{name}");
        }
    }
}

/// The messages of the rules that an object breaks; `old` is the object before the update.
fn broken(crd: &CustomResourceDefinition, object: &Value, old: Option<&Value>) -> Vec<String> {
    match kube_cel::Validator::new().validate(&schema(crd), object, old) {
        Ok(()) => vec![],
        Err(errors) => errors.iter().map(|e| e.message.clone()).collect(),
    }
}

fn accepted(crd: &CustomResourceDefinition, object: &Value) {
    assert_eq!(broken(crd, object, None), Vec::<String>::new(), "{object}");
}

fn refused(crd: &CustomResourceDefinition, object: &Value, why: &str) {
    let messages = broken(crd, object, None);
    assert!(messages.iter().any(|m| m.contains(why)), "{object}: {messages:?}");
}

fn application(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn an_application_whose_name_is_no_slug_needs_one() {
    let crd = definition("Application");
    accepted(&crd, &application("payments-api", &json!({})));
    accepted(&crd, &application("payments.api", &json!({"slug": "payments-api"})));
    refused(&crd, &application("payments.api", &json!({})), "set spec.slug");
    refused(&crd, &application(&"a".repeat(201), &json!({})), "set spec.slug");
}

#[test]
fn a_slug_never_changes() {
    let crd = definition("Application");
    let object = |slug: Option<&str>| application("shop", &slug.map_or(json!({}), |s| json!({"slug": s})));
    for (old, new, fine) in [
        (Some("a"), Some("a"), true),
        (None, None, true),
        (Some("a"), Some("b"), false),
        (Some("a"), None, false),
        (None, Some("b"), false),
    ] {
        let messages = broken(&crd, &object(new), Some(&object(old)));
        assert_eq!(messages.is_empty(), fine, "{old:?} -> {new:?}: {messages:?}");
    }
}

#[test]
fn environments_of_an_application_have_different_slugs() {
    let crd = definition("Application");
    let with = |environments: Value| application("shop", &json!({ "environments": environments }));
    accepted(
        &crd,
        &with(json!([{"name": "prod"}, {"name": "Staging", "slug": "staging"}])),
    );
    refused(&crd, &with(json!([{"name": "Production"}])), "set slug");
    let twice = json!([{"name": "prod"}, {"name": "Production", "slug": "prod"}]);
    refused(&crd, &with(twice), "the same slug");
}

#[test]
fn an_environment_stays_with_its_application() {
    let crd = definition("Environment");
    let object = |name: &str, application: &str| {
        json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": "Environment", "metadata": {"name": name},
               "spec": {"applicationRef": {"name": application}}})
    };
    accepted(&crd, &object("prod", "shop"));
    refused(&crd, &object("prod.eu", "shop"), "set spec.slug");
    assert!(broken(&crd, &object("prod", "shop"), Some(&object("prod", "shop"))).is_empty());
    assert!(!broken(&crd, &object("prod", "other"), Some(&object("prod", "shop"))).is_empty());
}

#[test]
fn a_selector_of_namespaces_goes_with_from_selector_alone() {
    let crd = definition("Application");
    let with = |allowed: Value| application("shop", &json!({ "allowedNamespaces": allowed }));
    let selector = json!({"matchLabels": {"team": "shop"}});
    accepted(&crd, &with(json!({"from": "All"})));
    accepted(&crd, &with(json!({"from": "Selector", "selector": selector})));
    refused(&crd, &with(json!({"from": "Selector"})), "goes with from: Selector");
    refused(
        &crd,
        &with(json!({"from": "All", "selector": selector})),
        "goes with from: Selector",
    );
}

fn binding(name: &str, extra: &Value) -> Value {
    let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod", "sizeLimit": "16Mi",
                          "refreshInterval": "30s", "keyRotation": {"interval": "24h", "overlap": "1h"}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn an_entry_of_a_binding_is_either_a_name_or_a_pattern() {
    let crd = definition("SecretBinding");
    let with = |entry: Value| binding("db", &json!({ "secrets": [entry] }));
    for good in [
        json!({"name": "db-password"}),
        json!({"name": "db/password", "path": "db/password"}),
        json!({"name": "db-password", "version": 3}),
        json!({"pattern": "tls-*", "path": "tls"}),
    ] {
        accepted(&crd, &with(good));
    }
    refused(&crd, &with(json!({})), "either name or pattern");
    refused(
        &crd,
        &with(json!({"name": "a", "pattern": "b"})),
        "either name or pattern",
    );
    refused(
        &crd,
        &with(json!({"pattern": "*", "version": 1})),
        "version goes with name",
    );
    refused(&crd, &with(json!({"name": "db/password"})), "set path");
    refused(&crd, &with(json!({"name": ".hidden"})), "set path");
}

#[test]
fn the_figures_of_a_binding_have_bounds() {
    let crd = definition("SecretBinding");
    accepted(&crd, &binding("db", &json!({})));
    refused(&crd, &binding(&"b".repeat(201), &json!({})), "200 characters");
    for (field, good, bad, why) in [
        ("sizeLimit", "64Ki", "63Ki", "64Ki to 4Gi"),
        ("sizeLimit", "4Gi", "5Gi", "64Ki to 4Gi"),
        ("refreshInterval", "5s", "4s", "5s to 24h"),
        ("refreshInterval", "24h", "24h1s", "5s to 24h"),
        ("mountPath", "/etc/secrets", "/etc/../root", "`.` or `..`"),
    ] {
        accepted(&crd, &binding("db", &json!({ field: good })));
        refused(&crd, &binding("db", &json!({ field: bad })), why);
    }
    let rotation = |interval: &str, overlap: &str| {
        binding(
            "db",
            &json!({"keyRotation": {"interval": interval, "overlap": overlap}}),
        )
    };
    accepted(&crd, &rotation("20m", "10m"));
    refused(&crd, &rotation("24h", "9m59s"), "at least 10m");
    refused(&crd, &rotation("119m", "1h"), "twice the overlap");
    accepted(&crd, &rotation("1440h", "720h"));
    refused(&crd, &rotation("2000h", "720h1s"), "at most 720h");
}

#[test]
fn a_file_of_several_values_has_a_template_or_a_list() {
    let crd = definition("SecretBinding");
    let with = |file: Value| binding("db", &json!({ "files": [file] }));
    accepted(&crd, &with(json!({"path": "app.env", "format": "env"})));
    accepted(
        &crd,
        &with(json!({"path": "a", "format": "json", "include": [{"name": "a"}, {"pattern": "b-*"}]})),
    );
    accepted(&crd, &with(json!({"path": "a", "format": "template", "template": "x"})));
    refused(
        &crd,
        &with(json!({"path": "a", "format": "template"})),
        "goes with format: template",
    );
    refused(
        &crd,
        &with(json!({"path": "a", "format": "env", "template": "x"})),
        "goes with format: template",
    );
    let both = json!({"path": "a", "format": "template", "template": "x", "include": [{"name": "a"}]});
    refused(&crd, &with(both), "include does not go");
    refused(
        &crd,
        &with(json!({"path": "a", "format": "env", "include": [{}]})),
        "either name or pattern",
    );
    let templates = |number| binding("db", &json!({ "files": rules::large_templates(number) }));
    accepted(&crd, &templates(4));
    refused(&crd, &templates(5), "together");
}

/// The injector follows the bindings of all namespaces, and whoever may write one chooses what is in it.
#[test]
fn every_text_and_list_of_a_binding_has_a_bound() {
    let spec = schema(&definition("SecretBinding"))["properties"]["spec"].clone();
    each_node("SecretBinding.spec", &spec, &mut |path, node| {
        let bound = match node["type"].as_str() {
            Some("string") if node["enum"].is_null() => "maxLength",
            Some("array") => "maxItems",
            Some("object") if node["additionalProperties"].is_object() => "maxProperties",
            _ => return,
        };
        assert!(node[bound].is_u64(), "{path} has no {bound}");
    });
}

#[test]
fn a_change_is_told_in_one_way() {
    let crd = definition("SecretBinding");
    let with = |change: Value| binding("db", &json!({ "onChange": change }));
    for one in [
        json!({"signal": {"container": "app"}}),
        json!({"http": {"port": 80}}),
        json!({"restart": "Rollout"}),
    ] {
        accepted(&crd, &with(one));
    }
    refused(&crd, &with(json!({})), "give one of");
    refused(
        &crd,
        &with(json!({"http": {"port": 80}, "restart": "Rollout"})),
        "give one of",
    );
    let stale = |max: &str| binding("db", &json!({"staleness": {"max": max}}));
    accepted(&crd, &stale("1h"));
    refused(&crd, &stale("59s"), "1m to 8760h");
}

#[test]
fn an_entry_of_a_kubernetes_secret_is_a_secret_or_a_template() {
    let crd = definition("SecretBinding");
    let with = |entry: Value| binding("db", &json!({"kubernetesSecret": {"name": "db", "data": [entry]}}));
    accepted(&crd, &with(json!({"key": "a", "secret": "b"})));
    accepted(&crd, &with(json!({"key": "a", "template": "b"})));
    refused(&crd, &with(json!({"key": "a"})), "either secret or template");
    refused(
        &crd,
        &with(json!({"key": "a", "secret": "b", "template": "c"})),
        "either secret or template",
    );
    let types = &schema(&crd)["properties"]["spec"]["properties"]["kubernetesSecret"]["properties"]["type"]["enum"];
    assert!(
        !types
            .as_array()
            .unwrap()
            .contains(&json!("kubernetes.io/service-account-token"))
    );
}

#[test]
fn the_least_binding_gets_every_default() {
    let spec: SecretBindingSpec =
        serde_json::from_value(json!({"applicationRef": {"name": "shop"}, "environment": "prod"})).unwrap();
    let binding = SecretBinding::new("db", spec);
    assert_eq!(binding.mount_path(), "/var/run/secrets/sealpod.dev/db");
    assert_eq!(binding.spec.size_limit(), Ok(16 << 20));
    assert_eq!(binding.spec.mode, 0o440);
    assert!(binding.spec.watch && binding.spec.secrets.is_none());
    let defaults = &schema(&definition("SecretBinding"))["properties"]["spec"]["properties"];
    for (field, want) in [
        ("sizeLimit", json!("16Mi")),
        ("mode", json!(288)),
        ("refreshInterval", json!("30s")),
        ("watch", json!(true)),
        ("keyRotation", json!({"interval": "24h", "overlap": "1h"})),
    ] {
        assert_eq!(defaults[field]["default"], want, "{field}");
    }
}

#[test]
fn an_object_that_nobody_has_seen_yet_does_not_look_ready_to_kstatus() {
    for crd in all() {
        let default = &schema(&crd)["properties"]["status"]["default"];
        assert_eq!(*default, json!({"observedGeneration": -1}), "{:?}", crd.metadata.name);
    }
}

#[test]
fn whatever_becomes_part_of_a_url_of_kubernetes_is_a_name() {
    let name = json!(crate::common::NAME_PATTERN);
    for (kind, field, pattern) in [
        ("Application", "/apiKeySecretName", &name),
        ("Environment", "/applicationRef/properties/name", &name),
        ("SecretBinding", "/applicationRef/properties/name", &name),
        (
            "SecretBinding",
            "/applicationRef/properties/namespace",
            &json!(crate::common::NAMESPACE_PATTERN),
        ),
        ("SecretBinding", "/kubernetesSecret/properties/name", &name),
    ] {
        let schema = schema(&definition(kind));
        let spec = &schema["properties"]["spec"]["properties"];
        assert_eq!(spec.pointer(field).unwrap()["pattern"], *pattern, "{kind}{field}");
        assert!(pattern.as_str().unwrap().starts_with('^') && pattern.as_str().unwrap().ends_with('$'));
    }
}

#[test]
fn the_yaml_is_the_definition() {
    for crd in all() {
        let text = yaml(&crd);
        assert!(text.starts_with("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"));
        let back: CustomResourceDefinition = serde_yaml::from_str(&text).unwrap();
        assert_eq!(back, crd);
        assert!(!text.contains("511.0") && !text.contains("null"), "{text}");
    }
}
