//! What goes over the wire: methods, paths, headers, bodies.

use sealpod_core::SecretText;
use sealpod_core::wire::management::{CreateApplication, SetValue};
use sealpod_core::wire::org::PutSecret;
use serde_json::json;
use wiremock::matchers::{body_json, header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::{ACCOUNT_KEY, ADMIN_KEY, account, admin, ok, problem};

const ID: &str = "3fa85f64-5717-4562-b3fc-2c963f66afa6";

#[tokio::test]
async fn an_admin_call_carries_its_bearer_key_and_on_whose_behalf_it_is() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/api/management/applications"))
        .and(header("authorization", format!("Bearer {ADMIN_KEY}")))
        .and(header("x-sealpod-on-behalf", "Application/team-a/shop"))
        .and(body_json(
            json!({"name": "Shop", "labels": {"sealpod.dev/owner": "c/n/u/shop"}}),
        ))
        .respond_with(ResponseTemplate::new(201).set_body_json(json!({
            "id": ID, "name": "Shop", "slug": "shop", "description": null, "plainApiKey": "grm_x",
            "createdAt": "2026-01-01T00:00:00Z", "aFieldOfTheFuture": 1,
        })))
        .expect(1)
        .mount(&server)
        .await;
    let client = admin(&server.uri())
        .build()
        .unwrap()
        .on_behalf("Application", "team-a", "shop");
    let body = CreateApplication {
        name: "Shop".to_owned(),
        description: None,
        slug: None,
        labels: [("sealpod.dev/owner".to_owned(), "c/n/u/shop".to_owned())].into(),
    };
    let made = client.management().create_application(&body).await.unwrap();
    assert_eq!(made.slug, "shop");
    assert_eq!(made.plain_api_key.expose(), "grm_x");
}

#[tokio::test]
async fn lists_are_asked_by_label_and_by_name() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/api/management/applications"))
        .and(query_param("label", "sealpod.dev/owner=c/n/u/a b"))
        .respond_with(ok(&json!([])))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("GET"))
        .and(path("/api/orgs/default/service-accounts"))
        .and(query_param("name", "k8s/c/n/b"))
        .respond_with(ok(&json!([])))
        .expect(1)
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    let label = Some(("sealpod.dev/owner", "c/n/u/a b"));
    assert!(client.management().applications(label).await.unwrap().is_empty());
    assert!(
        client
            .org("default")
            .service_accounts(Some("k8s/c/n/b"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_secret_name_with_slashes_stays_one_segment() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path(
            "/api/management/applications/shop/secrets/db%2Fpass%20word/values",
        ))
        .and(body_json(json!([
            {"environmentSlug": "prod", "value": "v", "encoding": "utf8", "isEnabled": true}
        ])))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    let value = SetValue {
        environment_slug: "prod".to_owned(),
        value: SecretText::new("v"),
        encoding: sealpod_core::Encoding::Utf8,
        is_enabled: true,
        expires_at: None,
        not_before: None,
    };
    client
        .management()
        .set_values("shop", "db/pass word", &[value])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_service_account_calls_with_its_own_header_and_no_bearer() {
    let server = MockServer::start().await;
    Mock::given(method("PUT"))
        .and(path("/api/orgs/default/projects/shop/envs/prod/secrets/key"))
        .and(header("x-api-key", ACCOUNT_KEY))
        .respond_with(ok(&json!({
            "id": ID, "key": "key", "version": 2,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        })))
        .expect(1)
        .mount(&server)
        .await;
    let body = PutSecret {
        value: SecretText::new("v"),
        description: None,
        encoding: sealpod_core::Encoding::Utf8,
        expires_at: None,
        not_before: None,
    };
    let client = account(&server.uri());
    let stored = client
        .org("default")
        .put_secret("shop", "prod", "key", &body)
        .await
        .unwrap();
    assert_eq!(stored.version, 2);
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_delete_answers_nothing_or_that_it_was_gone() {
    let server = MockServer::start().await;
    Mock::given(path("/api/management/applications/shop"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    Mock::given(path("/api/management/applications/gone"))
        .respond_with(problem(404, "not_found"))
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    client.management().delete_application("shop").await.unwrap();
    let error = client.management().delete_application("gone").await.unwrap_err();
    assert!(error.is_not_found() && !error.is_transient(), "{error}");
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .respond_with(ok(&json!([])))
        .mount(&server)
        .await;
    // A server that counts connections, in front of the one that answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = *server.address();
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut incoming, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut outgoing = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut incoming, &mut outgoing).await });
        }
    });
    let client = admin(&url).build().unwrap();
    for _ in 0..10 {
        client.management().applications(None).await.unwrap();
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}
