//! What is told to the person who makes a pod, beside admitting it. kubectl prints it; nothing is decided by it.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use sealpod_core::kubernetes::{GROUP, INJECT_LABEL, SHARED_GID, annotations};

use super::Settings;
use super::denial::{Quoted, nearest};
use super::plan::Shape;
use super::pod::{List, Pod};
use super::select::{Binding, Unavailable};

/// A change that is nearer than this is told.
const SOON: Duration = Duration::from_hours(1);

/// Annotations that are told to have no effect.
const UNKNOWN: usize = 16;

/// All of them, the most important first: of many, the last are cut off.
pub fn of(pod: Pod<'_>, chosen: &[&Binding], shape: Shape, settings: &Settings, now: Timestamp) -> Vec<String> {
    let mut warnings: Vec<String> = pod
        .annotations()
        .filter_map(|(key, _)| unknown_annotation(key))
        .take(UNKNOWN)
        .collect();
    for binding in chosen {
        if let Some(reason) = &binding.not_ready {
            warnings.push(format!(
                "SecretBinding {} is not ready, and the pod waits until it is: {}",
                Quoted(&binding.name),
                Quoted(reason)
            ));
        }
        warnings.extend(changes_soon(binding, now));
        warnings.extend(binding.unavailable.iter().map(|secrets| unavailable(binding, secrets)));
    }
    if shape == Shape::Init && chosen.iter().any(|binding| binding.signals.is_some() || binding.calls) {
        warnings.push(format!(
            "{}: init leaves nothing in the pod that could tell it of a change, so onChange has no effect",
            annotations::MODE
        ));
    }
    if shape == Shape::Sidecar && !pod.runs_for_ever() {
        warnings.push(format!(
            "{}: sidecar keeps this pod from ever completing; auto or native would let it",
            annotations::MODE
        ));
    }
    if let Some(after) = pod.annotation(annotations::AFTER).map(str::trim)
        && !pod.containers(List::Init).any(|container| container.name() == after)
    {
        warnings.push(format!(
            "{}: there is no init container {}; unless another webhook still adds it, Sealpod's goes first",
            annotations::AFTER,
            Quoted(after)
        ));
    }
    if settings.server_is_a_service() && !pod.uses_cluster_dns() {
        warnings.push(
            "this pod does not ask the cluster's DNS, so Sealpod's server cannot be found and the pod waits for ever; \
             set dnsPolicy: ClusterFirstWithHostNet, or ClusterFirst without hostNetwork"
                .to_owned(),
        );
    }
    warnings.extend(readable_keys(pod, chosen));
    warnings
}

/// In a shared process namespace, files of another container are reached by `/proc/<pid>/root`, for root and for whoever
/// has the same user and, as its own and not a supplementary one, the same group.
fn readable_keys(pod: Pod<'_>, chosen: &[&Binding]) -> Option<String> {
    if !pod.flag("shareProcessNamespace") {
        return None;
    }
    let what = match chosen.iter().find_map(|binding| binding.signals.as_deref()) {
        Some(signalled) => format!(
            "shareProcessNamespace and onChange.signal, a container that runs as root, or as the user of container {} and with the group {SHARED_GID},",
            Quoted(signalled)
        ),
        None => "shareProcessNamespace, a container that runs as root".to_owned(),
    };
    Some(format!("with {what} may read the keys of this pod's SecretBindings"))
}

/// A version that ends takes its file with it, unless another one begins.
fn changes_soon(binding: &Binding, now: Timestamp) -> Option<String> {
    let at = binding.changes_at?;
    let left = at.as_second().saturating_sub(now.as_second());
    (0..=SOON.as_secs()).contains(&u64::try_from(left).ok()?).then(|| {
        format!(
            "SecretBinding {}: a version of its secrets ends or begins at {at}, which is within an hour",
            Quoted(&binding.name)
        )
    })
}

fn unavailable(binding: &Binding, secrets: &Unavailable) -> String {
    let Unavailable { state, names, more } = secrets;
    let mut list = String::new();
    for name in names {
        let _ = write!(list, "{}{}", if list.is_empty() { "" } else { ", " }, Quoted(name));
    }
    if *more > 0 {
        let _ = write!(list, " and {more} more");
    }
    let what = match *state {
        "Denied" => "its key may not read",
        "Inactive" => "no version is active now of",
        _ => "there is no value of",
    };
    format!("SecretBinding {}: {what} {list} ({state})", Quoted(&binding.name))
}

/// A warning where `key` has our prefix and no meaning.
fn unknown_annotation(key: &str) -> Option<String> {
    let name = key.strip_prefix(GROUP)?.strip_prefix('/')?;
    let known = || annotations::FOR_USERS.iter().map(|annotation| annotation.name);
    if key == annotations::INJECTED || known().any(|known| known == key) {
        return None;
    }
    if key == INJECT_LABEL {
        return Some(format!("{INJECT_LABEL} is a label; as an annotation it has no effect"));
    }
    let short = |full: &'static str| full.rsplit('/').next().unwrap_or(full);
    let hint = match nearest(name, known().map(short)) {
        Some(near) => format!("did you mean {GROUP}/{near}?"),
        None => format!("there are {}", known().map(short).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("unknown annotation {} has no effect; {hint}", Quoted(key)))
}

#[cfg(test)]
#[path = "warnings/tests.rs"]
mod tests;
