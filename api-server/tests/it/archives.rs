//! Archives and what they need: keys that nobody may throw away, records, and what processes that were stopped left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use rusqlite::Connection;
use sealpod_api_server::app::Metrics;
use sealpod_api_server::backup::schedule::{self, Schedule};
use sealpod_api_server::backup::{
    Asked, Backups, Error, Keep, Settings, Stored, Unclear, Unpacked, exports, restore, verify, write_archive,
};
use sealpod_api_server::crypto::{Keyring, generate_master_key};
use sealpod_api_server::retention::Turn;
use sealpod_api_server::store::{Options, Store, Trace};
use sealpod_core::Time;
use sealpod_core::wire::backups::Trigger;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backup_retention::turn_and_clear;
use crate::backups::files;
use crate::process::{run, text};
use crate::retention::{
    ages, all, archive, backups, chain, fill, filled, known, later, left, make_old, place, turn_later,
};
use crate::store_support::{Fixture, MASTER_KEY, OLDER_KEY, by, keyring, older_database};

const SCHEDULE: Schedule = Schedule {
    hours: 6,
    daily_days: 7,
    weekly_weeks: 4,
};

/// A new key alone, and before that of the fixtures.
fn two_keys() -> (Keyring, Keyring) {
    let new = generate_master_key();
    let both = format!("{}\n{MASTER_KEY}", new.expose());
    (Keyring::parse(new.expose()).unwrap(), Keyring::parse(&both).unwrap())
}

fn backups_of(folder: &Path, keyring: &Keyring) -> Backups {
    let settings = Settings {
        storage: Some(place(folder)),
        recipients: Vec::new(),
    };
    Backups::new(settings, folder.join("sealpod.db"), keyring.clone())
}

#[tokio::test]
async fn a_backup_counts_for_every_key_without_which_it_is_no_use() {
    let fixture = Fixture::new().await;
    let folder = fixture.folder.path();
    let (alone, ring) = two_keys();
    let (old, new) = (keyring().current(), ring.current());
    let backups = backups_of(folder, &ring);
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::new()));
    // Sealed under the new key, while what is in the database was not wrapped anew yet.
    let made = backups.create(&fixture.store, Trigger::Manual, by()).await.unwrap();
    assert_eq!(made.key_id, new.to_string());
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1), (new, 1)])));
    // For without the old one nobody opens it.
    let source = Stored {
        storage: place(folder),
        name: made.filename.clone(),
    };
    let asked = Asked {
        id: Some(made.id),
        keyring: Some(&alone),
        identity: None,
    };
    let refused = restore(&source, &asked, &folder.join("x.db"), Keep::Nothing, |_| Ok(()), by());
    assert!(matches!(refused, Err(Error::ForeignKey { needed, .. }) if needed == old));
    let with_both = |source: &Stored, id, name: &str| {
        let asked = Asked {
            id: Some(id),
            keyring: Some(&ring),
            identity: None,
        };
        let restore = || restore(source, &asked, &folder.join(name), Keep::Nothing, |_| Ok(()), by()).unwrap();
        // It blocks, which this thread must not.
        let handle = tokio::runtime::Handle::current();
        let entered = || {
            let _entered = handle.enter();
            restore()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap())
    };
    assert_eq!(with_both(&source, made.id, "of-both.db").manifest.backup, made.id);

    // What the command line makes is seen as well, and that people removed one.
    let id = Uuid::now_v7();
    let from = (&*fixture.path(), &keyring());
    let before = write_archive(id, &place(folder), from, &[], Trigger::Command).unwrap();
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 2), (new, 1)])));
    // One of before the rotation is readable behind it, for as long as its key is kept.
    let source = Stored {
        storage: place(folder),
        name: before.filename,
    };
    assert_eq!(
        with_both(&source, id, "of-before.db").manifest.master_keys,
        [old.to_string()]
    );
    let archive = archive(folder, &made.filename);
    std::fs::remove_file(&archive).unwrap();
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1)])));
}

#[tokio::test]
async fn a_backup_of_which_its_file_does_not_say_what_it_needs_says_it_itself() {
    let fixture = Fixture::new().await;
    let folder = fixture.folder.path();
    let (alone, ring) = two_keys();
    let (old, new) = (keyring().current(), ring.current());
    // Of several of an archive's parts.
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", &"v".repeat(1 << 20)).await;
    let made = backups_of(folder, &ring)
        .create(&fixture.store, Trigger::Manual, by())
        .await
        .unwrap();
    let archive = archive(folder, &made.filename);
    let known = known(folder, &made.filename);
    let needed = Some(BTreeMap::from([(old, 1), (new, 1)]));
    // As an earlier version wrote it, and as a disk spoils it.
    for written in [serde_json::to_vec(&made).unwrap(), b"{".to_vec()] {
        std::fs::write(&known, written).unwrap();
        assert_eq!(backups_of(folder, &ring).by_key().await.ok(), needed);
    }
    // What was not known is looked at anew with other keys. It is named.
    let stranger = Keyring::parse(generate_master_key().expose()).unwrap();
    let backups = backups_of(folder, &stranger);
    let unread = backups.by_key().await.unwrap_err();
    assert_eq!(unread, Unclear::Unread(vec![format!("{}.json", made.filename)]));
    assert!(unread.to_string().contains(&made.filename), "{unread}");
    stranger.replace(&alone);
    assert_eq!(backups.by_key().await.ok(), needed);
    // The rest of it is not read, and once is enough.
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    let backups = backups_of(folder, &ring);
    assert_eq!(backups.by_key().await.ok(), needed);
    std::fs::write(&archive, "").unwrap();
    assert_eq!(backups.by_key().await.ok(), needed);
    assert_eq!(backups_of(folder, &ring).by_key().await.ok(), None);
}

#[tokio::test]
async fn an_archive_that_people_renamed_counts_for_its_key_for_as_long_as_it_is_there() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    for name in ["before-the-move.backup", "sealpod-before-the-upgrade.backup"] {
        let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
        std::fs::rename(archive(folder, &made.filename), archive(folder, name)).unwrap();
        std::fs::remove_file(known(folder, &made.filename)).unwrap();
    }
    let needed = Some(BTreeMap::from([(keyring().current(), 2)]));
    assert_eq!(backups.by_key().await.ok(), needed);
    for name in ["before-the-move.backup", "sealpod-before-the-upgrade.backup"] {
        make_old(&archive(folder, name));
    }
    schedule::clear(&backups, Some(SCHEDULE), store, Time::now)
        .await
        .unwrap();
    assert_eq!(backups.by_key().await.ok(), needed);
    // One that does not open leaves no key to be thrown away.
    let stranger = Keyring::parse(generate_master_key().expose()).unwrap();
    let unread = backups_of(folder, &stranger).by_key().await.unwrap_err().to_string();
    assert!(unread.contains("before-the-move.backup"), "{unread}");
}

#[tokio::test]
async fn a_copy_beside_the_database_counts_for_the_keys_of_its_values() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    let needed = |count| Some(BTreeMap::from([(keyring().current(), count)]));
    assert_eq!(backups.by_key().await.ok(), needed(1));
    let restored = backups.restore(store, made.id, by()).await.unwrap().path;
    std::fs::copy(&restored, folder.join("sealpod.db.schema-3")).unwrap();
    std::fs::copy(&restored, folder.join("sealpod.db.schema-4.partial")).unwrap();
    std::fs::write(
        folder.join("sealpod.db.schema-2"),
        "no database at all, whatever its name",
    )
    .unwrap();
    let before = files(folder);
    assert_eq!(backups.by_key().await.ok(), needed(3));
    // Nothing was put beside them.
    assert_eq!(files(folder), before);
    // What cannot be told of one leaves no key to be thrown away.
    let whole = std::fs::read(&restored).unwrap();
    std::fs::write(&restored, &whole[..4096]).unwrap();
    assert_eq!(
        backups.by_key().await,
        Err(Unclear::Unread(vec![restored.display().to_string()]))
    );
    std::fs::remove_file(restored).unwrap();
    assert_eq!(backups.by_key().await.ok(), needed(2));
}

#[tokio::test]
async fn what_is_being_made_may_need_any_key() {
    let fixture = Fixture::new().await;
    let (folder, (_, ring)) = (fixture.folder.path(), two_keys());
    let (old, new) = (keyring().current(), ring.current());
    let backups = backups_of(folder, &ring);
    std::fs::create_dir(folder.join("backups")).unwrap();
    let id = Uuid::now_v7();
    let file = |end: &str| {
        folder
            .join("backups")
            .join(format!("sealpod-20261122T000000Z-{id}{end}"))
    };
    // As the command line has it at first, and while it opens what it wrote.
    std::fs::write(file(".backup.partial"), "").unwrap();
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1), (new, 1)])));
    std::fs::rename(file(".backup.partial"), file(".backup")).unwrap();
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1), (new, 1)])));
    // Of one that was cut off nothing becomes a backup any more.
    make_old(&file(".backup"));
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_names_the_key_that_opens_it_although_another_one_came_meanwhile() {
    let (_, both) = two_keys();
    let (old, new) = (keyring().current(), both.current());
    let (ring, is_armed) = (keyring(), Arc::new(AtomicBool::new(false)));
    let (replaced, armed) = (ring.clone(), Arc::clone(&is_armed));
    // The entries are read when the archive has been begun.
    let trace = Trace::new(move |sql| {
        if armed.load(Ordering::Relaxed) && sql.contains("audit_entries") {
            replaced.replace(&both);
        }
    });
    let fixture = Fixture::with(|options| options.trace = Some(trace)).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups_of(folder, &ring);
    fill(store, 30).await;
    let due = store.audit_due(ages(400), &BTreeSet::new()).await.unwrap();
    is_armed.store(true, Ordering::Relaxed);
    let export = backups.export(store, due).await.unwrap();
    assert_eq!((ring.current(), export.key_id), (new, old.to_string()));
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1)])));
    // What was known of it is lost: it may be the only copy even so.
    let known = known(folder, &export.filename);
    std::fs::remove_file(known).unwrap();
    assert_eq!(backups.by_key().await.ok(), Some(BTreeMap::from([(old, 1)])));
}

#[tokio::test]
async fn a_backup_that_cannot_be_put_on_record_is_kept_and_a_restored_database_is_not() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    let refused = backups.create(store, Trigger::Manual, by()).await;
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    let listed = backups.list().await.unwrap();
    assert_eq!((listed.len(), &listed[1]), (2, &made));
    let before = (left(folder).len(), files(folder));
    assert!(backups.restore(store, made.id, by()).await.is_err());
    assert_eq!((left(folder).len(), files(folder)), before);
    other.execute_batch("DROP TRIGGER no").unwrap();
    backups.restore(store, made.id, by()).await.unwrap();
    // What was kept is as good as any other.
    let source = Stored {
        storage: place(folder),
        name: listed[0].filename.clone(),
    };
    let asked = Asked {
        id: Some(listed[0].id),
        keyring: Some(&keyring()),
        identity: None,
    };
    verify(&source, &asked, folder).unwrap();
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_restored_without_a_copy_of_the_copy() {
    tokio::task::spawn_blocking(restore_an_older_schema).await.unwrap();
}

fn restore_an_older_schema() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealpod.db");
    std::fs::write(&path, older_database(9)).unwrap();
    let ring = Keyring::parse(OLDER_KEY).unwrap();
    let (id, storage) = (Uuid::now_v7(), place(folder.path()));
    let made = write_archive(id, &storage, (&path, &ring), &[], Trigger::Command).unwrap();
    let source = Stored {
        storage,
        name: made.filename,
    };
    let asked = Asked {
        id: Some(id),
        keyring: Some(&ring),
        identity: None,
    };
    let target = folder.path().join("restored.db");
    let look = |unpacked: &Unpacked<'_>| {
        // It is one of those that the next start would find.
        let name = unpacked.path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(".sealpod-scratch-"), "{name}");
        Ok(())
    };
    let restored = restore(&source, &asked, &target, Keep::Nothing, look, by()).unwrap();
    assert_eq!(restored.manifest.schema, 9);
    assert_eq!(files(folder.path()), ["backups", "restored.db", "sealpod.db"]);
}

#[tokio::test]
async fn a_clock_that_is_set_forward_does_not_take_the_history_of_backups() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let now = Time::now();
    store.judged_time(now, Instant::now()).await.unwrap();
    // One of each of the last days.
    for day in 1..=5 {
        let mut made = backups.create(store, Trigger::Schedule, by()).await.unwrap();
        made.created_at = now.plus_seconds(-day * 24 * 3_600);
        let known = known(folder, &made.filename);
        std::fs::write(known, serde_json::to_vec(&made).unwrap()).unwrap();
    }
    for made in [6, 7] {
        turn_and_clear(&backups, SCHEDULE, store, || later(3_650)).await;
        assert_eq!(backups.list().await.unwrap().len(), made);
    }
    // Right again: one was made within hours.
    turn_and_clear(&backups, SCHEDULE, store, Time::now).await;
    assert_eq!(backups.list().await.unwrap().len(), 7);
}

#[tokio::test]
async fn without_a_schedule_no_metric_tells_of_backups_that_are_there() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    backups.create(store, Trigger::Manual, by()).await.unwrap();
    let mut registry = Registry::default();
    let told = (Readiness::new(), Metrics::register(&mut registry));
    let never = Schedule { hours: 0, ..SCHEDULE };
    let stop = CancellationToken::new();
    // Nothing has to stop it. With a schedule it goes on until then.
    let run = schedule::run(backups.clone(), never, store.clone(), told.clone(), stop.clone());
    tokio::time::timeout(Duration::from_secs(30), run)
        .await
        .expect("it ends");
    let metrics = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    assert!(!metrics().contains("backup"), "{}", metrics());
    let run = tokio::spawn(schedule::run(backups, SCHEDULE, store.clone(), told, stop.clone()));
    for attempt in 0.. {
        if metrics().contains("backup_failed 0") {
            break;
        }
        assert!(attempt < 1_000 && !run.is_finished(), "{}", metrics());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(metrics().contains("backup_age_seconds "), "{}", metrics());
    stop.cancel();
    run.await.unwrap();
}

/// What is there after an export that nobody lived to put on record.
async fn stopped(store: &Store, backups: &Backups) -> String {
    let due = store.audit_due(ages(400), &BTreeSet::new()).await.unwrap();
    backups.export(store, due).await.unwrap().filename
}

#[tokio::test]
async fn an_export_that_was_stopped_before_it_was_on_record_is_the_one_that_goes_on_record() {
    for is_known in [true, false] {
        let (fixture, backups) = filled(30).await;
        let (store, folder) = (&fixture.store, fixture.folder.path());
        let chain = chain(store).await;
        let name = stopped(store, &backups).await;
        if !is_known {
            std::fs::remove_file(known(folder, &name)).unwrap();
        }
        let before = exports(&place(folder)).unwrap();
        fill(store, 10).await;
        assert_eq!(turn_later(store, &backups).await.unwrap(), Turn::Done);
        let after = exports(&place(folder)).unwrap();
        assert_eq!((after[0].filename.as_str(), after.len()), (name.as_str(), 2));
        assert!(!is_known || before[0] == after[0]);
        assert_eq!(all(store, chain).await.len(), 1);
        assert!(store.verify_audit().await.unwrap().is_intact());
        // Nothing is left that no record tells of.
        for export in &after {
            assert_eq!(store.has_cut(export.id).await, Ok(true));
        }
    }
}

#[tokio::test]
async fn what_a_server_on_another_database_exports_is_its_own_for_a_day() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    // Production has written it, and is about to put it on record, or to take it away where it cannot.
    let name = stopped(store, &backups).await;
    // A drill, in the same place, of whose chain it has the beginning.
    let restored = backups.restore(store, made.id, by()).await.unwrap().path;
    let drill = Store::open(&Options::new(&restored), &keyring()).unwrap();
    let chain = chain(store).await;
    turn_later(&drill, &backups).await.unwrap();
    assert_eq!(all(&drill, chain).await.len(), 1);
    let theirs: Vec<_> = exports(&place(folder))
        .unwrap()
        .into_iter()
        .filter(|export| export.filename != name)
        .collect();
    assert_eq!(theirs.len(), 1, "it has no archive of its own");
    assert_eq!(drill.has_cut(theirs[0].id).await, Ok(true));
    std::fs::remove_file(archive(folder, &name)).unwrap();
    std::fs::remove_file(known(folder, &name)).unwrap();
    drill.close().await;
    let url = format!("sqlite:{}", restored.display());
    let key = folder.join("master.key");
    std::fs::write(&key, MASTER_KEY).unwrap();
    let verified = run(&[
        "audit",
        "verify",
        "--exports",
        "--database-url",
        &url,
        "--master-key-file",
        key.to_str().unwrap(),
        "--backup-url",
        &format!("file://{}", folder.join("backups").display()),
    ]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

#[tokio::test]
async fn what_a_server_that_is_gone_exported_is_taken_up_by_the_restored_database_a_day_later() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    let name = stopped(store, &backups).await;
    let restored = backups.restore(store, made.id, by()).await.unwrap().path;
    let restored = Store::open(&Options::new(&restored), &keyring()).unwrap();
    make_old(&archive(folder, &name));
    turn_later(&restored, &backups).await.unwrap();
    let first = exports(&place(folder)).unwrap().remove(0);
    assert_eq!((first.filename, restored.has_cut(first.id).await), (name, Ok(true)));
    restored.close().await;
}

#[tokio::test]
async fn what_another_server_marked_as_no_export_is_not_taken_up_however_old_it_is() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    let name = stopped(store, &backups).await;
    let restored = backups.restore(store, made.id, by()).await.unwrap().path;
    let restored = Store::open(&Options::new(&restored), &keyring()).unwrap();
    let known = known(folder, &name);
    let id = name.strip_suffix(".audit").unwrap();
    let id = id[id.len() - 36..].parse().unwrap();
    // That one takes it away at any time.
    std::fs::rename(&known, known.with_extension("json.partial")).unwrap();
    make_old(&archive(folder, &name));
    turn_later(&restored, &backups).await.unwrap();
    assert_eq!(restored.has_cut(id).await, Ok(false));
    let own = exports(&place(folder)).unwrap().remove(0);
    assert_eq!((own.id == id, restored.has_cut(own.id).await), (false, Ok(true)));
    restored.close().await;
}

#[tokio::test]
async fn an_export_of_entries_that_a_restored_database_has_not_is_kept_and_not_believed() {
    let (fixture, backups) = filled(20).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let made = backups.create(store, Trigger::Manual, by()).await.unwrap();
    // What follows is in the archive and nowhere else once that database is replaced by the one of before.
    fill(store, 20).await;
    turn_later(store, &backups).await.unwrap();
    let first = exports(&place(folder)).unwrap().remove(0).filename;
    let restored = backups.restore(store, made.id, by()).await.unwrap().path;
    let store = Store::open(&Options::new(&restored), &keyring()).unwrap();
    fill(&store, 40).await;
    // Older than a day, and what is known of it is lost.
    let archive = archive(folder, &first);
    std::fs::remove_file(known(folder, &first)).unwrap();
    make_old(&archive);
    turn_later(&store, &backups).await.unwrap();
    assert!(archive.exists());
    assert_eq!(exports(&place(folder)).unwrap().len(), 1);
    assert!(store.verify_audit().await.unwrap().is_intact());
    assert_eq!(all(&store, chain(&store).await).await.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn an_export_in_the_form_of_another_version_stays_and_holds_up_no_other() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    std::fs::create_dir(folder.join("backups")).unwrap();
    let name = format!("sealpod-audit-20260101T000000Z-{}.audit", Uuid::now_v7());
    let path = archive(folder, &name);
    std::fs::write(
        &path,
        [b"SEALPOD-ARCHIVE\n", &[0, 0, 0, 12][..], br#"{"format":2}"#].concat(),
    )
    .unwrap();
    make_old(&path);
    assert_eq!(turn_later(store, &backups).await.unwrap(), Turn::Done);
    assert_eq!(exports(&place(folder)).unwrap().len(), 1);
    assert!(path.exists());
}
