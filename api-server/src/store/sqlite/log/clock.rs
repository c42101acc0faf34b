//! Finds entries by their time. Order is that of `seq`, and the clock may have been set back between any two entries;
//! between two such steps it only goes forward, so a time is found there by halving.

use rusqlite::{Connection, OptionalExtension};
use sealpod_core::Time;

use super::super::super::{AuditQuery, Result};
use super::super::row::{Id, integer, number, time};
use super::search::{STEP, Work};
use crate::audit::Chain;

/// Notes that entry `seq` is older, by the clock, than the one before it.
pub(super) fn note_step(conn: &Connection, chain: Chain, seq: u64) -> Result<()> {
    conn.prepare_cached("INSERT INTO audit_clock_steps (chain, seq) VALUES (?1, ?2)")?
        .execute((Id(chain.id()), integer(seq)))?;
    Ok(())
}

/// The spans of `seq` whose entries are not earlier than `since` and not later than `until`, newest first.
pub(super) struct Spans<'c> {
    conn: &'c Connection,
    chain: Chain,
    since: Option<Time>,
    until: Option<Time>,
    /// The oldest entry, and the newest one that was not looked at yet; none are left where they have crossed.
    first: u64,
    last: u64,
}

/// From one `seq` to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl<'c> Spans<'c> {
    pub(super) fn of(conn: &'c Connection, chain: Chain, query: &AuditQuery) -> Result<Self> {
        let end = |sql| -> Result<Option<u64>> {
            let found = conn
                .prepare_cached(sql)?
                .query_row([Id(chain.id())], |row| number(row, 0));
            Ok(found.optional()?)
        };
        let oldest = end("SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq LIMIT 1")?;
        let newest = end("SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq DESC LIMIT 1")?;
        let newest = newest.unwrap_or(0);
        Ok(Self {
            conn,
            chain,
            since: query.since,
            until: query.until,
            first: oldest.unwrap_or(1),
            last: query
                .before
                .map_or(newest, |before| newest.min(before.saturating_sub(1))),
        })
    }

    /// What no span was asked of yet: where the next one begins at the latest.
    pub(super) fn left(&self) -> Option<u64> {
        (self.last >= self.first).then_some(self.last)
    }

    /// The entries of the newest stretch without a step of the clock, as far as their times fit: perhaps none of them.
    pub(super) fn next(&mut self, work: &mut Work) -> Result<Option<Span>> {
        let Some(last) = self.left() else { return Ok(None) };
        if self.since.is_none() && self.until.is_none() {
            self.last = 0;
            return Ok(Some(Span {
                from: self.first,
                to: last,
            }));
        }
        work.cost += STEP;
        let step = self
            .conn
            .prepare_cached(
                "SELECT seq FROM audit_clock_steps WHERE chain = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row((Id(self.chain.id()), integer(last)), |row| number(row, 0))
            .optional()?;
        let first = step.map_or(self.first, |step| step.max(self.first));
        self.last = first - 1;
        let begin = match self.since {
            Some(since) => self.find((first, last + 1), work, |at| at >= since)?,
            None => first,
        };
        let end = match self.until {
            Some(until) => self.find((begin, last + 1), work, |at| at > until)?,
            None => last + 1,
        };
        Ok(Some(Span {
            from: begin,
            to: end - 1,
        }))
    }

    /// The first `seq` from `from` on whose time is `late`; `to` where none before it is.
    fn find(&self, (mut from, mut to): (u64, u64), work: &mut Work, late: impl Fn(Time) -> bool) -> Result<u64> {
        // A number that is missing, in a chain that is not whole, stands for the one behind it.
        let mut statement = self.conn.prepare_cached(
            "SELECT created_at FROM audit_entries WHERE chain = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1",
        )?;
        while from < to {
            work.cost += STEP;
            let middle = from + (to - from) / 2;
            let at = statement
                .query_row((Id(self.chain.id()), integer(middle)), |row| time(row, 0))
                .optional()?;
            if at.is_none_or(&late) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        Ok(from)
    }
}
