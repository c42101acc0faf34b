use serde_json::json;

use crate::support::{C, M, O, Server, logs};

/// Values, keys and tokens are in the answers that are meant to carry them, and nowhere else.
#[tokio::test]
async fn nothing_secret_is_logged_or_stored_in_clear() {
    const CANARY: &str = "canary-6a1f0c7e-value";
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", CANARY, json!({})).await;
    let config = json!({"environmentSlug": "local", "key": "K", "value": CANARY});
    app.admin("POST", "/configurations").json(config).status(201).await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let bundle = format!("{O}/projects/shop/envs/local/bundle");
    assert!(
        server
            .call("GET", &bundle)
            .key(&account.key)
            .status(200)
            .await
            .text
            .contains(CANARY)
    );
    assert!(
        app.consumer("/secrets/db?environment=local")
            .status(200)
            .await
            .text
            .contains(CANARY)
    );
    // Requests that fail, with the canary everywhere that a message could quote it.
    let values = format!("{M}/shop/secrets/db/values");
    server
        .admin("POST", &values)
        .body("application/json", format!("[{{\"value\": {CANARY}}}]"))
        .status(400)
        .await;
    server
        .admin("POST", &values)
        .json(json!([{"value": CANARY, "environmentSlug": 1, "expiresAt": CANARY}]))
        .status(400)
        .await;
    server
        .admin("POST", &values)
        .json(json!([{"value": CANARY, "environmentSlug": "nowhere"}]))
        .status(404)
        .await;
    server
        .call("GET", &format!("{C}/secrets/db?environment=local"))
        .key(CANARY)
        .status(401)
        .await;
    server.call("GET", M).bearer(CANARY).status(401).await;

    let logged = logs();
    assert!(logged.contains("answered"), "the log was captured");
    for secret in [CANARY, &app.key, &account.key, crate::support::ADMIN] {
        assert!(!logged.contains(secret));
    }
    let audited = format!("{:?}", server.audit().await);
    assert!(audited.contains("service_account"));
    for secret in [CANARY, &app.key, &account.key, crate::support::ADMIN] {
        assert!(!audited.contains(secret));
    }
    for entry in std::fs::read_dir(server.dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in [CANARY, &app.key, &account.key, crate::support::ADMIN] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
    }
}

/// The other half of "a read is on record": one that cannot be recorded is not answered.
#[tokio::test]
async fn no_value_is_given_out_whose_reading_cannot_be_recorded() {
    const CANARY: &str = "canary-of-an-unrecorded-read";
    let server = Server::start().await;
    let app = server.application("shop").await;
    server.put("shop", "local", "db", CANARY).await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let environment = format!("{O}/projects/shop/envs/local");
    let (bundle, secrets) = (format!("{environment}/bundle"), format!("{environment}/secrets"));
    let reads = || {
        [
            app.consumer("/secrets/db?environment=local"),
            server.admin("GET", &format!("{secrets}/db")),
            server.call("GET", &bundle).key(&account.key),
            server.call("GET", &secrets).key(&account.key),
        ]
    };
    for read in reads() {
        read.status(200).await;
    }
    let other = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit_entries BEGIN SELECT raise(ABORT, 'refused by the test'); END",
        )
        .unwrap();
    for read in reads() {
        let reply = read.problem(503, "unavailable").await;
        assert!(!reply.text.contains(CANARY) && !reply.text.contains("refused by the test"));
    }
    // Nor is a change made that cannot be recorded.
    let change = server.put("shop", "local", "db", "other").await;
    assert_eq!(change.status, 500);
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let read = server.admin("GET", &format!("{secrets}/db")).status(200).await;
    assert_eq!(
        (&read.body["value"], &read.body["version"]),
        (&json!(CANARY), &json!(1))
    );
}
