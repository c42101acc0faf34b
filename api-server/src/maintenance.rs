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
/// How long a request counts as done at least: until the first look behind that.
const DONE_SECONDS: i64 = 24 * 3_600;
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

/// Until `stop`: at the start, every hour, and when somebody purges more than they waited for.
pub async fn run(store: Store, trash: TrashDays, stop: CancellationToken) {
    let watcher = store.watch(&[Topic::Trash]);
    loop {
        let round = async {
            tend(&store, trash).await;
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
async fn tend(store: &Store, trash: TrashDays) {
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
    match purge(store, trash).await {
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

/// In pieces that hold up nobody's change.
async fn forget_done(store: &Store) -> Result<(), StoreError> {
    let now = store.judged_time(Time::now(), Instant::now()).await?;
    let until = now.plus_seconds(-DONE_SECONDS);
    while store.forget_done(until, FORGOTTEN_AT_ONCE).await? == FORGOTTEN_AT_ONCE as usize {}
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

async fn purge(store: &Store, trash: TrashDays) -> Result<(Purged, u64), StoreError> {
    let now = store.judged_time(Time::now(), Instant::now()).await?;
    let purged = store.purge_due(trash.cutoff(now), By::system("trash")).await?;
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
    fn what_ends_now_is_at_the_cutoff() {
        let (now, days) = (Time::now(), TrashDays::default());
        assert_eq!(days.end(days.cutoff(now)), now);
    }
}
