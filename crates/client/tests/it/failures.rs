//! How failures are told apart, and which calls are tried again.

use std::time::{Duration, Instant};

use sealpod_client::Error;
use sealpod_core::wire::management::CreateApplication;
use serde_json::json;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::{ADMIN_KEY, admin, ok, problem};

fn shop() -> CreateApplication {
    CreateApplication {
        name: "Shop".to_owned(),
        description: None,
        slug: None,
        labels: std::collections::BTreeMap::new(),
    }
}

async fn answering(response: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any())
        .respond_with(response)
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn each_refusal_has_a_variant_and_keeps_its_code() {
    for (status, code, want) in [
        (400, "validation_failed", "Rejected"),
        (401, "unauthorized", "Unauthorized"),
        (403, "forbidden", "Forbidden"),
        (404, "not_found", "NotFound"),
        (409, "already_created", "Conflict"),
        (412, "precondition_failed", "Conflict"),
        (413, "payload_too_large", "Rejected"),
    ] {
        let server = answering(problem(status, code)).await;
        let error = admin(&server.uri())
            .build()
            .unwrap()
            .management()
            .create_application(&shop())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert!(format!("{error:?}").starts_with(want), "{status}: {error:?}");
        assert!(!error.is_transient());
        assert_eq!(error.problem().unwrap().status, status);
    }
}

#[tokio::test]
async fn a_server_that_cannot_answer_now_says_when() {
    for status in [429, 500, 502, 503, 504, 507] {
        let server = answering(problem(status, "later").insert_header("retry-after", "7")).await;
        let error = admin(&server.uri())
            .build()
            .unwrap()
            .management()
            .create_application(&shop())
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { .. }) && error.is_transient(),
            "{error:?}"
        );
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(error.code(), Some("later"));
    }
}

#[tokio::test]
async fn a_read_is_tried_again_and_a_change_is_not() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(problem(503, "unavailable"))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .respond_with(ok(&json!([])))
        .mount(&server)
        .await;
    Mock::given(method("POST"))
        .respond_with(problem(503, "unavailable"))
        .expect(1)
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    assert!(client.management().applications(None).await.unwrap().is_empty());
    client.management().create_application(&shop()).await.unwrap_err();
}

#[tokio::test]
async fn reads_give_up_after_a_few_tries_and_at_once_where_the_server_asks_for_long() {
    let server = answering(problem(503, "unavailable")).await;
    let client = admin(&server.uri()).build().unwrap();
    client.management().applications(None).await.unwrap_err();
    assert_eq!(server.received_requests().await.unwrap().len(), 3);

    let server = answering(problem(429, "rate_limited").insert_header("retry-after", "60")).await;
    let client = admin(&server.uri()).build().unwrap();
    let before = Instant::now();
    client.management().applications(None).await.unwrap_err();
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
    assert!(before.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_silence_is_a_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = admin(&url)
        .request_deadline(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = client.management().create_application(&shop()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    drop(listener);
    let error = client.management().create_application(&shop()).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_transient(),
        "{error:?}"
    );
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = answering(ResponseTemplate::new(302).insert_header("location", "http://127.0.0.1:1/elsewhere")).await;
    let client = admin(&server.uri()).build().unwrap();
    let error = client.management().create_application(&shop()).await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { status: 302, .. }), "{error:?}");
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read() {
    let server = answering(ok(&json!([{"padding": "x".repeat(10_000)}]))).await;
    let client = admin(&server.uri()).max_answer_bytes(1_000).build().unwrap();
    let error = client.management().applications(None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 1_000 }), "{error:?}");
}

#[tokio::test]
async fn no_error_quotes_the_answer_or_the_key() {
    let body = r#"{"key":"k","value":"canary","version":"canary"}"#;
    let server = answering(ResponseTemplate::new(200).set_body_string(body)).await;
    let client = admin(&server.uri()).build().unwrap();
    let error = client.org("o").secret("p", "e", "k").await.unwrap_err();
    let shown = format!("{error} {error:?} {client:?}");
    assert!(matches!(error, Error::BadAnswer { status: 200, .. }), "{shown}");
    assert!(!shown.contains("canary") && !shown.contains(ADMIN_KEY), "{shown}");
}
