//! What of a pod stands in the way of ours. Checked before anything is added, so that the message names the cause and
//! not, as the API server's would, a field that the user never wrote.

use sealpod_core::injection::SETTINGS_VARIABLE;
use sealpod_core::kubernetes::annotations;
use serde_json::Value;

use super::containers::Delivery;
use super::denial::Denial;
use super::plan::is_ours;
use super::pod::{Container, List, Pod, text};

/// Volume types that are always mounted read-only, so that no directory for ours can be made in them.
const READ_ONLY_VOLUMES: [&str; 4] = ["secret", "configMap", "projected", "downwardAPI"];

/// Refuses names and paths that are taken. `expected` are our containers; those of an earlier injection are no conflict.
pub fn check(
    pod: Pod<'_>,
    expected: &[(List, &str)],
    deliveries: &[Delivery],
    readers: &[Container<'_>],
) -> Result<(), Denial> {
    containers(pod, expected)?;
    volumes(pod, deliveries)?;
    paths(deliveries)?;
    readers.iter().try_for_each(|reader| mounts(pod, reader, deliveries))
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

fn volumes(pod: Pod<'_>, deliveries: &[Delivery]) -> Result<(), Denial> {
    for wanted in deliveries.iter().flat_map(Delivery::volumes) {
        let name = text(&wanted, "name").unwrap_or_default();
        let Some(present) = pod.volume(name) else { continue };
        let same = |pointer: &str| present.pointer(pointer) == wanted.pointer(pointer);
        // Of a volume of ours, what makes it ours; the API server adds defaults to the rest.
        if !was_injected(pod) || !same("/emptyDir/medium") || !same("/secret/secretName") {
            return Err(Denial::VolumeNameTaken {
                volume: name.to_owned(),
            });
        }
    }
    Ok(())
}

/// Directories of our own containers: no two may be one, or lie in each other.
fn paths(deliveries: &[Delivery]) -> Result<(), Denial> {
    let directories: Vec<(&str, String)> = deliveries
        .iter()
        .flat_map(|delivery| {
            [delivery.mount_path.clone(), delivery.credentials()].map(|path| (&*delivery.binding, path))
        })
        .collect();
    for (at, (one, one_path)) in directories.iter().enumerate() {
        for (other, other_path) in &directories[at + 1..] {
            if contains(one_path, other_path) || contains(other_path, one_path) {
                return Err(Denial::PathsMeet {
                    one: (*one).to_owned(),
                    one_path: one_path.clone(),
                    other: (*other).to_owned(),
                    other_path: other_path.clone(),
                });
            }
        }
    }
    Ok(())
}

/// The mounts that a container of the user's already has. One in ours, or ours in a read-only one, would keep the
/// container from starting: the directory to mount on cannot be made.
fn mounts(pod: Pod<'_>, reader: &Container<'_>, deliveries: &[Delivery]) -> Result<(), Denial> {
    for mount in reader.mounts() {
        let at = text(mount, "mountPath").unwrap_or_default();
        let volume = text(mount, "name").unwrap_or_default();
        for delivery in deliveries {
            let path = &delivery.mount_path;
            let below_it = contains(at, path) && !contains(path, at);
            let taken = contains(path, at) || (below_it && is_read_only(pod, mount, volume));
            if taken && volume != delivery.volume_name() {
                return Err(Denial::MountTaken {
                    container: reader.name().to_owned(),
                    volume: volume.to_owned(),
                    at: at.to_owned(),
                    binding: delivery.binding.clone(),
                    path: path.clone(),
                });
            }
        }
    }
    Ok(())
}

fn is_read_only(pod: Pod<'_>, mount: &Value, volume: &str) -> bool {
    mount.get("readOnly").and_then(Value::as_bool).unwrap_or(false)
        || pod
            .volume(volume)
            .is_some_and(|volume| READ_ONLY_VOLUMES.iter().any(|kind| volume.get(kind).is_some()))
}

/// Whether `inner` is `outer` or lies in it; `//` and `/./` mean nothing.
fn contains(outer: &str, inner: &str) -> bool {
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
