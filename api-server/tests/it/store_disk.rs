//! A disk that fails under the store.

use std::env;
use std::process::Command;

use sealpod_api_server::store::{Options, ProjectRef, State, Store};

use crate::store_support::{Fixture, ORGANIZATION, by, keyring};

const DAMAGED: &str = "STORE_DAMAGED_FOLDER";

/// Runs in the child only, where no file can grow past 16 MiB: writes a MiB at a time until it is refused.
#[test]
fn damaged_disk_child() {
    let Ok(path) = env::var(DAMAGED) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(&Options::new(path), &keyring()).unwrap();
        let fixture = Fixture {
            store,
            keyring: keyring(),
            folder: tempfile::tempdir().unwrap(),
        };
        let prod = ProjectRef::slug(ORGANIZATION, "shop").environment("prod");
        let value = "v".repeat(1 << 20);
        for number in 1..=20 {
            let slot = fixture.slot(&prod, "db").await;
            let version = fixture.version(&slot, &value);
            let stored = fixture.store.append_versions(vec![version], None, by()).await;
            println!("\nstored {}", stored.is_ok());
            // The log is looked after when the answer is out: behind this one at the earliest, which may take its time.
            let patience = if number < 3 { 0 } else { 300 };
            for _ in 0..patience {
                if let State::Failed { .. } = fixture.store.state() {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            if let State::Failed { .. } = fixture.store.state() {
                break;
            }
        }
        println!("\nstate {}", matches!(fixture.store.state(), State::Failed { .. }));
        fixture.store.close().await;
    });
}

#[tokio::test]
async fn a_database_that_cannot_take_the_log_stops_the_store_and_loses_nothing() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    for _ in 0..20 {
        fixture.set(&prod, "db", &"v".repeat(1 << 20)).await;
    }
    fixture.store.close().await;
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 32768; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "store_disk::damaged_disk_child", "--nocapture"])
        .env(DAMAGED, fixture.path())
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    // The log grows to some 4 MiB before it is copied; the database refuses it. By itself SQLite would go on.
    let stored = said.matches("stored true").count();
    assert!((3..=5).contains(&stored) && said.contains("state true"), "{said}");

    let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    assert_eq!(store.versions(prod, "db").await.unwrap().len(), 20 + stored);
    assert!(store.verify_audit().await.unwrap().is_intact());
}
