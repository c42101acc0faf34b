//! The configuration files of the components, as text. Nothing here touches the machine.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::layout::Layout;
use super::network::{DNS_SERVICE, Network, POD_CIDR};

/// A file and its content.
pub type File = (PathBuf, String);

/// Everything that is written before the components start.
pub fn render(layout: &Layout, network: &Network, cni_plugins: &Path) -> Vec<File> {
    vec![
        (layout.config("containerd.toml"), containerd(layout, cni_plugins)),
        (layout.config("cni/10-sealpod.conflist"), cni(layout, network)),
        (layout.config("kubelet.json"), kubelet(layout, network)),
        // Pods ask the cluster's DNS only; search domains of the machine have no meaning in them.
        (layout.config("resolv.conf"), "# no upstream\n".to_string()),
        (layout.config("Corefile"), corefile(layout, network)),
    ]
}

fn containerd(layout: &Layout, cni_plugins: &Path) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let root = layout.run().join("containerd/root");
    let state = layout.containerd_state();
    format!(
        r#"version = 2
root = {root}
state = {state}
# Plugins that are not used, and would leave folders elsewhere on the machine or complain.
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = {socket}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE (in most containers) runc could not lower a score: "can't get final child's PID".
  restrict_oom_score_adj = true
  # Below our own folder, so that nothing of a killed cluster is left in /run/netns.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_plugins}
    conf_dir = {cni}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        root = quoted(&root),
        state = quoted(&state),
        socket = quoted(&layout.containerd_socket()),
        pause = crate::images::PAUSE_IMAGE,
        cni_plugins = quoted(cni_plugins),
        cni = quoted(&layout.config("cni")),
    )
}

fn cni(layout: &Layout, network: &Network) -> String {
    // ptp, not bridge: a bridge on one node breaks pod -> Service -> pod unless the kernel has br_netfilter.
    let config = json!({
        "cniVersion": "0.4.0",
        "name": network.namespace,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.run().join("cni"),
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}

fn kubelet(layout: &Layout, network: &Network) -> String {
    let certs = layout.certs();
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        // All pods are below one cgroup of our own: by it their processes are found when the cluster is stopped.
        "cgroupRoot": format!("/{}", network.namespace),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "maxPods": 250,
        "podLogsDir": layout.pod_logs(),
        "resolvConf": layout.config("resolv.conf"),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": certs.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certs.join("kubelet-serving.crt"),
        "tlsPrivateKeyFile": certs.join("kubelet-serving.key"),
        "oomScoreAdj": 0,
        // A disk that is nearly full must not make the kubelet delete images which no registry has, nor evict pods.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "200Mi",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "200Mi",
            "imagefs.inodesFree": "0%",
        },
    });
    format!("{config:#}\n")
}

fn corefile(layout: &Layout, network: &Network) -> String {
    format!(
        ".:53 {{\n  bind {node}\n  errors\n  ready 127.0.0.1:8181\n  kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    \
         kubeconfig {kubeconfig} sealpod\n    ttl 5\n  }}\n  cache 5\n}}\n",
        node = network.subnet.node(),
        kubeconfig = layout.config("admin.kubeconfig").display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::network::Subnet;

    fn files() -> Vec<File> {
        let layout = Layout::new(Path::new("/checkout/target"));
        render(
            &layout,
            &Network::new("1a2b3c4d", Subnet::DEFAULT),
            Path::new("/usr/lib/cni"),
        )
    }

    #[test]
    fn nothing_is_configured_outside_the_clusters_own_folder() {
        for (path, text) in files() {
            assert!(
                path.starts_with("/checkout/target/cluster/run/config"),
                "{}",
                path.display()
            );
            for system in ["/var/lib/", "/etc/cni", "\"/run/", "unix:///run/", "/var/log/pods"] {
                assert!(!text.contains(system), "{} names {system}", path.display());
            }
        }
    }

    #[test]
    fn json_files_are_json_and_pods_live_in_our_cgroup() {
        let files = files();
        let json = |name: &str| -> serde_json::Value {
            let (_, text) = files.iter().find(|(path, _)| path.ends_with(name)).unwrap();
            serde_json::from_str(text).unwrap()
        };
        assert_eq!(json("kubelet.json")["cgroupRoot"], "/sealpod-1a2b3c4d");
        assert_eq!(
            json("10-sealpod.conflist")["plugins"][0]["ipam"]["dataDir"],
            "/checkout/target/cluster/run/cni"
        );
    }
}
