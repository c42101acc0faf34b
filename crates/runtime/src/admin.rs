//! Probes and metrics, on a listener of their own.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::usage;

const PREFIX: &str = "sealpod";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Probes and scrapes are short; one that is open at the stop is not worth more.
const DRAIN: Duration = Duration::from_millis(200);

/// A registry for one process: every name begins with `sealpod_`, and `sealpod_build_info` is in it.
pub fn registry(component: &'static str, version: &'static str) -> Registry {
    usage::begin();
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register(
        "build",
        "Which program this is",
        Info::new(vec![("component", component), ("version", version)]),
    );
    registry
}

/// Why a process is not ready, by the part that says so, and what people should look at although it is. Clones share
/// their state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    blocked: BTreeMap<String, String>,
    warned: BTreeMap<String, String>,
}

impl Readiness {
    /// Ready until a part objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// `part` is not ready; `reason` is for people and must hold no secret.
    pub fn block(&self, part: &str, reason: impl Into<String>) {
        self.parts().blocked.insert(part.to_owned(), reason.into());
    }

    /// `part` is ready.
    pub fn clear(&self, part: &str) {
        self.parts().blocked.remove(part);
    }

    /// `part` works, but somebody should look at it; `what` is for people and must hold no secret.
    pub fn warn(&self, part: &str, what: impl Into<String>) {
        self.parts().warned.insert(part.to_owned(), what.into());
    }

    /// Nobody need look at `part` any more.
    pub fn settle(&self, part: &str) {
        self.parts().warned.remove(part);
    }

    pub fn is_ready(&self) -> bool {
        self.parts().blocked.is_empty()
    }

    /// Each part that is not ready, with its reason.
    pub fn reasons(&self) -> Vec<(String, String)> {
        pairs(&self.parts().blocked)
    }

    /// Each part that somebody should look at, with what there is to see.
    pub fn warnings(&self) -> Vec<(String, String)> {
        pairs(&self.parts().warned)
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        // The maps are whole after every single step, so a panic elsewhere cannot have broken them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pairs(parts: &BTreeMap<String, String>) -> Vec<(String, String)> {
    parts.iter().map(|(part, text)| (part.clone(), text.clone())).collect()
}

/// 200 `ok`, or 503 with a line for each part that is not ready; then a line for each warning.
impl IntoResponse for &Readiness {
    fn into_response(self) -> Response {
        let mut text = String::new();
        for (part, reason) in self.reasons() {
            let _ = writeln!(text, "{part}: {reason}");
        }
        let status = if text.is_empty() {
            text.push_str("ok\n");
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        for (part, what) in self.warnings() {
            let _ = writeln!(text, "warning: {part}: {what}");
        }
        (status, text).into_response()
    }
}

/// The same for who asks for metrics: the parts, without what people read.
impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for each part that is not ready, and for each that somebody should look at; /readyz says why.";
        let mut problems = encoder.encode_descriptor("problem", help, None, MetricType::Gauge)?;
        for (state, parts) in [("not_ready", self.reasons()), ("warning", self.warnings())] {
            for (part, _) in parts {
                let labels = [("part", part.as_str()), ("state", state)];
                ConstGauge::new(1_i64).encode(problems.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// `/livez` and `/healthz`: the process answers. `/readyz`: it can do its work. `/metrics`: its numbers.
pub fn router(registry: Arc<Registry>, readiness: Readiness) -> Router {
    let mut problems = Registry::with_prefix(PREFIX);
    problems.register_collector(Box::new(readiness.clone()));
    let registries = Arc::new((registry, problems));
    Router::new()
        .route(
            "/metrics",
            get(move || std::future::ready(metrics(&registries.0, &registries.1))),
        )
        .merge(probes(readiness))
}

/// The probes alone, for a listener that serves other things too.
pub fn probes<S: Clone + Send + Sync + 'static>(readiness: Readiness) -> Router<S> {
    Router::new()
        .route("/livez", get(|| std::future::ready("ok\n")))
        .route("/healthz", get(|| std::future::ready("ok\n")))
        .route("/readyz", get(move || std::future::ready((&readiness).into_response())))
}

fn metrics(registry: &Registry, problems: &Registry) -> Response {
    let mut text = String::new();
    // Three registries, one document: what every process has goes by the names that dashboards know, without our prefix.
    let encoded = encode_registry(&mut text, registry)
        .and_then(|()| encode_registry(&mut text, problems))
        .and_then(|()| encode_registry(&mut text, &usage::registry()))
        .and_then(|()| encode_eof(&mut text));
    match encoded {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Binds `address` and serves [`router`] until `shutdown`.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_on(crate::serve::bind(address)?, registry, readiness, shutdown).await
}

/// As [`serve`], on a listener from [`crate::serve::bind`], so that an occupied port is found before work begins.
pub async fn serve_on(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_router(listener, router(registry, readiness), shutdown).await
}

/// As [`serve_on`], for a process that has more to say there than [`router`].
pub async fn serve_router(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    crate::serve::run(listener, None, router, shutdown, DRAIN).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_lists_every_reason_and_liveness_ignores_them() {
        let readiness = Readiness::new();
        let router = router(Arc::new(registry("test", "1.2.3")), readiness.clone());
        assert_eq!(ask(&router, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
        readiness.block("store", "opening");
        readiness.block("lease", "held by another");
        let want = "lease: held by another\nstore: opening\n".to_owned();
        assert_eq!(ask(&router, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, want));
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&router, "/healthz").await.0, StatusCode::OK);
        readiness.clear("store");
        readiness.clear("lease");
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_warning_is_shown_and_does_not_make_it_red() {
        let readiness = Readiness::new();
        let router = router(Arc::new(registry("test", "1.2.3")), readiness.clone());
        readiness.warn("clock", "it jumped");
        let want = "ok\nwarning: clock: it jumped\n".to_owned();
        assert_eq!(ask(&router, "/readyz").await, (StatusCode::OK, want));
        readiness.block("store", "opening");
        let want = "store: opening\nwarning: clock: it jumped\n".to_owned();
        assert_eq!(ask(&router, "/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, want));
        readiness.settle("clock");
        readiness.clear("store");
        assert_eq!(ask(&router, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn problems_are_counted_by_part_without_their_reasons() {
        let readiness = Readiness::new();
        let router = router(Arc::new(registry("test", "1.2.3")), readiness.clone());
        readiness.block("store", "canary");
        readiness.warn("backups", "canary");
        let (_, text) = ask(&router, "/metrics").await;
        for line in [
            r#"sealpod_problem{part="store",state="not_ready"} 1"#,
            r#"sealpod_problem{part="backups",state="warning"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        readiness.clear("store");
        readiness.settle("backups");
        let (_, later) = ask(&router, "/metrics").await;
        assert!(
            !later.contains("sealpod_problem{") && !text.contains("canary"),
            "{later}"
        );
    }

    #[tokio::test]
    async fn metrics_name_the_build_and_end_properly() {
        let router = router(Arc::new(registry("test", "1.2.3")), Readiness::new());
        let (status, text) = ask(&router, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(
            text.contains(r#"sealpod_build_info{component="test",version="1.2.3"} 1"#),
            "{text}"
        );
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        assert!(
            text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1,
            "{text}"
        );
    }
}
