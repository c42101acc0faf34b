//! The clock that sessions, codes and keys end by.
//!
//! What was once seen to have ended stays so when the clock is set back, also across a restart: the latest instant at
//! which a credential was judged is kept, in memory and, written now and then along with other commits, in `meta`.
//! That instant must not rule for ever, though: after one minute in a wrong century nobody could sign in until the
//! century is over. So the writer, once it sees that the clock was set back, first removes what had ended by then, and
//! from there on the clock is the machine's again.

use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::{Connection, OptionalExtension};
use sealpod_core::Time;

use super::super::Result;
use super::row::{At, integer};
use super::tx::Tx;

/// Its row of `meta`: microseconds since 1970, eight bytes, big-endian.
const NAME: &str = "credential_clock";

pub(super) struct Clock {
    /// The latest instant that a credential was judged at.
    latest: AtomicI64,
    /// The one that the database has.
    kept: AtomicI64,
}

/// What a transaction does for the clock, and what is so once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Keep {
        instant: i64,
    },
    /// The clock was set back, from `latest` to `now`.
    Back {
        latest: i64,
        now: i64,
    },
}

impl Clock {
    /// Goes on from where the database says it was.
    pub(super) fn open(connection: &Connection) -> rusqlite::Result<Self> {
        let kept = connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [NAME], |row| row.get(0))
            .optional()?;
        let instant = kept.map_or(i64::MIN, i64::from_be_bytes);
        Ok(Self {
            latest: AtomicI64::new(instant),
            kept: AtomicI64::new(instant),
        })
    }

    /// Now, or the latest instant that this answered before, where the clock was set back since.
    pub(super) fn now(&self) -> Time {
        let now = Time::now();
        let latest = self.latest.fetch_max(now.microseconds(), Ordering::Relaxed);
        Time::from_microseconds(latest.max(now.microseconds())).unwrap_or(now)
    }

    /// What is to be done now; `is_due`: it is time to write down what a restart can do without.
    pub(super) fn step(&self, is_due: bool) -> Option<Step> {
        // In this order: what others add between the two makes no step back.
        let latest = self.latest.load(Ordering::Relaxed);
        let now = Time::now().microseconds();
        if latest > now {
            return Some(Step::Back { latest, now });
        }
        (is_due && latest > self.kept.load(Ordering::Relaxed)).then_some(Step::Keep { instant: latest })
    }

    /// Whether the next transaction has that to deal with.
    pub(super) fn was_set_back(&self) -> bool {
        matches!(self.step(false), Some(Step::Back { .. }))
    }

    /// The step is on disk.
    pub(super) fn done(&self, step: Step) {
        let instant = match step {
            Step::Keep { instant } => instant,
            Step::Back { latest, now } => {
                // Unless somebody judged by a later instant since, which is then dealt with at the next step.
                self.latest
                    .compare_exchange(latest, now, Ordering::Relaxed, Ordering::Relaxed)
                    .ok();
                now
            }
        };
        self.kept.store(instant, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn set(&self, time: Time) {
        self.latest.store(time.microseconds(), Ordering::Relaxed);
    }
}

pub(super) fn write(connection: &Connection, step: Step) -> Result<()> {
    let instant = match step {
        Step::Keep { instant } => instant,
        Step::Back { latest, now } => {
            bury(connection, latest)?;
            now
        }
    };
    connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )?
        .execute((NAME, instant.to_be_bytes()))?;
    Ok(())
}

/// Removes all that had ended by an instant that the clock was at and is no more.
fn bury(connection: &Connection, latest: i64) -> Result<()> {
    let mut removed = 0;
    for sql in [
        "DELETE FROM sessions WHERE expires_at <= ?1",
        "DELETE FROM login_codes WHERE expires_at <= ?1",
        "DELETE FROM api_keys WHERE expires_at <= ?1",
        "DELETE FROM api_keys WHERE account_id IN (SELECT id FROM service_accounts WHERE expires_at <= ?1)",
    ] {
        removed += connection.prepare_cached(sql)?.execute([latest])?;
    }
    tracing::warn!(
        removed,
        "the clock was set back; sessions, codes and keys that had ended by what it said before stay ended"
    );
    Ok(())
}

/// Removes sessions and keys that have ended, at most `limit` of each; answers how many.
pub(in super::super) fn purge(tx: &Tx<'_>, clock: Time, limit: u32) -> Result<u64> {
    tx.gives_back();
    let mut removed = 0;
    for sql in [
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= ?1 LIMIT ?2)",
        "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE expires_at <= ?1 LIMIT ?2)",
    ] {
        removed += tx
            .conn
            .prepare_cached(sql)?
            .execute((At(clock), integer(limit.into())))?;
    }
    Ok(removed as u64)
}
