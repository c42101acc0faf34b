use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::Time;
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

use super::super::login::{CODE_SECONDS, FAMILIAR_SECONDS, MAX_CODES, MAX_MISSES};
use super::super::{Attempt, CodeRequest, LoginKeys, Requested, Result, Session, Verified};
use super::row::{At, Id, time};
use super::tx::Tx;
use super::{members, people};
use crate::audit::{Actor, ActorKind, By, Chain, Entry, Kind, Outcome, Source, Verb};

/// How far ahead of the clock the end of a window or the death of a code may seem to lie, in seconds: calls do not run in
/// quite the order in which they looked at it. What lies further ahead was written while the clock was wrong.
const SLACK: i64 = 60;
/// How many outdated rows of each table a call takes away: more than it can add, so that no table grows by what is over.
const PURGE: u32 = 16;
/// The key of what is counted for everybody.
const EVERYBODY: [u8; 32] = [0; 32];

/// A bound of what may be counted in a window of time.
struct Bound {
    /// Its number in the table; never used for another one.
    kind: i64,
    limit: i64,
    window_seconds: i64,
}

const QUARTER: i64 = 15 * 60;
const HOUR: i64 = 3_600;
const LOGINS_OF_PAIR: Bound = bound(1, 5, QUARTER);
const LOGINS_OF_ADDRESS: Bound = bound(2, 30, QUARTER);
const LOGINS_OF_SITE: Bound = bound(3, 300, QUARTER);
const LOGINS: Bound = bound(4, 3_000, QUARTER);
const FAILURES_OF_PAIR: Bound = bound(5, 10, HOUR);
const FAILURES_OF_SITE: Bound = bound(6, 300, HOUR);
const FAILURES: Bound = bound(7, 2_000, HOUR);
/// No bound: that a pair has signed in.
const FAMILIAR: Bound = bound(8, 1, FAMILIAR_SECONDS);
const FAILURES_OF_ADDRESS: Bound = bound(9, 100, HOUR);

const fn bound(kind: i64, limit: i64, window_seconds: i64) -> Bound {
    Bound {
        kind,
        limit,
        window_seconds,
    }
}

/// Seconds until there is room again.
struct Full(u64);

type Room = std::result::Result<(), Full>;

pub(in super::super) fn request(tx: &Tx<'_>, clock: Time, request: &CodeRequest) -> Result<Requested> {
    purge(tx, clock)?;
    let familiar = is_familiar(tx, clock, &request.keys)?;
    if let Err(Full(seconds)) = admit(tx, clock, logins(&request.keys), familiar)? {
        return Ok(Requested::Limited { seconds });
    }
    let known = members::is_anywhere(tx.conn, &request.email)?;
    let expires_at = clock.plus_seconds(CODE_SECONDS);
    bury(tx, clock, &request.keys)?;
    tx.conn
        .prepare_cached(
            "INSERT INTO login_codes (id, address, network, familiar, digest, misses, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)",
        )?
        .execute((
            Id(Uuid::now_v7()),
            request.keys.address,
            request.keys.network,
            familiar,
            request.digest,
            At(expires_at),
        ))?;
    make_room(tx, &request.keys)?;
    Ok(Requested::Stored { known, expires_at })
}

pub(in super::super) fn verify(tx: &Tx<'_>, clock: Time, attempt: Attempt) -> Result<Verified> {
    purge(tx, clock)?;
    let familiar = is_familiar(tx, clock, &attempt.keys)?;
    // A failure until it has proved to be none.
    if let Err(Full(seconds)) = admit(tx, clock, failures(&attempt.keys), familiar)? {
        return Ok(Verified::Limited { seconds });
    }
    let user = people::by_email(tx.conn, &attempt.email)?;
    bury(tx, clock, &attempt.keys)?;
    let known = members::is_anywhere(tx.conn, &attempt.email)?;
    let right = matches(tx, &attempt)?;
    if right && (known || attempt.strangers) {
        return sign_in(tx, clock, attempt).map(Verified::Session);
    }
    strike(tx, &attempt.keys)?;
    // On record, and bounded by what is counted above. Only a user is named: any other text could be a password.
    let entry = Entry::new(Kind::Session, Verb::LoginFailed).outcome(Outcome::Failure);
    let entry = match &user {
        Some(user) => entry.resource(user.id.0, &user.email),
        None => entry,
    };
    let by = by(ActorKind::Anonymous, None, "anonymous", attempt.source);
    tx.audit(Chain::Instance, entry, &by)?;
    Ok(Verified::Wrong)
}

fn sign_in(tx: &Tx<'_>, clock: Time, attempt: Attempt) -> Result<Session> {
    let Attempt {
        keys,
        email,
        session,
        source,
        ..
    } = attempt;
    for (bound, key) in failures(&keys) {
        forget(tx.conn, bound, key)?;
    }
    tx.conn
        .prepare_cached("DELETE FROM login_codes WHERE address = ?1")?
        .execute([keys.address])?;
    let user = people::ensure(tx, &email)?;
    let by = by(ActorKind::User, Some(user.id.0), &user.email, source);
    let session = people::begin_session(tx, user, session, &by)?;
    remember(tx, clock, &keys)?;
    Ok(session)
}

fn by(kind: ActorKind, id: Option<Uuid>, name: &str, source: Arc<Source>) -> By {
    let actor = Actor {
        kind,
        id,
        name: name.to_owned(),
    };
    By {
        actor: Arc::new(actor),
        source,
        on_behalf: None,
        once: None,
    }
}

/// Takes away the codes of an address that are over; those that would live longer than any code does were made while
/// the clock was ahead.
fn bury(tx: &Tx<'_>, clock: Time, keys: &LoginKeys) -> Result<()> {
    tx.conn
        .prepare_cached("DELETE FROM login_codes WHERE address = ?1 AND (expires_at <= ?2 OR expires_at > ?3)")?
        .execute((keys.address, At(clock), At(clock.plus_seconds(CODE_SECONDS + SLACK))))?;
    Ok(())
}

/// Whether the code is one of its address. Compares all of them, to the last byte.
fn matches(tx: &Tx<'_>, attempt: &Attempt) -> Result<bool> {
    let mut statement = tx
        .conn
        .prepare_cached("SELECT digest FROM login_codes WHERE address = ?1")?;
    let digests = statement.query_map([attempt.keys.address], |row| row.get::<_, [u8; 32]>(0))?;
    // What is no code is compared like one.
    let guess = attempt.digest.unwrap_or_default();
    let mut right = Choice::from(0);
    for digest in digests {
        right |= digest?.ct_eq(&guess);
    }
    Ok(attempt.digest.is_some() && bool::from(right))
}

/// What a wrong guess does to the codes of its address.
fn strike(tx: &Tx<'_>, keys: &LoginKeys) -> Result<()> {
    tx.conn
        .prepare_cached("UPDATE login_codes SET misses = misses + 1 WHERE address = ?1")?
        .execute([keys.address])?;
    tx.conn
        .prepare_cached("DELETE FROM login_codes WHERE address = ?1 AND (network = ?2 OR misses >= ?3)")?
        .execute((keys.address, keys.network, MAX_MISSES))?;
    Ok(())
}

struct Live {
    id: Id,
    network: [u8; 32],
    familiar: bool,
}

/// Leaves the address as many codes as it may have.
fn make_room(tx: &Tx<'_>, keys: &LoginKeys) -> Result<()> {
    let mut statement = tx
        .conn
        .prepare_cached("SELECT id, network, familiar FROM login_codes WHERE address = ?1")?;
    let live = statement.query_map([keys.address], |row: &Row<'_>| {
        Ok(Live {
            id: row.get(0)?,
            network: row.get(1)?,
            familiar: row.get(2)?,
        })
    })?;
    let live = live.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut remove = tx.conn.prepare_cached("DELETE FROM login_codes WHERE id = ?1")?;
    for code in surplus(live) {
        remove.execute([code.id])?;
    }
    Ok(())
}

/// Those that have to go: the newest of each network stay before any network keeps a second one, those of familiar
/// networks before others, and newer ones before older ones. Whoever asks from one network pushes out only what was
/// asked for there, and whoever asks from many does not push out the code of somebody who signs in as ever.
fn surplus(mut live: Vec<Live>) -> Vec<Live> {
    // Ids are in the order of time.
    live.sort_by_key(|code| std::cmp::Reverse(code.id.0));
    let networks: Vec<_> = live.iter().map(|code| code.network).collect();
    let mut ranked: Vec<_> = live
        .into_iter()
        .enumerate()
        .map(|(at, code)| {
            let newer = networks[..at].iter().filter(|network| **network == code.network);
            (newer.count(), !code.familiar, at, code)
        })
        .collect();
    ranked.sort_by_key(|(nth, strange, at, _)| (*nth, *strange, *at));
    ranked.drain(..ranked.len().min(MAX_CODES));
    ranked.into_iter().map(|(_, _, _, code)| code).collect()
}

/// What is counted of one call: under the pair first, and then under what is wider.
type Counted<'a> = [(&'static Bound, &'a [u8; 32]); 4];

fn logins(keys: &LoginKeys) -> Counted<'_> {
    [
        (&LOGINS_OF_PAIR, &keys.pair),
        (&LOGINS_OF_ADDRESS, &keys.address),
        (&LOGINS_OF_SITE, &keys.site),
        (&LOGINS, &EVERYBODY),
    ]
}

fn failures(keys: &LoginKeys) -> Counted<'_> {
    [
        (&FAILURES_OF_PAIR, &keys.pair),
        (&FAILURES_OF_ADDRESS, &keys.address),
        (&FAILURES_OF_SITE, &keys.site),
        (&FAILURES, &EVERYBODY),
    ]
}

/// Counts a call. What is refused adds no row, so the table is as bounded as the count of everybody is; and it takes
/// nothing from others. A familiar pair is not refused for what others did; it is counted all the same.
fn admit(tx: &Tx<'_>, clock: Time, [pair, wider @ ..]: Counted<'_>, familiar: bool) -> Result<Room> {
    if !familiar {
        for (bound, key) in wider {
            if let Err(full) = look(tx.conn, clock, bound, key)? {
                return Ok(Err(full));
            }
        }
    }
    let room = count(tx.conn, clock, pair.0, pair.1)?;
    if room.is_ok() {
        for (bound, key) in wider {
            // There was room, or there need not be.
            let boundless = Bound {
                limit: i64::MAX,
                ..*bound
            };
            count(tx.conn, clock, &boundless, key)?.ok();
        }
    }
    Ok(room)
}

/// Counts one more, unless the window is full already: then nothing is written. A window that ends later than one that
/// begins now was counted while the clock was ahead, and is over.
fn count(conn: &Connection, clock: Time, bound: &Bound, key: &[u8; 32]) -> Result<Room> {
    let end = clock.plus_seconds(bound.window_seconds);
    let counted = conn
        .prepare_cached(
            "INSERT INTO login_counters (kind, key, count, ends_at) VALUES (?1, ?2, 1, ?4)
             ON CONFLICT (kind, key) DO UPDATE SET
                 count = CASE WHEN ends_at > ?3 AND ends_at <= ?6 THEN count + 1 ELSE 1 END,
                 ends_at = CASE WHEN ends_at > ?3 AND ends_at <= ?6 THEN ends_at ELSE ?4 END
             WHERE count < ?5 OR ends_at <= ?3 OR ends_at > ?6
             RETURNING count",
        )?
        .query_row(
            (
                bound.kind,
                key,
                At(clock),
                At(end),
                bound.limit,
                At(end.plus_seconds(SLACK)),
            ),
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    match counted {
        Some(_) => Ok(Ok(())),
        None => look(conn, clock, bound, key),
    }
}

/// Whether there is room for one more.
fn look(conn: &Connection, clock: Time, bound: &Bound, key: &[u8; 32]) -> Result<Room> {
    let end = clock.plus_seconds(bound.window_seconds + SLACK);
    let full = conn
        .prepare_cached(
            "SELECT ends_at FROM login_counters
             WHERE kind = ?1 AND key = ?2 AND count >= ?5 AND ends_at > ?3 AND ends_at <= ?4",
        )?
        .query_row((bound.kind, key, At(clock), At(end), bound.limit), |row| time(row, 0))
        .optional()?;
    Ok(match full {
        None => Ok(()),
        Some(end) => {
            let left = end.microseconds().saturating_sub(clock.microseconds());
            Err(Full(u64::try_from(left).unwrap_or(0).div_ceil(1_000_000).max(1)))
        }
    })
}

/// Takes one count back, of the window that it was counted in just now.
fn forget(conn: &Connection, bound: &Bound, key: &[u8; 32]) -> Result<()> {
    conn.prepare_cached("UPDATE login_counters SET count = count - 1 WHERE kind = ?1 AND key = ?2 AND count > 0")?
        .execute((bound.kind, key))?;
    Ok(())
}

fn is_familiar(tx: &Tx<'_>, clock: Time, keys: &LoginKeys) -> Result<bool> {
    Ok(look(tx.conn, clock, &FAMILIAR, &keys.pair)?.is_err())
}

/// Notes that this pair has signed in.
fn remember(tx: &Tx<'_>, clock: Time, keys: &LoginKeys) -> Result<()> {
    let end = clock.plus_seconds(FAMILIAR.window_seconds);
    tx.conn
        .prepare_cached(
            "INSERT INTO login_counters (kind, key, count, ends_at) VALUES (?1, ?2, 1, ?3)
             ON CONFLICT (kind, key) DO UPDATE SET ends_at = ?3",
        )?
        .execute((FAMILIAR.kind, keys.pair, At(end)))?;
    Ok(())
}

fn purge(tx: &Tx<'_>, clock: Time) -> Result<()> {
    for sql in [
        "DELETE FROM login_codes WHERE id IN (SELECT id FROM login_codes WHERE expires_at <= ?1 LIMIT ?2)",
        "DELETE FROM login_counters WHERE (kind, key) IN
             (SELECT kind, key FROM login_counters WHERE ends_at <= ?1 LIMIT ?2)",
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE expires_at <= ?1 LIMIT ?2)",
    ] {
        tx.conn.prepare_cached(sql)?.execute((At(clock), PURGE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counters() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("../../../migrations/0003_login.sql"))
            .unwrap();
        connection
    }

    fn at(seconds: i64) -> Time {
        Time::from_microseconds(1_800_000_000_000_000)
            .unwrap()
            .plus_seconds(seconds)
    }

    #[test]
    fn a_window_takes_its_limit_and_then_says_when_it_ends() {
        let conn = counters();
        let one = |seconds| {
            count(&conn, at(seconds), &LOGINS_OF_PAIR, &[1; 32])
                .unwrap()
                .map_err(|Full(left)| left)
        };
        for second in 0..5 {
            assert_eq!(one(second), Ok(()));
        }
        assert_eq!((one(5), one(QUARTER - 1)), (Err(895), Err(1)));
        // Another key has its own, and the next window begins empty.
        assert!(count(&conn, at(5), &LOGINS_OF_PAIR, &[2; 32]).unwrap().is_ok());
        for second in 0..5 {
            assert_eq!(one(QUARTER + second), Ok(()));
        }
        assert!(one(QUARTER + 5).is_err());
    }

    #[test]
    fn calls_that_run_in_another_order_than_they_came_share_a_window() {
        let conn = counters();
        let taken = (0..40)
            .rev()
            .filter(|second| count(&conn, at(*second), &FAILURES_OF_PAIR, &[1; 32]).unwrap().is_ok());
        assert_eq!(taken.count(), 10);
    }

    #[test]
    fn what_is_taken_back_can_be_counted_again_and_no_more() {
        let conn = counters();
        for _ in 0..5 {
            count(&conn, at(0), &LOGINS_OF_PAIR, &[1; 32]).unwrap().ok().unwrap();
        }
        forget(&conn, &LOGINS_OF_PAIR, &[1; 32]).unwrap();
        assert!(count(&conn, at(0), &LOGINS_OF_PAIR, &[1; 32]).unwrap().is_ok());
        assert!(count(&conn, at(0), &LOGINS_OF_PAIR, &[1; 32]).unwrap().is_err());
        for _ in 0..9 {
            forget(&conn, &LOGINS_OF_PAIR, &[1; 32]).unwrap();
        }
        let left: i64 = conn
            .query_row("SELECT count FROM login_counters", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }

    proptest! {
        #[test]
        fn room_is_made_for_three_and_the_newest_of_few_familiar_networks_stay(
            made in proptest::collection::vec(0..6_u8, 0..12)
        ) {
            // A network is familiar or not; two of them are here.
            let live: Vec<_> = made.iter().zip(1..).map(|(network, n)| code(n, *network, *network < 2)).collect();
            let newest = |network: u8| live.iter().rev().find(|code| code.network == [network; 32]).map(|code| code.id.0.as_u128());
            let kept: Vec<_> = [newest(0), newest(1)].into_iter().flatten().collect();
            let all = live.len();
            let gone = gone(live);
            prop_assert_eq!(all - gone.len(), all.min(MAX_CODES));
            prop_assert!(kept.iter().all(|id| !gone.contains(id)));
        }
    }

    fn code(n: u128, network: u8, familiar: bool) -> Live {
        Live {
            id: Id(Uuid::from_u128(n)),
            network: [network; 32],
            familiar,
        }
    }

    fn gone(live: Vec<Live>) -> Vec<u128> {
        surplus(live).into_iter().map(|code| code.id.0.as_u128()).collect()
    }

    #[test]
    fn the_oldest_of_one_network_makes_room() {
        assert!(gone(vec![code(1, 1, false), code(2, 1, false), code(3, 1, false)]).is_empty());
        assert_eq!(gone((1..=4).map(|n| code(n, 1, false)).collect()), [1]);
    }

    #[test]
    fn another_network_pushes_out_its_own_codes_first() {
        let live = vec![
            code(1, 1, false),
            code(2, 2, false),
            code(3, 2, false),
            code(4, 2, false),
        ];
        assert_eq!(gone(live), [2]);
    }

    #[test]
    fn a_familiar_network_keeps_its_newest_code() {
        let live = vec![
            code(1, 1, true),
            code(2, 2, false),
            code(3, 3, false),
            code(4, 4, false),
        ];
        assert_eq!(gone(live), [2]);
        let live = vec![
            code(1, 1, false),
            code(2, 2, false),
            code(3, 3, false),
            code(4, 4, false),
        ];
        assert_eq!(gone(live), [1]);
    }
}
