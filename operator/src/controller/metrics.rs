//! The controller's numbers. No label holds an object's name, and reasons are words of ours, so their count is bounded
//! by the number of namespaces.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::conditions::{Status, Wanted};
use super::uid::digest;

type KindLabel = [(&'static str, &'static str); 1];
type KindAnd = [(&'static str, &'static str); 2];
/// Kind, namespace, condition, status, reason.
type ConditionLabels = [(&'static str, String); 5];
/// What objects show. Most of a namespace show the same, which is there once.
#[derive(Debug, Default)]
struct Shown {
    /// By [`key`].
    objects: HashMap<[u8; 16], Arc<Row>>,
    rows: HashSet<Arc<Row>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Row {
    kind: &'static str,
    namespace: Box<str>,
    /// Status and reason by condition.
    conditions: Vec<(&'static str, (Status, &'static str))>,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: Family<KindAnd, Counter>,
    errors: Family<KindAnd, Counter>,
    durations: Family<KindLabel, Histogram, fn() -> Histogram>,
    /// 1 while this replica does the work.
    pub leader: Gauge,
    conditions: Family<ConditionLabels, Gauge>,
    rollouts: Family<KindAnd, Counter>,
    /// Pods that ask for injection and run without it.
    pub missed: Gauge,
    evictions: Family<[(&'static str, &'static str); 1], Counter>,
    expiry: Family<[(&'static str, &'static str); 1], Gauge>,
    /// 1 while the last look at the api-server's certificates has failed.
    pub certificate_failing: Gauge,
    shown: Arc<Mutex<Shown>>,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(histogram),
            leader: Gauge::default(),
            errors: Family::default(),
            conditions: Family::default(),
            rollouts: Family::default(),
            missed: Gauge::default(),
            evictions: Family::default(),
            expiry: Family::default(),
            certificate_failing: Gauge::default(),
            shown: Arc::default(),
        };
        registry.register(
            "resource_condition",
            "How many objects show a condition, by kind, namespace, condition, status and reason",
            metrics.conditions.clone(),
        );
        let registry = registry.sub_registry_with_prefix("controller");
        registry.register(
            "reconcile",
            "Reconciliations by kind and result",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciliations that failed, by kind and reason",
            metrics.errors.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciliations took, by kind",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "rollouts",
            "Workloads that were rolled out anew because a value has changed, by kind and result",
            metrics.rollouts.clone(),
        );
        registry.register(
            "missed_pods",
            "Pods that ask for injection and run without it",
            metrics.missed.clone(),
        );
        registry.register(
            "evictions",
            "Pods without injection that were asked to be evicted, by result",
            metrics.evictions.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the api-server's CA and certificate expire, in Unix time",
            Unit::Seconds,
            metrics.expiry.clone(),
        );
        registry.register(
            "certificate_failing",
            "Whether the api-server's CA and certificate cannot be looked after",
            metrics.certificate_failing.clone(),
        );
        registry.register("leader", "Whether this replica does the work", metrics.leader.clone());
        metrics
    }

    /// `failed` is the reason of a failure.
    pub fn reconciled(&self, kind: &'static str, failed: Option<&'static str>, took: Duration) {
        let result = if failed.is_none() { "ok" } else { "error" };
        if let Some(reason) = failed {
            self.errors.get_or_create(&[("kind", kind), ("reason", reason)]).inc();
        }
        self.reconciles
            .get_or_create(&[("kind", kind), ("result", result)])
            .inc();
        self.durations
            .get_or_create(&[("kind", kind)])
            .observe(took.as_secs_f64());
    }

    /// `kind` is that of the workload.
    pub fn rolled_out(&self, kind: &'static str, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.rollouts.get_or_create(&[("kind", kind), ("result", result)]).inc();
    }

    pub fn evicted(&self, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.evictions.get_or_create(&[("result", result)]).inc();
    }

    pub fn expiry(&self, certificate: &'static str, until: Timestamp) {
        self.expiry
            .get_or_create(&[("certificate", certificate)])
            .set(until.as_second());
    }

    /// Counts what an object (`namespace/name`) shows from now on; conditions that are not in `wanted` stay as they were.
    pub fn shows(&self, kind: &'static str, object: &str, wanted: &[Wanted]) {
        let mut shown = self.shown();
        let key = key(kind, object);
        let before = shown.objects.get(&key).cloned();
        let mut row = before.as_deref().cloned().unwrap_or_else(|| Row::new(kind, object));
        for condition in wanted {
            let now = (condition.status, condition.reason);
            match row.conditions.iter_mut().find(|(kind, _)| *kind == condition.kind) {
                Some((_, shown)) => *shown = now,
                None => row.conditions.push((condition.kind, now)),
            }
        }
        if before.as_deref() == Some(&row) {
            return;
        }
        self.count(&row, 1);
        let row = shown.shared(row);
        shown.objects.insert(key, row);
        if let Some(before) = before {
            self.count(&before, -1);
            shown.let_go(&before);
        }
    }

    /// The object is gone.
    pub fn forget(&self, kind: &'static str, object: &str) {
        let mut shown = self.shown();
        let row = shown.objects.remove(&key(kind, object));
        self.uncount(&mut shown, row);
    }

    /// The [`key`] of each object that shows something.
    pub fn objects(&self) -> HashSet<[u8; 16]> {
        self.shown().objects.keys().copied().collect()
    }

    pub fn forget_all(&self, gone: &HashSet<[u8; 16]>) {
        let mut shown = self.shown();
        for object in gone {
            let row = shown.objects.remove(object);
            self.uncount(&mut shown, row);
        }
        let room = 2 * shown.objects.len();
        shown.objects.shrink_to(room);
    }

    fn uncount(&self, shown: &mut Shown, row: Option<Arc<Row>>) {
        if let Some(row) = row {
            self.count(&row, -1);
            shown.let_go(&row);
        }
    }

    /// What counts nothing goes: namespaces come and go.
    fn count(&self, row: &Row, by: i64) {
        for condition in &row.conditions {
            let labels = row.labels(*condition);
            let gauge = self.conditions.get_or_create_owned(&labels);
            if gauge.inc_by(by) + by == 0 {
                self.conditions.remove(&labels);
            }
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn shared(&mut self, row: Row) -> Arc<Row> {
        if let Some(same) = self.rows.get(&row) {
            return Arc::clone(same);
        }
        let row = Arc::new(row);
        self.rows.insert(Arc::clone(&row));
        row
    }

    /// Drops what no object shows any more.
    fn let_go(&mut self, row: &Arc<Row>) {
        if Arc::strong_count(row) == 2 {
            self.rows.remove(row);
        }
    }
}

impl Row {
    fn new(kind: &'static str, object: &str) -> Self {
        let namespace = object.split_once('/').map_or(object, |(namespace, _)| namespace);
        Self {
            kind,
            namespace: namespace.into(),
            conditions: Vec::new(),
        }
    }

    fn labels(&self, (condition, (status, reason)): (&str, (Status, &str))) -> ConditionLabels {
        [
            ("kind", self.kind.to_owned()),
            ("namespace", self.namespace.to_string()),
            ("condition", condition.to_owned()),
            ("status", status.as_str().to_owned()),
            ("reason", reason.to_owned()),
        ]
    }
}

/// `object` is `namespace/name`.
pub fn key(kind: &str, object: &str) -> [u8; 16] {
    digest(format!("{kind}/{object}").as_bytes())
}

fn histogram() -> Histogram {
    Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn an_object_counts_once_under_each_condition_and_not_at_all_when_it_is_gone() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        let row = |reason: &str, status: &str, count: u8| {
            format!(
                "sealpod_resource_condition{{kind=\"Application\",namespace=\"shop\",condition=\"Ready\",\
                 status=\"{status}\",reason=\"{reason}\"}} {count}\n"
            )
        };
        metrics.shows("Application", "shop/a", &[Wanted::not_ready("AlreadyExists", "x")]);
        metrics.shows("Application", "shop/b", &[Wanted::not_ready("AlreadyExists", "y")]);
        assert!(text(&registry).contains(&row("AlreadyExists", "False", 2)));
        metrics.shows("Application", "shop/a", &[Wanted::ready("fine")]);
        metrics.shows("Application", "shop/a", &[Wanted::ready("fine")]);
        // Another condition leaves this one as it is.
        metrics.shows(
            "Application",
            "shop/a",
            &[Wanted::new("Other", Status::True, "Some", "")],
        );
        let now = text(&registry);
        assert!(now.contains(&row("AlreadyExists", "False", 1)), "{now}");
        assert!(now.contains(&row("Synced", "True", 1)), "{now}");
        metrics.forget("Application", "shop/a");
        metrics.forget("Application", "shop/never-seen");
        metrics.forget_all(&HashSet::from([key("Application", "shop/a")]));
        assert!(text(&registry).contains(&row("AlreadyExists", "False", 1)));
        assert_eq!(metrics.shown().rows.len(), 1);
        metrics.forget_all(&HashSet::from([key("Application", "shop/b")]));
        assert!(metrics.shown().rows.is_empty(), "nothing is kept of what nothing shows");
        assert!(
            !text(&registry).contains("sealpod_resource_condition{"),
            "{}",
            text(&registry)
        );
    }

    /// A dashboard whose panels stay empty says that all is well.
    #[test]
    fn the_dashboard_asks_for_what_there_is() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        metrics.reconciled("Application", Some("ServerUnavailable"), Duration::from_millis(20));
        metrics.shows("Application", "shop/a", &[Wanted::ready("fine")]);
        metrics.rolled_out("Deployment", true);
        metrics.evicted(true);
        let text = text(&registry);
        documented::dashboard(
            &text,
            include_str!("../../../charts/sealpod/dashboards/controller.json"),
        );
    }

    #[test]
    fn the_documentation_has_every_metric() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        metrics.reconciled("Application", Some("ServerUnavailable"), Duration::from_millis(20));
        metrics.rolled_out("Deployment", true);
        metrics.evicted(true);
        metrics.expiry("ca", Timestamp::from_second(7).unwrap());
        let text = text(&registry);
        assert!(text.contains(r#"sealpod_controller_certificate_expiry_timestamp_seconds{certificate="ca"} 7"#));
        assert_eq!(documented::in_words(&text), 9);
    }

    #[test]
    fn reconciliations_are_counted_by_kind_and_result() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        metrics.reconciled("Application", None, Duration::from_millis(20));
        metrics.reconciled("Application", Some("ServerUnavailable"), Duration::from_millis(20));
        let text = text(&registry);
        for line in [
            r#"sealpod_controller_reconcile_errors_total{kind="Application",reason="ServerUnavailable"} 1"#,
            r#"sealpod_controller_reconcile_total{kind="Application",result="ok"} 1"#,
            r#"sealpod_controller_reconcile_total{kind="Application",result="error"} 1"#,
            r#"sealpod_controller_reconcile_duration_seconds_count{kind="Application"} 2"#,
            "sealpod_controller_leader 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
