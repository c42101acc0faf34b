use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::Connection;
use sealpod_api_server::audit::{Actor, ActorKind, By, Chain, Entry, Kind, Metadata, Outcome, Source, Verb};
use sealpod_api_server::store::{Fate, NewSecret, Store, StoreError};
use uuid::Uuid;

use crate::store_support::{Fixture, ORGANIZATION, by, keyring};

async fn chain(fixture: &Fixture) -> Chain {
    Chain::Organization(fixture.store.organization(ORGANIZATION).await.unwrap().id)
}

#[tokio::test]
async fn every_change_leaves_an_entry_that_says_who_did_what() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    let actor_id = Uuid::now_v7();
    let operator = By {
        actor: Arc::new(Actor {
            kind: ActorKind::AdminKey,
            id: Some(actor_id),
            name: "admin-key".into(),
        }),
        source: Arc::new(Source {
            ip: Some(IpAddr::from([10, 0, 0, 7])),
            user_agent: Some("sealpod-operator/1".into()),
            request_id: Some("r-1".into()),
        }),
        on_behalf: Some("Application/team/shop".into()),
        once: None,
    };
    let slot = fixture.slot(&prod, "db").await;
    let version = fixture.version(&slot, "canary");
    fixture
        .store
        .append_versions(vec![version], None, operator)
        .await
        .unwrap();
    fixture.store.hide_secret(prod, "db", Fate::Trash, by()).await.unwrap();
    fixture
        .store
        .delete_secret(shop, "db", Fate::Trash, by())
        .await
        .unwrap();

    let entries = fixture.store.audit_entries(chain(&fixture).await, 100).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|it| (it.seq, it.action.as_str())).collect();
    let want = [
        (5, "secret.delete"),
        (4, "secret.delete"),
        (3, "secret.set"),
        (2, "project.create"),
        (1, "org.create"),
    ];
    assert_eq!(actions, want);
    let set = &entries[2];
    assert_eq!((set.actor_type.as_str(), set.actor_id), ("admin_key", Some(actor_id)));
    assert_eq!(
        (set.resource_type.as_str(), set.resource_name.as_deref()),
        ("secret", Some("db"))
    );
    assert_eq!(
        (set.project.as_deref(), set.environment.as_deref()),
        (Some("shop"), Some("prod"))
    );
    assert_eq!((set.outcome.as_str(), set.ip.as_deref()), ("success", Some("10.0.0.7")));
    assert_eq!(set.metadata, r#"{"version":1,"on_behalf":"Application/team/shop"}"#);
    assert!(!format!("{entries:?}").contains("canary"));

    let instance = fixture.store.audit_entries(Chain::Instance, 100).await.unwrap();
    assert_eq!(
        instance.iter().map(|it| it.action.as_str()).collect::<Vec<_>>(),
        ["org.create"]
    );
}

#[tokio::test]
async fn a_recorded_read_is_on_disk_when_the_call_returns() {
    let fixture = Fixture::new().await;
    let entry = Entry::new(Kind::Secret, Verb::Read)
        .resource(None, "db")
        .at("shop", Some("prod"))
        .outcome(Outcome::Denied)
        .metadata(Metadata {
            denied: vec!["db".into()],
            ..Metadata::default()
        });
    fixture.store.record(chain(&fixture).await, entry, by()).await.unwrap();
    let other = Connection::open(fixture.path()).unwrap();
    let found = other.query_row(
        "SELECT outcome, metadata FROM audit_entries WHERE action = 'secret.read'",
        [],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    );
    assert_eq!(found.unwrap(), ("denied".to_owned(), r#"{"denied":["db"]}"#.to_owned()));
}

#[tokio::test]
async fn a_change_that_fails_leaves_no_entry_and_no_gap() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let new = || NewSecret {
        name: "db".into(),
        description: None,
    };
    fixture.store.create_secret(shop.clone(), new(), by()).await.unwrap();
    for _ in 0..3 {
        let taken = fixture.store.create_secret(shop.clone(), new(), by()).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))));
    }
    fixture
        .store
        .delete_secret(shop, "db", Fate::Trash, by())
        .await
        .unwrap();
    let report = fixture.store.verify_audit().await.unwrap();
    assert!(report.is_intact());
    let entries: u64 = report.chains.iter().map(|it| it.entries).sum();
    assert_eq!(entries, 5, "{report:?}");
}

#[tokio::test]
async fn entries_cannot_be_changed_deleted_or_inserted_out_of_turn() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    let other = Connection::open(fixture.path()).unwrap();
    for sql in [
        "UPDATE audit_entries SET outcome = 'failure'",
        "DELETE FROM audit_entries",
        "INSERT INTO audit_entries SELECT chain, seq + 7, id, created_at, action, actor_type, actor_id, actor_name,
            resource_type, resource_id, resource_name, project, environment, outcome, ip, user_agent, request_id,
            metadata, hash FROM audit_entries WHERE seq = 1",
        "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE seq = 1",
    ] {
        let error = other.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains("audit entries are"), "{error}");
    }
    assert!(fixture.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_tampered_chain_is_named_with_its_first_bad_entry() {
    let fixture = Fixture::new().await;
    let prod = fixture.project("shop").await.environment("prod");
    for _ in 0..4 {
        fixture.set(&prod, "db", "v").await;
    }
    let chain = chain(&fixture).await;
    fixture.store.close().await;
    let verify = async || {
        let options = sealpod_api_server::store::Options::new(fixture.path());
        let store = Store::open(&options, &keyring()).unwrap();
        let report = store.verify_audit().await.unwrap();
        store.close().await;
        let ours = report.chains.iter().find(|it| it.chain == chain).unwrap().clone();
        assert!(report.chains.iter().all(|it| it.chain == chain || it.broken.is_none()));
        ours
    };
    assert_eq!(verify().await.entries, 6);
    // Whoever owns the file can take the triggers away, but cannot make the hashes fit.
    let tamper = |sql: &str| {
        let other = Connection::open(fixture.path()).unwrap();
        let triggers =
            "DROP TRIGGER IF EXISTS audit_entries_no_update; DROP TRIGGER IF EXISTS audit_entries_no_delete;";
        other.execute_batch(triggers).unwrap();
        assert!(other.execute(sql, [chain.id().as_bytes()]).unwrap() > 0);
    };
    tamper("UPDATE audit_entries SET actor_name = 'nobody' WHERE chain = ?1 AND seq = 4");
    let report = verify().await;
    assert_eq!((report.entries, report.broken.unwrap().seq()), (3, 4));
    tamper("UPDATE audit_entries SET actor_name = 'test' WHERE chain = ?1 AND seq = 4");
    assert_eq!(verify().await.broken, None);
    tamper("DELETE FROM audit_entries WHERE chain = ?1 AND seq = 3");
    let report = verify().await;
    assert_eq!((report.entries, report.broken.unwrap().seq()), (2, 3));
}
