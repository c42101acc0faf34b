//! The injector's numbers. Their labels are a handful of fixed words, so that users cannot make their count grow.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

type Label = [(&'static str, &'static str); 1];

#[derive(Debug, Clone)]
pub struct Metrics {
    admissions: Family<Label, Counter>,
    duration: Histogram,
    expiry: Family<Label, Gauge>,
    denials: Family<Label, Counter>,
    warnings: Counter,
    bindings: Gauge,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            admissions: Family::default(),
            duration: Histogram::new([0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0]),
            expiry: Family::default(),
            denials: Family::default(),
            warnings: Counter::default(),
            bindings: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("injector");
        registry.register("admission", "Admission requests by result", metrics.admissions.clone());
        registry.register("denials", "Refused pods by kind of reason", metrics.denials.clone());
        registry.register("warnings", "Warnings of admitted pods", metrics.warnings.clone());
        registry.register("bindings", "SecretBindings that are known", metrics.bindings.clone());
        registry.register_with_unit(
            "admission_duration",
            "How long admission requests took",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the webhook's CA and certificate expire, in Unix time",
            Unit::Seconds,
            metrics.expiry.clone(),
        );
        metrics
    }

    pub fn admission(&self, result: &'static str, took: Duration) {
        self.admissions.get_or_create(&[("result", result)]).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// One of [`super::denial::Denial::word`].
    pub fn denial(&self, reason: &'static str) {
        self.denials.get_or_create(&[("reason", reason)]).inc();
    }

    /// Of one pod.
    pub fn warnings(&self, number: usize) {
        self.warnings.inc_by(u64::try_from(number).unwrap_or(u64::MAX));
    }

    pub fn bindings(&self, known: usize) {
        self.bindings.set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    pub fn expiry(&self, certificate: &'static str, until: Timestamp) {
        self.expiry
            .get_or_create(&[("certificate", certificate)])
            .set(until.as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented;

    #[test]
    fn numbers_have_the_names_that_documentation_and_dashboard_have() {
        let mut registry = Registry::with_prefix("sealpod");
        let metrics = Metrics::new(&mut registry);
        metrics.admission("denied", Duration::from_millis(2));
        metrics.denial("conflict");
        metrics.warnings(2);
        metrics.bindings(3);
        metrics.expiry("ca", Timestamp::from_second(7).unwrap());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"sealpod_injector_admission_total{result="denied"} 1"#,
            r#"sealpod_injector_denials_total{reason="conflict"} 1"#,
            "sealpod_injector_warnings_total 2",
            "sealpod_injector_bindings 3",
            "sealpod_injector_admission_duration_seconds_count 1",
            r#"sealpod_injector_certificate_expiry_timestamp_seconds{certificate="ca"} 7"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        documented::dashboard(&text, include_str!("../../../charts/sealpod/dashboards/injector.json"));
        assert_eq!(documented::in_words(&text), 6);
    }
}
