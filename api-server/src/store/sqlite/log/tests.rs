use std::sync::Arc;

use proptest::prelude::*;
use rusqlite::Connection;
use uuid::Uuid;

use super::super::open::migrated;
use super::super::reader::View;
use super::runs::Runs;
use super::*;
use crate::audit::{Actor, ActorKind, Kind, Segment, Verb};
use crate::store::AuditQuery;

const ACTIONS: [(Kind, Verb); 4] = [
    (Kind::Secret, Verb::Read),
    (Kind::Secret, Verb::Set),
    (Kind::ServiceAccount, Verb::Rotate),
    (Kind::Acl, Verb::Grant),
];

/// Which of a few actions, actors and resources, and how much later than the entry before, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Event {
    action: usize,
    actor: Option<u8>,
    resource: Option<u8>,
    later: i64,
}

fn id(of: u8) -> Uuid {
    Uuid::from_u128(u128::from(of) + 1)
}

fn at(microseconds: i64) -> Time {
    Time::from_microseconds(microseconds).unwrap()
}

/// A log of these events, newest first, and beside it another chain that no query may see.
fn log_of(events: &[Event]) -> (Connection, Vec<StoredEntry>) {
    let conn = migrated();
    let key = AuditKey::new(&[7; 32]);
    let runs = Runs::open(&conn).unwrap();
    let mut clock = 1_000_000;
    for event in events {
        clock += event.later;
        let by = By {
            actor: Arc::new(Actor {
                kind: ActorKind::User,
                id: event.actor.map(id),
                name: "ada".into(),
            }),
            ..By::system("test")
        };
        let (kind, verb) = ACTIONS[event.action];
        for chain in [Chain::Instance, Chain::of_id(id(99))] {
            let entry = Entry::new(kind, verb).resource(event.resource.map(id), "db");
            let mut end = end(&conn, chain).unwrap();
            let head = append(&conn, &key, at(clock), (chain, &mut end), entry, &by).unwrap();
            runs.appended(chain, head.seq);
        }
        // Some way behind what is appended, so that the last run is one that nobody may read yet.
        runs.advance(&conn, 6).unwrap();
    }
    let mut entries = View::look(&conn, |view| following(view, Chain::Instance, 0, u32::MAX)).unwrap();
    entries.reverse();
    (conn, entries)
}

fn matches(query: &AuditQuery, entry: &StoredEntry) -> bool {
    query
        .action
        .is_none_or(|(kind, verb)| entry.action == format!("{kind}.{verb}"))
        && query
            .resource_type
            .is_none_or(|kind| entry.resource_type == kind.as_str())
        && query.actor_id.is_none_or(|id| entry.actor_id == Some(id))
        && query.resource_id.is_none_or(|id| entry.resource_id == Some(id))
        && query.since.is_none_or(|since| entry.created_at >= since)
        && query.until.is_none_or(|until| entry.created_at <= until)
}

/// All pages, and how many there were.
fn walk(conn: &Connection, mut query: AuditQuery) -> (Vec<StoredEntry>, usize) {
    let (mut entries, mut pages) = (Vec::new(), 0);
    loop {
        let found = View::look(conn, |view| page(view, Chain::Instance, &query)).unwrap();
        assert!(found.entries.len() <= query.limit);
        entries.extend(found.entries);
        pages += 1;
        let Some(next) = found.next else {
            return (entries, pages);
        };
        assert!(query.before.is_none_or(|before| next < before), "every page gets on");
        query.before = Some(next);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let later = prop_oneof![8 => 0..20i64, 1 => -200..0i64];
    let some = || proptest::option::weighted(0.9, 0..3u8);
    (0..ACTIONS.len(), some(), some(), later).prop_map(|(action, actor, resource, later)| Event {
        action,
        actor,
        resource,
        later,
    })
}

fn query() -> impl Strategy<Value = AuditQuery> {
    let time = || proptest::option::of((999_800..1_000_900i64).prop_map(at));
    let some = || proptest::option::of((0..4u8).prop_map(id));
    let action = proptest::option::of((0..ACTIONS.len()).prop_map(|place| ACTIONS[place]));
    let kind = proptest::option::of(prop_oneof![Just(Kind::Secret), Just(Kind::Acl), Just(Kind::Key)]);
    (action, kind, some(), some(), time(), time(), 1..12usize).prop_map(
        |(action, resource_type, actor_id, resource_id, since, until, limit)| AuditQuery {
            action,
            actor_id,
            resource_type,
            resource_id,
            since,
            until,
            before: None,
            limit,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the clock did: exactly the entries that fit, each once, in the order in which they were written.
    #[test]
    fn pages_are_what_the_filters_say(
        events in prop::collection::vec(event(), 0..120),
        queries in prop::collection::vec(query(), 1..30),
    ) {
        let (conn, entries) = log_of(&events);
        for query in queries {
            let want: Vec<_> = entries.iter().filter(|entry| matches(&query, entry)).cloned().collect();
            prop_assert_eq!(walk(&conn, query).0, want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// While what was exported is being dropped, and behind that: exactly what is left and fits.
    #[test]
    fn pages_are_what_is_left_where_old_entries_were_dropped(
        events in prop::collection::vec(event(), 2..120),
        cut in 0..120u64,
        steps in 0..30usize,
        queries in prop::collection::vec(query(), 1..20),
    ) {
        let (conn, entries) = log_of(&events);
        let key = AuditKey::new(&[7; 32]);
        let last = 1 + cut % (events.len() as u64 - 1);
        let segment = Segment {
            chain: Chain::Instance,
            first: 1,
            last,
            previous: GENESIS,
            head: entries[entries.len() - usize::try_from(last).unwrap()].hash,
        };
        cut::insert(&conn, &key, &segment, Uuid::nil(), at(1)).unwrap();
        for _ in 0..steps {
            let dropped = cut::drop_some(&conn, Chain::Instance).unwrap();
            // As much as one transaction may do, and one statement more.
            prop_assert!(dropped.entries + dropped.lists < 30 + 7);
        }
        let left = View::look(&conn, |view| following(view, Chain::Instance, 0, u32::MAX)).unwrap();
        prop_assert!(left.len() as u64 >= events.len() as u64 - last);
        prop_assert!(steps < 25 || left.len() as u64 == events.len() as u64 - last);
        for query in queries {
            let want: Vec<_> = left.iter().rev().filter(|entry| matches(&query, entry)).cloned().collect();
            prop_assert_eq!(walk(&conn, query).0, want);
        }
        prop_assert!(verify(&conn, &key).unwrap().is_intact());
    }
}

#[test]
fn a_page_does_so_much_and_no_more_and_says_that_it_is_not_the_last() {
    // The actor and the resource are in every other entry each, never together, but for the first of all.
    let events: Vec<Event> = (0..9_000)
        .map(|n| Event {
            action: 0,
            actor: Some(u8::from(n > 0 && n % 2 == 0)),
            resource: Some(u8::from(n % 2 == 1)),
            later: 1,
        })
        .collect();
    let (conn, entries) = log_of(&events);
    let query = AuditQuery {
        actor_id: Some(id(1)),
        resource_id: Some(id(1)),
        limit: 20,
        ..AuditQuery::default()
    };
    let (found, pages) = walk(&conn, query.clone());
    assert!(found.is_empty());
    // The runs of this test are short, so there are many.
    assert!((3..300).contains(&pages), "{pages}");
    // What is there is found behind pages with nothing in them.
    let query = AuditQuery {
        actor_id: Some(id(0)),
        resource_id: Some(id(0)),
        ..query
    };
    let (found, pages) = walk(&conn, query);
    assert_eq!(found, entries[8_999..]);
    assert!(pages > 2, "{pages}");
}

#[test]
fn a_clock_that_jumps_all_the_time_costs_pages_and_no_entries() {
    let events: Vec<Event> = (0..600)
        .map(|n| Event {
            action: 0,
            actor: None,
            resource: None,
            later: if n % 2 == 0 { 10 } else { -9 },
        })
        .collect();
    let (conn, entries) = log_of(&events);
    let query = AuditQuery {
        since: Some(at(1_000_100)),
        until: Some(at(1_000_120)),
        limit: 20,
        ..AuditQuery::default()
    };
    let want: Vec<_> = entries.iter().filter(|entry| matches(&query, entry)).cloned().collect();
    let (found, pages) = walk(&conn, query);
    assert_eq!(found, want);
    assert!(!found.is_empty() && pages > 1, "{} on {pages}", found.len());
}

#[test]
fn the_migration_notes_where_the_clock_was_set_back_before_it() {
    let (conn, _) = log_of(&[5, 5, -3, 1, -1, 0].map(|later| Event {
        action: 0,
        actor: None,
        resource: None,
        later,
    }));
    let steps = |conn: &Connection| {
        let mut statement = conn
            .prepare("SELECT seq FROM audit_clock_steps ORDER BY chain, seq")
            .unwrap();
        let steps = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        steps.collect::<rusqlite::Result<Vec<_>>>().unwrap()
    };
    assert_eq!(steps(&conn), [3, 5, 3, 5]);
    let migration = include_str!("../../../../migrations/0005_audit_reads.sql");
    let noting = migration.split_once("INSERT INTO").unwrap().1;
    conn.execute_batch(&format!("DELETE FROM audit_clock_steps; INSERT INTO{noting}"))
        .unwrap();
    assert_eq!(steps(&conn), [3, 5, 3, 5]);
}

#[test]
fn a_run_that_was_cut_short_is_written_to_its_end() {
    let event = |n: u8| Event {
        action: usize::from(n % 3),
        actor: Some(n % 2),
        resource: Some(n),
        later: 1,
    };
    let (conn, _) = log_of(&(0..40).map(event).collect::<Vec<_>>());
    let lists = || {
        let mut statement = conn
            .prepare("SELECT run, hex(subject), action, seq FROM audit_lists ORDER BY 1, 2, 3, 4")
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        let rows = rows
            .unwrap()
            .collect::<rusqlite::Result<Vec<(i64, String, String, i64)>>>();
        rows.unwrap()
    };
    let incomplete = || -> i64 {
        let sql = "SELECT count(*) FROM audit_runs WHERE complete = 0";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let finish = || {
        let runs = Runs::open(&conn).unwrap();
        while !runs.is_idle() {
            runs.advance(&conn, 7).unwrap();
        }
    };
    finish();
    let whole = lists();
    assert!(!whole.is_empty());
    // As if the process had died between two groups.
    conn.execute(
        "UPDATE audit_runs SET complete = 0 WHERE id = (SELECT max(id) FROM audit_runs)",
        [],
    )
    .unwrap();
    conn.execute(
        "DELETE FROM audit_lists WHERE run = (SELECT max(id) FROM audit_runs) AND seq % 5 = 0",
        [],
    )
    .unwrap();
    assert_eq!(incomplete(), 1);
    finish();
    assert_eq!((lists(), incomplete()), (whole, 0));
}

#[test]
fn a_log_that_is_older_than_its_runs_gets_them_without_a_new_entry() {
    let event = |n: u8| Event {
        action: usize::from(n % 3),
        actor: Some(n % 2),
        resource: Some(n % 5),
        later: 1,
    };
    let (conn, entries) = log_of(&(0..100).map(event).collect::<Vec<_>>());
    conn.execute_batch("DELETE FROM audit_lists; DELETE FROM audit_runs;")
        .unwrap();
    let runs = Runs::open(&conn).unwrap();
    while !runs.is_idle() {
        runs.advance(&conn, 50).unwrap();
    }
    let sql = "SELECT count(*), min(first), max(last) FROM audit_runs WHERE complete = 1 GROUP BY chain";
    let mut statement = conn.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let found: Vec<(i64, i64, i64)> = found.unwrap().collect::<rusqlite::Result<_>>().unwrap();
    // Both chains; four entries are no stretch yet.
    assert_eq!(found, [(6, 1, 96); 2]);
    assert!(Runs::open(&conn).unwrap().is_idle());
    let query = AuditQuery {
        resource_id: Some(id(3)),
        limit: 7,
        ..AuditQuery::default()
    };
    let want: Vec<_> = entries.iter().filter(|entry| matches(&query, entry)).cloned().collect();
    assert_eq!((walk(&conn, query).0, want.len()), (want, 20));
}

#[test]
fn entries_that_somebody_took_out_of_a_chain_are_missing_in_its_pages_and_nothing_else_is() {
    let event = |n: u8| Event {
        action: usize::from(n % 3),
        actor: Some(n % 2),
        resource: None,
        later: 1,
    };
    let (conn, mut entries) = log_of(&(0..60).map(event).collect::<Vec<_>>());
    conn.execute_batch("DROP TRIGGER audit_entries_no_delete; DELETE FROM audit_entries WHERE seq IN (5, 6, 20, 59)")
        .unwrap();
    entries.retain(|entry| ![5, 6, 20, 59].contains(&entry.seq));
    for actor_id in [None, Some(id(0)), Some(id(1))] {
        let query = AuditQuery {
            actor_id,
            limit: 5,
            ..AuditQuery::default()
        };
        let want: Vec<_> = entries.iter().filter(|entry| matches(&query, entry)).cloned().collect();
        assert_eq!(walk(&conn, query).0, want);
    }
}
