//! From a plan to JSON-Patch operations on the raw pod: `add` only, and one `remove` of our own init container where it
//! has to move. What is there already is left as it is, so a second injection yields nothing, and what other webhooks
//! changed in our containers stays.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use sealpod_core::injection::SETTINGS_VARIABLE;
use sealpod_core::kubernetes::SHARED_GID;
use serde_json::{Value, json};

use super::plan::{Additions, Ours, Plan, is_ours, name_of};
use super::pod::{Container, List, Pod, items, text};

/// What makes `pod` agree with `plan`; empty where it does already.
///
/// The order matters, because operations apply one after the other: the user's containers first, by their places in
/// the pod as it came; then ours, of which at most one moves in its list.
pub fn operations(pod: Pod<'_>, plan: &Plan) -> Vec<PatchOperation> {
    let mut patch = Patch::default();
    annotations(&mut patch, pod, plan);
    patch.extend_list(
        &["spec", "volumes"],
        pod.spec().get("volumes"),
        missing(pod.volumes(), &plan.volumes, "name"),
    );
    supplemental_group(&mut patch, pod);
    for additions in &plan.containers {
        if let Some(container) = pod.containers(additions.list).nth(additions.index) {
            add_missing(&mut patch, &container, additions);
        }
    }
    for ours in &plan.ours {
        place(&mut patch, pod, ours);
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

fn add_missing(patch: &mut Patch, container: &Container<'_>, additions: &Additions) {
    let index = additions.index.to_string();
    let lists = [
        ("volumeMounts", "mountPath", &additions.mounts),
        ("env", "name", &additions.env),
    ];
    for (field, key, wanted) in lists {
        let new = missing(items(container.raw, field), wanted, key);
        let at = ["spec", container.list.field(), &index, field];
        patch.extend_list(&at, container.raw.get(field), new);
    }
}

/// Puts one of our containers into its list, or moves the one that is there and gives it what it lacks.
fn place(patch: &mut Patch, pod: Pod<'_>, ours: &Ours) {
    let list = ours.list.field();
    let mut same_name = pod
        .containers(ours.list)
        .filter(|c| c.name() == name_of(&ours.container));
    let Some(present) = same_name.next() else {
        return insert(patch, pod, ours, ours.container.clone());
    };
    let index = present.index.to_string();
    let whole = completed(present.raw, &ours.container);
    let others_before = pod
        .containers(ours.list)
        .take(present.index)
        .filter(|c| !is_ours(c.name()))
        .count();
    if ours.list == List::Init && others_before != ours.place {
        patch.0.push(PatchOperation::Remove(RemoveOperation {
            path: PointerBuf::from_tokens(["spec", list, &index]),
        }));
        return insert(patch, pod, ours, whole);
    }
    for field in ["env", "volumeMounts", "securityContext"] {
        if let Some(value) = whole.get(field).filter(|value| present.raw.get(field) != Some(value)) {
            // `add` to a member that exists replaces it.
            patch.add(["spec", list, &index, field], value.clone());
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

/// A container of ours as it is, with the settings, the user and the mounts of `wanted`: the pod may be a copy from when its bindings
/// were others.
fn completed(present: &Value, wanted: &Value) -> Value {
    let mut whole = present.clone();
    let is_settings = |variable: &&Value| text(variable, "name") == Some(SETTINGS_VARIABLE);
    let settings = items(wanted, "env").iter().find(is_settings);
    let env = whole.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten();
    for variable in env.filter(|variable| is_settings(&&**variable)) {
        if let Some(settings) = settings {
            *variable = settings.clone();
        }
    }
    if let Some(user) = wanted.pointer("/securityContext/runAsUser")
        && let Some(context) = whole.get_mut("securityContext").and_then(Value::as_object_mut)
    {
        context.insert("runAsUser".to_owned(), user.clone());
    }
    let present = items(present, "volumeMounts");
    let mounts = present
        .iter()
        .cloned()
        .chain(missing(present, items(wanted, "volumeMounts"), "mountPath"));
    whole["volumeMounts"] = mounts.collect();
    whole
}

/// What of `wanted` has no counterpart with the same `key` in `present`.
fn missing(present: &[Value], wanted: &[Value], key: &str) -> Vec<Value> {
    let is_there = |value: &Value| present.iter().any(|other| text(other, key) == text(value, key));
    wanted.iter().filter(|value| !is_there(value)).cloned().collect()
}

#[cfg(test)]
#[path = "patch/tests.rs"]
mod tests;
