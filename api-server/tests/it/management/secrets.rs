use serde_json::json;

use crate::support::{M, Server, time};

#[tokio::test]
async fn a_secret_is_a_slot_until_it_has_values() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    assert_eq!(app.admin("GET", "/secrets").status(200).await.body, json!([])); // 23
    let body = json!({"name": "database-password", "description": "Main DB password"});
    let made = app.admin("POST", "/secrets").json(body).status(201).await; // 24
    assert_eq!(made.text_at("name"), "database-password");
    assert_eq!(
        made.body["requiredEnvironments"],
        json!([{"slug": "local", "name": "Local", "valueProvided": false}])
    );
    let again = json!({"name": "database-password"});
    app.admin("POST", "/secrets").json(again).problem(409, "conflict").await; // 25
    app.set("database-password", "local", "v", json!({})).await;
    let read = server.admin("GET", made.header("location")).status(200).await; // 26
    assert_eq!(read.text_at("name"), "database-password");
    assert_eq!(read.body["requiredEnvironments"][0]["valueProvided"], true);
    assert_eq!(app.admin("GET", "/secrets").status(200).await.list().len(), 1);

    app.admin("DELETE", "/secrets/database-password").status(204).await; // 30
    app.admin("GET", "/secrets/database-password")
        .problem(404, "not_found")
        .await;
    app.admin("GET", "/secrets/no-such-secret")
        .problem(404, "not_found")
        .await; // 31
}

#[tokio::test]
async fn a_secret_may_have_any_name_that_is_not_blank() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let (longest, in_bytes) = ("𝕊".repeat(200), "é/".repeat(100));
    for name in [
        "db/password",
        "Ünï code %41?#",
        "a b",
        "...",
        "🔑👩‍💻",
        // Marks of direction are text like any other.
        "\u{200f}مفتاح\u{200e}",
        "e\u{301}",
        &longest,
        &in_bytes,
    ] {
        let made = app.secret(name).await;
        assert_eq!(
            server
                .admin("GET", made.header("location"))
                .status(200)
                .await
                .text_at("name"),
            name
        );
    }
    let create = |name: &str| app.admin("POST", "/secrets").json(json!({"name": name}));
    create("").invalid("name").await; // 59
    create("   ").invalid("name").await;
    create(&"a".repeat(201)).invalid("name").await;
    create(&"𝕊".repeat(201)).invalid("name").await;
    // One letter and its mark are another name than the letter with it.
    create("\u{e9}").status(201).await;
    create("a\u{85}b").invalid("name").await;
    create("a\u{0}b").invalid("name").await;
}

#[tokio::test]
async fn every_value_that_is_set_is_a_version() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    assert!(app.set("db", "local", "one", json!({})).await.text.is_empty());
    let versions = app.admin("GET", "/secrets/db/versions/local").status(200).await; // 28
    assert_eq!((versions.list().len(), &versions.body[0]["version"]), (1, &json!(1)));
    assert!(versions.body[0].get("value").is_none() && !versions.text.contains("one"));
    app.set("db", "local", "two", json!({"isEnabled": false})).await;
    let versions = app.admin("GET", "/secrets/db/versions/local").status(200).await; // 29
    assert_eq!(versions.list().len(), 2);
    assert_eq!(
        (&versions.body[0]["version"], &versions.body[0]["isEnabled"]),
        (&json!(2), &json!(false))
    );

    // One transaction; one environment twice is two versions; none at all is fine.
    let item = |env: &str| json!({"environmentSlug": env, "value": "v"});
    let set = |items| app.admin("POST", "/secrets/db/values").json(items);
    set(json!([item("local"), item("local")])).status(200).await;
    set(json!([])).status(200).await;
    set(json!([item("local"), item("no-such-env")]))
        .problem(404, "not_found")
        .await; // 27
    assert_eq!(
        app.admin("GET", "/secrets/db/versions/local")
            .status(200)
            .await
            .list()
            .len(),
        4
    );
    app.admin("POST", "/secrets/nothing/values")
        .json(json!([item("local")]))
        .problem(404, "not_found")
        .await;
    app.admin("POST", "/secrets/nothing/values")
        .json(json!([]))
        .problem(404, "not_found")
        .await;
    app.admin("GET", "/secrets/db/versions/no-env")
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn values_follow_their_rules() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let set = |item| app.admin("POST", "/secrets/db/values").json(json!([item]));
    set(json!({"environmentSlug": "", "value": "v"}))
        .invalid("[0].environmentSlug")
        .await; // 60
    set(json!({"environmentSlug": "local", "value": ""}))
        .invalid("[0].value")
        .await; // 61
    let (sooner, later) = (time(1_000), time(2_000));
    let reversed = json!({"environmentSlug": "local", "value": "v", "expiresAt": sooner, "notBefore": later});
    set(reversed).invalid("[0].expiresAt").await; // 62
    let equal = json!({"environmentSlug": "local", "value": "v", "expiresAt": later, "notBefore": later});
    set(equal).invalid("[0].expiresAt").await;
    for bad in [
        "2026-01-01T00:00:00",
        "2026-01-01",
        "10000-01-01T00:00:00Z",
        "0000-12-31T00:00:00Z",
    ] {
        let expires = json!({"environmentSlug": "local", "value": "v", "expiresAt": bad});
        set(expires).invalid("[0].expiresAt").await;
        let begins = json!({"environmentSlug": "local", "value": "v", "notBefore": bad});
        set(begins).invalid("[0].notBefore").await;
    }
    let offset = json!({"environmentSlug": "local", "value": "v", "expiresAt": "9999-12-31T23:59:59.9999999+00:00"});
    set(offset).status(200).await;
    let window = json!({"environmentSlug": "local", "value": "v", "expiresAt": later, "notBefore": sooner});
    set(window).status(200).await;
    set(json!({"environmentSlug": "local", "value": "v", "encoding": "hex"}))
        .invalid("[0].encoding")
        .await;
    app.admin("POST", "/secrets/db/values")
        .json(json!({"value": "v"}))
        .invalid("body")
        .await;
}

#[tokio::test]
async fn a_secret_made_again_begins_anew() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "old", json!({})).await;
    app.admin("DELETE", "/secrets/db").status(204).await;
    app.secret("db").await;
    app.consumer("/secrets/db?environment=local").status(404).await;
    app.set("db", "local", "new", json!({})).await;
    let read = app.consumer("/secrets/db?environment=local").status(200).await;
    assert_eq!(
        (&read.body["value"], &read.body["properties"]["version"]),
        (&json!("new"), &json!(1))
    );
    server
        .admin("GET", &format!("{M}/shop/secrets/db/versions/local"))
        .status(200)
        .await;
}
