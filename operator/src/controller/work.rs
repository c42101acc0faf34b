//! The queues of the three kinds, and what wakes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use sealpod_core::kubernetes::{APPLICATION_UID_LABEL, BINDING_UID_LABEL, FIELD_MANAGER};
use sealpod_crds::{Application, Environment, SecretBinding};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::binding::{Copies, Resolutions, native, sweep};
use super::changes::{self, Feed, Stores, Wakes};
use super::context::Context;
use super::echo::Echoes;
use super::error::Error;
use super::events::Recorder;
use super::gone;
use super::guests;
use super::kept::KeptBinding;
use super::kind::{Kind, after_failure, reconcile};
use super::lookup;
use super::metrics::Metrics;
use super::missed::{self, Missed};
use super::restart::{self, Restarts};
use super::retries::Retries;
use super::scope::Scope;
use super::server::Server;
use super::streams;
use super::told::Told;
use crate::tolerant::Tolerant;

/// Reconciliations of one kind at a time: each waits for most of its time, for one disk or another. Twice as many took two
/// MiB more, and no less time.
const CONCURRENCY: u16 = 16;
/// How long reconciliations that are under way may take once the process is to stop.
const DRAIN: Duration = Duration::from_secs(15);

/// What the command line says about the work.
pub struct Setup {
    pub cluster_id: String,
    pub identity: String,
    pub scope: Scope,
    pub missed: missed::Options,
}

/// The controllers before they run.
pub struct Parts {
    applications: Controller<Tolerant<Application>>,
    environments: Controller<Tolerant<Environment>>,
    bindings: Controller<KeptBinding>,
    context: Arc<Context>,
    stores: Stores,
    wakes: Wakes,
    missed: missed::Options,
}

impl Parts {
    pub fn new(kube: Client, server: Server, setup: Setup, metrics: Metrics) -> Self {
        let Setup {
            cluster_id,
            identity,
            scope,
            missed: options,
        } = setup;
        let config = controller::Config::default().concurrency(CONCURRENCY);
        let echoes = Arc::new(Echoes::default());
        let (wakes, woken) = changes::wakes();

        let (objects, known_applications) = streams::own::<Application>(&kube, &scope, echoes.clone());
        let applications = Controller::for_stream(objects, known_applications.clone())
            .reconcile_on(woken.applications)
            .owns_stream(streams::key_secrets(
                &kube,
                &scope,
                APPLICATION_UID_LABEL,
                Arc::clone(&echoes),
                wakes.all(),
            ));

        let (objects, known_environments) = streams::own::<Environment>(&kube, &scope, echoes.clone());
        let of_application = known_environments.clone();
        let environments = Controller::for_stream(objects, known_environments.clone())
            .reconcile_on(woken.environments)
            .watches_stream(
                streams::others::<Application>(&kube, &scope, wakes.all()),
                move |application| {
                    referring(&of_application, |e| {
                        e.namespace() == application.namespace()
                            && e.spec.application_ref.name == application.name_any()
                    })
                },
            );

        let (objects, known_bindings) = streams::own::<SecretBinding>(&kube, &scope, echoes.clone());
        let bindings = Controller::for_stream(objects, known_bindings.clone()).reconcile_on(woken.bindings);
        let bindings = with_what_they_rest_on(bindings, &kube, &scope, &known_bindings, &echoes, wakes.all());
        let missed = Arc::new(Missed::default());
        let (suspects, known_options) = (Arc::clone(&missed), options.clone());
        let pods = streams::pods(&kube, &scope, wakes.all());
        let pods = pods.inspect_ok(move |pod| suspects.saw(&pod.0.metadata, &known_options));
        let bindings = bindings.watches_stream(pods, |pod| streams::injected_with(&pod));
        let (copies, touched) = native::watch(&kube, &scope, wakes.all());
        let of_copy = known_bindings.clone();
        let bindings = bindings.watches_stream(touched, move |secret| native::binding_of(&secret, &of_copy));

        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(identity),
        };
        let kube = lookup::within(lookup::PATIENCE, kube);
        let context = Arc::new(Context {
            recorder: Recorder::new(kube.clone(), reporter),
            kube,
            server,
            cluster_id,
            metrics,
            retries: Retries::default(),
            environments: known_environments.clone(),
            resolutions: Resolutions::default(),
            echoes,
            bindings: known_bindings.clone(),
            copies: Copies::new(copies),
            restarts: Restarts::default(),
            missed,
            scope,
        });
        let stores = Stores {
            applications: known_applications,
            environments: known_environments,
            bindings: known_bindings,
        };
        Self {
            applications: applications.with_config(config.clone()),
            environments: environments.with_config(config.clone()),
            bindings: bindings.with_config(config),
            context,
            stores,
            wakes,
            missed: options,
        }
    }

    /// Works until `stop`, and then until what is under way is done.
    pub async fn run(self, stop: &CancellationToken) {
        let Self {
            applications,
            environments,
            bindings,
            context,
            stores,
            wakes,
            missed: options,
        } = self;
        let feed = Feed::begin(&context).await;
        let queues = async {
            tokio::join!(
                watch::<Application>(queue::<Application>(applications, &context, stop)),
                watch::<Environment>(queue::<Environment>(environments, &context, stop)),
                watch::<SecretBinding>(queue::<SecretBinding>(bindings, &context, stop)),
            );
        };
        let give_up = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = queues => {}
            () = sweep::run(Arc::clone(&context)) => {}
            () = feed.run(&context, &stores, &wakes) => {}
            () = Box::pin(guests::run(Arc::clone(&context), wakes.clone())) => {}
            () = gone::run(Arc::clone(&context), &stores) => {}
            () = Box::pin(missed::run(Arc::clone(&context), options)) => {}
            () = Box::pin(restart::run(Arc::clone(&context))) => {}
            () = give_up => tracing::warn!("reconciliations under way are given up"),
        }
    }
}

type Reconciled<K> = Result<(ObjectRef<<K as Kind>::Kept>, Action), controller::Error<Error, watcher::Error>>;

fn queue<K: Kind>(
    controller: Controller<K::Kept>,
    context: &Arc<Context>,
    stop: &CancellationToken,
) -> impl Stream<Item = Reconciled<K>> {
    controller.graceful_shutdown_on(stop.clone().cancelled_owned()).run(
        reconcile::<K>,
        after_failure::<K>,
        Arc::clone(context),
    )
}

/// Logs what fails, and the same again only after minutes: whoever can write an object can have it looked at, and fail,
/// many times a second.
async fn watch<K: Kind>(results: impl Stream<Item = Reconciled<K>>) {
    let mut results = std::pin::pin!(results);
    let mut told = Told::default();
    let shown = |namespace: Option<&str>, name: &str| format!("{}/{name}", namespace.unwrap_or_default());
    while let Some(result) = results.next().await {
        match result {
            Ok((object, _)) => {
                told.passed(&shown(object.namespace.as_deref(), &object.name));
                tracing::debug!(kind = K::NAME, %object, "reconciled");
            }
            Err(controller::Error::ReconcilerFailed(error, object)) => {
                let object = shown(object.namespace.as_deref(), &object.name);
                if told.is_news(&object, &error.to_string(), Instant::now()) {
                    tracing::warn!(kind = K::NAME, object, "{error}");
                } else {
                    tracing::debug!(kind = K::NAME, object, "again: {error}");
                }
            }
            // Gone between the event and its turn.
            Err(controller::Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(kind = K::NAME, "watching: {error}"),
        }
    }
}

/// Looks at bindings again when their Secrets are touched, or what they refer to changes.
fn with_what_they_rest_on(
    bindings: Controller<KeptBinding>,
    kube: &Client,
    scope: &Scope,
    known: &Store<KeptBinding>,
    echoes: &Arc<Echoes>,
    relisted: &Arc<Notify>,
) -> Controller<KeptBinding> {
    let (of_application, of_environment) = (known.clone(), known.clone());
    bindings
        .owns_stream(streams::key_secrets(
            kube,
            scope,
            BINDING_UID_LABEL,
            Arc::clone(echoes),
            relisted,
        ))
        .watches_stream(
            streams::others::<Application>(kube, scope, relisted),
            move |application| {
                referring(&of_application, |b| {
                    b.application_namespace() == application.namespace()
                        && b.application_ref.name == application.name_any()
                })
            },
        )
        .watches_stream(
            streams::others::<Environment>(kube, scope, relisted),
            move |environment| {
                referring(&of_environment, |b| {
                    b.application_namespace() == environment.namespace()
                        && b.application_ref.name == environment.spec.application_ref.name
                })
            },
        )
}

/// The objects of a store that an object concerns.
fn referring<K>(store: &Store<K>, concerns: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let found = store.state_filter(concerns);
    found
        .iter()
        .map(|object| ObjectRef::from_obj(object.as_ref()))
        .collect()
}
