//! Looks after the server while it serves, and tells the readiness probe what it finds.

use std::time::{Duration, Instant};

use sealpod_core::Time;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::store::{Reserve, Sizes, Store, StoreError, Trouble};

/// How often it looks.
const TICK: Duration = Duration::from_secs(1);
/// How often what failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often sessions are counted and the disk is measured.
const COUNT: Duration = Duration::from_secs(30);
/// How often all of the database is read.
const CHECK: Duration = Duration::from_hours(24);
/// A step of the clock that people are told of, and for how long.
const JUMP: Duration = Duration::from_hours(1);
const JUMP_SHOWN: Duration = Duration::from_hours(24);
/// The part of the volume, in percent, that may be full before somebody should look.
const FULL: u64 = 80;

/// What a full disk means, and what to do.
const FULL_FOR_CHANGES: &str = "the disk is full: no changes are made, but for deletions and revocations; free space on the data volume, or enlarge it";
const FULL_FOR_RECORDS: &str =
    "the disk is full, and nothing is left in reserve: no value is given out, because that cannot be put on record";

/// The first look, before anybody is served.
pub fn begin(store: &Store, readiness: &Readiness) -> Trouble {
    let known = store.trouble();
    tell(readiness, &known);
    tell_reserve(readiness, store.reserve());
    known
}

/// Looks until `stop`; `known` is what the first look saw.
pub async fn watch(store: Store, mut known: Trouble, readiness: Readiness, metrics: Metrics, stop: CancellationToken) {
    let mut clock = Clock::now();
    let (mut retry, mut count, mut jump) = (Every::new(RETRY), Every::new(COUNT), None::<Instant>);
    while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
        if let Some(by) = clock.look(Time::now(), Instant::now()) {
            tell_jump(&readiness, by);
            jump = Some(Instant::now());
        } else if jump.is_some_and(|at| at.elapsed() >= JUMP_SHOWN) {
            readiness.settle("clock");
            jump = None;
        }
        store.look_at_place();
        let trouble = store.trouble();
        if trouble != known {
            tell(&readiness, &trouble);
            known = trouble;
        }
        if retry.is_due() {
            if store.reserve() != Reserve::Whole {
                store.refill_reserve().await;
                tell_reserve(&readiness, store.reserve());
            }
            if !store.trouble().is_none() {
                store.try_again().await;
            }
        }
        if count.is_due() {
            if let Ok(live) = store.live_sessions().await {
                metrics.sessions(live);
            }
            warn_of_full(&readiness, store.sizes());
        }
    }
}

/// Reads the whole database now and then, beside everything else. Damage makes the server not ready, and keeps it
/// running, so that what can be read can be saved.
pub async fn check(store: Store, readiness: Readiness, stop: CancellationToken) {
    let look = async || {
        let began = Instant::now();
        match store.find_damage().await {
            Ok(None) => {
                readiness.clear("integrity");
                tracing::info!(
                    ms = began.elapsed().as_millis(),
                    "the whole database was read; it has no damage"
                );
            }
            Ok(Some(finding)) => {
                tracing::error!(%finding, "the database is damaged; restore a backup");
                readiness.block(
                    "integrity",
                    format!("the database is damaged; restore a backup ({finding})"),
                );
            }
            Err(error) => tracing::warn!(%error, "the database could not be checked for damage"),
        }
        tokio::time::sleep(CHECK).await;
    };
    while stop.run_until_cancelled(look()).await.is_some() {}
}

/// What the trouble is and what to do, for each part; a part without trouble is ready.
fn tell(readiness: &Readiness, trouble: &Trouble) {
    let parts = [
        ("writes", &trouble.commit, FULL_FOR_CHANGES),
        ("audit", &trouble.audit, FULL_FOR_RECORDS),
        ("records", &trouble.record, FULL_FOR_RECORDS),
    ];
    for (part, trouble, full) in parts {
        match trouble {
            Some(error) => {
                let reason = match error {
                    StoreError::DiskFull => full.to_owned(),
                    error => format!("nothing can be stored: {error}"),
                };
                tracing::error!(part, %error, "not ready");
                readiness.block(part, reason);
            }
            None if readiness.reasons().iter().any(|(blocked, _)| blocked == part) => {
                tracing::info!(part, "ready again");
                readiness.clear(part);
            }
            None => {}
        }
    }
}

/// Where a full disk will be met without anything in reserve.
fn tell_reserve(readiness: &Readiness, reserve: Reserve) {
    let why = match reserve {
        // What there is none of by now is told as trouble.
        Reserve::Whole | Reserve::GivenUp => return readiness.settle("reserve"),
        Reserve::TooSmall => "the data volume is too small for one; enlarge it",
        Reserve::None => "it could not be made; the log says why",
    };
    readiness.warn(
        "reserve",
        format!("no room is kept for the audit log, so a full disk stops reads of values too: {why}"),
    );
}

fn tell_jump(readiness: &Readiness, by: i64) {
    let minutes = by / 60_000_000;
    tracing::warn!(
        minutes,
        "the clock jumped; versions and credentials begin and end by it"
    );
    let what = format!(
        "it jumped by {minutes} minutes before {}; check how it is synchronised",
        Time::now()
    );
    readiness.warn("clock", what);
}

fn warn_of_full(readiness: &Readiness, sizes: Option<Sizes>) {
    let Some(sizes) = sizes.filter(|sizes| sizes.volume > 0) else {
        return;
    };
    let percent = sizes.volume.saturating_sub(sizes.available).saturating_mul(100) / sizes.volume;
    if percent < FULL {
        readiness.settle("disk");
        return;
    }
    if !readiness.warnings().iter().any(|(part, _)| part == "disk") {
        tracing::warn!(percent, "the data volume fills up");
    }
    readiness.warn(
        "disk",
        format!("the data volume is {percent} % full; enlarge it, or free space on it"),
    );
}

/// Compares the clock on the wall with the time that passes.
struct Clock {
    wall: Time,
    steady: Instant,
}

impl Clock {
    fn now() -> Self {
        Self {
            wall: Time::now(),
            steady: Instant::now(),
        }
    }

    /// By how many microseconds the clock was moved since the last look, where that is much.
    fn look(&mut self, wall: Time, steady: Instant) -> Option<i64> {
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let passed = micros(steady.saturating_duration_since(self.steady));
        let shown = wall.microseconds().saturating_sub(self.wall.microseconds());
        *self = Self { wall, steady };
        let by = shown.saturating_sub(passed);
        (by.unsigned_abs() > micros(JUMP).unsigned_abs()).then_some(by)
    }
}

struct Every {
    interval: Duration,
    last: Option<Instant>,
}

impl Every {
    fn new(interval: Duration) -> Self {
        Self { interval, last: None }
    }

    /// Whether the interval has passed, once each time.
    fn is_due(&mut self) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < self.interval) {
            return false;
        }
        self.last = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    #[test]
    fn a_step_of_the_clock_over_an_hour_is_a_jump_once_and_time_that_passes_is_none() {
        let (start, steady) = (Time::now(), Instant::now());
        let mut clock = Clock { wall: start, steady };
        let mut look = |minutes: i64, passed: u64| {
            let wall = Time::from_microseconds(start.microseconds() + minutes * MINUTE).unwrap();
            clock.look(wall, steady + Duration::from_mins(passed))
        };
        assert_eq!(look(1, 1), None);
        assert_eq!(look(120, 120), None, "the machine was busy for two hours");
        assert_eq!(look(120 + 62, 121), Some(61 * MINUTE));
        assert_eq!(look(120 + 63, 122), None);
        assert_eq!(look(0, 122), Some(-183 * MINUTE));
        assert_eq!(look(59, 122), None);
    }

    #[test]
    fn trouble_makes_its_part_not_ready_until_it_is_over() {
        let readiness = Readiness::new();
        let full = Trouble {
            commit: Some(StoreError::DiskFull),
            ..Trouble::default()
        };
        tell(&readiness, &full);
        assert!(readiness.reasons()[0].1.contains("no changes are made"));
        let wholly = Trouble {
            record: Some(StoreError::DiskFull),
            ..full
        };
        tell(&readiness, &wholly);
        assert!(readiness.reasons()[0].1.contains("no value is given out"));
        let audit = Trouble {
            audit: Some(StoreError::Internal("no such table".into())),
            ..Trouble::default()
        };
        tell(&readiness, &audit);
        assert_eq!(readiness.reasons().len(), 1);
        assert_eq!(readiness.reasons()[0].0, "audit");
        tell(&readiness, &Trouble::default());
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_reserve_that_cannot_be_made_is_a_warning_until_it_is() {
        let readiness = Readiness::new();
        for (reserve, warnings) in [
            (Reserve::TooSmall, 1),
            (Reserve::None, 1),
            (Reserve::Whole, 0),
            (Reserve::None, 1),
            (Reserve::GivenUp, 0),
        ] {
            tell_reserve(&readiness, reserve);
            assert_eq!(readiness.warnings().len(), warnings, "{reserve:?}");
            assert!(readiness.is_ready());
        }
    }

    #[test]
    fn a_volume_that_fills_up_is_a_warning_before_it_is_full() {
        let readiness = Readiness::new();
        let of = |available| {
            Some(Sizes {
                database: 0,
                wal: 0,
                volume: 1_000,
                available,
            })
        };
        warn_of_full(&readiness, of(201));
        assert!(readiness.warnings().is_empty());
        warn_of_full(&readiness, of(200));
        assert!(readiness.warnings()[0].1.contains("80 %") && readiness.is_ready());
        warn_of_full(&readiness, None);
        assert_eq!(readiness.warnings().len(), 1, "nothing is known, so nothing changes");
        warn_of_full(&readiness, of(500));
        assert!(readiness.warnings().is_empty());
    }
}
