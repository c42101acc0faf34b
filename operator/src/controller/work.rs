//! The queues of the three kinds, and what wakes them.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use sealpod_core::kubernetes::{BINDING_UID_LABEL, FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL};
use sealpod_crds::{Application, Environment, SecretBinding};
use tokio_util::sync::CancellationToken;

use super::binding::{Copies, Resolutions, native, sweep};
use super::context::Context;
use super::error::Error;
use super::kind::{Kind, after_failure, reconcile};
use super::metrics::Metrics;
use super::restart::{self, Restarts};
use super::retries::Retries;
use super::server::Server;
use crate::tolerant::Tolerant;

/// Reconciliations of one kind at a time: enough to keep the server busy, few enough to be gentle to it.
const CONCURRENCY: u16 = 8;
/// How long reconciliations that are under way may take once the process is to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// The controllers before they run.
pub struct Parts {
    applications: Controller<Tolerant<Application>>,
    environments: Controller<Tolerant<Environment>>,
    bindings: Controller<Tolerant<SecretBinding>>,
    context: Arc<Context>,
}

impl Parts {
    pub fn new(kube: Client, server: Server, cluster_id: String, identity: &str, metrics: Metrics) -> Self {
        let all = watcher::Config::default;
        let config = controller::Config::default().concurrency(CONCURRENCY);
        let applications = Controller::new(Api::<Tolerant<Application>>::all(kube.clone()), all());

        let environments = Controller::new(Api::<Tolerant<Environment>>::all(kube.clone()), all());
        let known_environments = environments.store();
        let of_application = known_environments.clone();
        let environments = environments.watches(
            Api::<Tolerant<Application>>::all(kube.clone()),
            all(),
            move |application| {
                referring(&of_application, &application, |e| {
                    e.spec.application_ref.name == application.name_any()
                })
            },
        );

        let bindings = Controller::new(Api::<Tolerant<SecretBinding>>::all(kube.clone()), all());
        let (of_application, of_environment) = (bindings.store(), bindings.store());
        let own_secrets = format!("{MANAGED_BY_LABEL}={MANAGED_BY},{BINDING_UID_LABEL}");
        let known_bindings = bindings.store();
        let (copies, touched) = native::watch(kube.clone());
        let of_copy = bindings.store();
        let bindings = bindings
            .watches_stream(touched, move |secret| native::binding_of(&secret, &of_copy))
            // Of the Secrets only the metadata is kept: that one has changed is all that is asked here.
            .owns(
                Api::<Tolerant<PartialObjectMeta<Secret>>>::all(kube.clone()),
                all().labels(&own_secrets),
            )
            .watches(
                Api::<Tolerant<Application>>::all(kube.clone()),
                all(),
                move |application| {
                    referring(&of_application, &application, |b| {
                        b.spec.application_ref.name == application.name_any()
                    })
                },
            )
            .watches(
                Api::<Tolerant<Environment>>::all(kube.clone()),
                all(),
                move |environment| {
                    referring(&of_environment, &environment, |b| {
                        b.spec.application_ref.name == environment.spec.application_ref.name
                    })
                },
            );

        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        let context = Arc::new(Context {
            recorder: Recorder::new(kube.clone(), reporter),
            kube,
            server,
            cluster_id,
            metrics,
            retries: Retries::default(),
            environments: known_environments,
            resolutions: Resolutions::default(),
            bindings: known_bindings,
            copies: Copies::new(copies),
            restarts: Restarts::default(),
        });
        Self {
            applications: applications.with_config(config.clone()),
            environments: environments.with_config(config.clone()),
            bindings: bindings.with_config(config),
            context,
        }
    }

    /// Works until `stop`, and then until what is under way is done.
    pub async fn run(self, stop: &CancellationToken) {
        let Self {
            applications,
            environments,
            bindings,
            context,
        } = self;
        let queues = async {
            tokio::join!(
                watch(queue(applications, &context, stop)),
                watch(queue(environments, &context, stop)),
                watch(queue(bindings, &context, stop)),
            );
        };
        let give_up = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = queues => {}
            () = sweep::run(Arc::clone(&context)) => {}
            () = Box::pin(restart::run(Arc::clone(&context))) => {}
            () = give_up => tracing::warn!("reconciliations under way are given up"),
        }
    }
}

type Reconciled<K> = Result<(ObjectRef<Tolerant<K>>, Action), controller::Error<Error, watcher::Error>>;

fn queue<K: Kind>(
    controller: Controller<Tolerant<K>>,
    context: &Arc<Context>,
    stop: &CancellationToken,
) -> impl Stream<Item = Reconciled<K>> {
    controller.graceful_shutdown_on(stop.clone().cancelled_owned()).run(
        reconcile::<K>,
        after_failure::<K>,
        Arc::clone(context),
    )
}

/// Logs what fails, once.
async fn watch<K: Kind>(results: impl Stream<Item = Reconciled<K>>) {
    let mut results = std::pin::pin!(results);
    while let Some(result) = results.next().await {
        match result {
            Ok((object, _)) => tracing::debug!(kind = K::NAME, %object, "reconciled"),
            Err(controller::Error::ReconcilerFailed(error, object)) => {
                let (namespace, name) = (object.namespace.unwrap_or_default(), object.name);
                tracing::warn!(kind = K::NAME, object = format!("{namespace}/{name}"), "{error}");
            }
            // Gone between the event and its turn.
            Err(controller::Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(kind = K::NAME, "watching: {error}"),
        }
    }
}

/// The objects of a store that an object of their namespace concerns.
fn referring<K, Other>(store: &Store<K>, other: &Other, concerns: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone,
    Other: Resource,
{
    let namespace = other.namespace();
    let found = store.state_filter(|object| object.namespace() == namespace && concerns(object));
    found
        .iter()
        .map(|object| ObjectRef::from_obj(object.as_ref()))
        .collect()
}
