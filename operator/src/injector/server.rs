//! The webhook's HTTP side. Every pod of the cluster can reach it, so a request is hostile until its path is ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use sealpod_runtime::serve::Connection;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Settings;
use super::cache::Cache;
use super::denial::Denial;
use super::lines::{self, Line, Lines};
use super::metrics::Metrics;
use super::review::{self, Decision, Malformed, Request};

/// The largest request that etcd could hold as an object, twice, for the object and what the review adds.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// The webhook configuration's `timeoutSeconds`: after that nobody waits for the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of all bodies that are held at once. Each counts twice, as it came and in one piece.
const TEXTS: usize = 12 * MIB;
/// Bytes of all pods that are read from them at once, by what they weigh.
const PODS: usize = 24 * MIB;
/// The heaviest pod that is read; one of fifty containers weighs a tenth of it.
const HEAVIEST_POD: usize = 16 * MIB;
const MIB: usize = 1024 * 1024;
/// What a permit stands for.
const PERMIT: usize = 1024;
/// `kubectl apply` of a binding and a pod in one go: the pod may be here before the watch has brought the binding. So a
/// refusal for want of a binding waits this long for it.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_STEP: Duration = Duration::from_millis(50);
/// Requests that wait at once; further ones are refused without delay, and heavier ones too.
const PATIENT: usize = 16;
const HEAVIEST_PATIENT: usize = MIB / 2;

/// What the handler needs.
pub struct Webhook {
    cache: Cache,
    settings: Settings,
    metrics: Metrics,
    lines: Lines,
    /// The random part of the path; replaced if its Secret is.
    segment: Arc<ArcSwap<String>>,
    deadline: Duration,
    texts: Semaphore,
    pods: Semaphore,
    patient: Semaphore,
}

impl Webhook {
    pub fn new(cache: Cache, settings: Settings, metrics: Metrics, segment: Arc<ArcSwap<String>>) -> Self {
        Self {
            cache,
            settings,
            metrics,
            lines: Lines::default(),
            segment,
            deadline: DEADLINE,
            texts: Semaphore::new(TEXTS / PERMIT),
            pods: Semaphore::new(PODS / PERMIT),
            patient: Semaphore::new(PATIENT),
        }
    }

    /// 1. The body is read when there is room for it, and all of it but the pod is parsed.
    /// 2. The pod is weighed, and read when there is room for that.
    /// 3. The decision is taken; for want of a binding, again when the bindings have changed, for a while.
    async fn answer(&self, body: Body) -> Result<Response, Refusal> {
        let size = body.size_hint().upper().map_or(MAX_BODY_BYTES, bytes);
        if size > MAX_BODY_BYTES {
            return Err(Refusal::Body);
        }
        let text = take(&self.texts, 2 * size).await?;
        let body = to_bytes(body, MAX_BODY_BYTES).await.map_err(|_| Refusal::Body)?;
        let begun = Instant::now();
        let unread = review::open(&body)?;
        let weight = unread.weight();
        if weight > HEAVIEST_POD {
            let request = unread.without_pod();
            return Ok(self.respond(&request, Decision::Denied(Denial::TooLarge), begun));
        }
        let pod = take(&self.pods, weight).await?;
        let request = unread.read()?;
        drop(body);
        drop(text);
        let mut known = self.cache.of(&request.namespace);
        let mut decision = review::decide(&request, &known, &self.settings);
        if weight <= HEAVIEST_PATIENT
            && is_for_want_of_a_binding(&decision)
            && let Ok(_patient) = self.patient.try_acquire()
        {
            drop(pod);
            while is_for_want_of_a_binding(&decision) && begun.elapsed() < PATIENCE {
                tokio::time::sleep(PATIENCE_STEP).await;
                let now = self.cache.of(&request.namespace);
                if !now.has_bindings_of(&known) {
                    decision = review::decide(&request, &now, &self.settings);
                    known = now;
                }
            }
        }
        Ok(self.respond(&request, decision, begun))
    }

    fn respond(&self, request: &Request, decision: Decision, begun: Instant) -> Response {
        self.record(request, &decision, begun.elapsed());
        Json(review::answer(request, decision)).into_response()
    }

    fn record(&self, request: &Request, decision: &Decision, took: Duration) {
        let namespace = request.namespace.as_str();
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let result = match decision {
            Decision::Injected { .. } => "injected",
            Decision::Unchanged { .. } => "unchanged",
            Decision::Denied(_) => "denied",
        };
        match decision {
            Decision::Denied(denial) => self.refuse(request, denial, took_us),
            Decision::Injected { warnings, .. } | Decision::Unchanged { warnings } => {
                tracing::debug!(namespace, took_us, result, "admitted a pod");
                self.warn(request, warnings);
            }
        }
        self.metrics.admission(result, took);
        if let Decision::Denied(denial) = decision {
            self.metrics.denial(denial.word());
        }
    }

    /// A controller tries again and again, and says so nowhere but in its own status: once of all pods of a kind.
    fn refuse(&self, request: &Request, denial: &Denial, took_us: u64) {
        let namespace = request.namespace.as_str();
        let said = [denial.to_string()];
        if let Some(line) = self.lines.of(request.pod(), namespace, &said, Instant::now()) {
            let Line {
                pod,
                texts: denial,
                left_out,
            } = line;
            tracing::info!(namespace, pod, took_us, denial, left_out, "refused a pod");
        }
    }

    /// Of one that is not made, only who asks is told.
    fn warn(&self, request: &Request, warnings: &[String]) {
        if warnings.is_empty() || request.dry_run {
            return;
        }
        if lines::is_first(request.pod()) {
            self.metrics.warnings(warnings.len());
        }
        let namespace = request.namespace.as_str();
        let line = self.lines.of(request.pod(), namespace, warnings, Instant::now());
        if let Some(Line {
            pod,
            texts: warnings,
            left_out,
        }) = line
        {
            tracing::info!(namespace, pod, warnings, left_out, "admitted a pod with warnings");
        }
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// Room for so many bytes, as soon as there is. All of it is asked for at once, and who holds room for a pod asks for none
/// for a text, so nobody waits for somebody who waits.
async fn take(room: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, Refusal> {
    let permits = u32::try_from(bytes.div_ceil(PERMIT)).map_err(|_| Refusal::Body)?;
    room.acquire_many(permits).await.map_err(|_| Refusal::Late)
}

fn is_for_want_of_a_binding(decision: &Decision) -> bool {
    matches!(
        decision,
        Decision::Denied(Denial::UnknownBinding { .. } | Denial::NoBinding { .. })
    )
}

/// Why a request gets no decision. Fixed texts: nothing of the request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the body is larger than 3 MiB, or broke off")]
    Body,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("no answer in time")]
    Late,
}

impl Refusal {
    fn status(self) -> StatusCode {
        match self {
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `POST /mutate/<segment>`; all else is 404.
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new()
        .route("/mutate/{segment}", post(mutate))
        .method_not_allowed_fallback(|| std::future::ready(StatusCode::NOT_FOUND))
        .with_state(webhook)
}

async fn mutate(
    State(webhook): State<Arc<Webhook>>,
    Path(segment): Path<String>,
    connection: Option<Extension<Connection>>,
    body: Body,
) -> Response {
    // Before a byte of the body is read.
    if !bool::from(segment.as_bytes().ct_eq(webhook.segment.load().as_bytes())) {
        return StatusCode::NOT_FOUND.into_response();
    }
    // Who knows the path is the API server, and may stay.
    if let Some(Extension(connection)) = connection {
        connection.known();
    }
    let begun = Instant::now();
    let answer = tokio::time::timeout(webhook.deadline, webhook.answer(body)).await;
    answer.unwrap_or(Err(Refusal::Late)).unwrap_or_else(|refusal| {
        tracing::warn!(%refusal, "a request to the webhook got no decision");
        webhook.metrics.admission("invalid", begun.elapsed());
        (refusal.status(), refusal.to_string()).into_response()
    })
}

#[cfg(test)]
mod tests;
