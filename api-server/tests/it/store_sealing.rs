use std::fs;

use rusqlite::Connection;
use sealpod_api_server::crypto::{ApiKeyKind, Keyring, Sealed, generate_master_key};
use sealpod_api_server::ids::RevisionId;
use sealpod_api_server::store::{ConfigurationWrite, NewAccount, Object, Options, Store, StoreError};
use sealpod_core::wire::Labels;

use crate::store_support::{Fixture, MASTER_KEY, ORGANIZATION, by, keyring};

#[tokio::test]
async fn no_two_sealed_rows_can_be_swapped() {
    let fixture = Fixture::new().await;
    let mut environments = Vec::new();
    for slug in ["shop", "blog"] {
        let project = fixture.project(slug).await;
        environments.extend(["local", "prod"].map(|environment| project.clone().environment(environment)));
    }
    for environment in &environments {
        for key in ["a", "b"] {
            fixture.set(environment, key, "one").await;
            fixture.set(environment, key, "two").await;
        }
    }
    fixture.store.close().await;
    let other = Connection::open(fixture.path()).unwrap();
    let rows: Vec<(i64, Vec<u8>)> = other
        .prepare("SELECT rowid, sealed FROM versions ORDER BY rowid")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 16);
    // Each row gets the value of the next: every pair of neighbours, across versions, keys, environments, projects.
    for shift in 1..rows.len() {
        for (at, (rowid, _)) in rows.iter().enumerate() {
            let sealed = &rows[(at + shift) % rows.len()].1;
            other
                .execute("UPDATE versions SET sealed = ?2 WHERE rowid = ?1", (rowid, sealed))
                .unwrap();
        }
        let store = Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
        for environment in &environments {
            for key in ["a", "b"] {
                let version = store.active_version(environment.clone(), key).await.unwrap();
                assert!(fixture.keyring.open(&version.aad(), &version.sealed).is_err());
            }
        }
        store.close().await;
    }
}

#[tokio::test]
async fn layers_of_two_envelopes_cannot_be_combined() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "a", "one").await;
    fixture.set(&prod, "b", "two").await;
    let a = fixture.store.active_version(prod.clone(), "a").await.unwrap();
    let b = fixture.store.active_version(prod, "b").await.unwrap();
    let (head, tail) = (&a.sealed.as_bytes()[..69], &b.sealed.as_bytes()[69..]);
    let mixed = Sealed::try_from([head, tail].concat()).unwrap();
    assert!(fixture.keyring.open(&a.aad(), &mixed).is_err());
    assert!(fixture.keyring.open(&b.aad(), &mixed).is_err());
}

#[tokio::test]
async fn no_value_and_no_key_is_in_any_file() {
    let canary = "canary-7f3a9d51c2";
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", canary).await;
    let slot = fixture.store.locate_configuration(prod.clone(), "k").await.unwrap();
    let revision = RevisionId::new();
    let write = ConfigurationWrite {
        sealed: fixture.keyring.seal(&slot.aad(revision), canary.as_bytes()),
        slot,
        revision,
        description: None,
    };
    fixture.store.create_configuration(write, by()).await.unwrap();
    let (key, new_key) = fixture.key(ApiKeyKind::ServiceAccount);
    let new = NewAccount {
        organization: ORGANIZATION.into(),
        name: "ci".to_owned(),
        project: None,
        expires_at: None,
        labels: Labels::new(),
        key: new_key,
    };
    fixture.store.create_account(new, by()).await.unwrap();
    assert_eq!(fixture.get(&prod, "db").await.unwrap().1, canary);
    let scan = || {
        for entry in fs::read_dir(fixture.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let content = fs::read(&path).unwrap();
            for needle in [canary, &key.expose()[12..]] {
                let found = content.windows(needle.len()).any(|window| window == needle.as_bytes());
                assert!(!found, "{} holds plaintext", path.display());
            }
        }
    };
    scan();
    fixture.store.close().await;
    scan();
}

/// Between a new key being put on record and its first value, the rotation before it comes to its end.
#[tokio::test]
async fn a_rotation_that_ends_late_retires_no_key_that_came_after_it() {
    let mut fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let old = fixture.keyring.current();
    fixture.store.begin_key(old, by()).await.unwrap();
    fixture.set(&prod, "db", "one").await;
    let keys = format!("{}\n{MASTER_KEY}", generate_master_key().expose());
    let next = Keyring::parse(&keys).unwrap();
    fixture.store.begin_key(next.current(), by()).await.unwrap();
    assert!(!fixture.store.retire_keys(old, 1, by()).await.unwrap());
    fixture.keyring = next;
    fixture.set(&prod, "db", "two").await;
    assert_eq!(fixture.get(&prod, "db").await.unwrap(), (2, "two".to_owned()));
}

/// A version of this program had retired it: every change was refused, and a start did not help.
#[tokio::test]
async fn a_current_key_that_is_noted_as_retired_is_taken_back_at_the_next_start() {
    let mut fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let key = fixture.keyring.current();
    fixture.store.begin_key(key, by()).await.unwrap();
    fixture.store.close().await;
    let other = Connection::open(fixture.path()).unwrap();
    assert_eq!(other.execute("UPDATE master_keys SET retired_at = 1", []).unwrap(), 1);
    drop(other);
    fixture.store = Store::open(&Options::new(fixture.path()), &fixture.keyring).unwrap();
    let slot = fixture.slot(&prod, "db").await;
    let refused = fixture
        .store
        .append_versions(vec![fixture.version(&slot, "one")], None, by());
    assert!(matches!(refused.await, Err(StoreError::Moved(Object::MasterKey))));
    fixture.store.begin_key(key, by()).await.unwrap();
    fixture.set(&prod, "db", "one").await;
}
