//! What the age of things that go for good is judged by. A clock that was set forward, while the server ran or while it did
//! not, is believed a day later: what is dropped by a wrong clock is gone, and what goes a day later than it could harms nobody.

use std::time::{Duration, Instant};

use sealpod_core::Time;

use super::{Result, Store, sqlite};

/// A clock that goes forward by more than this, beyond the time that passed, was set, or the server was away. It is more than
/// what is kept can be behind when a server is killed.
const LEAP: i64 = 2 * 3_600 * 1_000_000;
/// For how long such a clock is not believed.
const DOUBT: Duration = Duration::from_hours(24);
/// What is kept is at most this much behind what is judged by.
const KEPT_EVERY: i64 = 50 * 60 * 1_000_000;

/// What is kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) believed: Time,
    /// For how long the clock has been doubted.
    pub(super) doubted: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Calendar {
    now: Kept,
    /// When that was.
    at: Instant,
    /// What the database has.
    kept: Option<Kept>,
}

impl Calendar {
    /// Goes on from what was kept. Without that, on a new database, nothing says that the clock is wrong.
    fn new(kept: Option<Kept>, wall: Time, at: Instant) -> Self {
        let first = Kept {
            believed: wall,
            doubted: None,
        };
        Self {
            now: kept.unwrap_or(first),
            at,
            kept,
        }
    }

    /// The time, where the clock says `wall`.
    fn judge(&mut self, wall: Time, at: Instant) -> Time {
        let passed = at.saturating_duration_since(self.at);
        let microseconds = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
        let until = self.now.believed.microseconds().saturating_add(microseconds);
        let expected = Time::from_microseconds(until).unwrap_or(self.now.believed);
        let is_ahead = wall.microseconds() > until.saturating_add(LEAP);
        let doubted = is_ahead.then(|| self.now.doubted.map_or(Duration::ZERO, |so_far| so_far + passed));
        if doubted.is_some() && self.now.doubted.is_none() {
            tracing::warn!(
                %wall, %expected,
                "the clock was set forward, or the server was away; for a day, what is old enough to go is judged by the time before"
            );
        }
        let doubted = doubted.filter(|so_far| *so_far < DOUBT);
        self.now = Kept {
            believed: if doubted.is_some() { expected } else { wall },
            doubted,
        };
        self.at = at;
        self.now.believed
    }

    /// What is to be kept now: a restart goes on from there. Nothing where what is kept says as much.
    fn due(&self) -> Option<Kept> {
        let is_kept = self.kept.is_some_and(|kept| {
            let apart = self.now.believed.microseconds().abs_diff(kept.believed.microseconds());
            kept.doubted.is_some() == self.now.doubted.is_some() && apart < KEPT_EVERY.unsigned_abs()
        });
        (!is_kept).then_some(self.now)
    }
}

impl Store {
    /// The time that the age of what goes for good is judged by, where the clock says `wall`.
    pub async fn judged_time(&self, wall: Time, at: Instant) -> Result<Time> {
        let mut calendar = self.calendar.lock().await;
        if calendar.is_none() {
            let kept = self.engine.read(|view| sqlite::calendar::kept(view.conn)).await?;
            *calendar = Some(Calendar::new(kept, wall, at));
        }
        let Some(calendar) = calendar.as_mut() else {
            return Ok(wall);
        };
        let time = calendar.judge(wall, at);
        if let Some(due) = calendar.due() {
            let keep = self.engine.write_values(move |tx| {
                tx.gives_back();
                sqlite::calendar::keep(tx.conn, due)
            });
            match keep.await {
                Ok(()) => calendar.kept = Some(due),
                // A restart then goes on from longer ago, and is the more careful for it.
                Err(error) => tracing::warn!(%error, "the time that old things are judged by could not be kept"),
            }
        }
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;
    const YEARS: i64 = 24 * 365 * 10;

    struct Clock {
        calendar: Calendar,
        noon: Time,
        start: Instant,
    }

    impl Clock {
        fn new() -> Self {
            let (noon, start) = (Time::now(), Instant::now());
            Self {
                calendar: Calendar::new(None, noon, start),
                noon,
                start,
            }
        }

        fn after(&self, hours: i64) -> Time {
            self.noon.plus_seconds(hours * HOUR)
        }

        /// So many hours after it began, with a clock that says so many: what is believed, in hours.
        fn judge(&mut self, passed: u64, says: i64) -> i64 {
            let at = self.start + Duration::from_hours(passed);
            let time = self.calendar.judge(self.after(says), at);
            if let Some(due) = self.calendar.due() {
                self.calendar.kept = Some(due);
            }
            (time.microseconds() - self.noon.microseconds()) / 1_000_000 / HOUR
        }

        fn restart(&mut self, passed: u64, says: i64) -> i64 {
            let at = self.start + Duration::from_hours(passed);
            self.calendar = Calendar::new(self.calendar.kept, self.after(says), at);
            self.judge(passed, says)
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_is_believed_a_day_later() {
        let mut clock = Clock::new();
        assert_eq!(clock.judge(1, 1), 1);
        for (passed, expected) in [(2, 2), (3, 3), (25, 25)] {
            assert_eq!(clock.judge(passed, YEARS), expected);
        }
        // Set right again: nothing is left of it.
        assert_eq!(clock.judge(26, 26), 26);
        assert_eq!(clock.judge(27, YEARS), 27);
        assert_eq!(clock.judge(51, YEARS), YEARS);
        // Set back: it is what it says at once.
        assert_eq!(clock.judge(52, 52), 52);
    }

    #[test]
    fn a_clock_that_is_ahead_at_a_start_is_believed_a_day_later_however_often_it_starts() {
        let mut clock = Clock::new();
        assert_eq!(clock.judge(5, 5), 5);
        assert_eq!(clock.restart(5, YEARS), 5);
        assert_eq!(clock.judge(10, YEARS), 10);
        assert_eq!(clock.restart(10, YEARS), 10);
        assert_eq!(clock.judge(28, YEARS), 28);
        assert_eq!(clock.judge(29, YEARS), YEARS, "a day of doubt, over two starts");
        // Right again behind a start.
        assert_eq!(clock.restart(30, 30), 30);
        // Away for four days, or for a moment: the one costs a day, the other nothing.
        assert_eq!(clock.restart(130, 130), 30);
        assert_eq!(clock.judge(153, 153), 53);
        assert_eq!(clock.judge(154, 154), 154);
        assert_eq!(clock.restart(155, 155), 155);
    }

    #[test]
    fn what_is_kept_is_written_once_an_hour_and_when_doubt_begins_or_ends() {
        let (wall, at) = (Time::now(), Instant::now());
        let mut calendar = Calendar::new(None, wall, at);
        let mut is_due = |minutes: u64, says: i64| {
            calendar.judge(wall.plus_seconds(says * 60), at + Duration::from_mins(minutes));
            let due = calendar.due();
            calendar.kept = due.or(calendar.kept);
            due.is_some()
        };
        assert!(is_due(0, 0));
        assert!(!is_due(1, 1) && !is_due(49, 49) && is_due(50, 50) && !is_due(60, 60));
        assert!(is_due(61, 10_000) && !is_due(62, 10_001) && is_due(63, 63));
    }
}
