//! What of a pod stands in the way of ours. Checked before anything is added, so that the message names the cause and
//! not, as the API server's would, a field that the user never wrote.

use sealpod_core::injection::{CONTAINER_VARIABLE, EXEC_MOUNT, SETTINGS_VARIABLE};
use sealpod_core::kubernetes::annotations;
use serde_json::Value;

use super::containers::Delivery;
use super::denial::{Denial, Taken};
use super::exec;
use super::plan::is_ours;
use super::pod::{Container, List, Pod, items, text};

/// Volume types that are always mounted read-only, so that no directory for ours can be made in them.
const READ_ONLY_VOLUMES: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];

/// What is to be mounted in one container of the user's.
struct Wanted<'a> {
    volume: String,
    path: &'a str,
    what: Taken,
}

/// What is to be added, as far as something of the pod may be in its way.
pub struct Additions<'a> {
    /// Our containers; those of an earlier injection are no conflict.
    pub ours: &'a [(List, &'a str)],
    pub deliveries: &'a [Delivery],
    /// The containers that get the files.
    pub readers: &'a [Container<'a>],
    /// The one of them that gets the program.
    pub exec: Option<Container<'a>>,
    /// The containers that get signals, and the variable with their name.
    pub signalled: &'a [Container<'a>],
}

/// Refuses names and paths that are taken.
pub fn check(pod: Pod<'_>, additions: &Additions<'_>) -> Result<(), Denial> {
    let Additions {
        ours,
        deliveries,
        readers,
        exec,
        signalled,
    } = additions;
    containers(pod, ours)?;
    volumes(pod, deliveries, exec.is_some())?;
    paths(deliveries, exec.is_some())?;
    for reader in *readers {
        let mut wanted: Vec<Wanted> = deliveries.iter().map(Wanted::of).collect();
        if exec.is_some_and(|container| is_same(&container, reader)) {
            wanted.push(Wanted::program());
        }
        mounts(pod, reader, &wanted)?;
    }
    signalled.iter().try_for_each(variable)
}

fn is_same(one: &Container<'_>, other: &Container<'_>) -> bool {
    (one.list, one.index) == (other.list, other.index)
}

impl<'a> Wanted<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        Self {
            volume: delivery.volume_name(),
            path: &delivery.mount_path,
            what: Taken::Files(delivery.binding.clone()),
        }
    }

    fn program() -> Self {
        Self {
            volume: exec::VOLUME.to_owned(),
            path: EXEC_MOUNT,
            what: Taken::Program,
        }
    }
}

fn was_injected(pod: Pod<'_>) -> bool {
    pod.annotation(annotations::INJECTED).is_some()
}

fn containers(pod: Pod<'_>, expected: &[(List, &str)]) -> Result<(), Denial> {
    for container in pod.all_containers().filter(|container| is_ours(container.name())) {
        let name = container.name().to_owned();
        if !was_injected(pod) || container.variable(SETTINGS_VARIABLE).is_none() {
            return Err(Denial::ContainerNameTaken { container: name });
        }
        if !expected.contains(&(container.list, container.name())) {
            return Err(Denial::Leftover { container: name });
        }
    }
    Ok(())
}

fn volumes(pod: Pod<'_>, deliveries: &[Delivery], exec: bool) -> Result<(), Denial> {
    let of_exec = exec.then(exec::volume);
    for wanted in deliveries.iter().flat_map(Delivery::volumes).chain(of_exec) {
        let name = text(&wanted, "name").unwrap_or_default();
        let Some(present) = pod.volume(name) else { continue };
        let same = |pointer: &str| present.pointer(pointer) == wanted.pointer(pointer);
        // Of a volume of ours, what makes it ours; the API server adds defaults to the rest.
        let is_empty = |volume: &Value| volume.get("emptyDir").is_some_and(Value::is_object);
        let same_kind = is_empty(present) == is_empty(&wanted);
        if !was_injected(pod) || !same_kind || !same("/emptyDir/medium") || !same("/secret/secretName") {
            return Err(Denial::VolumeNameTaken {
                volume: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// Directories of our own containers: no two may be one, or lie in each other.
fn paths(deliveries: &[Delivery], exec: bool) -> Result<(), Denial> {
    let directories: Vec<(&str, String)> = deliveries
        .iter()
        .flat_map(|delivery| {
            [delivery.mount_path.clone(), delivery.credentials()].map(|path| (&*delivery.binding, path))
        })
        .collect();
    for (at, (one, one_path)) in directories.iter().enumerate() {
        for (other, other_path) in &directories[at + 1..] {
            if meet(one_path, other_path) {
                return Err(Denial::PathsMeet {
                    one: (*one).to_owned(),
                    one_path: one_path.clone(),
                    other: (*other).to_owned(),
                    other_path: other_path.clone(),
                });
            }
        }
        let programs = [exec::DIRECTORY, EXEC_MOUNT].into_iter().filter(|_| exec);
        if let Some(program) = programs.into_iter().find(|program| meet(one_path, program)) {
            return Err(Denial::ProgramMeets {
                binding: (*one).to_owned(),
                path: one_path.clone(),
                program,
            });
        }
    }
    Ok(())
}

fn meet(one: &str, other: &str) -> bool {
    contains(one, other) || contains(other, one)
}

/// The mounts that a container of the user's already has. One in ours, or ours in a read-only one, would keep the
/// container from starting: the directory to mount on cannot be made.
fn mounts(pod: Pod<'_>, reader: &Container<'_>, wanted: &[Wanted<'_>]) -> Result<(), Denial> {
    for present in mounted(reader) {
        let Mounted { mount, at, volume } = present;
        for Wanted {
            volume: own,
            path,
            what,
        } in wanted
        {
            let below_it = contains(at, path) && !contains(path, at);
            let taken = contains(path, at) || (below_it && is_read_only(pod, mount, volume));
            if taken && volume != own.as_str() {
                return Err(Denial::MountTaken {
                    container: reader.name().to_owned(),
                    volume: volume.to_owned(),
                    at: at.to_owned(),
                    what: what.clone(),
                    path: (*path).to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// A volume in a container, as files or as a block device.
struct Mounted<'a> {
    mount: &'a Value,
    at: &'a str,
    volume: &'a str,
}

fn mounted<'a>(container: &Container<'a>) -> impl Iterator<Item = Mounted<'a>> + use<'a> {
    let of = |list: &'a [Value], path: &'static str| {
        list.iter().map(move |mount| Mounted {
            mount,
            at: text(mount, path).unwrap_or_default(),
            volume: text(mount, "name").unwrap_or_default(),
        })
    };
    of(container.mounts(), "mountPath").chain(of(items(container.raw, "volumeDevices"), "devicePath"))
}

/// The variable with the name of the container is ours; one of the same name that says something else is not.
fn variable(container: &Container<'_>) -> Result<(), Denial> {
    let named = |variable: &&Value| text(variable, "name") == Some(CONTAINER_VARIABLE);
    match items(container.raw, "env").iter().find(named) {
        Some(variable) if text(variable, "value") != Some(container.name()) => Err(Denial::VariableTaken {
            container: container.name().to_owned(),
        }),
        _ => Ok(()),
    }
}

fn is_read_only(pod: Pod<'_>, mount: &Value, volume: &str) -> bool {
    mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false)
        || pod
            .volume(volume)
            .is_some_and(|volume| READ_ONLY_VOLUMES.iter().any(|kind| volume.get(kind).is_some()))
}

/// Whether `inner` is `outer` or lies in it; `//` and `/./` mean nothing.
pub fn contains(outer: &str, inner: &str) -> bool {
    let parts = |path| str::split(path, '/').filter(|part| !matches!(*part, "" | "."));
    let mut inner = parts(inner);
    parts(outer).all(|part| inner.next() == Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_in_another_by_whole_segments() {
        assert!(contains("/a", "/a"));
        assert!(contains("/a/", "/a/b"));
        assert!(contains("/", "/a"));
        assert!(contains("/a/./b", "//a/b/c"));
        assert!(!contains("/a/b", "/a"));
        assert!(!contains("/a", "/ab"));
    }
}
