use std::sync::Arc;

use proptest::prelude::*;
use sealpod_api_server::store::version::{State, active, next_change};
use sealpod_api_server::store::{
    BundleQuery, EnvironmentRef, Fate, NewSecret, NewVersion, Object, Page, Selection, StoreError,
};
use sealpod_core::Time;

use crate::store_support::{Fixture, by};

const NO_VERSION: StoreError = StoreError::NotFound(Object::Version);
const NO_SECRET: StoreError = StoreError::NotFound(Object::Secret);

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_gapless_under_32_parallel_writers_and_share_commits() {
    let fixture = Arc::new(Fixture::new().await);
    let prod = fixture.project("shop").await.environment("prod");
    fixture.set(&prod, "db", "first").await;
    let before = fixture.store.stats();
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let (fixture, prod) = (Arc::clone(&fixture), prod.clone());
            tokio::spawn(async move {
                let mut numbers = Vec::new();
                for n in 0..10 {
                    numbers.push(fixture.set(&prod, "db", &format!("{writer}/{n}")).await.number);
                }
                numbers
            })
        })
        .collect();
    let mut numbers = Vec::new();
    for writer in writers {
        numbers.extend(writer.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=321).collect::<Vec<_>>());
    let after = fixture.store.stats();
    assert_eq!(after.writes - before.writes, 320);
    assert!(after.commits - before.commits < 320, "{after:?}");
    assert!(fixture.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn several_values_are_stored_together_or_not_at_all() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let (local, prod) = (shop.clone().environment("local"), shop.clone().environment("prod"));
    let slots = fixture
        .store
        .locate(shop.clone(), "db", vec!["local".into(), "prod".into(), "local".into()]);
    let slots = slots.await.unwrap();
    let versions = || {
        slots
            .iter()
            .zip(["a", "b", "c"])
            .map(|(slot, value)| fixture.version(slot, value))
            .collect()
    };
    let appended = fixture
        .store
        .append_versions(versions(), Some("text".into()), by())
        .await
        .unwrap();
    assert_eq!(appended.iter().map(|it| it.number).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(
        appended.iter().map(|it| it.first).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(fixture.get(&local, "db").await.unwrap(), (2, "c".to_owned()));
    assert_eq!(fixture.get(&prod, "db").await.unwrap(), (1, "b".to_owned()));
    let detail = fixture.store.secret(shop, "db").await.unwrap();
    assert_eq!(detail.secret.description.as_deref(), Some("text"));

    fixture.store.delete_environment(prod, Fate::Trash, by()).await.unwrap();
    let late = fixture.store.append_versions(versions(), None, by()).await;
    assert_eq!(late.unwrap_err(), StoreError::Moved(Object::Environment));
    assert_eq!(fixture.get(&local, "db").await.unwrap(), (2, "c".to_owned()));
    assert_eq!(fixture.store.append_versions(vec![], None, by()).await.unwrap(), []);
}

#[tokio::test]
async fn a_value_that_was_sealed_for_a_secret_that_is_no_more_is_not_stored() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    let absent = fixture.slot(&prod, "db").await;
    assert!(!absent.exists);
    fixture.set(&prod, "db", "theirs").await;
    let late = fixture
        .store
        .append_versions(vec![fixture.version(&absent, "mine")], None, by())
        .await;
    assert_eq!(late.unwrap_err(), StoreError::Moved(Object::Secret));

    let present = fixture.slot(&prod, "db").await;
    fixture
        .store
        .delete_secret(shop.clone(), "db", Fate::Trash, by())
        .await
        .unwrap();
    let late = fixture
        .store
        .append_versions(vec![fixture.version(&present, "mine")], None, by())
        .await;
    assert_eq!(late.unwrap_err(), StoreError::Moved(Object::Secret));
    assert_eq!(fixture.get(&prod, "db").await.unwrap_err(), NO_SECRET);

    assert_eq!(fixture.set(&prod, "db", "again").await.number, 1);
}

#[tokio::test]
async fn what_cannot_be_read_now_falls_back_to_an_older_version() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let slot = fixture.slot(&prod, "db").await;
    let now = Time::now();
    let disabled = NewVersion {
        is_enabled: false,
        ..fixture.version(&slot, "disabled")
    };
    fixture.append(disabled).await;
    assert_eq!(fixture.get(&prod, "db").await.unwrap_err(), NO_VERSION);
    fixture.set(&prod, "db", "good").await;
    let slot = fixture.slot(&prod, "db").await;
    let expired = NewVersion {
        expires_at: Some(now.plus_seconds(-60)),
        ..fixture.version(&slot, "expired")
    };
    let future = NewVersion {
        not_before: Some(now.plus_seconds(3600)),
        ..fixture.version(&slot, "future")
    };
    fixture.append(expired).await;
    fixture.append(future).await;
    assert_eq!(fixture.get(&prod, "db").await.unwrap(), (2, "good".to_owned()));
    let versions = fixture.store.versions(prod, "db").await.unwrap();
    assert_eq!(versions.iter().map(|it| it.number).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(versions[0].not_before, Some(now.plus_seconds(3600)));
    assert_eq!(versions[0].created_by.name, "test");
}

#[tokio::test]
async fn a_deletion_in_one_environment_hides_its_versions_there_and_numbering_goes_on() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let (local, prod) = (shop.clone().environment("local"), shop.clone().environment("prod"));
    for value in ["1", "2"] {
        fixture.set(&prod, "db", value).await;
        fixture.set(&local, "db", value).await;
    }
    fixture
        .store
        .hide_secret(prod.clone(), "db", Fate::Trash, by())
        .await
        .unwrap();
    assert_eq!(fixture.get(&prod, "db").await.unwrap_err(), NO_VERSION);
    assert!(fixture.store.versions(prod.clone(), "db").await.unwrap().is_empty());
    assert!(
        fixture
            .store
            .environment_secrets(prod.clone(), Page::default(), |_, _| true)
            .await
            .unwrap()
            .1
            .is_empty()
    );
    let detail = fixture.store.secret(shop.clone(), "db").await.unwrap();
    let provided: Vec<_> = detail
        .environments
        .iter()
        .map(|it| (it.slug.as_str(), it.provided))
        .collect();
    assert_eq!(provided, [("local", true), ("prod", false)]);
    assert_eq!(fixture.get(&local, "db").await.unwrap(), (2, "2".to_owned()));
    let again = fixture.store.hide_secret(prod.clone(), "db", Fate::Trash, by()).await;
    assert_eq!(again.unwrap_err(), NO_SECRET);

    let set = fixture.set(&prod, "db", "3").await;
    assert_eq!((set.number, set.first), (3, true));
    let versions = fixture.store.versions(prod.clone(), "db").await.unwrap();
    assert_eq!(versions.iter().map(|it| it.number).collect::<Vec<_>>(), [3]);
    fixture
        .store
        .hide_secret(prod.clone(), "db", Fate::Trash, by())
        .await
        .unwrap();
    assert_eq!(fixture.set(&prod, "db", "4").await.number, 4);
    assert_eq!(fixture.get(&prod, "db").await.unwrap(), (4, "4".to_owned()));
}

#[tokio::test]
async fn a_deleted_secret_leaves_every_environment_and_its_name_begins_anew() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    let new = || NewSecret {
        name: "db password".into(),
        description: Some("d".into()),
    };
    let made = fixture.store.create_secret(shop.clone(), new(), by()).await.unwrap();
    assert!(made.environments.iter().all(|it| !it.provided) && made.environments.len() == 2);
    let taken = fixture.store.create_secret(shop.clone(), new(), by()).await;
    assert_eq!(taken.unwrap_err(), StoreError::Conflict(Object::Secret));
    fixture.set(&prod, "db password", "1").await;
    fixture
        .store
        .delete_secret(shop.clone(), "db password", Fate::Trash, by())
        .await
        .unwrap();
    assert_eq!(
        fixture.store.secret(shop.clone(), "db password").await.unwrap_err(),
        NO_SECRET
    );
    assert!(
        fixture
            .store
            .secrets(shop.clone(), Page::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        fixture
            .store
            .delete_secret(shop.clone(), "db password", Fate::Trash, by())
            .await
            .unwrap_err(),
        NO_SECRET
    );
    let again = fixture.store.create_secret(shop, new(), by()).await.unwrap();
    assert_ne!(again.secret.id, made.secret.id);
    assert_eq!(fixture.set(&prod, "db password", "1").await.number, 1);
}

#[tokio::test]
async fn lists_are_by_name_and_come_in_pages() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    for key in ["c", "a", "b", "B"] {
        fixture.set(&prod, key, "v").await;
    }
    let page = |after: &str, limit| Page {
        after: Some(after.to_owned()),
        limit: Some(limit),
    };
    let names = |page| {
        let (fixture, shop, prod) = (&fixture, shop.clone(), prod.clone());
        async move {
            let of_project = fixture.store.secrets(shop, Page::clone(&page)).await.unwrap();
            let of_environment = fixture
                .store
                .environment_secrets(prod, page, |_, _| true)
                .await
                .unwrap()
                .1;
            let names: Vec<_> = of_project.into_iter().map(|it| it.name).collect();
            assert_eq!(names, of_environment.into_iter().map(|it| it.name).collect::<Vec<_>>());
            names
        }
    };
    assert_eq!(names(Page::default()).await, ["B", "a", "b", "c"]);
    assert_eq!(names(page("", 2)).await, ["B", "a"]);
    assert_eq!(names(page("a", 2)).await, ["b", "c"]);
    assert!(names(page("c", 2)).await.is_empty());
}

/// A version as the property test makes it: enabled, window in hours from now, whether all are deleted after it.
type Made = (bool, Option<i64>, Option<i64>, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn sql_and_the_pure_rule_agree(
        made in proptest::collection::vec(
            (any::<bool>(), proptest::option::of(-5..5_i64), proptest::option::of(-5..5_i64), prop::bool::weighted(0.15)),
            1..10,
        ),
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(agree(made));
    }
}

async fn agree(made: Vec<Made>) {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    let now = Time::now();
    // A quarter of an hour off, so that no window begins or ends while the test runs.
    let hours = |h: i64| now.plus_seconds(h * 3600 + 900);
    let mut states: Vec<State> = Vec::new();
    for (is_enabled, from, to, delete) in made {
        let (not_before, expires_at) = (from.map(hours), to.map(hours));
        if not_before.zip(expires_at).is_some_and(|(from, to)| to <= from) {
            continue;
        }
        let slot = fixture.slot(&prod, "db").await;
        let version = NewVersion {
            is_enabled,
            not_before,
            expires_at,
            ..fixture.version(&slot, "v")
        };
        let number = fixture.append(version).await.number;
        states.push(State {
            number,
            is_enabled,
            not_before,
            expires_at,
            hidden: false,
        });
        if delete {
            fixture
                .store
                .hide_secret(prod.clone(), "db", Fate::Trash, by())
                .await
                .unwrap();
            for state in &mut states {
                state.hidden = true;
            }
        }
    }
    check(&fixture, &prod, &states).await;
}

async fn check(fixture: &Fixture, prod: &EnvironmentRef, states: &[State]) {
    let snapshot = |selection| {
        let query = BundleQuery {
            environment: prod.clone(),
            selection,
            configurations: false,
            most: usize::MAX,
        };
        fixture.bundle(query, |_, _| true)
    };
    let all = snapshot(Selection::All).await.unwrap();
    assert_eq!(all.secrets.first().map(|it| it.number), active(states, all.taken_at));
    assert_eq!(all.next_change_at, next_change(states, all.taken_at));
    let read = fixture.store.active_version(prod.clone(), "db").await;
    assert_eq!(read.ok().map(|it| it.number), active(states, all.taken_at));
    for state in states {
        let pinned = Selection::Named {
            keys: vec![],
            patterns: vec![],
            pinned: [("db".to_owned(), state.number)].into(),
        };
        let one = snapshot(pinned).await.unwrap();
        assert_eq!(one.secrets.first().map(|it| it.number), active([state], one.taken_at));
        assert_eq!(one.next_change_at, next_change(&[*state], one.taken_at));
    }
}
