//! What every cluster has beside the components: DNS for the pods, and volumes on request.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::layout::Layout;
use super::network::{DNS_SERVICE, Network};
use super::{NODE, kubectl};
use crate::process::{self, Failure};

/// The Service that pods ask for names: without a selector, because CoreDNS is no pod here.
pub fn dns_service(network: &Network) -> Value {
    let ports = |target: bool| -> Vec<Value> {
        ["UDP", "TCP"]
            .iter()
            .map(|protocol| {
                let mut port =
                    json!({"name": format!("dns-{}", protocol.to_lowercase()), "port": 53, "protocol": protocol});
                if target {
                    port["targetPort"] = json!(53);
                }
                port
            })
            .collect()
    };
    let name = json!({"name": "kube-dns", "namespace": "kube-system"});
    let mut slice_name = name.clone();
    slice_name["labels"] =
        json!({"kubernetes.io/service-name": "kube-dns", "endpointslice.kubernetes.io/managed-by": "sealpod-xtask"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": name,
            "spec": {"clusterIP": DNS_SERVICE, "ports": ports(true)},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": slice_name,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [network.subnet.node()], "conditions": {"ready": true}}],
            "ports": ports(false),
        },
    ]})
}

/// A `PersistentVolume` of this node that only the given claim can bind.
///
/// The folder is empty and belongs to 65532, the user of Sealpod's images: there is no provisioner that would make it.
pub fn create_volume(layout: &Layout, claim: &Claim, size: &str) -> Result<()> {
    let dir = layout.volumes().join(claim.volume_name());
    let name = claim.volume_name();
    let phase = [
        "get",
        "persistentvolume",
        &name,
        "--ignore-not-found",
        "--output=jsonpath={.status.phase}",
    ];
    if process::capture(&mut kubectl::kubectl(layout, &phase))? == "Released" {
        // Its claim is gone; no later one of the same name would bind it, nor expect to find its data.
        process::capture(&mut kubectl::kubectl(layout, &["delete", "persistentvolume", &name]))?;
        fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    let made = fs::create_dir(&dir)
        .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)))
        .and_then(|()| chown(&dir, Some(65532), Some(65532)));
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot create the volume's folder {}", dir.display()));
        }
        _ => {}
    }
    kubectl::apply(layout, &volume(claim, size, &dir.display().to_string()))
}

/// `NAMESPACE/NAME` of a `PersistentVolumeClaim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
}

impl Claim {
    fn volume_name(&self) -> String {
        format!("{}-{}", self.namespace, self.name)
    }
}

impl std::str::FromStr for Claim {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let is_name = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err(Failure::new(format!(
                "{text:?} is no claim; write NAMESPACE/NAME of the PersistentVolumeClaim"
            ))),
        }
    }
}

fn volume(claim: &Claim, size: &str, dir: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": claim.volume_name()},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace, "name": claim.name},
            "local": {"path": dir},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]},
            ]}]}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_written_as_namespace_and_name() {
        let claim: Claim = "sealpod-system/data-sealpod-api-server-0".parse().unwrap();
        assert_eq!(claim.volume_name(), "sealpod-system-data-sealpod-api-server-0");
        for wrong in ["data", "a/b/c", "/x", "x/", "../x", "A/b"] {
            let error = wrong.parse::<Claim>().unwrap_err().to_string();
            assert!(error.contains("NAMESPACE/NAME"), "{error}");
        }
    }

    #[test]
    fn a_volume_can_be_bound_by_its_claim_only_and_stays_on_this_node() {
        let claim = Claim {
            namespace: "ns".into(),
            name: "data-0".into(),
        };
        let volume = volume(&claim, "1Gi", "/v");
        assert_eq!(volume["spec"]["claimRef"]["name"], "data-0");
        assert!(volume["spec"]["nodeAffinity"].to_string().contains(NODE));
    }
}
