//! What the reconciliations of all kinds have in common: the finalizer, the status, events, and when to come again.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::{Api, Resource, ResourceExt};
use sealpod_core::kubernetes::{FIELD_MANAGER, FINALIZER, controls};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::conditions::{READY, Status, Wanted};
use super::context::Context;
use super::error::{Class, Error};
use super::kept::Kept;
use super::report;
use super::retries::Again;
use super::verdict::reasons;
use crate::tolerant::Tolerant;

/// How long and how often a deletion tries to clean up on the server before it lets the object go. Both have to be
/// used up: an operator that was itself away for an hour still tries.
const PATIENCE: Duration = Duration::from_mins(1);
const TRIES: u32 = 4;
/// After so many it lets go in any case: how long it took is by the clock of the Kubernetes API, which may be ahead of
/// ours. About two minutes.
const MOST_TRIES: u32 = 24;
/// Longest delay between two of these tries.
const DELETION_CAP: Duration = Duration::from_secs(10);

/// A kind that this controller brings to the server.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<Status: StatusOf>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    const NAME: &'static str;

    /// What the store of them keeps of each.
    type Kept: Kept<Self>;

    /// Makes the server as the object says.
    fn reconcile(object: &Self, context: &Context)
    -> impl Future<Output = Result<Outcome<Self::Status>, Error>> + Send;

    /// What cannot wait for the end of a pause, or for a write to the object: whoever owns it may not keep alive by
    /// either what others have ended.
    fn while_paused(_object: &Self, _context: &Context) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Drops what this process remembers of an object that it has let go, beside what it remembers of every kind.
    fn forget(_uid: &str, _context: &Context) {}

    /// Takes back what the object made on the server.
    fn clean_up(object: &Self, context: &Context) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A status with the fields that every kind has.
pub trait StatusOf: Clone + Debug + Default + PartialEq + Serialize + Send + Sync {
    fn conditions(&self) -> &[Condition];
    fn conditions_mut(&mut self) -> &mut Vec<Condition>;
    fn set(&mut self, conditions: Vec<Condition>, generation: Option<i64>);
}

macro_rules! status_of {
    ($($status:ty),*) => {$(
        impl StatusOf for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }

            fn conditions_mut(&mut self) -> &mut Vec<Condition> {
                &mut self.conditions
            }

            fn set(&mut self, conditions: Vec<Condition>, generation: Option<i64>) {
                self.conditions = conditions;
                self.observed_generation = generation;
            }
        }
    )*};
}

status_of!(
    sealpod_crds::ApplicationStatus,
    sealpod_crds::EnvironmentStatus,
    sealpod_crds::SecretBindingStatus
);

/// What a reconciliation found out.
#[derive(Debug)]
pub struct Outcome<S> {
    /// The status without its conditions.
    pub status: S,
    pub conditions: Vec<Wanted>,
    pub again: Again,
}

/// One reconciliation of any kind.
pub async fn reconcile<K: Kind>(object: Arc<K::Kept>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let object = object.open();
    let api: Api<Tolerant<K>> = Api::namespaced(context.kube.clone(), &object.namespace().unwrap_or_default());
    let result = match (is_paused(&object.0), is_deleted(&object.0)) {
        // Not even a finalizer is put on it.
        (true, false) => pause(&api, &object.0, &context).await,
        _ => bring(&api, Arc::clone(&object), &context).await,
    };
    let failed = result.as_ref().err().map(Error::reason);
    context.metrics.reconciled(K::NAME, failed, started.elapsed());
    if result.is_ok() {
        context.retries.succeeded(&row(&object.0));
        context.retries.succeeded(&object.uid().unwrap_or_default());
        if is_deleted(&object.0) {
            context.metrics.forget(K::NAME, &name(&object.0));
        }
    }
    result
}

/// Makes what the object says, or takes it back, under the protection of the finalizer.
async fn bring<K: Kind>(api: &Api<Tolerant<K>>, object: Arc<Tolerant<K>>, context: &Context) -> Result<Action, Error> {
    let new = !is_deleted(&object.0) && !object.finalizers().iter().any(|f| f == FINALIZER);
    // Added here and not by the helper, which would wait for the event of it before anything is done.
    let object = if new {
        match with_finalizer(api, &object).await {
            Ok(object) => Arc::new(object),
            Err(error) => {
                K::while_paused(&object.0, context).await?;
                return Err(error);
            }
        }
    } else {
        object
    };
    let result = finalizer(api, FINALIZER, object, |event| async {
        match event {
            Event::Apply(object) => apply(api, &object.0, context).await,
            Event::Cleanup(object) => clean_up(&object.0, context).await,
        }
    });
    result.await.map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        finalizer::Error::AddFinalizer(error) => Error::kubernetes("adding the finalizer")(error),
        finalizer::Error::RemoveFinalizer(error) => Error::kubernetes("removing the finalizer")(error),
        finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer => {
            Error::NotNow("the object has no name, or the finalizer no valid one")
        }
    })
}

/// Only in the version that was read: the finalizers of others, and an object made again under the name, stay as they
/// are.
async fn with_finalizer<K: Kind>(api: &Api<Tolerant<K>>, object: &Tolerant<K>) -> Result<Tolerant<K>, Error> {
    let others = object.finalizers().iter().map(String::as_str);
    let finalizers: Vec<&str> = others.chain([FINALIZER]).collect();
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let added = api.patch(&object.name_any(), &parameters, &Patch::Merge(&patch)).await;
    added.map_err(Error::kubernetes("adding the finalizer"))
}

/// Whether its owner has asked for nothing to be changed.
pub fn is_paused<K: Resource>(object: &K) -> bool {
    let annotations = object.meta().annotations.as_ref();
    annotations
        .and_then(|a| a.get(controls::PAUSED))
        .is_some_and(|value| value == "true")
}

fn is_deleted<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// Says that nothing is done, and that therefore nobody knows whether the server has what the spec says.
async fn pause<K: Kind>(api: &Api<Tolerant<K>>, object: &K, context: &Context) -> Result<Action, Error> {
    let message = format!(
        "paused by the annotation {}: the server and the cluster stay as they are; take the annotation off to go on",
        controls::PAUSED
    );
    let wanted = Wanted::new(READY, Status::Unknown, reasons::PAUSED, message);
    let status = object.status().cloned().unwrap_or_default();
    // First, and whatever comes of the status: an object that is as large as can be takes none.
    let ended = K::while_paused(object, context).await;
    report::write_status(api, object, status, &[wanted], context).await?;
    ended?;
    Ok(Action::requeue(Again::Stuck.delay()))
}

/// What the failures of an object are counted under: those of its deletion begin with it.
fn row<K: Resource>(object: &K) -> String {
    let uid = object.uid().unwrap_or_default();
    match object.meta().deletion_timestamp {
        Some(_) => format!("{uid}/deletion"),
        None => uid,
    }
}

/// Whether a deletion has tried for long enough; `waited` is nothing where the clocks do not agree.
fn lets_go(tries: u32, waited: Option<Duration>) -> bool {
    tries >= MOST_TRIES || (tries >= TRIES && waited.is_some_and(|waited| waited >= PATIENCE))
}

/// What follows from a failure; called by the queue with every error of [`reconcile`].
#[expect(clippy::needless_pass_by_value, reason = "the queue's signature")]
pub fn after_failure<K: Kind>(object: Arc<K::Kept>, error: &Error, context: Arc<Context>) -> Action {
    let object = object.open();
    let deleting = is_deleted(&object.0);
    let (_, backoff) = context.retries.failed(&row(&object.0));
    Action::requeue(match error.class() {
        // Somebody waits for it, and its patience has an end.
        _ if deleting => backoff.min(DELETION_CAP),
        Class::Permanent => Again::Stuck.delay(),
        Class::Transient => backoff.max(error.retry_after().unwrap_or_default()),
    })
}

async fn apply<K: Kind>(api: &Api<Tolerant<K>>, object: &K, context: &Context) -> Result<Action, Error> {
    match K::reconcile(object, context).await {
        Ok(Outcome {
            status,
            mut conditions,
            again,
        }) => {
            report::say_whether_stalled(object, &mut conditions, again == Again::Stuck);
            report::write_status(api, object, status, &conditions, context).await?;
            Ok(Action::requeue(again.delay()))
        }
        Err(error) => {
            report::failure(api, object, &error, context).await;
            match error {
                Error::Later { within, .. } => Ok(Action::requeue(Again::Within(within).delay())),
                error => Err(error),
            }
        }
    }
}

async fn clean_up<K: Kind>(object: &K, context: &Context) -> Result<Action, Error> {
    if is_paused(object) {
        // Waiting for the pause to end would hold up the namespace; cleaning up would change what shall stay.
        let note = "deleted while paused: nothing was cleaned up on the server";
        report::left_behind(object, context, note).await;
        return Ok(let_go(object, context));
    }
    let Err(error) = K::clean_up(object, context).await else {
        return Ok(let_go(object, context));
    };
    let since = object.meta().deletion_timestamp.as_ref().map(|time| time.0);
    let waited = since.and_then(|time| Duration::try_from(Timestamp::now().duration_since(time)).ok());
    let tries = context.retries.count(&row(object)) + 1;
    if !lets_go(tries, waited) {
        return Err(error);
    }
    let (_, message) = error.summary();
    tracing::warn!(kind = K::NAME, object = %name(object), %error, "deleted without cleaning up on the server");
    let note = format!("deleted without cleaning up on the server, after {tries} tries: {message}");
    report::left_behind(object, context, &note).await;
    Ok(let_go(object, context))
}

/// The finalizer goes next: nothing of the object stays in memory.
fn let_go<K: Kind>(object: &K, context: &Context) -> Action {
    let uid = object.uid().unwrap_or_default();
    context.resolutions.forget(&uid);
    context.echoes.forget(&uid);
    K::forget(&uid, context);
    Action::await_change()
}

/// `namespace/name`, for the log.
pub fn name<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests;
