//! A clock that is set, forwards and back, under a server that serves.

use std::path::Path;

use sealpod_core::Time;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mail_server::{FROM, MailServer, Security};
use crate::process::{Process, maintain, serve, text};
use crate::shim::{Shim, rounds};
use crate::support::{ADMIN, O};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 60 * MINUTE;
const YEARS: i64 = 3_653 * DAY;
/// Seconds since 1970.
const STILL: i64 = 1_900_000_000;

struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    fn new(server: &Process) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: format!("http://{}", server.address),
        }
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        (name, credential): (&str, &str),
        body: Option<Value>,
    ) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut call = self
            .client
            .request(method, format!("{}{path}", self.url))
            .header(name, credential);
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let bearer = format!("Bearer {ADMIN}");
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self.call(method, path, ("authorization", &bearer), body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Makes a project, and says where its secret is.
    async fn secret_of_a_project(&self) -> String {
        self.admin("POST", &format!("{O}/projects"), json!({"name": "shop"}))
            .await;
        secret()
    }

    /// A service account of the project, and its key, which ends after that many seconds.
    async fn account(&self, name: &str, ends: Option<i64>) -> String {
        let ends = ends.map(|seconds| Time::now().plus_seconds(seconds).to_string());
        let body = json!({"name": name, "expires_at": ends});
        let made = self.admin("POST", &format!("{O}/service-accounts"), body).await;
        let rule = json!({
            "subject_type": "service_account", "subject_id": made["id"], "project_pattern": "shop", "env_pattern": "*",
            "permission": "read",
        });
        self.admin("POST", &format!("{O}/acl"), rule).await;
        made["api_key"].as_str().unwrap().to_owned()
    }

    async fn reads(&self, key: &str) -> (u16, Value) {
        let (status, body) = self.call("GET", &secret(), ("x-api-key", key), None).await;
        (status, body["value"].clone())
    }

    async fn sign_in(&self, mail: &MailServer, email: &str) -> String {
        let code = self.ask_for_code(mail, email).await;
        let (status, body) = self.verify(email, &code).await;
        assert_eq!(status, 200, "{body}");
        body["token"].as_str().unwrap().to_owned()
    }

    async fn ask_for_code(&self, mail: &MailServer, email: &str) -> String {
        let asked = self.call("POST", "/api/auth/login", ("x-none", ""), Some(json!({"email": email})));
        assert_eq!(asked.await.0, 200);
        mail.next().await.code()
    }

    async fn verify(&self, email: &str, code: &str) -> (u16, Value) {
        let body = json!({"email": email, "code": code});
        self.call("POST", "/api/auth/verify", ("x-none", ""), Some(body)).await
    }

    async fn is_signed_in(&self, token: &str) -> bool {
        let bearer = format!("Bearer {token}");
        self.call("GET", "/api/auth/me", ("authorization", &bearer), None)
            .await
            .0
            == 200
    }
}

fn secret() -> String {
    format!("{O}/projects/shop/envs/prod/secrets/db")
}

/// What a server with a clock of its own needs.
async fn prepared() -> (TempDir, MailServer, Shim) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let shim = Shim::new(dir.path());
    (dir, MailServer::start(Security::None).await, shim)
}

/// The entries of the organization, once no server has the database.
fn entries(dir: &Path) -> Vec<Value> {
    assert!(maintain(dir, &["audit", "verify"]).status.success());
    let export = maintain(dir, &["audit", "export", "--organization", "default"]);
    let lines = text(&export.stdout);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn start(dir: &Path, shim: &Shim, mail: &MailServer) -> Process {
    let mut serve = serve(dir);
    serve
        .env("SEALPOD_SMTP_URL", mail.url())
        .env("SEALPOD_SMTP_FROM", FROM)
        .env("SEALPOD_SUPERADMINS", "ada@example.com");
    Process::start(shim.over(&mut serve))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_revives_nothing_and_is_shown() {
    for _ in 0..rounds(1) {
        let (dir, mail, shim) = prepared().await;
        let server = start(dir.path(), &shim, &mail);
        let caller = Caller::new(&server);
        let secret = caller.secret_of_a_project().await;
        caller.admin("PUT", &secret, json!({"value": "for ever"})).await;
        let soon = Time::now().plus_seconds(30 * MINUTE).to_string();
        caller
            .admin("PUT", &secret, json!({"value": "for a while", "expires_at": soon}))
            .await;
        let short = caller.account("short", Some(30 * MINUTE)).await;
        let lasting = caller.account("lasting", None).await;
        let session = caller.sign_in(&mail, "ada@example.com").await;
        let code = caller.ask_for_code(&mail, "bob@example.com").await;
        for key in [&short, &lasting] {
            assert_eq!(caller.reads(key).await, (200, json!("for a while")));
        }
        assert!(!server.readiness().await.1.contains("clock"));

        // An hour ahead: what ends by then has ended, and the probe says why.
        shim.set_clock(61 * MINUTE + 30);
        assert_eq!(caller.reads(&short).await.0, 401);
        assert_eq!(caller.reads(&lasting).await, (200, json!("for ever")));
        assert_eq!(caller.verify("bob@example.com", &code).await.0, 401);
        let shown = server.wait_for(|_, text| text.contains("warning: clock")).await;
        assert!(
            shown.starts_with("ok\n") && shown.contains("jumped by 61 minutes"),
            "{shown}"
        );

        // And back: versions follow the clock, credentials do not.
        for back in [0, -61 * MINUTE, -DAY] {
            shim.set_clock(back);
            assert_eq!(caller.reads(&short).await.0, 401, "{back}");
            assert_eq!(caller.verify("bob@example.com", &code).await.0, 401, "{back}");
            assert_eq!(caller.reads(&lasting).await, (200, json!("for a while")), "{back}");
            assert!(caller.is_signed_in(&session).await, "{back}");
            // Whoever comes new is not held up.
            assert!(
                caller
                    .is_signed_in(&caller.sign_in(&mail, "eve@example.com").await)
                    .await,
                "{back}"
            );
        }
        server.wait_for(|_, text| text.contains("jumped by -")).await;

        // A wrong decade ends the session for good; a right one after it is as if it had never been, for what is new.
        shim.set_clock(YEARS);
        assert!(!caller.is_signed_in(&session).await);
        assert_eq!(caller.reads(&lasting).await, (200, json!("for ever")));
        shim.set_clock(0);
        assert!(!caller.is_signed_in(&session).await);
        let new = caller.sign_in(&mail, "ada@example.com").await;
        let short_too = caller.account("short-too", Some(30 * MINUTE)).await;
        assert!(caller.is_signed_in(&new).await);
        assert_eq!(caller.reads(&short_too).await.0, 200);

        // Also behind a restart, on a machine that came up with yesterday's time.
        let (_, log) = (server.readiness().await, server.stop_for_log());
        assert!(
            log.contains("the clock jumped") && log.contains("the clock was set back"),
            "{log}"
        );
        shim.set_clock(-DAY);
        let server = start(dir.path(), &shim, &mail);
        let caller = Caller::new(&server);
        assert_eq!(caller.reads(&short).await.0, 401);
        assert!(!caller.is_signed_in(&session).await && caller.is_signed_in(&new).await);
        drop(server);

        // Whatever the times say, the entries stand in the order in which things happened.
        let entries = entries(dir.path());
        assert!(
            entries.iter().zip(1..).all(|(entry, seq)| entry["seq"] == seq),
            "{entries:?}"
        );
        let years: std::collections::BTreeSet<_> = entries
            .iter()
            .map(|entry| entry["created_at"].as_str().unwrap()[..4].to_owned())
            .collect();
        assert!(years.len() > 1, "no entry is of the wrong decade: {years:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_stands_still_holds_up_nothing() {
    for _ in 0..rounds(1) {
        let (dir, mail, shim) = prepared().await;
        shim.stop_clock(STILL);
        let server = start(dir.path(), &shim, &mail);
        let caller = Caller::new(&server);
        let secret = caller.secret_of_a_project().await;
        for n in 1..=20 {
            let put = caller
                .admin("PUT", &secret, json!({"value": format!("value {n}")}))
                .await;
            assert_eq!(put["version"], n);
        }
        let key = caller.account("reader", None).await;
        assert_eq!(caller.reads(&key).await, (200, json!("value 20")));
        let session = caller.sign_in(&mail, "ada@example.com").await;
        assert!(caller.is_signed_in(&session).await);
        // A long poll ends by the time that passes.
        let bundle = format!("{O}/projects/shop/envs/prod/bundle");
        let answer = caller
            .client
            .get(format!("{}{bundle}", caller.url))
            .header("x-api-key", &key)
            .send()
            .await
            .unwrap();
        let etag = answer.headers()["etag"].clone();
        let poll = caller
            .client
            .get(format!("{}{bundle}?wait=1", caller.url))
            .header("x-api-key", &key)
            .header("if-none-match", etag);
        assert_eq!(poll.send().await.unwrap().status(), 304);
        drop(server);
        // It did stand still, for all of them.
        let time = |entry: &Value| entry["created_at"].as_str()?.parse().ok();
        let times: Vec<Option<Time>> = entries(dir.path()).iter().map(time).collect();
        let still = Time::from_microseconds(STILL * 1_000_000);
        assert!(times.len() > 20 && times.iter().all(|time| *time == still), "{times:?}");
    }
}
