//! Which namespaces may bind to an Application: pure.
//!
//! The owner of the Application says it, in its spec. Whoever may set labels on namespaces takes part in the decision
//! too, and in Kubernetes that is nobody who has rights inside of a namespace only.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::SelectorExt;
use sealpod_crds::{AllowedNamespaces, NamespacesFrom};

use super::selectors::parsed;

/// Whether a SecretBinding of the namespace `asking`, which has these labels, may read of an Application of the
/// namespace `own`. Its own namespace always may; what cannot be understood admits no other.
pub fn admits(allowed: &AllowedNamespaces, own: &str, asking: &str, labels: &BTreeMap<String, String>) -> bool {
    asking == own
        || match allowed.from {
            NamespacesFrom::Same => false,
            NamespacesFrom::All => true,
            NamespacesFrom::Selector => allowed.selector.as_ref().is_some_and(|s| selects(s, labels)),
        }
}

/// What is wrong with `spec.allowedNamespaces`, in an object that is older than the rules of the schema.
pub fn fault(allowed: &AllowedNamespaces) -> Option<String> {
    match (allowed.from, &allowed.selector) {
        (NamespacesFrom::Selector, None) => Some("has `from: Selector` and no selector: add one".to_owned()),
        (NamespacesFrom::Selector, Some(selector)) => {
            let fault = parsed(selector).err()?;
            Some(format!("has a selector whose {fault}"))
        }
        (NamespacesFrom::Same | NamespacesFrom::All, _) => None,
    }
}

/// As in Kubernetes, a selector that asks for nothing selects all.
fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    parsed(selector).is_ok_and(|selector| selector.matches(labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn allowed(value: Value) -> AllowedNamespaces {
        serde_json::from_value(value).unwrap()
    }

    fn admitted(value: Value, asking: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        admits(&allowed(value), "shop", asking, &labels)
    }

    #[test]
    fn the_own_namespace_is_always_admitted_and_another_only_if_the_spec_says_so() {
        let team_a = json!({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}});
        for (spec, asking, labels, want) in [
            (json!({}), "shop", &[][..], true),
            (json!({}), "other", &[("team", "a")], false),
            (json!({"from": "Same"}), "other", &[], false),
            (json!({"from": "All"}), "other", &[], true),
            (team_a.clone(), "shop", &[], true),
            (team_a.clone(), "other", &[("team", "a")], true),
            (team_a.clone(), "other", &[("team", "b")], false),
            (team_a, "other", &[], false),
            // As in Kubernetes.
            (json!({"from": "Selector", "selector": {}}), "other", &[], true),
            (json!({"from": "Selector"}), "other", &[], false),
            // A selector without `from: Selector` is not looked at; the schema refuses it.
            (json!({"selector": {}}), "other", &[], false),
        ] {
            assert_eq!(
                admitted(spec.clone(), asking, labels),
                want,
                "{spec} {asking} {labels:?}"
            );
        }
    }

    #[test]
    fn every_requirement_has_to_be_met() {
        let spec = |expressions: Value| {
            json!({"from": "Selector", "selector": {
                "matchLabels": {"team": "a"}, "matchExpressions": expressions,
            }})
        };
        let prod = json!([{"key": "tier", "operator": "In", "values": ["prod", "qa"]}]);
        assert!(admitted(spec(prod.clone()), "other", &[("team", "a"), ("tier", "qa")]));
        assert!(!admitted(spec(prod.clone()), "other", &[("team", "a")]));
        assert!(!admitted(spec(prod), "other", &[("tier", "qa")]));
        let not_dev = json!([
            {"key": "tier", "operator": "NotIn", "values": ["dev"]}, {"key": "frozen", "operator": "DoesNotExist"},
        ]);
        assert!(admitted(spec(not_dev.clone()), "other", &[("team", "a")]));
        assert!(!admitted(
            spec(not_dev.clone()),
            "other",
            &[("team", "a"), ("tier", "dev")]
        ));
        assert!(!admitted(spec(not_dev), "other", &[("team", "a"), ("frozen", "")]));
    }

    #[test]
    fn what_cannot_be_understood_admits_only_the_own_namespace_and_says_why() {
        for (requirement, why) in [
            (json!({"key": "a", "operator": "NotIn", "values": []}), "no values"),
            (json!({"key": "a", "operator": "NotIn"}), "no values"),
            (json!({"key": "a", "operator": "In"}), "no values"),
            (
                json!({"key": "a", "operator": "Exists", "values": ["x"]}),
                "take them out",
            ),
            (
                json!({"key": "a", "operator": "Gt", "values": ["1"]}),
                "another operator",
            ),
        ] {
            let spec = json!({"from": "Selector", "selector": {"matchExpressions": [requirement]}});
            assert!(!admitted(spec.clone(), "other", &[("a", "b")]), "{spec}");
            assert!(admitted(spec.clone(), "shop", &[]), "{spec}");
            let fault = fault(&allowed(spec)).unwrap();
            assert!(fault.contains(why), "{fault}");
        }
        assert!(fault(&allowed(json!({"from": "Selector"}))).is_some());
        assert_eq!(fault(&allowed(json!({"from": "All"}))), None);
        assert_eq!(fault(&allowed(json!({"from": "Selector", "selector": {}}))), None);
    }
}
