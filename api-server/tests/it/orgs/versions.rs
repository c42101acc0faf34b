use serde_json::{Value, json};

use crate::support::{Call, Server, time};

const SECRETS: &str = "/api/orgs/default/projects/shop/envs/local/secrets";
const BUNDLE: &str = "/api/orgs/default/projects/shop/envs/local/bundle";

fn patch(server: &Server, key: &str, number: u64, body: Value) -> Call {
    server
        .admin("PATCH", &format!("{SECRETS}/{key}/versions/{number}"))
        .json(body)
}

fn roll_back(server: &Server, key: &str, body: Value) -> Call {
    server.admin("POST", &format!("{SECRETS}/{key}/rollback")).json(body)
}

async fn value(server: &Server, key: &str) -> (Value, Value) {
    let reply = server.admin("GET", &format!("{SECRETS}/{key}")).status(200).await;
    (reply.body["value"].clone(), reply.body["version"].clone())
}

async fn with_values(values: &[&str]) -> Server {
    let server = Server::start().await;
    server.application("shop").await;
    for value in values {
        server.put("shop", "local", "db", value).await;
    }
    server
}

#[tokio::test]
async fn a_disabled_version_steps_back_for_the_one_before_it() {
    let server = with_values(&["one", "two"]).await;
    let before = server.admin("GET", &format!("{SECRETS}/db/versions")).status(200).await;
    let disabled = patch(&server, "db", 2, json!({"is_enabled": false})).status(200).await;
    assert_eq!(
        (&disabled.body["version"], &disabled.body["is_enabled"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(disabled.body["created_at"], before.body[0]["created_at"]);
    assert!(disabled.body.get("value").is_none());
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.resource_name.as_deref()),
        ("secret.update", Some("db"))
    );
    assert_eq!(server.metadata().await, json!({"version": 2, "fields": ["is_enabled"]}));
    assert_eq!(value(&server, "db").await, (json!("one"), json!(1)));
    patch(&server, "db", 1, json!({"is_enabled": false})).status(200).await;
    server
        .admin("GET", &format!("{SECRETS}/db"))
        .problem(404, "not_found")
        .await;
    let listed = server.admin("GET", SECRETS).status(200).await;
    assert!(listed.body[0]["version"].is_null(), "listed, without an active version");
    patch(&server, "db", 2, json!({"is_enabled": true})).status(200).await;
    assert_eq!(value(&server, "db").await, (json!("two"), json!(2)));
}

#[tokio::test]
async fn a_window_is_set_kept_and_cleared() {
    let server = with_values(&["one", "two"]).await;
    let (past, near, far) = (time(-60_000), time(60_000), time(120_000));
    patch(&server, "db", 2, json!({"expires_at": past})).status(200).await;
    assert_eq!(value(&server, "db").await.1, json!(1));
    let moved = patch(&server, "db", 2, json!({"expires_at": null, "not_before": near}))
        .status(200)
        .await;
    assert_eq!(
        (&moved.body["expires_at"], &moved.body["not_before"]),
        (&Value::Null, &json!(near))
    );
    assert_eq!(value(&server, "db").await.1, json!(1));
    let kept = patch(&server, "db", 2, json!({"expires_at": far})).status(200).await;
    assert_eq!(
        (&kept.body["expires_at"], &kept.body["not_before"]),
        (&json!(far), &json!(near))
    );
    // Each end is compared with the one that the version keeps.
    patch(&server, "db", 2, json!({"expires_at": near}))
        .invalid("expires_at")
        .await;
    patch(&server, "db", 2, json!({"not_before": far}))
        .invalid("expires_at")
        .await;
    patch(&server, "db", 2, json!({"not_before": far, "expires_at": near}))
        .invalid("expires_at")
        .await;
    let entries = server.audit().await.len();
    let same = json!({"is_enabled": true, "not_before": near, "expires_at": far});
    assert_eq!(patch(&server, "db", 2, same).status(200).await.body, kept.body);
    patch(&server, "db", 2, json!({})).status(200).await;
    assert_eq!(
        server.audit().await.len(),
        entries,
        "what changes nothing is not on record"
    );
    patch(&server, "db", 2, json!({"not_before": null})).status(200).await;
    assert_eq!(value(&server, "db").await.1, json!(2));
}

#[tokio::test]
async fn a_change_of_a_version_is_checked_field_by_field() {
    let server = with_values(&["one"]).await;
    for (field, bad) in [
        ("is_enabled", json!(null)),
        ("is_enabled", json!("true")),
        ("is_enabled", json!(1)),
        ("expires_at", json!("tomorrow")),
        ("expires_at", json!("2026-01-01T00:00:00")),
        ("expires_at", json!(5)),
        ("not_before", json!("")),
        ("not_before", json!({})),
        ("value", json!("x")),
        ("version", json!(2)),
    ] {
        patch(&server, "db", 1, json!({field: bad})).invalid(field).await;
    }
    for bad in [
        json!(null),
        json!(0),
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(u64::MAX),
        json!([1]),
    ] {
        roll_back(&server, "db", json!({"version": bad}))
            .invalid("version")
            .await;
    }
    roll_back(&server, "db", json!({})).invalid("version").await;
    roll_back(&server, "db", json!({"version": 1, "value": "x"}))
        .invalid("value")
        .await;
    for absent in ["0", "2", "18446744073709551615", "99999999999999999999", "x", "-1"] {
        let path = format!("{SECRETS}/db/versions/{absent}");
        server
            .admin("PATCH", &path)
            .json(json!({"is_enabled": true}))
            .problem(404, "not_found")
            .await;
    }
    roll_back(&server, "db", json!({"version": 2}))
        .problem(404, "not_found")
        .await;
    roll_back(&server, "nothing", json!({"version": 1}))
        .problem(404, "not_found")
        .await;
    patch(&server, "nothing", 1, json!({"is_enabled": true}))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn a_rollback_appends_the_old_value_as_a_new_version() {
    let server = with_values(&["one", "two", "three"]).await;
    let made = roll_back(&server, "db", json!({"version": 1})).status(200).await;
    let expected = json!({
        "version": 4, "is_enabled": true, "expires_at": null, "not_before": null,
        "created_at": made.body["created_at"], "created_by": "admin-key",
    });
    assert_eq!(made.body, expected);
    assert_eq!(value(&server, "db").await, (json!("one"), json!(4)));
    let versions = server.admin("GET", &format!("{SECRETS}/db/versions")).status(200).await;
    assert_eq!((versions.list().len(), &versions.body[0]), (4, &made.body));
    let entries = server.audit().await;
    let entry = entries.iter().find(|entry| entry.action == "secret.set").unwrap();
    let metadata: Value = serde_json::from_str(&entry.metadata).unwrap();
    assert_eq!(metadata, json!({"version": 4, "from_version": 1}));
}

#[tokio::test]
async fn a_rollback_revives_a_value_whatever_became_of_its_version_and_keeps_binary_values() {
    let server = with_values(&[]).await;
    let put = |body: Value| server.admin("PUT", &format!("{SECRETS}/db")).json(body);
    put(json!({"value": "AP8=", "encoding": "base64"})).status(201).await;
    put(json!({"value": "two", "expires_at": time(60_000)}))
        .status(200)
        .await;
    patch(&server, "db", 1, json!({"is_enabled": false})).status(200).await;
    roll_back(&server, "db", json!({"version": 1})).status(200).await;
    let read = server.admin("GET", &format!("{SECRETS}/db")).status(200).await;
    assert_eq!(
        (&read.body["value"], &read.body["encoding"]),
        (&json!("AP8="), &json!("base64"))
    );
    patch(&server, "db", 2, json!({"expires_at": time(-1_000)}))
        .status(200)
        .await;
    let revived = roll_back(&server, "db", json!({"version": 2})).status(200).await;
    assert!(revived.body["expires_at"].is_null());
    assert_eq!(value(&server, "db").await, (json!("two"), json!(4)));
}

#[tokio::test]
async fn deleted_versions_are_neither_changed_nor_rolled_back_to() {
    let server = with_values(&["one", "two"]).await;
    server.admin("DELETE", &format!("{SECRETS}/db")).status(204).await;
    roll_back(&server, "db", json!({"version": 1}))
        .problem(404, "not_found")
        .await;
    server.put("shop", "local", "db", "three").await;
    for number in [1, 2] {
        roll_back(&server, "db", json!({"version": number}))
            .problem(404, "not_found")
            .await;
        patch(&server, "db", number, json!({"is_enabled": false}))
            .problem(404, "not_found")
            .await;
    }
    assert_eq!(
        roll_back(&server, "db", json!({"version": 3})).status(200).await.body["version"],
        4
    );
}

#[tokio::test]
async fn a_waiting_bundle_hears_of_a_versions_window_and_state() {
    let server = with_values(&["one", "two"]).await;
    let mut etag = server.admin("GET", BUNDLE).status(200).await.header("etag").to_owned();
    for (body, version) in [
        (json!({"expires_at": time(60_000)}), 2),
        (json!({"expires_at": time(90_000)}), 2),
        (json!({"not_before": time(-1_000)}), 2),
        (json!({"is_enabled": false}), 1),
        (json!({"is_enabled": true}), 2),
    ] {
        let poll = server
            .admin("GET", &format!("{BUNDLE}?wait=60"))
            .header("if-none-match", &etag);
        let waiting = tokio::spawn(poll.send());
        while server.store.stats().watchers == 0 {
            tokio::task::yield_now().await;
        }
        patch(&server, "db", 2, body).status(200).await;
        let woken = waiting.await.unwrap();
        assert_eq!(
            (woken.status, &woken.body["secrets"]["db"]["version"]),
            (200, &json!(version))
        );
        assert_ne!(woken.header("etag"), etag);
        woken.header("etag").clone_into(&mut etag);
        while server.store.stats().watchers > 0 {
            tokio::task::yield_now().await;
        }
    }
    let same = server.admin("GET", BUNDLE).header("if-none-match", &etag).send().await;
    assert_eq!(same.status, 304, "time alone changes nothing here");
}

#[tokio::test]
async fn state_and_rollback_need_the_right_to_write() {
    let server = with_values(&["one"]).await;
    let rules = [["shop", "local", "*", "read"], ["shop", "local", "mine", "write"]];
    let account = server.account("ci", &rules).await;
    server.put("shop", "local", "mine", "one").await;
    let change = |key: &str| {
        let path = format!("{SECRETS}/{key}/versions/1");
        server
            .call("PATCH", &path)
            .key(&account.key)
            .json(json!({"is_enabled": true}))
    };
    let back = |key: &str| {
        let path = format!("{SECRETS}/{key}/rollback");
        server.call("POST", &path).key(&account.key).json(json!({"version": 1}))
    };
    change("db").problem(403, "forbidden").await;
    back("db").problem(403, "forbidden").await;
    let refused = &server.audit().await[0];
    assert_eq!(
        (refused.action.as_str(), refused.outcome.as_str()),
        ("secret.set", "denied")
    );
    change("mine").status(200).await;
    assert_eq!(back("mine").status(200).await.body["created_by"], "ci");
}

#[tokio::test]
async fn rollbacks_and_sets_at_once_number_their_versions_without_a_gap() {
    let server = with_values(&["one"]).await;
    let calls = (0..32).map(|n| {
        let server = &server;
        async move {
            if n % 2 == 0 {
                roll_back(server, "db", json!({"version": 1})).status(200).await.body["version"].clone()
            } else {
                server.put("shop", "local", "db", &format!("value {n}")).await.body["version"].clone()
            }
        }
    });
    let mut numbers: Vec<_> = futures::future::join_all(calls)
        .await
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (2..=33).collect::<Vec<_>>());
    assert!(server.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_secret_that_32_callers_make_at_once_has_versions_1_to_32() {
    let server = with_values(&[]).await;
    let values: Vec<_> = (0..32).map(|n| format!("value {n}")).collect();
    let replies = futures::future::join_all(values.iter().map(|value| server.put("shop", "local", "db", value))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    let mut numbers: Vec<_> = replies
        .iter()
        .map(|reply| reply.body["version"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
    let versions = server.admin("GET", &format!("{SECRETS}/db/versions")).status(200).await;
    let listed: Vec<_> = versions
        .list()
        .iter()
        .map(|it| it["version"].as_u64().unwrap())
        .collect();
    assert_eq!(listed, (1..=32).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_rollback_seals_anew_for_its_own_place() {
    let server = with_values(&["one", "two"]).await;
    roll_back(&server, "db", json!({"version": 1})).status(200).await;
    let file = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    let swap = "UPDATE versions SET sealed = (SELECT sealed FROM versions WHERE number = 1) WHERE number = 3";
    assert_eq!(file.execute(swap, []).unwrap(), 1);
    server
        .admin("GET", &format!("{SECRETS}/db"))
        .problem(500, "internal")
        .await;
}
