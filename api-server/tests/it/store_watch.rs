use std::sync::Arc;
use std::time::Duration;

use sealpod_api_server::crypto::ApiKeyKind;
use sealpod_api_server::store::{Fate, NewAccount, NewRule, Subject, Topic, Watcher};
use sealpod_core::Pattern;
use sealpod_core::wire::Labels;
use sealpod_core::wire::org::Permission;

use crate::store_support::{Fixture, ORGANIZATION, by, new_environment};

/// The number of the version that ends a test.
const LAST: u64 = 200;

async fn woken(watcher: &Watcher) -> bool {
    // A wake-up comes just behind the answer to the change.
    tokio::time::timeout(Duration::from_secs(5), watcher.changed())
        .await
        .is_ok()
}

async fn quiet(watcher: &Watcher) -> bool {
    tokio::time::timeout(Duration::from_millis(50), watcher.changed())
        .await
        .is_err()
}

#[tokio::test]
async fn whoever_watches_is_woken_by_what_changed_and_by_nothing_else() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let (local, prod) = (shop.clone().environment("local"), shop.clone().environment("prod"));
    let location = fixture.slot(&prod, "db").await.location;
    let environment = fixture.store.watch(&[Topic::Environment(location.environment)]);
    let project = fixture.store.watch(&[Topic::Project(location.project)]);

    fixture.set(&local, "db", "v").await;
    assert!(quiet(&environment).await && quiet(&project).await);
    fixture.set(&prod, "db", "v").await;
    assert!(woken(&environment).await && quiet(&project).await);
    fixture
        .store
        .hide_secret(prod.clone(), "db", Fate::Trash, by())
        .await
        .unwrap();
    assert!(woken(&environment).await);
    fixture
        .store
        .create_environment(shop.clone(), new_environment("extra"), by())
        .await
        .unwrap();
    assert!(woken(&project).await && quiet(&environment).await);
    fixture
        .store
        .delete_secret(shop.clone(), "db", Fate::Trash, by())
        .await
        .unwrap();
    assert!(woken(&project).await);
    fixture.store.delete_environment(prod, Fate::Trash, by()).await.unwrap();
    assert!(woken(&environment).await);
    fixture.store.delete_project(shop, Fate::Trash, by()).await.unwrap();
    assert!(woken(&project).await);
}

#[tokio::test]
async fn a_change_of_rights_or_keys_wakes_the_subjects_watchers() {
    let fixture = Fixture::new().await;
    let account = |name: &str| NewAccount {
        organization: ORGANIZATION.into(),
        name: name.to_owned(),
        project: None,
        expires_at: None,
        labels: Labels::new(),
        key: fixture.key(ApiKeyKind::ServiceAccount).1,
    };
    let id = fixture.store.create_account(account("ci"), by()).await.unwrap().id;
    let other = fixture.store.create_account(account("other"), by()).await.unwrap().id;
    let watcher = fixture.store.watch(&[Topic::Subject(id.0)]);
    let rule = |id| NewRule {
        subject: Subject::ServiceAccount(id),
        project_pattern: Pattern::any(),
        env_pattern: Pattern::any(),
        key_pattern: Pattern::any(),
        configurations: false,
        permission: Permission::Read,
    };
    fixture
        .store
        .upsert_rule(ORGANIZATION, rule(other), by())
        .await
        .unwrap();
    assert!(quiet(&watcher).await);
    let (granted, _) = fixture.store.upsert_rule(ORGANIZATION, rule(id), by()).await.unwrap();
    assert!(woken(&watcher).await);
    fixture.store.delete_rule(ORGANIZATION, granted.id, by()).await.unwrap();
    assert!(woken(&watcher).await);
    let key = fixture.key(ApiKeyKind::ServiceAccount).1;
    fixture
        .store
        .rotate_account(ORGANIZATION, id, key, 0, by())
        .await
        .unwrap();
    assert!(woken(&watcher).await);
    fixture.store.revoke_account(ORGANIZATION, id, by()).await.unwrap();
    assert!(woken(&watcher).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wake_up_is_lost_between_watching_and_reading() {
    let fixture = Arc::new(Fixture::new().await);
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", "0").await;
    let topic = Topic::Environment(fixture.slot(&prod, "db").await.location.environment);
    // Each of them reads, waits, and reads again; if one wake-up got lost, it would wait for ever at the end.
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let (fixture, prod) = (Arc::clone(&fixture), prod.clone());
            tokio::spawn(async move {
                let watcher = fixture.store.watch(&[topic]);
                while fixture.get(&prod, "db").await.unwrap().0 < LAST {
                    watcher.changed().await;
                }
            })
        })
        .collect();
    for n in 1..LAST {
        fixture.set(&prod, "db", &n.to_string()).await;
    }
    for reader in readers {
        let ended = tokio::time::timeout(Duration::from_secs(20), reader).await;
        ended.expect("a wake-up was lost").unwrap();
    }
    assert_eq!(fixture.store.stats().watchers, 0);
}

#[tokio::test]
async fn closing_the_store_wakes_everybody() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let topic = Topic::Environment(fixture.slot(&prod, "db").await.location.environment);
    let watcher = fixture.store.watch(&[topic]);
    fixture.store.close().await;
    assert!(woken(&watcher).await);
}
