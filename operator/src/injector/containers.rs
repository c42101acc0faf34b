//! The containers and volumes that a pod gets.

use sealpod_core::injection::{
    GATE_PATH, GATE_TIMEOUT, MountedBinding, PodIdentity, SETTINGS_VARIABLE, SidecarSettings, VERSIONS_VARIABLE,
};
use sealpod_core::kubernetes::{INIT_CONTAINER, SHARED_GID, SIDECAR_CONTAINER, key_secret_name};
use sealpod_runtime::telemetry::Format;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::conflicts::contains;
use super::mesh::Probed;
use super::{Settings, SidecarLog, exec};

/// Where our containers find a binding's key: this and the binding's name.
const CREDENTIALS_ROOT: &str = "/var/run/sealpod";
/// Our program in our image.
pub const PROGRAM: &str = "/sealpod-sidecar";
/// The files of a Secret volume belong to root, and what isolates the key is that nothing else mounts it.
const KEY_MODE: u32 = 0o444;
/// What the sidecar reads its log settings from.
const LOG_VARIABLE: &str = "SEALPOD_LOG";
const LOG_FORMAT_VARIABLE: &str = "SEALPOD_LOG_FORMAT";
/// What names of volumes begin with: that of the files, and that of the key.
const VOLUME: &str = "sealpod-";
const KEY_VOLUME: &str = "sealpod-key-";
/// Hexadecimal digits of a volume name's hash: 64 bits, and the name stays below 63 characters.
const HASH_DIGITS: usize = 16;

/// Where Kubernetes mounts the pod's own token into every container that has nothing there, ours too: after a webhook has
/// changed a pod, it looks once more.
pub const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Variables that the kubelet fills in, with the field each comes from.
const DOWNWARD: [(&str, &str); 4] = [
    ("SEALPOD_POD_NAMESPACE", "metadata.namespace"),
    ("SEALPOD_POD_NAME", "metadata.name"),
    ("SEALPOD_POD_UID", "metadata.uid"),
    ("SEALPOD_NODE_NAME", "spec.nodeName"),
];

/// Whether a volume of some binding, whichever, has this name.
pub fn is_volume_name(name: &str) -> bool {
    let hash = name.strip_prefix(KEY_VOLUME).or_else(|| name.strip_prefix(VOLUME));
    hash.is_some_and(|hash| hash.len() == HASH_DIGITS && hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

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
        format!("{VOLUME}{}", self.hash())
    }

    pub fn key_volume_name(&self) -> String {
        format!("{KEY_VOLUME}{}", self.hash())
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
    /// From when on the kubelet reaches that port on the pod's address, if ever; until then a probe is a command.
    pub probed: Probed,
    pub resources: Value,
    /// The user that it runs as. Its group is never the app's: that is what keeps a process of the same user from looking
    /// into one of ours that has just been started.
    pub uid: i64,
    /// Whether the first of our containers copies the program for another one.
    pub exec: bool,
    /// Whether metrics tell the version of each key.
    pub versions: bool,
}

impl Parts<'_> {
    /// Writes the first files and ends.
    pub fn init(&self) -> Value {
        self.container(INIT_CONTAINER, "init", self.exec)
    }

    /// Keeps the files fresh, beside the app.
    pub fn regular(&self) -> Value {
        let mut container = self.container(SIDECAR_CONTAINER, "run", false);
        // Asked once all containers run.
        let by_address = self.health_port.filter(|_| self.probed != Probed::Never);
        self.add_probes(&mut container, by_address);
        container
    }

    /// Both in one, as an init container that stays; what comes after it in the pod waits for its startup probe.
    pub fn native(&self) -> Value {
        let mut container = self.container(SIDECAR_CONTAINER, "run", self.exec);
        container["restartPolicy"] = json!("Always");
        // Asked while later init containers are still to come, so what holds for the gate holds for all.
        let by_address = self.health_port.filter(|_| self.probed == Probed::FromTheFirst);
        container["startupProbe"] = gate(by_address);
        self.add_probes(&mut container, by_address);
        container
    }

    /// The text of [`SETTINGS_VARIABLE`], for the container that copies the program or another one.
    fn settings_json(&self, copies: bool) -> String {
        let bindings = self.deliveries.iter().map(|delivery| MountedBinding {
            name: literal(&delivery.binding),
            mount_path: literal(&delivery.mount_path),
            credentials: literal(&delivery.credentials()),
            size_limit: delivery.size_limit,
        });
        let [namespace, name, uid, node] = DOWNWARD.map(|(variable, _)| format!("$({variable})"));
        let settings = SidecarSettings {
            exec_directory: copies.then(|| exec::DIRECTORY.to_owned()),
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

    fn container(&self, name: &str, command: &str, copies: bool) -> Value {
        let mut env: Vec<Value> = DOWNWARD
            .iter()
            .map(|(name, field)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}))
            .collect();
        let SidecarLog { filter, format } = &self.settings.log;
        let format = match format {
            Format::Text => "text",
            Format::Json => "json",
        };
        env.push(json!({"name": LOG_VARIABLE, "value": literal(filter)}));
        env.push(json!({"name": LOG_FORMAT_VARIABLE, "value": format}));
        if self.versions {
            env.push(json!({"name": VERSIONS_VARIABLE, "value": "true"}));
        }
        // Behind the variables that it refers to: the kubelet expands in order.
        env.push(json!({"name": SETTINGS_VARIABLE, "value": self.settings_json(copies)}));
        let mut mounts: Vec<Value> = self.deliveries.iter().flat_map(Delivery::own_mounts).collect();
        if copies {
            mounts.push(exec::own_mount());
        }
        mounts.extend(self.token_cover());
        json!({
            "name": name,
            "image": self.settings.image,
            "imagePullPolicy": self.settings.image_pull_policy,
            "args": [command],
            "env": env,
            "resources": self.resources,
            "securityContext": {
                "runAsUser": self.uid,
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

    /// What keeps the pod's own token out of our containers, which never call Kubernetes: something is mounted there
    /// already, and that is what they have anyway.
    fn token_cover(&self) -> Option<Value> {
        let first = self.deliveries.first()?;
        // A directory for the mount would have to be made among the delivered files.
        let is_in_files = |delivery: &Delivery| contains(&delivery.mount_path, TOKEN_MOUNT);
        let cover = json!({"name": first.volume_name(), "mountPath": TOKEN_MOUNT, "readOnly": true});
        (!self.deliveries.iter().any(is_in_files)).then_some(cover)
    }

    /// The kubelet asks at this port of the pod's address, and where it does not get there, by a command in the container:
    /// beside a proxy that takes inbound connections, and on the node's network, where there is no port either and so
    /// nothing that tells a process that hangs.
    fn add_probes(&self, container: &mut Value, by_address: Option<u16>) {
        let probe = |question: &str, [by_request, by_command]: [u32; 2]| {
            if let Some(port) = by_address {
                let path = format!("/{question}");
                json!({"httpGet": {"path": path, "port": port}, "periodSeconds": by_request, "timeoutSeconds": 2})
            } else {
                // A process each time, so less often.
                let command = [PROGRAM, question];
                json!({"exec": {"command": command}, "periodSeconds": by_command, "timeoutSeconds": 5})
            }
        };
        // The kubelet also asks at once when it sees the container run, so the period delays no start.
        container["readinessProbe"] = probe("readyz", [5, 10]);
        if self.health_port.is_some() {
            container["livenessProbe"] = probe("healthz", [30, 60]);
            container["livenessProbe"]["timeoutSeconds"] = json!(5);
            container["livenessProbe"]["failureThreshold"] = json!(3);
        }
    }
}

/// The startup probe of the native sidecar: it passes when the files of every binding are there. It only ever delays
/// the pod, for years if need be, and never fails it.
///
/// - It blocks instead of being asked again and again: measured on a kubelet, the whole gate costs one relist (1 s) and
///   one missed tick (the first probe comes before the container runs), so `periodSeconds: 1` makes that tick short,
///   and the app starts with the kubelet's next step after the files are there, whatever that moment is.
/// - It is a request where one gets there, because a command is one more process of the container runtime in each
///   pod. The kubelet has no other limit for an answer than the timeout.
/// - After ten minutes it is asked anew: what hangs heals, and an hour without the server is six events on the pod, not
///   a thousand.
/// - The threshold is the largest that Kubernetes takes; at one failure a second it would be reached after 68 years.
fn gate(by_address: Option<u16>) -> Value {
    let (means, how) = match by_address {
        Some(port) => ("httpGet", json!({"path": GATE_PATH, "port": port})),
        None => ("exec", json!({"command": [PROGRAM, "wait"]})),
    };
    json!({
        means: how,
        "periodSeconds": 1,
        "timeoutSeconds": GATE_TIMEOUT.as_secs(),
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

    fn parts<'a>(settings: &'a Settings, deliveries: &'a [Delivery]) -> Parts<'a> {
        Parts {
            settings,
            deliveries,
            health_port: Some(1),
            probed: Probed::FromTheFirst,
            resources: json!({}),
            uid: 7,
            exec: false,
            versions: false,
        }
    }

    fn read_back(deliveries: &[Delivery]) -> SidecarSettings {
        serde_json::from_str(&expand(&parts(&settings(), deliveries).settings_json(false))).unwrap()
    }

    #[test]
    fn the_pods_token_is_kept_out_unless_that_would_leave_a_trace_among_the_files() {
        let covers = |path: &str| {
            let container = parts(&settings(), &[delivery("db", path)]).init();
            let mounts = container["volumeMounts"].as_array().unwrap();
            mounts
                .iter()
                .any(|mount| mount["mountPath"] == TOKEN_MOUNT && mount["readOnly"] == true)
        };
        assert!(covers("/x") && covers("/var/run/secrets/sealpod.dev/db"));
        assert!(!covers("/var/run/secrets") && !covers("/var/run"));
    }

    #[test]
    fn only_the_first_of_our_containers_copies_the_program() {
        let (settings, deliveries) = (settings(), [delivery("db", "/x")]);
        let parts = Parts {
            exec: true,
            ..parts(&settings, &deliveries)
        };
        let copies = |container: &Value| {
            let text = container.to_string();
            let (mount, setting) = (text.contains("\"sealpod-exec\""), text.contains("execDirectory"));
            assert_eq!(mount, setting, "{text}");
            mount
        };
        assert!(copies(&parts.init()) && copies(&parts.native()) && !copies(&parts.regular()));
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
            assert!(is_volume_name(&name));
            sealpod_core::names::check_label(&name).unwrap();
        }
        assert_ne!(long.volume_name(), delivery("b", "/x").volume_name());
    }
}
