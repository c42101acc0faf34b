use serde_json::json;

use crate::support::{M, O, Server};

#[tokio::test]
async fn a_body_is_json_or_415() {
    let server = Server::start().await;
    server
        .admin("POST", M)
        .body("text/plain", r#"{"name":"a"}"#)
        .problem(415, "unsupported_media_type")
        .await;
    server.admin("POST", M).problem(415, "unsupported_media_type").await;
    server
        .admin("POST", M)
        .body("application/json", "")
        .problem(400, "validation_failed")
        .await;
    server
        .admin("POST", M)
        .body("application/json; charset=utf-8", r#"{"name":"a"}"#)
        .status(201)
        .await;
}

#[tokio::test]
async fn a_malformed_body_is_told_by_its_place_and_never_quoted() {
    let server = Server::start().await;
    for body in [
        r#"{"name": canary}"#,
        r#"{"name": "canary"#,
        "\"canary\"",
        "canary",
        r#"{"name": {"canary": "canary"}}"#,
    ] {
        let reply = server
            .admin("POST", M)
            .body("application/json", body)
            .problem(400, "validation_failed")
            .await;
        assert!(!reply.text.contains("canary"), "{}", reply.text);
    }
}

#[tokio::test]
async fn unknown_and_wrong_fields_are_all_named_at_once() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let body = json!([
        {"environmentSlug": "local", "value": "canary", "expires": 1},
        {"environmentSlug": "", "value": "", "isEnabled": "canary"},
        {"environmentSlug": "local", "value": "canary", "expiresAt": "canary", "encoding": "base64"},
        {"environmentSlug": "local", "value": "canary", "expiresAt": "2026-01-01T00:00:00Z",
         "notBefore": "2026-01-01T00:00:00Z"},
        "canary",
    ]);
    let reply = app
        .admin("POST", "/secrets/db/values")
        .json(body)
        .problem(400, "validation_failed")
        .await;
    let errors = reply.body["errors"].as_object().unwrap();
    let names: Vec<&str> = errors.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "[0].expires",
            "[1].environmentSlug",
            "[1].isEnabled",
            "[1].value",
            "[2].expiresAt",
            "[2].value",
            "[3].expiresAt",
            "[4]",
        ]
    );
    assert!(!reply.text.contains("canary"), "{}", reply.text);
    assert!(
        app.admin("GET", "/secrets/db/versions/local")
            .status(200)
            .await
            .list()
            .is_empty(),
        "all or none"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let mebibyte = 1024 * 1024;
    let name = json!({"name": "a".repeat(mebibyte)});
    server
        .admin("POST", M)
        .json(name)
        .problem(413, "payload_too_large")
        .await;
    // Value endpoints take 8 MiB, though no value above 1 MiB.
    let item = |bytes: usize| json!([{"environmentSlug": "local", "value": "a".repeat(bytes)}]);
    app.admin("POST", "/secrets/db/values")
        .json(item(mebibyte))
        .status(200)
        .await;
    app.admin("POST", "/secrets/db/values")
        .json(item(mebibyte + 1))
        .invalid("[0].value")
        .await;
    app.admin("POST", "/secrets/db/values")
        .json(item(8 * mebibyte))
        .problem(413, "payload_too_large")
        .await;
    // Without a length in front, it is cut off on the way.
    let spaces = http_body_util::Full::new(axum::body::Bytes::from(vec![b' '; 9 * mebibyte]));
    let chunks = http_body_util::StreamBody::new(http_body_util::BodyStream::new(spaces));
    let path = "/secrets/db/values";
    let call = app
        .admin("POST", path)
        .body("application/json", reqwest::Body::wrap(chunks));
    call.problem(413, "payload_too_large").await;
}

#[tokio::test]
async fn a_wrong_method_is_405_with_those_that_are_right() {
    let server = Server::start().await;
    let reply = server.admin("PATCH", M).problem(405, "method_not_allowed").await;
    let allow: Vec<&str> = reply.header("allow").split(',').collect();
    assert!(allow.contains(&"GET") && allow.contains(&"POST"), "{allow:?}");
    server.call("POST", "/health").problem(405, "method_not_allowed").await;
}

#[tokio::test]
async fn unknown_query_parameters_are_named() {
    let server = Server::start().await;
    server
        .admin("GET", &format!("{M}?labels=a%3Db"))
        .invalid("labels")
        .await;
    server.admin("GET", &format!("{M}?label=a")).invalid("label").await;
    server
        .admin("GET", &format!("{O}/acl?subject=a"))
        .invalid("subject")
        .await;
}

#[tokio::test]
async fn answers_carry_the_request_id_and_are_not_stored() {
    let server = Server::start().await;
    let reply = server
        .admin("GET", M)
        .header("x-request-id", "abc-123")
        .status(200)
        .await;
    assert_eq!(reply.header("x-request-id"), "abc-123");
    assert_eq!(reply.header("cache-control"), "no-store");
    let reply = server
        .call("GET", M)
        .header("x-request-id", "not one")
        .status(401)
        .await;
    assert_ne!(reply.header("x-request-id"), "not one");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(
        !server
            .call("GET", "/nowhere")
            .status(404)
            .await
            .header("x-request-id")
            .is_empty()
    );
}

#[tokio::test]
async fn names_that_no_path_can_hold_are_simply_not_found() {
    let server = Server::start().await;
    server.admin("GET", &format!("{M}/%ff")).status(404).await;
    server.admin("GET", &format!("{O}/acl/not-a-uuid")).status(404).await;
    server.admin("GET", "/api/orgs/nowhere/acl").status(404).await;
}
