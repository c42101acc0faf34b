//! Entries of the audit log that are old enough are exported to where the backups are, and then dropped. Nothing goes before
//! its export was read back and found to be what the log has.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sealpod_core::Time;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use crate::audit::{By, Segment};
use crate::backup::{Backups, Error};
use crate::store::{Ages, MAX_SEGMENT, Store};

/// How often it looks, and behind something that stood in the way.
const INTERVAL: Duration = Duration::from_hours(1);
/// Where somebody else worked on the archives: the same hour takes the old backups away, and would come in between each time.
const AGAIN: Duration = Duration::from_mins(1);
const DAY: i64 = 24 * 3_600;
/// Under this name readiness tells of entries that stay although they are old.
const PART: &str = "audit retention";

/// For how many days entries stay in the database; for ever without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention(Option<u16>);

impl Retention {
    pub const MAX: u16 = 3_650;

    /// What is old at `now`, and when that is old enough for an export: what comes of age is gathered for a day, so that there
    /// are not many small archives.
    fn ages(self, now: Time) -> Option<Ages> {
        let cutoff = now.plus_seconds(-i64::from(self.0?) * DAY);
        Some(Ages {
            begin: cutoff.plus_seconds(-DAY),
            cutoff,
            now,
        })
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

/// Until `stop`: at the start, and every hour, or a minute later where that was no good moment.
pub async fn run(store: Store, backups: Backups, retention: Retention, readiness: Readiness, stop: CancellationToken) {
    let turn = async || {
        let now = store.judged_time(Time::now(), Instant::now()).await?;
        turn(&store, &backups, retention, now).await
    };
    let round = async || {
        let turned = turn().await;
        let pause = pause(&turned);
        match turned {
            Ok(Turn::Done) => readiness.settle(PART),
            Ok(Turn::NoStorage) => readiness.warn(
                PART,
                "entries that are old enough stay in the database, because there is no place to export them to: set SEALPOD_BACKUP_URL, or SEALPOD_AUDIT_RETAIN_DAYS to 0".to_owned(),
            ),
            // At this moment a backup is made, restored or taken away.
            Err(Error::Busy) => {}
            Err(error) => {
                tracing::error!(%error, "old entries of the audit log could not be exported, and stay; it is tried again within an hour");
                readiness.warn(PART, format!("old entries could not be exported, and stay: {error}"));
            }
        }
        tokio::time::sleep(pause).await;
    };
    while stop.run_until_cancelled(round()).await.is_some() {}
}

/// When it looks again behind this.
fn pause(turned: &Result<Turn, Error>) -> Duration {
    match turned {
        Err(Error::Busy) => AGAIN,
        _ => INTERVAL,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Done,
    /// Something is old enough, and there is no place for it.
    NoStorage,
}

/// Exports and drops what is old enough at `now`, and what an earlier turn exported and did not come to drop. A chain that is
/// not as it was written stays, and is the error once the others are done.
pub async fn turn(store: &Store, backups: &Backups, retention: Retention, now: Time) -> Result<Turn, Error> {
    let mut dropped = store.drop_exported().await?;
    let (mut broken, mut more) = (None, true);
    let mut except = BTreeSet::new();
    while let Some(ages) = retention.ages(now).filter(|_| more) {
        let due = store.audit_due(ages, &except).await?;
        if due.is_empty() {
            break;
        }
        if !backups.have_storage() {
            return Ok(Turn::NoStorage);
        }
        more = due.iter().any(|segment| segment.entries() >= MAX_SEGMENT);
        match export(store, backups, due).await {
            // What was taken up may not be all of it.
            Ok(is_new) => more |= !is_new,
            Err(error @ Error::BrokenChain { chain, .. }) => {
                tracing::error!(%error, "a chain of the audit log is left as it is");
                except.insert(chain);
                broken = broken.or(Some(error));
                more = true;
                continue;
            }
            Err(error) => return Err(error),
        }
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
    broken.map_or(Ok(Turn::Done), Err)
}

/// Puts these into an archive, or finds the one that an earlier turn put some of them into, and on record that they are there.
/// Answers whether it is a new one.
async fn export(store: &Store, backups: &Backups, due: Vec<Segment>) -> Result<bool, Error> {
    let (export, segments, is_new) = match backups.unfinished(store, &due).await? {
        Some((export, segments)) => (export, segments, false),
        None => (backups.export(store, due.clone()).await?, due, true),
    };
    let by = By::system("retention");
    if let Err(error) = store.cut_audit(segments, export.id, export.filename.clone(), by).await {
        // It may be on record even so. Otherwise each try would leave an archive of all of them.
        if is_new
            && store.has_cut(export.id).await == Ok(false)
            && let Err(error) = backups.withdraw(&export).await
        {
            tracing::warn!(%error, file = export.filename, "an export that is not on record could not be removed");
        }
        return Err(error.into());
    }
    tracing::info!(
        file = export.filename,
        entries = export.entries,
        "exported old entries of the audit log"
    );
    Ok(is_new)
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
    fn behind_somebody_who_works_on_the_archives_it_looks_again_at_once() {
        assert!(pause(&Err(Error::Busy)) < pause(&Err(Error::Disabled)));
        assert_eq!(pause(&Ok(Turn::Done)), INTERVAL);
    }

    #[test]
    fn an_export_is_due_a_day_after_something_is_old() {
        let now: Time = "2026-11-22T12:00:00Z".parse().unwrap();
        let ages = Ages {
            begin: "2026-11-20T12:00:00Z".parse().unwrap(),
            cutoff: "2026-11-21T12:00:00Z".parse().unwrap(),
            now,
        };
        assert_eq!(Retention(Some(1)).ages(now), Some(ages));
        assert_eq!(Retention(None).ages(now), None);
    }
}
