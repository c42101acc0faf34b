//! The store's figures, asked for when somebody looks.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::store::{State, Store};

#[derive(Debug)]
pub(super) struct Figures(pub(super) Arc<OnceLock<Store>>);

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(store) = self.0.get() else { return Ok(()) };
        let stats = store.stats();
        for (name, help, value) in [
            ("store_writes", "Changes and records that were asked for", stats.writes),
            ("store_commits", "Transactions that were written to disk", stats.commits),
            ("store_reads", "Reads that were asked for", stats.reads),
            (
                "audit_entries",
                "Audit entries that were written to disk",
                stats.audit_entries,
            ),
            (
                "store_wakes",
                "Times that a change woke somebody who waited for it",
                stats.wakes,
            ),
        ] {
            put(&mut encoder, name, help, None, &ConstCounter::new(value))?;
        }
        let serving = usize::from(store.state() == State::Serving);
        for (name, help, value) in [
            ("store_serving", "1 while the database works, 0 after a fault", serving),
            (
                "store_queued_writes",
                "Changes and records that wait for their turn",
                stats.queued_writes,
            ),
            (
                "store_queued_reads",
                "Reads that wait for their turn",
                stats.queued_reads,
            ),
            ("store_readers", "Threads that read", stats.readers),
            ("store_busy_readers", "Threads that are reading now", stats.busy_readers),
            ("store_watchers", "Waits for a change that are open", stats.watchers),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            put(&mut encoder, name, help, None, &gauge)?;
        }
        let Some(sizes) = store.sizes() else { return Ok(()) };
        for (name, help, value) in [
            ("store_database", "Size of the database's own file", sizes.database),
            ("store_wal", "Size of the write-ahead log beside it", sizes.wal),
            (
                "store_volume",
                "Size of the file system that the database is on",
                sizes.volume,
            ),
            ("store_available", "Room that is left on it", sizes.available),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            put(&mut encoder, name, help, Some(&Unit::Bytes), &gauge)?;
        }
        Ok(())
    }
}

pub(super) fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    // A registry puts the full stop behind the texts of its own metrics, and not behind these.
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, unit, metric.metric_type())?)
}
