//! The time that the age of things is judged by, as it is kept across restarts.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use sealpod_core::Time;

use super::super::Result;
use super::super::calendar::Kept;

/// Its row of `meta`: microseconds since 1970, then for how many the clock has been doubted, or −1; eight bytes each, big-endian.
const NAME: &str = "calendar";

/// None on a new database, and where the row is not what was written.
pub(in super::super) fn kept(conn: &Connection) -> Result<Option<Kept>> {
    let value: Option<Vec<u8>> = conn
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([NAME], |row| row.get(0))
        .optional()?;
    Ok(value.as_deref().and_then(parse))
}

fn parse(value: &[u8]) -> Option<Kept> {
    let (believed, doubted) = value.split_at_checked(8)?;
    let number = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
    Some(Kept {
        believed: Time::from_microseconds(number(believed)?)?,
        doubted: u64::try_from(number(doubted)?).ok().map(Duration::from_micros),
    })
}

pub(in super::super) fn keep(conn: &Connection, kept: Kept) -> Result<()> {
    let doubted = kept
        .doubted
        .map_or(-1, |doubted| i64::try_from(doubted.as_micros()).unwrap_or(i64::MAX));
    let value = [kept.believed.microseconds().to_be_bytes(), doubted.to_be_bytes()].concat();
    conn.prepare_cached(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )?
    .execute((NAME, value))?;
    Ok(())
}
