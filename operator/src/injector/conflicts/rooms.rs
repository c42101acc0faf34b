//! Whether what a container mounts has room for ours below it.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use serde_json::Value;

use super::super::pod::{Container, Pod, items, text};
use super::paths::segments;

/// Volume types that are always mounted read-only, and hold nothing but files of the API.
const FIXED_VOLUMES: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];
/// One that is always mounted read-only, and holds what its author has put into it.
const IMAGE_VOLUME: &str = "image";
/// One that is empty at first.
const EMPTY_VOLUME: &str = "emptyDir";

/// Whether a mount has a directory for ours to be mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The runtime makes it.
    Made,
    /// Read-only: only if somebody has made it.
    Unknown,
    /// Read-only, and of a kind in which its author can make none.
    None,
}

/// Of one volume, by whether it is mounted read-only.
#[derive(Debug, Clone, Copy)]
struct Rooms {
    writable: Room,
    read_only: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            writable: Room::Made,
            read_only: Room::Unknown,
        }
    }
}

/// What the pod has, of volumes and of places where they are written to.
pub struct Present<'a> {
    rooms: BTreeMap<&'a str, Rooms>,
    /// By hashes of volume and place: a pod may have very many, and of those that meet the worst is a warning.
    written: HashSet<u64>,
    hashes: RandomState,
}

impl<'a> Present<'a> {
    pub fn of(pod: Pod<'a>) -> Self {
        let hashes = RandomState::new();
        let mut written = HashSet::new();
        for container in pod.all_containers() {
            let mounts = mounted(&container).filter(|mounted| !mounted.is_read_only());
            written.extend(mounts.map(|mounted| hashes.hash_one((mounted.volume, segments(mounted.at)))));
        }
        Self {
            rooms: rooms(pod),
            written,
            hashes,
        }
    }

    pub fn room(&self, mounted: &Mounted<'_>, at: &[&str]) -> Room {
        let Rooms { writable, read_only } = self.rooms.get(mounted.volume).copied().unwrap_or_default();
        if !mounted.is_read_only() {
            return writable;
        }
        // Who has it at the same place for writing may have made ours there, if only by being given it before.
        let is_written = || self.written.contains(&self.hashes.hash_one((mounted.volume, at)));
        if (writable, read_only) == (Room::Made, Room::None) && is_written() {
            return Room::Unknown;
        }
        read_only
    }
}

/// A volume in a container, as files or as a block device.
pub struct Mounted<'a> {
    pub mount: &'a Value,
    pub at: &'a str,
    pub volume: &'a str,
}

impl Mounted<'_> {
    fn is_read_only(&self) -> bool {
        self.mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false)
    }
}

pub fn mounted<'a>(container: &Container<'a>) -> impl Iterator<Item = Mounted<'a>> + use<'a> {
    let of = |list: &'a [Value], path: &'static str| {
        list.iter().map(move |mount| Mounted {
            mount,
            at: text(mount, path).unwrap_or_default(),
            volume: text(mount, "name").unwrap_or_default(),
        })
    };
    of(container.mounts(), "mountPath").chain(of(items(container.raw, "volumeDevices"), "devicePath"))
}

/// The rooms of all volumes, by their names.
fn rooms(pod: Pod<'_>) -> BTreeMap<&str, Rooms> {
    let of = |volume: &Value| {
        let is = |kind: &str| volume.get(kind).is_some_and(|source| !source.is_null());
        let mut sources = volume.as_object().into_iter().flatten();
        let read_only = if is(EMPTY_VOLUME) { Room::None } else { Room::Unknown };
        let (writable, read_only) = if FIXED_VOLUMES.into_iter().any(is) {
            (Room::None, Room::None)
        } else if is(IMAGE_VOLUME) || sources.any(|(_, source)| source.get("readOnly") == Some(&Value::Bool(true))) {
            (read_only, read_only)
        } else {
            (Room::Made, read_only)
        };
        Rooms { writable, read_only }
    };
    let all = pod.volumes().iter();
    all.filter_map(|volume| Some((text(volume, "name")?, of(volume))))
        .collect()
}
