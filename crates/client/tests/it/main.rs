#![forbid(unsafe_code)]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]
mod bundle;
mod calls;
mod failures;
mod tls;

use sealpod_client::{Builder, Client, Credential};
use sealpod_core::SecretText;
use serde_json::{Value, json};
use wiremock::ResponseTemplate;

const ADMIN_KEY: &str = "admin-key-admin-key-admin-key-admin-key";
const ACCOUNT_KEY: &str = "cr_sa_0123456789012345678901234567890123456789";

fn admin(url: &str) -> Builder {
    builder(url).credential(Credential::Admin(SecretText::new(ADMIN_KEY)))
}

fn account(url: &str) -> Client {
    let credential = Credential::ServiceAccount(SecretText::new(ACCOUNT_KEY));
    builder(url).credential(credential).build().unwrap()
}

fn builder(url: &str) -> Builder {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder(url)
}

fn problem(status: u16, code: &str) -> ResponseTemplate {
    let body = json!({"type": "about:blank", "title": "", "status": status, "detail": "because", "code": code});
    ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/problem+json")
}

fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}
