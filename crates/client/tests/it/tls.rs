//! Which servers are trusted.

use std::time::Duration;

use axum::extract::Request;
use axum::http::Version;
use axum::routing::get;
use axum::{Json, Router};
use axum_server::tls_rustls::RustlsConfig;
use sealpod_client::{BuildError, Error};
use tokio_util::sync::CancellationToken;

use crate::admin;

/// Serves TLS with a certificate for `name`; gives the URL and the certificate.
fn serve(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let config = sealpod_runtime::tls::server_config(cert.as_bytes(), key.as_bytes()).unwrap();
    let listener = sealpod_runtime::serve::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let applications = |request: Request| async move {
        let version = if request.version() == Version::HTTP_2 {
            "h2"
        } else {
            "other"
        };
        Json(serde_json::json!([{
            "id": uuid::Uuid::nil(), "name": version, "slug": version, "description": null,
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
        }]))
    };
    let router = Router::new().route("/api/management/applications", get(applications));
    tokio::spawn(sealpod_runtime::serve::run(
        listener,
        Some(RustlsConfig::from_config(std::sync::Arc::new(config))),
        router,
        CancellationToken::new(),
        Duration::ZERO,
    ));
    (url, cert)
}

#[tokio::test]
async fn the_given_ca_is_trusted_and_no_other() {
    let (url, ca) = serve("localhost");
    let (_, other) = serve("localhost");
    let client = admin(&url).ca(ca.clone()).build().unwrap();
    let list = client.management().applications(None).await.unwrap();
    assert_eq!(
        list[0].name, "h2",
        "one connection for all calls, where the server has it"
    );

    // While a CA is being replaced, the file holds both.
    let client = admin(&url).ca(format!("{other}{ca}")).build().unwrap();
    client.management().applications(None).await.unwrap();

    let client = admin(&url).ca(other).build().unwrap();
    let error = client.management().applications(None).await.unwrap_err();
    assert!(
        matches!(error, Error::Untrusted { .. }) && error.is_transient(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let (url, ca) = serve("elsewhere.test");
    let client = admin(&url).ca(ca).build().unwrap();
    let error = client.management().applications(None).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
}

#[test]
fn a_ca_that_is_none_is_refused_when_the_client_is_made() {
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        assert_eq!(
            admin("https://localhost").ca(pem).build().unwrap_err(),
            BuildError::Ca,
            "{pem}"
        );
    }
}
