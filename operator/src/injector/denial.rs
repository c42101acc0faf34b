//! Every sentence with which a pod is refused, and the means to write such sentences: names quoted safely, the nearest
//! valid name.

use std::fmt;

use sealpod_core::injection::CONTAINER_VARIABLE;
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
        "the pod has more fields than Sealpod reads: it would take more than 8 MiB of memory; take the label {INJECT_LABEL} off \
         it, or make it smaller"
    )]
    TooLarge,
    #[error(
        "{count} SecretBindings are for this pod, and {most} is the most; name those that it needs in the annotation {}, \
         separated by commas",
        annotations::BINDING
    )]
    TooManyBindings { count: usize, most: usize },
    #[error(
        "{bindings} SecretBindings in {containers} containers are more than {most} mounts; name the containers that need \
         them in the annotation {}, or fewer SecretBindings in {}",
        annotations::CONTAINERS,
        annotations::BINDING
    )]
    TooManyMounts {
        bindings: usize,
        containers: usize,
        most: usize,
    },
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
        "container {} already mounts volume {} at {}, where {what} has to be ({}); move that mount{}",
        Quoted(.container), Quoted(.volume), Quoted(.at), Quoted(.path), what.ways()
    )]
    MountTaken {
        container: String,
        volume: String,
        at: String,
        what: Taken,
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
        "SecretBinding {} mounts at {}, which meets the place of Sealpod's own program, {program}; set another mountPath in \
         the binding, or take the annotation {} off the pod", Quoted(.binding), Quoted(.path), annotations::EXEC
    )]
    ProgramMeets {
        binding: String,
        path: String,
        program: &'static str,
    },
    #[error(
        "annotation {} names container {}, which is none of those that get the files{}; name one of {}",
        annotations::EXEC, Quoted(.name), Nearest(.name, .known), QuotedList(.known)
    )]
    ExecContainer { name: String, known: Vec<String> },
    #[error(
        "annotation {} names container {}, which runs before Sealpod's own and so before the program is there; name one that \
         runs later, or move it behind, where {} or a mesh does not put Sealpod's behind it",
        annotations::EXEC, Quoted(.name), annotations::AFTER
    )]
    ExecTooEarly { name: String },
    #[error("annotation {annotation}: {} is no amount above 0; write one such as 500m or 64Mi", Quoted(.written))]
    InvalidQuantity { annotation: &'static str, written: String },
    #[error(
        "annotation {annotation}: {} is too little for Sealpod's program, which needs 8Mi (8388608 bytes) as its limit{}; write \
         a larger amount", Quoted(.written), Suggestion(.meant)
    )]
    TooLittleMemory {
        annotation: &'static str,
        written: String,
        meant: Option<String>,
    },
    #[error(
        "a LimitRange of the namespace lets a container have {most} of memory at most (max), and Sealpod's program needs \
         8Mi (8388608 bytes); raise it, or take the label {INJECT_LABEL} off the pod"
    )]
    MemoryBound { most: String },
    #[error(
        "annotation {annotation}: {} is less than 1Ki of memory, and m means thousandths of a byte{}; write an amount such \
         as 16Mi", Quoted(.written), Suggestion(.meant)
    )]
    HardlyAnyMemory {
        annotation: &'static str,
        written: String,
        meant: Option<String>,
    },
    #[error("annotation {annotation}: {} is neither true nor false", Quoted(.written))]
    InvalidSwitch { annotation: &'static str, written: String },
    #[error("annotation {request} asks for more than {limit} allows; correct one of them")]
    RequestAboveLimit { request: &'static str, limit: &'static str },
    #[error(
        "SecretBinding {} signals container {} on a change (onChange), which this pod does not have{}; its containers are \
         {}; correct the binding, or choose its pods with podSelector",
        Quoted(.binding), Quoted(.container), Nearest(.container, .known), QuotedList(.known)
    )]
    SignalContainer {
        binding: String,
        container: String,
        known: Vec<String>,
    },
    #[error(
        "SecretBinding {} signals container {} on a change (onChange), which is an init container and ends before; name one \
         that stays", Quoted(.binding), Quoted(.container)
    )]
    SignalEnds { binding: String, container: String },
    #[error(
        "SecretBinding {} signals container {} on a change (onChange), which needs {} in this pod; set it, or use \
         onChange.http or onChange.restart in the binding",
        Quoted(.binding), Quoted(.container), SignalNeeds(*.shared, *.user)
    )]
    SignalNeeds {
        binding: String,
        container: String,
        /// What is there already.
        shared: bool,
        user: bool,
    },
    #[error(
        "containers {} and {} both get signals on a change (onChange), but run as different users, and the sidecar can be \
         one of them only; give both the same securityContext.runAsUser", Quoted(.one), Quoted(.other)
    )]
    SignalUsers { one: String, other: String },
    #[error(
        "SecretBinding {} sends a request to a port of the pod on a change (onChange.http), and with hostNetwork that would be \
         a port of the node; use onChange.signal or onChange.restart in the binding, or set hostNetwork: false",
        Quoted(.binding)
    )]
    CallsTheNode { binding: String },
    #[error(
        "container {} already has a variable {CONTAINER_VARIABLE}, by which Sealpod may know the process that it signals \
         (onChange.signal); rename yours", Quoted(.container)
    )]
    VariableTaken { container: String },
    #[error(
        "container {} mounts volume {} at {}, which is Sealpod's own and only where Sealpod mounts it; remove that mount",
        Quoted(.container), Quoted(.volume), Quoted(.at)
    )]
    MountsOurs {
        container: String,
        volume: String,
        at: String,
    },
    #[error(
        "SecretBinding {} mounts at {}, which meets {place}, where nothing else can be for the containers to start; set another \
         mountPath in the binding", Quoted(.binding), Quoted(.path)
    )]
    PlaceTaken {
        binding: String,
        path: String,
        place: &'static str,
    },
}

impl Denial {
    /// One fixed word for each, as the label of a metric.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotAPod => "not_a_pod",
            Self::TooLarge | Self::TooManyBindings { .. } | Self::TooManyMounts { .. } => "too_large",
            Self::Windows | Self::StaticPod => "unsupported",
            Self::InvalidName { .. }
            | Self::UnknownMode { .. }
            | Self::UnknownContainer { .. }
            | Self::ExecContainer { .. }
            | Self::ExecTooEarly { .. }
            | Self::InvalidQuantity { .. }
            | Self::TooLittleMemory { .. }
            | Self::HardlyAnyMemory { .. }
            | Self::InvalidSwitch { .. }
            | Self::RequestAboveLimit { .. } => "annotation",
            Self::UnknownBinding { .. } | Self::NoBinding { .. } | Self::BindingDeleted { .. } => "no_binding",
            Self::NotSelected { .. } => "not_selected",
            Self::SizeLimit { .. } => "binding",
            Self::ContainerNameTaken { .. }
            | Self::VolumeNameTaken { .. }
            | Self::MountTaken { .. }
            | Self::PathsMeet { .. }
            | Self::ProgramMeets { .. }
            | Self::VariableTaken { .. }
            | Self::MemoryBound { .. }
            | Self::MountsOurs { .. }
            | Self::PlaceTaken { .. } => "conflict",
            Self::SignalContainer { .. }
            | Self::SignalEnds { .. }
            | Self::SignalNeeds { .. }
            | Self::CallsTheNode { .. }
            | Self::SignalUsers { .. } => "signal",
        }
    }
}

/// For what a mount is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The files of a binding.
    Files(String),
    /// The program for `exec`.
    Program,
}

impl Taken {
    /// What can be done beside moving the mount.
    fn ways(&self) -> String {
        match self {
            Self::Files(_) => format!(
                ", set the binding's mountPath, or leave the container out with the annotation {}",
                annotations::CONTAINERS
            ),
            Self::Program => format!(", or take the annotation {} off the pod", annotations::EXEC),
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(binding) => write!(f, "SecretBinding {}", Quoted(binding)),
            Self::Program => write!(f, "Sealpod's program (annotation {})", annotations::EXEC),
        }
    }
}

/// Why a binding that was named does not take the pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSelected {
    #[error("its podSelector does not match the pod's labels")]
    Labels,
    #[error("its podSelector is not valid")]
    InvalidSelector,
    #[error("this injector cannot read it, as it may be newer than the injector")]
    Unreadable,
    #[error("the pod runs as service account {}, and its serviceAccountNames are {}", Quoted(.actual), QuotedList(.wanted))]
    ServiceAccount { actual: String, wanted: Vec<String> },
}

/// Longest piece of foreign text that a sentence repeats in its middle, in characters.
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

/// The suggestion, where one of those that are known is near.
struct Nearest<'a>(&'a str, &'a [String]);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let near = nearest(self.0, self.1.iter().map(String::as_str));
        Suggestion(&near.map(str::to_owned)).fmt(f)
    }
}

/// What a signal needs beyond what is there already.
struct SignalNeeds(bool, bool);

impl fmt::Display for SignalNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHARED: &str = "shareProcessNamespace: true";
        const USER: &str = "a securityContext.runAsUser other than 0 for that container";
        match (self.0, self.1) {
            (false, true) => f.write_str(SHARED),
            (true, _) => f.write_str(USER),
            (false, false) => write!(f, "{SHARED} and {USER}"),
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
