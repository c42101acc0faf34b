//! The injector's process: its tasks, from the first to the last.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use kube::Client;
use sealpod_runtime::admin::{self, Readiness};
use sealpod_runtime::{serve, shutdown, tls};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cache::{self, Cache};
use super::callers::Callers;
use super::certs::{Current, Keeper, Lives, Names, Source};
use super::metrics::Metrics;
use super::server::{Webhook, router};
use super::version::TooOld;
use super::{Settings, SidecarLog, version};
use crate::cli::{Certificates, InjectorArgs};

const READINESS: &str = "webhook";
/// Between what is registered and the certificate that needs it: API servers hear of the one by a watch of their own.
const TAKE_UP: Duration = Duration::from_secs(2);
/// After a failure, doubled each time up to the longest; until the first certificate no pod that asks for injection is
/// admitted, so that is short.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How long it still serves after the stop signal: the API servers learn with a delay that it is going, and a request
/// that finds nobody refuses a pod.
const LINGER: Duration = Duration::from_secs(5);
const DRAIN: Duration = Duration::from_secs(5);
/// Connections of one source on which nobody has asked on the path that only the API server knows, once half of all are
/// taken, and how long each may stay. One of its requests is enough; where there is room it may begin with as many at once as
/// it likes.
const STRANGERS_PER_SOURCE: usize = 64;
const STRANGER_TIME: Duration = Duration::from_mins(2);

/// Serves the webhook until SIGTERM.
pub async fn run(args: InjectorArgs) -> anyhow::Result<()> {
    let InjectorArgs {
        listen,
        metrics_listen,
        server_url,
        sidecar_image,
        sidecar_image_pull_policy,
        sidecar_log,
        sidecar_log_format,
        webhook_configuration,
        webhook_service,
        certificates,
        ca_secret,
        tls_secret,
        certificate_life,
        authority_life,
        client_ca_file,
        client_name,
        namespace,
    } = args;
    let log = SidecarLog {
        filter: sidecar_log,
        format: sidecar_log_format,
    };
    let settings = Settings::new(&server_url, &sidecar_image, &sidecar_image_pull_policy, log)?;
    let lives = Lives::new(authority_life, certificate_life)?;
    let source = match certificates {
        Certificates::Own => Source::Own(lives),
        Certificates::Given => Source::Given,
    };
    let callers = client_ca_file
        .map(|file| Callers::read(&file, client_name))
        .transpose()?;
    let webhook_listener = serve::bind(listen)?;
    let admin_listener = serve::bind(metrics_listen)?;
    let stop = shutdown::signalled();
    let client = Client::try_default().await.context("cannot find the Kubernetes API")?;
    let names = Names {
        namespace,
        authority_secret: ca_secret,
        certificate_secret: tls_secret,
        configuration: webhook_configuration,
        service: webhook_service,
    };
    let mut registry = admin::registry("injector", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::new();
    // Before the first probe can ask.
    readiness.block(READINESS, "the certificates are not looked at yet");
    let last = linger(&stop, &readiness);

    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let admin = admin::serve_on(admin_listener, Arc::new(registry), readiness.clone(), last.clone());
    tasks.spawn(async move { Ok(admin.await?) });
    let (cache, fill) = cache::follow(&client, &readiness, last.clone());
    tasks.spawn(async move {
        fill.await;
        Ok(())
    });
    let keeping = Keeping {
        keeper: Keeper::new(client.clone(), names, source),
        client,
        check: lives.check(),
        cache: cache.clone(),
        readiness,
        metrics: metrics.clone(),
    };
    let listening = Listening {
        listener: webhook_listener,
        limits: limits(serve::Limits::default().connections),
        callers,
    };
    let serving = keep_and_serve(keeping, listening, last.clone(), move |segment| {
        Webhook::new(cache, settings, metrics, segment)
    });
    tasks.spawn(serving);

    // Each task lives until the end: one that ends before, or fails, takes the process with it.
    let first = tasks.join_next().await;
    last.cancel();
    let mut outcome = first.map_or(Ok(Ok(())), |joined| joined)?;
    while let Some(joined) = tasks.join_next().await {
        outcome = outcome.and(joined?);
    }
    outcome
}

/// Not ready at once when the stop comes, but at work for a little longer.
fn linger(stop: &CancellationToken, readiness: &Readiness) -> CancellationToken {
    let last = CancellationToken::new();
    let (stop, readiness, token) = (stop.clone(), readiness.clone(), last.clone());
    // Ends with the process, which `last` ends.
    tokio::spawn(async move {
        stop.cancelled().await;
        readiness.block("stop", "stopping");
        tokio::time::sleep(LINGER).await;
        token.cancel();
    });
    last
}

/// What the listener bounds. Every pod of the cluster can reach it, so whoever does not ask as the API server does must not
/// take the places that it needs.
fn limits(connections: usize) -> serve::Limits {
    serve::Limits {
        connections,
        strangers: Some(serve::Strangers {
            per_source: STRANGERS_PER_SOURCE,
            from: connections / 2,
            time: STRANGER_TIME,
            exempt: Arc::new(|_| false),
        }),
        ..serve::Limits::default()
    }
}

/// Where requests come in, and from whom.
struct Listening {
    listener: TcpListener,
    limits: serve::Limits,
    callers: Option<Callers>,
}

/// What is served: the certificate, and the path under which requests are answered.
struct Served {
    current: Current,
    tls: RustlsConfig,
    segment: Arc<ArcSwap<String>>,
    callers: Option<Callers>,
    /// Whether it has been said that the file of `callers` is of no use any more.
    callers_lost: bool,
}

impl Served {
    fn new(first: Current, callers: Option<Callers>) -> anyhow::Result<Self> {
        let config = server_config(&first, callers.as_ref())?;
        Ok(Self {
            tls: RustlsConfig::from_config(Arc::new(config)),
            segment: Arc::new(ArcSwap::from_pointee(first.segment.clone())),
            current: first,
            callers,
            callers_lost: false,
        })
    }

    /// New connections get the new certificate; those that are open go on.
    fn take_up(&mut self, new: Current) -> anyhow::Result<()> {
        let config = server_config(&new, self.callers.as_ref())?;
        self.tls.reload_from_config(Arc::new(config));
        self.segment.store(Arc::new(new.segment.clone()));
        self.current = new;
        Ok(())
    }

    /// Has new connections held to the CA that the file of client certificates holds now. Where it holds none that is of
    /// use, the one before goes on: the API server's certificate may still be of that.
    fn follow_callers(&mut self) {
        match self.changed_callers() {
            Ok(Some((callers, config))) => {
                self.tls.reload_from_config(Arc::new(config));
                self.callers = Some(callers);
                tracing::info!("requests are held to the new CA of client certificates");
            }
            Ok(None) => {}
            Err(error) => {
                if !self.callers_lost {
                    tracing::warn!(%error, "cannot follow the CA of client certificates; going on with the one before");
                }
                self.callers_lost = true;
                return;
            }
        }
        self.callers_lost = false;
    }

    fn changed_callers(&self) -> anyhow::Result<Option<(Callers, rustls::ServerConfig)>> {
        let changed = self.callers.as_ref().map(Callers::changed).transpose()?;
        let Some(callers) = changed.flatten() else {
            return Ok(None);
        };
        let config = server_config(&self.current, Some(&callers))?;
        Ok(Some((callers, config)))
    }
}

fn server_config(current: &Current, callers: Option<&Callers>) -> anyhow::Result<rustls::ServerConfig> {
    let mut config = tls::server_config(current.pair.certificate.as_bytes(), current.pair.key.as_bytes())?;
    if let Some(callers) = callers {
        callers.require(&mut config)?;
    }
    Ok(config)
}

/// Waits for the first certificate, then serves, and keeps the certificate current beside it. An error where the cluster
/// is too old.
async fn keep_and_serve(
    keeping: Keeping,
    listening: Listening,
    stop: CancellationToken,
    webhook: impl FnOnce(Arc<ArcSwap<String>>) -> Webhook,
) -> anyhow::Result<()> {
    let Some(first) = stop.run_until_cancelled(keeping.first()).await else {
        return Ok(());
    };
    let Listening {
        listener,
        limits,
        callers,
    } = listening;
    let served = Served::new(first?, callers)?;
    let router = router(Arc::new(webhook(Arc::clone(&served.segment))));
    tracing::info!(listen = %listener.local_addr()?, "serving the webhook");
    let serving = serve::run_within(listener, Some(served.tls.clone()), router, limits, stop, DRAIN);
    keeping.readiness.clear(READINESS);
    tokio::select! {
        ended = serving => Ok(ended?),
        never = keeping.follow(served) => match never {},
    }
}

struct Keeping {
    client: Client,
    keeper: Keeper,
    /// Time between two looks.
    check: Duration,
    cache: Cache,
    readiness: Readiness,
    metrics: Metrics,
}

impl Keeping {
    async fn first(&self) -> Result<Current, TooOld> {
        // Before anything is made in a cluster where nothing of it would work.
        version::require(&self.client).await?;
        let mut retry = FIRST_RETRY;
        let mut last_error = String::new();
        loop {
            match self.keep().await {
                Ok(current) => return Ok(current),
                Err(error) => {
                    let text = error.to_string();
                    if text != last_error {
                        tracing::warn!(error = text, "the webhook is not ready; trying again");
                    }
                    self.readiness.block(READINESS, text.as_str());
                    last_error = text;
                }
            }
            tokio::time::sleep(retry).await;
            retry = longer(retry);
        }
    }

    /// Puts drift back and takes up what is new. Failures do not end the readiness: the API server still trusts what is
    /// served, and a replica that steps back would leave the work to none.
    async fn follow(&self, served: Served) -> Infallible {
        let changed = Notify::new();
        tokio::select! {
            never = self.keeper.watch(&changed) => never,
            never = self.look(served, &changed) => never,
        }
    }

    /// Looks when the time has come, and when the webhook configuration has changed: with another CA or path in it, no pod
    /// that asks is admitted.
    async fn look(&self, mut served: Served, changed: &Notify) -> Infallible {
        let mut failing = false;
        loop {
            // Somebody who keeps writing something else into it is answered twice a second at most.
            tokio::time::sleep(FIRST_RETRY).await;
            let pause = self.pause(&served.current, Timestamp::now());
            let _ = tokio::time::timeout(pause, changed.notified()).await;
            self.metrics.bindings(self.cache.bindings());
            served.follow_callers();
            let new = match self.keep().await {
                Ok(new) => new,
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot check the webhook's certificates; trying again");
                    }
                    failing = true;
                    continue;
                }
            };
            failing = false;
            if new == served.current {
                continue;
            }
            tokio::time::sleep(TAKE_UP).await;
            match served.take_up(new) {
                Ok(()) => tracing::info!("serving the webhook's new certificate"),
                Err(error) => {
                    tracing::error!(%error, "the webhook's new certificate does not work; going on with the old");
                }
            }
        }
    }

    /// Until the next look: sooner where what is served does not live long, by whomever it was made.
    fn pause(&self, current: &Current, now: Timestamp) -> Duration {
        let left = current.certificate_until.as_second().saturating_sub(now.as_second());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        self.check.min(left / 10).max(FIRST_RETRY)
    }

    async fn keep(&self) -> Result<Current, super::certs::KeepError> {
        let current = self.keeper.keep(Timestamp::now()).await?;
        if let Some(until) = current.authority_until {
            self.metrics.expiry("ca", until);
        }
        self.metrics.expiry("serving", current.certificate_until);
        Ok(current)
    }
}

fn longer(retry: Duration) -> Duration {
    (retry * 2).min(LONGEST_RETRY)
}

#[cfg(test)]
mod tests;
