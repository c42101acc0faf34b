//! The numbers that `/metrics` shows. Labels are route templates, codes and kinds, never names.

mod backups;
mod reports;
mod store;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::Method;
use axum::response::Response;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sealpod_core::Time;

use crate::audit::ActorKind;
use crate::error::Code;
use crate::mail::Fate;
use crate::reports::Reports;
use crate::store::{Meters, Store};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
    /// The kind of credential that got in, or `none`.
    caller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailLabels {
    fate: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

/// Clones share their numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram>,
    problems: Family<CodeLabels, Counter>,
    open_polls: Gauge,
    mails: Family<MailLabels, Counter>,
    live_sessions: Gauge,
    meters: Meters,
    /// Empty until the database is open.
    store: Arc<OnceLock<Store>>,
    reports: Arc<OnceLock<Reports>>,
    backups: backups::Figures,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        // From a read that hits the cache to the time limit; long polls fall into the last bucket.
        let buckets = || {
            Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
            ])
        };
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            problems: Family::default(),
            open_polls: Gauge::default(),
            mails: Family::default(),
            live_sessions: Gauge::default(),
            meters: Meters::default(),
            store: Arc::default(),
            reports: Arc::default(),
            backups: backups::Figures::default(),
        };
        metrics.register_requests(registry);
        register_meters(registry, &metrics.meters);
        registry.register_collector(Box::new(store::Figures(Arc::clone(&metrics.store))));
        registry.register_collector(Box::new(reports::Figures(Arc::clone(&metrics.reports))));
        registry.register_collector(Box::new(metrics.backups.clone()));
        metrics
    }

    fn register_requests(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Requests answered, by the kind of credential that was accepted",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's headers to the answer's",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register(
            "http_problems",
            "Requests that were refused or failed, by the code of the answer",
            self.problems.clone(),
        );
        registry.register("open_polls", "Long polls that wait now", self.open_polls.clone());
        registry.register(
            "login_mails",
            "Login codes by what became of their mail: sent, unwanted, refused, failed",
            self.mails.clone(),
        );
        registry.register(
            "live_sessions",
            "Sessions that have not expired, counted twice a minute",
            self.live_sessions.clone(),
        );
    }

    /// Where the store is to keep what it measures.
    pub fn meters(&self) -> Meters {
        self.meters.clone()
    }

    /// Shows the figures of the store and of the reports from here on.
    pub fn show(&self, store: Store, reports: Reports) {
        // There is one of each a process; a second one would not be the one that serves.
        self.store.set(store).ok();
        self.reports.set(reports).ok();
    }

    pub fn answered(&self, method: &Method, route: &str, response: &Response, elapsed: Duration) {
        let (method, extensions) = (known(method), response.extensions());
        let labels = RequestLabels {
            method,
            route: route.to_owned(),
            status: response.status().as_u16(),
            caller: extensions.get::<ActorKind>().map_or("none", |kind| kind.as_str()),
        };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels {
            method,
            route: labels.route,
        };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
        if let Some(Code(code)) = extensions.get() {
            self.problems.get_or_create(&CodeLabels { code }).inc();
        }
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

    /// The newest backup that is there; none where there is none.
    pub fn newest_backup(&self, made: Option<Time>) {
        self.backups.listed(made);
    }

    /// How the schedule's last turn ended.
    pub fn backup_turn(&self, failed: bool) {
        self.backups.ended(failed);
    }

    pub fn sessions(&self, live: u64) {
        self.live_sessions.set(i64::try_from(live).unwrap_or(i64::MAX));
    }
}

/// What the store keeps itself.
fn register_meters(registry: &mut Registry, meters: &Meters) {
    registry.register_with_unit(
        "store_transaction_duration",
        "Time that a transaction takes before its commit, for which all other changes wait",
        Unit::Seconds,
        meters.transaction_seconds.clone(),
    );
    registry.register_with_unit(
        "store_commit_duration",
        "Time until a transaction is on disk, most of it the disk's own",
        Unit::Seconds,
        meters.commit_seconds.clone(),
    );
    registry.register_with_unit(
        "store_log_duration",
        "Time between two transactions that the write-ahead log takes, for which all other changes wait",
        Unit::Seconds,
        meters.log_seconds.clone(),
    );
    registry.register(
        "store_commit_group_size",
        "Changes and records that one transaction wrote together",
        meters.group_size.clone(),
    );
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
