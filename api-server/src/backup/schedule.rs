//! When backups are made by themselves, and which of those are kept.

use std::collections::BTreeSet;
use std::time::Duration;

use sealpod_core::Time;
use sealpod_core::wire::backups::{Backup, Trigger};
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use super::{Backups, Error};
use crate::app::Metrics;
use crate::audit::By;
use crate::store::Store;

const DAY: i64 = 24 * 3_600;
/// How often it is looked whether one is due, and how long after one that failed.
const LOOK: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_mins(10);
/// Under this name readiness tells of backups that fail.
const PART: &str = "backups";

/// How often, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Hours between two backups; 0: none is made by itself.
    pub hours: u32,
    /// For so many days, counted from the newest, the last backup of each is kept.
    pub daily_days: u32,
    /// For so many weeks, the last one of each.
    pub weekly_weeks: u32,
}

impl Schedule {
    /// Those of `backups` that are not kept any more. What people made is theirs to remove, and the newest one of all stays
    /// whatever the clock says.
    pub fn expired(&self, backups: &[Backup], now: Time) -> Vec<Backup> {
        let seconds = |time: Time| time.microseconds() / 1_000_000;
        let mut scheduled: Vec<&Backup> = backups
            .iter()
            .filter(|backup| backup.trigger == Trigger::Schedule)
            .collect();
        scheduled.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.created_at, backup.id)));
        let (mut days, mut weeks) = (BTreeSet::new(), BTreeSet::new());
        let mut expired = Vec::new();
        for (at, backup) in scheduled.into_iter().enumerate() {
            let made = seconds(backup.created_at);
            let age = seconds(now) - made;
            let is_last_of_day = days.insert(made.div_euclid(DAY));
            // 1970 began on a Thursday; weeks begin on Mondays.
            let is_last_of_week = weeks.insert((made + 3 * DAY).div_euclid(7 * DAY));
            let kept = at == 0
                || age < DAY
                || (is_last_of_day && age < i64::from(self.daily_days) * DAY)
                || (is_last_of_week && age < i64::from(self.weekly_weeks) * 7 * DAY);
            if !kept {
                expired.push(backup.clone());
            }
        }
        expired
    }

    fn is_due(&self, newest: Option<&Backup>, now: Time) -> bool {
        let since = |backup: &Backup| now.microseconds() - backup.created_at.microseconds();
        // One of the future is of a clock that was set back, and says nothing.
        newest.is_none_or(|newest| !(0..i64::from(self.hours) * 3_600_000_000).contains(&since(newest)))
    }
}

/// Until `stop`.
pub async fn run(
    backups: Backups,
    schedule: Schedule,
    store: Store,
    (readiness, metrics): (Readiness, Metrics),
    stop: CancellationToken,
) {
    if schedule.hours == 0 || backups.enabled().is_err() {
        return;
    }
    let look = async || {
        let turned = turn(&backups, schedule, &store, &metrics).await;
        let pause = match turned {
            Ok(()) => {
                readiness.settle(PART);
                metrics.backup_turn(false);
                LOOK
            }
            // Somebody makes one at this moment.
            Err(Error::Busy) => LOOK,
            Err(error) => {
                tracing::error!(%error, "a scheduled backup failed; it is tried again in ten minutes");
                readiness.warn(PART, format!("the last scheduled backup failed: {error}"));
                metrics.backup_turn(true);
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    };
    while stop.run_until_cancelled(look()).await.is_some() {}
}

async fn turn(backups: &Backups, schedule: Schedule, store: &Store, metrics: &Metrics) -> Result<(), Error> {
    let list = listed(backups, metrics).await?;
    let newest = list.iter().find(|backup| backup.trigger == Trigger::Schedule);
    if !schedule.is_due(newest, Time::now()) {
        return Ok(());
    }
    backups.create(store, Trigger::Schedule, By::system("schedule")).await?;
    let expired = schedule.expired(&listed(backups, metrics).await?, Time::now());
    backups.remove(expired).await
}

async fn listed(backups: &Backups, metrics: &Metrics) -> Result<Vec<Backup>, Error> {
    let list = backups.list().await?;
    metrics.newest_backup(list.first().map(|newest| newest.created_at));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const SCHEDULE: Schedule = Schedule {
        hours: 6,
        daily_days: 7,
        weekly_weeks: 4,
    };

    fn made(hours_ago: i64, now: Time, trigger: Trigger) -> Backup {
        Backup {
            id: Uuid::now_v7(),
            filename: String::new(),
            size_bytes: 0,
            sha256: String::new(),
            key_id: String::new(),
            created_at: now.plus_seconds(-hours_ago * 3_600),
            trigger,
        }
    }

    #[test]
    fn the_last_of_each_day_and_of_each_week_is_kept() {
        // A Wednesday at noon.
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let all: Vec<_> = (0..40 * 4).map(|n| made(n * 6, now, Trigger::Schedule)).collect();
        let expired = SCHEDULE.expired(&all, now);
        let kept: Vec<_> = all.iter().filter(|backup| !expired.contains(backup)).collect();
        // Four of the last day, then the last one of each of six further days, then of three further weeks.
        let days = |backup: &&Backup| (now.microseconds() - backup.created_at.microseconds()) / 1_000_000 / DAY;
        let ages: Vec<_> = kept.iter().map(days).collect();
        assert_eq!(ages, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 9, 16, 23], "{kept:?}");
    }

    #[test]
    fn what_people_made_and_the_newest_one_are_never_taken_away() {
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let old = 24 * 365;
        let all = [
            made(old, now, Trigger::Schedule),
            made(old + 1, now, Trigger::Manual),
            made(old + 2, now, Trigger::Command),
            made(old + 3, now, Trigger::Schedule),
        ];
        assert_eq!(SCHEDULE.expired(&all, now), [all[3].clone()]);
    }

    #[test]
    fn one_is_due_when_the_newest_is_old_enough_or_of_the_future() {
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        for (hours, due) in [(0, false), (5, false), (6, true), (-1, true)] {
            assert_eq!(
                SCHEDULE.is_due(Some(&made(hours, now, Trigger::Schedule)), now),
                due,
                "{hours}"
            );
        }
        assert!(SCHEDULE.is_due(None, now));
    }
}
