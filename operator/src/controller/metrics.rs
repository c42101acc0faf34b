//! The controller's numbers, by kind and result only, so that their count is bounded.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type KindLabel = [(&'static str, &'static str); 1];
type KindAndResult = [(&'static str, &'static str); 2];

#[derive(Debug, Clone)]
pub struct Metrics {
    reconciles: Family<KindAndResult, Counter>,
    durations: Family<KindLabel, Histogram, fn() -> Histogram>,
    /// 1 while this replica does the work.
    pub leader: Gauge,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(histogram),
            leader: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("controller");
        registry.register(
            "reconcile",
            "Reconciliations by kind and result",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciliations took, by kind",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("leader", "Whether this replica does the work", metrics.leader.clone());
        metrics
    }

    pub fn reconciled(&self, kind: &'static str, ok: bool, took: Duration) {
        let result = if ok { "ok" } else { "error" };
        self.reconciles
            .get_or_create(&[("kind", kind), ("result", result)])
            .inc();
        self.durations
            .get_or_create(&[("kind", kind)])
            .observe(took.as_secs_f64());
    }
}

fn histogram() -> Histogram {
    Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconciliations_are_counted_by_kind_and_result() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        metrics.reconciled("Application", true, Duration::from_millis(20));
        metrics.reconciled("Application", false, Duration::from_millis(20));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"sealpod_controller_reconcile_total{kind="Application",result="ok"} 1"#,
            r#"sealpod_controller_reconcile_total{kind="Application",result="error"} 1"#,
            r#"sealpod_controller_reconcile_duration_seconds_count{kind="Application"} 2"#,
            "sealpod_controller_leader 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
