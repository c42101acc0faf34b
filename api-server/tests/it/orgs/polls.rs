use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{ADMIN, Account, Call, M, O, Reply, Server, time};

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
        Self::waiting(server, call).await
    }

    /// Sends a call that has to wait.
    async fn waiting(server: &Server, call: Call) -> Self {
        let watchers = server.store.stats().watchers;
        let answer = tokio::spawn(call.send());
        while server.store.stats().watchers == watchers {
            assert!(!answer.is_finished(), "the poll waits");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
    let (begins, ends) = (time(400), time(800));
    let body = json!({"value": "2", "not_before": begins, "expires_at": ends});
    server
        .admin("PUT", &format!("{O}/projects/shop/envs/local/secrets/a"))
        .json(body)
        .status(200)
        .await;
    let wakes = server.store.stats().wakes;
    let url = format!("{BUNDLE}?key=a");
    let mut reply = server.call("GET", &url).key(&account.key).status(200).await;
    let instant = |text: &str| text.parse::<sealpod_core::Time>().unwrap();
    for (edge, value, next) in [(&begins, "2", Some(&ends)), (&ends, "1", None)] {
        // However late the machine is: what comes is the state behind the edge.
        if reply.body["secrets"]["a"]["value"] != value {
            let at = instant(&reply.text_at("next_change_at"));
            assert!(
                (0..=1).contains(&(at.microseconds() - instant(edge).microseconds())),
                "{at} {edge}"
            );
            let call = server.call("GET", &format!("{url}&wait=20")).key(&account.key);
            reply = call.header("if-none-match", reply.header("etag")).status(200).await;
        }
        assert!(sealpod_core::Time::now() >= instant(edge));
        if next.is_none() || sealpod_core::Time::now() < instant(&ends) {
            assert_eq!(reply.body["secrets"]["a"]["value"], value);
            assert_eq!(reply.body["next_change_at"].is_string(), next.is_some());
        }
    }
    assert_eq!(server.store.stats().wakes, wakes, "it was the clock, and no change");
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
    let poll = Poll::waiting(&server, call.header("if-none-match", state.header("etag"))).await;
    let reads = server.store.stats().reads;
    let reply = poll.answer.await.unwrap();
    assert_eq!(
        server.store.stats().reads,
        reads,
        "nobody left word of a change, so nobody looks"
    );
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&since.elapsed()));
    assert_eq!((reply.status, reply.header("etag")), (304, state.header("etag")));
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

/// How many watchers a call wakes: all of them before it is answered.
async fn wakes(server: &Server, call: Call) -> u64 {
    let before = server.store.stats().wakes;
    let reply = call.send().await;
    assert!((200..300).contains(&reply.status), "{}", reply.text);
    server.store.stats().wakes - before
}

fn put(server: &Server, project: &str, env: &str, key: &str) -> Call {
    server
        .admin("PUT", &format!("{O}/projects/{project}/envs/{env}/secrets/{key}"))
        .json(json!({"value": "new"}))
}

#[tokio::test]
async fn what_nobody_asked_for_wakes_nobody() {
    let (server, account) = shop().await;
    server.application("other").await;
    let narrow = server
        .account(
            "narrow",
            &[["shop", "local", "a*", "read"], ["other", "*", "*", "read"]],
        )
        .await;
    let stranger = server.account("stranger", &[]).await;
    let mut polls = Vec::new();
    for (who, query) in [
        (&account, "key=a"),
        (&account, "key=a&values=false"),
        (&account, "pattern=a*"),
        (&account, "pattern=%7Ba,aa%7D?&key=a"),
        (&account, "version=a%3A1"),
        (&narrow, "values=true"),
        (&narrow, "pattern=*&key=b"),
        (&stranger, "key=a&key=b"),
        (&stranger, "pattern=*"),
    ] {
        polls.push(Poll::open(&server, who, query).await);
    }
    let shop = format!("{O}/projects/shop");
    let b = format!("{shop}/envs/local/secrets/b");
    let change = |path: &str, body| server.admin("PATCH", path).json(body);
    for call in [
        put(&server, "shop", "local", "b"),
        put(&server, "shop", "local", "c"),
        put(&server, "other", "local", "a"),
        change(&format!("{b}/versions/1"), json!({"is_enabled": false})),
        change(&format!("{b}/versions/2"), json!({"expires_at": time(60_000)})),
        server
            .admin("POST", &format!("{b}/rollback"))
            .json(json!({"version": 1})),
        server.admin("DELETE", &b),
        server.admin("DELETE", &format!("{M}/shop/secrets/c")),
        server
            .admin("POST", &format!("{M}/shop/secrets"))
            .json(json!({"name": "absent"})),
        server
            .admin("POST", &format!("{M}/shop/configurations"))
            .json(json!({"environmentSlug": "local", "key": "Flag", "value": "on"})),
        server
            .admin("POST", &format!("{M}/shop/environments"))
            .json(json!({"name": "Prod"})),
        put(&server, "shop", "prod", "a"),
        server
            .admin("PUT", &format!("{M}/shop/environments/local"))
            .json(json!({"name": "Here"})),
        server.admin("DELETE", &format!("{M}/shop/environments/prod")),
        change(&shop, json!({"display_name": "The shop"})),
        server.admin("POST", &format!("{M}/shop/rotate-key")).json(json!({})),
        server
            .admin("POST", &format!("{O}/service-accounts"))
            .json(json!({"name": "third"})),
    ] {
        assert_eq!(wakes(&server, call).await, 0);
    }
    let trash = server.admin("GET", &format!("{O}/trash")).status(200).await;
    for item in trash.list() {
        let path = format!("{O}/trash/{}/restore", item["id"].as_str().unwrap());
        assert_eq!(wakes(&server, server.admin("POST", &path)).await, 0, "{item}");
    }
    assert!(polls.iter().all(|poll| !poll.answer.is_finished()));

    // All but the one that is pinned, and the two that may not read it.
    assert_eq!(wakes(&server, put(&server, "shop", "local", "a")).await, 6);
}

#[tokio::test]
async fn every_kind_of_change_of_what_was_asked_for_wakes() {
    let (server, account) = shop().await;
    let a = format!("{O}/projects/shop/envs/local/secrets/a");
    let version = |n: u64, body| server.admin("PATCH", &format!("{a}/versions/{n}")).json(body);
    let restore = async || {
        let trash = server.admin("GET", &format!("{O}/trash")).status(200).await;
        let id = trash.list()[0]["id"].as_str().unwrap().to_owned();
        server.admin("POST", &format!("{O}/trash/{id}/restore"))
    };
    for (change, number) in [
        ("set", Some(2)),
        ("disable", Some(1)),
        ("enable", Some(2)),
        ("window", Some(2)),
        ("roll back", Some(3)),
        ("hide", None),
        ("restore", Some(3)),
        ("delete everywhere", None),
        ("restore", Some(3)),
    ] {
        let polls = [
            Poll::open(&server, &account, "key=a").await,
            Poll::open(&server, &account, "pattern=?").await,
            Poll::open(&server, &account, "values=false").await,
        ];
        let call = match change {
            "set" => put(&server, "shop", "local", "a"),
            "disable" => version(2, json!({"is_enabled": false})),
            "enable" => version(2, json!({"is_enabled": true})),
            "window" => version(2, json!({"expires_at": time(60_000)})),
            "roll back" => server
                .admin("POST", &format!("{a}/rollback"))
                .json(json!({"version": 1})),
            "hide" => server.admin("DELETE", &a),
            "delete everywhere" => server.admin("DELETE", &format!("{M}/shop/secrets/a")),
            _ => restore().await,
        };
        assert_eq!(wakes(&server, call).await, 3, "{change}");
        for poll in polls {
            let reply = poll.woken().await;
            assert_eq!(
                (reply.status, reply.body["secrets"]["a"]["version"].as_u64()),
                (200, number),
                "{change}"
            );
        }
    }
}

#[tokio::test]
async fn a_pinned_version_wakes_on_its_own_changes_only() {
    let (server, account) = shop().await;
    let a = format!("{O}/projects/shop/envs/local/secrets/a");
    let first = Poll::open(&server, &account, "version=a%3A1").await;
    let third = Poll::open(&server, &account, "version=a%3A3&key=a").await;
    assert_eq!(wakes(&server, put(&server, "shop", "local", "a")).await, 0);
    assert_eq!(wakes(&server, put(&server, "shop", "local", "a")).await, 1);
    assert_eq!(third.woken().await.body["secrets"]["a"]["version"], 3);
    let disable = server
        .admin("PATCH", &format!("{a}/versions/1"))
        .json(json!({"is_enabled": false}));
    assert_eq!(wakes(&server, disable).await, 1);
    assert_eq!(first.woken().await.body["missing"], json!(["a"]));
}

#[tokio::test]
async fn a_key_that_is_missing_wakes_when_it_is_made() {
    let (server, account) = shop().await;
    let poll = Poll::open(&server, &account, "key=late&key=a").await;
    let slot = server
        .admin("POST", &format!("{M}/shop/secrets"))
        .json(json!({"name": "late"}));
    assert_eq!(wakes(&server, slot).await, 0, "it has no value yet");
    assert_eq!(wakes(&server, put(&server, "shop", "local", "late")).await, 1);
    let reply = poll.woken().await;
    assert_eq!(
        (&reply.body["missing"], &reply.body["secrets"]["late"]["value"]),
        (&json!([]), &json!("new"))
    );
}

#[tokio::test]
async fn a_wider_rule_widens_what_is_waited_for_even_where_it_changes_nothing_yet() {
    let (server, _) = shop().await;
    let account = server.account("narrow", &[["shop", "local", "a", "read"]]).await;
    let poll = Poll::open(&server, &account, "values=true").await;
    let grants = server.store.stats().wakes;
    server.grant(&account.id, ["shop", "local", "z*", "read"]).await;
    assert_eq!(server.store.stats().wakes - grants, 1);
    // Until it has looked and waits again, which leaves no other trace.
    poll.sleeps_on().await;
    assert_eq!(wakes(&server, put(&server, "shop", "local", "b")).await, 0);
    assert_eq!(wakes(&server, put(&server, "shop", "local", "z1")).await, 1);
    assert_eq!(poll.woken().await.body["secrets"]["z1"]["version"], 1);
}

#[tokio::test]
async fn a_poll_may_be_a_post() {
    let (server, account) = shop().await;
    let question = |wait: u64| json!({"key": ["a"], "pattern": ["c*"], "wait": wait});
    let state = server
        .call("POST", BUNDLE)
        .key(&account.key)
        .json(question(0))
        .status(200)
        .await;
    let call = server.call("POST", BUNDLE).key(&account.key).json(question(20));
    let poll = Poll::waiting(&server, call.header("if-none-match", state.header("etag"))).await;
    assert_eq!(wakes(&server, put(&server, "shop", "local", "b")).await, 0);
    assert_eq!(wakes(&server, put(&server, "shop", "local", "c")).await, 1);
    assert_eq!(poll.woken().await.body["secrets"]["c"]["value"], "new");
}

#[tokio::test]
async fn a_poll_ends_when_its_path_leads_nowhere_or_its_organization_is_gone() {
    let server = Server::start().await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    let mut organization = "/api/orgs/acme".to_owned();
    server
        .admin("POST", &format!("{organization}/projects"))
        .json(json!({"name": "web"}))
        .status(201)
        .await;
    let made = server
        .admin("POST", &format!("{organization}/service-accounts"))
        .json(json!({"name": "ci"}))
        .status(201)
        .await;
    let key = made.text_at("api_key");
    let open = async |organization: &str, project: &str| {
        let path = format!("{organization}/projects/{project}/envs/dev/bundle?key=a");
        let state = server.call("GET", &path).key(&key).status(200).await;
        let call = server.call("GET", &format!("{path}&wait=20")).key(&key);
        Poll::waiting(&server, call.header("if-none-match", state.header("etag"))).await
    };
    let rename = |path: &str, name: &str| server.admin("PATCH", path).json(json!({"name": name}));

    let poll = open(&organization, "web").await;
    rename(&format!("{organization}/projects/web"), "site")
        .status(200)
        .await;
    assert_eq!(poll.woken().await.status, 404);
    let poll = open(&organization, "site").await;
    rename(&organization, "acme2").status(200).await;
    assert_eq!(poll.woken().await.status, 404);
    organization = "/api/orgs/acme2".to_owned();
    let poll = open(&organization, "site").await;
    server.admin("DELETE", &organization).status(204).await;
    assert_eq!(poll.woken().await.status, 401, "its keys died with it");
}

#[tokio::test]
async fn a_person_who_waits_is_told_of_a_lost_session_and_a_lost_membership() {
    let (server, _) = shop().await;
    let open = async |token: &str| {
        let path = format!("{BUNDLE}?key=a");
        let state = server.call("GET", &path).bearer(token).status(200).await;
        let call = server.call("GET", &format!("{path}&wait=20")).bearer(token);
        Poll::waiting(&server, call.header("if-none-match", state.header("etag"))).await
    };
    let user = server.member("default", "ann@example.com", "developer").await;
    let poll = open(&user.token).await;
    let body = json!({"role": "admin"});
    server
        .admin("PATCH", &format!("{O}/members/{}", user.id))
        .json(body)
        .status(200)
        .await;
    let reply = poll.woken().await;
    assert_eq!(
        (&reply.body["denied"], &reply.body["secrets"]["a"]["value"]),
        (&json!([]), &json!("1"))
    );
    let poll = open(&user.token).await;
    server
        .admin("DELETE", &format!("{O}/members/{}", user.id))
        .status(204)
        .await;
    assert_eq!(poll.woken().await.status, 404);

    let user = server.member("default", "bob@example.com", "admin").await;
    let poll = open(&user.token).await;
    server
        .call("DELETE", "/api/auth/logout")
        .bearer(&user.token)
        .status(204)
        .await;
    assert_eq!(poll.woken().await.status, 401);
    let poll = open(ADMIN).await;
    assert_eq!(wakes(&server, put(&server, "shop", "local", "b")).await, 0);
    assert_eq!(wakes(&server, put(&server, "shop", "local", "a")).await, 1);
    assert_eq!(poll.woken().await.body["secrets"]["a"]["version"], 2);
}

/// Many polls over few connections.
async fn many(server: &Server, account: &Account, count: usize) -> Vec<JoinHandle<reqwest::Response>> {
    const A_CONNECTION: usize = 100;
    let url = format!("{}{BUNDLE}?key=a", server.url);
    let state = server
        .call("GET", &format!("{BUNDLE}?key=a"))
        .key(&account.key)
        .status(200)
        .await;
    let etag = state.header("etag").to_owned();
    let mut polls = Vec::with_capacity(count);
    for begin in (0..count).step_by(A_CONNECTION) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .http2_prior_knowledge()
            .build()
            .unwrap();
        for _ in begin..count.min(begin + A_CONNECTION) {
            let call = client
                .get(format!("{url}&wait=60"))
                .header("x-api-key", &account.key)
                .header("if-none-match", &etag);
            polls.push(tokio::spawn(async move { call.send().await.unwrap() }));
        }
    }
    while server.store.stats().watchers < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    polls
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_looks_together_and_each_answer_is_on_record() {
    const COUNT: usize = 300;
    let (server, account) = shop().await;
    let polls = many(&server, &account, COUNT).await;
    let before = server.store.stats();
    assert_eq!(wakes(&server, put(&server, "shop", "local", "a")).await, COUNT as u64);
    for poll in polls {
        let reply = poll.await.unwrap();
        assert_eq!(reply.status(), 200);
        assert!(reply.text().await.unwrap().contains(r#""value":"new","version":2"#));
    }
    let after = server.store.stats();
    assert_eq!(after.audit_entries - before.audit_entries, COUNT as u64 + 1);
    assert!(after.reads - before.reads < COUNT as u64 / 2, "{before:?} {after:?}");
    let entries = server.audit().await;
    let mut requests: Vec<_> = entries.iter().filter_map(|entry| entry.request_id.clone()).collect();
    requests.sort_unstable();
    requests.dedup();
    assert_eq!(requests.len(), entries.len(), "each under its own request");
    assert_eq!(after.watchers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_open_polls_are_told_at_once_that_the_server_stops() {
    let (server, account) = shop().await;
    let polls = many(&server, &account, 1_000).await;
    server.stop.cancel();
    let answered = tokio::time::timeout(Duration::from_secs(10), futures::future::join_all(polls));
    for reply in answered.await.expect("nobody waits for the end of the wait") {
        let reply = reply.unwrap();
        assert_eq!(
            (reply.status().as_u16(), &reply.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
    }
}
