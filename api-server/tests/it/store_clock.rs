//! What ended by the clock stays ended when the clock is set back. The clock of a test cannot be set, so the database is
//! told that it was further ahead before.

use sealpod_api_server::crypto::{ApiKey, ApiKeyKind, NewKey, SessionToken};
use sealpod_api_server::maintenance;
use sealpod_api_server::store::{KeyHolder, NewAccount, NewSession, Options, Store};
use sealpod_core::Time;
use sealpod_core::wire::Labels;
use tokio_util::sync::CancellationToken;

use crate::store_support::{Fixture, ORGANIZATION, by, keyring};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

async fn session(store: &Store, seconds: i64) -> SessionToken {
    let token = SessionToken::generate();
    let new = NewSession {
        digest: token.digest(store.pepper()),
        expires_at: Time::now().plus_seconds(seconds),
    };
    let email = "ada@example.com".parse().unwrap();
    store.begin_session(email, new, by()).await.unwrap();
    token
}

async fn account(store: &Store, name: &str, seconds: Option<i64>) -> (ApiKey, KeyHolder) {
    let key = ApiKey::generate(ApiKeyKind::ServiceAccount);
    let new = NewAccount {
        organization: ORGANIZATION.into(),
        name: name.to_owned(),
        project: None,
        expires_at: seconds.map(|seconds| Time::now().plus_seconds(seconds)),
        labels: Labels::new(),
        key: NewKey::of(store.pepper(), &key),
    };
    store.create_account(new, by()).await.unwrap();
    let holder = store.find_key(store.pepper().digest(&key)).await.unwrap();
    (key, holder.unwrap())
}

async fn knows_session(store: &Store, token: &SessionToken) -> bool {
    store
        .find_session(token.digest(store.pepper()))
        .await
        .unwrap()
        .is_some()
}

async fn knows_key(store: &Store, key: &ApiKey) -> bool {
    store.find_key(store.pepper().digest(key)).await.unwrap().is_some()
}

/// The instant that the database keeps.
fn kept(path: &std::path::Path) -> Time {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT value FROM meta WHERE name = 'credential_clock'";
    let kept: [u8; 8] = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    Time::from_microseconds(i64::from_be_bytes(kept)).unwrap()
}

/// As if the clock had said this when the server ran last.
fn set(path: &std::path::Path, seconds: i64) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let at = Time::now().plus_seconds(seconds).microseconds().to_be_bytes();
    let sql = "UPDATE meta SET value = ?1 WHERE name = 'credential_clock'";
    assert_eq!(connection.execute(sql, [at]).unwrap(), 1);
}

#[tokio::test]
async fn the_instant_that_credentials_were_judged_at_is_kept_across_a_restart() {
    let fixture = Fixture::new().await;
    let token = session(&fixture.store, HOUR).await;
    let before = Time::now();
    assert!(knows_session(&fixture.store, &token).await);
    fixture.store.close().await;
    let at = kept(&fixture.path());
    assert!(before <= at && at <= Time::now());
}

#[tokio::test]
async fn the_instant_is_written_along_with_another_commit_and_only_once_in_a_while() {
    let fixture = Fixture::with(|options| options.use_interval = std::time::Duration::from_hours(1)).await;
    let token = session(&fixture.store, HOUR).await;
    let commits = fixture.store.stats().commits;
    for _ in 0..5 {
        assert!(knows_session(&fixture.store, &token).await);
    }
    assert_eq!(
        fixture.store.stats().commits,
        commits,
        "judging a credential writes nothing"
    );
}

#[tokio::test]
async fn a_clock_that_was_set_back_revives_nothing_after_a_restart_and_holds_up_nothing_new() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let (ended, lasting) = (session(store, HOUR).await, session(store, 3 * DAY).await);
    let (ended_account, _) = account(store, "ended", Some(HOUR)).await;
    let (lasting_key, holder) = account(store, "lasting", None).await;
    let KeyHolder::Account(lasting_account) = holder else {
        panic!()
    };
    let rotated = ApiKey::generate(ApiKeyKind::ServiceAccount);
    let new = NewKey::of(store.pepper(), &rotated);
    let overlap = HOUR.unsigned_abs();
    store
        .rotate_account(ORGANIZATION, lasting_account.account.id, new, overlap, by())
        .await
        .unwrap();
    assert!(knows_key(store, &lasting_key).await, "until its overlap ends");
    fixture.store.close().await;
    // A day ahead: all but two of them had ended by then.
    set(&fixture.path(), DAY);

    let open = || Store::open(&Options::new(fixture.path()), &keyring()).unwrap();
    let store = open();
    for round in 0..3 {
        assert!(!knows_session(&store, &ended).await, "{round}");
        assert!(!knows_key(&store, &ended_account).await, "{round}");
        assert!(!knows_key(&store, &lasting_key).await, "{round}");
        assert!(
            knows_session(&store, &lasting).await && knows_key(&store, &rotated).await,
            "{round}"
        );
        // Every change comes behind the burial of what had ended; what is new lives by the clock as it is now.
        let new = session(&store, HOUR).await;
        assert!(knows_session(&store, &new).await, "{round}");
    }
    let (short, _) = account(&store, "short", Some(HOUR)).await;
    assert!(knows_key(&store, &short).await);
    store.close().await;
    assert!(kept(&fixture.path()) <= Time::now());

    let store = open();
    assert!(!knows_session(&store, &ended).await && !knows_key(&store, &ended_account).await);
    assert!(!knows_key(&store, &lasting_key).await);
    assert!(knows_session(&store, &lasting).await && knows_key(&store, &short).await);
}

#[tokio::test]
async fn sessions_and_keys_that_have_ended_are_removed_some_at_a_time() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for _ in 0..5 {
        session(store, -1).await;
    }
    let living = session(store, HOUR).await;
    let (key, holder) = account(store, "ci", None).await;
    let KeyHolder::Account(found) = holder else { panic!() };
    let next = ApiKey::generate(ApiKeyKind::ServiceAccount);
    let new = NewKey::of(store.pepper(), &next);
    // One second of overlap, which is over at once for what the database says.
    store
        .rotate_account(ORGANIZATION, found.account.id, new, 1, by())
        .await
        .unwrap();
    let connection = rusqlite::Connection::open(fixture.path()).unwrap();
    let past = Time::now().plus_seconds(-1).microseconds();
    connection
        .execute(
            "UPDATE api_keys SET expires_at = ?1 WHERE expires_at IS NOT NULL",
            [past],
        )
        .unwrap();

    assert_eq!(store.purge_credentials(3).await, Ok(4));
    assert_eq!(store.purge_credentials(3).await, Ok(2));
    assert_eq!(store.purge_credentials(3).await, Ok(0));
    assert!(knows_session(store, &living).await && knows_key(store, &next).await && !knows_key(store, &key).await);
    let count = |table: &str| -> i64 {
        connection
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!((count("sessions"), count("api_keys")), (1, 1));
}

#[tokio::test]
async fn the_server_removes_sessions_that_have_ended_on_its_own() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        session(&fixture.store, -1).await;
    }
    let living = session(&fixture.store, HOUR).await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(maintenance::run(
        fixture.store.clone(),
        maintenance::TrashDays::default(),
        stop.clone(),
    ));
    let connection = rusqlite::Connection::open(fixture.path()).unwrap();
    let count = || -> i64 {
        connection
            .query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))
            .unwrap()
    };
    for _ in 0..1_000 {
        if count() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(count(), 1);
    assert!(knows_session(&fixture.store, &living).await);
    stop.cancel();
    task.await.unwrap();
}
