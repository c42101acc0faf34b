//! When backups are made by themselves, and which of those are kept.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
/// How often what is not kept any more is taken away, and how long after an attempt that failed.
const CLEAR: Duration = Duration::from_hours(1);
/// Under these names readiness tells of backups that fail, and of those that cannot be taken away.
const PART: &str = "backups";
const OLD: &str = "old backups";

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
    /// Those of `backups` that are not kept any more. What people made is theirs to remove, and the newest one stays
    /// whatever its age. Ages count from the newest one, so that none goes where no other follows, and from `judged` at
    /// the most, which does not follow a clock that was set forward before a day is over; `clock` says which are of the
    /// future.
    pub fn expired(&self, backups: &[Backup], clock: Time, judged: Time) -> Vec<Backup> {
        let seconds = |time: Time| time.microseconds() / 1_000_000;
        let mut scheduled: Vec<&Backup> = backups
            .iter()
            .filter(|backup| backup.trigger == Trigger::Schedule)
            .collect();
        scheduled.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.created_at, backup.id)));
        let (future, past): (Vec<&Backup>, Vec<&Backup>) =
            scheduled.into_iter().partition(|backup| backup.created_at > clock);
        let longest = DAY
            .max(i64::from(self.daily_days) * DAY)
            .max(i64::from(self.weekly_weeks) * 7 * DAY);
        let from = past.first().map_or(judged, |newest| newest.created_at.min(judged));
        let (mut days, mut weeks) = (BTreeSet::new(), BTreeSet::new());
        let (mut expired, mut is_long) = (Vec::new(), false);
        for (at, backup) in past.into_iter().enumerate() {
            let made = seconds(backup.created_at);
            let age = seconds(from) - made;
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
            is_long |= age >= longest;
        }
        // The clock was wrong then, or it is now. Those that will be of the past within the time that any is kept for are
        // left to it; of the others nothing tells the age, so they go when one goes that was kept for that long by the
        // clock of now.
        let is_far = |backup: &&Backup| seconds(backup.created_at) - seconds(clock) > longest;
        expired.extend(future.into_iter().filter(|backup| is_long && is_far(backup)).cloned());
        expired
    }

    /// Those of the future are of a clock that was set back, and say nothing.
    fn is_due(&self, backups: &[Backup], now: Time) -> bool {
        let of_schedule = backups.iter().filter(|backup| backup.trigger == Trigger::Schedule);
        let newest = of_schedule
            .map(|backup| backup.created_at)
            .filter(|made| *made <= now)
            .max();
        let since = |made: Time| now.microseconds() - made.microseconds();
        newest.is_none_or(|newest| since(newest) >= i64::from(self.hours) * 3_600_000_000)
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
        let told = |newest| metrics.newest_backup(newest);
        let turned = turn(&backups, schedule, &store, Time::now, told).await;
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

/// Until `stop`, also without a schedule: at the start, and every hour.
pub async fn keep_clear(
    backups: Backups,
    schedule: Schedule,
    store: Store,
    readiness: Readiness,
    stop: CancellationToken,
) {
    if backups.enabled().is_err() {
        return;
    }
    let schedule = (schedule.hours > 0).then_some(schedule);
    let mut told = None;
    let mut look = async || {
        let cleared = clear(&backups, schedule, &store, Time::now)
            .await
            .map_err(|error| error.to_string());
        let pause = match &cleared {
            Ok(()) => {
                readiness.settle(OLD);
                CLEAR
            }
            Err(error) => {
                if told.as_ref() != Some(error) {
                    tracing::error!(
                        error,
                        "what is not kept any more beside the backups could not be taken away; it is tried again every ten minutes"
                    );
                }
                let what =
                    "not everything that is not kept any more could be taken away from the storage of the backups";
                readiness.warn(OLD, format!("{what}: {error}"));
                RETRY
            }
        };
        told = cleared.err();
        tokio::time::sleep(pause).await;
    };
    while stop.run_until_cancelled(look()).await.is_some() {}
}

/// Takes away the backups of this database that are not kept any more by a schedule, and what belongs to no backup. What cannot be
/// removed keeps nothing else from it, and the first error is answered.
pub async fn clear(
    backups: &Backups,
    schedule: Option<Schedule>,
    store: &Store,
    clock: impl Fn() -> Time,
) -> Result<(), Error> {
    let now = clock();
    let judged = store.judged_time(now, Instant::now()).await?;
    let expired = match schedule {
        Some(schedule) => schedule.expired(&backups.own(store).await?, now, judged),
        None => Vec::new(),
    };
    backups.remove(expired, judged).await
}

/// Makes one if one is due by the `clock`. `told` hears when the newest was made. Those of other databases in the same place say
/// nothing.
pub async fn turn(
    backups: &Backups,
    schedule: Schedule,
    store: &Store,
    clock: impl Fn() -> Time,
    told: impl Fn(Option<Time>),
) -> Result<(), Error> {
    let listed = async || {
        let (list, now) = (backups.own(store).await?, clock());
        let made = list.iter().map(|backup| backup.created_at);
        // One of the future says nothing of how old the newest is.
        told(made.filter(|made| *made <= now).max());
        Ok::<_, Error>((list, now))
    };
    let (list, now) = listed().await?;
    if !schedule.is_due(&list, now) {
        return Ok(());
    }
    backups.create(store, Trigger::Schedule, By::system("schedule")).await?;
    listed().await.map(drop)
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
        let expired = SCHEDULE.expired(&all, now, now);
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
            made(old + 24 * 40, now, Trigger::Schedule),
        ];
        assert_eq!(SCHEDULE.expired(&all, now, now), [all[3].clone()]);
    }

    #[test]
    fn where_no_other_follows_none_is_taken_away_however_old_they_become() {
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let kept = history(60, now);
        for days in [1, 10, 100, 1_000] {
            let later = now.plus_seconds(days * DAY);
            assert_eq!(
                SCHEDULE.expired(&kept, later, later),
                [],
                "behind {days} days without a backup"
            );
        }
    }

    #[test]
    fn one_is_due_when_the_newest_that_is_not_of_the_future_is_old_enough() {
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let due = |hours: &[i64]| {
            let all: Vec<_> = hours.iter().map(|hours| made(*hours, now, Trigger::Schedule)).collect();
            SCHEDULE.is_due(&all, now)
        };
        assert!(due(&[]) && due(&[6]) && due(&[-1]) && due(&[-1, 7]));
        assert!(!due(&[0]) && !due(&[5]) && !due(&[5, 30]));
        // Made by a clock that was years ahead: one more is made, and no other at each look.
        assert!(due(&[-8_760, 6]));
        assert!(!due(&[-8_760, 0]));
        assert!(SCHEDULE.is_due(&[made(0, now, Trigger::Manual)], now));
    }

    /// What a schedule made for so many days by a clock that is right, at `now`, every six hours.
    fn history(days: i64, now: Time) -> Vec<Backup> {
        let mut kept: Vec<Backup> = Vec::new();
        for n in (0..days * 4).rev() {
            let then = now.plus_seconds(-n * 6 * 3_600);
            kept.push(made(0, then, Trigger::Schedule));
            let expired = SCHEDULE.expired(&kept, then, then);
            kept.retain(|backup| !expired.contains(backup));
        }
        kept
    }

    #[test]
    fn a_clock_that_was_set_forward_takes_no_backup_away_and_what_it_made_goes_in_the_end() {
        let mut now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let mut all = history(60, now);
        let (right, years) = (all.clone(), 10 * 365 * 24);
        // One is made by it, and it is judged by the time before.
        let ahead = now.plus_seconds(years * 3_600);
        let wrong = made(0, ahead, Trigger::Schedule);
        all.push(wrong.clone());
        assert_eq!(SCHEDULE.expired(&all, ahead, now), []);
        // It is right again.
        assert_eq!(SCHEDULE.expired(&all, now, now), []);
        let mut gone = None;
        for turn in 1..=4 * 7 * 5 {
            now = now.plus_seconds(6 * 3_600);
            all.push(made(0, now, Trigger::Schedule));
            let expired = SCHEDULE.expired(&all, now, now);
            all.retain(|backup| !expired.contains(backup));
            gone = gone.or(expired.contains(&wrong).then_some(turn));
            // As many as without it.
            let of_now = all.iter().filter(|backup| **backup != wrong).count();
            assert!(of_now >= right.len() - 1, "{of_now} after {turn}");
        }
        assert!(gone.is_some(), "it is kept for ever");
    }

    #[test]
    fn a_clock_that_was_set_back_takes_nothing_away_before_there_is_as_much_again() {
        let now: Time = "2026-11-18T12:00:00Z".parse().unwrap();
        let right = history(60, now);
        let mut all = right.clone();
        // As a machine begins that has lost its time.
        let mut wrong: Time = "2000-01-01T00:00:00Z".parse().unwrap();
        for _ in 0..4 * 7 * 4 - 1 {
            wrong = wrong.plus_seconds(6 * 3_600);
            all.push(made(0, wrong, Trigger::Schedule));
            let expired = SCHEDULE.expired(&all, wrong, wrong);
            all.retain(|backup| !expired.contains(backup));
            assert!(right.iter().all(|backup| all.contains(backup)), "{wrong}");
        }
    }
}
