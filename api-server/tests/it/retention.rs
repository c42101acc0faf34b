//! Old entries of the audit log: exported, proved, dropped, and never the other way round.

use std::collections::BTreeSet;
use std::path::Path;
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
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let chain = chain(store).await;
    // A whole run of the log with its lists, and what follows it.
    fill(store, 5_000).await;
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
    assert_eq!(turn(store, &backups, days(400), later(402)).await.unwrap(), Turn::Done);
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
    assert_eq!(turn(store, &backups, days(400), later(402)).await.unwrap(), Turn::Done);
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
    let file = folder.join("backups").join(&first.filename);
    let content = std::fs::read(&file).unwrap();
    let mut changed = content.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&file, changed).unwrap();
    let (ok, said) = verify();
    assert!(!ok && said.contains("was changed"), "{said}");
    std::fs::remove_file(&file).unwrap();
    let (ok, said) = verify();
    assert!(!ok && said.contains("an archive before it is missing"), "{said}");
    std::fs::write(&file, content).unwrap();
    assert!(verify().0);
    // What was exported last seems to have been made first: the clock was set back between the two.
    let known = folder.join("backups").join(format!("{}.json", second.filename));
    let mut of_before = second.clone();
    of_before.created_at = first.created_at.plus_seconds(-DAY);
    std::fs::write(known, serde_json::to_vec(&of_before).unwrap()).unwrap();
    assert_eq!(exports(&place(folder)).unwrap()[0].id, second.id);
    let (ok, said) = verify();
    assert!(ok, "{said}");
    // The last one is missing.
    std::fs::remove_file(folder.join("backups").join(&second.filename)).unwrap();
    let (ok, said) = verify();
    assert!(!ok && said.contains("no archive has the entries up to"), "{said}");
}

#[tokio::test]
async fn nothing_is_dropped_that_is_not_safely_elsewhere() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let chain = chain(store).await;
    fill(store, 20).await;
    let before = all(store, chain).await;
    // Nowhere to export to.
    let nowhere = backups(folder, None);
    assert_eq!(
        turn(store, &nowhere, days(30), later(40)).await.unwrap(),
        Turn::NoStorage
    );
    // A place that cannot be written to.
    std::fs::write(folder.join("file"), "no folder").unwrap();
    let blocked = backups(folder, Some(Storage::Directory(folder.join("file"))));
    let refused = turn(store, &blocked, days(30), later(40)).await;
    assert!(matches!(refused, Err(Error::Storage(_))), "{refused:?}");
    assert_eq!(all(store, chain).await, before);
    // Entries that are not as they were written are evidence.
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch(
            "DROP TRIGGER audit_entries_no_update; UPDATE audit_entries SET actor_name = 'nobody' WHERE seq = 7",
        )
        .unwrap();
    let good = backups(folder, Some(place(folder)));
    let refused = turn(store, &good, days(30), later(40)).await;
    let said = refused.unwrap_err().to_string();
    assert!(
        said.contains("entry 7 was changed") && said.contains("nothing of it is taken away"),
        "{said}"
    );
    assert_eq!(all(store, chain).await.len(), before.len());
    assert!(exports(&place(folder)).unwrap().is_empty());
    let left = std::fs::read_dir(folder.join("backups")).unwrap().count();
    assert_eq!(left, 0, "what was not proved is no export");
}

#[tokio::test]
async fn an_export_that_was_cut_off_before_the_entries_went_is_taken_up_again() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let chain = chain(store).await;
    fill(store, 30).await;
    let before = all(store, chain).await;
    // As far as the record that they were exported, and no further.
    let due = store.audit_due(ages(400), &BTreeSet::new()).await.unwrap();
    let export = backups.export(store, due.clone()).await.unwrap();
    let name = export.filename.clone();
    store
        .cut_audit(due.clone(), export.id, name.clone(), By::system("test"))
        .await
        .unwrap();
    // A second time they are not exported, nor cut.
    let again = store.cut_audit(due, export.id, name, By::system("test")).await;
    assert!(again.is_err());
    assert_eq!(all(store, chain).await, before);
    assert!(store.verify_audit().await.unwrap().is_intact());
    store.close().await;
    let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    assert_eq!(
        turn(&store, &backups, days(400), Time::now()).await.unwrap(),
        Turn::Done
    );
    assert_eq!(all(&store, chain).await.len(), 1);
    assert!(store.verify_audit().await.unwrap().is_intact());
    assert_eq!(exports(&place(folder)).unwrap().len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_record_of_an_export_that_the_server_did_not_write_is_named() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let chain = chain(store).await;
    fill(store, 30).await;
    turn(store, &backups, days(400), later(402)).await.unwrap();
    fill(store, 30).await;
    assert!(store.verify_audit().await.unwrap().is_intact());
    let other = Connection::open(fixture.path()).unwrap();
    let broken = async |sql: &str| {
        other.execute_batch(&format!("BEGIN; {sql}")).unwrap();
        other.execute_batch("COMMIT").unwrap();
        let report = store.verify_audit().await.unwrap();
        let report = report.chains.into_iter().find(|report| report.chain == chain);
        report.unwrap().broken.map(|broken| broken.to_string())
    };
    // Somebody who has the file takes ten entries away and writes that these were exported, with the right hash.
    let id = chain.id().simple().to_string();
    let forged = format!(
        "INSERT INTO audit_cuts SELECT chain, 31, 42, (SELECT head FROM audit_cuts WHERE chain = x'{id}'), hash, x'{id}', 1,
             zeroblob(32) FROM audit_entries WHERE chain = x'{id}' AND seq = 42;
         DELETE FROM audit_entries WHERE chain = x'{id}' AND seq <= 42;"
    );
    let said = broken(&forged).await.unwrap();
    assert!(
        said.contains("up to 42 were exported was not written by this server"),
        "{said}"
    );
    // Without that row, a gap.
    let said = broken(&format!("DELETE FROM audit_cuts WHERE chain = x'{id}' AND last = 42;")).await;
    assert!(said.unwrap().contains("entry 31 is missing"));
    // Without any of what follows.
    let nothing = format!("DROP TRIGGER audit_entries_no_delete; DELETE FROM audit_entries WHERE chain = x'{id}';");
    assert!(broken(&nothing).await.unwrap().contains("all behind it are gone"));
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
    turn(&server.store, &backups, days(400), later(402)).await.unwrap();
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
async fn an_export_that_is_not_on_record_leaves_no_archive() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let chain = chain(store).await;
    fill(store, 30).await;
    let before = all(store, chain).await;
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON audit_cuts BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    for _ in 0..2 {
        assert!(turn(store, &backups, days(400), later(402)).await.is_err());
        assert_eq!(left(folder), Vec::<String>::new());
    }
    assert_eq!(all(store, chain).await, before);
    other.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(turn(store, &backups, days(400), later(402)).await.unwrap(), Turn::Done);
    assert_eq!(left(folder).len(), 2);
}

#[tokio::test]
async fn what_exports_left_behind_when_they_were_killed_goes_but_nothing_that_entries_went_behind() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    fill(store, 30).await;
    turn(store, &backups, days(400), later(402)).await.unwrap();
    let first = exports(&place(folder)).unwrap().remove(0).filename;
    // What is known of it is lost, and two others never came to their ends.
    std::fs::remove_file(folder.join("backups").join(format!("{first}.json"))).unwrap();
    let of = |n: u128, end: &str| format!("sealpod-audit-20260101T000000Z-{}.audit{end}", Uuid::from_u128(n));
    let old = [of(1, ""), of(2, ".partial"), of(3, ".json.partial")];
    let kept = [of(4, ""), "somebody-elses.audit".to_owned()];
    let write = |name: &String, age: Duration| {
        let file = std::fs::File::create(folder.join("backups").join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    old.iter()
        .chain([&kept[1], &first])
        .for_each(|name| write(name, Duration::from_hours(25)));
    write(&kept[0], Duration::from_hours(1));
    fill(store, 30).await;
    turn(store, &backups, days(400), later(402)).await.unwrap();
    let left = left(folder);
    for name in &old {
        assert!(!left.contains(name), "{name}");
    }
    for name in kept.iter().chain([&first]) {
        assert!(left.contains(name), "{name}");
    }
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
async fn a_chain_that_is_not_as_it_was_written_holds_up_no_other() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let ours = chain(store).await;
    fill(store, 30).await;
    for _ in 0..5 {
        let entry = Entry::new(Kind::Backup, Verb::Create);
        store.record(Chain::Instance, entry, by()).await.unwrap();
    }
    let id = ours.id().simple();
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch(&format!(
            "DROP TRIGGER audit_entries_no_update;
             UPDATE audit_entries SET actor_name = 'nobody' WHERE seq = 7 AND chain = x'{id}'"
        ))
        .unwrap();
    let kept = all(store, ours).await.len();
    for _ in 0..2 {
        let refused = turn(store, &backups, days(400), later(402)).await.unwrap_err();
        assert!(
            matches!(refused, Error::BrokenChain { chain, .. } if chain == ours),
            "{refused}"
        );
        assert_eq!(all(store, ours).await.len(), kept);
        // The newest, and that it was done.
        assert!(all(store, Chain::Instance).await.len() <= 2);
        assert!(exported(folder, ours).is_empty());
    }
    let left = left(folder);
    assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
}

#[tokio::test]
async fn a_clock_that_is_wrong_at_a_start_ages_nothing() {
    let fixture = Fixture::new().await;
    let now = Time::now();
    assert_eq!(fixture.store.judged_time(now, Instant::now()).await, Ok(now));
    fixture.store.close().await;
    for _ in 0..2 {
        let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
        let begun = Instant::now();
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

#[tokio::test]
async fn a_file_that_cannot_be_read_hides_no_backup_and_makes_no_key_look_unused() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let trigger = sealpod_core::wire::backups::Trigger::Manual;
    let made = backups.create(store, trigger, by()).await.unwrap();
    fill(store, 30).await;
    turn(store, &backups, days(400), later(402)).await.unwrap();
    assert_eq!(backups.by_key().await.unwrap().into_values().collect::<Vec<_>>(), [2]);
    let huge = vec![b' '; 2 << 20];
    let of = |name: &str| folder.join("backups").join(name);
    for name in ["sealpod-1.backup", "sealpod-audit-1.audit"] {
        std::fs::write(of(name), "").unwrap();
        std::fs::write(of(&format!("{name}.json")), &huge).unwrap();
    }
    assert_eq!(backups.list().await.unwrap(), [made]);
    assert_eq!(backups.by_key().await, None);
    // What nobody could open needs no key.
    std::fs::remove_file(of("sealpod-1.backup.json")).unwrap();
    std::fs::remove_file(of("sealpod-1.backup")).unwrap();
    assert_eq!(backups.by_key().await.unwrap().into_values().collect::<Vec<_>>(), [2]);
}
