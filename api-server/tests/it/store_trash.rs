use std::time::Duration;

use futures::FutureExt;
use rusqlite::Connection;
use sealpod_api_server::audit::Chain;
use sealpod_api_server::ids::{RevisionId, TrashId};
use sealpod_api_server::maintenance::{self, TrashDays};
use sealpod_api_server::store::{ConfigurationWrite, Fate, Object, Options, Refusal, Store, StoreError, TrashPage};
use sealpod_core::Time;
use sealpod_core::wire::trash::TrashKind;
use tokio_util::sync::CancellationToken;

use crate::store_support::{Fixture, ORGANIZATION, by, keyring};

async fn ids(store: &Store) -> Vec<TrashId> {
    let organization = store.organization(ORGANIZATION).await.unwrap().id;
    let items = store.trash(organization, TrashPage::default(), |_| true).await.unwrap();
    items.into_iter().map(|item| item.id).collect()
}

fn count(fixture: &Fixture, sql: &str) -> i64 {
    let file = Connection::open(fixture.path()).unwrap();
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn numbering_goes_on_behind_what_was_purged_also_after_a_restart() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    for n in 0..5_u64 {
        assert_eq!(fixture.set(&prod, "db", "v").await.number, n + 1);
        let id = fixture
            .store
            .hide_secret(prod.clone(), "db", Fate::Trash, by())
            .await
            .unwrap();
        if n != 2 {
            fixture.store.purge(id, by()).await.unwrap();
        }
    }
    // One for the highest number, one for the deletion that can still be undone.
    assert_eq!(count(&fixture, "SELECT count(*) FROM hidden_versions"), 2);
    assert_eq!(count(&fixture, "SELECT count(*) FROM versions"), 1);
    fixture.store.close().await;
    let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    let fixture = Fixture { store, ..fixture };
    assert_eq!(fixture.set(&prod, "db", "v").await.number, 6);
    let [third] = ids(&fixture.store).await[..] else {
        panic!("one is left")
    };
    let organization = fixture.store.organization(ORGANIZATION).await.unwrap().id;
    let refused = fixture.store.restore(organization, third, by()).await;
    assert_eq!(
        refused.unwrap_err(),
        StoreError::Refused(Refusal::NameTaken(Object::Version))
    );
}

#[tokio::test]
async fn a_purge_that_was_cut_off_is_taken_up_again_and_shows_nothing_meanwhile() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    let large = "x".repeat(300_000);
    for key in ["a", "b", "c", "d"] {
        for _ in 0..4 {
            fixture.set(&prod, key, &large).await;
        }
    }
    let id = fixture
        .store
        .delete_project(shop.clone(), Fate::Trash, by())
        .await
        .unwrap();
    {
        // The caller goes away in the middle: it marks what is to go, and its first part follows.
        let purge = fixture.store.purge(id, by());
        tokio::pin!(purge);
        while count(&fixture, "SELECT count(*) FROM versions") == 16 {
            tokio::select! {
                _ = &mut purge => {}
                () = tokio::time::sleep(Duration::from_micros(200)) => {}
            }
        }
    }
    assert!(ids(&fixture.store).await.is_empty(), "nobody can bring half of it back");
    let organization = fixture.store.organization(ORGANIZATION).await.unwrap().id;
    let gone = StoreError::NotFound(Object::TrashItem);
    assert_eq!(fixture.store.restore(organization, id, by()).await.unwrap_err(), gone);
    assert_eq!(fixture.store.purge(id, by()).await.unwrap_err(), gone);
    fixture.store.close().await;
    let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    let fixture = Fixture { store, ..fixture };
    // The server's own task does, long before anything is due by its age.
    let ending = CancellationToken::new();
    let task = maintenance::run(fixture.store.clone(), TrashDays::default(), ending.clone());
    let task = tokio::spawn(task);
    while count(&fixture, "SELECT count(*) FROM trash") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It goes on waiting for more, and hears of it.
    let again = fixture.project("again").await;
    let id = fixture.store.delete_project(again, Fate::Trash, by()).await.unwrap();
    let purge = fixture.store.purge(id, by());
    drop(tokio::time::timeout(Duration::ZERO, purge).await);
    while count(&fixture, "SELECT count(*) FROM projects") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ending.cancel();
    task.await.unwrap();
    for table in ["projects", "environments", "secrets", "versions", "trash"] {
        assert_eq!(count(&fixture, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
    let entries = fixture
        .store
        .audit_entries(Chain::Organization(organization), 100)
        .await
        .unwrap();
    let purges = entries.iter().filter(|entry| entry.metadata.contains("purged"));
    assert_eq!(
        purges.count(),
        2,
        "one purge is one entry, however often it was taken up"
    );
}

#[tokio::test]
async fn what_is_deleted_for_good_is_in_the_trash_at_no_time_also_when_whoever_asked_has_gone() {
    let fixture = Fixture::new().await;
    let (store, shop) = (&fixture.store, fixture.project("shop").await);
    let prod = shop.clone().environment("prod");
    let organization = store.organization(ORGANIZATION).await.unwrap().id;
    fixture.set(&prod, "a", "canary").await;
    fixture.set(&prod, "b", "canary").await;
    let slot = store.locate_configuration(prod.clone(), "k").await.unwrap();
    let revision = RevisionId::new();
    let write = ConfigurationWrite {
        sealed: fixture.keyring.seal(&slot.aad(revision), b"info"),
        slot,
        revision,
        description: None,
    };
    store.create_configuration(write, by()).await.unwrap();
    // Each is queued, and nobody waits for it any more: no second step is there that could be missing.
    for deleting in [
        store.hide_secret(prod.clone(), "a", Fate::Purge, by()).boxed(),
        store.delete_secret(shop.clone(), "b", Fate::Purge, by()).boxed(),
        store.delete_configuration(prod.clone(), "k", Fate::Purge, by()).boxed(),
        store.delete_environment(prod.clone(), Fate::Purge, by()).boxed(),
        store.delete_project(shop.clone(), Fate::Purge, by()).boxed(),
    ] {
        assert_eq!(deleting.now_or_never(), None);
    }
    store.shrink().await.unwrap();
    assert!(store.project(shop).await.is_err());
    assert!(ids(store).await.is_empty());
    assert_eq!(count(&fixture, "SELECT count(*) FROM trash WHERE purging = 1"), 5);
    let entries = store
        .audit_entries(Chain::Organization(organization), 10)
        .await
        .unwrap();
    let purges = entries.iter().map(|entry| entry.metadata.contains("purged"));
    assert_eq!(purges.collect::<Vec<_>>(), [true, false].repeat(5));
    store.purge_due(Time::now().plus_seconds(-86_400), by()).await.unwrap();
    for table in [
        "projects",
        "environments",
        "secrets",
        "versions",
        "configurations",
        "trash",
    ] {
        assert_eq!(count(&fixture, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[tokio::test]
async fn what_a_purge_left_empty_is_given_back_to_the_disk() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    for _ in 0..8 {
        fixture.set(&prod, "db", &"x".repeat(500_000)).await;
    }
    let pages = || count(&fixture, "PRAGMA page_count");
    let before = pages();
    let id = fixture.store.delete_project(shop, Fate::Trash, by()).await.unwrap();
    fixture.store.purge(id, by()).await.unwrap();
    assert_eq!(pages(), before, "the pages are empty, and still the file's");
    let commits = fixture.store.stats().commits;
    let freed = fixture.store.shrink().await.unwrap();
    // Sixty-four at a time, so that nobody's change waits for more.
    let commits = fixture.store.stats().commits - commits;
    assert!(commits >= freed.div_ceil(64), "{freed} pages in {commits} commits");
    assert!(
        freed > 900 && pages() < 200,
        "{freed} of {before} pages, {} are left",
        pages()
    );
    assert_eq!(fixture.store.shrink().await.unwrap(), 0);
    assert_eq!(
        count(
            &fixture,
            "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"
        ),
        0
    );
}

#[tokio::test]
async fn the_value_of_a_purged_version_is_nowhere_in_the_file() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", &"x".repeat(9_000)).await;
    let sealed = fixture
        .store
        .active_version(prod.clone(), "db")
        .await
        .unwrap()
        .sealed
        .clone();
    // In pieces, for a page holds only a part.
    let pieces: Vec<_> = sealed.as_bytes()[500..8_500].chunks(64).map(<[u8]>::to_vec).collect();
    let is_in_file = || {
        let file = std::fs::read(fixture.path()).unwrap();
        let has = |piece: &Vec<u8>| file.windows(piece.len()).any(|window| window == piece);
        pieces.iter().any(has)
    };
    let checkpoint = || {
        let other = Connection::open(fixture.path()).unwrap();
        other
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
    };
    checkpoint();
    assert!(is_in_file());
    let id = fixture.store.hide_secret(prod, "db", Fate::Trash, by()).await.unwrap();
    fixture.store.purge(id, by()).await.unwrap();
    checkpoint();
    assert!(!is_in_file());
}

#[tokio::test]
async fn what_an_older_version_deleted_is_in_the_trash_too() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    for key in ["a", "b"] {
        fixture.set(&prod, key, "v").await;
    }
    fixture.store.close().await;
    // As that version left it.
    let file = Connection::open(fixture.path()).unwrap();
    file.execute_batch(
        "PRAGMA foreign_keys = OFF;
         DROP TABLE trash;
         DROP INDEX hidden_versions_trash;
         ALTER TABLE hidden_versions DROP COLUMN trash_id;
         DROP INDEX projects_organization; DROP INDEX environments_project; DROP INDEX secrets_project;
         DROP INDEX versions_environment; DROP INDEX hidden_versions_environment; DROP INDEX configurations_environment;
         DROP INDEX service_accounts_organization; DROP INDEX service_accounts_project;
         DROP INDEX organizations_deleted; DROP INDEX service_accounts_deleted; DROP INDEX acl_rules_deleted;
         INSERT INTO hidden_versions (id, secret_id, environment_id, from_number, to_number, deleted_at,
             deleted_by_type, deleted_by_id, deleted_by_name)
         SELECT randomblob(16), v.secret_id, v.environment_id, 1, 1, 5, 'admin_key', NULL, 'admin-key'
         FROM versions v JOIN secrets s ON s.id = v.secret_id AND s.name = 'a';
         UPDATE secrets SET deleted_at = 6 WHERE name = 'b';
         UPDATE environments SET deleted_at = 7 WHERE slug = 'local';",
    )
    .unwrap();
    let sql = include_str!("../../migrations/0004_trash.sql");
    file.execute_batch(&sql.replace(
        "DROP INDEX acl_rules_organization;\nCREATE INDEX acl_rules_organization",
        "CREATE INDEX acl_rules_again",
    ))
    .unwrap();
    drop(file);
    let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    let organization = store.organization(ORGANIZATION).await.unwrap().id;
    let mut items = store.trash(organization, TrashPage::default(), |_| true).await.unwrap();
    items.sort_by_key(|item| item.deleted_at);
    let said: Vec<_> = items.iter().map(|item| (item.kind, item.name.as_str())).collect();
    assert_eq!(
        said,
        [
            (TrashKind::SecretVersions, "a"),
            (TrashKind::Secret, "b"),
            (TrashKind::Environment, "local")
        ]
    );
    assert_eq!(
        (items[0].deleted_by.name.as_str(), items[1].deleted_by.name.as_str()),
        ("admin-key", "unknown")
    );
    let fixture = Fixture { store, ..fixture };
    for item in items {
        fixture.store.restore(organization, item.id, by()).await.unwrap();
    }
    for key in ["a", "b"] {
        assert_eq!(fixture.get(&prod, key).await.unwrap(), (1, "v".to_owned()));
    }
}

#[tokio::test]
async fn a_row_that_goes_is_looked_for_by_an_index_wherever_it_may_be_referred_to() {
    let fixture = Fixture::new().await;
    let file = Connection::open(fixture.path()).unwrap();
    let mut references = file
        .prepare(
            "SELECT t.name, f.\"from\" FROM sqlite_schema t, pragma_foreign_key_list(t.name) f WHERE t.type = 'table'",
        )
        .unwrap();
    let references: Vec<(String, String)> = references
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(references.len() > 12, "{references:?}");
    for (table, column) in references {
        let sql = format!("EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE {column} = ?1");
        let plan: String = file.query_row(&sql, [[0_u8; 16].as_slice()], |row| row.get(3)).unwrap();
        assert!(plan.starts_with("SEARCH"), "{table}.{column}: {plan}");
    }
}
