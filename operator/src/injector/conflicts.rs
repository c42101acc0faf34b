//! What of a pod stands in the way of ours. Checked before anything is added, so that the message names the cause and
//! not, as the API server's would, a field that the user never wrote.

mod doubts;
mod paths;
mod rooms;

use std::collections::BTreeSet;

use sealpod_core::injection::{CONTAINER_VARIABLE, EXEC_MOUNT};
use serde_json::Value;

use super::containers::{Delivery, PROGRAM, TOKEN_MOUNT};
use super::denial::{Denial, Taken};
use super::earlier::{Earlier, agrees};
use super::exec;
use super::plan::is_ours;
use super::pod::{Container, Pod, items, text};
use doubts::{Doubt, Doubts};
pub use paths::contains;
use paths::{linked, meet, segments};
use rooms::{Mounted, Present, Room, mounted};

/// Where ours would keep a container from starting, from both sides: what the runtime makes in each, and our program.
const PLACES: [&str; 4] = [PROGRAM, "/proc", "/sys", "/dev/termination-log"];
/// Below it there is room, such as in `/dev/shm`; over it there is not.
const DEVICES: &str = "/dev";

/// What is to be mounted in one container of the user's.
struct Wanted<'a> {
    volume: String,
    path: &'a str,
    segments: Vec<&'a str>,
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

/// Refuses names and paths that are taken, and gives warnings of what may be.
pub fn check(pod: Pod<'_>, additions: &Additions<'_>) -> Result<impl Iterator<Item = String> + use<>, Denial> {
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
    let present = Present::of(pod);
    let mut doubts = Doubts::default();
    for reader in *readers {
        let mut wanted: Vec<Wanted> = deliveries.iter().map(Wanted::of).collect();
        if exec.is_some_and(|container| is_same(&container, reader)) {
            wanted.push(Wanted::program());
        }
        let others = mounted(reader).filter(|mounted| !earlier.has_volume(mounted.volume));
        mounts(reader, others, &wanted, &present, &mut doubts)?;
        bindings(reader, deliveries, &mut doubts);
    }
    signalled.iter().try_for_each(variable)?;
    Ok(doubts.warnings())
}

fn is_same(one: &Container<'_>, other: &Container<'_>) -> bool {
    (one.list, one.index) == (other.list, other.index)
}

impl<'a> Wanted<'a> {
    fn of(delivery: &'a Delivery) -> Self {
        Self {
            volume: delivery.volume_name(),
            path: &delivery.mount_path,
            segments: segments(&delivery.mount_path),
            what: Taken::Files(delivery.binding.clone()),
        }
    }

    fn program() -> Self {
        Self {
            volume: exec::VOLUME.to_owned(),
            path: EXEC_MOUNT,
            segments: segments(EXEC_MOUNT),
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
        .map(|(binding, path)| (segments(path), *binding, path.as_str()))
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

/// Directories of ours that meet in a container of the user's by the link of its image alone.
fn bindings(reader: &Container<'_>, deliveries: &[Delivery], doubts: &mut Doubts) {
    let all = deliveries
        .iter()
        .map(|delivery| (segments(&delivery.mount_path), delivery));
    let all: Vec<_> = all.collect();
    let mut all: Vec<_> = all
        .iter()
        .map(|(path, delivery)| (linked(path), &delivery.binding, &delivery.mount_path))
        .collect();
    all.sort_unstable();
    for pair in all.windows(2) {
        if let [(one, one_binding, one_path), (other, other_binding, other_path)] = pair
            && other.starts_with(one)
        {
            let doubt = Doubt::Bindings {
                one: (*one_binding).clone(),
                one_path: (*one_path).clone(),
                other: (*other_binding).clone(),
                other_path: (*other_path).clone(),
            };
            doubts.add(doubt, reader.name());
        }
    }
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
                    .any(|delivery| agrees(mount, &delivery.reader_mount()))
            };
            let of_exec = || exec.is_some_and(|exec| is_same(&exec, &container)) && agrees(mount, &exec::mount());
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
    mounted: impl Iterator<Item = Mounted<'a>>,
    wanted: &[Wanted<'_>],
    present: &Present<'_>,
    doubts: &mut Doubts,
) -> Result<(), Denial> {
    for mounted in mounted {
        let there = segments(mounted.at);
        let room = present.room(&mounted, &there);
        let Mounted { at, volume, .. } = mounted;
        for wanted in wanted.iter().filter(|wanted| wanted.volume != volume) {
            let Some(meeting) = met(&wanted.segments, &there, room) else {
                continue;
            };
            let (path, what) = (wanted.path.to_owned(), wanted.what.clone());
            let (volume, at) = (volume.to_owned(), at.to_owned());
            match meeting {
                Meeting::Certain => {
                    return Err(Denial::MountTaken {
                        container: reader.name().to_owned(),
                        volume,
                        at,
                        what,
                        path,
                    });
                }
                Meeting::ByContent => doubts.add(Doubt::ReadOnly { volume, at, what, path }, reader.name()),
                Meeting::ByLink => doubts.add(Doubt::Linked { at, what, path }, reader.name()),
            }
        }
    }
    Ok(())
}

/// How a mount is in the way of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Certain,
    /// Unless the volume has a directory for ours.
    ByContent,
    /// Where the image has the link.
    ByLink,
}

fn met(ours: &[&str], there: &[&str], room: Room) -> Option<Meeting> {
    let is_around = there.starts_with(ours);
    let is_within = ours.starts_with(there);
    if is_around || is_within && room == Room::None {
        return Some(Meeting::Certain);
    }
    if is_within && room == Room::Unknown {
        return Some(Meeting::ByContent);
    }
    let (ours, there) = (linked(ours), linked(there));
    let meets = there.starts_with(ours) || ours.starts_with(there) && room != Room::Made;
    meets.then_some(Meeting::ByLink)
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
