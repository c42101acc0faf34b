//! An upgrade of the database that is cut off: by a kill before any of its writes, and by a loss of power there.

use std::path::Path;
use std::process::Command;

use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{Options, ProjectRef, Store};

use crate::process::{command, text};
use crate::shim::{Fault, Op, Power, Shim, rounds};
use crate::store_support::{OLDER_KEY, older_database};
use crate::volume::{Volume, available};

fn migrate(dir: &Path) -> Command {
    let mut migrate = command(&["migrate"]);
    migrate
        .env(
            "SEALPOD_DATABASE_URL",
            format!("sqlite:{}", dir.join("sealpod.db").display()),
        )
        .env("SEALPOD_MASTER_KEY", OLDER_KEY);
    migrate
}

fn old(dir: &Path) {
    std::fs::write(dir.join("sealpod.db"), older_database(1)).unwrap();
}

/// How many of these calls a whole upgrade makes.
fn calls(op: Op) -> i64 {
    let dir = tempfile::tempdir().unwrap();
    old(dir.path());
    let shim = Shim::new(dir.path());
    shim.fail(op, "", i64::MAX, Fault::Kill);
    let whole = shim.over(&mut migrate(dir.path())).output().unwrap();
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    shim.seen()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_cut_off_at_any_write_goes_on_at_the_next_start() {
    for op in [Op::Write, Op::Sync] {
        let all = calls(op);
        assert!(all > 5, "{op:?}: {all}");
        let points = i64::try_from(rounds(10)).unwrap().min(all);
        for point in (0..points).map(|n| n * all / points) {
            for power in [None, Some(Power::Synced), Some(Power::Mixed)] {
                cut_off(op, point, power).await;
            }
        }
    }
}

async fn cut_off(op: Op, point: i64, power: Option<Power>) {
    let what = format!("{op:?} {point}, {power:?}");
    let dir = tempfile::tempdir().unwrap();
    old(dir.path());
    let shim = Shim::new(dir.path());
    if let Some(power) = power {
        shim.watch_power(power);
    }
    shim.fail(op, "", point, Fault::Kill);
    let killed = shim.over(&mut migrate(dir.path())).status().unwrap();
    assert_eq!(killed.code(), None, "{what}: it was not killed");
    if power.is_some() {
        shim.cut();
    }
    let again = migrate(dir.path()).output().unwrap();
    assert!(again.status.success(), "{what}: {}", text(&again.stderr));

    let keyring = Keyring::parse(OLDER_KEY).unwrap();
    let store = Store::open(&Options::new(dir.path().join("sealpod.db")), &keyring).unwrap();
    let prod = ProjectRef::slug("default", "shop").environment("prod");
    for (number, value) in [(1, "old"), (2, "new")] {
        let version = store.version(prod.clone(), "db", number).await.unwrap();
        let stored = keyring.open(&version.aad(), &version.sealed).unwrap();
        assert_eq!(stored.as_slice(), value.as_bytes(), "{what}");
    }
    assert!(store.verify_audit().await.unwrap().is_intact(), "{what}");
    store.close().await;
    // Whatever copy there is for the way back is a whole one.
    let copy = dir.path().join("sealpod.db.schema-1");
    if copy.exists() {
        let copy = rusqlite::Connection::open(copy).unwrap();
        let one = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(one("PRAGMA integrity_check"), "ok", "{what}");
        assert_eq!(one("SELECT count(*) || '' FROM versions"), "2", "{what}");
    }
}

/// What there is of copies for the way back.
fn copies(dir: &Path) -> Vec<String> {
    let mut names = crate::backups::files(dir);
    names.retain(|name| name.contains(".schema-"));
    names
}

#[test]
fn an_upgrade_without_room_for_its_copy_says_so_and_writes_nothing() {
    let volume = Volume::new(32);
    let dir = volume.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    old(&dir);
    let before = std::fs::read(dir.join("sealpod.db")).unwrap();
    // Room for the copy, and for nothing beside it.
    volume.fill("other", 3 << 20);
    let free = available(&dir);
    let refused = migrate(&dir).output().unwrap();
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(said.contains("bytes left") && said.contains("are needed"), "{said}");
    assert!(said.contains("`.schema-*`"), "{said}");
    assert!(
        std::fs::read(dir.join("sealpod.db")).unwrap() == before,
        "it was changed"
    );
    assert_eq!(copies(&dir), [""; 0]);
    assert!(available(&dir) + (1 << 20) > free, "{} of {free}", available(&dir));

    volume.free("other");
    let again = migrate(&dir).output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(dir.join("sealpod.db.schema-1").exists());
}

#[test]
fn an_upgrade_whose_copy_fails_leaves_nothing_of_it_and_the_copy_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    old(dir.path());
    let (shim, copy) = (Shim::new(dir.path()), dir.path().join("sealpod.db.schema-1"));
    let fails = |op, after, fault| {
        shim.fail(op, ".partial", after, fault);
        let failed = shim.over(&mut migrate(dir.path())).output().unwrap();
        assert!(!failed.status.success() && shim.seen() > after, "{op:?} {fault:?}");
    };
    let faults = [Fault::Broken, Fault::Full].map(|fault| [(Op::Write, 2, fault), (Op::Sync, 0, fault)]);
    for (op, after, fault) in faults.into_iter().flatten() {
        fails(op, after, fault);
        assert_eq!(copies(dir.path()), [""; 0], "{op:?} {fault:?}");
    }
    // Of an upgrade that was not carried out: until there is another one, it is all there is.
    std::fs::write(&copy, "an older copy").unwrap();
    for (op, after, fault) in faults.into_iter().flatten() {
        fails(op, after, fault);
        assert_eq!(copies(dir.path()), ["sealpod.db.schema-1"], "{op:?} {fault:?}");
        assert_eq!(std::fs::read(&copy).unwrap(), b"an older copy", "{op:?} {fault:?}");
    }
    shim.heal();
    let again = migrate(dir.path()).output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_ne!(std::fs::read(&copy).unwrap(), b"an older copy");
}

/// Behind the copy, which is another file.
#[test]
fn an_upgrade_that_finds_no_room_for_its_changes_keeps_the_database_and_its_copy() {
    for after in [0, 3, 20] {
        let dir = tempfile::tempdir().unwrap();
        old(dir.path());
        let shim = Shim::new(dir.path());
        shim.fail(Op::Write, "sealpod.db-wal", after, Fault::Full);
        let failed = shim.over(&mut migrate(dir.path())).output().unwrap();
        let said = text(&failed.stderr);
        assert!(!failed.status.success() && shim.seen() > after, "{after}: {said}");
        assert!(said.contains("is full"), "{after}: {said}");
        assert_eq!(copies(dir.path()), ["sealpod.db.schema-1"], "{after}");
        let one = |name: &str| {
            let connection = rusqlite::Connection::open(dir.path().join(name)).unwrap();
            connection
                .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!((one("sealpod.db"), one("sealpod.db.schema-1")), (1, 1), "{after}");
        shim.heal();
        let again = migrate(dir.path()).output().unwrap();
        assert!(again.status.success(), "{after}: {}", text(&again.stderr));
    }
}
