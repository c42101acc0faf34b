//! Selectors of labels, read as Kubernetes does: pure. The schema refuses those that cannot be read, so only an object that
//! is older than its rule shows one.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::Selector;

/// What is wrong with a selector, and with which of its expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    at: usize,
    why: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "matchExpressions[{}] has {}", self.at, self.why)
    }
}

/// A `NotIn` without values would select everything; Kubernetes refuses it wherever it reads a selector itself.
pub fn parsed(selector: &LabelSelector) -> Result<Selector, Fault> {
    let requirements = selector.match_expressions.iter().flatten();
    for (at, requirement) in requirements.enumerate() {
        if let Some(why) = wrong(requirement) {
            return Err(Fault { at, why });
        }
    }
    Ok(Selector::try_from(selector.clone()).expect("each operator is known and has its values"))
}

/// Of a selector that selects nothing whatever the labels are, why. What only has values too many selects as it always did.
pub fn selects_nothing(selector: &LabelSelector) -> Option<Fault> {
    let requirements = selector.match_expressions.iter().flatten();
    requirements.enumerate().find_map(|(at, requirement)| {
        let is_known = match requirement.operator.as_str() {
            "In" => requirement.values.as_ref().is_some_and(|values| !values.is_empty()),
            "NotIn" => requirement.values.is_some(),
            operator => matches!(operator, "Exists" | "DoesNotExist"),
        };
        let why = wrong(requirement).filter(|_| !is_known)?;
        Some(Fault { at, why })
    })
}

fn wrong(requirement: &LabelSelectorRequirement) -> Option<&'static str> {
    let values = requirement.values.as_ref().is_some_and(|values| !values.is_empty());
    match (requirement.operator.as_str(), values) {
        ("In" | "NotIn", true) | ("Exists" | "DoesNotExist", false) => None,
        ("In" | "NotIn", false) => Some("`In` or `NotIn` and no values: add some"),
        ("Exists" | "DoesNotExist", true) => Some("`Exists` or `DoesNotExist` and values: take them out"),
        _ => Some("another operator than `In`, `NotIn`, `Exists` and `DoesNotExist`"),
    }
}
