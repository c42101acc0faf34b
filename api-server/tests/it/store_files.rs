use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rusqlite::Connection;
use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{OpenError, Options, Page, State, Store, StoreError};

use crate::store_support::{Fixture, MASTER_KEY, by, keyring};

const OTHER_KEY: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(&Options::new(path), &keyring())
}

/// Name, mode and content of everything in a folder.
fn files(folder: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            let name = entry.file_name().into_string().unwrap();
            (name, mode, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    let found = files(fixture.folder.path());
    let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(
        names,
        ["sealpod.db", "sealpod.db-shm", "sealpod.db-wal", "sealpod.db.lock"]
    );
    assert!(found.iter().all(|(_, mode, _)| *mode == 0o600));
}

#[tokio::test]
async fn a_volume_that_widened_the_modes_is_narrowed_again() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o664)).unwrap();
    let store = open(&fixture.path()).unwrap();
    assert!(files(fixture.folder.path()).iter().all(|(_, mode, _)| *mode == 0o600));
    store.close().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let fixture = Fixture::new().await;
    let link = fixture.folder.path().join("link.db");
    symlink(fixture.path(), &link).unwrap();
    for path in [fixture.path(), link] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("process {}", std::process::id())),
            "{error}"
        );
    }
    fixture.project("shop").await;
    fixture.store.close().await;
    open(&fixture.path()).unwrap().close().await;
}

#[tokio::test]
async fn a_wrong_master_key_is_refused_by_the_id_it_needs_before_anything_is_written() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    fixture.store.close().await;
    // Also with a log that is still to be folded in, as after a kill.
    let copy = tempfile::tempdir().unwrap();
    {
        let store = open(&fixture.path()).unwrap();
        let name = "other";
        store.ensure_organization(name, by()).await.unwrap();
        for (name, _, content) in files(fixture.folder.path()) {
            if name == "sealpod.db" || name == "sealpod.db-wal" {
                fs::write(copy.path().join(name), content).unwrap();
            }
        }
        store.close().await;
    }
    for folder in [fixture.folder.path(), copy.path()] {
        let data = || {
            let mut files = files(folder);
            // Looking at it leaves an empty log behind, which says nothing.
            files.retain(|(name, _, content)| name == "sealpod.db" || name == "sealpod.db-wal" && !content.is_empty());
            files
                .into_iter()
                .map(|(name, _, content)| (name, content))
                .collect::<Vec<_>>()
        };
        let before = data();
        let other = Keyring::parse(OTHER_KEY).unwrap();
        let path = folder.join("sealpod.db");
        let error = Store::open(&Options::new(&path), &other).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, OpenError::WrongMasterKey { needed, .. } if needed == keyring().current()));
        assert!(
            text.contains(&keyring().current().to_string()) && !text.contains(&MASTER_KEY[..8]),
            "{text}"
        );
        assert!(data() == before, "something was written");

        let both = Keyring::parse(&format!("{OTHER_KEY}\n{MASTER_KEY}")).unwrap();
        Store::open(&Options::new(&path), &both).unwrap().close().await;
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_reopen_and_so_are_the_servers_keys() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", "v").await;
    let (epoch, mac) = (fixture.store.epoch(), fixture.store.pepper().mac("test", &[]));
    fixture.store.close().await;
    assert!(
        !fixture.folder.path().join("sealpod.db-wal").exists(),
        "a close leaves one file"
    );
    let after_close = fixture.store.secrets(prod.project.clone(), Page::default()).await;
    assert!(matches!(after_close, Err(StoreError::Failed(_))));

    let reopened = Fixture {
        store: open(&fixture.path()).unwrap(),
        ..fixture
    };
    assert_eq!(reopened.get(&prod, "db").await.unwrap(), (1, "v".to_owned()));
    assert_eq!(
        (reopened.store.epoch(), reopened.store.pepper().mac("test", &[])),
        (epoch, mac)
    );
    assert_eq!(reopened.store.state(), State::Serving);
}

#[tokio::test]
async fn a_store_that_is_dropped_without_a_close_lets_go_of_its_file() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    let Fixture { store, folder, .. } = fixture;
    drop(store);
    let path = folder.path().join("sealpod.db");
    let reopened = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        open(&path).ok()
    });
    assert!(reopened.unwrap().verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    fs::write(
        &text,
        "not a database, but long enough to be taken for one by somebody".repeat(40),
    )
    .unwrap();
    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    for path in [text, foreign] {
        let before = fs::read(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, OpenError::NotOurs { .. }), "{error}");
        assert!(fs::read(&path).unwrap() == before, "{} was changed", path.display());
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    Connection::open(fixture.path())
        .unwrap()
        .execute_batch("PRAGMA user_version = 99")
        .unwrap();
    let error = open(&fixture.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn lost_server_keys_are_not_replaced_by_new_ones() {
    let fixture = Fixture::new().await;
    fixture.store.close().await;
    Connection::open(fixture.path())
        .unwrap()
        .execute_batch("DELETE FROM meta WHERE name = 'pepper'")
        .unwrap();
    let error = open(&fixture.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[test]
fn a_folder_that_is_missing_or_a_file_that_is_a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent/sealpod.db"), folder.path().to_owned()] {
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn the_database_is_set_up_for_durability() {
    let fixture = Fixture::new().await;
    let other = Connection::open(fixture.path()).unwrap();
    let text = |sql: &str| other.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let number = |sql: &str| other.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(text("PRAGMA journal_mode"), "wal");
    assert_eq!(number("PRAGMA auto_vacuum"), 2);
    assert_eq!(text("PRAGMA integrity_check"), "ok");
}
