//! What is added to a pod: a pure decision from the pod, the bindings of its namespace and the injector's own settings.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::injection::{SETTINGS_VARIABLE, SidecarSettings};
use sealpod_core::kubernetes::{HEALTH_PORT, INIT_CONTAINER, SIDECAR_CONTAINER, SIDECAR_UID, annotations};
use serde_json::Value;

use super::Settings;
use super::cache::Known;
use super::containers::{Delivery, Parts};
use super::denial::{Denial, nearest};
use super::pod::{Container, List, Pod, text};
use super::resources::Leeway;
use super::select::{Binding, names, select};
use super::{conflicts, exec, mesh, pod, resources, signal, warnings};

/// Mounts of ours in the containers of one pod. Each is a part of the answer.
const MOST_MOUNTS: usize = 1_024;

/// What a pod has to have. [`super::patch`] adds what of it is missing, and takes away what an earlier plan had beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub volumes: Vec<Value>,
    /// Our containers, at most one in each list.
    pub ours: Vec<Ours>,
    /// What containers of the user's get.
    pub containers: Vec<Additions>,
    pub annotations: BTreeMap<&'static str, String>,
    /// For the person who makes the pod; kubectl prints them.
    pub warnings: Vec<String>,
}

/// What one container of the user's gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Additions {
    pub list: List,
    /// Its place in its list.
    pub index: usize,
    pub mounts: Vec<Value>,
    pub env: Vec<Value>,
}

/// One container of ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Ours {
    pub list: List,
    /// Its place among the other init containers; without meaning in the list of regular ones, where it is the last.
    pub place: usize,
    pub container: Value,
    /// What of its amounts somebody else may have set.
    pub leeway: Leeway,
}

/// Which of our containers a pod gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An init container for the first files and a regular container that keeps them fresh.
    Sidecar,
    /// One native sidecar, so that a pod that is to end does.
    Native,
    /// The first files only.
    Init,
}

impl Shape {
    const NAMES: [&str; 4] = ["auto", "sidecar", "native", "init"];

    fn of(pod: Pod<'_>) -> Result<Self, Denial> {
        match pod.annotation(annotations::MODE).map_or("auto", str::trim) {
            "auto" if pod.runs_for_ever() => Ok(Self::Sidecar),
            "auto" | "native" => Ok(Self::Native),
            "sidecar" => Ok(Self::Sidecar),
            "init" => Ok(Self::Init),
            other => Err(Denial::UnknownMode {
                mode: other.to_owned(),
                nearest: nearest(other, Self::NAMES).map(str::to_owned),
            }),
        }
    }

    /// Our containers of this shape, by list and name.
    fn containers(self) -> &'static [(List, &'static str)] {
        match self {
            Self::Sidecar => &[(List::Init, INIT_CONTAINER), (List::Regular, SIDECAR_CONTAINER)],
            Self::Native => &[(List::Init, SIDECAR_CONTAINER)],
            Self::Init => &[(List::Init, INIT_CONTAINER)],
        }
    }
}

/// Whether a name is that of a container of ours, in whatever shape.
pub fn is_ours(name: &str) -> bool {
    name == SIDECAR_CONTAINER || name == INIT_CONTAINER
}

/// Decides what `pod` gets. `namespace` is the request's and `known` is all that is known of it.
///
/// 1. Pods for which it cannot work are refused.
/// 2. The bindings are chosen, the shape, and the containers that get something.
/// 3. Conflicts with what the pod already has are refused.
/// 4. Our parts are built. Nothing of it depends on whether they are already there, so a second run plans the same.
pub fn plan(pod: Pod<'_>, namespace: &str, known: &Known, settings: &Settings) -> Result<Plan, Denial> {
    can_work(pod)?;
    let chosen = select(pod, namespace, &known.bindings)?;
    let shape = Shape::of(pod)?;
    let deliveries = chosen
        .iter()
        .map(|binding| delivery(binding))
        .collect::<Result<Vec<_>, _>>()?;
    let readers = readers(pod)?;
    few_enough(&deliveries, &readers)?;
    let place = place(pod);
    let exec = exec::container(pod, &readers, place)?;
    stays_in_the_pod(pod, &chosen, shape)?;
    let signals = signal::of(pod, &chosen, shape, is_ours)?;

    let additions = conflicts::Additions {
        deliveries: &deliveries,
        readers: &readers,
        exec,
        signalled: signals.as_ref().map_or(&[][..], |signals| &signals.containers),
    };
    let doubts = conflicts::check(pod, &additions)?;

    let mut warnings = warnings::of(pod, &chosen, shape, settings, known.now);
    warnings.extend(doubts);
    let mut annotations = BTreeMap::from([(annotations::INJECTED, injected(&deliveries))]);
    for exclusion in mesh::exclusions(pod, settings.server_port) {
        annotations.insert(exclusion.annotation, exclusion.value);
        warnings.push(exclusion.warning);
    }
    let resources = resources::of_ours(pod, is_ours, volume_bytes(&deliveries), &known.rules)?;
    warnings.extend(resources.warning);
    warnings.extend(warnings::too_early(pod, place, &readers));
    warnings.extend(warnings::without_meaning(pod));
    let parts = Parts {
        settings,
        deliveries: &deliveries,
        health_port: (!pod.flag("hostNetwork")).then(|| health_port(pod)),
        probed: mesh::probed(pod, place),
        resources: resources.amounts,
        uid: signals.as_ref().map_or(SIDECAR_UID, |signals| signals.uid),
        exec: exec.is_some(),
        versions: versions(pod)?,
    };
    Ok(Plan {
        volumes: deliveries
            .iter()
            .flat_map(Delivery::volumes)
            .chain(exec.map(|_| exec::volume()))
            .collect(),
        ours: ours(place, shape, &parts, resources.leeway),
        containers: containers(pod, &additions),
        annotations,
        warnings,
    })
}

/// What each container of the user's gets, of those that get something.
fn containers(pod: Pod<'_>, additions: &conflicts::Additions<'_>) -> Vec<Additions> {
    let of = |container: Container<'_>| {
        let is = |other: &Container| (other.list, other.index) == (container.list, container.index);
        let mut all = Additions {
            list: container.list,
            index: container.index,
            mounts: vec![],
            env: vec![],
        };
        if additions.readers.iter().any(is) {
            all.mounts
                .extend(additions.deliveries.iter().map(Delivery::reader_mount));
        }
        if additions.exec.as_ref().is_some_and(is) {
            all.mounts.push(exec::mount());
        }
        if additions.signalled.iter().any(is) {
            all.env.push(signal::variable(container.name()));
        }
        all
    };
    let all = pod.all_containers().map(of);
    all.filter(|all| !all.mounts.is_empty() || !all.env.is_empty())
        .collect()
}

fn volume_bytes(deliveries: &[Delivery]) -> u64 {
    let sizes = deliveries.iter().map(|delivery| delivery.size_limit);
    sizes.fold(0, u64::saturating_add)
}

fn can_work(pod: Pod<'_>) -> Result<(), Denial> {
    if !pod.is_a_pod() {
        Err(Denial::NotAPod)
    } else if pod.is_windows() {
        Err(Denial::Windows)
    } else if pod.is_mirror() {
        Err(Denial::StaticPod)
    } else {
        Ok(())
    }
}

fn few_enough(deliveries: &[Delivery], readers: &[Container<'_>]) -> Result<(), Denial> {
    let (bindings, containers) = (deliveries.len(), readers.len());
    if bindings.saturating_mul(containers) > MOST_MOUNTS {
        return Err(Denial::TooManyMounts {
            bindings,
            containers,
            most: MOST_MOUNTS,
        });
    }
    Ok(())
}

/// On the node's network, the address that our sidecar sends its request to is the node's own, where what listens trusts
/// whoever comes from there.
fn stays_in_the_pod(pod: Pod<'_>, chosen: &[&Binding], shape: Shape) -> Result<(), Denial> {
    let calls = chosen.iter().find(|binding| binding.calls);
    match calls.filter(|_| shape != Shape::Init && pod.flag("hostNetwork")) {
        Some(binding) => Err(Denial::CallsTheNode {
            binding: binding.name.clone(),
        }),
        None => Ok(()),
    }
}

fn delivery(binding: &Binding) -> Result<Delivery, Denial> {
    let size_limit = binding.size_limit.map_err(|reason| Denial::SizeLimit {
        name: binding.name.clone(),
        reason,
    })?;
    Ok(Delivery {
        binding: binding.name.clone(),
        mount_path: binding.mount_path.clone(),
        size_limit,
    })
}

fn versions(pod: Pod<'_>) -> Result<bool, Denial> {
    match pod.annotation(annotations::METRICS_VERSIONS).map(str::trim) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Denial::InvalidSwitch {
            annotation: annotations::METRICS_VERSIONS,
            written: other.to_owned(),
        }),
    }
}

fn injected(deliveries: &[Delivery]) -> String {
    let names: Vec<&str> = deliveries.iter().map(|delivery| delivery.binding.as_str()).collect();
    names.join(",")
}

/// The containers that get the mounts: all but ours, or those that the annotation names.
fn readers(pod: Pod<'_>) -> Result<Vec<Container<'_>>, Denial> {
    let all: Vec<_> = pod
        .all_containers()
        .filter(|container| !is_ours(container.name()))
        .collect();
    let Some(list) = pod.annotation(annotations::CONTAINERS) else {
        return Ok(all);
    };
    let is_name = |name: &str| sealpod_core::names::check_label(name).is_ok();
    let wanted = names(list, annotations::CONTAINERS, "container", is_name)?;
    let there: BTreeSet<&str> = all.iter().map(Container::name).collect();
    for name in &wanted {
        if !there.contains(name.as_str()) {
            return Err(Denial::UnknownContainer {
                name: name.clone(),
                nearest: nearest(name, all.iter().map(Container::name)).map(str::to_owned),
                known: all.iter().map(|container| container.name().to_owned()).collect(),
            });
        }
    }
    Ok(all
        .into_iter()
        .filter(|container| wanted.contains(container.name()))
        .collect())
}

/// The place of our init container among the others.
fn place(pod: Pod<'_>) -> usize {
    let others = pod
        .containers(List::Init)
        .map(|container| container.name())
        .filter(|name| !is_ours(name));
    mesh::place(others, pod.annotation(annotations::AFTER).map(str::trim))
}

fn ours(place: usize, shape: Shape, parts: &Parts<'_>, leeway: Leeway) -> Vec<Ours> {
    let containers = match shape {
        Shape::Sidecar => vec![parts.init(), parts.regular()],
        Shape::Native => vec![parts.native()],
        Shape::Init => vec![parts.init()],
    };
    let lists = shape.containers().iter().map(|(list, _)| *list);
    let placed = lists.zip(containers);
    placed
        .map(|(list, container)| Ours {
            list,
            place,
            container,
            leeway,
        })
        .collect()
}

/// The port of our health endpoint: the usual one, or the next that no container of the user's says it listens on. What a
/// container of ours has been told before does not count: it may be of a pod that this one is a copy of.
fn health_port(pod: Pod<'_>) -> u16 {
    let users = pod.all_containers().filter(|container| !is_ours(container.name()));
    let taken: BTreeSet<u64> = users.flat_map(|container| container.ports()).collect();
    let free = (HEALTH_PORT..=u16::MAX).find(|port| !taken.contains(&u64::from(*port)));
    free.unwrap_or(HEALTH_PORT)
}

/// The port of the health endpoint that a container of ours has been told.
pub fn told_port(ours: &Value) -> Option<u16> {
    let settings: SidecarSettings = serde_json::from_str(pod::variable(ours, SETTINGS_VARIABLE)?).ok()?;
    settings.health_port
}

/// The name of a container.
pub fn name_of(container: &Value) -> &str {
    text(container, "name").unwrap_or_default()
}

#[cfg(test)]
pub mod tests;
