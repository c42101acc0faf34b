use serde_json::json;

use crate::support::{Server, time};

#[tokio::test]
async fn an_application_reads_the_active_version_of_its_secrets() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let read = || app.consumer("/secrets/db?environment=local");
    let absent = read().problem(404, "not_found").await; // 40
    app.set("db", "local", "s3cr3tP@ss!", json!({})).await;
    let value = read().status(200).await; // 39, 51
    assert_eq!(
        (&value.body["name"], &value.body["value"]),
        (&json!("db"), &json!("s3cr3tP@ss!"))
    );
    let properties = &value.body["properties"];
    assert_eq!(
        (&properties["enabled"], &properties["version"]),
        (&json!(true), &json!(1))
    );
    assert!(properties["updatedOn"].is_null() && properties["createdOn"].is_string());
    assert_eq!(properties["encoding"], "utf8");
    app.set("db", "local", "v2", json!({})).await;
    let value = read().status(200).await; // 45
    assert_eq!(
        (&value.body["value"], &value.body["properties"]["version"]),
        (&json!("v2"), &json!(2))
    );

    // What is not there is one and the same answer, whatever is missing.
    let texts = [
        app.consumer("/secrets/does-not-exist?environment=local")
            .problem(404, "not_found")
            .await
            .text, // 41
        app.consumer("/secrets/db?environment=no-env")
            .problem(404, "not_found")
            .await
            .text, // 42
    ];
    assert!(texts.iter().all(|text| *text == absent.text));
    app.consumer("/secrets/db").invalid("environment").await;
}

#[tokio::test]
async fn a_version_outside_its_window_or_disabled_is_not_read() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let day = 24 * 3_600 * 1_000;
    for (name, more) in [
        ("disabled", json!({"isEnabled": false})),     // 43
        ("expired", json!({"expiresAt": time(-day)})), // 44
        ("future", json!({"notBefore": time(day)})),   // 69
    ] {
        app.secret(name).await;
        app.set(name, "local", "v", more.clone()).await;
        let path = format!("/secrets/{name}?environment=local");
        app.consumer(&path).problem(404, "not_found").await;
        // An older active version is read instead of a newer inactive one.
        app.set(name, "local", "active", json!({})).await;
        app.set(name, "local", "v", more).await;
        let read = app.consumer(&path).status(200).await;
        assert_eq!(
            (&read.body["value"], &read.body["properties"]["version"]),
            (&json!("active"), &json!(2))
        );
    }
}

#[tokio::test]
async fn an_application_reads_its_configurations() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let list = || app.consumer("/configurations?environment=local");
    assert_eq!(list().status(200).await.body, json!({"items": []})); // 47
    for (key, value) in [("ConnectionString", "Server=localhost"), ("A/b", "true")] {
        let entry = json!({"environmentSlug": "local", "key": key, "value": value});
        app.admin("POST", "/configurations").json(entry).status(201).await;
    }
    assert_eq!(
        list().status(200).await.body["items"], // 46, 52
        json!([
            {"key": "A/b", "value": "true", "label": "local"},
            {"key": "ConnectionString", "value": "Server=localhost", "label": "local"},
        ])
    );
    let one = app
        .consumer("/configurations/ConnectionString?environment=local")
        .status(200)
        .await; // 48
    assert_eq!(
        one.body,
        json!({"key": "ConnectionString", "value": "Server=localhost", "label": "local"})
    );
    app.consumer("/configurations/A%2Fb?environment=local")
        .status(200)
        .await;
    app.consumer("/configurations/no-such-key?environment=local")
        .problem(404, "not_found")
        .await; // 49
    app.consumer("/configurations?environment=no-env")
        .problem(404, "not_found")
        .await; // 50
}

#[tokio::test]
async fn configurations_of_any_number_are_sent_in_pieces_and_those_of_no_other_environment() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    for name in ["Aaa", "Zzz"] {
        let body = json!({"name": name});
        app.admin("POST", "/environments").json(body).status(201).await;
        let entry = json!({"environmentSlug": name.to_lowercase(), "key": "other", "value": "v"});
        app.admin("POST", "/configurations").json(entry).status(201).await;
    }
    let read = || app.consumer("/configurations?environment=local");
    assert_eq!(read().status(200).await.text, r#"{"items":[]}"#);
    // Each of the size of a body, so that a few of them are more than one piece.
    let value = "x".repeat(1_000_000);
    for n in 0..9 {
        let entry = json!({"environmentSlug": "local", "key": format!("k{n}"), "value": value});
        app.admin("POST", "/configurations").json(entry).status(201).await;
    }
    let all = read().status(200).await;
    assert!(all.headers.get("content-length").is_none(), "it is a stream");
    let items = all.body["items"].as_array().unwrap();
    let keys: Vec<_> = items.iter().map(|item| item["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"]);
    assert!(
        items
            .iter()
            .all(|item| item["value"] == value && item["label"] == "local")
    );
}

#[tokio::test]
async fn an_application_sees_nothing_of_another_one() {
    let server = Server::start().await;
    let (shop, bank) = (server.application("shop").await, server.application("bank").await);
    bank.secret("vault").await;
    bank.set("vault", "local", "gold", json!({})).await;
    bank.consumer("/secrets/vault?environment=local").status(200).await;
    shop.consumer("/secrets/vault?environment=local")
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn bytes_that_are_no_text_travel_as_base64() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("cert").await;
    for (sent, encoding, want, wanted_encoding) in [
        ("/w==", "base64", "/w==", "base64"),
        ("aGVsbG8=", "base64", "hello", "utf8"),
        ("aGVsbG8=", "utf8", "aGVsbG8=", "utf8"),
    ] {
        app.set("cert", "local", sent, json!({"encoding": encoding})).await;
        let read = app.consumer("/secrets/cert?environment=local").status(200).await;
        assert_eq!(
            (&read.body["value"], &read.body["properties"]["encoding"]),
            (&json!(want), &json!(wanted_encoding))
        );
    }
}

#[tokio::test]
async fn every_read_of_a_value_is_on_record() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "v", json!({})).await;
    app.consumer("/secrets/db?environment=local").status(200).await;
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.outcome.as_str()),
        ("secret.read", "success")
    );
    assert_eq!(
        (entry.actor_type.as_str(), entry.actor_name.as_str()),
        ("application", "shop")
    );
    assert_eq!(
        (entry.resource_name.as_deref(), entry.environment.as_deref()),
        (Some("db"), Some("local"))
    );
    assert_eq!(server.metadata().await["version"], 1);
    assert!(entry.ip.is_some() && entry.request_id.is_some());
}
