use rusqlite::{Connection, OptionalExtension, Row};
use sealpod_core::{Email, Time};

use super::super::{NewSession, Object, Result, Session, StoreError, Topic, User};
use super::reader::View;
use super::row::{At, number, optional_time, time};
use super::tx::Tx;
use crate::audit::{By, Chain, Entry, Kind, Verb};
use crate::crypto::KeyDigest;
use crate::ids::{SessionId, UserId};

const COLUMNS: &str = "u.id, u.email, u.created_at, u.activated_at";

fn from_row(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: row.get(0)?,
        email: row.get(1)?,
        created_at: time(row, 2)?,
        activated_at: optional_time(row, 3)?,
    })
}

pub(super) fn by_email(conn: &Connection, email: &Email) -> Result<Option<User>> {
    let mut statement = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM users u WHERE u.email = ?1"))?;
    Ok(statement.query_row([email.as_str()], from_row).optional()?)
}

/// The user of that address, made where there is none.
pub(in super::super) fn ensure(tx: &Tx<'_>, email: &Email) -> Result<User> {
    if let Some(user) = by_email(tx.conn, email)? {
        return Ok(user);
    }
    let user = User {
        id: UserId::new(),
        email: email.to_string(),
        created_at: tx.now,
        activated_at: None,
    };
    tx.conn
        .prepare_cached("INSERT INTO users (id, email, created_at) VALUES (?1, ?2, ?3)")?
        .execute((user.id, &user.email, At(user.created_at)))?;
    Ok(user)
}

/// Signs the user in; the first time activates it.
pub(in super::super) fn begin_session(tx: &Tx<'_>, user: User, new: NewSession, by: &By) -> Result<Session> {
    let user = User {
        activated_at: user.activated_at.or(Some(tx.now)),
        ..user
    };
    tx.conn
        .prepare_cached("UPDATE users SET activated_at = ?2 WHERE id = ?1 AND activated_at IS NULL")?
        .execute((user.id, At(tx.now)))?;
    let id = SessionId::new();
    tx.conn
        .prepare_cached(
            "INSERT INTO sessions (id, user_id, digest, created_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((id, user.id, new.digest, At(tx.now), At(new.expires_at)))?;
    let entry = Entry::new(Kind::Session, Verb::Login).resource(id.0, &user.email);
    tx.audit(Chain::Instance, entry, by)?;
    Ok(Session {
        id,
        user,
        expires_at: new.expires_at,
    })
}

/// The session of a token, as of `clock`.
pub(in super::super) fn find_session(conn: &Connection, digest: &KeyDigest, clock: Time) -> Result<Option<Session>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS}, s.id, s.expires_at FROM sessions s JOIN users u ON u.id = s.user_id
         WHERE s.digest = ?1 AND s.expires_at > ?2"
    ))?;
    let found = statement.query_row((digest, At(clock)), |row| {
        Ok(Session {
            user: from_row(row)?,
            id: row.get(4)?,
            expires_at: time(row, 5)?,
        })
    });
    Ok(found.optional()?)
}

/// How many sessions have not expired.
pub(in super::super) fn live_sessions(view: &View<'_>) -> Result<u64> {
    let mut statement = view
        .conn
        .prepare_cached("SELECT count(*) FROM sessions WHERE expires_at > ?1")?;
    Ok(statement.query_row([At(view.now)], |row| number(row, 0))?)
}

pub(in super::super) fn end_session(tx: &Tx<'_>, id: SessionId, by: &By) -> Result<()> {
    let ended = tx
        .conn
        .prepare_cached("DELETE FROM sessions WHERE id = ?1 RETURNING user_id")?
        .query_row([id], |row| row.get::<_, UserId>(0))
        .optional()?;
    let user = ended.ok_or(StoreError::NotFound(Object::Session))?;
    let entry = Entry::new(Kind::Session, Verb::Logout).resource(id.0, &by.actor.name);
    tx.audit(Chain::Instance, entry, by)?;
    // Polls that were opened with it are to end.
    tx.publish(Topic::Subject(user.0));
    Ok(())
}
