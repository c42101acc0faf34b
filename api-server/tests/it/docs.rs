//! The page and the document of the API, as they are served.

use serde_json::Value;

use crate::support::Server;

const CSP: &str = "content-security-policy";

#[tokio::test]
async fn the_page_and_all_that_it_loads_come_from_the_server_under_a_strict_policy() {
    let server = Server::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let response = client.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response
    };
    let page = get("/docs").await;
    let policy = page.headers()[CSP].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
        "{policy}"
    );
    assert!(
        policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    let html = page.text().await.unwrap();
    assert!(!html.contains("http"), "nothing is loaded from elsewhere: {html}");

    let mut loaded = 0;
    for attribute in ["src=\"", "href=\"docs"] {
        for link in html.split(attribute).skip(1) {
            let rest = link.split('"').next().unwrap();
            let path = if attribute.starts_with("src") {
                format!("/{rest}")
            } else {
                format!("/docs{rest}")
            };
            let response = get(&path).await;
            assert_eq!(response.headers()[CSP], policy, "{path}");
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            let is_gzip = response
                .headers()
                .get("content-encoding")
                .is_some_and(|how| how == "gzip");
            let bytes = response.bytes().await.unwrap();
            assert_eq!(bytes.starts_with(b"\x1f\x8b"), is_gzip, "{path}");
            assert!(
                bytes.len() > 100 && (kind.contains("javascript") || kind.contains("css")),
                "{path}: {kind}"
            );
            loaded += 1;
        }
    }
    assert_eq!(loaded, 3);
}

#[tokio::test]
async fn the_document_is_the_one_that_the_program_prints() {
    let server = Server::start().await;
    let document: Value = server.call("GET", "/openapi.json").status(200).await.body;
    assert_eq!(document, sealpod_api_server::routes::document());
    server.call("GET", "/openapi.json?x=1").invalid("x").await;
}
