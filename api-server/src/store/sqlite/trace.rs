//! Tells whoever opened the store which statements run.

use std::cell::RefCell;

use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

use super::super::Trace;

thread_local! {
    /// SQLite calls a plain function, without anything of ours; each connection stays on one thread.
    static TOLD: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// From here on, for the connection that this thread works with.
pub(super) fn begin(connection: &Connection, told: Option<Trace>) {
    if told.is_some() {
        TOLD.set(told);
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(tell));
    }
}

fn tell(event: TraceEvent<'_>) {
    let TraceEvent::Stmt(statement, text) = event else {
        return;
    };
    // What a trigger runs comes as a comment, once for each of its statements.
    if !text.starts_with("--") {
        TOLD.with_borrow(|told| told.iter().for_each(|told| told.hear(&statement.sql())));
    }
}
