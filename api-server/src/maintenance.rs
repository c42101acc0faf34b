//! What the server does on its own: it removes sessions and keys that have ended, purges what has been in the trash for
//! long enough, forgets requests that were done more than a day ago, and gives the disk back what that left empty.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use sealpod_core::Time;
use tokio_util::sync::CancellationToken;

use crate::audit::By;
use crate::store::{Purged, Store, StoreError, Topic};

/// How often the trash is looked through.
const INTERVAL: Duration = Duration::from_hours(1);
/// Requests that one transaction forgets.
const FORGOTTEN_AT_ONCE: u32 = 200;
/// How many sessions and keys are removed at a time: others write in between.
const CREDENTIALS_AT_A_TIME: u32 = 500;

/// For how many days what was deleted can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrashDays(u16);

impl TrashDays {
    pub const MAX: u16 = 3_650;

    /// When something goes that was deleted at `time`.
    pub fn end(self, time: Time) -> Time {
        time.plus_seconds(self.seconds())
    }

    /// What was deleted before this has been there long enough at `now`.
    pub fn cutoff(self, now: Time) -> Time {
        now.plus_seconds(-self.seconds())
    }

    fn seconds(self) -> i64 {
        i64::from(self.0) * 24 * 3_600
    }
}

impl Default for TrashDays {
    fn default() -> Self {
        Self(30)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct NoTrashDays;

impl fmt::Display for NoTrashDays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "must be a whole number of days from 1 to {}; to delete one thing for good at once, add `?purge=true` to its DELETE",
            TrashDays::MAX
        )
    }
}

impl FromStr for TrashDays {
    type Err = NoTrashDays;

    fn from_str(text: &str) -> Result<Self, NoTrashDays> {
        let days = text.parse().map_err(|_| NoTrashDays)?;
        if (1..=Self::MAX).contains(&days) {
            Ok(Self(days))
        } else {
            Err(NoTrashDays)
        }
    }
}

/// A clock that goes forward by more than this, beyond the time that passed, was set.
const LEAP_SECONDS: i64 = 3_600;
/// For how long one that was set forward is not believed: what is purged by a wrong clock is gone for good, and what is
/// purged a day later than it could be harms nobody.
const DOUBT: Duration = Duration::from_hours(24);

/// What the age of things that go for good is judged by.
#[derive(Debug)]
pub struct Calendar {
    /// What the clock said, and when.
    believed: (Time, Instant),
    /// Since when the clock says what could not be.
    doubted: Option<Instant>,
}

impl Calendar {
    pub fn new(wall: Time, at: Instant) -> Self {
        Self {
            believed: (wall, at),
            doubted: None,
        }
    }

    /// The time, where the clock says `wall`.
    pub fn judge(&mut self, wall: Time, at: Instant) -> Time {
        let (last, then) = self.believed;
        let passed = i64::try_from(at.duration_since(then).as_secs()).unwrap_or(i64::MAX);
        let expected = last.plus_seconds(passed);
        if wall > expected.plus_seconds(LEAP_SECONDS) {
            let is_new = self.doubted.is_none();
            let since = *self.doubted.get_or_insert(at);
            if is_new {
                tracing::warn!("the clock was set forward; for a day, what is old is judged by what it said before");
            }
            if at.duration_since(since) < DOUBT {
                return expected;
            }
        }
        *self = Self::new(wall, at);
        wall
    }
}

/// Until `stop`: at the start, every hour, and when somebody purges more than they waited for.
pub async fn run(store: Store, trash: TrashDays, stop: CancellationToken) {
    let watcher = store.watch(&[Topic::Trash]);
    let mut calendar = Calendar::new(Time::now(), Instant::now());
    loop {
        let now = calendar.judge(Time::now(), Instant::now());
        let round = async {
            tend(&store, trash.cutoff(now)).await;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = watcher.changed() => {}
            }
        };
        // What is cut off here is taken up at the next start.
        if stop.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// A fault ends this round, and the next one tries again: nothing depends on when it succeeds.
async fn tend(store: &Store, cutoff: Time) {
    if let Err(error) = forget_done(store).await {
        tracing::warn!(%error, "old answers could not be forgotten; it is tried again within an hour");
    }
    match purge_credentials(store).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed sessions and keys that had ended"),
        Err(error) => {
            tracing::warn!(%error, "ended sessions and keys could not be removed; it is tried again within an hour");
        }
    }
    match purge(store, cutoff).await {
        Ok((Purged { rows: 0, .. }, 0)) => {}
        Ok((purged, pages)) => tracing::info!(
            items = purged.items,
            organizations = purged.organizations,
            rows = purged.rows,
            pages,
            "purged the trash"
        ),
        Err(error) => tracing::warn!(%error, "the trash could not be purged; it is tried again within an hour"),
    }
}

/// What new requests have not taken along already, in pieces that hold up nobody's change.
async fn forget_done(store: &Store) -> Result<(), StoreError> {
    while store.forget_done(FORGOTTEN_AT_ONCE).await? == FORGOTTEN_AT_ONCE as usize {}
    Ok(())
}

/// All that have ended; answers how many.
async fn purge_credentials(store: &Store) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        match store.purge_credentials(CREDENTIALS_AT_A_TIME).await? {
            0 => return Ok(removed),
            some => removed += some,
        }
    }
}

async fn purge(store: &Store, cutoff: Time) -> Result<(Purged, u64), StoreError> {
    let purged = store.purge_due(cutoff, By::system("trash")).await?;
    Ok((purged, store.shrink().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_from_one_to_ten_years() {
        for good in ["1", "30", "3650"] {
            assert!(good.parse::<TrashDays>().is_ok(), "{good}");
        }
        for bad in ["", "0", "-1", "3651", "65536", "1.5", "30d", " 30"] {
            assert_eq!(bad.parse::<TrashDays>(), Err(NoTrashDays), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_is_set_forward_is_believed_a_day_later() {
        let (noon, start) = (Time::now(), Instant::now());
        let mut calendar = Calendar::new(noon, start);
        let hours = |hours: u64| start + Duration::from_hours(hours);
        let after = |hours: i64| noon.plus_seconds(hours * 3_600);
        assert_eq!(calendar.judge(after(1), hours(1)), after(1));
        let years = 24 * 365 * 10;
        for passed in [2, 3, 25] {
            let expected = after(i64::try_from(passed).unwrap());
            assert_eq!(calendar.judge(after(years), hours(passed)), expected);
        }
        // Set right again: nothing is left of it.
        assert_eq!(calendar.judge(after(26), hours(26)), after(26));
        assert_eq!(calendar.judge(after(years), hours(27)), after(27));
        assert_eq!(calendar.judge(after(years), hours(51)), after(years));
        // Set back: it is what it says at once.
        assert_eq!(calendar.judge(after(52), hours(52)), after(52));
    }

    #[test]
    fn what_ends_now_is_at_the_cutoff() {
        let (now, days) = (Time::now(), TrashDays::default());
        assert_eq!(days.end(days.cutoff(now)), now);
    }
}
