//! What is known of the backups, as of the last time that the schedule looked.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use sealpod_core::Time;

use super::store::put;

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// When the newest one of this database was made, by whomever.
    newest: Option<Time>,
    /// Whether the last turn of the schedule failed; none before the first.
    failed: Option<bool>,
}

impl Figures {
    pub(super) fn listed(&self, newest: Option<Time>) {
        self.seen().newest = newest;
    }

    pub(super) fn ended(&self, failed: bool) {
        self.seen().failed = Some(failed);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Whole after every single step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Seen { newest, failed } = *self.seen();
        if let Some(newest) = newest {
            let age = Time::now().microseconds().saturating_sub(newest.microseconds()) / 1_000_000;
            let help = "Time since the newest backup that is there was made and checked";
            let age = ConstGauge::new(age.max(0));
            put(&mut encoder, "backup_age", help, Some(&Unit::Seconds), &age)?;
        }
        if let Some(failed) = failed {
            let help = "1 while the last scheduled backup, or the look at those that are there, failed";
            let failed = ConstGauge::new(i64::from(failed));
            put(&mut encoder, "backup_failed", help, None, &failed)?;
        }
        Ok(())
    }
}
