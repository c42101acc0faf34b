//! The server from its configuration to its end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use sealpod_runtime::admin::{self, Readiness};
use sealpod_runtime::files::{self, FileSet};
use sealpod_runtime::serve;
use sealpod_runtime::tls::Reloading;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{App, Metrics, Parts, heads, router, vitals};
use crate::audit::By;
use crate::auth::admin_key::AdminKeys;
use crate::auth::refusals::Refusals;
use crate::backup::Backups;
use crate::backup::schedule::{self, Schedule};
use crate::bundle::Polls;
use crate::config::{Config, StoreConfig};
use crate::ids::OrganizationId;
use crate::limits::Limits;
use crate::login::Login;
use crate::mail::{Outbox, Pace, Transport};
use crate::maintenance;
use crate::reports::Reports;
use crate::retention::{self, Retention};
use crate::rotation::{self, Rotation};
use crate::store::{self, State, Store, StoreError, Topic};

/// How long open requests may go on after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Open(#[from] store::OpenError),
    #[error("the default organization could not be made: {0}")]
    Organization(StoreError),
    #[error("it could not be noted which master key is in use: {0}")]
    MasterKey(StoreError),
    #[error(transparent)]
    Listen(io::Error),
    #[error("the listener failed: {0}")]
    Serve(io::Error),
    #[error("stopped serving, because the store met a fault: {reason}")]
    StoreFailed { reason: String },
}

/// Why the server is not ready until its database is open.
const OPENING: &str = "the database is being opened, and brought up to date where it is older";

/// Opens the store off the runtime's threads.
pub async fn open_store(config: StoreConfig) -> Result<(Store, crate::crypto::Keyring), store::OpenError> {
    let opening = tokio::task::spawn_blocking(move || {
        let StoreConfig { options, keyring, .. } = config;
        Store::open(&options, &keyring).map(|store| (store, keyring))
    });
    opening.await.expect("opening the store does not panic")
}

/// Runs the server until `shutdown`, or until it cannot go on. `ready` is called once it listens, with the
/// address, which has the real port where the configured one is 0.
pub async fn run(config: Config, shutdown: CancellationToken, ready: impl FnOnce(SocketAddr)) -> Result<(), RunError> {
    // Every task ends with `stop`; the set owns them, so none outlives this function.
    let (stop, mut tasks) = (shutdown.child_token(), JoinSet::new());
    let Started {
        app,
        listener,
        certificate,
    } = start(config, &stop, &mut tasks).await?;
    let address = listener.local_addr().map_err(RunError::Listen)?;
    app.readiness().clear("store");
    tracing::info!(%address, tls = certificate.is_some(), "serving");
    ready(address);
    let (store, backups) = (app.store().clone(), app.backups().clone());
    let served = listen_until(listener, certificate, app, stop.clone()).await;

    stop.cancel();
    tasks.join_all().await;
    backups.end().await;
    // Its last writes can fail as well.
    store.close().await;
    match store.state() {
        State::Failed { reason } => Err(RunError::StoreFailed { reason }),
        State::Serving => served.map_err(RunError::Serve),
    }
}

/// A server that only has to listen.
struct Started {
    app: App,
    listener: TcpListener,
    certificate: Option<RustlsConfig>,
}

async fn start(config: Config, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> Result<Started, RunError> {
    let Config {
        listen,
        metrics_listen,
        mut store,
        admin_keys,
        admin_key_file,
        superadmins,
        signup,
        mail,
        tls,
        default_organization,
        limits,
        docs,
        trash,
        audit_retention,
        backups,
        backup_schedule,
    } = config;
    // 1. Probes and metrics, so that a long migration is seen for what it is.
    let readiness = Readiness::new();
    readiness.block("store", OPENING);
    let metrics = serve_metrics(metrics_listen, &readiness, stop, tasks)?;
    // 2. The database.
    store.options.meters = metrics.meters();
    store.options.reserve = true;
    let master_key_file = store.master_key_file.clone();
    let database = store.options.path.clone();
    let (store, keyring) = open_store(store).await?;
    let backups = Backups::new(backups, database.canonicalize().unwrap_or(database), keyring.clone());
    backups.tidy();
    let organization = store.ensure_organization(&default_organization, By::system("start"));
    let organization = organization.await.map_err(RunError::Organization)?;
    let listener = serve::bind(listen).map_err(RunError::Listen)?;
    rotation::begin(&store, &keyring, &readiness)
        .await
        .map_err(RunError::MasterKey)?;
    // 3. Everything else.
    let admin_keys = followed(admin_keys, admin_key_file, stop, tasks);
    let app = App::new(Parts {
        store,
        keyring,
        rotation: Rotation::new(master_key_file),
        backups,
        admin_keys,
        superadmins,
        refusals: Refusals::default(),
        limits: Limits::new(limits),
        reports: Reports::default(),
        polls: Polls::default(),
        login: Login::new(signup, outbox(mail, &metrics, stop, tasks)),
        default_organization,
        docs,
        trash,
        readiness,
        metrics,
        shutdown: stop.clone(),
    });
    look_after(&app, organization.id, tasks);
    keep_archives(&app, (audit_retention, backup_schedule), tasks);
    let certificate = tls.map(|tls| certificate(tls, stop, tasks));
    Ok(Started {
        app,
        listener,
        certificate,
    })
}

/// The admin keys, which follow their file.
fn followed(
    keys: AdminKeys,
    file: Option<FileSet>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Arc<AdminKeys> {
    let keys = Arc::new(keys);
    if let Some(file) = file {
        let (keys, stop) = (Arc::clone(&keys), stop.clone());
        tasks.spawn(async move { keys.watch(file, files::POLL_INTERVAL, stop).await });
    }
    keys
}

/// Starts what makes archives by itself, and takes away what is not kept any more.
fn keep_archives(app: &App, (retention, schedule): (Retention, Schedule), tasks: &mut JoinSet<()>) {
    let (backups, store, stop) = (app.backups(), app.store(), app.shutdown());
    let readiness = app.readiness();
    tasks.spawn(retention::run(
        store.clone(),
        backups.clone(),
        retention,
        readiness.clone(),
        stop.clone(),
    ));
    tasks.spawn(schedule::keep_clear(
        backups.clone(),
        schedule,
        store.clone(),
        readiness.clone(),
        stop.clone(),
    ));
    let told = (readiness.clone(), app.metrics().clone());
    tasks.spawn(schedule::run(
        backups.clone(),
        schedule,
        store.clone(),
        told,
        stop.clone(),
    ));
}

/// The certificate, which follows its files.
fn certificate(tls: Reloading, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> RustlsConfig {
    let config = tls.config();
    tasks.spawn(tls.watch(files::POLL_INTERVAL, stop.clone()));
    config
}

/// The way of mails out, and the task behind it.
fn outbox(
    transport: Option<Transport>,
    metrics: &Metrics,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Option<Outbox> {
    Transport::announce(transport.as_ref());
    let (outbox, courier) = Outbox::new(transport?, Pace::default(), metrics.clone());
    tasks.spawn(courier.run(stop.clone()));
    Some(outbox)
}

/// Starts what goes on beside the requests.
fn look_after(app: &App, default_organization: OrganizationId, tasks: &mut JoinSet<()>) {
    let (store, readiness, stop) = (app.store(), app.readiness(), app.shutdown());
    app.metrics().show(store.clone(), app.reports().clone());
    let topic = Topic::Organization(default_organization);
    tasks.spawn(watch_store(store.clone(), topic, readiness.clone(), stop.clone()));
    tasks.spawn(heads::log(store.clone(), heads::INTERVAL, stop.clone()));
    tasks.spawn(vitals::check(store.clone(), readiness.clone(), stop.clone()));
    let (rotation, keyring) = (app.rotation(), app.keyring());
    let follow = rotation
        .clone()
        .follow(store.clone(), keyring.clone(), readiness.clone(), stop.clone());
    tasks.spawn(follow);
    tasks.spawn(rotation.clone().run(store.clone(), keyring.clone(), stop.clone()));
    let metrics = app.metrics().clone();
    let known = vitals::begin(store, readiness);
    tasks.spawn(vitals::watch(
        store.clone(),
        known,
        readiness.clone(),
        metrics,
        stop.clone(),
    ));
    tasks.spawn(maintenance::run(store.clone(), app.trash_days(), stop.clone()));
}

async fn listen_until(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    app: App,
    stop: CancellationToken,
) -> io::Result<()> {
    let limits = app.limits().listener();
    serve::run_within(listener, tls, router(app), limits, stop, DRAIN).await
}

/// Stops the server when the store fails: what it answers then could be wrong.
async fn watch_store(store: Store, topic: Topic, readiness: Readiness, stop: CancellationToken) {
    let watcher = store.watch(&[topic]);
    while let State::Serving = store.state() {
        if stop.run_until_cancelled(watcher.changed()).await.is_none() {
            return;
        }
    }
    if let State::Failed { reason } = store.state() {
        readiness.block("store", reason);
        stop.cancel();
    }
}

/// Starts the listener of metrics and probes; if it fails later, the server goes on, and its log says so.
fn serve_metrics(
    address: SocketAddr,
    readiness: &Readiness,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<Metrics, RunError> {
    let mut registry = admin::registry("api-server", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::register(&mut registry);
    let listener = serve::bind(address).map_err(RunError::Listen)?;
    let address = listener.local_addr().map_err(RunError::Listen)?;
    tracing::info!(%address, "serving probes and metrics");
    let serving = admin::serve_on(listener, Arc::new(registry), readiness.clone(), stop.clone());
    tasks.spawn(async {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the listener for metrics and probes failed");
        }
    });
    Ok(metrics)
}
