//! `sealpod.dev/exec`: the sidecar's own program in a container that reads its values from the environment.

use sealpod_core::injection::EXEC_MOUNT;
use sealpod_core::kubernetes::annotations;
use serde_json::{Value, json};

use super::denial::Denial;
use super::mesh;
use super::pod::{Container, Pod};

/// Name of the volume that the program is copied to.
pub const VOLUME: &str = "sealpod-exec";
/// Where our container that copies it has that volume.
pub const DIRECTORY: &str = "/var/run/sealpod-exec";
/// Several times the program's size: two copies are there while one replaces the other.
const SIZE_LIMIT: &str = "64Mi";

/// The container that the annotation names. It has to be one of `readers`, because the program reads their files, and
/// behind ours, which is at `place` among the other init containers: until then there is no program to be started by.
pub fn container<'a>(pod: Pod<'a>, readers: &[Container<'a>], place: usize) -> Result<Option<Container<'a>>, Denial> {
    let Some(name) = pod.annotation(annotations::EXEC).map(str::trim) else {
        return Ok(None);
    };
    if mesh::before(pod, place).any(|container| container.name() == name) {
        return Err(Denial::ExecTooEarly { name: name.to_owned() });
    }
    match readers.iter().find(|reader| reader.name() == name) {
        Some(reader) => Ok(Some(*reader)),
        None => Err(Denial::ExecContainer {
            name: name.to_owned(),
            known: readers.iter().map(|reader| reader.name().to_owned()).collect(),
        }),
    }
}

/// On the node's disk: there is no secret in it, and memory would be charged to whoever writes.
pub fn volume() -> Value {
    json!({"name": VOLUME, "emptyDir": {"sizeLimit": SIZE_LIMIT}})
}

/// In our container that copies the program.
pub fn own_mount() -> Value {
    json!({"name": VOLUME, "mountPath": DIRECTORY})
}

/// In the container that runs it.
pub fn mount() -> Value {
    json!({"name": VOLUME, "mountPath": EXEC_MOUNT, "readOnly": true})
}
