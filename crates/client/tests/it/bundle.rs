//! The bundle call.

use std::time::Duration;

use sealpod_client::{Error, Fetched};
use sealpod_core::wire::bundle::BundleRequest;
use serde_json::json;
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::{account, ok, problem};

const PATH: &str = "/api/orgs/default/projects/shop/envs/prod/bundle";

fn asking(keys: impl IntoIterator<Item = String>) -> BundleRequest {
    BundleRequest {
        key: keys.into_iter().collect(),
        ..BundleRequest::default()
    }
}

#[tokio::test]
async fn a_bundle_is_read_and_then_not_modified() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path(PATH))
        .and(query_param("wait", "5"))
        .and(header("if-none-match", "\"e1\""))
        .respond_with(ResponseTemplate::new(304))
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path(PATH))
        .and(query_param("key", "a"))
        .respond_with(ok(&json!({
            "etag": "e1", "next_change_at": "2026-01-01T00:00:00Z",
            "secrets": {"a": {"value": "v", "version": 3, "encoding": "utf8"}},
            "configurations": {}, "missing": ["b"], "denied": ["c"],
        })))
        .mount(&server)
        .await;
    let client = account(&server.uri());
    let org = client.org("default");
    let mut request = asking(["a".to_owned()]);
    let Fetched::Bundle(bundle) = org.bundle("shop", "prod", &request, None).await.unwrap() else {
        panic!("a bundle was expected")
    };
    assert_eq!(
        (bundle.secrets["a"].version, &bundle.missing, &bundle.denied),
        (3, &vec!["b".to_owned()], &vec!["c".to_owned()])
    );
    request.wait = 5;
    let fetched = org.bundle("shop", "prod", &request, Some("e1")).await.unwrap();
    assert_eq!(fetched, Fetched::NotModified);
}

#[tokio::test]
async fn a_long_query_travels_in_a_body() {
    let server = MockServer::start().await;
    let request = asking((0..400).map(|n| format!("a-rather-long-key-{n}")));
    Mock::given(method("POST"))
        .and(path(PATH))
        .and(body_json(serde_json::to_value(&request).unwrap()))
        .respond_with(ok(&json!({"etag": "e1", "next_change_at": null, "secrets": {}})))
        .expect(1)
        .mount(&server)
        .await;
    let client = account(&server.uri());
    client
        .org("default")
        .bundle("shop", "prod", &request, None)
        .await
        .unwrap();
    let sent = &server.received_requests().await.unwrap()[0];
    assert!(sent.url.query().is_none());
}

#[tokio::test]
async fn a_failed_bundle_is_left_to_its_caller_to_try_again() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(problem(503, "unavailable").insert_header("retry-after", "1"))
        .expect(1)
        .mount(&server)
        .await;
    let client = account(&server.uri());
    let error = client
        .org("default")
        .bundle("shop", "prod", &asking([]), None)
        .await
        .unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn hostile_answers_are_refused() {
    let etag = |etag: &str| ok(&json!({"etag": etag, "next_change_at": null, "secrets": {}}));
    for answer in [
        etag(""),
        etag("a\"b"),
        etag("a\r\nb"),
        etag(&"x".repeat(300)),
        ResponseTemplate::new(304),
    ] {
        let server = MockServer::start().await;
        Mock::given(method("GET")).respond_with(answer).mount(&server).await;
        let client = account(&server.uri());
        let error = client
            .org("default")
            .bundle("shop", "prod", &asking([]), None)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::BadAnswer { .. }), "{error:?}");
    }
}
