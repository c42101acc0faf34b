//! Which bindings a pod gets: those that it names, else those that select it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use sealpod_core::kubernetes::annotations;
use sealpod_crds::ParseError;

use super::denial::{Denial, NotSelected, nearest};
use super::pod::Pod;

/// Bindings that one pod may have. Each is two volumes, and a long poll of its own.
const MOST: usize = 64;

/// What the decision needs of a SecretBinding of the pod's namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    pub name: String,
    /// Directory of the delivered files.
    pub mount_path: String,
    /// Size limit of the tmpfs volume, in bytes.
    pub size_limit: Result<u64, ParseError>,
    /// Pods that get it without naming it, and that may name it; none = every pod. An error is why it takes none.
    pub pod_selector: Option<Result<Selector, NotSelected>>,
    /// Service accounts whose pods may get it; empty = all.
    pub service_accounts: Vec<String>,
    /// The container that gets a signal when a value changes.
    pub signals: Option<String>,
    /// Whether a port of the pod gets a request when a value changes.
    pub calls: bool,
    /// What its conditions say where `Ready` is not true. For a warning only: users can write status.
    pub not_ready: Option<NotReady>,
    /// Secrets that pods do not get, by their state. For warnings only.
    pub unavailable: Vec<Unavailable>,
    /// What the clock changes next about its secrets. For warnings only.
    pub changes: Option<Box<Change>>,
    /// Whether its deletion has begun.
    pub deleted: bool,
}

impl Binding {
    /// A selector as objects have it, to compare with.
    pub fn selector(selector: LabelSelector) -> Result<Selector, NotSelected> {
        let read = Selector::try_from(selector).map_err(|_| NotSelected::InvalidSelector)?;
        let mut all: Vec<_> = read.into_iter().collect();
        // Made for four at the least, and kept for every binding of the cluster.
        all.shrink_to_fit();
        Ok(all.into_iter().collect())
    }
}

/// Why a binding is not ready, and what that means for a new pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    pub files: Files,
    /// Reason and message of `Ready`.
    pub why: String,
}

/// Whether the files of a binding reach a new pod. `Ready` does not tell it: it sums up what is made beside them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    Delivered,
    Awaited,
    /// Where the controller has not come so far as to ask: it is paused, say, or does not reach the server.
    Unknown,
}

/// Secrets of a binding in one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// `Missing`, `Denied` or `Inactive`.
    pub state: &'static str,
    /// The first few of them.
    pub names: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

/// A change that the clock brings: versions that begin or end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub at: Timestamp,
    /// The first few secrets; none until the controller has said which.
    pub secrets: Vec<Turn>,
    /// How many more there are.
    pub more: usize,
}

/// What becomes of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub name: String,
    /// Whether a newer version begins; else the one that pods get ends.
    pub begins: bool,
}

/// The bindings that `pod` gets, at least one; `bindings` are all of its namespace, and both are in order of their names.
pub fn select<'a>(pod: Pod<'_>, namespace: &str, bindings: &'a [Arc<Binding>]) -> Result<Vec<&'a Binding>, Denial> {
    debug_assert!(
        bindings.is_sorted_by_key(|binding| &binding.name),
        "they are looked up by name"
    );
    let asker = Asker {
        labels: pod
            .labels()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        service_account: pod.service_account(),
    };
    let chosen = match pod.annotation(annotations::BINDING) {
        Some(list) => {
            let names = names(list, annotations::BINDING, "SecretBinding", is_subdomain)?;
            at_most(names.len())?;
            let of = |name| named(&asker, name, namespace, bindings);
            names.into_iter().map(of).collect::<Result<Vec<_>, _>>()?
        }
        None => bindings
            .iter()
            .map(Arc::as_ref)
            .filter(|binding| !binding.deleted && asker.gets(binding).is_ok())
            .collect(),
    };
    at_most(chosen.len())?;
    if chosen.is_empty() {
        return Err(Denial::NoBinding {
            namespace: namespace.to_owned(),
            existing: bindings.len(),
        });
    }
    Ok(chosen)
}

fn at_most(count: usize) -> Result<(), Denial> {
    if count > MOST {
        return Err(Denial::TooManyBindings { count, most: MOST });
    }
    Ok(())
}

/// The names in an annotation: separated by commas, white space around them ignored, no empty ones.
pub fn names(
    list: &str,
    annotation: &'static str,
    kind: &'static str,
    valid: fn(&str) -> bool,
) -> Result<BTreeSet<String>, Denial> {
    let mut names = BTreeSet::new();
    for name in list.split(',').map(str::trim) {
        if !valid(name) {
            return Err(Denial::InvalidName {
                annotation,
                name: name.to_owned(),
                kind,
            });
        }
        names.insert(name.to_owned());
    }
    Ok(names)
}

fn named<'a>(
    asker: &Asker<'_>,
    name: String,
    namespace: &str,
    bindings: &'a [Arc<Binding>],
) -> Result<&'a Binding, Denial> {
    let found = bindings.binary_search_by(|binding| binding.name.as_str().cmp(&name));
    let Ok(binding) = found.map(|at| bindings[at].as_ref()) else {
        let nearest = nearest(&name, bindings.iter().map(|binding| binding.name.as_str())).map(str::to_owned);
        return Err(Denial::UnknownBinding {
            name,
            namespace: namespace.to_owned(),
            nearest,
        });
    };
    if binding.deleted {
        return Err(Denial::BindingDeleted { name });
    }
    match asker.gets(binding) {
        Ok(()) => Ok(binding),
        Err(reason) => Err(Denial::NotSelected { name, reason }),
    }
}

/// What of a pod bindings select by.
struct Asker<'a> {
    labels: BTreeMap<String, String>,
    service_account: &'a str,
}

impl Asker<'_> {
    /// Whether the binding is for this pod.
    fn gets(&self, binding: &Binding) -> Result<(), NotSelected> {
        if let Some(selector) = &binding.pod_selector {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            if !selector.matches(&self.labels) {
                return Err(NotSelected::Labels);
            }
        }
        let wanted = &binding.service_accounts;
        if !wanted.is_empty() && !wanted.iter().any(|account| account == self.service_account) {
            return Err(NotSelected::ServiceAccount {
                actual: self.service_account.to_owned(),
                wanted: wanted.clone(),
            });
        }
        Ok(())
    }
}

/// The rule for names of custom resources: a DNS subdomain.
fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| sealpod_core::names::check_label(label).is_ok();
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{binding, pod_with};
    use super::*;
    use serde_json::json;

    fn chosen(annotation: Option<&str>, bindings: &[Binding]) -> Result<Vec<String>, String> {
        let mut pod = pod_with(&json!({}));
        pod["metadata"]["labels"]["app"] = json!("web");
        if let Some(list) = annotation {
            pod["metadata"]["annotations"] = json!({annotations::BINDING: list});
        }
        let mut bindings: Vec<_> = bindings.iter().cloned().map(Arc::new).collect();
        bindings.sort_by(|a, b| a.name.cmp(&b.name));
        match select(Pod(&pod), "shop", &bindings) {
            Ok(found) => Ok(found.iter().map(|binding| binding.name.clone()).collect()),
            Err(denial) => Err(denial.to_string()),
        }
    }

    fn for_app(name: &str, app: &str) -> Binding {
        Binding {
            pod_selector: Some(Ok(Selector::from_iter([("app".to_owned(), app.to_owned())]))),
            ..binding(name)
        }
    }

    #[test]
    fn named_bindings_come_in_order_and_once() {
        let all = [binding("mail"), binding("db")];
        assert_eq!(chosen(Some(" mail, db ,mail"), &all).unwrap(), ["db", "mail"]);
    }

    #[test]
    fn a_pod_that_names_none_gets_all_that_select_it() {
        let all = [binding("any"), for_app("web", "web"), for_app("other", "batch")];
        assert_eq!(chosen(None, &all).unwrap(), ["any", "web"]);
    }

    #[test]
    fn a_pod_gets_a_bounded_number_and_is_told_how_to_choose() {
        let of = |number| (0..number).map(|n| binding(&format!("b{n}"))).collect::<Vec<_>>();
        assert_eq!(chosen(None, &of(MOST)).unwrap().len(), MOST);
        let many = of(MOST + 1);
        let names: Vec<_> = many.iter().map(|binding| binding.name.as_str()).collect();
        for annotation in [None, Some(names.join(",").as_str())] {
            let text = chosen(annotation, &many).unwrap_err();
            assert!(
                text.starts_with("65 SecretBindings are for this pod, and 64 is the most"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_binding_that_does_not_exist_is_named_with_the_nearest_one() {
        let error = chosen(Some("databse"), &[binding("database")]).unwrap_err();
        assert_eq!(
            error,
            "annotation sealpod.dev/binding names SecretBinding \"databse\", which does not exist in namespace \"shop\"; \
             create it or correct the annotation (did you mean \"database\"?)"
        );
    }

    #[test]
    fn a_pod_that_no_binding_selects_is_refused() {
        let error = chosen(None, &[for_app("other", "batch")]).unwrap_err();
        assert!(
            error.starts_with("no SecretBinding in namespace \"shop\" selects this pod (there is 1)"),
            "{error}"
        );
        let error = chosen(None, &[]).unwrap_err();
        assert!(error.contains("(there is none at all)"), "{error}");
    }

    #[test]
    fn naming_a_binding_does_not_get_round_its_selectors() {
        let error = chosen(Some("other"), &[for_app("other", "batch")]).unwrap_err();
        assert!(error.contains("its podSelector does not match"), "{error}");
        let reserved = Binding {
            service_accounts: vec!["payments".to_owned()],
            ..binding("reserved")
        };
        let error = chosen(Some("reserved"), std::slice::from_ref(&reserved)).unwrap_err();
        assert!(error.contains("runs as service account \"default\""), "{error}");
        assert!(chosen(None, &[reserved]).is_err());
    }

    #[test]
    fn an_unreadable_selector_takes_nothing() {
        let mut broken = binding("broken");
        for (reason, told) in [
            (NotSelected::InvalidSelector, "podSelector is not valid"),
            (NotSelected::Unreadable, "cannot read it"),
        ] {
            broken.pod_selector = Some(Err(reason));
            assert!(chosen(None, std::slice::from_ref(&broken)).is_err());
            let text = chosen(Some("broken"), std::slice::from_ref(&broken)).unwrap_err();
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn a_binding_on_its_way_out_takes_no_new_pod() {
        let gone = Binding {
            deleted: true,
            ..binding("gone")
        };
        assert!(
            chosen(Some("gone"), std::slice::from_ref(&gone))
                .unwrap_err()
                .contains("is being deleted")
        );
        assert!(chosen(None, &[gone]).is_err());
    }

    #[test]
    fn what_cannot_be_a_name_is_refused_as_such() {
        for list in ["", "a,,b", "a,", "A", "a b", "../x", "a/b", &"a".repeat(300)] {
            let error = chosen(Some(list), &[binding("a"), binding("b")]).unwrap_err();
            assert!(
                error.contains("is not the name of a SecretBinding"),
                "{list:?}: {error}"
            );
        }
    }
}
