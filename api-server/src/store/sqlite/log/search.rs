//! Pages of a chain.
//!
//! A chain is read stretch by stretch, newest first. What follows its last run is read entry by entry. In a run, every
//! filter is one or two sorted lists of numbers: those of an action, of an actor's action, of a resource's action. A
//! filter that names no action is the merge of the lists of all actions that the run has, which are few. So a page is
//! found without looking at entries that are not in it, except where an actor and a resource are asked for at once:
//! their two lists are walked against each other, each jumping to where the other is. One page does only so much.

use rusqlite::{OptionalExtension, Statement};

use super::super::super::{AuditPage, AuditQuery, Result};
use super::super::reader::View;
use super::super::row::{Id, integer, number, optional_id};
use super::clock::{Span, Spans};
use super::runs::{self, Run, Subject};
use super::{COLUMNS, from_row};
use crate::audit::{Chain, StoredEntry};

/// What one page may cost, in quarters of a look into a list. One or two milliseconds.
const MAX_COST: usize = 416;
pub(super) const STEP: usize = 4;
/// A run that has nothing of what is asked for.
const EMPTY_RUN: usize = 1;
/// As many numbers that are read in a row cost about as much as one look.
const ROWS_PER_STEP: usize = 16;
/// Fewest numbers that are read in a row.
const MIN_ROWS: usize = 8;
/// Most numbers of a list that are read ahead, where another list is walked against it.
const MAX_AHEAD: usize = 64;
/// Most entries behind the last run that one page reads, beside what it may cost: two runs, the second of which is still
/// being made. Some milliseconds, and only where the filters fit next to none of them.
const MAX_TAIL: u64 = 2 * runs::LENGTH;

/// What one page has cost so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) cost: usize,
}

/// A sorted list of numbers.
#[derive(Debug, Clone)]
enum List {
    /// Of the chain.
    All,
    /// Of a run: those of a subject's action.
    Of { run: i64, subject: Subject, action: String },
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

/// A stretch of a chain in which entries are found in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// Nothing is filtered: all of them.
    Whole,
    Run(Run),
    /// Behind the last run.
    Tail,
}

/// 1. For each span of numbers that the times allow, and in it for each stretch, newest first: find what fits, until the
///    page is full down to a number that all its lists have passed.
/// 2. Fetch the entries of these numbers.
pub(in super::super::super) fn page(view: &View<'_>, chain: Chain, query: &AuditQuery) -> Result<AuditPage> {
    let mut search = Search {
        view,
        chain,
        query,
        // One more than fit, to know whether there is another page.
        wanted: query.limit + 1,
        work: Work::default(),
        tail: 0,
        found: Vec::new(),
    };
    let mut spans = Spans::of(view.conn, chain, query)?;
    let mut rest = None;
    while !query.is_contradiction()
        && let Some(span) = spans.next(&mut search.work)?
    {
        rest = search.span(span)?;
        if rest.is_some() {
            break;
        }
        if search.is_full() || search.is_tired() {
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

impl AuditQuery {
    fn is_unfiltered(&self) -> bool {
        self.action.is_none() && self.resource_type.is_none() && self.actor_id.is_none() && self.resource_id.is_none()
    }

    /// Whether no entry can be both.
    fn is_contradiction(&self) -> bool {
        matches!((self.action, self.resource_type), (Some((kind, _)), Some(other)) if kind != other)
    }

    /// The one action that is asked for.
    fn one_action(&self) -> Option<String> {
        self.action.map(|(kind, verb)| format!("{kind}.{verb}"))
    }

    /// What all actions that are asked for begin with.
    fn prefix(&self) -> String {
        self.resource_type.map_or_else(String::new, |kind| format!("{kind}."))
    }
}

struct Search<'v> {
    view: &'v View<'v>,
    chain: Chain,
    query: &'v AuditQuery,
    wanted: usize,
    work: Work,
    /// Entries behind the last run that were read.
    tail: u64,
    /// What is in the page for certain, from the highest number on.
    found: Vec<u64>,
}

impl Search<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.wanted
    }

    fn is_tired(&self) -> bool {
        self.work.cost > MAX_COST
    }

    /// Adds what fits in `span`. Answers the highest number that was not looked at, if any is left: everything above it
    /// is found.
    fn span(&mut self, span: Span) -> Result<Option<u64>> {
        let mut to = span.to;
        let first = to;
        while to >= span.from && to > 0 {
            // However little may be done, it must be something, or the next page would be this one.
            if self.is_full() || (self.is_tired() && to < first) {
                return Ok(Some(to));
            }
            let (stretch, from) = self.stretch(to)?;
            let part = Span {
                from: from.max(span.from),
                to,
            };
            let rest = match stretch {
                Stretch::Tail => self.scan(part)?,
                Stretch::Whole => self.merge(&[Both(List::All, None)], part)?,
                Stretch::Run(run) => {
                    let lists = self.lists(run)?;
                    self.merge(&lists, part)?
                }
            };
            if rest.is_some() {
                return Ok(rest);
            }
            to = part.from - 1;
        }
        Ok(None)
    }

    /// The stretch that an entry is in, and where that begins.
    fn stretch(&self, seq: u64) -> Result<(Stretch, u64)> {
        if self.query.is_unfiltered() {
            return Ok((Stretch::Whole, 1));
        }
        Ok(match runs::at_or_before(self.view.conn, self.chain, seq)? {
            Some(run) if run.last >= seq => (Stretch::Run(run), run.first),
            Some(run) => (Stretch::Tail, run.last + 1),
            None => (Stretch::Tail, 1),
        })
    }

    /// Adds what fits of a stretch without lists, as [`Search::span`] does.
    fn scan(&mut self, span: Span) -> Result<Option<u64>> {
        let mut statement = self.view.conn.prepare_cached(
            "SELECT seq, action, actor_id, resource_id FROM audit_entries
             WHERE chain = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq DESC",
        )?;
        let (action, prefix) = (self.query.one_action(), self.query.prefix());
        let mut rows = statement.query((Id(self.chain.id()), integer(span.from), integer(span.to)))?;
        while let Some(row) = rows.next()? {
            let seq = number(row, 0)?;
            if self.is_full() || self.tail >= MAX_TAIL {
                return Ok(Some(seq));
            }
            self.tail += 1;
            if self.tail.is_multiple_of(256) {
                self.view.go_on()?;
            }
            let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if action.as_deref().is_none_or(|action| action == text)
                && text.starts_with(&prefix)
                && (self.query.actor_id.is_none() || self.query.actor_id == optional_id(row, 2)?)
                && (self.query.resource_id.is_none() || self.query.resource_id == optional_id(row, 3)?)
            {
                self.found.push(seq);
            }
        }
        Ok(None)
    }

    /// What each action that can be in the page is found by, in a run.
    fn lists(&mut self, run: Run) -> Result<Vec<Both>> {
        let actor = self.query.actor_id.map(Subject::Actor);
        let resource = self.query.resource_id.map(Subject::Resource);
        // The rarer one leads.
        let leading = resource.or(actor).unwrap_or(Subject::Everybody);
        let actions = match self.query.one_action() {
            Some(action) => vec![action],
            None => self.actions(run, leading)?,
        };
        let list = |subject, action: &str| List::Of {
            run: run.id,
            subject,
            action: action.to_owned(),
        };
        let both = |action: String| {
            let other = actor.filter(|actor| *actor != leading);
            let other = other.map(|actor| list(actor, &action));
            Both(list(leading, &action), other)
        };
        Ok(actions.into_iter().map(both).collect())
    }

    /// The actions of a subject that the filters allow: one look for each.
    fn actions(&mut self, run: Run, subject: Subject) -> Result<Vec<String>> {
        let prefix = self.query.prefix();
        // Actions are small letters, `_` and `.`; `~` is behind all of these.
        let end = format!("{prefix}~");
        let mut last = prefix;
        let mut statement = self.view.conn.prepare_cached(
            "SELECT action FROM audit_lists WHERE run = ?1 AND subject = ?2 AND action > ?3 AND action < ?4
             ORDER BY action LIMIT 1",
        )?;
        let mut actions = Vec::new();
        loop {
            let next = statement.query_row((run.id, subject.bytes(), &last, &end), |row| row.get::<_, String>(0));
            let Some(action) = next.optional()? else {
                self.work.cost += if actions.is_empty() { EMPTY_RUN } else { STEP };
                return Ok(actions);
            };
            self.work.cost += STEP;
            last.clone_from(&action);
            actions.push(action);
        }
    }

    /// Adds what `lists` have in `span`, as [`Search::span`] does.
    fn merge(&mut self, lists: &[Both], span: Span) -> Result<Option<u64>> {
        if lists.is_empty() {
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
            let tired = self.is_tired() && floor < Some(span.to);
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
                &[&Id(self.chain.id()), &from, &to, &rows],
            ),
            List::Of { run, subject, action } => collect(
                conn.prepare_cached(
                    "SELECT seq FROM audit_lists
                     WHERE run = ?1 AND subject = ?5 AND action = ?6 AND seq BETWEEN ?2 AND ?3
                     ORDER BY seq DESC LIMIT ?4",
                )?,
                &[run, &from, &to, &rows, &subject.bytes(), action],
            ),
        }?;
        self.work.cost += if numbers.is_empty() {
            EMPTY_RUN
        } else {
            STEP * (1 + numbers.len() / ROWS_PER_STEP)
        };
        Ok(numbers)
    }

    fn entries(&self) -> Result<Vec<StoredEntry>> {
        let sql = format!("SELECT {COLUMNS} FROM audit_entries WHERE chain = ?1 AND seq = ?2");
        let mut statement = self.view.conn.prepare_cached(&sql)?;
        let mut entries = Vec::with_capacity(self.found.len());
        for seq in &self.found {
            self.view.go_on()?;
            // That one is missing, in a chain that is not whole, `audit verify` says.
            let found = statement.query_row((Id(self.chain.id()), integer(*seq)), from_row);
            entries.extend(found.optional()?);
        }
        Ok(entries)
    }
}
