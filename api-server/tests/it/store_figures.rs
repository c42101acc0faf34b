//! Figures, printed on demand: `cargo test -p sealpod-api-server --release -- --ignored --nocapture store_figures`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpod_api_server::audit::{Chain, Entry, Kind, Verb};
use sealpod_api_server::crypto::ApiKeyKind;
use sealpod_api_server::store::{BundleQuery, NewAccount, Selection, Topic};
use sealpod_core::wire::Labels;

use crate::store_support::{Fixture, ORGANIZATION, by};

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |p: usize| times[(times.len() - 1) * p / 100];
    println!("{what}: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn figures() {
    let fixture = Arc::new(Fixture::new().await);
    let prod = fixture.project("shop").await.environment("prod");
    for n in 0..20 {
        fixture.set(&prod, &format!("key-{n}"), &"v".repeat(64)).await;
    }
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
    let chain = Chain::Organization(fixture.store.organization(ORGANIZATION).await.unwrap().id);

    let mut plain = Vec::new();
    let mut recorded = Vec::new();
    let mut writes = Vec::new();
    let mut keys = Vec::new();
    for n in 0..1000 {
        let began = Instant::now();
        fixture
            .store
            .find_key(fixture.store.pepper().digest(&key))
            .await
            .unwrap()
            .unwrap();
        keys.push(began.elapsed());
        let began = Instant::now();
        fixture.get(&prod, "key-3").await.unwrap();
        plain.push(began.elapsed());
        let entry = Entry::new(Kind::Secret, Verb::Read)
            .resource(None, "key-3")
            .at("shop", Some("prod"));
        fixture.store.record(chain, entry, by()).await.unwrap();
        recorded.push(began.elapsed());
        let began = Instant::now();
        fixture.set(&prod, "key-4", &n.to_string()).await;
        writes.push(began.elapsed());
    }
    percentiles("look-up of a key", keys);
    percentiles("read of a value", plain);
    percentiles("read of a value, recorded", recorded);
    percentiles("write of a value", writes);

    let mut bundles = Vec::new();
    for _ in 0..500 {
        let query = BundleQuery {
            environment: prod.clone(),
            selection: Selection::All,
            configurations: true,
            most: usize::MAX,
        };
        let began = Instant::now();
        let snapshot = fixture.bundle(query, |_, _| true).await.unwrap();
        for version in &snapshot.secrets {
            let sealed = version.sealed.as_ref().unwrap();
            fixture.keyring.open(&version.aad(&snapshot.location), sealed).unwrap();
        }
        bundles.push(began.elapsed());
    }
    percentiles("bundle of 20 values, opened", bundles);

    for writers in [1, 8, 64] {
        let before = fixture.store.stats();
        let began = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|n| {
                let (fixture, prod) = (Arc::clone(&fixture), prod.clone());
                tokio::spawn(async move {
                    let mut done = 0;
                    while began.elapsed() < Duration::from_secs(3) {
                        fixture.set(&prod, &format!("w{writers}-{n}"), "value").await;
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.unwrap();
        }
        let rate = done * 1000 / began.elapsed().as_millis();
        let after = fixture.store.stats();
        println!(
            "{writers} writers: {rate} writes/s, {} commits for {done}",
            after.commits - before.commits
        );
    }
    let topic = Topic::Environment(fixture.slot(&prod, "key-3").await.location.environment);
    let watchers: Vec<_> = (0..10_000).map(|_| fixture.store.watch(&[topic])).collect();
    let began = Instant::now();
    fixture.set(&prod, "key-3", "x").await;
    for watcher in &watchers {
        watcher.changed().await;
    }
    println!("10,000 watchers woken by a write in {:?}", began.elapsed());
}
