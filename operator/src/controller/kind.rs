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
use kube::runtime::events::{Event as KubeEvent, EventType};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::{Api, Resource, ResourceExt};
use sealpod_core::kubernetes::{FIELD_MANAGER, FINALIZER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::conditions::{self, READY, Status, Wanted, shorten};
use super::context::Context;
use super::error::{Class, Error};
use super::retries::Again;
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
/// Failures in a row after which an object that was ready no longer counts as such.
const FAILURES_SHOWN: u32 = 4;
/// Limit of the Kubernetes API for an event's note, in bytes.
const MAX_NOTE: usize = 1_000;

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

    /// Makes the server as the object says.
    fn reconcile(object: &Self, context: &Context)
    -> impl Future<Output = Result<Outcome<Self::Status>, Error>> + Send;

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
pub async fn reconcile<K: Kind>(object: Arc<Tolerant<K>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let api: Api<Tolerant<K>> = Api::namespaced(context.kube.clone(), &object.namespace().unwrap_or_default());
    let result = finalizer(&api, FINALIZER, Arc::clone(&object), |event| async {
        match event {
            Event::Apply(object) => apply(&api, &object.0, &context).await,
            Event::Cleanup(object) => clean_up(&object.0, &context).await,
        }
    })
    .await
    .map_err(|error| match error {
        finalizer::Error::ApplyFailed(error) | finalizer::Error::CleanupFailed(error) => error,
        finalizer::Error::AddFinalizer(error) => Error::kubernetes("adding the finalizer")(error),
        finalizer::Error::RemoveFinalizer(error) => Error::kubernetes("removing the finalizer")(error),
        finalizer::Error::UnnamedObject | finalizer::Error::InvalidFinalizer => {
            Error::NotNow("the object has no name, or the finalizer no valid one")
        }
    });
    context.metrics.reconciled(K::NAME, result.is_ok(), started.elapsed());
    if result.is_ok() {
        context.retries.succeeded(&row(&object.0));
        context.retries.succeeded(&object.uid().unwrap_or_default());
    }
    result
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
pub fn after_failure<K: Kind>(object: Arc<Tolerant<K>>, error: &Error, context: Arc<Context>) -> Action {
    let deleting = object.meta().deletion_timestamp.is_some();
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
            conditions,
            again,
        }) => {
            write_status(api, object, status, &conditions, context).await?;
            Ok(Action::requeue(again.delay()))
        }
        Err(error) => {
            show_failure(api, object, &error, context).await;
            Err(error)
        }
    }
}

/// Puts a failure into the conditions. One that may pass by itself says nothing about an object that was ready, until
/// it has not passed for a while; and then not that the object is not ready, only that nobody knows.
async fn show_failure<K: Kind>(api: &Api<Tolerant<K>>, object: &K, error: &Error, context: &Context) {
    let old = object.status().cloned().unwrap_or_default();
    let was_ready = conditions::find(old.conditions(), READY).is_some_and(|c| c.status == Status::True.as_str());
    let lasting = context.retries.count(&object.uid().unwrap_or_default()) + 1 >= FAILURES_SHOWN;
    let (reason, message) = error.summary();
    let wanted = match error.class() {
        Class::Permanent => Wanted::new(READY, Status::False, reason, message),
        Class::Transient if !was_ready || lasting => Wanted::new(READY, Status::Unknown, reason, message),
        Class::Transient => return,
    };
    if let Err(error) = write_status(api, object, old, &[wanted], context).await {
        tracing::debug!(%error, "the failure could not be shown in the status");
    }
}

/// Writes the status if it differs, and tells of a change of `Ready` by an event. Conditions that are not in `wanted`
/// stay as they are in `status`.
async fn write_status<K: Kind>(
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
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let written = api
        .patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await;
    written.map_err(Error::kubernetes("writing the status"))?;
    let ready = |conditions| conditions::find(conditions, READY).map(|c| (c.status.clone(), c.reason.clone()));
    if ready(shown) != ready(status.conditions())
        && let Some(now) = conditions::find(status.conditions(), READY)
    {
        let kind = if now.status == Status::True.as_str() {
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

async fn clean_up<K: Kind>(object: &K, context: &Context) -> Result<Action, Error> {
    let Err(error) = K::clean_up(object, context).await else {
        return Ok(Action::await_change());
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
    publish(object, context, EventType::Warning, "ServerNotCleanedUp", &note).await;
    Ok(Action::await_change())
}

/// An event is best effort: a namespace that goes takes none any more.
async fn publish<K: Kind>(object: &K, context: &Context, type_: EventType, reason: &str, note: &str) {
    let event = KubeEvent {
        type_,
        reason: reason.to_owned(),
        note: Some(shorten(note, MAX_NOTE).to_owned()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await {
        tracing::debug!(
            error = super::error::describe(&error),
            "an event could not be published"
        );
    }
}

/// `namespace/name`, for the log.
pub fn name<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::super::binding::world::{World, object, world};
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use sealpod_crds::SecretBinding;
    use serde_json::Value;

    #[test]
    fn a_deletion_lets_go_after_its_time_and_whatever_the_clocks_say() {
        let minute = Some(PATIENCE);
        for (tries, waited, want) in [
            (1, minute, false),
            (TRIES - 1, Some(PATIENCE * 60), false),
            (TRIES, minute, true),
            (TRIES, Some(PATIENCE / 2), false),
            (TRIES, None, false),
            (MOST_TRIES, None, true),
            (MOST_TRIES, Some(Duration::ZERO), true),
        ] {
            assert_eq!(lets_go(tries, waited), want, "{tries} tries in {waited:?}");
        }
    }

    #[test]
    fn failures_before_a_deletion_are_not_those_of_the_deletion() {
        let mut object = object();
        let before = row(&object);
        object.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        assert_ne!(row(&object), before);
    }

    const BINDING: &str = "/apis/sealpod.dev/v1alpha1/namespaces/shop/secretbindings/db";

    /// A binding in Kubernetes, with its finalizer, and the namespace it is in.
    fn install(world: &World) {
        world.kube.put(
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop", "uid": "ns-uid"}}),
        );
        let mut binding = serde_json::to_value(object()).unwrap();
        binding["metadata"]["finalizers"] = json!([FINALIZER]);
        world.kube.put(BINDING, binding);
    }

    async fn look(world: &World) -> Result<Action, Error> {
        let object: Tolerant<SecretBinding> = serde_json::from_value(world.kube.get(BINDING).unwrap()).unwrap();
        reconcile(Arc::new(object), Arc::clone(&world.context)).await
    }

    #[tokio::test]
    async fn at_rest_nothing_is_written_whatever_conditions_others_add() {
        let world = world().await;
        install(&world);
        world.answers("GET", "/service-accounts$", 200, json!([])).await;
        look(&world).await.unwrap();
        let writes = world.kube.take_writes();
        assert_eq!(writes[0], format!("PATCH {BINDING}/status"));
        assert!(writes[1].contains("/events"), "{writes:?}");
        look(&world).await.unwrap();
        assert_eq!(world.kube.take_writes(), [""; 0]);
        let mut object = world.kube.get(BINDING).unwrap();
        assert_eq!(object["status"]["conditions"][0]["reason"], "ApplicationNotFound");
        let mut foreign = object["status"]["conditions"][0].clone();
        foreign["type"] = json!("Audited");
        object["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .insert(0, foreign);
        world.kube.put(BINDING, object);
        look(&world).await.unwrap();
        assert_eq!(world.kube.take_writes(), [""; 0]);
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_costs_no_right_and_no_secret() {
        let world = world().await;
        install(&world);
        let application = json!({"metadata": {"name": "shop"}, "spec": {}});
        world.kube.put(
            "/apis/sealpod.dev/v1alpha1/namespaces/shop/applications/shop",
            application,
        );
        world.answers("GET", ".*", 503, Value::Null).await;
        let error = look(&world).await.unwrap_err();
        assert_eq!(error.class(), Class::Transient);
        assert!(world.asked().await.iter().all(|call| call.starts_with("GET ")));
        let writes = world.kube.take_writes();
        assert!(
            writes
                .iter()
                .all(|call| call.ends_with("/status") || call.contains("/events")),
            "{writes:?}"
        );
    }
}
