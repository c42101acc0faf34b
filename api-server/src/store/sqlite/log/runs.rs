//! Runs: finished stretches of a chain, each with lists of its own of what its entries are about.
//!
//! The writer makes them behind what is appended, some rows with each group, so that nobody waits for it: first it reads
//! the entries of the stretch, then it writes their lists in the order in which they lie on the disk. A run counts once
//! it is complete; what a crash left of one is written to its end.

use std::cell::RefCell;
use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::super::super::Result;
use super::super::row::{Id, integer, number, optional_id};
use crate::audit::Chain;

/// Entries of one run. A look into a run that has nothing of what is asked for costs a few microseconds, and so does
/// reading a hundredth of it entry by entry, which the newest entries are.
pub(super) const LENGTH: u64 = if cfg!(test) { 16 } else { 4_096 };

/// Whose entries a list holds, as the database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Everybody,
    Actor(Uuid),
    Resource(Uuid),
}

impl Subject {
    pub(super) fn bytes(self) -> Vec<u8> {
        let of = |kind: u8, id: Uuid| [&[kind], id.as_bytes().as_slice()].concat();
        match self {
            Self::Everybody => Vec::new(),
            Self::Actor(id) => of(b'a', id),
            Self::Resource(id) => of(b'r', id),
        }
    }
}

/// A run that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) id: i64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The newest complete run that begins at `seq` or before.
pub(super) fn at_or_before(conn: &Connection, chain: Chain, seq: u64) -> Result<Option<Run>> {
    // Runs follow each other without gaps, so the one that holds `seq` is the first that ends there or behind, and where
    // none does, it is the last one.
    let holding = "SELECT id, first, last FROM audit_runs
         WHERE chain = ?1 AND last >= ?2 AND complete = 1 ORDER BY last LIMIT 1";
    let last = "SELECT id, first, last FROM audit_runs
         WHERE chain = ?1 AND last < ?2 AND complete = 1 ORDER BY last DESC LIMIT 1";
    for sql in [holding, last] {
        let run = conn
            .prepare_cached(sql)?
            .query_row((Id(chain.id()), integer(seq)), |row| {
                Ok(Run {
                    id: row.get(0)?,
                    first: number(row, 1)?,
                    last: number(row, 2)?,
                })
            })
            .optional()?;
        if let Some(run) = run.filter(|run| run.first <= seq) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// What the writer still has to do.
#[derive(Default)]
pub(in super::super) struct Runs(RefCell<Work>);

#[derive(Default)]
struct Work {
    /// Chains in which a stretch may be finished.
    due: VecDeque<Chain>,
    current: Option<Building>,
}

struct Building {
    chain: Chain,
    id: i64,
    last: u64,
    /// The entry that is read next.
    next: u64,
    /// Actions of the run, which its rows name by their place.
    actions: Vec<String>,
    /// Sorted once all entries are read.
    rows: Vec<(Subject, u16, u64)>,
    written: usize,
}

impl Runs {
    /// Goes on with what an earlier process began, and with what it did not come to, or knew nothing of.
    pub(in super::super) fn open(conn: &Connection) -> Result<Self> {
        let mut due = VecDeque::new();
        for chain in super::chains(conn)? {
            if next(conn, chain)?.is_some() {
                due.push_back(chain);
            }
        }
        Ok(Self(RefCell::new(Work { due, current: None })))
    }

    /// Takes note of an entry, which may not be committed yet.
    pub(in super::super) fn appended(&self, chain: Chain, seq: u64) {
        if seq.is_multiple_of(LENGTH) {
            let mut work = self.0.borrow_mut();
            if !work.due.contains(&chain) {
                work.due.push_back(chain);
            }
        }
    }

    pub(in super::super) fn is_idle(&self) -> bool {
        let work = self.0.borrow();
        work.current.is_none() && work.due.is_empty()
    }

    /// Leaves everything until the next stretch is full: the open transaction is rolled back, or its part here. What is to
    /// be done then, the database says.
    pub(in super::super) fn forget(&self) {
        *self.0.borrow_mut() = Work::default();
    }

    /// Reads or writes about so many rows, in the open transaction. Answers whether anything was written.
    pub(in super::super) fn advance(&self, conn: &Connection, rows: usize) -> Result<bool> {
        let work = &mut *self.0.borrow_mut();
        let Some(building) = &mut work.current else {
            let Some(chain) = work.due.pop_front() else {
                return Ok(false);
            };
            work.current = begin(conn, chain)?;
            return Ok(work.current.is_some());
        };
        if building.next <= building.last {
            building.read(conn, rows)?;
            return Ok(false);
        }
        building.write(conn, rows)?;
        if building.written == building.rows.len() {
            conn.prepare_cached("UPDATE audit_runs SET complete = 1 WHERE id = ?1")?
                .execute([building.id])?;
            // There may be another stretch already.
            work.due.push_back(building.chain);
            work.current = None;
        }
        Ok(true)
    }
}

fn begin(conn: &Connection, chain: Chain) -> Result<Option<Building>> {
    let Some(Stretch { run, first, last }) = next(conn, chain)? else {
        return Ok(None);
    };
    let run = if let Some(run) = run {
        run
    } else {
        conn.prepare_cached("INSERT INTO audit_runs (chain, first, last, complete) VALUES (?1, ?2, ?3, 0)")?
            .execute((Id(chain.id()), integer(first), integer(last)))?;
        conn.last_insert_rowid()
    };
    Ok(Some(Building::new(chain, run, (first, last))))
}

/// What is to become a run, and its id if it is one that an earlier process did not finish.
struct Stretch {
    run: Option<i64>,
    first: u64,
    last: u64,
}

/// The run of a chain that an earlier process did not finish, or what follows the last one, if its entries are all there.
fn next(conn: &Connection, chain: Chain) -> Result<Option<Stretch>> {
    let id = Id(chain.id());
    let latest = conn
        .prepare_cached("SELECT id, first, last, complete FROM audit_runs WHERE chain = ?1 ORDER BY last DESC LIMIT 1")?
        .query_row([id], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                number(row, 1)?,
                number(row, 2)?,
                row.get::<_, bool>(3)?,
            ))
        })
        .optional()?;
    if let Some((run, first, last, false)) = latest {
        let run = Some(run);
        return Ok(Some(Stretch { run, first, last }));
    }
    let end = |order: &str| {
        conn.prepare_cached(&format!(
            "SELECT seq FROM audit_entries WHERE chain = ?1 ORDER BY seq {order} LIMIT 1"
        ))?
        .query_row([id], |row| number(row, 0))
        .optional()
    };
    let (Some(oldest), Some(newest)) = (end("ASC")?, end("DESC")?) else {
        return Ok(None);
    };
    let first = latest.map_or(oldest, |(_, _, last, _)| last + 1);
    let last = first + LENGTH - 1;
    let run = None;
    Ok((last <= newest).then_some(Stretch { run, first, last }))
}

impl Building {
    fn new(chain: Chain, id: i64, (first, last): (u64, u64)) -> Self {
        Self {
            chain,
            id,
            last,
            next: first,
            actions: Vec::new(),
            rows: Vec::new(),
            written: 0,
        }
    }

    fn read(&mut self, conn: &Connection, rows: usize) -> Result<()> {
        let to = (self.next + rows as u64 - 1).min(self.last);
        let mut statement = conn.prepare_cached(
            "SELECT seq, action, actor_id, resource_id FROM audit_entries WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3",
        )?;
        let mut entries = statement.query((Id(self.chain.id()), integer(self.next), integer(to)))?;
        while let Some(row) = entries.next()? {
            let seq = number(row, 0)?;
            let action = self.action(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
            self.rows.push((Subject::Everybody, action, seq));
            let subjects = [
                optional_id(row, 2)?.map(Subject::Actor),
                optional_id(row, 3)?.map(Subject::Resource),
            ];
            let subjects = subjects.into_iter().flatten();
            self.rows.extend(subjects.map(|subject| (subject, action, seq)));
        }
        self.next = to + 1;
        if self.next > self.last {
            let actions = &self.actions;
            let key = |&(subject, action, seq): &(Subject, u16, u64)| (subject, &actions[usize::from(action)], seq);
            self.rows.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        }
        Ok(())
    }

    /// The place of an action; there are some dozens.
    fn action(&mut self, text: &str) -> u16 {
        let place = self.actions.iter().position(|action| action == text);
        let place = place.unwrap_or_else(|| {
            self.actions.push(text.to_owned());
            self.actions.len() - 1
        });
        u16::try_from(place).expect("actions are pairs of a few words")
    }

    fn write(&mut self, conn: &Connection, rows: usize) -> Result<()> {
        let end = (self.written + rows).min(self.rows.len());
        // What an earlier process wrote of it is there already.
        let mut statement = conn
            .prepare_cached("INSERT OR IGNORE INTO audit_lists (run, subject, action, seq) VALUES (?1, ?2, ?3, ?4)")?;
        for (subject, action, seq) in &self.rows[self.written..end] {
            let action = &self.actions[usize::from(*action)];
            statement.execute((self.id, subject.bytes(), action, integer(*seq)))?;
        }
        self.written = end;
        Ok(())
    }
}
