//! How failures are told apart, and which calls are tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sealpod_client::{AuditFilter, Client, Code, Error};
use sealpod_core::SecretText;
use sealpod_core::wire::login::VerifyCode;
use sealpod_core::wire::management::{CreateApplication, CreateEnvironment, UpdateEnvironment};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

/// Answers with these bytes, again and again, and then with an end.
async fn raw(head: &'static str, chunk: &'static str, chunks: usize) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..chunks {
                if stream.write_all(chunk.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (url, asked)
}

#[tokio::test]
async fn the_server_says_when_to_try_again() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(problem(429, "rate_limited").insert_header("retry-after", "1"))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .respond_with(ok(&json!([])))
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    let before = Instant::now();
    client.management().applications(None).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_deadline_is_one_for_all_tries() {
    // It would be tried again behind the deadline, so it is not.
    let server = answering(problem(503, "unavailable").insert_header("retry-after", "1")).await;
    let hurried = |url: &str, deadline| admin(url).request_deadline(deadline).build().unwrap();
    let client = hurried(&server.uri(), Duration::from_millis(900));
    let error = client.management().applications(None).await.unwrap_err();
    assert_eq!(error.kind(), Some(Code::Unavailable));
    assert_eq!(server.received_requests().await.unwrap().len(), 1);

    // What the first try took is not there for the second one.
    let server = MockServer::start().await;
    let slow = problem(503, "unavailable").set_delay(Duration::from_millis(300));
    Mock::given(method("GET"))
        .respond_with(slow)
        .up_to_n_times(1)
        .mount(&server)
        .await;
    let never = ok(&json!([])).set_delay(Duration::from_mins(1));
    Mock::given(method("GET")).respond_with(never).mount(&server).await;
    let (client, before) = (hurried(&server.uri(), Duration::from_millis(800)), Instant::now());
    let error = client.management().applications(None).await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { deadline } if deadline == Duration::from_millis(800)),
        "{error:?}"
    );
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_change_is_tried_again_only_under_a_key_that_makes_it_one() {
    let server = MockServer::start().await;
    let environment = json!({
        "id": uuid::Uuid::nil(), "slug": "prod", "name": "Prod", "createdAt": "2026-01-01T00:00:00Z",
    });
    for (status, code) in [(503, "unavailable"), (409, "idempotency_in_progress")] {
        Mock::given(method("POST"))
            .respond_with(problem(status, code))
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(201).set_body_json(&environment))
        .mount(&server)
        .await;
    Mock::given(method("PUT"))
        .respond_with(problem(503, "unavailable"))
        .expect(1)
        .mount(&server)
        .await;
    let key = uuid::Uuid::from_u128(7);
    let client = admin(&server.uri()).build().unwrap().idempotent(key);
    let create = CreateEnvironment {
        name: "Prod".to_owned(),
        slug: None,
        labels: std::collections::BTreeMap::new(),
    };
    client.management().create_environment("shop", &create).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.headers["idempotency-key"], key.to_string());
        assert_eq!(request.body, requests[0].body);
    }
    let update = UpdateEnvironment {
        name: "Live".to_owned(),
        labels: None,
    };
    client
        .management()
        .update_environment("shop", "prod", &update)
        .await
        .unwrap_err();
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[3].headers.contains_key("idempotency-key"), "it is for POST");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    let (url, asked) = raw(head, "[", 1).await;
    let client = admin(&url).build().unwrap();
    let error = client.management().applications(None).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_its_end() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let (url, asked) = raw(head, "a\r\n[[[[[[[[[[\r\n", usize::MAX).await;
    let client = admin(&url).max_answer_bytes(100_000).build().unwrap();
    let error = client.management().applications(None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 100_000 }), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn only_what_says_that_it_is_json_is_read_as_json() {
    let page = |status, kind: &str| ResponseTemplate::new(status).set_body_raw("[]", kind);
    for (answer, good) in [
        (page(200, "application/json"), true),
        (page(200, "Application/JSON; charset=utf-8"), true),
        (page(200, "text/html"), false),
        (page(200, "application/jsonp"), false),
        (ResponseTemplate::new(200), false),
    ] {
        let server = answering(answer).await;
        let client = admin(&server.uri()).build().unwrap();
        let list = client.management().applications(None).await;
        assert_eq!(list.is_ok(), good, "{list:?}");
        assert!(
            matches!(list, Ok(_) | Err(Error::BadAnswer { status: 200, .. })),
            "{list:?}"
        );
    }
    // A page of a proxy that happens to look like ours.
    let text = json!({"status": 404, "code": "not_found", "detail": "no such route"}).to_string();
    let server = answering(ResponseTemplate::new(404).set_body_raw(text, "application/json")).await;
    let client = admin(&server.uri()).build().unwrap();
    let error = client.management().application("shop").await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { status: 404, .. }), "{error:?}");
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    const NAME: &str = "failures::proxies_of_the_environment_are_not_used";
    if std::env::var_os("ALL_PROXY").is_none() {
        // A process of its own, because an environment is one for all tests.
        let nowhere = "http://127.0.0.1:1";
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, nowhere)))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && shown.contains("1 passed"), "{shown}");
        return;
    }
    let server = answering(ok(&json!([]))).await;
    admin(&server.uri())
        .build()
        .unwrap()
        .management()
        .applications(None)
        .await
        .unwrap();
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

/// A line of an export.
fn entry(seq: u64) -> String {
    json!({
        "id": uuid::Uuid::nil(), "seq": seq, "action": "secret.read", "actor_type": "admin_key", "actor_id": null,
        "actor_name": "a", "resource_type": "secret", "resource_id": null, "resource_name": null, "project": null,
        "environment": null, "outcome": "success", "ip": null, "user_agent": null, "request_id": null,
        "metadata": {}, "created_at": "2026-01-01T00:00:00Z", "hash": "",
    })
    .to_string()
}

/// The numbers of all entries of an export.
async fn export(client: &Client) -> Result<Vec<u64>, Error> {
    let mut export = client.org("o").audit_export(&AuditFilter::default()).await?;
    let mut seen = vec![];
    while let Some(entry) = export.next_entry().await? {
        seen.push(entry.seq);
    }
    Ok(seen)
}

#[tokio::test]
async fn an_export_is_whole_or_an_error() {
    let lines = ResponseTemplate::new(200);
    let (two, kind) = (format!("{}\n{}\n", entry(2), entry(1)), "application/x-ndjson");
    for (answer, want) in [
        (lines.clone().set_body_raw(two.clone(), kind), Ok(vec![2, 1])),
        (lines.clone().set_body_raw("", kind), Ok(vec![])),
        (lines.clone().set_body_raw(two.trim_end(), kind), Err(200)),
        (lines.clone().set_body_raw("{\"canary\": 1}\n", kind), Err(200)),
        (lines.clone().set_body_raw(two, "application/json"), Err(200)),
        (lines.set_body_raw("<html>", "text/html"), Err(200)),
        (problem(403, "forbidden"), Err(403)),
    ] {
        let server = answering(answer).await;
        let client = admin(&server.uri()).build().unwrap();
        match (export(&client).await, want) {
            (Ok(seen), Ok(want)) => assert_eq!(seen, want),
            (Err(Error::BadAnswer { status, reason }), Err(want)) => {
                assert!(status == want && !reason.contains("canary"), "{status}: {reason}");
            }
            (Err(Error::Forbidden(_)), Err(403)) => {}
            (got, want) => panic!("{got:?} in place of {want:?}"),
        }
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests[0].headers["accept"], kind);
    }
}

#[tokio::test]
async fn an_export_that_breaks_off_or_has_no_lines_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
    let (url, asked) = raw(head, "", 0).await;
    let error = export(&admin(&url).build().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what has begun is not begun again");
    let (url, _) = raw(head, "a\r\n[[[[[[[[[[\r\n", usize::MAX).await;
    let error = export(&admin(&url).build().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn an_export_is_begun_again_while_the_server_cannot_and_waited_for_no_longer_than_allowed() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(problem(503, "unavailable"))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    let line = ResponseTemplate::new(200).set_body_raw(entry(1) + "\n", "application/x-ndjson");
    Mock::given(method("GET")).respond_with(line).mount(&server).await;
    let seen = export(&admin(&server.uri()).build().unwrap()).await.unwrap();
    assert_eq!(seen, [1]);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = admin(&url)
        .request_deadline(Duration::from_millis(100))
        .build()
        .unwrap();
    let error = export(&silent).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    // The head came, and nothing behind it.
    tokio::spawn(async move {
        let mut open = vec![];
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(head.as_bytes()).await;
            open.push(stream);
        }
    });
    let error = export(&silent).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("0.1 s"), "{error}");
}

#[tokio::test]
async fn signing_in_is_tried_once_whatever_the_client_is_told() {
    let server = answering(problem(503, "unavailable")).await;
    let client = crate::builder(&server.uri())
        .build()
        .unwrap()
        .idempotent(uuid::Uuid::nil());
    let verify = VerifyCode {
        email: "a@example.com".parse().unwrap(),
        code: SecretText::new("000000"),
    };
    client.verify_code(&verify).await.unwrap_err();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1, "a code is good for one try");
    assert!(!requests[0].headers.contains_key("idempotency-key"));
}
