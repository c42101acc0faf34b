//! Looks for damage in the whole file, on a connection of its own, so that no reader is missing meanwhile.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, InterruptHandle};
use tokio::sync::oneshot;

use super::super::{OpenError, Result, StoreError};
use super::open;
use super::patience::STEPS;
use super::wal::Wal;

/// Stops the check when it is dropped.
pub(super) struct Interrupting(InterruptHandle);

impl Interrupting {
    pub(super) fn new(handle: InterruptHandle) -> Self {
        Self(handle)
    }
}

impl Drop for Interrupting {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// The first damage of the file, in SQLite's words, which name tables, columns and pages and never a value. Gives up where
/// the log cannot wait for it.
pub(super) fn find(path: &Path, wal: Arc<Wal>, hand_over: oneshot::Sender<InterruptHandle>) -> Result<Option<String>> {
    let connection = open::connect_to_look(path).map_err(|error| internal(&error))?;
    connection.progress_handler(STEPS, Some(move || wal.is_far_too_long()))?;
    if hand_over.send(connection.get_interrupt_handle()).is_err() {
        return Err(StoreError::Internal("whoever asked has gone".into()));
    }
    check(&connection).or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SystemIoFailure) => {
            Ok(Some(error.to_string()))
        }
        _ => Err(error.into()),
    })
}

/// Table by table: the log cannot be emptied behind a statement that still reads, and each one ends with its table.
fn check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut tables = vec!["sqlite_schema".to_owned()];
    {
        let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        for name in statement.query_map([], |row| row.get(0))? {
            tables.push(name?);
        }
    }
    for table in tables {
        let sql = format!("PRAGMA quick_check(\"{table}\")");
        let finding = connection.query_row(&sql, [], |row| row.get::<_, String>(0))?;
        if finding != "ok" {
            return Ok(Some(format!("{table}: {finding}")));
        }
    }
    Ok(None)
}

fn internal(error: &OpenError) -> StoreError {
    StoreError::Internal(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_no_statement_could_have_written_is_damage() {
        let connection = open::migrated();
        assert_eq!(check(&connection).unwrap(), None);
        connection
            .pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        connection
            .execute(
                "INSERT INTO users (id, email, created_at) VALUES (x'00', 'a@example.com', 0)",
                [],
            )
            .unwrap();
        connection
            .pragma_update(None, "ignore_check_constraints", false)
            .unwrap();
        let finding = check(&connection).unwrap().unwrap();
        assert!(finding.contains("users") && !finding.contains("example"), "{finding}");
    }
}
