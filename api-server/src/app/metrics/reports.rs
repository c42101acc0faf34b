//! How much is known of what pods have loaded, counted when somebody looks.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::store::put;
use crate::reports::Reports;

#[derive(Debug)]
pub(super) struct Figures(pub(super) Arc<OnceLock<Reports>>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(reports) = self.0.get() else { return Ok(()) };
        let (count, bytes) = reports.size();
        for (name, help, unit, value) in [
            (
                "consumer_reports",
                "Pods that somebody reads secrets for, by what they said in the last 15 minutes",
                None,
                count,
            ),
            (
                "consumer_reports_memory",
                "Memory that these reports take, estimated from above",
                Some(&Unit::Bytes),
                bytes,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            put(&mut encoder, name, help, unit, &gauge)?;
        }
        Ok(())
    }
}
