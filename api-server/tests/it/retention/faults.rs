//! What is in the way of an export, and what one that was stopped leaves behind.

use super::*;

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
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let chain = chain(store).await;
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
    let (fixture, backups) = filled(30).await;
    let store = &fixture.store;
    let chain = chain(store).await;
    turn_later(store, &backups).await.unwrap();
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
async fn an_export_that_is_not_on_record_leaves_no_archive() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let chain = chain(store).await;
    let before = all(store, chain).await;
    let other = Connection::open(fixture.path()).unwrap();
    other
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON audit_cuts BEGIN SELECT RAISE(ABORT, 'no'); END")
        .unwrap();
    for _ in 0..2 {
        assert!(turn_later(store, &backups).await.is_err());
        assert_eq!(left(folder), Vec::<String>::new());
    }
    assert_eq!(all(store, chain).await, before);
    other.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(turn_later(store, &backups).await.unwrap(), Turn::Done);
    assert_eq!(left(folder).len(), 2);
}

#[tokio::test]
async fn what_exports_left_behind_when_they_were_killed_goes_but_nothing_that_entries_went_behind() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    turn_later(store, &backups).await.unwrap();
    let first = exports(&place(folder)).unwrap().remove(0).filename;
    // What is known of it is lost, and two others never came to their ends.
    std::fs::remove_file(known(folder, &first)).unwrap();
    let of = |n: u128, end: &str| format!("sealpod-audit-20260101T000000Z-{}.audit{end}", Uuid::from_u128(n));
    let old = [of(1, ""), of(2, ".partial"), of(3, ".json.partial")];
    let kept = [of(4, ""), "somebody-elses.audit".to_owned()];
    let write = |name: &String, age: Duration| {
        let file = File::create(archive(folder, name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    };
    old.iter()
        .chain([&kept[1], &first])
        .for_each(|name| write(name, Duration::from_hours(25)));
    write(&kept[0], Duration::from_hours(1));
    fill(store, 30).await;
    turn_later(store, &backups).await.unwrap();
    let left = left(folder);
    for name in &old {
        assert!(!left.contains(name), "{name}");
    }
    for name in kept.iter().chain([&first]) {
        assert!(left.contains(name), "{name}");
    }
}

#[tokio::test]
async fn a_chain_that_is_not_as_it_was_written_holds_up_no_other() {
    let (fixture, backups) = filled(30).await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let ours = chain(store).await;
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
        let refused = turn_later(store, &backups).await.unwrap_err();
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
async fn a_file_that_cannot_be_read_hides_no_backup_and_makes_no_key_look_unused() {
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let backups = backups(folder, Some(place(folder)));
    let trigger = sealpod_core::wire::backups::Trigger::Manual;
    let made = backups.create(store, trigger, by()).await.unwrap();
    fill(store, 30).await;
    turn_later(store, &backups).await.unwrap();
    let needed = async || {
        backups
            .by_key()
            .await
            .ok()
            .map(|keys| keys.into_values().collect::<Vec<_>>())
    };
    assert_eq!(needed().await, Some(vec![2]));
    let huge = vec![b' '; 2 << 20];
    for name in ["sealpod-1.backup", "sealpod-audit-1.audit"] {
        std::fs::write(archive(folder, name), "").unwrap();
        std::fs::write(known(folder, name), &huge).unwrap();
    }
    assert_eq!(backups.list().await.unwrap(), [made]);
    assert_eq!(needed().await, None);
    // What nobody could open needs no key.
    std::fs::remove_file(known(folder, "sealpod-1.backup")).unwrap();
    std::fs::remove_file(archive(folder, "sealpod-1.backup")).unwrap();
    assert_eq!(needed().await, Some(vec![2]));
}
