//! The custom resources of Sealpod as Rust types; the YAML that `kubectl apply` takes is made from them.
//!
//! Their strings stay strings here and are parsed by the code that acts on them: a watch that meets one object it
//! cannot read stops for all, and one bad object must not stop the others.
#![forbid(unsafe_code)]

mod application;
mod binding;
mod common;
mod environment;

pub use application::{Application, ApplicationEnvironment, ApplicationSpec, ApplicationStatus};
pub use binding::{
    KeyRotation, SecretBinding, SecretBindingSpec, SecretBindingStatus, SecretDecode, SecretSelection, SecretState,
    SecretStatus,
};
pub use common::{ApplicationReference, DeletionPolicy, ParseError, parse_duration, parse_size};
pub use environment::{Environment, EnvironmentSpec, EnvironmentStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every definition, in the order in which a person meets them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Application::crd(), Environment::crd(), SecretBinding::crd()]
}

/// A definition as one YAML document, ending in a newline.
pub fn yaml(crd: &CustomResourceDefinition) -> String {
    serde_yaml::to_string(crd).expect("a definition is plain data")
}

#[cfg(test)]
mod tests;
