//! A server that is killed while it writes.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use sealpod_api_server::store::{Options, ProjectRef, State, Store};

use crate::store_support::{Fixture, ORGANIZATION, by, keyring, new_project};

const FOLDER: &str = "STORE_CRASH_FOLDER";
const ROUNDS: usize = 5;

/// Runs in the child only: eight writers, each on a key of its own, that say what was acknowledged.
#[test]
fn crash_child() {
    let Ok(path) = env::var(FOLDER) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Store::open(&Options::new(path), &keyring()).unwrap();
        let fixture = Arc::new(Fixture {
            store,
            keyring: keyring(),
            folder: tempfile::tempdir().unwrap(),
        });
        let prod = ProjectRef::slug(ORGANIZATION, "shop").environment("prod");
        for writer in 0..8 {
            let (fixture, prod) = (Arc::clone(&fixture), prod.clone());
            tokio::spawn(async move {
                let key = format!("key-{writer}");
                loop {
                    let number = fixture.set(&prod, &key, "value").await.number;
                    println!("stored {key} {number}");
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealpod.db");
    let store = Store::open(&Options::new(&path), &keyring()).unwrap();
    store.ensure_organization(ORGANIZATION, by()).await.unwrap();
    store.create_project(new_project("shop"), by()).await.unwrap();
    store.close().await;
    let prod = ProjectRef::slug(ORGANIZATION, "shop").environment("prod");
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store_crash::crash_child", "--nocapture"])
            .env(FOLDER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = std::collections::BTreeMap::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: String| {
            if let ["stored", key, number] = line.split(' ').collect::<Vec<_>>()[..] {
                acknowledged.insert(key.to_owned(), number.parse::<u64>().unwrap());
                return true;
            }
            false
        };
        let mut left = 40 + round * 17;
        while left > 0 {
            left -= usize::from(note(lines.next().expect("the child writes until it is killed")));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            note(line);
        }

        let store = Store::open(&Options::new(&path), &keyring()).unwrap();
        for (key, number) in acknowledged {
            let versions = store.versions(prod.clone(), &key).await.unwrap();
            let numbers: Vec<_> = versions.iter().rev().map(|it| it.number).collect();
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
            assert!(
                numbers.len() as u64 >= number,
                "version {number} of {key} was acknowledged and is lost"
            );
        }
        assert!(store.verify_audit().await.unwrap().is_intact());
        store.close().await;
    }
}

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
        for _ in 0..20 {
            let slot = fixture.slot(&prod, "db").await;
            let version = fixture.version(&slot, &value);
            let stored = fixture.store.append_versions(vec![version], None, by()).await;
            println!("\nstored {}", stored.is_ok());
            // The log is looked after when the answer is out.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
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
        .args(["--exact", "store_crash::damaged_disk_child", "--nocapture"])
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
