//! Service meshes: where their proxies stand, and how to get past those that do not run yet.

use super::pod::{List, Pod};

/// Containers behind which ours has to stand in the init phase: from there on the mesh lets connections out.
const BEFORE_OURS: [&str; 3] = ["istio-proxy", "istio-validation", "linkerd-proxy"];

/// A mesh by its proxy, and its annotation that lists the outbound ports that do not go through the proxy.
const MESHES: [(&str, &str, &str); 2] = [
    ("Istio", "istio-proxy", "traffic.sidecar.istio.io/excludeOutboundPorts"),
    ("Linkerd", "linkerd-proxy", "config.linkerd.io/skip-outbound-ports"),
];

/// The place in the list of the *other* init containers, directly behind the mesh's or the one that `after` names.
pub fn place<'a>(others: impl Iterator<Item = &'a str>, after: Option<&str>) -> usize {
    let waits_for = |name: &str| BEFORE_OURS.contains(&name) || after == Some(name);
    others
        .enumerate()
        .filter(|(_, name)| waits_for(name))
        .last()
        .map_or(0, |(index, _)| index + 1)
}

/// Whether Istio's proxy is in the pod: it takes inbound connections, and under strict mutual TLS it refuses the
/// kubelet's, unless Istio itself has rewritten the probe. Ours are commands there.
pub fn takes_inbound_probes(pod: Pod<'_>) -> bool {
    pod.all_containers().any(|container| container.name() == "istio-proxy")
}

/// An annotation of a mesh that has to be set, and what to tell the user.
#[derive(Debug, PartialEq, Eq)]
pub struct Exclusion {
    pub annotation: &'static str,
    pub value: String,
    pub warning: String,
}

/// Where the proxy is a regular container it starts after the init phase, in which its redirection already holds:
/// nothing of that phase can call out. So connections to the server's port go past it.
pub fn exclusions(pod: Pod<'_>, server_port: u16) -> Vec<Exclusion> {
    let has_proxy = |proxy: &str| pod.containers(List::Regular).any(|container| container.name() == proxy);
    let port = server_port.to_string();
    MESHES
        .into_iter()
        .filter(|(_, proxy, _)| has_proxy(proxy))
        .filter_map(|(mesh, _, annotation)| {
            let ports = pod.annotation(annotation).unwrap_or_default().trim();
            if ports
                .split(',')
                .any(|listed| matches!(listed.trim(), "*") || listed.trim() == port)
            {
                return None;
            }
            Some(Exclusion {
                annotation,
                value: if ports.is_empty() {
                    port.clone()
                } else {
                    format!("{ports},{port}")
                },
                warning: format!(
                    "{mesh}'s proxy starts after the init containers, so connections to port {port} (Sealpod's server) \
                     go past it: annotation {annotation}"
                ),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ours_is_first_but_directly_behind_what_it_waits_for() {
        for (others, after, want) in [
            (vec![], None, 0),
            (vec!["migrate"], None, 0),
            (vec!["istio-proxy", "migrate"], None, 1),
            (vec!["istio-init", "istio-proxy", "migrate"], None, 2),
            (vec!["linkerd-init", "linkerd-proxy"], None, 2),
            (vec!["a", "istio-validation"], None, 2),
            (vec!["a", "vpn", "b"], Some("vpn"), 2),
            (vec!["istio-proxy", "vpn", "b"], Some("vpn"), 2),
            (vec!["vpn", "istio-proxy", "b"], Some("vpn"), 2),
            (vec!["a"], Some("absent"), 0),
        ] {
            assert_eq!(place(others.iter().copied(), after), want, "{others:?} {after:?}");
        }
    }

    #[test]
    fn a_proxy_among_the_regular_containers_is_passed_by_and_the_user_told() {
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]}});
        let found = exclusions(Pod(&pod), 7100);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].value, "7100");
        let annotation = found[0].annotation;
        pod["metadata"]["annotations"] = json!({annotation: "3306, 5432"});
        assert_eq!(exclusions(Pod(&pod), 7100)[0].value, "3306, 5432,7100");
        pod["metadata"]["annotations"] = json!({annotation: "3306, 7100"});
        assert_eq!(exclusions(Pod(&pod), 7100), []);
    }

    #[test]
    fn a_native_proxy_needs_no_exclusion() {
        let pod = json!({"spec": {"initContainers": [{"name": "istio-proxy"}], "containers": [{"name": "app"}]}});
        assert_eq!(exclusions(Pod(&pod), 7100), []);
        assert!(takes_inbound_probes(Pod(&pod)));
    }
}
