//! Every statement that a test's requests run, and how SQLite means to run it.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use rusqlite::Connection;
use sealpod_api_server::store::Trace;

/// How statements end that may read a whole table, each with the reason.
const MAY_SCAN: [(&str, &str); 2] = [
    (
        "FROM audit_entries ORDER BY chain, seq",
        "`audit verify` and `check` look at every entry; no request does",
    ),
    (
        "FROM audit_cuts ORDER BY chain, last",
        "and at every row that says what was exported",
    ),
];

/// What a store ran.
#[derive(Debug, Clone, Default)]
pub struct Statements(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    /// In order, since somebody took them.
    run: Vec<String>,
    all: BTreeSet<String>,
}

impl Statements {
    pub fn trace(&self) -> Trace {
        let heard = Arc::clone(&self.0);
        Trace::new(move |sql| {
            let mut heard = heard.lock().unwrap();
            heard.run.push(sql.to_owned());
            if !heard.all.contains(sql) {
                heard.all.insert(sql.to_owned());
            }
        })
    }

    /// What was run since this was last called, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().run)
    }

    pub fn distinct(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().all.clone()
    }

    /// The statements that read a table from end to end, with their plans. Those that some test of this process found
    /// to be sound are not looked at again.
    pub fn scans(&self, database: &Path) -> Vec<String> {
        static SOUND: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
        let mut new = self.distinct();
        new.retain(|sql| !SOUND.lock().unwrap().contains(sql));
        if new.is_empty() {
            return Vec::new();
        }
        let connection = Connection::open(database).unwrap();
        let mut faults = Vec::new();
        for sql in new {
            match scans(&connection, &sql) {
                plan if plan.is_empty() => drop(SOUND.lock().unwrap().insert(sql)),
                plan => faults.push(format!("{sql}\n  {}", plan.join("\n  "))),
            }
        }
        faults
    }
}

/// The steps of the plan that go through a whole table.
pub fn scans(connection: &Connection, sql: &str) -> Vec<String> {
    let begins = |what: &str| sql.trim_start().starts_with(what);
    let has_plan = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "REPLACE"]
        .iter()
        .any(|verb| begins(verb));
    if !has_plan || MAY_SCAN.iter().any(|(end, _)| sql.ends_with(end)) {
        return Vec::new();
    }
    let mut statement = connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut rows = statement.raw_query();
    let mut scans = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let step: String = row.get("detail").unwrap();
        let Some(what) = step.strip_prefix("SCAN ") else {
            continue;
        };
        let name = what.split(' ').next().unwrap();
        // A row that stands in the statement, the items of an array that came with it, a subquery whose own plan is
        // looked at, or the rows of a `WITH`.
        let harmless = what == "CONSTANT ROW"
            || what.contains("VIRTUAL TABLE")
            || name.starts_with('(')
            || sql.contains(&format!("{name}(")) && sql.trim_start().starts_with("WITH")
            || sql.contains(&format!("{name} AS ("));
        if !harmless {
            scans.push(step);
        }
    }
    scans
}
