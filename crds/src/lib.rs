//! The custom resources of Sealpod as Rust types; the YAML that `kubectl apply` takes is made from them.
//!
//! Their strings stay strings here and are parsed by the code that acts on them: a watch that meets one object it
//! cannot read stops for all, and one bad object must not stop the others.
#![forbid(unsafe_code)]

mod application;
#[cfg(test)]
mod argocd;
mod binding;
mod common;
mod environment;

pub use application::{
    AllowedNamespaces, Application, ApplicationEnvironment, ApplicationSpec, ApplicationStatus, NamespacesFrom,
};
pub use binding::{
    BindingApplicationReference, ChangeKind, CombinedFile, Configurations, ConfigurationsFormat, FileFormat, HttpCall,
    Include, KeyRotation, KubernetesSecret, KubernetesSecretEntry, KubernetesSecretType, NextChange, OnChange,
    PodCounts, Restart, SecretBinding, SecretBindingSpec, SecretBindingStatus, SecretChange, SecretDecode,
    SecretSelection, SecretState, SecretStatus, Signal, Stale, Staleness,
};
pub use common::{ApplicationReference, DeletionPolicy, ParseError, parse_duration, parse_size};
pub use environment::{Environment, EnvironmentSpec, EnvironmentStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// Every definition, in the order in which a person meets them.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![Application::crd(), Environment::crd(), SecretBinding::crd()];
    let versions = definitions.iter_mut().flat_map(|d| &mut d.spec.versions);
    let schemas = versions.filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(|schema| {
        conventional(schema);
        not_seen_yet(schema);
    });
    definitions
}

/// An object that the controller has not seen yet says so. Without any `observedGeneration`, tools that know kstatus
/// (Helm, Flux) would take it for ready.
fn not_seen_yet(schema: &mut JSONSchemaProps) {
    let status = schema.properties.as_mut().and_then(|p| p.get_mut("status"));
    if let Some(status) = status {
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
}

/// A definition as one YAML document, ending in a newline.
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(crd).expect("a definition is plain data");
    whole_numbers(&mut value);
    serde_yaml::to_string(&value).expect("a definition is plain data")
}

/// Takes out what a derived schema has beside those of Kubernetes' own kinds: titles, and null as a value of optional
/// fields, which CEL rules would have to tell from an absent field.
fn conventional(schema: &mut JSONSchemaProps) {
    schema.title = None;
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    schema
        .properties
        .iter_mut()
        .flat_map(|p| p.values_mut())
        .for_each(conventional);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        conventional(items);
    }
}

/// Writes a bound of 511 as `511`, not as `511.0`, which is what the API server answers and what diffs compare with.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole = format!("{number}")
                .strip_suffix(".0")
                .and_then(|n| n.parse::<i64>().ok());
            if let Some(whole) = whole {
                *number = whole.into();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
