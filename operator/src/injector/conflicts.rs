//! What of a pod stands in the way of ours. Checked before anything is added, so that the message names the cause and
//! not, as the API server's would, a field that the user never wrote.

use std::collections::BTreeSet;

use sealpod_core::injection::{CONTAINER_VARIABLE, EXEC_MOUNT};
use serde_json::Value;

use super::containers::{Delivery, PROGRAM, TOKEN_MOUNT};
use super::denial::{Denial, Taken};
use super::earlier::{Earlier, is_mount};
use super::exec;
use super::plan::is_ours;
use super::pod::{Container, Pod, items, text};

/// Volume types that are always mounted read-only, so that no directory for ours can be made in them.
const READ_ONLY_VOLUMES: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];

/// Where ours would keep a container from starting, from both sides: what the runtime makes in each, and our program.
const PLACES: [&str; 4] = [PROGRAM, "/proc", "/sys", "/dev/termination-log"];
/// Below it there is room, such as in `/dev/shm`; over it there is not.
const DEVICES: &str = "/dev";

/// What is to be mounted in one container of the user's.
struct Wanted<'a> {
    volume: String,
    path: &'a str,
    what: Taken,
}

/// What is to be added, as far as something of the pod may be in its way.
pub struct Additions<'a> {
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
        deliveries,
        readers,
        exec,
        signalled,
    } = additions;
    let earlier = Earlier::of(pod);
    containers(pod, &earlier)?;
    volumes(pod, &earlier, deliveries, exec.is_some())?;
    paths(deliveries, exec.is_some())?;
    ours_alone(pod, &earlier, additions)?;
    let read_only = read_only_volumes(pod);
    for reader in *readers {
        let mut wanted: Vec<Wanted> = deliveries.iter().map(Wanted::of).collect();
        if exec.is_some_and(|container| is_same(&container, reader)) {
            wanted.push(Wanted::program());
        }
        let present = mounted(reader).filter(|mounted| !earlier.has_volume(mounted.volume));
        mounts(reader, present, &wanted, &read_only)?;
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

fn containers(pod: Pod<'_>, earlier: &Earlier<'_>) -> Result<(), Denial> {
    let mut named = pod.all_containers().filter(|container| is_ours(container.name()));
    match named.find(|container| !earlier.has_container(container)) {
        Some(container) => Err(Denial::ContainerNameTaken {
            container: container.name().to_owned(),
        }),
        None => Ok(()),
    }
}

fn volumes(pod: Pod<'_>, earlier: &Earlier<'_>, deliveries: &[Delivery], exec: bool) -> Result<(), Denial> {
    let of_exec = exec.then(exec::volume);
    for wanted in deliveries.iter().flat_map(Delivery::volumes).chain(of_exec) {
        let name = text(&wanted, "name").unwrap_or_default();
        if pod.volume(name).is_some() && !earlier.has_volume(name) {
            return Err(Denial::VolumeNameTaken {
                volume: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// Directories of our own containers: no two may be one, or lie in each other, or where Kubernetes has its own.
fn paths(deliveries: &[Delivery], exec: bool) -> Result<(), Denial> {
    for delivery in deliveries {
        let Delivery {
            binding, mount_path, ..
        } = delivery;
        let place = PLACES.into_iter().find(|place| meet(mount_path, place));
        let place = Some(DEVICES).filter(|devices| contains(mount_path, devices)).or(place);
        // Below the token there is no place for a directory; the token below ours is the pod's own affair.
        if let Some(place) = place.or(Some(TOKEN_MOUNT).filter(|token| contains(token, mount_path))) {
            return Err(Denial::PlaceTaken {
                binding: binding.clone(),
                path: mount_path.clone(),
                place,
            });
        }
        let programs = [exec::DIRECTORY, EXEC_MOUNT].into_iter().filter(|_| exec);
        for path in [mount_path, &delivery.credentials()] {
            if let Some(program) = programs.clone().find(|program| meet(path, program)) {
                return Err(Denial::ProgramMeets {
                    binding: binding.clone(),
                    path: path.clone(),
                    program,
                });
            }
        }
    }
    apart(deliveries)
}

/// In order of their segments, a directory stands directly before the first that lies in it, so neighbours tell.
fn apart(deliveries: &[Delivery]) -> Result<(), Denial> {
    let of = |delivery: &Delivery| [delivery.mount_path.clone(), delivery.credentials()];
    let all: Vec<(&str, String)> = deliveries
        .iter()
        .flat_map(|delivery| of(delivery).map(|path| (delivery.binding.as_str(), path)))
        .collect();
    let mut all: Vec<(Vec<&str>, &str, &str)> = all
        .iter()
        .map(|(binding, path)| (segments(path).collect(), *binding, path.as_str()))
        .collect();
    all.sort_unstable();
    for pair in all.windows(2) {
        if let [(one, one_binding, one_path), (other, other_binding, other_path)] = pair
            && other.starts_with(one)
        {
            return Err(Denial::PathsMeet {
                one: (*one_binding).to_owned(),
                one_path: (*one_path).to_owned(),
                other: (*other_binding).to_owned(),
                other_path: (*other_path).to_owned(),
            });
        }
    }
    Ok(())
}

fn meet(one: &str, other: &str) -> bool {
    contains(one, other) || contains(other, one)
}

/// The names of our volumes can be told beforehand, and whatever is mounted by one of them would be there: the key, or the
/// files to write to. Mounts of an earlier injection are taken away where today's has them no more.
fn ours_alone(pod: Pod<'_>, earlier: &Earlier<'_>, additions: &Additions<'_>) -> Result<(), Denial> {
    let Additions {
        deliveries,
        readers,
        exec,
        ..
    } = additions;
    let names: BTreeSet<String> = deliveries
        .iter()
        .flat_map(|delivery| [delivery.volume_name(), delivery.key_volume_name()])
        .chain(exec.map(|_| exec::VOLUME.to_owned()))
        .collect();
    for container in pod.all_containers().filter(|container| !is_ours(container.name())) {
        for Mounted { mount, at, volume } in mounted(&container) {
            if !names.contains(volume) || earlier.has_volume(volume) {
                continue;
            }
            let is_reader = || readers.iter().any(|reader| is_same(reader, &container));
            let of_reader = || {
                deliveries
                    .iter()
                    .any(|delivery| is_mount(mount, &delivery.reader_mount()))
            };
            let of_exec = || exec.is_some_and(|exec| is_same(&exec, &container)) && is_mount(mount, &exec::mount());
            if !(is_reader() && of_reader() || of_exec()) {
                return Err(Denial::MountsOurs {
                    container: container.name().to_owned(),
                    volume: volume.to_owned(),
                    at: at.to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// The mounts that a container of the user's already has. One in ours, or ours in a read-only one, would keep the
/// container from starting: the directory to mount on cannot be made.
fn mounts<'a>(
    reader: &Container<'_>,
    present: impl Iterator<Item = Mounted<'a>>,
    wanted: &[Wanted<'_>],
    read_only_volumes: &BTreeSet<&str>,
) -> Result<(), Denial> {
    for Mounted { mount, at, volume } in present {
        let is_read_only =
            mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false) || read_only_volumes.contains(volume);
        for Wanted {
            volume: own,
            path,
            what,
        } in wanted
        {
            let below_it = contains(at, path) && !contains(path, at);
            let taken = contains(path, at) || (below_it && is_read_only);
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

fn read_only_volumes(pod: Pod<'_>) -> BTreeSet<&str> {
    let is_read_only = |volume: &&Value| READ_ONLY_VOLUMES.iter().any(|kind| volume.get(kind).is_some());
    let all = pod.volumes().iter().filter(is_read_only);
    all.filter_map(|volume| text(volume, "name")).collect()
}

/// Whether `inner` is `outer` or lies in it; `//` and `/./` mean nothing.
pub fn contains(outer: &str, inner: &str) -> bool {
    let mut inner = segments(inner);
    segments(outer).all(|part| inner.next() == Some(part))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
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
