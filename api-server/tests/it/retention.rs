//! Old entries of the audit log: exported, proved, dropped, and never the other way round.

mod faults;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use rusqlite::Connection;
use sealpod_api_server::audit::{By, Chain, Entry, Kind, StoredEntry, Verb};
use sealpod_api_server::backup::{Asked, Backups, Error, Part, Settings, Storage, Stored, exports, read_export};
use sealpod_api_server::retention::{Retention, Turn, turn};
use sealpod_api_server::store::{Ages, AuditQuery, Options, Store};
use sealpod_core::Time;
use uuid::Uuid;

use crate::process::{maintain, run, text};
use crate::store_support::{Fixture, MASTER_KEY, by, keyring};
use crate::support::{O, Server};

const DAY: i64 = 24 * 3_600;

pub fn days(days: u16) -> Retention {
    days.to_string().parse().unwrap()
}

/// In so many days.
pub fn later(days: i64) -> Time {
    Time::now().plus_seconds(days * DAY)
}

/// Everything is old, so many days from now.
pub fn ages(days: i64) -> Ages {
    Ages {
        begin: later(days),
        cutoff: later(days),
        now: later(days),
    }
}

pub fn place(folder: &Path) -> Storage {
    Storage::Directory(folder.join("backups"))
}

pub fn backups(folder: &Path, storage: Option<Storage>) -> Backups {
    let settings = Settings {
        storage,
        recipients: Vec::new(),
    };
    Backups::new(settings, folder.join("sealpod.db"), keyring())
}

pub async fn chain(store: &Store) -> Chain {
    Chain::Organization(store.organization("default").await.unwrap().id)
}

/// So many entries of reads.
pub async fn fill(store: &Store, entries: usize) {
    let chain = chain(store).await;
    let record = |n: usize| {
        let entry = Entry::new(Kind::Secret, Verb::Read).resource(Uuid::from_u128(n as u128 % 50 + 1), "db");
        store.record(chain, entry, By::system("test"))
    };
    let recorded = futures::stream::iter(0..entries).map(record).buffered(512);
    recorded.for_each(async |recorded| recorded.unwrap()).await;
}

/// A log with so many entries, and where they are exported to.
pub async fn filled(entries: usize) -> (Fixture, Backups) {
    let fixture = Fixture::new().await;
    let folder = fixture.folder.path();
    let backups = backups(folder, Some(place(folder)));
    fill(&fixture.store, entries).await;
    (fixture, backups)
}

/// A turn two days after all that there is became old enough.
pub async fn turn_later(store: &Store, backups: &Backups) -> Result<Turn, Error> {
    turn(store, backups, days(400), later(402)).await
}

/// Where a file beside the backups is.
pub fn archive(folder: &Path, name: &str) -> PathBuf {
    folder.join("backups").join(name)
}

/// What is known of an archive.
pub fn known(folder: &Path, name: &str) -> PathBuf {
    archive(folder, &format!("{name}.json"))
}

/// As if it had been written a day ago.
pub fn make_old(path: &Path) {
    is_hours_old(path, 25);
}

pub fn is_hours_old(path: &Path, hours: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_hours(hours))
        .unwrap();
}

pub async fn all(store: &Store, chain: Chain) -> Vec<StoredEntry> {
    store.audit_following(chain, 0, 100_000).await.unwrap()
}

/// What the archives hold of a chain.
fn exported(folder: &Path, of: Chain) -> Vec<StoredEntry> {
    let (storage, keyring, mut entries) = (place(folder), keyring(), Vec::new());
    for export in exports(&storage).unwrap() {
        let source = Stored {
            storage: storage.clone(),
            name: export.filename,
        };
        let asked = Asked {
            id: Some(export.id),
            keyring: Some(&keyring),
            identity: None,
        };
        read_export(&source, &asked, |part| {
            if let Part::Entry(entry) = part {
                entries.push(*entry);
            }
            Ok(())
        })
        .unwrap();
    }
    entries.retain(|entry| entry.chain == of);
    entries
}

fn count(path: &Path, sql: &str) -> i64 {
    Connection::open(path)
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_entries_are_exported_and_dropped_and_the_chain_verifies_across() {
    // A whole run of the log with its lists, and what follows it.
    let (fixture, backups) = filled(5_000).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let chain = chain(store).await;
    let before = all(store, chain).await;

    // Nothing is old.
    assert_eq!(turn(store, &backups, days(400), Time::now()).await.unwrap(), Turn::Done);
    // What is just old enough waits, so that not every hour has its archive.
    assert_eq!(turn(store, &backups, days(1), later(1)).await.unwrap(), Turn::Done);
    // For ever.
    assert_eq!(turn(store, &backups, days(0), later(4_000)).await.unwrap(), Turn::Done);
    assert_eq!(
        (all(store, chain).await, exports(&place(folder)).unwrap().len()),
        (before.clone(), 0)
    );

    let commits = store.stats().commits;
    assert_eq!(turn_later(store, &backups).await.unwrap(), Turn::Done);
    // Nobody else's change waits for all of this: it goes in steps of a thousand rows or so.
    let commits = store.stats().commits - commits;
    assert!(commits > 5_000 * 4 / 1_100, "{commits} commits");
    let (newest, gone) = before.split_last().unwrap();
    assert_eq!(exported(folder, chain), gone);
    assert_eq!(all(store, chain).await, std::slice::from_ref(newest));
    let report = store.verify_audit().await.unwrap();
    let ours = report.chains.iter().find(|report| report.chain == chain).unwrap();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((ours.cut, ours.entries, ours.head), (newest.seq - 1, 1, newest.hash));
    // The lists by which they were found went along.
    let path = fixture.path();
    assert_eq!(count(&path, "SELECT count(*) FROM audit_lists"), 0);
    assert_eq!(count(&path, "SELECT count(*) FROM audit_runs"), 0);
    // That it was done is on record.
    let instance = store.audit_entries(Chain::Instance, 1).await.unwrap().remove(0);
    assert_eq!(
        (instance.action.as_str(), instance.actor_name.as_str()),
        ("backup.create", "retention")
    );
    assert_eq!(
        instance.resource_name.unwrap(),
        exports(&place(folder)).unwrap()[0].filename
    );

    // The chain goes on where it was, and the next export behind the first.
    fill(store, 100).await;
    assert_eq!(turn_later(store, &backups).await.unwrap(), Turn::Done);
    assert_eq!(exports(&place(folder)).unwrap().len(), 2);
    assert_eq!(exported(folder, chain).len() + 1, 5_000 + 1 + 100);
    assert!(store.verify_audit().await.unwrap().is_intact());
    // A start knows where the chain was cut.
    store.close().await;
    let store = Store::open(&Options::new(&path), &keyring()).unwrap();
    fill(&store, 10).await;
    let report = store.verify_audit().await.unwrap();
    assert!(
        report.is_intact() && report.chains.iter().any(|report| report.entries == 11),
        "{report:?}"
    );
    store.close().await;
    commands(folder);
}

/// `audit verify` and `audit unseal`, on what the server left.
fn commands(folder: &Path) {
    std::fs::write(folder.join("master.key"), MASTER_KEY).unwrap();
    let url = format!("file://{}", folder.join("backups").display());
    let verify = || {
        let output = maintain(folder, &["audit", "verify", "--exports", "--backup-url", &url]);
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (ok, said) = verify();
    assert!(
        ok && said.contains("11 entries behind 5100 that were exported"),
        "{said}"
    );
    let [first, second] = &exports(&place(folder)).unwrap()[..] else {
        panic!("two were made")
    };
    let key = folder.join("master.key").display().to_string();
    let unseal = |which: &str| {
        run(&[
            "audit",
            "unseal",
            which,
            "--backup-url",
            &url,
            "--master-key-file",
            &key,
        ])
    };
    let unsealed = unseal(&first.id.to_string());
    let lines = text(&unsealed.stdout);
    assert_eq!(
        lines.lines().count() as u64,
        first.entries + 1,
        "{}",
        text(&unsealed.stderr)
    );
    let named = lines.lines().filter(|line| line.starts_with(r#"{"chain":"#)).count();
    assert_eq!(named, 1, "a line that names the chain");
    let backup = run(&[
        "backup",
        "verify",
        &first.id.to_string(),
        "--backup-url",
        &url,
        "--master-key-file",
        &key,
    ]);
    assert!(
        text(&backup.stderr).contains("another thing than a backup"),
        "{}",
        text(&backup.stderr)
    );

    // One that is missing, and one that is changed.
    let file = archive(folder, &first.filename);
    let content = std::fs::read(&file).unwrap();
    let mut changed = content.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, changed).unwrap();
    let (ok, said) = verify();
    let what = format!("{}: the archive is damaged", first.filename);
    assert!(!ok && said.contains(&what) && said.contains("was changed"), "{said}");
    // For evidence there is no other one.
    assert!(!said.contains("another one"), "{said}");
    std::fs::remove_file(&file).unwrap();
    let (ok, said) = verify();
    assert!(!ok && said.contains("an archive before it is missing"), "{said}");
    std::fs::write(&file, content).unwrap();
    assert!(verify().0);
    // What was exported last seems to have been made first: the clock was set back between the two.
    let known = known(folder, &second.filename);
    let mut of_before = second.clone();
    of_before.created_at = first.created_at.plus_seconds(-DAY);
    std::fs::write(known, serde_json::to_vec(&of_before).unwrap()).unwrap();
    assert_eq!(exports(&place(folder)).unwrap()[0].id, second.id);
    let (ok, said) = verify();
    assert!(ok, "{said}");
    // The last one is missing.
    std::fs::remove_file(archive(folder, &second.filename)).unwrap();
    let (ok, said) = verify();
    assert!(!ok && said.contains("no archive has the entries up to"), "{said}");
}

#[tokio::test]
async fn pages_of_the_log_end_where_it_was_cut_and_cursors_stay_right() {
    let server = Server::start().await;
    let settings = Settings {
        storage: Some(place(server.dir())),
        recipients: Vec::new(),
    };
    let key = std::fs::read_to_string(server.dir().join("master.key")).unwrap();
    let keyring = sealpod_api_server::crypto::Keyring::parse(&key).unwrap();
    let backups = Backups::new(settings, server.dir().join("sealpod.db"), keyring);
    fill(&server.store, 60).await;
    let first = server
        .admin("GET", &format!("{O}/audit-logs?limit=20"))
        .status(200)
        .await;
    let cursor = first.text_at("next_cursor");
    let filtered = format!("{O}/audit-logs?limit=5&action=secret.read");
    let within = server.admin("GET", &filtered).status(200).await.text_at("next_cursor");
    turn_later(&server.store, &backups).await.unwrap();
    // A cursor of before that goes to what is not there any more leads to the end.
    for path in [
        format!("{O}/audit-logs?limit=20&after={cursor}"),
        format!("{filtered}&after={within}"),
    ] {
        let page = server.admin("GET", &path).status(200).await;
        assert_eq!(
            (&page.body["entries"], page.body["next_cursor"].is_null()),
            (&serde_json::json!([]), true)
        );
    }
    fill(&server.store, 10).await;
    let page = server
        .admin("GET", &format!("{O}/audit-logs?limit=8"))
        .status(200)
        .await;
    assert_eq!(page.body["entries"].as_array().unwrap().len(), 8);
    let rest = format!("{O}/audit-logs?limit=8&after={}", page.text_at("next_cursor"));
    let rest = server.admin("GET", &rest).status(200).await;
    assert_eq!(rest.body["entries"].as_array().unwrap().len(), 3);
    assert!(rest.body["next_cursor"].is_null(), "{}", rest.text);
    // Old master keys that only exports need are needed.
    let keys = server.admin("GET", "/api/keys").status(200).await;
    assert_eq!(keys.body["keys"][0]["backups"], 1, "{}", keys.text);
    let since = AuditQuery {
        since: Some(Time::now().plus_seconds(-3_600)),
        limit: 100,
        ..AuditQuery::default()
    };
    let chain = chain(&server.store).await;
    assert_eq!(server.store.audit_page(chain, since).await.unwrap().entries.len(), 11);
}

/// The names of what is where the archives are.
pub fn left(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("backups")).unwrap();
    files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn entries_of_the_future_hold_up_no_older_ones() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let chain = chain(store).await;
    fill(store, 30).await;
    let newest = all(store, chain).await.last().unwrap().seq;
    let other = Connection::open(fixture.path()).unwrap();
    let ahead = |below: u64| {
        let at = later(4_000).microseconds();
        let sql = format!("UPDATE audit_entries SET created_at = {at} WHERE seq < {below}");
        other
            .execute_batch(&format!("DROP TRIGGER IF EXISTS audit_entries_no_update; {sql}"))
            .unwrap();
    };
    let due = async |days: i64| {
        let due = store.audit_due(ages(days), &BTreeSet::new()).await.unwrap();
        let due = due.into_iter().find(|segment| segment.chain == chain);
        due.map(|segment| (segment.first, segment.last))
    };
    ahead(10);
    assert_eq!(due(-1).await, None);
    assert_eq!(due(402).await, Some((1, newest - 1)));
    // None but of the future.
    ahead(newest + 1);
    assert_eq!(due(402).await, None);
    assert_eq!(due(4_002).await, Some((1, newest - 1)));
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_a_start_ages_nothing() {
    let fixture = Fixture::new().await;
    let now = Time::now();
    assert_eq!(fixture.store.judged_time(now, Instant::now()).await, Ok(now));
    fixture.store.close().await;
    for _ in 0..2 {
        let begun = Instant::now();
        let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
        let judged = async |hours: u64| {
            let at = begun + Duration::from_hours(hours);
            store.judged_time(later(3_653), at).await.unwrap()
        };
        assert_eq!(judged(0).await, now);
        assert!(judged(1).await <= now.plus_seconds(3_601));
        // For this the next start goes on from there.
        assert!(store.judged_time(now, begun + Duration::from_hours(1)).await.is_ok());
        store.close().await;
    }
}
