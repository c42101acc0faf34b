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
