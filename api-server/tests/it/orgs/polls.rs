use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{Account, O, Reply, Server, time};

const BUNDLE: &str = "/api/orgs/default/projects/shop/envs/local/bundle";

/// Long enough for a poll to be waiting, and far below its `wait`.
const SOON: Duration = Duration::from_millis(300);

struct Poll {
    answer: JoinHandle<Reply>,
    since: Instant,
}

impl Poll {
    /// Opens a poll on the state of now.
    async fn open(server: &Server, account: &Account, query: &str) -> Self {
        let url = format!("{BUNDLE}?{query}");
        let state = server.call("GET", &url).key(&account.key).status(200).await;
        let call = server.call("GET", &format!("{url}&wait=20")).key(&account.key);
        let call = call.header("if-none-match", state.header("etag"));
        let answer = tokio::spawn(call.send());
        tokio::time::sleep(SOON).await;
        assert!(!answer.is_finished(), "the poll waits");
        Self {
            answer,
            since: Instant::now(),
        }
    }

    /// The answer, which must come soon.
    async fn woken(self) -> Reply {
        let reply = tokio::time::timeout(Duration::from_secs(3), self.answer)
            .await
            .expect("the poll is woken")
            .unwrap();
        assert!(self.since.elapsed() < Duration::from_secs(3));
        reply
    }

    async fn sleeps_on(&self) {
        tokio::time::sleep(SOON).await;
        assert!(!self.answer.is_finished(), "the poll goes on waiting");
    }
}

async fn shop() -> (Server, Account) {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "a", "1").await;
    server.put("shop", "local", "b", "1").await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    (server, account)
}

#[tokio::test]
async fn a_poll_wakes_on_a_change_of_its_keys_and_of_no_others() {
    let (server, account) = shop().await;
    let poll = Poll::open(&server, &account, "key=a").await;
    server.put("shop", "local", "b", "2").await;
    poll.sleeps_on().await;
    server.put("shop", "local", "a", "2").await;
    let reply = poll.woken().await;
    assert_eq!((reply.status, &reply.body["secrets"]["a"]["value"]), (200, &json!("2")));

    let poll = Poll::open(&server, &account, "key=a").await;
    server
        .admin("DELETE", &format!("{O}/projects/shop/envs/local/secrets/a"))
        .status(204)
        .await;
    assert_eq!(poll.woken().await.body["missing"], json!(["a"]));
}

#[tokio::test]
async fn a_poll_wakes_on_a_configuration_if_it_asked_for_them() {
    let (server, account) = shop().await;
    let rule = json!({
        "subject_type": "service_account", "subject_id": account.id, "project_pattern": "shop", "env_pattern": "local",
        "configurations": true, "permission": "read",
    });
    server.admin("POST", &format!("{O}/acl")).json(rule).status(200).await;
    let with = Poll::open(&server, &account, "key=a&configurations=true").await;
    let without = Poll::open(&server, &account, "key=a").await;
    let entry = json!({"environmentSlug": "local", "key": "Flag", "value": "on"});
    server
        .admin("POST", "/api/management/applications/shop/configurations")
        .json(entry)
        .status(201)
        .await;
    assert_eq!(with.woken().await.body["configurations"], json!({"Flag": "on"}));
    without.sleeps_on().await;
}

#[tokio::test]
async fn a_poll_wakes_when_the_callers_rights_change() {
    let (server, _) = shop().await;
    let account = server.account("narrow", &[["shop", "local", "a", "read"]]).await;
    let poll = Poll::open(&server, &account, "key=a&key=b").await;
    let rule = server.grant(&account.id, ["shop", "local", "b", "read"]).await;
    let reply = poll.woken().await;
    assert_eq!((reply.status, &reply.body["secrets"]["b"]["value"]), (200, &json!("1")));

    let poll = Poll::open(&server, &account, "key=a&key=b").await;
    server.admin("DELETE", &format!("{O}/acl/{rule}")).status(204).await;
    assert_eq!(poll.woken().await.body["denied"], json!(["b"]));
}

#[tokio::test]
async fn a_poll_ends_with_401_when_its_key_dies() {
    let (server, account) = shop().await;
    let poll = Poll::open(&server, &account, "key=a").await;
    let rotated = server
        .admin("POST", &format!("{O}/service-accounts/{}/rotate", account.id))
        .status(200)
        .await;
    assert_eq!(poll.woken().await.status, 401);

    let account = Account {
        key: rotated.text_at("api_key"),
        ..account
    };
    let poll = Poll::open(&server, &account, "key=a").await;
    server
        .admin("DELETE", &format!("{O}/service-accounts/{}", account.id))
        .status(204)
        .await;
    assert_eq!(poll.woken().await.status, 401);
}

#[tokio::test]
async fn a_poll_ends_with_401_when_its_key_expires() {
    let (server, _) = shop().await;
    let body = json!({"name": "short", "expires_at": time(1_500)});
    let made = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await;
    let account = Account {
        id: made.text_at("id"),
        key: made.text_at("api_key"),
    };
    server.grant(&account.id, ["shop", "local", "*", "read"]).await;
    assert_eq!(Poll::open(&server, &account, "key=a").await.woken().await.status, 401);
}

#[tokio::test]
async fn a_poll_ends_with_404_when_its_environment_goes() {
    let (server, account) = shop().await;
    let poll = Poll::open(&server, &account, "key=a").await;
    server
        .admin("DELETE", "/api/management/applications/shop/environments/local")
        .status(204)
        .await;
    assert_eq!(poll.woken().await.status, 404);
    server
        .admin("POST", "/api/management/applications/shop/environments")
        .json(json!({"name": "Local"}))
        .status(201)
        .await;
    let poll = Poll::open(&server, &account, "key=a").await;
    server
        .admin("DELETE", "/api/management/applications/shop")
        .status(204)
        .await;
    assert_eq!(poll.woken().await.status, 404);
}

#[tokio::test]
async fn a_poll_wakes_when_a_version_begins_and_when_it_ends() {
    let (server, account) = shop().await;
    let body = json!({"value": "2", "not_before": time(1_200), "expires_at": time(2_400)});
    server
        .admin("PUT", &format!("{O}/projects/shop/envs/local/secrets/a"))
        .json(body)
        .status(200)
        .await;
    let reply = Poll::open(&server, &account, "key=a").await.woken().await;
    assert_eq!(
        (
            &reply.body["secrets"]["a"]["value"],
            reply.body["next_change_at"].is_string()
        ),
        (&json!("2"), true)
    );
    let reply = Poll::open(&server, &account, "key=a").await.woken().await;
    assert_eq!(
        (&reply.body["secrets"]["a"]["value"], &reply.body["next_change_at"]),
        (&json!("1"), &json!(null))
    );
}

#[tokio::test]
async fn a_poll_without_a_change_is_304() {
    let (server, account) = shop().await;
    let state = server
        .call("GET", &format!("{BUNDLE}?key=a"))
        .key(&account.key)
        .status(200)
        .await;
    let entries = server.audit().await.len();
    let since = Instant::now();
    let call = server.call("GET", &format!("{BUNDLE}?key=a&wait=1")).key(&account.key);
    let reply = call.header("if-none-match", state.header("etag")).status(304).await;
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&since.elapsed()));
    assert_eq!(reply.header("etag"), state.header("etag"));
    assert_eq!(
        server.audit().await.len(),
        entries,
        "nothing was given out, so nothing is on record"
    );
    // Without a known state there is nothing to wait for.
    let since = Instant::now();
    server
        .call("GET", &format!("{BUNDLE}?key=a&wait=20"))
        .key(&account.key)
        .status(200)
        .await;
    assert!(since.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn open_polls_are_told_at_once_that_the_server_stops() {
    let (server, account) = shop().await;
    let poll = Poll::open(&server, &account, "key=a").await;
    server.stop.cancel();
    let reply = poll.woken().await;
    assert_eq!(
        (reply.status, reply.header("retry-after"), &reply.body["code"]),
        (503, "1", &json!("unavailable"))
    );
}

#[tokio::test]
async fn a_change_between_two_polls_is_not_missed() {
    let (server, account) = shop().await;
    let mut etag = String::new();
    for n in 0..30 {
        let call = server.call("GET", &format!("{BUNDLE}?key=a&wait=20")).key(&account.key);
        let poll = tokio::spawn(
            call.header("if-none-match", if etag.is_empty() { "none" } else { &etag })
                .send(),
        );
        if n > 0 {
            // At any moment of the poll's beginning.
            tokio::time::sleep(Duration::from_micros(n * 700)).await;
            server.put("shop", "local", "a", &format!("v{n}")).await;
        }
        let reply = tokio::time::timeout(Duration::from_secs(5), poll)
            .await
            .expect("the change is seen")
            .unwrap();
        etag = reply.header("etag").to_owned();
        assert_eq!(reply.status, 200);
    }
}
