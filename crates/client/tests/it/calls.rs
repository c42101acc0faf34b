//! What goes over the wire: methods, paths, headers, bodies.

use sealpod_client::{Credential, Error};
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

#[tokio::test]
async fn an_application_reads_with_its_own_key() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/api/consumer/secrets/db%2Fpassword"))
        .and(query_param("environment", "prod"))
        .and(header("x-api-key", "grm_x"))
        .respond_with(ok(&json!({
            "name": "db/password", "value": "canary",
            "properties": {
                "enabled": true, "expiresOn": null, "notBefore": null, "version": 3, "encoding": "utf8",
                "createdOn": "2026-01-01T00:00:00Z", "updatedOn": null,
            },
        })))
        .expect(1)
        .mount(&server)
        .await;
    let credential = Credential::Application(SecretText::new("grm_x\n"));
    let client = crate::builder(&server.uri()).credential(credential).build().unwrap();
    let secret = client.consumer().secret("db/password", "prod").await.unwrap();
    assert_eq!(secret.value.expose(), "canary");
    assert!(!format!("{secret:?}").contains("canary"));
    let requests = server.received_requests().await.unwrap();
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn what_is_deleted_goes_to_the_trash_unless_the_client_is_a_purging_one() {
    let server = MockServer::start().await;
    Mock::given(method("DELETE"))
        .respond_with(ResponseTemplate::new(204))
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    for client in [client.clone(), client.purging()] {
        let (plane, org) = (client.management(), client.org("o"));
        plane.delete_application("a").await.unwrap();
        plane.delete_environment("a", "e").await.unwrap();
        plane.delete_secret("a", "s").await.unwrap();
        plane.delete_configuration("a", "e", "k").await.unwrap();
        org.delete_project("p").await.unwrap();
        org.delete_environment("p", "e").await.unwrap();
        org.delete_secret("p", "e", "k").await.unwrap();
    }
    // What has no trash takes no such word.
    let id = uuid::Uuid::nil();
    client.purging().org("o").revoke_acl_rule(id).await.unwrap();
    let requests = server.received_requests().await.unwrap();
    let queries: Vec<_> = requests.iter().map(|request| request.url.query()).collect();
    assert_eq!(queries[..7], [None; 7]);
    assert_eq!(queries[7..14], [Some("purge=true"); 7]);
    assert_eq!(queries[14], None);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let server = MockServer::start().await;
    let page = |slugs: &[&str]| {
        let items: Vec<_> = slugs
            .iter()
            .map(|slug| {
                json!({"id": ID, "name": slug, "slug": slug, "description": null,
                    "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"})
            })
            .collect();
        ok(&json!(items))
    };
    let list = "/api/management/applications";
    Mock::given(path(list))
        .and(query_param("after", "b"))
        .respond_with(page(&["c"]))
        .mount(&server)
        .await;
    Mock::given(path(list))
        .and(query_param("limit", "2"))
        .and(query_param("label", "team=a"))
        .respond_with(page(&["a", "b"]).insert_header(
            "link",
            "</api/management/applications?label=team%3Da&limit=2&after=b>; rel=\"next\"",
        ))
        .mount(&server)
        .await;
    let client = admin(&server.uri()).build().unwrap();
    let label = Some(("team", "a"));
    let mut pages = client.management().application_pages(label, 2).unwrap();
    assert_eq!(pages.next_page().await.unwrap().unwrap().len(), 2);
    assert_eq!(pages.next_page().await.unwrap().unwrap()[0].slug, "c");
    assert!(pages.next_page().await.unwrap().is_none());
    let all = client.management().application_pages(label, 2).unwrap();
    assert_eq!(all.rest().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_page_that_leads_elsewhere_or_in_a_circle_is_not_followed() {
    let first = "/api/management/applications?limit=2";
    for link in [
        first,
        "/api/management/applications",
        "/api/management/applications/shop?limit=2",
        "/api/orgs?limit=2",
        "//elsewhere.example/api/management/applications?limit=2",
        "https://elsewhere.example/api/management/applications?limit=2",
        "@elsewhere.example/",
        "",
    ] {
        let server = MockServer::start().await;
        let page = ok(&json!([])).insert_header("link", format!("<{link}>; rel=\"next\""));
        Mock::given(method("GET")).respond_with(page).mount(&server).await;
        let client = admin(&server.uri()).build().unwrap();
        let pages = client.management().application_pages(None, 2).unwrap();
        let error = pages.rest().await.unwrap_err();
        assert!(
            matches!(error, Error::BadAnswer { status: 200, .. }),
            "{link}: {error:?}"
        );
        assert_eq!(server.received_requests().await.unwrap().len(), 1, "{link}");
    }
}
