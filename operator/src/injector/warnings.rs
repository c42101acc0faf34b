//! What is told to the person who makes a pod, beside admitting it. kubectl prints it; nothing is decided by it.

use std::fmt::Write as _;

use jiff::Timestamp;
use sealpod_core::kubernetes::{GROUP, INJECT_LABEL, SHARED_GID, annotations};
use sealpod_crds::NextChange;

use super::Settings;
use super::denial::{Quoted, nearest};
use super::mesh;
use super::plan::Shape;
use super::pod::{Container, List, Pod};
use super::select::{Binding, Change, Files, NotReady, Turn, Unavailable};

/// The API server cuts a warning behind this many bytes.
pub const MOST_BYTES: usize = 256;

/// Annotations that are told to have no effect.
const UNKNOWN: usize = 16;

/// The most important first: of many, the last are cut off. Last of all belongs [`without_meaning`].
pub fn of(pod: Pod<'_>, chosen: &[&Binding], shape: Shape, settings: &Settings, now: Timestamp) -> Vec<String> {
    let mut warnings = Vec::new();
    for binding in chosen {
        warnings.extend(binding.not_ready.as_ref().map(|told| not_ready(&binding.name, told)));
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
    warnings.extend(readable_keys(pod, chosen, shape));
    warnings
}

/// Of containers that the annotation names although they run before there are any files.
pub fn too_early(pod: Pod<'_>, place: usize, readers: &[Container<'_>]) -> impl Iterator<Item = String> {
    let named = pod.annotation(annotations::CONTAINERS).is_some();
    let is_reader =
        move |container: &Container<'_>| named && readers.iter().any(|reader| reader.name() == container.name());
    mesh::before(pod, place).filter(is_reader).map(|container| {
        format!(
            "{} names {}, which runs before Sealpod's own and finds an empty directory{}",
            annotations::CONTAINERS,
            Quoted(container.name()),
            if container.stays() { " at first" } else { "" }
        )
    })
}

/// Of annotations that have no effect.
pub fn without_meaning(pod: Pod<'_>) -> impl Iterator<Item = String> {
    let unknown = pod.annotations().filter_map(|(key, _)| unknown_annotation(key));
    unknown.take(UNKNOWN)
}

/// In a shared process namespace, files of another container are reached by `/proc/<pid>/root`, for root and for whoever
/// has the same user and, as its own and not a supplementary one, the same group.
fn readable_keys(pod: Pod<'_>, chosen: &[&Binding], shape: Shape) -> Option<String> {
    if !pod.flag("shareProcessNamespace") {
        return None;
    }
    let mut signalled = chosen.iter().filter_map(|binding| binding.signals.as_deref());
    let what = match signalled.next().filter(|_| shape != Shape::Init) {
        Some(signalled) => format!(
            "shareProcessNamespace and onChange.signal, a container that runs as root, or as the user of container {} and with the group {SHARED_GID},",
            Quoted(signalled)
        ),
        None => "shareProcessNamespace, a container that runs as root".to_owned(),
    };
    Some(format!("with {what} may read the keys of this pod's SecretBindings"))
}

fn not_ready(binding: &str, told: &NotReady) -> String {
    let then = match told.files {
        Files::Delivered => "though its files are delivered",
        Files::Awaited => "and the pod waits until it is",
        Files::Unknown => "and the pod may have to wait until it is",
    };
    ending_in(
        format!("SecretBinding {} is not ready, {then}: ", Quoted(binding)),
        &told.why,
    )
}

/// `warning` and, in quotation marks, as much of what others wrote as fits behind it.
fn ending_in(mut warning: String, text: &str) -> String {
    const MORE: &str = "…";
    let room = MOST_BYTES.saturating_sub(warning.len() + "\"\"".len() + MORE.len());
    let mut taken = 0;
    let fits = |(_, c): &(usize, char)| {
        taken += c.escape_debug().map(char::len_utf8).sum::<usize>();
        taken <= room
    };
    let end = text.char_indices().take_while(fits).last();
    let end = end.map_or(0, |(at, c)| at + c.len_utf8());
    let more = if end < text.len() { MORE } else { "" };
    let _ = write!(warning, "{:?}{more}", &text[..end]);
    warning
}

/// A version that ends takes its file with it, unless another one begins.
fn changes_soon(binding: &Binding, now: Timestamp) -> Option<String> {
    let change = binding.changes.as_deref()?;
    let left = change.at.as_second().saturating_sub(now.as_second());
    let is_soon = (0..=NextChange::AHEAD.as_secs()).contains(&u64::try_from(left).ok()?);
    let of = |what: &str| {
        let (binding, at) = (Quoted(&binding.name), change.at);
        format!("SecretBinding {binding}: {what} at {at}, which is within an hour")
    };
    // As many as there is room for, because the time stands behind them.
    let named = (1..=change.secrets.len()).rev().map(|shown| of(&turns(change, shown)));
    let any = || of("a version of its secrets ends or begins");
    is_soon.then(|| {
        named
            .into_iter()
            .find(|text| text.len() <= MOST_BYTES)
            .unwrap_or_else(any)
    })
}

/// The first `shown` of them, and how many others there are.
fn turns(change: &Change, shown: usize) -> String {
    let mut text = String::new();
    for Turn { name, begins } in &change.secrets[..shown] {
        let (version, verb) = if *begins {
            ("a newer version of ", "begins")
        } else {
            ("", "ends")
        };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{version}{} {verb}", Quoted(name));
    }
    let more = change.more.saturating_add(change.secrets.len() - shown);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
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
    // Kubernetes takes it in other case too, as another annotation.
    let (_, name) = key
        .split_once('/')
        .filter(|(prefix, _)| prefix.eq_ignore_ascii_case(GROUP))?;
    let known = || annotations::FOR_USERS.iter().map(|annotation| annotation.name);
    if key == annotations::INJECTED || known().any(|known| known == key) {
        return None;
    }
    if key.eq_ignore_ascii_case(INJECT_LABEL) {
        return Some(format!("{INJECT_LABEL} is a label; as an annotation it has no effect"));
    }
    let short = |full: &'static str| full.rsplit('/').next().unwrap_or(full);
    let hint = match nearest(&name.to_ascii_lowercase(), known().map(short)) {
        Some(near) => format!("did you mean {GROUP}/{near}?"),
        None => format!("there are {}", known().map(short).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("unknown annotation {} has no effect; {hint}", Quoted(key)))
}

#[cfg(test)]
mod tests;
