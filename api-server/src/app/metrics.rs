//! The numbers that `/metrics` shows. Labels are route templates and codes, never names.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::error::ApiError;
use crate::mail::Fate;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailLabels {
    fate: &'static str,
}

/// Clones share their numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    refused: Counter,
    rate_limited: Counter,
    open_polls: Gauge,
    mails: Family<MailLabels, Counter>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        // From a read that hits the cache to the time limit; long polls fall into the last bucket.
        let buckets = || Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0]);
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            refused: Counter::default(),
            rate_limited: Counter::default(),
            open_polls: Gauge::default(),
            mails: Family::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's headers to the answer's",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "credentials_refused",
            "Requests without a valid credential",
            metrics.refused.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests refused because a key or address had used up its share",
            metrics.rate_limited.clone(),
        );
        registry.register("open_polls", "Long polls that wait now", metrics.open_polls.clone());
        registry.register(
            "login_mails",
            "Login codes by what became of their mail: sent, unwanted, refused, failed",
            metrics.mails.clone(),
        );
        metrics
    }

    pub fn answered(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let labels = RequestLabels {
            method: known(method),
            route: route.to_owned(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            route: route.to_owned(),
        };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts a credential check that let nobody in.
    pub fn refused(&self, error: &ApiError) {
        match error {
            ApiError::Unauthorized => self.refused.inc(),
            ApiError::RateLimited { .. } => self.rate_limited.inc(),
            _ => return,
        };
    }

    /// Counts a mail by what became of it.
    pub fn mail(&self, fate: Fate) {
        self.mails.get_or_create(&MailLabels { fate: fate.as_str() }).inc();
    }

    /// Counts a poll for as long as the answer lives.
    pub fn poll(&self) -> OpenPoll {
        self.open_polls.inc();
        OpenPoll(self.open_polls.clone())
    }
}

/// A long poll that waits.
#[derive(Debug)]
pub struct OpenPoll(Gauge);

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A method by name; any word can stand in a request, and each would be a new series.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
