//! An upgrade of the database that is cut off: by a kill before any of its writes, and by a loss of power there.

use std::path::Path;
use std::process::Command;

use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{Options, ProjectRef, Store};

use crate::process::{command, text};
use crate::shim::{Fault, Op, Power, Shim, rounds};

/// The first schema there was, with one of everything (`src/store/sqlite/upgrades.rs`), and the key of these databases.
const DATABASE: &[u8] = include_bytes!("../fixtures/schema-01.db.zst");
const MASTER_KEY: &str = "5d1f0c6d2a8b4e7093b1f6a2c4d8e0f15a7b9c3d2e4f60718293a4b5c6d7e8f9";

fn migrate(dir: &Path) -> Command {
    let mut migrate = command(&["migrate"]);
    migrate
        .env(
            "SEALPOD_DATABASE_URL",
            format!("sqlite:{}", dir.join("sealpod.db").display()),
        )
        .env("SEALPOD_MASTER_KEY", MASTER_KEY);
    migrate
}

fn old(dir: &Path) {
    std::fs::write(dir.join("sealpod.db"), zstd::decode_all(DATABASE).unwrap()).unwrap();
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

    let keyring = Keyring::parse(MASTER_KEY).unwrap();
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
