//! The workloads of a namespace: listed when something has changed, a page at a time, and never kept.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Request;
use sealpod_core::kubernetes::FIELD_MANAGER;
use serde::Deserialize;
use serde_json::{Value, json};

/// Workloads of one answer.
const PAGE: u32 = 50;

/// A kind of workload whose pods are replaced when its pod template changes.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadKind {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    plural: &'static str,
    /// Whether there are clusters that do not know it.
    optional: bool,
}

/// In the order in which they are rolled out.
pub const KINDS: [WorkloadKind; 4] = [
    WorkloadKind::of_apps("Deployment", "deployments"),
    WorkloadKind::of_apps("StatefulSet", "statefulsets"),
    WorkloadKind::of_apps("DaemonSet", "daemonsets"),
    WorkloadKind {
        group: "argoproj.io",
        version: "v1alpha1",
        kind: "Rollout",
        plural: "rollouts",
        optional: true,
    },
];

/// What is read of a workload. Its pod template stays raw, because the injector reads it so.
#[derive(Debug, Deserialize)]
pub struct Workload {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub uid: String,
    #[serde(default)]
    pub deletion_timestamp: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub paused: bool,
    update_strategy: Value,
    pub template: Value,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    token: Option<String>,
}

impl WorkloadKind {
    const fn of_apps(kind: &'static str, plural: &'static str) -> Self {
        Self {
            group: "apps",
            version: "v1",
            kind,
            plural,
            optional: false,
        }
    }

    fn path(&self, namespace: &str) -> String {
        let Self {
            group, version, plural, ..
        } = self;
        format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}")
    }

    /// One page of the workloads of a namespace, and where the next begins. Nothing where the cluster does not know the
    /// kind.
    pub async fn page(
        &self,
        client: &Client,
        namespace: &str,
        after: Option<String>,
    ) -> kube::Result<(Vec<Workload>, Option<String>)> {
        let mut parameters = ListParams::default().limit(PAGE);
        parameters.continue_token = after;
        let request = Request::new(self.path(namespace)).list(&parameters);
        let page: Page = match client.request(request.map_err(kube::Error::BuildRequest)?).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if self.optional && status.is_not_found() => return Ok((vec![], None)),
            Err(error) => return Err(error),
        };
        // One that cannot be read is none that stops the others.
        let workloads = page
            .items
            .into_iter()
            .filter_map(|item| serde_json::from_value(item).ok());
        Ok((
            workloads.collect(),
            page.metadata.token.filter(|token| !token.is_empty()),
        ))
    }

    /// Sets one annotation on the pod template and nothing else, by a field manager of its own, so that no other
    /// binding's is taken away. With the UID, a workload that was made again is not touched, and none is made.
    pub async fn annotate(
        &self,
        client: &Client,
        namespace: &str,
        workload: &Workload,
        annotation: &str,
        mark: &str,
    ) -> kube::Result<()> {
        let Metadata { name, uid, .. } = &workload.metadata;
        let document = json!({
            "apiVersion": format!("{}/{}", self.group, self.version),
            "kind": self.kind,
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"template": {"metadata": {"annotations": {annotation: mark}}}},
        });
        let manager = format!("{FIELD_MANAGER}/{annotation}");
        let parameters = PatchParams::apply(&manager).force();
        let request = Request::new(self.path(namespace)).patch(name, &parameters, &Patch::Apply(&document));
        let request = request.map_err(kube::Error::BuildRequest)?;
        client.request_text(request).await.map(|_| ())
    }

    pub fn reference(&self, namespace: &str, workload: &Workload) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{}/{}", self.group, self.version)),
            kind: Some(self.kind.to_owned()),
            name: Some(workload.metadata.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(workload.metadata.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

impl Workload {
    /// The value of an annotation on its pod template.
    pub fn mark(&self, annotation: &str) -> Option<&str> {
        self.spec.template["metadata"]["annotations"][annotation].as_str()
    }

    /// Why its pods are not replaced at once, for people.
    pub fn waits_for(&self) -> Option<&'static str> {
        if self.spec.paused {
            return Some("it is paused, so its pods are replaced when it is resumed");
        }
        let by_hand = self.spec.update_strategy["type"] == "OnDelete";
        by_hand.then_some("its update strategy is OnDelete, so each pod is replaced when it is deleted")
    }

    pub fn is_going(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}
