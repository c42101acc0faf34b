//! Entries of the audit log that are old enough are exported to where the backups are, and then dropped. Nothing goes before
//! its export was read back and found to be what the log has.

use std::time::{Duration, Instant};

use sealpod_core::Time;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use crate::audit::By;
use crate::backup::{Backups, Error};
use crate::maintenance::Calendar;
use crate::store::{MAX_SEGMENT, Store};

/// How often it looks, and behind something that stood in the way.
const INTERVAL: Duration = Duration::from_hours(1);
const DAY: i64 = 24 * 3_600;
/// Under this name readiness tells of entries that stay although they are old.
const PART: &str = "audit retention";

/// For how many days entries stay in the database; for ever without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(Option<u16>);

impl Retention {
    pub const MAX: u16 = 3_650;

    /// What was made before this is old at `now`, and when it is old enough for an export: what comes of age is gathered for a
    /// day, so that there are not many small archives.
    fn cutoff(self, now: Time) -> Option<(Time, Time)> {
        let cutoff = now.plus_seconds(-i64::from(self.0?) * DAY);
        Some((cutoff.plus_seconds(-DAY), cutoff))
    }
}

impl std::str::FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Ok(Self(None)),
            Ok(days @ 1..=Self::MAX) => Ok(Self(Some(days))),
            _ => Err(format!(
                "must be a whole number of days from 1 to {}, or 0: for ever",
                Self::MAX
            )),
        }
    }
}

/// Until `stop`: at the start, and every hour.
pub async fn run(store: Store, backups: Backups, retention: Retention, readiness: Readiness, stop: CancellationToken) {
    let mut calendar = Calendar::new(Time::now(), Instant::now());
    let mut round = async || {
        let now = calendar.judge(Time::now(), Instant::now());
        match turn(&store, &backups, retention, now).await {
            Ok(Turn::Done) => readiness.settle(PART),
            Ok(Turn::NoStorage) => readiness.warn(
                PART,
                "entries that are old enough stay in the database, because there is no place to export them to: set SEALPOD_BACKUP_URL, or SEALPOD_AUDIT_RETAIN_DAYS to 0".to_owned(),
            ),
            // A backup is made at this moment.
            Err(Error::Busy) => {}
            Err(error) => {
                tracing::error!(%error, "old entries of the audit log could not be exported, and stay; it is tried again within an hour");
                readiness.warn(PART, format!("old entries could not be exported, and stay: {error}"));
            }
        }
        tokio::time::sleep(INTERVAL).await;
    };
    while stop.run_until_cancelled(round()).await.is_some() {}
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Done,
    /// Something is old enough, and there is no place for it.
    NoStorage,
}

/// Exports and drops what is old enough at `now`, and what an earlier turn exported and did not come to drop.
pub async fn turn(store: &Store, backups: &Backups, retention: Retention, now: Time) -> Result<Turn, Error> {
    let mut dropped = store.drop_exported().await?;
    let mut more = true;
    while let Some((begin, cutoff)) = retention.cutoff(now).filter(|_| more) {
        let due = store.audit_due(begin, cutoff).await?;
        if due.is_empty() {
            break;
        }
        if !backups.have_storage() {
            return Ok(Turn::NoStorage);
        }
        more = due.iter().any(|segment| segment.entries() >= MAX_SEGMENT);
        let export = backups.export(store, due.clone()).await?;
        let by = By::system("retention");
        store.cut_audit(due, export.id, export.filename.clone(), by).await?;
        tracing::info!(
            file = export.filename,
            entries = export.entries,
            "exported old entries of the audit log"
        );
        let gone = store.drop_exported().await?;
        dropped.entries += gone.entries;
        dropped.lists += gone.lists;
    }
    if dropped.entries + dropped.lists > 0 {
        let pages = store.shrink().await?;
        tracing::info!(
            entries = dropped.entries,
            lists = dropped.lists,
            pages,
            "dropped exported entries of the audit log"
        );
    }
    Ok(Turn::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_from_one_to_ten_years_or_for_ever() {
        assert_eq!("0".parse(), Ok(Retention(None)));
        assert_eq!("400".parse(), Ok(Retention(Some(400))));
        for bad in ["", "-1", "3651", "65536", "1.5", "30d", " 30"] {
            assert!(bad.parse::<Retention>().unwrap_err().contains("0: for ever"), "{bad}");
        }
    }

    #[test]
    fn an_export_is_due_a_day_after_something_is_old() {
        let now: Time = "2026-11-22T12:00:00Z".parse().unwrap();
        let times = (
            "2026-11-20T12:00:00Z".parse().unwrap(),
            "2026-11-21T12:00:00Z".parse().unwrap(),
        );
        assert_eq!(Retention(Some(1)).cutoff(now), Some(times));
        assert_eq!(Retention(None).cutoff(now), None);
    }
}
