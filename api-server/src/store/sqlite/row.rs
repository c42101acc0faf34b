//! Between SQLite's types and ours.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row};
use sealpod_core::wire::Labels;
use sealpod_core::{Pattern, Time};
use uuid::Uuid;

use crate::crypto::{KeyDigest, Sealed};
use crate::ids::{
    AccountId, ConfigurationId, EnvironmentId, KeyId, OrganizationId, ProjectId, RevisionId, RuleId, SecretId,
    SessionId, TrashId, UserId, VersionId,
};

macro_rules! ids {
    ($($name:ident)*) => { $(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                Id::column_result(value).map(|id| Self(id.0))
            }
        }
    )* };
}

ids! { OrganizationId ProjectId EnvironmentId SecretId VersionId ConfigurationId RevisionId AccountId RuleId KeyId
UserId SessionId TrashId }

/// An id whose kind another column tells.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) Uuid);

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        let id = Uuid::from_slice(bytes).map_err(|_| FromSqlError::InvalidBlobSize {
            expected_size: 16,
            blob_size: bytes.len(),
        })?;
        Ok(Self(id))
    }
}

/// An instant, in microseconds.
#[derive(Clone, Copy)]
pub(super) struct At(pub(super) Time);

impl ToSql for At {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Integer(self.0.microseconds())))
    }
}

impl FromSql for At {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let microseconds = value.as_i64()?;
        Time::from_microseconds(microseconds)
            .map(Self)
            .ok_or(FromSqlError::OutOfRange(microseconds))
    }
}

/// Labels, as JSON.
pub(super) struct LabelsText(pub(super) Labels);

impl ToSql for LabelsText {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Text(labels_text(&self.0))))
    }
}

impl FromSql for LabelsText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?)
            .map(Self)
            .map_err(FromSqlError::other)
    }
}

pub(super) fn labels_text(labels: &Labels) -> String {
    serde_json::to_string(labels).expect("a map of texts is JSON")
}

impl ToSql for Sealed {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for Sealed {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::try_from(value.as_blob()?.to_vec()).map_err(FromSqlError::other)
    }
}

impl ToSql for KeyDigest {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
    }
}

/// A pattern, which was parsed before it was stored.
pub(super) struct PatternText(pub(super) Pattern);

impl FromSql for PatternText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(FromSqlError::other)
    }
}

/// A count or number, which is never negative.
pub(super) fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}

/// As SQLite keeps a number.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn time(row: &Row<'_>, at: usize) -> rusqlite::Result<Time> {
    row.get::<_, At>(at).map(|at| at.0)
}

pub(super) fn optional_time(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Time>> {
    row.get::<_, Option<At>>(at).map(|at| at.map(|at| at.0))
}

pub(super) fn optional_id(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Uuid>> {
    row.get::<_, Option<Id>>(at).map(|id| id.map(|id| id.0))
}

pub(super) fn labels(row: &Row<'_>, at: usize) -> rusqlite::Result<Labels> {
    row.get::<_, LabelsText>(at).map(|labels| labels.0)
}

/// A statement without parameters and rows.
pub(super) fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.raw_execute().map(drop)
}
