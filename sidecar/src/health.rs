//! What the outside may know: probes and metrics. No name of a secret is among them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use sealpod_core::Time;
use sealpod_runtime::admin::{self, Readiness};
use tokio_util::sync::CancellationToken;

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
    /// 401, 403, 404, 400.
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
            Self::Refused => "refused",
            Self::Unwritable => "unwritable",
        }
    }
}

type Fetches = Family<Vec<(&'static str, String)>, Counter>;

/// How one binding is doing, written by its agent.
#[derive(Debug)]
pub struct Status {
    binding: String,
    fetches: Fetches,
    readiness: Readiness,
    /// Whether everything that pods wait for has been there.
    open: AtomicBool,
    /// Microseconds since 1970 at which the files were last known to be what the server has; 0 for never.
    succeeded: AtomicI64,
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

    pub fn succeeded(&self, at: Time) {
        self.succeeded.store(at.microseconds(), Ordering::Relaxed);
    }

    pub fn count(&self, outcome: Outcome) {
        let labels = vec![
            ("binding", self.binding.clone()),
            ("result", outcome.label().to_owned()),
        ];
        self.fetches.get_or_create(&labels).inc();
    }
}

/// The registry, the readiness and the status of each binding, in their order.
pub struct Health {
    registry: Arc<Registry>,
    readiness: Readiness,
}

impl Health {
    pub fn new<'a>(bindings: impl IntoIterator<Item = &'a str>) -> (Self, Vec<Arc<Status>>) {
        let readiness = Readiness::new();
        let fetches = Fetches::default();
        let statuses: Vec<_> = bindings
            .into_iter()
            .map(|binding| {
                readiness.block(binding, "its files are not there yet");
                Arc::new(Status {
                    binding: binding.to_owned(),
                    fetches: fetches.clone(),
                    readiness: readiness.clone(),
                    open: AtomicBool::new(false),
                    succeeded: AtomicI64::new(0),
                })
            })
            .collect();
        let mut registry = admin::registry("sidecar", env!("CARGO_PKG_VERSION"));
        registry.register(
            "sidecar_fetch",
            "Questions to the api-server, by what became of them",
            fetches,
        );
        registry.register_collector(Box::new(Ages(statuses.clone())));
        let health = Self {
            registry: Arc::new(registry),
            readiness,
        };
        (health, statuses)
    }

    /// Serves on every address of the pod. A port that somebody else has does not stop the files: it is told once and
    /// tried again.
    pub async fn serve(self, port: u16, shutdown: CancellationToken) {
        let mut told = false;
        loop {
            let served = match bind(port) {
                Ok(listener) => {
                    let (registry, readiness) = (Arc::clone(&self.registry), self.readiness.clone());
                    admin::serve_on(listener, registry, readiness, shutdown.clone()).await
                }
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
        let now = Time::now().microseconds();
        // Microseconds to seconds; 2^53 of them is the year 2255.
        #[allow(clippy::cast_precision_loss)]
        let seconds = |microseconds: i64| microseconds as f64 / 1e6;
        let known = || {
            let statuses = self
                .0
                .iter()
                .map(|status| (status, status.succeeded.load(Ordering::Relaxed)));
            statuses.filter(|(_, at)| *at > 0)
        };
        let help = "Time since the files were last known to be what the api-server has";
        let mut age = encoder.encode_descriptor("sidecar_secret_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (status, at) in known() {
            let labels = [("binding", status.binding.as_str())];
            ConstGauge::new(seconds((now - at).max(0))).encode(age.encode_family(&labels)?)?;
        }
        let help = "When the files were last known to be what the api-server has, in seconds since 1970";
        let mut success = encoder.encode_descriptor("sidecar_last_success_timestamp", help, None, MetricType::Gauge)?;
        for (status, at) in known() {
            let labels = [("binding", status.binding.as_str())];
            ConstGauge::new(seconds(at)).encode(success.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_tell_age_success_and_results_by_binding() {
        let (health, statuses) = Health::new(["db", "mail"]);
        assert!(!health.readiness.is_ready());
        statuses[0].succeeded(Time::now().plus_seconds(-60));
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
        for status in &statuses {
            status.open();
        }
        assert!(health.readiness.is_ready());
    }
}
