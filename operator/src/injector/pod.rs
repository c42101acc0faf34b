//! A read-only view of a pod as raw JSON. Never a typed pod: one of an older client would drop newer fields.

use serde_json::{Map, Value};

/// Labels of nodes with their operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// What can be told of the operating system of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Windows,
    Other,
}

impl System {
    fn of(name: &str) -> Self {
        if name == "windows" { Self::Windows } else { Self::Other }
    }
}

/// The two lists of containers that we read. Ephemeral containers cannot be part of a new pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    Init,
    Regular,
}

impl List {
    pub const ALL: [Self; 2] = [Self::Init, Self::Regular];

    /// The field of `spec`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
        }
    }
}

/// One container and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    pub list: List,
    pub index: usize,
    pub raw: &'a Value,
}

impl<'a> Container<'a> {
    pub fn name(&self) -> &'a str {
        text(self.raw, "name").unwrap_or_default()
    }

    pub fn mounts(&self) -> &'a [Value] {
        items(self.raw, "volumeMounts")
    }

    /// The value of a variable that is plain text.
    pub fn variable(&self, name: &str) -> Option<&'a str> {
        variable(self.raw, name)
    }

    /// Whether it runs on beside what comes behind it, as an init container.
    pub fn stays(&self) -> bool {
        text(self.raw, "restartPolicy") == Some("Always")
    }

    /// Ports that it says it listens on.
    pub fn ports(&self) -> impl Iterator<Item = u64> + use<'a> {
        items(self.raw, "ports")
            .iter()
            .filter_map(|port| port.get("containerPort")?.as_u64())
    }
}

/// The view; anything of an unexpected JSON type reads as absent.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a>(pub &'a Value);

impl<'a> Pod<'a> {
    /// Whether it has what every pod has: an object `metadata`, an object `spec` and at least one container with a name.
    pub fn is_a_pod(self) -> bool {
        let named = |container: &Container| !container.name().is_empty();
        let mut regular = self.containers(List::Regular).peekable();
        self.0.get("metadata").is_some_and(Value::is_object)
            && regular.peek().is_some()
            && regular.chain(self.containers(List::Init)).all(|c| named(&c))
    }

    pub fn spec(self) -> &'a Value {
        self.0.get("spec").unwrap_or(&Value::Null)
    }

    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.metadata_texts("labels")
    }

    pub fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.metadata_texts("annotations")
    }

    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.metadata("annotations")?.get(key)?.as_str()
    }

    pub fn label(self, key: &str) -> Option<&'a str> {
        self.metadata("labels")?.get(key)?.as_str()
    }

    pub fn containers(self, list: List) -> impl Iterator<Item = Container<'a>> {
        let containers = items(self.spec(), list.field()).iter().enumerate();
        containers.map(move |(index, raw)| Container { list, index, raw })
    }

    pub fn all_containers(self) -> impl Iterator<Item = Container<'a>> {
        List::ALL.into_iter().flat_map(move |list| self.containers(list))
    }

    pub fn volumes(self) -> &'a [Value] {
        items(self.spec(), "volumes")
    }

    pub fn volume(self, name: &str) -> Option<&'a Value> {
        self.volumes().iter().find(|volume| text(volume, "name") == Some(name))
    }

    pub fn flag(self, field: &str) -> bool {
        self.spec().get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn service_account(self) -> &'a str {
        text(self.spec(), "serviceAccountName")
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
    }

    /// Whether its containers are started again when they end, whatever their exit code: the default of Kubernetes.
    pub fn runs_for_ever(self) -> bool {
        matches!(text(self.spec(), "restartPolicy"), None | Some("" | "Always"))
    }

    /// Whether names of Services resolve. On the node's network `ClusterFirst`, the default, means the node's DNS. What
    /// `None` means is written elsewhere.
    pub fn uses_cluster_dns(self) -> bool {
        match text(self.spec(), "dnsPolicy") {
            Some("ClusterFirstWithHostNet" | "None") => true,
            Some("Default") => false,
            _ => !self.flag("hostNetwork"),
        }
    }

    /// Whether it can only run on Windows, by any of the signs that a pod gives of it. Options for Windows are the
    /// weakest: charts write them for both, and on Linux they mean nothing.
    pub fn is_windows(self) -> bool {
        let has_options =
            || has_windows_options(self.spec()) || self.all_containers().any(|c| has_windows_options(c.raw));
        self.asks_for(System::Windows) || has_options() && !self.asks_for(System::Other)
    }

    /// Whether its operating system, or that of its nodes, is said to be this one.
    fn asks_for(self, system: System) -> bool {
        let is = |name: &str| System::of(name) == system;
        let by_os = self.spec().get("os").and_then(|os| text(os, "name"));
        let nodes = self.spec().get("nodeSelector");
        let by_selector = OS_LABELS.map(|label| nodes.and_then(|nodes| text(nodes, label)));
        by_os.is_some_and(is) || by_selector.into_iter().flatten().any(is) || self.needs_nodes_of(system)
    }

    /// A node has to match one of the terms, and all of that one.
    fn needs_nodes_of(self, system: System) -> bool {
        let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let asks_for_it = |expression: &Value| {
            let values: Vec<_> = items(expression, "values").iter().filter_map(Value::as_str).collect();
            let of_windows = values
                .iter()
                .filter(|value| System::of(value) == System::Windows)
                .count();
            OS_LABELS.map(Some).contains(&text(expression, "key"))
                && match text(expression, "operator") {
                    Some("In") if system == System::Windows => of_windows > 0 && of_windows == values.len(),
                    Some("In") => of_windows == 0 && !values.is_empty(),
                    Some("NotIn") => system == System::Other && of_windows > 0,
                    _ => false,
                }
        };
        let terms = self
            .spec()
            .pointer(required)
            .map_or(&[][..], |required| items(required, "nodeSelectorTerms"));
        let mut all = terms.iter();
        !terms.is_empty() && all.all(|term| items(term, "matchExpressions").iter().any(asks_for_it))
    }

    /// The copy in the API of a pod that a kubelet runs from a file of its own.
    pub fn is_mirror(self) -> bool {
        self.annotation("kubernetes.io/config.mirror").is_some()
    }

    fn metadata(self, field: &str) -> Option<&'a Map<String, Value>> {
        self.0.get("metadata")?.get(field)?.as_object()
    }

    fn metadata_texts(self, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let entries = self.metadata(field).into_iter().flatten();
        entries.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

/// Whether an object says how it runs on Windows. That it is no process of the host says nothing: no pod of Linux is.
fn has_windows_options(object: &Value) -> bool {
    let context = object.get("securityContext");
    let options = context
        .and_then(|context| context.get("windowsOptions"))
        .and_then(Value::as_object);
    let says_nothing = |name: &str, value: &Value| value.is_null() || (name == "hostProcess" && value == false);
    let mut options = options.into_iter().flatten();
    options.any(|(name, value)| !says_nothing(name, value))
}

/// The value of a container's variable that is plain text.
pub fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let mut all = items(container, "env").iter();
    all.find(|variable| text(variable, "name") == Some(name))
        .and_then(|variable| text(variable, "value"))
}

/// A text field of an object.
pub fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str()
}

/// A list field of an object; empty where it is absent, null or no list.
pub fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
