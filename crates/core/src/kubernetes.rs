//! Every label, annotation, object name and container name that Sealpod puts on or reads from Kubernetes objects.

pub mod annotations;

/// API group of the custom resources, and the prefix of every label and annotation.
pub const GROUP: &str = "sealpod.dev";

/// Pod label that asks for injection; its only valid value is `"true"`.
pub const INJECT_LABEL: &str = "sealpod.dev/inject";
/// Label on every object that the operator or injector makes, so that they watch only their own.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "sealpod";
/// Label on a key Secret that names the binding's UID.
pub const BINDING_UID_LABEL: &str = "sealpod.dev/binding-uid";
/// Label on the Secret of an application's own key that names the Application's UID.
pub const APPLICATION_UID_LABEL: &str = "sealpod.dev/application-uid";
/// Annotation on a key Secret: when its key was made, RFC 3339. It decides only when the key is rotated next.
pub const KEY_ROTATED_AT: &str = "sealpod.dev/key-rotated-at";

/// Label on the Secret of `spec.kubernetesSecret`: the UID of the SecretBinding that it is of. Who can write it can write
/// the Secret itself, so it gives nobody a right; without it the Secret is left alone.
pub const COPY_OF_LABEL: &str = "sealpod.dev/copy-of";
/// Annotation on such a Secret: the name of the binding, by which a change of the Secret is told to it.
pub const COPY_BINDING: &str = "sealpod.dev/copy-binding";
/// Annotation on such a Secret, as JSON: what it was made of. Holds no value and no hash of one.
pub const COPY_STATE: &str = "sealpod.dev/copy-state";
/// Annotation on such a Secret: `Delete` or `Retain`, what becomes of it when its binding names another one.
pub const COPY_DELETION_POLICY: &str = "sealpod.dev/copy-deletion-policy";
/// Annotation on a key Secret, as JSON: the versions for which the workloads of the binding were last rolled out.
pub const ROLLED_OUT_FOR: &str = "sealpod.dev/rolled-out-for";
/// Prefix of the annotation on a workload's pod template that rolls it out anew; the binding's name follows. None of
/// [`GROUP`]'s own, which are for users to write on pods.
pub const ROLL_OUT_PREFIX: &str = "restart.sealpod.dev/";
/// What the names of key Secrets end with; no other Secret of ours does.
pub const KEY_SECRET_SUFFIX: &str = "-sealpod-key";

/// What users write on Applications, Environments and SecretBindings, beside their spec.
pub mod controls {
    /// Any new value: reconcile now. Example: the time.
    pub const RECONCILE_AT: &str = "sealpod.dev/reconcile-at";
    /// `"true"`: nothing is changed on the server or in the cluster until it goes; the condition `Ready` says so.
    pub const PAUSED: &str = "sealpod.dev/paused";
    /// On an Application, any new value: replace the key in `spec.apiKeySecretName`, with overlap.
    pub const ROTATE_KEY: &str = "sealpod.dev/rotate-key";
}

/// Field manager of every server-side apply of the controller.
pub const FIELD_MANAGER: &str = "sealpod-operator";
/// Finalizer on Application, Environment and SecretBinding.
pub const FINALIZER: &str = "sealpod.dev/server";

/// Owner label on server-side applications and environments: `<clusterId>/<namespace>/<namespace UID>/<name>`.
pub const OWNER_LABEL: &str = "sealpod.dev/owner";
/// Label on a binding's service account: the id of the application whose secrets it may read. Slugs come again.
pub const APPLICATION_ID_LABEL: &str = "sealpod.dev/application-id";
/// Label on server-side applications whose own key an Application has been given: `<its UID>/<name of the Secret>`.
pub const API_KEY_SECRET_LABEL: &str = "sealpod.dev/api-key-secret";
/// What the owner label becomes when the object goes and the application stays.
pub const RELEASED_BY_LABEL: &str = "sealpod.dev/released-by";
/// Written by an administrator: the would-be owner's value, as consent to adopt.
pub const ADOPTABLE_BY_LABEL: &str = "sealpod.dev/adoptable-by";

/// The containers that the injector adds.
pub const SIDECAR_CONTAINER: &str = "sealpod";
pub const INIT_CONTAINER: &str = "sealpod-init";

/// Port of the sidecar's health endpoint on the pod's address; the next free one where a container of the pod uses it.
/// Registered for nothing, used by no mesh, and below the range from which connections get their ports.
pub const HEALTH_PORT: u16 = 19_765;

/// The sidecar's user and group. The group is appended to the pod's `supplementalGroups`, so that files of mode 0440
/// are readable by containers of any uid.
pub const SIDECAR_UID: i64 = 65_532;
pub const SHARED_GID: i64 = 64_999;

/// Default mount path of a binding: this and its name.
pub const MOUNT_ROOT: &str = "/var/run/secrets/sealpod.dev";

/// Name of the Secret that holds a binding's key, CA and file settings.
pub fn key_secret_name(binding: &str) -> String {
    format!("{binding}{KEY_SECRET_SUFFIX}")
}

/// Name of a binding's service account on the server.
pub fn service_account_name(cluster_id: &str, namespace: &str, binding: &str) -> String {
    format!("k8s/{cluster_id}/{namespace}/{binding}")
}

/// Value of the owner label.
pub fn owner(cluster_id: &str, namespace: &str, namespace_uid: &str, name: &str) -> String {
    format!("{cluster_id}/{namespace}/{namespace_uid}/{name}")
}
