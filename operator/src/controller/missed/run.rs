//! The task that looks at suspected pods, tells of them and, if it shall, evicts them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod as KubePod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use sealpod_core::kubernetes::{INJECT_LABEL, annotations};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};

use super::judge::{self, Without, judge, lacks};
use super::{Options, Pod, Suspicion};
use crate::controller::context::Context;
use crate::controller::error::{Error, describe};
use crate::controller::kept::{Kept, KeptBinding};
use crate::controller::restart::injected;
use crate::controller::verdict::reasons;
use crate::injector::Binding;

/// How often those that are known are looked at again.
const AGAIN: Duration = Duration::from_mins(1);
/// At least so long lies between two evictions, of whatever workloads.
const BETWEEN_EVICTIONS: Duration = Duration::from_secs(10);
/// Most controllers of which one look hears that a disruption budget keeps their pods.
const MOST_KEPT: usize = 10;
/// How long the webhook may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(2);

const TOLD: &str = "this pod asks for injection and runs without it: the webhook was not there when it was made, or the label \
                    was added later; delete it, and the next one is injected";

/// What is remembered between looks.
#[derive(Default)]
pub(super) struct Memory {
    last: Option<Instant>,
    /// UID of the pod whose eviction was asked for last: the next look begins behind it, so that what is kept from being
    /// evicted leaves the others their turn.
    tried: String,
    /// Controllers whose pods a disruption budget keeps: for one look.
    kept: HashSet<String>,
    /// By namespace, in order of their names: for one look, in which there may be a thousand new pods.
    bindings: HashMap<String, Vec<Arc<Binding>>>,
}

/// Looks after them, for ever.
pub async fn run(context: Arc<Context>, options: Options) {
    let mut memory = Memory::default();
    let mut again = interval(AGAIN);
    loop {
        let all = tokio::select! {
            _ = again.tick() => true,
            () = context.missed.suspected.notified() => false,
        };
        look(all, &context, &options, &mut memory).await;
    }
}

pub(super) async fn look(all: bool, context: &Context, options: &Options, memory: &mut Memory) {
    memory.bindings.clear();
    memory.kept.clear();
    if all {
        await_next(context).await;
    }
    let mut pods = context.missed.to_look_at(all);
    pods.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let tried = pods.partition_point(|(uid, _)| *uid <= memory.tried);
    pods.rotate_left(tried);
    for (uid, pod) in pods {
        if let Err(error) = one(&uid, &pod, context, options, memory).await {
            tracing::warn!(%error, pod = format!("{}/{}", pod.namespace, pod.name), "a pod without injection");
        }
    }
    context
        .metrics
        .missed
        .set(i64::try_from(context.missed.count()).unwrap_or(i64::MAX));
}

/// Looks which controllers have a pod with injection since they lost one, that is ready.
async fn await_next(context: &Context) {
    let controllers = context.missed.controllers();
    let awaited = context.missed.evicted().awaited(&controllers);
    for (controller, next) in awaited {
        let pod = read(&next.namespace, &next.name, context).await;
        let mut evicted = context.missed.evicted();
        match pod.map(|pod| pod.filter(|raw| raw["metadata"]["uid"] == next.uid.as_str())) {
            Ok(Some(raw)) if judge::is_ready(&raw) => evicted.helped(&controller),
            Ok(Some(_)) => {}
            Ok(None) => evicted.gone(&controller, &next.uid),
            Err(error) => {
                let name = format!("{}/{}", next.namespace, next.name);
                tracing::warn!(%error, pod = name, "the next pod of one that was evicted");
            }
        }
    }
    context.missed.evicted().forget(&controllers, Timestamp::now());
}

async fn one(uid: &str, pod: &Pod, context: &Context, options: &Options, memory: &mut Memory) -> Result<(), Error> {
    match pod.of {
        Suspicion::Partly => return partly(uid, pod, context, memory).await,
        Suspicion::Mislabelled => return mislabelled(uid, pod, context).await,
        Suspicion::Without => {}
    }
    let raw = read_as(uid, pod, context).await?;
    let Some(without) = raw.as_ref().and_then(judge) else {
        context.missed.forget(uid);
        return Ok(());
    };
    let about = reference(uid, pod);
    if context.missed.confirm(uid) {
        tracing::info!(
            pod = format!("{}/{}", pod.namespace, pod.name),
            "a pod runs without the injection it asks for"
        );
        tell(context, &about, reasons::INJECTION_MISSED, TOLD).await;
    }
    let helps = || context.missed.evicted().helps(&without);
    if options.evict && memory.may_try(&without) && helps() && reachable(&options.injector).await {
        evict(uid, pod, &without, context, memory).await?;
    }
    Ok(())
}

/// One that the webhook does not see. The next would be no better, so it is never evicted.
async fn mislabelled(uid: &str, pod: &Pod, context: &Context) -> Result<(), Error> {
    let raw = read_as(uid, pod, context).await?;
    let Some(value) = raw.as_ref().and_then(judge::mislabelled) else {
        context.missed.forget(uid);
        return Ok(());
    };
    if context.missed.confirm(uid) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        tracing::info!(pod = name, value, "a pod's label is not what asks for injection");
        let note = format!("label {INJECT_LABEL} is \"{value}\" and not \"true\", so this pod runs without injection");
        tell(context, &reference(uid, pod), reasons::INJECTION_MISSED, &note).await;
    }
    Ok(())
}

/// One that was injected, and may have got only some of its bindings. It serves, so it is never evicted.
async fn partly(uid: &str, pod: &Pod, context: &Context, memory: &mut Memory) -> Result<(), Error> {
    let bindings = memory.bindings_of(&pod.namespace, context);
    if bindings.len() < 2 {
        context.missed.forget(uid);
        return Ok(());
    }
    let raw = read_as(uid, pod, context).await?;
    let lacking = raw.map(|raw| lacks(&raw, &pod.namespace, bindings)).unwrap_or_default();
    let Some(first) = lacking.first() else {
        context.missed.forget(uid);
        return Ok(());
    };
    if context.missed.confirm(uid) {
        let more = match lacking.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        tracing::info!(
            pod = format!("{}/{}", pod.namespace, pod.name),
            binding = first,
            more = lacking.len() - 1,
            "a pod runs without a binding that selects it"
        );
        let note = format!(
            "this pod runs without SecretBinding {first}{more}, which selects it and was not known when it was made; delete it, \
             and the next one gets all; a pod that names its bindings in {} gets them or is refused",
            annotations::BINDING
        );
        tell(context, &reference(uid, pod), reasons::INJECTION_MISSED, &note).await;
    }
    Ok(())
}

impl Memory {
    fn bindings_of(&mut self, namespace: &str, context: &Context) -> &[Arc<Binding>] {
        self.bindings.entry(namespace.to_owned()).or_insert_with(|| {
            let of_namespace = |binding: &KeptBinding| binding.namespace().as_deref() == Some(namespace);
            let kept = context.bindings.state_filter(of_namespace);
            let mut all: Vec<_> = kept.iter().map(|b| Arc::new(injected(&b.open().0))).collect();
            all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            all
        })
    }

    fn may_try(&self, pod: &Without) -> bool {
        let has_rested = self.last.is_none_or(|last| last.elapsed() >= BETWEEN_EVICTIONS);
        let is_kept = pod
            .controller
            .as_ref()
            .is_some_and(|controller| self.kept.contains(controller));
        has_rested && !is_kept && self.kept.len() < MOST_KEPT
    }
}

/// By the API that respects disruption budgets; what a budget holds back is tried again.
async fn evict(uid: &str, pod: &Pod, without: &Without, context: &Context, memory: &mut Memory) -> Result<(), Error> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    let body = serde_json::to_vec(&eviction).expect("an eviction is plain data");
    let request = pods(&pod.namespace).create_subresource("eviction", &pod.name, &PostParams::default(), body);
    let request = request.map_err(|error| Error::kubernetes("evicting a pod")(kube::Error::BuildRequest(error)))?;
    let before = memory.last.replace(Instant::now());
    uid.clone_into(&mut memory.tried);
    let result = context.kube.request_text(request).await;
    context.metrics.evicted(result.is_ok());
    match result {
        Ok(_) => {
            context.missed.evicted().note(without, Timestamp::now());
            let note = "evicted, because it runs without the injection that it asks for";
            tell(context, &reference(uid, pod), reasons::EVICTED, note).await;
            Ok(())
        }
        // A disruption budget: nothing went, so another may.
        Err(kube::Error::Api(status)) if status.code == 429 => {
            memory.last = before;
            memory.kept.extend(without.controller.clone());
            Ok(())
        }
        // Somebody was faster.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(Error::kubernetes("evicting a pod")(error)),
    }
}

async fn read_as(uid: &str, pod: &Pod, context: &Context) -> Result<Option<Value>, Error> {
    let raw = read(&pod.namespace, &pod.name, context).await?;
    Ok(raw.filter(|raw| raw["metadata"]["uid"] == uid))
}

async fn read(namespace: &str, name: &str, context: &Context) -> Result<Option<Value>, Error> {
    let request = pods(namespace).get(name, &GetParams::default());
    let request = request.map_err(|error| Error::kubernetes("reading a pod")(kube::Error::BuildRequest(error)))?;
    match context.kube.request_text(request).await {
        Ok(text) => Ok(serde_json::from_str(&text).ok()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(Error::kubernetes("reading a pod")(error)),
    }
}

fn pods(namespace: &str) -> Request {
    Request::new(KubePod::url_path(&(), Some(namespace)))
}

/// While the webhook is away no pod that asks for it can be made: what is evicted then would be missing.
async fn reachable(address: &str) -> bool {
    matches!(timeout(REACHED_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_)))
}

fn reference(uid: &str, pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod.name.clone()),
        namespace: Some(pod.namespace.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// An event is best effort.
async fn tell(context: &Context, about: &ObjectReference, reason: &str, note: &str) {
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note.to_owned()),
        action: "Inject".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, about).await {
        tracing::debug!(error = describe(&error), "an event could not be published");
    }
}
