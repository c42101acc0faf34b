//! Pages of a chain.
//!
//! Every filter is one or two lists of numbers, each in an index and sorted: those of an action, of an actor's action,
//! of a resource's action. A filter that names no action is the merge of the lists of all actions there are, which are
//! few. So a page is found without looking at entries that are not in it, except where an actor and a resource are
//! asked for at once: their two lists are walked against each other, each jumping to where the other is, and one page
//! does only so much of that.

use rusqlite::{OptionalExtension, Statement};
use uuid::Uuid;

use super::super::super::{AuditPage, AuditQuery, Result};
use super::super::reader::View;
use super::super::row::{Id, integer, number};
use super::clock::{Span, Spans};
use super::{COLUMNS, from_row};
use crate::audit::{Chain, StoredEntry};

/// How often one page looks into an index, at most. One or two milliseconds.
const MAX_STEPS: usize = 104;
/// As many numbers that are read in a row cost about as much as one step.
const ROWS_PER_STEP: usize = 16;
/// Fewest numbers that are read in a row.
const MIN_ROWS: usize = 8;
/// Most numbers of a list that are read ahead, where another list is walked against it.
const MAX_AHEAD: usize = 64;

/// What one page has cost so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) steps: usize,
}

/// A sorted list of numbers in an index.
#[derive(Debug, Clone)]
enum List {
    All,
    Action(String),
    Actor(Uuid, String),
    Resource(Uuid, String),
}

/// The numbers that are in one list, and in the other one too, where there is one.
#[derive(Debug, Clone)]
struct Both(List, Option<List>);

/// What is still to be looked at of them.
#[derive(Debug)]
struct Stream {
    list: Ahead,
    other: Option<Ahead>,
    /// The highest number that was not looked at.
    next: Option<u64>,
}

/// A list, and the numbers of it that were read before they were asked for: the more at once, the more of the last ones
/// were of use.
#[derive(Debug)]
struct Ahead {
    list: List,
    /// The highest one last.
    numbers: Vec<u64>,
    size: usize,
    used: usize,
}

impl Ahead {
    fn of(list: &List) -> Self {
        Self {
            list: list.clone(),
            numbers: Vec::new(),
            size: 1,
            used: 0,
        }
    }

    /// The highest number of the list that is in `span`; one call's `span.to` is never above that of the call before.
    fn highest(&mut self, search: &mut Search<'_>, span: Span) -> Result<Option<u64>> {
        while self.numbers.pop_if(|seq| *seq > span.to).is_some() {}
        if self.numbers.is_empty() {
            self.size = if self.used * 2 >= self.size {
                (self.size * 2).min(MAX_AHEAD)
            } else {
                1
            };
            self.used = 0;
            self.numbers = search.numbers(&self.list, span, self.size)?;
            self.numbers.reverse();
        }
        self.used += 1;
        Ok(self.numbers.last().copied())
    }
}

/// 1. The lists that the filters name.
/// 2. For each span of numbers that the times allow, newest first: read from whichever list is furthest behind, until
///    the page is full down to a number that all lists have passed.
/// 3. Fetch the entries of these numbers.
pub(in super::super::super) fn page(view: &View<'_>, chain: Chain, query: &AuditQuery) -> Result<AuditPage> {
    let mut search = Search {
        view,
        chain,
        // One more than fit, to know whether there is another page.
        wanted: query.limit + 1,
        work: Work::default(),
        found: Vec::new(),
    };
    let lists = search.lists(query)?;
    let mut spans = Spans::of(view.conn, chain, query)?;
    let mut rest = None;
    while !lists.is_empty()
        && let Some(span) = spans.next(&mut search.work)?
    {
        rest = search.span(&lists, span)?;
        if rest.is_some() {
            break;
        }
        if search.is_full() || search.work.steps > MAX_STEPS {
            rest = spans.left();
            break;
        }
    }
    let full = search.found.len() > query.limit;
    search.found.truncate(query.limit);
    let next = if full {
        search.found.last().copied()
    } else {
        rest.map(|rest| rest + 1)
    };
    let entries = search.entries()?;
    Ok(AuditPage { entries, next })
}

struct Search<'v> {
    view: &'v View<'v>,
    chain: Chain,
    wanted: usize,
    work: Work,
    /// What is in the page for certain, from the highest number on.
    found: Vec<u64>,
}

impl Search<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.wanted
    }

    /// What each action that can be in the page is found by.
    fn lists(&mut self, query: &AuditQuery) -> Result<Vec<Both>> {
        let AuditQuery {
            action,
            actor_id,
            resource_type,
            resource_id,
            since: _,
            until: _,
            before: _,
            limit: _,
        } = query;
        let actions = match (action, resource_type) {
            (Some((kind, _)), Some(other)) if kind != other => return Ok(Vec::new()),
            (Some((kind, verb)), _) => vec![format!("{kind}.{verb}")],
            (None, None) if actor_id.is_none() && resource_id.is_none() => return Ok(vec![Both(List::All, None)]),
            (None, kind) => self.actions(
                (*actor_id, *resource_id),
                kind.map(|kind| format!("{kind}.")).as_deref(),
            )?,
        };
        let of = |action: String| match (*actor_id, *resource_id) {
            (None, None) => Both(List::Action(action), None),
            (Some(actor), None) => Both(List::Actor(actor, action), None),
            (None, Some(resource)) => Both(List::Resource(resource, action), None),
            (Some(actor), Some(resource)) => Both(
                List::Resource(resource, action.clone()),
                Some(List::Actor(actor, action)),
            ),
        };
        Ok(actions.into_iter().map(of).collect())
    }

    /// The actions of the resource, else of the actor, else of all entries, which begin with `prefix`: one look into
    /// the index for each.
    fn actions(
        &mut self,
        (actor, resource): (Option<Uuid>, Option<Uuid>),
        prefix: Option<&str>,
    ) -> Result<Vec<String>> {
        let (sql, id) = match (actor, resource) {
            (_, Some(resource)) => (
                "SELECT action FROM audit_entries INDEXED BY audit_entries_resource
                 WHERE chain = ?1 AND action > ?2 AND action < ?3 AND resource_id = ?4 ORDER BY action LIMIT 1",
                Some(Id(resource)),
            ),
            (Some(actor), None) => (
                "SELECT action FROM audit_entries INDEXED BY audit_entries_actor
                 WHERE chain = ?1 AND action > ?2 AND action < ?3 AND actor_id = ?4 ORDER BY action LIMIT 1",
                Some(Id(actor)),
            ),
            (None, None) => (
                "SELECT action FROM audit_entries INDEXED BY audit_entries_action
                 WHERE chain = ?1 AND action > ?2 AND action < ?3 ORDER BY action LIMIT 1",
                None,
            ),
        };
        // Actions are small letters, `_` and `.`; `~` is behind all of these.
        let end = format!("{}~", prefix.unwrap_or_default());
        let mut last = prefix.unwrap_or_default().to_owned();
        let mut statement = self.view.conn.prepare_cached(sql)?;
        let mut actions = Vec::new();
        loop {
            self.work.steps += 1;
            let chain = Id(self.chain.id());
            let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
            let next = match id {
                Some(id) => statement.query_row((chain, &last, &end, id), text),
                None => statement.query_row((chain, &last, &end), text),
            };
            let Some(action) = next.optional()? else {
                return Ok(actions);
            };
            last.clone_from(&action);
            actions.push(action);
        }
    }

    /// Adds what `lists` have in `span`. Answers the highest number that was not looked at, if any is left: everything
    /// above it is found.
    fn span(&mut self, lists: &[Both], span: Span) -> Result<Option<u64>> {
        if span.to < span.from {
            return Ok(None);
        }
        let mut streams: Vec<Stream> = lists
            .iter()
            .map(|Both(list, other)| Stream {
                list: Ahead::of(list),
                other: other.as_ref().map(Ahead::of),
                next: Some(span.to),
            })
            .collect();
        let missing = self.wanted - self.found.len();
        let rows = missing.div_ceil(streams.len()).max(MIN_ROWS);
        let mut found = Vec::new();
        let rest = loop {
            let open = streams.iter_mut().filter(|stream| stream.next.is_some());
            let Some(stream) = open.max_by_key(|stream| stream.next) else {
                break None;
            };
            let floor = stream.next;
            let certain = found.iter().filter(|seq| Some(**seq) > floor).count();
            // However little may be done, it must be something, or the next page would be this one.
            let tired = self.work.steps > MAX_STEPS && floor < Some(span.to);
            if certain >= missing || tired {
                break floor;
            }
            self.view.go_on()?;
            self.step(stream, span.from, rows, &mut found)?;
        };
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.retain(|seq| Some(*seq) > rest);
        found.truncate(missing);
        self.found.append(&mut found);
        Ok(rest)
    }

    fn step(&mut self, stream: &mut Stream, from: u64, rows: usize, found: &mut Vec<u64>) -> Result<()> {
        let Some(to) = stream.next else { return Ok(()) };
        let below = |seq: u64| (seq > from).then(|| seq - 1);
        let Some(other) = &mut stream.other else {
            let numbers = self.numbers(&stream.list.list, Span { from, to }, rows)?;
            stream.next = numbers
                .last()
                .filter(|_| numbers.len() == rows)
                .and_then(|seq| below(*seq));
            found.extend(numbers);
            return Ok(());
        };
        // What stands in one list can be passed over as far as the next one that stands in the other.
        let mine = stream.list.highest(self, Span { from, to })?;
        let theirs = match mine {
            Some(to) => other.highest(self, Span { from, to })?,
            None => None,
        };
        stream.next = theirs;
        if let Some(seq) = theirs.filter(|_| mine == theirs) {
            found.push(seq);
            stream.next = below(seq);
        }
        Ok(())
    }

    /// The highest numbers of a list that are in `span`, from the highest on.
    fn numbers(&mut self, list: &List, span: Span, limit: usize) -> Result<Vec<u64>> {
        let conn = self.view.conn;
        let chain = Id(self.chain.id());
        let (from, to, rows) = (integer(span.from), integer(span.to), integer(limit as u64));
        let collect = |mut statement: rusqlite::CachedStatement<'_>, parameters: &[&dyn rusqlite::ToSql]| {
            let numbers = Statement::query_map(&mut statement, parameters, |row| number(row, 0))?;
            numbers.collect::<rusqlite::Result<Vec<u64>>>()
        };
        let numbers = match list {
            List::All => collect(
                conn.prepare_cached(
                    "SELECT seq FROM audit_entries
                     WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC LIMIT ?4",
                )?,
                &[&chain, &from, &to, &rows],
            ),
            List::Action(action) => collect(
                conn.prepare_cached(
                    "SELECT seq FROM audit_entries INDEXED BY audit_entries_action
                     WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 AND action = ?5 ORDER BY seq DESC LIMIT ?4",
                )?,
                &[&chain, &from, &to, &rows, action],
            ),
            List::Actor(actor, action) => collect(
                conn.prepare_cached(
                    "SELECT seq FROM audit_entries INDEXED BY audit_entries_actor
                     WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 AND action = ?5 AND actor_id = ?6
                     ORDER BY seq DESC LIMIT ?4",
                )?,
                &[&chain, &from, &to, &rows, action, &Id(*actor)],
            ),
            List::Resource(resource, action) => collect(
                conn.prepare_cached(
                    "SELECT seq FROM audit_entries INDEXED BY audit_entries_resource
                     WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 AND action = ?5 AND resource_id = ?6
                     ORDER BY seq DESC LIMIT ?4",
                )?,
                &[&chain, &from, &to, &rows, action, &Id(*resource)],
            ),
        }?;
        self.work.steps += 1 + numbers.len() / ROWS_PER_STEP;
        Ok(numbers)
    }

    fn entries(&self) -> Result<Vec<StoredEntry>> {
        let sql = format!("SELECT {COLUMNS} FROM audit_entries WHERE chain = ?1 AND seq = ?2");
        let mut statement = self.view.conn.prepare_cached(&sql)?;
        let mut entries = Vec::with_capacity(self.found.len());
        for seq in &self.found {
            self.view.go_on()?;
            entries.push(statement.query_row((Id(self.chain.id()), integer(*seq)), from_row)?);
        }
        Ok(entries)
    }
}
