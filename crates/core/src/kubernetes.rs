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
/// Annotation on a key Secret: when its key was made, RFC 3339. It decides only when the key is rotated next.
pub const KEY_ROTATED_AT: &str = "sealpod.dev/key-rotated-at";

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
    format!("{binding}-sealpod-key")
}

/// Name of a binding's service account on the server.
pub fn service_account_name(cluster_id: &str, namespace: &str, binding: &str) -> String {
    format!("k8s/{cluster_id}/{namespace}/{binding}")
}

/// Value of the owner label.
pub fn owner(cluster_id: &str, namespace: &str, namespace_uid: &str, name: &str) -> String {
    format!("{cluster_id}/{namespace}/{namespace_uid}/{name}")
}
