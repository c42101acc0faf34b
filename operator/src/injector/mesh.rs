//! Service meshes: where their proxies stand, and how to get past those that do not run yet.

use super::plan::is_ours;
use super::pod::{Container, List, Pod};

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

/// The init containers that run before ours, which is at `place` among the others.
pub fn before(pod: Pod<'_>, place: usize) -> impl Iterator<Item = Container<'_>> {
    let others = pod.containers(List::Init);
    others.filter(|container| !is_ours(container.name())).take(place)
}

/// Whether requests of the kubelet to our health port reach our sidecar, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// Istio's proxy takes inbound connections, and under strict mutual TLS it refuses the kubelet's, unless Istio itself
    /// has rewritten the probe.
    Never,
    /// Once all containers run, and so no native sidecar: before, they may be redirected to a proxy that does not run yet,
    /// or end at a container that runs before ours and listens there.
    Later,
    FromTheFirst,
}

/// `place` is that of our container among the other init containers.
pub fn probed(pod: Pod<'_>, place: usize) -> Probed {
    let has = |proxy: &str| pod.all_containers().any(|container| container.name() == proxy);
    if has("istio-proxy") {
        Probed::Never
    } else if has("linkerd-proxy") || before(pod, place).any(|container| container.stays()) {
        Probed::Later
    } else {
        Probed::FromTheFirst
    }
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
    }

    #[test]
    fn probes_are_ours_from_the_first_where_no_mesh_and_nothing_that_stays_is_before_our_sidecar() {
        let init = |name: &str| json!({"name": name});
        let stays = |name: &str| json!({"name": name, "restartPolicy": "Always"});
        for (inits, regular, place, want) in [
            (vec![], "app", 0, Probed::FromTheFirst),
            (vec![stays("log"), init("migrate")], "app", 0, Probed::FromTheFirst),
            (vec![stays("sealpod"), init("migrate")], "app", 0, Probed::FromTheFirst),
            (vec![init("vpn-routes"), stays("log")], "app", 1, Probed::FromTheFirst),
            (vec![stays("vpn")], "app", 1, Probed::Later),
            (vec![stays("log"), init("vpn-routes")], "app", 2, Probed::Later),
            // Its redirection may be there before any container, and it itself comes last.
            (vec![], "linkerd-proxy", 0, Probed::Later),
            (vec![stays("linkerd-proxy")], "app", 1, Probed::Later),
            (vec![init("istio-validation")], "istio-proxy", 1, Probed::Never),
            (vec![stays("istio-proxy")], "app", 1, Probed::Never),
        ] {
            let pod = json!({"spec": {"initContainers": inits, "containers": [{"name": regular}]}});
            assert_eq!(probed(Pod(&pod), place), want, "{pod}");
        }
    }
}
