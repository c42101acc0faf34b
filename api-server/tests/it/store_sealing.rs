use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sealpod_api_server::crypto::{Aad, ApiKeyKind, Keyring, Sealed, generate_master_key};
use sealpod_api_server::idempotency::Claim;
use sealpod_api_server::ids::RevisionId;
use sealpod_api_server::rotation::{ReloadError, Rotation, Server};
use sealpod_api_server::store::{
    ConfigurationWrite, NewAccount, Object, Options, ProjectRef, Shelf, Store, StoreError,
};
use sealpod_core::Time;
use sealpod_core::wire::Labels;
use sealpod_runtime::admin::Readiness;
use tokio_util::sync::CancellationToken;

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
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    fixture.set(&prod, "db", "one").await;
    let keys = format!("{}\n{MASTER_KEY}", generate_master_key().expose());
    let next = Keyring::parse(&keys).unwrap();
    begin(&fixture.store, &next).await.unwrap();
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
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    fixture.store.close().await;
    let other = Connection::open(fixture.path()).unwrap();
    assert_eq!(other.execute("UPDATE master_keys SET retired_at = 1", []).unwrap(), 1);
    drop(other);
    fixture.store = Store::open(&Options::new(fixture.path()), &fixture.keyring).unwrap();
    let retired = async || fixture.store.key_needs().await.unwrap()[0].retired_at;
    assert!(retired().await.is_some());
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    assert_eq!(retired().await, None);
    fixture.set(&prod, "db", "one").await;
}

fn ring(keys: &[&str]) -> Keyring {
    Keyring::parse(&keys.join("\n")).unwrap()
}

/// What a server's key file does: `keyring` has the keys once that is on record.
async fn begin(store: &Store, keyring: &Keyring) -> Result<(), StoreError> {
    take(store, &keyring.clone(), keyring).await
}

async fn take(store: &Store, keyring: &Keyring, new: &Keyring) -> Result<(), StoreError> {
    let keys = (new.current(), new.ids().collect());
    let (keyring, new) = (keyring.clone(), new.clone());
    store.begin_key(keys, by(), move || keyring.replace(&new)).await
}

const MOVED: StoreError = StoreError::Moved(Object::MasterKey);

#[tokio::test]
async fn a_key_that_something_needs_goes_neither_before_nor_behind_what_is_stored_under_it() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let (store, next) = (&fixture.store, generate_master_key());
    let (old, both) = (ring(&[MASTER_KEY]), ring(&[next.expose(), MASTER_KEY]));
    take(store, &fixture.keyring, &both).await.unwrap();
    let slot = fixture.slot(&prod, "db").await;
    let put = |value| store.append_versions(vec![fixture.version(&slot, value)], None, by());
    // They wait for the writer in this order.
    let (stored, reverted) = tokio::join!(biased; put("one"), take(store, &fixture.keyring, &old));
    assert!(stored.is_ok());
    assert_eq!((reverted, fixture.keyring.current()), (Err(MOVED), both.current()));
    assert_eq!(fixture.get(&prod, "db").await.unwrap().1, "one");
    // The other way round, what comes behind hears of it once the server has the key that it is to be sealed under.
    let third = ring(&[generate_master_key().expose(), next.expose(), MASTER_KEY]);
    let under_the_second = put("two");
    let (taken, refused) = tokio::join!(biased; take(store, &fixture.keyring, &third), async {
        (under_the_second.await, fixture.keyring.current())
    });
    assert_eq!((taken, refused), (Ok(()), (Err(MOVED), third.current())));
    fixture.set(&prod, "db", "two").await;
    assert_eq!(fixture.get(&prod, "db").await.unwrap(), (2, "two".to_owned()));
}

/// It was wrapped for the key of before when the next one was taken, which may have been read from a file without that one.
#[tokio::test]
async fn nothing_is_wrapped_or_kept_under_a_key_that_does_not_seal_any_more() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let (store, next) = (&fixture.store, generate_master_key());
    let (old, both) = (ring(&[MASTER_KEY]), ring(&[next.expose(), MASTER_KEY]));
    take(store, &fixture.keyring, &old).await.unwrap();
    fixture.set(&prod, "db", "one").await;
    let value = store
        .sealed_values(Shelf::Versions, None, 0)
        .await
        .unwrap()
        .values
        .remove(0);
    let late = both.rewrap(&value.aad, &value.sealed).unwrap();
    assert_eq!(store.rewrap(vec![(value, late)]).await, Err(MOVED));
    let claim = Claim {
        scope: [1; 32],
        fingerprint: [2; 32],
        attempt: uuid::Uuid::now_v7(),
    };
    let late = both.seal(&Aad::answer(&claim.scope), b"{}");
    assert_eq!(store.keep_answer(claim, late).await, Err(MOVED));
    assert_eq!(store.key_needs().await.unwrap().len(), 1);
    assert_eq!(fixture.get(&prod, "db").await.unwrap().1, "one");
}

#[tokio::test]
async fn a_key_that_is_on_record_is_the_servers_also_when_whoever_took_it_has_gone() {
    let fixture = Fixture::new().await;
    let (store, next) = (&fixture.store, generate_master_key());
    let both = ring(&[next.expose(), MASTER_KEY]);
    let taking = take(store, &fixture.keyring, &both);
    // It is in the queue, and nobody waits any more.
    assert_eq!(futures::FutureExt::now_or_never(taking), None);
    store.forget_done(Time::now(), 1).await.unwrap();
    let recorded = store.current_key().await.unwrap();
    assert_eq!(
        (recorded, fixture.keyring.current()),
        (Some(both.current()), both.current())
    );
}

fn server(fixture: &Fixture) -> (Rotation, Readiness, PathBuf) {
    let file = fixture.folder.path().join("master.key");
    (Rotation::new(Some(file.clone())), Readiness::new(), file)
}

/// Runs both tasks of a rotation until the server has these keys and nothing to complain of.
async fn until_taken(fixture: &Fixture, (rotation, readiness): (Rotation, Readiness), want: &Keyring) {
    let (store, keyring, stop) = (&fixture.store, &fixture.keyring, CancellationToken::new());
    let following = rotation
        .clone()
        .follow(store.clone(), keyring.clone(), readiness.clone(), stop.clone());
    let tasks = [
        tokio::spawn(following),
        tokio::spawn(rotation.run(store.clone(), keyring.clone(), stop.clone())),
    ];
    for attempt in 0.. {
        if keyring.ids().eq(want.ids()) && readiness.warnings().is_empty() {
            break;
        }
        assert!(attempt < 4_000, "{keyring:?} {:?}", readiness.warnings());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_key_file_that_came_too_early_is_taken_when_the_rotation_is_done() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let next = generate_master_key();
    let (both, alone) = (ring(&[next.expose(), MASTER_KEY]), ring(&[next.expose()]));
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    fixture.set(&prod, "db", "one").await;
    let (rotation, readiness, file) = server(&fixture);
    let reload = async |keys: &str| {
        fs::write(&file, keys).unwrap();
        let server = Server {
            store: &fixture.store,
            keyring: &fixture.keyring,
            readiness: &readiness,
        };
        rotation.reload(server, by()).await
    };
    reload(&format!("{}\n{MASTER_KEY}", next.expose())).await.unwrap();
    assert_eq!(fixture.keyring.current(), both.current());
    let early = reload(next.expose()).await;
    assert!(matches!(early, Err(ReloadError::StillNeeded(needs)) if needs.id == keyring().current()));
    until_taken(&fixture, (rotation, readiness), &alone).await;
    assert_eq!(fixture.get(&prod, "db").await.unwrap().1, "one");
}

#[tokio::test]
async fn a_key_file_whose_reading_was_cut_off_is_read_again() {
    let fixture = Fixture::new().await;
    let next = generate_master_key();
    let both = ring(&[next.expose(), MASTER_KEY]);
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    let (rotation, readiness, file) = server(&fixture);
    fs::write(&file, format!("{}\n{MASTER_KEY}", next.expose())).unwrap();
    let server = Server {
        store: &fixture.store,
        keyring: &fixture.keyring,
        readiness: &readiness,
    };
    // The file is read, and the first question to the store has no answer yet.
    assert!(futures::FutureExt::now_or_never(rotation.reload(server, by())).is_none());
    assert_ne!(fixture.keyring.current(), both.current());
    until_taken(&fixture, (rotation, readiness), &both).await;
    assert_eq!(fixture.store.current_key().await.unwrap(), Some(both.current()));
}

const WRITERS: usize = 4;
const TURNS: usize = 20;

/// Seals and looks up, and goes on with that only a while later, when the key may be gone.
async fn write_and_read(fixture: &Fixture, name: String, done: &AtomicBool) -> u64 {
    let prod = ProjectRef::slug(ORGANIZATION, "shop").environment("prod");
    let mut last = 0;
    while !done.load(Ordering::Relaxed) {
        let value = format!("{name} {last}");
        last = loop {
            let slot = fixture.slot(&prod, &name).await;
            let version = fixture.version(&slot, &value);
            tokio::time::sleep(Duration::from_millis(last % 4)).await;
            match fixture.store.append_versions(vec![version], None, by()).await {
                Ok(appended) => break appended[0].number,
                Err(error) => assert_eq!(error, MOVED),
            }
        };
        let found = fixture.store.active_version(prod.clone(), &name).await.unwrap();
        tokio::time::sleep(Duration::from_millis(last % 3)).await;
        let opened = fixture.keyring.open(&found.aad(), &found.sealed).unwrap();
        assert_eq!(*opened, value.as_bytes());
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_no_key_goes_while_something_on_its_way_needs_it() {
    let fixture = Arc::new(Fixture::new().await);
    fixture.project("shop").await;
    begin(&fixture.store, &fixture.keyring).await.unwrap();
    let (rotation, readiness, file) = server(&fixture);
    let (done, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
    let mut working = tokio::task::JoinSet::new();
    for n in 0..WRITERS {
        let (fixture, done) = (Arc::clone(&fixture), Arc::clone(&done));
        working.spawn(async move { write_and_read(&fixture, format!("key-{n}"), &done).await });
    }
    let running = rotation
        .clone()
        .run(fixture.store.clone(), fixture.keyring.clone(), stop.clone());
    let running = tokio::spawn(running);
    let reload = async |keys: &[&str]| {
        fs::write(&file, keys.join("\n")).unwrap();
        let server = Server {
            store: &fixture.store,
            keyring: &fixture.keyring,
            readiness: &readiness,
        };
        match rotation.reload(server, by()).await {
            Ok(()) => true,
            Err(ReloadError::StillNeeded(_)) => false,
            Err(error) => panic!("{error}"),
        }
    };
    for _ in 0..TURNS {
        let next = generate_master_key();
        assert!(reload(&[next.expose(), MASTER_KEY]).await);
        // At once, and then when everything was brought back.
        if !reload(&[MASTER_KEY]).await {
            assert!(reload(&[MASTER_KEY, next.expose()]).await);
            while !reload(&[MASTER_KEY]).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let written: u64 = working.join_all().await.into_iter().sum();
    stop.cancel();
    running.await.unwrap();
    fixture.keyring.forget(Instant::now() + Duration::from_mins(1));
    let mut opened = 0;
    let mut from = Some(0);
    while let Some(at) = from {
        let piece = fixture.store.sealed_values(Shelf::Versions, None, at).await.unwrap();
        for value in piece.values {
            assert!(
                fixture.keyring.open(&value.aad, &value.sealed).is_ok(),
                "{}",
                value.place
            );
            opened += 1;
        }
        from = piece.next;
    }
    assert_eq!(opened, written);
}
