//! The task that rolls out: one binding at a time, so that no wave of changes is a storm of writes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use sealpod_core::kubernetes::{BINDING_UID_LABEL, ROLLED_OUT_FOR, key_secret_name};
use sealpod_crds::SecretBinding;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Job;
use super::evaluate::{Changes, State, Uses, annotation, injected};
use super::workloads::{KINDS, Workload, WorkloadKind};
use crate::controller::binding::native::{self, Held};
use crate::controller::context::Context;
use crate::controller::error::{Error, describe};
use crate::controller::kept::Kept;
use crate::controller::kind::{is_paused, name};
use crate::controller::verdict::reasons;
use crate::injector::Binding;

/// Of the annotation that says for which versions workloads were rolled out; the Secret's other fields are another's.
const MANAGER: &str = "sealpod-operator/restarts";

/// Rolls out what is due, for ever.
pub async fn run(context: Arc<Context>) {
    loop {
        match context.restarts.next(Instant::now()) {
            Ok(job) => turn(&job, &context).await,
            Err(due) => {
                let wait = async {
                    match due {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = wait => {}
                    () = context.restarts.changed.notified() => {}
                }
            }
        }
    }
}

/// Whether the owner of a binding wants its workloads to be touched now.
enum Wish {
    Go,
    Paused,
    Gone,
}

fn wish(job: &Job, context: &Context) -> Wish {
    let reference = ObjectRef::new(&job.binding.name_any()).within(&job.namespace);
    let now = context.bindings.get(&reference);
    match now.filter(|now| now.uid().as_ref() == Some(&job.uid) && now.meta().deletion_timestamp.is_none()) {
        None => Wish::Gone,
        Some(now) if is_paused(now.as_ref()) => Wish::Paused,
        Some(_) => Wish::Go,
    }
}

/// One look, unless the binding is paused or gone by now.
pub(super) async fn turn(job: &Arc<Job>, context: &Context) {
    let restarts = &context.restarts;
    match wish(job, context) {
        Wish::Gone => restarts.forget(&job.uid),
        Wish::Paused => restarts.hold(job, Instant::now()),
        Wish::Go => {
            let result = handle(job, context).await;
            if let Err(error) = &result {
                tracing::warn!(binding = %name(&job.binding), %error, "rolling out");
            }
            restarts.done(job, result.is_ok(), Instant::now());
        }
    }
}

/// In this order: the record of last time, the workloads, the record of this time.
pub(super) async fn handle(job: &Job, context: &Context) -> Result<(), Error> {
    let Some(held) = key_secret(&job.binding, context).await? else {
        // It comes back with the next look at the binding.
        return Err(Error::NotNow(
            "the key Secret is gone, on which stands what workloads were rolled out for",
        ));
    };
    let recorded = record_on(&held);
    // A Secret that was made again, or whose record somebody has taken off.
    let followed = context.restarts.followed(&job.uid);
    let before = recorded.as_ref().or(followed.as_deref());
    let state = now(job, before);
    let changes = before.map(|before| state.since(before)).unwrap_or_default();
    if !changes.is_empty() {
        roll_out(job, &state, &changes, context).await?;
    }
    if recorded.as_ref() != Some(&state) {
        record(job, held.metadata.uid.as_deref(), &state, context).await?;
    }
    context.restarts.follow(&job.uid, state);
    Ok(())
}

/// What the workloads of a binding were last rolled out for, if that is known.
pub async fn recorded(binding: &SecretBinding, context: &Context) -> Result<Option<State>, Error> {
    Ok(key_secret(binding, context).await?.as_ref().and_then(record_on))
}

/// The metadata of the key Secret, if it is this binding's.
async fn key_secret(binding: &SecretBinding, context: &Context) -> Result<Option<Held>, Error> {
    let (namespace, uid) = (
        binding.namespace().unwrap_or_default(),
        binding.uid().unwrap_or_default(),
    );
    let held = native::read_metadata(&context.kube, &namespace, &key_secret_name(&binding.name_any())).await;
    let held = held.map_err(Error::kubernetes("reading the metadata of the key Secret"))?;
    Ok(held.filter(|held| held.label(BINDING_UID_LABEL) == Some(&uid)))
}

fn record_on(held: &Held) -> Option<State> {
    serde_json::from_str(held.annotation(ROLLED_OUT_FOR)?).ok()
}

/// What may not be read just now is as it was: rights that go and come again change no value. So is a copy that could
/// not be written: once it is, it has changed since the one that pods have.
fn now(job: &Job, before: Option<&State>) -> State {
    let mut state = job.state.clone();
    let Some(before) = before else { return state };
    for name in &job.denied {
        if let Some(version) = before.versions.get(name) {
            state.versions.entry(name.clone()).or_insert(*version);
        }
    }
    if job.binding.spec.kubernetes_secret.is_some() && state.copy.is_none() {
        state.copy.clone_from(&before.copy);
    }
    state
}

/// All that use what has changed. One that fails stops no other, and all are tried again.
async fn roll_out(job: &Job, state: &State, changes: &Changes, context: &Context) -> Result<(), Error> {
    let bindings = context
        .bindings
        .state_filter(|b| b.namespace().as_deref() == Some(&job.namespace));
    let mut bindings: Vec<Arc<Binding>> = bindings.iter().map(|b| Arc::new(injected(&b.open().0))).collect();
    bindings.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let name = job.binding.name_any();
    let (annotation, secret) = (annotation(&name), state.copy.as_ref().map(|copy| copy.secret.as_str()));
    let mut failed = None;
    for kind in KINDS {
        let mut after = None;
        loop {
            let page = kind.page(&context.kube, &job.namespace, after).await;
            let (workloads, next) = match page {
                Ok(page) => page,
                Err(error) => {
                    let what = format!("{}s cannot be listed: {}", kind.kind, describe(&error));
                    tell_failure(context, &[&job.binding.object_ref(&())], &what).await;
                    failed = Some(Error::kubernetes("listing workloads")(error));
                    break;
                }
            };
            for workload in workloads {
                if !matches!(wish(job, context), Wish::Go) {
                    return Err(Error::NotNow("the binding was paused or deleted in the meantime"));
                }
                let uses = Uses::of(&workload.spec.template, &job.namespace, &name, &bindings, secret);
                let moved = uses.changed(changes);
                if workload.is_going() || moved.is_empty() {
                    continue;
                }
                let mark = uses.mark(state);
                if workload.mark(&annotation) == Some(&mark) {
                    continue;
                }
                let result = one(job, kind, &workload, &annotation, &mark, &moved, context).await;
                failed = result.err().or(failed);
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn one(
    job: &Job,
    kind: WorkloadKind,
    workload: &Workload,
    annotation: &str,
    mark: &str,
    changes: &Changes,
    context: &Context,
) -> Result<(), Error> {
    let binding = job.binding.name_any();
    let reference = kind.reference(&job.namespace, workload);
    let annotated = kind
        .annotate(&context.kube, &job.namespace, workload, annotation, mark)
        .await;
    context.metrics.rolled_out(kind.kind, annotated.is_ok());
    if let Err(error) = annotated {
        let what = format!(
            "{} {} cannot be rolled out for SecretBinding {binding}; trying again: {}",
            kind.kind,
            workload.metadata.name,
            describe(&error)
        );
        tell_failure(context, &[&reference, &job.binding.object_ref(&())], &what).await;
        return Err(Error::kubernetes("rolling out a workload")(error));
    }
    let waits = workload.waits_for().map(|why| format!("; {why}")).unwrap_or_default();
    let what = format!(
        "{} of SecretBinding {binding} changed: its pods are replaced{waits}",
        changes.named()
    );
    tracing::info!(
        kind = kind.kind,
        workload = workload.metadata.name,
        namespace = job.namespace,
        binding,
        "rolled out"
    );
    tell(context, &reference, EventType::Normal, reasons::ROLLED_OUT, &what).await;
    Ok(())
}

async fn record(job: &Job, uid: Option<&str>, state: &State, context: &Context) -> Result<(), Error> {
    let secret = key_secret_name(&job.binding.name_any());
    let json = serde_json::to_string(state).expect("names and numbers are plain data");
    let document = json!({
        "apiVersion": "v1", "kind": "Secret",
        // With the UID, none is made, and none that was made again is taken for this one.
        "metadata": {"name": secret, "namespace": job.namespace, "uid": uid, "annotations": {ROLLED_OUT_FOR: json}},
    });
    let path = Secret::url_path(&(), Some(&job.namespace));
    let parameters = PatchParams::apply(MANAGER).force();
    let request = Request::new(path).patch_metadata(&secret, &parameters, &Patch::Apply(&document));
    let request =
        request.map_err(|error| Error::kubernetes("recording the versions")(kube::Error::BuildRequest(error)))?;
    let written = context.kube.request_text(request).await;
    written.map(|_| ()).map_err(Error::kubernetes(
        "recording the versions that workloads were rolled out for",
    ))
}

async fn tell_failure(context: &Context, about: &[&ObjectReference], what: &str) {
    for object in about {
        tell(context, object, EventType::Warning, reasons::ROLLOUT_FAILED, what).await;
    }
}

/// An event is best effort.
async fn tell(context: &Context, about: &ObjectReference, type_: EventType, reason: &str, note: &str) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(crate::controller::conditions::shorten(note, 1_000).to_owned()),
        action: "RollOut".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, about).await {
        tracing::debug!(error = describe(&error), "an event could not be published");
    }
}
