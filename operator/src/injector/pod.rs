//! A read-only view of a pod as raw JSON. Never a typed pod: one of an older client would drop newer fields.

use serde_json::{Map, Value};

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

    /// Names and values of the variables that are plain text.
    pub fn variable(&self, name: &str) -> Option<&'a str> {
        items(self.raw, "env")
            .iter()
            .find(|variable| text(variable, "name") == Some(name))
            .and_then(|variable| text(variable, "value"))
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

    pub fn is_windows(self) -> bool {
        let by_os = self.spec().get("os").and_then(|os| text(os, "name"));
        let by_selector = self
            .spec()
            .get("nodeSelector")
            .and_then(|nodes| text(nodes, "kubernetes.io/os"));
        [by_os, by_selector].contains(&Some("windows"))
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

/// A text field of an object.
pub fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str()
}

/// A list field of an object; empty where it is absent, null or no list.
pub fn items<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
