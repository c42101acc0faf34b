//! What people and programs see of an object: its status, and an event for each transition.

use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, ResourceExt};
use sealpod_core::kubernetes::FIELD_MANAGER;
use serde_json::json;

use super::conditions::{self, READY, STALLED, Status, Wanted, shorten};
use super::context::Context;
use super::error::{self, Class, Error};
use super::kind::{Kind, StatusOf, name};
use super::verdict::reasons;
use crate::tolerant::Tolerant;

/// Failures in a row after which an object that was ready no longer counts as such.
const FAILURES_SHOWN: u32 = 4;
/// Limit of the Kubernetes API for an event's note, in bytes.
const MAX_NOTE: usize = 1_000;

/// Adds the condition by which tools that know kstatus stop waiting: only an edit helps. One that has shown it once
/// keeps it, as `False`: a condition that is left out of a status might be another manager's and stay.
pub fn say_whether_stalled<K: Kind>(object: &K, conditions: &mut Vec<Wanted>, stalled: bool) {
    let Some(ready) = conditions.iter().find(|c| c.kind == READY) else {
        return;
    };
    let shown = object.status().map(StatusOf::conditions).unwrap_or_default();
    if stalled && ready.status != Status::True {
        conditions.push(Wanted::new(STALLED, Status::True, ready.reason, ready.message.clone()));
    } else if conditions::find(shown, STALLED).is_some() {
        conditions.push(Wanted::new(
            STALLED,
            Status::False,
            reasons::PROGRESSING,
            "nothing has to be edited",
        ));
    }
}

/// Puts a failure into the conditions. One that may pass by itself says nothing about an object that was ready, until
/// it has not passed for a while; and then not that the object is not ready, only that nobody knows.
pub async fn failure<K: Kind>(api: &Api<Tolerant<K>>, object: &K, error: &Error, context: &Context) {
    let old = object.status().cloned().unwrap_or_default();
    let was_ready = conditions::find(old.conditions(), READY).is_some_and(|c| c.status == Status::True.as_str());
    let lasting = matches!(error, Error::Later { .. })
        || context.retries.count(&object.uid().unwrap_or_default()) + 1 >= FAILURES_SHOWN;
    let (reason, message) = error.summary();
    let wanted = match error.class() {
        Class::Permanent => Wanted::new(READY, Status::False, reason, message),
        Class::Transient if !was_ready || lasting => Wanted::new(READY, Status::Unknown, reason, message),
        Class::Transient => return,
    };
    let mut wanted = vec![wanted];
    say_whether_stalled(object, &mut wanted, error.class() == Class::Permanent);
    if let Err(error) = write_status(api, object, old, &wanted, context).await {
        tracing::debug!(%error, "the failure could not be shown in the status");
    }
}

/// Writes the status if it differs, and tells of a change of `Ready` by an event. Conditions that are not in `wanted`
/// stay as they are in `status`.
pub async fn write_status<K: Kind>(
    api: &Api<Tolerant<K>>,
    object: &K,
    mut status: K::Status,
    wanted: &[Wanted],
    context: &Context,
) -> Result<(), Error> {
    let old = object.status();
    let shown = old.map(StatusOf::conditions).unwrap_or_default();
    let generation = object.meta().generation;
    let mut merged = conditions::merge(shown, wanted, generation, Timestamp::now());
    merged.extend(
        status
            .conditions()
            .iter()
            .filter(|c| !wanted.iter().any(|w| w.kind == c.type_))
            .cloned(),
    );
    status.set(merged, generation);
    context.metrics.shows(K::NAME, &name(object), wanted);
    if old.is_some_and(|old| shows(old, &status)) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With the UID, a status never lands on an object that was made again under the same name.
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": status,
    });
    context.echoes.writes_status(&object.uid().unwrap_or_default(), &status);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let written = api
        .patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    written.map_err(Error::kubernetes("writing the status"))?;
    let ready = |conditions| conditions::find(conditions, READY).map(|c| (c.status.clone(), c.reason.clone()));
    if ready(shown) != ready(status.conditions())
        && let Some(now) = conditions::find(status.conditions(), READY)
    {
        // A pause is somebody's wish.
        let kind = if now.status == Status::True.as_str() || now.reason == reasons::PAUSED {
            EventType::Normal
        } else {
            EventType::Warning
        };
        publish(object, context, kind, &now.reason, &now.message).await;
    }
    Ok(())
}

/// Whether `old` is what `new` says. Conditions that other controllers have added to it are none of ours, and the order
/// of all means nothing.
fn shows<S: StatusOf>(old: &S, new: &S) -> bool {
    let normal = |status: &S| {
        let mut status = status.clone();
        let conditions = status.conditions_mut();
        conditions.retain(|c| conditions::find(new.conditions(), &c.type_).is_some());
        conditions.sort_unstable_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    normal(old) == normal(new)
}

/// An event is best effort: a namespace that goes takes none any more.
pub async fn publish<K: Kind>(object: &K, context: &Context, type_: EventType, reason: &str, note: &str) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(shorten(note, MAX_NOTE).to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(failed) = context.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::debug!(error = error::describe(&failed), "an event could not be published");
    }
}

/// Tells that an object goes without having been cleaned up after.
pub async fn left_behind<K: Kind>(object: &K, context: &Context, note: &str) {
    publish(
        object,
        context,
        EventType::Warning,
        reasons::SERVER_NOT_CLEANED_UP,
        note,
    )
    .await;
}

/// Tells what was made, put back or taken away. On the object that wanted it, so that nobody has to guess who did it.
pub async fn applied<K: Kind>(object: &K, context: &Context, story: Option<String>) {
    if let Some(story) = story {
        tracing::info!(kind = K::NAME, object = %name(object), story, "changed the server");
        publish(object, context, EventType::Normal, reasons::APPLIED, &story).await;
    }
}
