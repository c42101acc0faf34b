//! From a plan to JSON-Patch operations on the raw pod: `add` only on a pod that comes for the first time. Of one that was
//! injected before, `remove` takes what today's plan has no more; what of ours is there and right stays as it is, so a second
//! injection yields nothing, and what other webhooks added to our containers stays.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use sealpod_core::kubernetes::SHARED_GID;
use serde_json::{Value, json};

use super::completed::completed;
use super::earlier::{Earlier, agrees};
use super::plan::{Additions, Ours, Plan, is_ours, name_of};
use super::pod::{Container, List, Pod, items, text};

/// What makes `pod` agree with `plan`; empty where it does already.
///
/// The order matters, because operations apply one after the other: the user's containers first, by their places in
/// the pod as it came; then ours, of which at most one moves in its list. Within a list, removals go from its end.
pub fn operations(pod: Pod<'_>, plan: &Plan) -> Vec<PatchOperation> {
    let mut patch = Patch::default();
    let earlier = Earlier::of(pod);
    annotations(&mut patch, pod, plan);
    let kept = |volume: &Value| {
        !earlier.has_volume(name_of(volume)) || plan.volumes.iter().any(|wanted| agrees(volume, wanted))
    };
    patch.list(
        &["spec", "volumes"],
        pod.spec().get("volumes"),
        kept,
        "name",
        &plan.volumes,
    );
    supplemental_group(&mut patch, pod);
    let all: BTreeMap<_, _> = plan.containers.iter().map(|all| ((all.list, all.index), all)).collect();
    for container in pod.all_containers().filter(|container| !is_ours(container.name())) {
        let wanted = all.get(&(container.list, container.index)).copied();
        complete(&mut patch, &earlier, &container, wanted);
    }
    for list in List::ALL {
        place(
            &mut patch,
            &earlier,
            pod,
            list,
            plan.ours.iter().find(|ours| ours.list == list),
        );
    }
    patch.0
}

#[derive(Default)]
struct Patch(Vec<PatchOperation>);

impl Patch {
    fn add<'t>(&mut self, path: impl IntoIterator<Item = &'t str>, value: Value) {
        // Tokens, not text: `/` and `~` in a key are escaped on the way.
        let path = PointerBuf::from_tokens(path);
        self.0.push(PatchOperation::Add(AddOperation { path, value }));
    }

    fn remove<'t>(&mut self, path: impl IntoIterator<Item = &'t str>) {
        let path = PointerBuf::from_tokens(path);
        self.0.push(PatchOperation::Remove(RemoveOperation { path }));
    }

    /// Takes out of a list what is not `kept`, and appends what of `wanted` has no counterpart with the same `key` then.
    fn list(
        &mut self,
        path: &[&str],
        present: Option<&Value>,
        kept: impl Fn(&Value) -> bool,
        key: &str,
        wanted: &[Value],
    ) {
        let all = present.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (stay, go): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(_, value)| kept(value));
        for (index, _) in go.into_iter().rev() {
            self.remove(path.iter().copied().chain([index.to_string().as_str()]));
        }
        let is_there = |value: &Value| stay.iter().any(|(_, other)| text(other, key) == text(value, key));
        let new = wanted.iter().filter(|value| !is_there(value)).cloned().collect();
        self.extend_list(path, present, new);
    }

    /// Appends to a list, which is made first where it is absent or null.
    fn extend_list(&mut self, path: &[&str], present: Option<&Value>, new: Vec<Value>) {
        if new.is_empty() {
            return;
        }
        if present.is_some_and(Value::is_array) {
            for value in new {
                self.add(path.iter().copied().chain(["-"]), value);
            }
        } else {
            self.add(path.iter().copied(), Value::Array(new));
        }
    }
}

fn annotations(patch: &mut Patch, pod: Pod<'_>, plan: &Plan) {
    let present = pod.0.get("metadata").and_then(|metadata| metadata.get("annotations"));
    if !present.is_some_and(Value::is_object) {
        patch.add(["metadata", "annotations"], json!({}));
    }
    for (key, value) in &plan.annotations {
        if pod.annotation(key) != Some(value) {
            patch.add(["metadata", "annotations", key], json!(value));
        }
    }
}

fn supplemental_group(patch: &mut Patch, pod: Pod<'_>) {
    let context = pod.spec().get("securityContext").filter(|context| context.is_object());
    let Some(context) = context else {
        patch.add(["spec", "securityContext"], json!({"supplementalGroups": [SHARED_GID]}));
        return;
    };
    let is_there = items(context, "supplementalGroups")
        .iter()
        .any(|group| group.as_i64() == Some(SHARED_GID));
    let new = if is_there { vec![] } else { vec![json!(SHARED_GID)] };
    patch.extend_list(
        &["spec", "securityContext", "supplementalGroups"],
        context.get("supplementalGroups"),
        new,
    );
}

/// Gives a container of the user's what it lacks, and takes what an earlier plan gave it and today's does not.
fn complete(patch: &mut Patch, earlier: &Earlier<'_>, container: &Container<'_>, wanted: Option<&Additions>) {
    let (mounts, env) = wanted.map_or((&[][..], &[][..]), |wanted| (&wanted.mounts, &wanted.env));
    let index = container.index.to_string();
    let at = |field| ["spec", container.list.field(), &index, field];
    let is_kept_mount =
        |mount: &Value| !earlier.has_volume(name_of(mount)) || mounts.iter().any(|wanted| agrees(mount, wanted));
    let is_kept_variable = |variable: &Value| !env.is_empty() || !earlier.has_variable(container, variable);
    let is_kept_device = |device: &Value| !earlier.has_volume(name_of(device));
    let of = |field| container.raw.get(field);
    patch.list(
        &at("volumeMounts"),
        of("volumeMounts"),
        is_kept_mount,
        "mountPath",
        mounts,
    );
    patch.list(&at("env"), of("env"), is_kept_variable, "name", env);
    patch.list(&at("volumeDevices"), of("volumeDevices"), is_kept_device, "name", &[]);
}

/// Puts our container into a list, or completes the one that is there. Where it is in another place, or others of ours
/// are, they go and it is put in anew.
fn place(patch: &mut Patch, earlier: &Earlier<'_>, pod: Pod<'_>, list: List, wanted: Option<&Ours>) {
    let present: Vec<_> = pod.containers(list).filter(|c| is_ours(c.name())).collect();
    let same = wanted.and_then(|wanted| present.iter().find(|c| c.name() == name_of(&wanted.container)));
    let whole = wanted.map(|wanted| match same {
        Some(same) => completed(same.raw, wanted, earlier),
        None => wanted.container.clone(),
    });
    if let (Some(wanted), Some(same), [_]) = (wanted, same, present.as_slice()) {
        let others_before = pod
            .containers(list)
            .take(same.index)
            .filter(|c| !is_ours(c.name()))
            .count();
        if list == List::Regular || others_before == wanted.place {
            return fields(patch, same, whole.as_ref().unwrap_or(same.raw));
        }
    }
    for container in present.iter().rev() {
        patch.remove(["spec", list.field(), &container.index.to_string()]);
    }
    if let (Some(wanted), Some(whole)) = (wanted, whole) {
        insert(patch, pod, wanted, whole);
    }
}

/// Makes a container of ours that stays where it is agree with `whole`.
fn fields(patch: &mut Patch, present: &Container<'_>, whole: &Value) {
    let index = present.index.to_string();
    for (field, value) in whole.as_object().into_iter().flatten() {
        if present.raw.get(field) != Some(value) {
            // `add` to a member that exists replaces it.
            patch.add(["spec", present.list.field(), &index, field], value.clone());
        }
    }
    for (field, _) in present.raw.as_object().into_iter().flatten() {
        if whole.get(field).is_none() {
            patch.remove(["spec", present.list.field(), &index, field]);
        }
    }
}

/// Adds a container of ours to its list, which by then holds only others.
fn insert(patch: &mut Patch, pod: Pod<'_>, ours: &Ours, container: Value) {
    let list = ours.list.field();
    match (pod.spec().get(list).is_some_and(Value::is_array), ours.list) {
        (false, _) => patch.add(["spec", list], json!([container])),
        (true, List::Init) => patch.add(["spec", list, &ours.place.to_string()], container),
        (true, List::Regular) => patch.add(["spec", list, "-"], container),
    }
}

#[cfg(test)]
mod tests;
