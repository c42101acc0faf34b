//! What the outside may know: probes and metrics. No name of a secret is among them, unless somebody asks for versions.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use jiff::SignedDuration;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use sealpod_core::Time;
use sealpod_runtime::admin::{self, Readiness};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gate::{self, Gate};

/// How often an occupied port is tried again.
const PORT_RETRY: Duration = Duration::from_secs(10);

/// What became of a fetch: the label `result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Updated,
    Unchanged,
    /// "Nothing changed", sooner than asked.
    Early,
    /// No answer that counts.
    Away,
    /// 401: the key is unknown, expired or revoked.
    Unauthorized,
    /// 403: the key may not read this.
    Forbidden,
    /// Any other no: 404, 400.
    Refused,
    /// The answer could not be written.
    Unwritable,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Early => "early",
            Self::Away => "away",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::Unwritable => "unwritable",
        }
    }
}

type Counts = Family<Vec<(&'static str, String)>, Counter>;

/// Most keys of a binding whose versions are shown.
const MAX_VERSIONS: usize = 50;
/// Characters of a key in a label.
const MAX_KEY: usize = 200;

/// How one binding is doing, written by its agent.
#[derive(Debug)]
pub struct Status {
    binding: String,
    fetches: Counts,
    notifications: Counts,
    readiness: Readiness,
    /// When the process began: what ages are counted by, because clocks jump.
    began: Instant,
    /// Whether everything that pods wait for has been there.
    open: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Since `began`, when the files were last known to be what the server has; before it for those of a former process.
    confirmed: Option<SignedDuration>,
    /// The same by the clock.
    at: Option<Time>,
    /// Version of each secret that is delivered.
    versions: BTreeMap<String, u64>,
}

impl Status {
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Once open, a binding stays open: a pod that runs is not taken out of service for an edit that asks for more.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
        self.readiness.clear(&self.binding);
    }

    /// Takes the pod out of service although its files have been there: `reason` is for people.
    pub fn close(&self, reason: impl Into<String>) {
        self.readiness.block(&self.binding, reason);
    }

    /// What people should know although the pod is in service.
    pub fn warn(&self, what: impl Into<String>) {
        self.readiness.warn(&self.binding, what);
    }

    /// All is well again: nothing to warn of, and what was closed is open.
    pub fn settle(&self) {
        self.readiness.settle(&self.binding);
        if self.is_open() {
            self.readiness.clear(&self.binding);
        }
    }

    /// The files are what the server has, as of now.
    pub fn succeeded(&self) {
        self.known_since(Duration::ZERO);
    }

    /// As [`Status::succeeded`], some time ago.
    pub fn known_since(&self, age: Duration) {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let mut known = self.known();
        known.confirmed = Some(self.now().saturating_sub(age));
        known.at = Some(Time::now().plus_seconds(age.as_secs().saturating_neg()));
    }

    pub fn loaded(&self, versions: &BTreeMap<String, u64>) {
        self.known().versions.clone_from(versions);
    }

    pub fn count(&self, outcome: Outcome) {
        self.add(&self.fetches, outcome.label());
    }

    /// Whether the app could be told of a change.
    pub fn notified(&self, told: bool) {
        self.add(&self.notifications, if told { "told" } else { "failed" });
    }

    fn add(&self, counts: &Counts, result: &str) {
        let labels = vec![("binding", self.binding.clone()), ("result", result.to_owned())];
        counts.get_or_create(&labels).inc();
    }

    fn now(&self) -> SignedDuration {
        SignedDuration::try_from(self.began.elapsed()).unwrap_or(SignedDuration::MAX)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Whole after every single step, so a panic elsewhere cannot have broken it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The registry, the readiness and the status of each binding, in their order.
pub struct Health {
    registry: Arc<Registry>,
    readiness: Readiness,
}

impl Health {
    /// `versions`: whether the metrics also tell the version of each key.
    pub fn new<'a>(bindings: impl IntoIterator<Item = &'a str>, versions: bool) -> (Self, Vec<Arc<Status>>) {
        let readiness = Readiness::new();
        let (fetches, notifications) = (Counts::default(), Counts::default());
        let statuses: Vec<_> = bindings
            .into_iter()
            .map(|binding| {
                readiness.block(binding, "its files are not there yet");
                Arc::new(Status {
                    binding: binding.to_owned(),
                    fetches: fetches.clone(),
                    notifications: notifications.clone(),
                    readiness: readiness.clone(),
                    began: Instant::now(),
                    open: AtomicBool::new(false),
                    known: Mutex::default(),
                })
            })
            .collect();
        let mut registry = admin::registry("sidecar", env!("CARGO_PKG_VERSION"));
        registry.register(
            "sidecar_fetch",
            "Questions to the api-server, by what became of them",
            fetches,
        );
        registry.register(
            "sidecar_notify",
            "Changes that the app was to be told of, by whether it could be",
            notifications,
        );
        registry.register_collector(Box::new(Ages(statuses.clone())));
        if versions {
            registry.register_collector(Box::new(Versions(statuses.clone())));
        }
        let health = Self {
            registry: Arc::new(registry),
            readiness,
        };
        (health, statuses)
    }

    /// Serves on every address of the pod, and looks whether the gate is open, once for all who ask.
    pub async fn serve(self, port: u16, gate: Gate, shutdown: CancellationToken) {
        let (tell, opened) = watch::channel(false);
        let router = admin::router(self.registry, self.readiness).merge(gate::router(opened));
        // Dropped at the stop, which ends all waiting.
        let opening = async move {
            gate.opened().await;
            tell.send_replace(true);
        };
        tokio::join!(shutdown.run_until_cancelled(opening), listen(port, &router, &shutdown));
    }
}

/// A port that somebody else has does not stop the files: it is told once and tried again.
async fn listen(port: u16, router: &Router, shutdown: &CancellationToken) {
    let mut told = false;
    loop {
        let served = match bind(port) {
            Ok(listener) => admin::serve_router(listener, router.clone(), shutdown.clone()).await,
            Err(error) => Err(error),
        };
        match served {
            Ok(()) => return,
            Err(error) if !told => {
                tracing::error!(%error, "no probes and metrics until the port is free");
                told = true;
            }
            Err(_) => {}
        }
        if shutdown
            .run_until_cancelled(tokio::time::sleep(PORT_RETRY))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// On IPv6 and IPv4; on IPv4 alone where the node has no IPv6.
fn bind(port: u16) -> std::io::Result<std::net::TcpListener> {
    let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    match sealpod_runtime::serve::bind(both) {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => sealpod_runtime::serve::bind(v4),
        bound => bound,
    }
}

/// Numbers that depend on when one looks.
#[derive(Debug)]
struct Ages(Vec<Arc<Status>>);

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Time since the files were last known to be what the api-server has";
        let mut age = encoder.encode_descriptor("sidecar_secret_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for status in &self.0 {
            if let Some(confirmed) = status.known().confirmed {
                let seconds = status.now().saturating_sub(confirmed).as_secs_f64().max(0.0);
                let labels = [("binding", status.binding.as_str())];
                ConstGauge::new(seconds).encode(age.encode_family(&labels)?)?;
            }
        }
        let help = "When the files were last known to be what the api-server has, in seconds since 1970";
        let mut success = encoder.encode_descriptor("sidecar_last_success_timestamp", help, None, MetricType::Gauge)?;
        for status in &self.0 {
            if let Some(at) = status.known().at {
                // Microseconds to seconds; 2^53 of them is the year 2255.
                #[allow(clippy::cast_precision_loss)]
                let seconds = at.microseconds() as f64 / 1e6;
                let labels = [("binding", status.binding.as_str())];
                ConstGauge::new(seconds).encode(success.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// What is delivered, by key: for those who would rather see it than hide which keys there are.
#[derive(Debug)]
struct Versions(Vec<Arc<Status>>);

impl Collector for Versions {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Version of each secret that is delivered, of at most 50";
        let mut versions = encoder.encode_descriptor("sidecar_version", help, None, MetricType::Gauge)?;
        for status in &self.0 {
            for (key, version) in status.known().versions.iter().take(MAX_VERSIONS) {
                let key: String = key.chars().filter(|c| !c.is_control()).take(MAX_KEY).collect();
                let labels = [("binding", status.binding.as_str()), ("key", key.as_str())];
                ConstGauge::new(i64::try_from(*version).unwrap_or(i64::MAX))
                    .encode(versions.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_tell_age_success_and_results_by_binding() {
        let (health, statuses) = Health::new(["db", "mail"], true);
        assert!(!health.readiness.is_ready());
        statuses[0].known_since(Duration::from_mins(1));
        statuses[0].loaded(&BTreeMap::from([("pass\"word\n".to_owned(), 3)]));
        statuses[0].count(Outcome::Updated);
        statuses[0].count(Outcome::Updated);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &health.registry).unwrap();
        assert!(
            text.contains(r#"sealpod_sidecar_fetch_total{binding="db",result="updated"} 2"#),
            "{text}"
        );
        let age = text
            .lines()
            .find_map(|line| line.strip_prefix(r#"sealpod_sidecar_secret_age_seconds{binding="db"} "#));
        assert!((60.0..70.0).contains(&age.unwrap().parse::<f64>().unwrap()), "{text}");
        assert!(
            text.contains(r#"sealpod_sidecar_last_success_timestamp{binding="db"} 1"#),
            "{text}"
        );
        assert!(!text.contains(r#"age_seconds{binding="mail"}"#), "never is no age");
        assert!(
            text.contains(r#"sidecar_version{binding="db",key="pass\"word"} 3"#),
            "{text}"
        );
        for status in &statuses {
            status.open();
        }
        assert!(health.readiness.is_ready());
        statuses[0].close("too old");
        statuses[1].warn("look");
        assert!(!health.readiness.is_ready());
        statuses[0].settle();
        assert!(health.readiness.is_ready() && health.readiness.warnings().len() == 1);
    }

    #[test]
    fn versions_are_shown_only_where_somebody_asked_for_them() {
        let (health, statuses) = Health::new(["db"], false);
        statuses[0].loaded(&BTreeMap::from([("canary".to_owned(), 3)]));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &health.registry).unwrap();
        assert!(!text.contains("canary"), "{text}");
    }
}
