//! The containers and volumes that a pod gets.

use sealpod_core::injection::{MountedBinding, PodIdentity, SETTINGS_VARIABLE, SidecarSettings};
use sealpod_core::kubernetes::{INIT_CONTAINER, SHARED_GID, SIDECAR_CONTAINER, SIDECAR_UID, key_secret_name};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Settings;

/// Where our containers find a binding's key: this and the binding's name.
const CREDENTIALS_ROOT: &str = "/var/run/sealpod";
const PROGRAM: &str = "/sealpod-sidecar";
/// The files of a Secret volume belong to root, and what isolates the key is that nothing else mounts it.
const KEY_MODE: u32 = 0o444;
/// Hexadecimal digits of a volume name's hash: 64 bits, and the name stays below 63 characters.
const HASH_DIGITS: usize = 16;

/// Variables that the kubelet fills in, with the field each comes from.
const DOWNWARD: [(&str, &str); 4] = [
    ("SEALPOD_POD_NAMESPACE", "metadata.namespace"),
    ("SEALPOD_POD_NAME", "metadata.name"),
    ("SEALPOD_POD_UID", "metadata.uid"),
    ("SEALPOD_NODE_NAME", "spec.nodeName"),
];

/// One binding in the pod that is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub binding: String,
    /// Directory of the files, the same in every container.
    pub mount_path: String,
    /// Size limit of the tmpfs, in bytes.
    pub size_limit: u64,
}

impl Delivery {
    /// Directory of the key Secret's files, in our containers only.
    pub fn credentials(&self) -> String {
        format!("{CREDENTIALS_ROOT}/{}", self.binding)
    }

    pub fn volume_name(&self) -> String {
        format!("sealpod-{}", self.hash())
    }

    pub fn key_volume_name(&self) -> String {
        format!("sealpod-key-{}", self.hash())
    }

    /// The tmpfs and the key.
    pub fn volumes(&self) -> [Value; 2] {
        let limit = super::quantity::format(self.size_limit);
        [
            json!({"name": self.volume_name(), "emptyDir": {"medium": "Memory", "sizeLimit": limit}}),
            json!({
                "name": self.key_volume_name(),
                "secret": {"secretName": key_secret_name(&self.binding), "defaultMode": KEY_MODE},
            }),
        ]
    }

    /// The mount in a container of the user's.
    pub fn reader_mount(&self) -> Value {
        json!({"name": self.volume_name(), "mountPath": self.mount_path, "readOnly": true})
    }

    fn own_mounts(&self) -> [Value; 2] {
        [
            json!({"name": self.volume_name(), "mountPath": self.mount_path}),
            json!({"name": self.key_volume_name(), "mountPath": self.credentials(), "readOnly": true}),
        ]
    }

    fn hash(&self) -> String {
        let digest = Sha256::digest(self.binding.as_bytes());
        data_encoding::HEXLOWER.encode(&digest)[..HASH_DIGITS].to_owned()
    }
}

/// What all our containers of one pod have in common.
pub struct Parts<'a> {
    pub settings: &'a Settings,
    pub deliveries: &'a [Delivery],
    /// None on the node's network.
    pub health_port: Option<u16>,
    /// Whether the kubelet reaches that port on the pod's address.
    pub probed: bool,
    pub resources: Value,
}

impl Parts<'_> {
    /// Writes the first files and ends.
    pub fn init(&self) -> Value {
        self.container(INIT_CONTAINER, "init")
    }

    /// Keeps the files fresh, beside the app.
    pub fn regular(&self) -> Value {
        let mut container = self.container(SIDECAR_CONTAINER, "run");
        self.add_probes(&mut container);
        container
    }

    /// Both in one, as an init container that stays; what comes after it in the pod waits for its startup probe.
    pub fn native(&self) -> Value {
        let mut container = self.container(SIDECAR_CONTAINER, "run");
        container["restartPolicy"] = json!("Always");
        container["startupProbe"] = gate();
        self.add_probes(&mut container);
        container
    }

    /// The text of [`SETTINGS_VARIABLE`].
    pub fn settings_json(&self) -> String {
        let bindings = self.deliveries.iter().map(|delivery| MountedBinding {
            name: literal(&delivery.binding),
            mount_path: literal(&delivery.mount_path),
            credentials: literal(&delivery.credentials()),
            size_limit: delivery.size_limit,
        });
        let [namespace, name, uid, node] = DOWNWARD.map(|(variable, _)| format!("$({variable})"));
        let settings = SidecarSettings {
            exec_directory: None,
            server_url: literal(&self.settings.server_url),
            pod: PodIdentity {
                namespace,
                name,
                uid,
                node,
            },
            health_port: self.health_port,
            bindings: bindings.collect(),
        };
        serde_json::to_string(&settings).expect("settings are plain data")
    }

    fn container(&self, name: &str, command: &str) -> Value {
        let mut env: Vec<Value> = DOWNWARD
            .iter()
            .map(|(name, field)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}))
            .collect();
        // Behind the variables that it refers to: the kubelet expands in order.
        env.push(json!({"name": SETTINGS_VARIABLE, "value": self.settings_json()}));
        let mounts: Vec<Value> = self.deliveries.iter().flat_map(Delivery::own_mounts).collect();
        json!({
            "name": name,
            "image": self.settings.image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "args": [command],
            "env": env,
            "resources": self.resources,
            "securityContext": {
                "runAsUser": SIDECAR_UID,
                "runAsGroup": SHARED_GID,
                "runAsNonRoot": true,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": mounts,
        })
    }

    /// Where the kubelet cannot ask, nothing is lost but the restart of one that hangs: the files were there before the
    /// app was, which the init phase saw to.
    fn add_probes(&self, container: &mut Value) {
        let Some(port) = self.health_port.filter(|_| self.probed) else {
            return;
        };
        let ask = |path: &str| json!({"path": path, "port": port});
        // The kubelet also asks at once when it sees the container run, so the period delays no start.
        container["readinessProbe"] = json!({"httpGet": ask("/readyz"), "periodSeconds": 5, "timeoutSeconds": 2});
        container["livenessProbe"] =
            json!({"httpGet": ask("/healthz"), "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 3});
    }
}

/// The startup probe of the native sidecar: `wait` ends well when the files of every binding are there. It only ever
/// delays the pod, for years if need be, and never fails it.
///
/// - It blocks instead of being asked again and again: measured on a kubelet, the whole gate costs one relist (1 s) and
///   one missed tick (the first probe comes before the container runs), so `periodSeconds: 1` makes that tick short,
///   and the app starts with the kubelet's next step after the files are there, whatever that moment is.
/// - After ten minutes the kubelet ends `wait` and starts it anew: a hung one heals, and an hour without the server is
///   six events on the pod, not a thousand.
/// - The threshold is the largest that Kubernetes takes; at one failure a second it would be reached after 68 years.
fn gate() -> Value {
    json!({
        "exec": {"command": [PROGRAM, "wait"]},
        "periodSeconds": 1,
        "timeoutSeconds": 600,
        "failureThreshold": i32::MAX,
    })
}

/// Text in the value of a variable that the kubelet leaves as it is. It replaces `$(NAME)`, and turns every `$$` into
/// `$`, so each `$` is doubled and not only those before a parenthesis.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use proptest::prelude::*;

    fn delivery(binding: &str, mount_path: &str) -> Delivery {
        Delivery {
            binding: binding.to_owned(),
            mount_path: mount_path.to_owned(),
            size_limit: 16 << 20,
        }
    }

    /// What the kubelet does to the value of a variable, for the variables of [`DOWNWARD`].
    fn expand(value: &str) -> String {
        let mut out = String::new();
        let mut rest = value;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                match DOWNWARD.iter().find(|(variable, _)| *variable == name) {
                    Some((_, field)) => out.push_str(field),
                    None => out.extend(["$(", name, ")"]),
                }
                rest = after;
            } else {
                out.push('$');
            }
        }
        out + rest
    }

    fn read_back(deliveries: &[Delivery]) -> SidecarSettings {
        let settings = settings();
        let parts = Parts {
            settings: &settings,
            deliveries,
            health_port: Some(1),
            probed: true,
            resources: json!({}),
        };
        serde_json::from_str(&expand(&parts.settings_json())).unwrap()
    }

    #[test]
    fn the_kubelet_fills_in_the_pod_and_nothing_that_a_user_wrote() {
        let path = "/x/$(SEALPOD_POD_UID)/$$(HOME)/$$/$";
        let read = read_back(&[delivery("db", path)]);
        assert_eq!(read.pod.name, "metadata.name");
        assert_eq!(read.pod.node, "spec.nodeName");
        assert_eq!(read.bindings[0].mount_path, path);
        assert_eq!(read.bindings[0].credentials, "/var/run/sealpod/db");
    }

    proptest! {
        #[test]
        fn every_path_reaches_the_sidecar_as_it_is(path in "[$(){}A-Z\"\\\\ é]{0,30}") {
            let read = read_back(&[delivery("db", &path)]);
            prop_assert_eq!(&read.bindings[0].mount_path, &path);
        }
    }

    #[test]
    fn names_of_volumes_fit_whatever_the_binding_is_called() {
        let long = delivery(&"b".repeat(200), "/x");
        for name in [long.volume_name(), long.key_volume_name()] {
            sealpod_core::names::check_label(&name).unwrap();
        }
        assert_ne!(long.volume_name(), delivery("b", "/x").volume_name());
    }
}
