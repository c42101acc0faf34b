use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealpod_api_server::ids::RevisionId;
use sealpod_api_server::store::{
    AclRule, BundleQuery, Bundled, ConfigurationPage, ConfigurationWrite, EnvironmentRef, Expect, Fate, Judge,
    Location, Object, Selection, Snapshot, StoreError,
};

use crate::store_support::{Fixture, Permitting, by};

fn query(environment: &EnvironmentRef, selection: Selection) -> BundleQuery {
    BundleQuery {
        environment: environment.clone(),
        selection,
        configurations: true,
        most: usize::MAX,
    }
}

fn named(keys: &[&str], patterns: &[&str], pinned: &[(&str, u64)]) -> Selection {
    Selection::Named {
        keys: keys.iter().map(|it| (*it).to_owned()).collect(),
        patterns: patterns.iter().map(|it| it.parse().unwrap()).collect(),
        pinned: pinned.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect(),
    }
}

async fn configure(fixture: &Fixture, environment: &EnvironmentRef, key: &str, value: &str) -> ConfigurationWrite {
    let slot = fixture
        .store
        .locate_configuration(environment.clone(), key)
        .await
        .unwrap();
    let revision = RevisionId::new();
    ConfigurationWrite {
        sealed: fixture.keyring.seal(&slot.aad(revision), value.as_bytes()),
        slot,
        revision,
        description: None,
    }
}

#[tokio::test]
async fn a_bundle_holds_what_was_asked_for_and_permitted() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let (prod, local) = (shop.clone().environment("prod"), shop.environment("local"));
    for key in ["db-host", "db-port", "cache", "hidden"] {
        fixture.set(&prod, key, "one").await;
        fixture.set(&prod, key, key).await;
    }
    fixture.set(&local, "elsewhere", "v").await;
    let write = configure(&fixture, &prod, "Feature:X", "on").await;
    fixture.store.create_configuration(write, by()).await.unwrap();

    let read = |selection| {
        let permitted = |location: &sealpod_api_server::store::Location, key: &str| {
            location.project_slug == "shop" && key != "hidden"
        };
        let (fixture, query) = (&fixture, query(&prod, selection));
        async move {
            let snapshot = fixture.bundle(query, permitted).await.unwrap();
            let open = |aad, sealed| String::from_utf8(fixture.keyring.open(&aad, sealed).unwrap().to_vec()).unwrap();
            assert_eq!(
                open(snapshot.configurations[0].aad(), &snapshot.configurations[0].sealed),
                "on"
            );
            let found = snapshot.secrets.iter();
            found
                .map(|it| {
                    let value = open(it.aad(&snapshot.location), it.sealed.as_ref().unwrap());
                    (it.name.clone(), (it.number, value))
                })
                .collect::<BTreeMap<_, _>>()
        }
    };
    let keys = |found: BTreeMap<String, _>| found.into_keys().collect::<Vec<_>>();
    assert_eq!(keys(read(Selection::All).await), ["cache", "db-host", "db-port"]);
    assert_eq!(
        keys(read(named(&["cache", "absent", "hidden"], &["db-{host,x}"], &[])).await),
        ["cache", "db-host"]
    );
    let pinned = read(named(&["cache"], &["c*"], &[("cache", 1), ("db-port", 7)])).await;
    assert_eq!(pinned, [("cache".to_owned(), (1, "one".to_owned()))].into());
}

#[tokio::test]
async fn names_and_versions_can_be_had_without_values() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", "v").await;
    let everything = Permitting(|_: &Location, _: &str| true, false);
    let bundled = fixture
        .store
        .bundle(query(&prod, Selection::All), None, everything)
        .await
        .unwrap();
    let Bundled::Read(read) = bundled else { panic!() };
    let snapshot = read.1;
    assert_eq!(snapshot.secrets[0].number, 1);
    assert!(snapshot.secrets[0].sealed.is_none());
}

/// Wants values once it has seen what there is.
struct Afterwards;

impl Judge for Afterwards {
    fn permits(&self, _: &Location, _: &[AclRule], _: &str) -> bool {
        true
    }

    fn wants_values(&self) -> bool {
        false
    }

    fn wants_values_of(&mut self, snapshot: &Snapshot) -> bool {
        assert!(snapshot.secrets.iter().all(|secret| secret.sealed.is_none()));
        true
    }
}

#[tokio::test]
async fn values_come_in_the_same_snapshot_or_not_at_all_and_never_too_many() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    for key in ["a", "b"] {
        fixture.set(&prod, key, &"v".repeat(10_000)).await;
    }
    let write = configure(&fixture, &prod, "k", &"v".repeat(10_000)).await;
    fixture.store.create_configuration(write, by()).await.unwrap();
    for (most, fits) in [(20_000, false), (29_000, false), (40_000, true)] {
        let query = || BundleQuery {
            most,
            ..query(&prod, Selection::All)
        };
        let now = fixture
            .store
            .bundle(query(), None, Permitting(|_: &Location, _: &str| true, true));
        assert_eq!(matches!(now.await.unwrap(), Bundled::Read(..)), fits, "{most}");
        match fixture.store.bundle(query(), None, Afterwards).await.unwrap() {
            Bundled::Read(read) => {
                assert!(fits && read.1.secrets.iter().all(|secret| secret.sealed.is_some()));
            }
            Bundled::TooMuch => assert!(!fits),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_half_a_change() {
    let fixture = Arc::new(Fixture::new().await);
    let prod = fixture.project("shop").await.environment("prod");
    for key in ["a", "b"] {
        fixture.set(&prod, key, "0").await;
    }
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (fixture, prod, done) = (Arc::clone(&fixture), prod.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = fixture.bundle(query(&prod, Selection::All), |_, _| true).await.unwrap();
                    let numbers: Vec<_> = snapshot.secrets.iter().map(|it| it.number).collect();
                    assert_eq!(numbers[0], numbers[1]);
                    assert!(numbers[0] >= seen, "a later read sees an earlier state");
                    seen = numbers[0];
                }
            })
        })
        .collect();
    for n in 0..100 {
        let mut versions = Vec::new();
        for key in ["a", "b"] {
            let slot = fixture.slot(&prod, key).await;
            versions.push(fixture.version(&slot, &n.to_string()));
        }
        fixture.store.append_versions(versions, None, by()).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_configuration_is_made_changed_and_deleted() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let (prod, local) = (shop.clone().environment("prod"), shop.clone().environment("local"));
    let first = configure(&fixture, &prod, "k", "1").await;
    let update_of_nothing = fixture
        .store
        .update_configuration(first.clone(), Expect::anything(), by())
        .await;
    assert_eq!(
        update_of_nothing.unwrap_err(),
        StoreError::NotFound(Object::Configuration)
    );
    let described = ConfigurationWrite {
        description: Some("text".into()),
        ..first.clone()
    };
    let made = fixture.store.create_configuration(described, by()).await.unwrap();
    assert_eq!((made.revision, made.description.as_deref()), (1, Some("text")));
    let again = fixture.store.create_configuration(first, by()).await;
    assert_eq!(again.unwrap_err(), StoreError::Conflict(Object::Configuration));

    let second = configure(&fixture, &prod, "k", "2").await;
    let updated = fixture
        .store
        .update_configuration(second.clone(), Expect::anything(), by())
        .await
        .unwrap();
    assert_eq!((updated.id, updated.revision), (made.id, 2));
    assert_ne!(updated.revision_id, made.revision_id);
    assert_eq!(updated.description.as_deref(), Some("text"));
    assert_eq!(&*fixture.keyring.open(&updated.aad(), &updated.sealed).unwrap(), b"2");
    let elsewhere = configure(&fixture, &local, "a", "v").await;
    fixture.store.create_configuration(elsewhere, by()).await.unwrap();
    let keys = async |environment: Option<&str>| {
        let page = ConfigurationPage {
            environment: environment.map(str::to_owned),
            after: None,
            limit: 100,
            bytes: usize::MAX,
        };
        let found = fixture.store.configuration_page(shop.clone(), page).await?;
        let entries = found.entries.into_iter();
        Ok(entries
            .map(|it| (it.location.environment_slug, it.key))
            .collect::<Vec<_>>())
    };
    let all = keys(None).await.unwrap();
    assert_eq!(all, [("local".into(), "a".into()), ("prod".into(), "k".into())]);
    assert_eq!(keys(Some("local")).await.unwrap(), [("local".into(), "a".into())]);
    let unknown: Result<_, StoreError> = keys(Some("absent")).await;
    assert_eq!(unknown.unwrap_err(), StoreError::NotFound(Object::Environment));

    fixture
        .store
        .delete_configuration(prod.clone(), "k", Fate::Trash, by())
        .await
        .unwrap();
    let gone = fixture.store.configuration(prod.clone(), "k").await;
    assert_eq!(gone.unwrap_err(), StoreError::NotFound(Object::Configuration));
    let late = fixture
        .store
        .update_configuration(second, Expect::anything(), by())
        .await;
    assert_eq!(late.unwrap_err(), StoreError::Moved(Object::Configuration));
    let again = configure(&fixture, &prod, "k", "3").await;
    let again = fixture.store.create_configuration(again, by()).await.unwrap();
    assert_eq!(again.revision, 1);
    assert_ne!(again.id, made.id);
}

#[tokio::test]
async fn patterns_are_tried_only_on_names_that_the_rules_permit() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    for n in 0..30 {
        fixture.set(&prod, &format!("{}{n}", "a".repeat(190)), "v").await;
    }
    // As costly as a request may make them: seconds, if anybody could have them tried on every name.
    let costly: Vec<String> = (100..600).map(|n| format!("{}{n}", "{a,*}".repeat(50))).collect();
    let costly: Vec<&str> = costly.iter().map(String::as_str).collect();
    let query = query(&prod, named(&[], &costly, &[]));
    let began = std::time::Instant::now();
    let snapshot = fixture.bundle(query, |_, _| false).await.unwrap();
    assert!(snapshot.secrets.is_empty());
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
}
