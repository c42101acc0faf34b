//! Every sentence with which a pod is refused, and the means to write such sentences: names quoted safely, the nearest
//! valid name.

use std::fmt;

use sealpod_core::kubernetes::{INJECT_LABEL, annotations};
use sealpod_crds::ParseError;

/// Why a pod cannot get its secrets. The text goes to the person or controller that makes the pod: it says what is wrong
/// and what to do, and repeats nothing but names from the pod and from its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    #[error(
        "the request carries no pod with named containers; the webhook must be registered for the creation of pods only"
    )]
    NotAPod,
    #[error(
        "a Windows pod cannot get secrets from Sealpod, which needs a tmpfs; take the label {INJECT_LABEL} off the pod"
    )]
    Windows,
    #[error(
        "a static pod cannot get secrets from Sealpod, because its kubelet does not let it use Secrets; take the label \
         {INJECT_LABEL} off the manifest, or make it a DaemonSet"
    )]
    StaticPod,
    #[error("annotation {annotation}: {} is not the name of a {kind}; write names separated by commas", Quoted(.name))]
    InvalidName {
        annotation: &'static str,
        name: String,
        kind: &'static str,
    },
    #[error(
        "annotation {} names SecretBinding {}, which does not exist in namespace {}; create it or correct the annotation{}",
        annotations::BINDING, Quoted(.name), Quoted(.namespace), Suggestion(.nearest)
    )]
    UnknownBinding {
        name: String,
        namespace: String,
        nearest: Option<String>,
    },
    #[error(
        "no SecretBinding in namespace {} selects this pod ({}); create one, correct its podSelector or \
         serviceAccountNames, or name one in the annotation {}", Quoted(.namespace), Existing(*.existing), annotations::BINDING
    )]
    NoBinding { namespace: String, existing: usize },
    #[error("SecretBinding {} is being deleted; take it out of the annotation {}", Quoted(.name), annotations::BINDING)]
    BindingDeleted { name: String },
    #[error(
        "SecretBinding {} does not select this pod: {reason}; correct the binding or the pod", Quoted(.name)
    )]
    NotSelected { name: String, reason: NotSelected },
    #[error("SecretBinding {}: sizeLimit {reason}; correct the binding", Quoted(.name))]
    SizeLimit { name: String, reason: ParseError },
    #[error("annotation {}: {} is none of auto, sidecar, native, init{}", annotations::MODE, Quoted(.mode), Suggestion(.nearest))]
    UnknownMode { mode: String, nearest: Option<String> },
    #[error(
        "annotation {} names container {}, which this pod does not have{}; its containers are {}",
        annotations::CONTAINERS, Quoted(.name), Suggestion(.nearest), QuotedList(.known)
    )]
    UnknownContainer {
        name: String,
        nearest: Option<String>,
        known: Vec<String>,
    },
    #[error("the pod already has a container named {0}, which is the name of Sealpod's own; rename yours", Quoted(.container))]
    ContainerNameTaken { container: String },
    #[error("the pod already has a volume named {}, which Sealpod would make; rename yours", Quoted(.volume))]
    VolumeNameTaken { volume: String },
    #[error(
        "container {} already mounts volume {} at {}, where SecretBinding {} has to be ({}); move that mount, set the \
         binding's mountPath, or leave the container out with the annotation {}",
        Quoted(.container), Quoted(.volume), Quoted(.at), Quoted(.binding), Quoted(.path), annotations::CONTAINERS
    )]
    MountTaken {
        container: String,
        volume: String,
        at: String,
        binding: String,
        path: String,
    },
    #[error(
        "SecretBinding {} mounts at {} and {} at {}: one directory must not be the other or lie in it; set mountPath in one \
         of them", Quoted(.one), Quoted(.one_path), Quoted(.other), Quoted(.other_path)
    )]
    PathsMeet {
        one: String,
        one_path: String,
        other: String,
        other_path: String,
    },
    #[error(
        "the pod was copied from an injected one and still carries Sealpod's container {} in a place where it does not \
         belong; remove it and the annotation {} from the copy", Quoted(.container), annotations::INJECTED
    )]
    Leftover { container: String },
}

/// Why a binding that was named does not take the pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSelected {
    #[error("its podSelector does not match the pod's labels")]
    Labels,
    #[error("its podSelector is not valid")]
    InvalidSelector,
    #[error("the pod runs as service account {}, and its serviceAccountNames are {}", Quoted(.actual), QuotedList(.wanted))]
    ServiceAccount { actual: String, wanted: Vec<String> },
}

/// Longest piece of foreign text that a sentence repeats, in characters.
const QUOTE_LIMIT: usize = 100;

/// Foreign text in a sentence: in quotation marks, escaped, and cut, so that it can neither forge nor flood.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTE_LIMIT) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

struct QuotedList<'a>(&'a [String]);

impl fmt::Display for QuotedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        for (at, name) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, Quoted(name))?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Suggestion<'a>(&'a Option<String>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, " (did you mean {}?)", Quoted(name)),
            None => Ok(()),
        }
    }
}

struct Existing(usize);

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("there is none at all"),
            1 => f.write_str("there is 1"),
            many => write!(f, "there are {many}"),
        }
    }
}

/// The candidate that `name` is most likely a typing error of: at most a third of its length, and no more than three
/// characters, differ. None where nothing is near.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of the lengths, and whoever makes a pod chooses the name.
    const LONGEST: usize = 100;
    const CANDIDATES: usize = 1_000;
    let length = name.chars().count();
    if length > LONGEST {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .take(CANDIDATES)
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= allowed)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits that turn one into the other: insert, delete, replace one character, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // rows[i][j] = distance of the first i characters of a and the first j of b.
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_likely_typing_error_and_nothing_else() {
        let known = ["binding", "containers", "mode", "after"];
        for (typed, want) in [
            ("bindings", Some("binding")),
            ("bindnig", Some("binding")),
            ("Binding", Some("binding")),
            ("container", Some("containers")),
            ("mod", Some("mode")),
            ("aftr", Some("after")),
            ("abc", None),
            ("unrelated-thing", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, known), want, "{typed}");
        }
        assert_eq!(nearest("db", ["db2", "cache"]), Some("db2"));
        assert_eq!(nearest("db", ["mail"]), None);
        assert_eq!(nearest(&"x".repeat(1_000), ["x"]), None);
    }

    #[test]
    fn foreign_text_can_neither_forge_a_line_nor_flood() {
        let denial = Denial::UnknownBinding {
            name: format!("a\n\u{1b}[31m\"{}", "b".repeat(5_000)),
            namespace: "shop".to_owned(),
            nearest: None,
        };
        let text = denial.to_string();
        assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text}");
        assert!(text.chars().count() < 500, "{text}");
    }

    #[test]
    fn a_long_list_is_cut() {
        let known = (0..50).map(|i| format!("c{i}")).collect();
        let text = Denial::UnknownContainer {
            name: "x".to_owned(),
            nearest: None,
            known,
        }
        .to_string();
        assert!(text.ends_with("\"c9\" and 40 more"), "{text}");
    }
}
