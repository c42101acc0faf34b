//! What of a pod comes from an injection before this one: in the same admission, where another webhook has changed the pod
//! since, or into the pod that this one is a copy of. The request does not tell which, so both are treated alike: what the
//! plan of today has stays where it is, and the rest goes.

use std::collections::BTreeSet;

use sealpod_core::injection::{CONTAINER_VARIABLE, SETTINGS_VARIABLE};
use sealpod_core::kubernetes::{KEY_SECRET_SUFFIX, annotations};
use serde_json::Value;

use super::pod::{Container, Pod, text};
use super::{containers, exec, plan};

#[derive(Debug)]
pub struct Earlier<'a> {
    happened: bool,
    /// Volumes that have a name like ours, and are not.
    foreign: BTreeSet<&'a str>,
}

impl<'a> Earlier<'a> {
    pub fn of(pod: Pod<'a>) -> Self {
        let named = pod.volumes().iter().filter(|volume| !is_of_our_kind(volume));
        Self {
            happened: pod.annotation(annotations::INJECTED).is_some(),
            foreign: named
                .filter_map(|volume| text(volume, "name"))
                .filter(|name| is_name(name))
                .collect(),
        }
    }

    pub fn has_container(&self, container: &Container<'_>) -> bool {
        self.happened && plan::is_ours(container.name()) && container.variable(SETTINGS_VARIABLE).is_some()
    }

    /// Whether what is mounted under this name is a volume of ours.
    pub fn has_volume(&self, name: &str) -> bool {
        self.happened && is_name(name) && !self.foreign.contains(name)
    }

    /// Whether this is the variable of a container that gets signals.
    pub fn has_variable(&self, container: &Container<'_>, variable: &Value) -> bool {
        self.happened
            && text(variable, "name") == Some(CONTAINER_VARIABLE)
            && text(variable, "value") == Some(container.name())
    }
}

fn is_name(volume: &str) -> bool {
    volume == exec::VOLUME || containers::is_volume_name(volume)
}

fn is_of_our_kind(volume: &Value) -> bool {
    let is_key = |name: &str| name.ends_with(KEY_SECRET_SUFFIX);
    let secret = volume.get("secret").and_then(|secret| text(secret, "secretName"));
    volume.get("emptyDir").is_some_and(Value::is_object) || secret.is_some_and(is_key)
}

/// Whether `present` is `wanted`, but for what the API server fills in.
pub fn agrees(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            let is_there = |(key, value): (&String, &Value)| present.get(key).is_some_and(|there| agrees(there, value));
            let is_filled_in = |(key, value): (&String, &Value)| wanted.contains_key(key) || is_default(key, value);
            wanted.iter().all(is_there) && present.iter().all(is_filled_in)
        }
        (Value::Array(present), Value::Array(wanted)) => {
            present.len() == wanted.len()
                && present
                    .iter()
                    .zip(wanted)
                    .all(|(present, wanted)| agrees(present, wanted))
        }
        _ => present == wanted,
    }
}

/// What a member means that was not written, in the probes, variables, mounts and volumes that we make.
fn is_default(key: &str, value: &Value) -> bool {
    match key {
        "apiVersion" => value == "v1",
        "scheme" => value == "HTTP",
        "successThreshold" => value == 1,
        "readOnly" | "optional" => value == false,
        _ => value.is_null(),
    }
}
