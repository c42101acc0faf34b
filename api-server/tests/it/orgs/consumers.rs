//! Who runs which version: what pods say of themselves, and who gets to see it.

use sealpod_core::Time;
use serde_json::{Value, json};

use crate::support::{Account, Call, O, Reply, Server, burst, limits};

const ENV: &str = "/api/orgs/default/projects/shop/envs/local";

/// What pod `pod` of namespace `shop` has loaded.
#[allow(clippy::needless_pass_by_value, reason = "callers write the versions in place")]
fn report(pod: &str, versions: Value) -> Value {
    json!({
        "pod": pod, "namespace": "shop", "node": "ip-10-0-0-1.internal", "versions": versions, "agent_version": "0.1.0",
    })
}

fn says(server: &Server, account: &Account, body: Value) -> Call {
    server
        .call("POST", &format!("{ENV}/bundle/report"))
        .key(&account.key)
        .json(body)
}

async fn said(server: &Server, account: &Account, pod: &str, versions: Value) {
    let reply = says(server, account, report(pod, versions)).status(200).await;
    assert!(reply.text.is_empty(), "{}", reply.text);
}

async fn consumers(server: &Server) -> Reply {
    server.admin("GET", &format!("{ENV}/consumers")).status(200).await
}

/// Pods of a list, in its order.
fn pods(reply: &Reply) -> Vec<&str> {
    reply.list().iter().map(|item| item["pod"].as_str().unwrap()).collect()
}

async fn shop() -> (Server, Account) {
    let server = Server::start().await;
    server.application("shop").await;
    for (key, value) in [("a", "1"), ("b", "1"), ("b", "2")] {
        server.put("shop", "local", key, value).await;
    }
    let account = server.account("web", &[["shop", "local", "*", "read"]]).await;
    (server, account)
}

#[tokio::test]
async fn what_a_pod_says_is_shown_with_what_of_it_is_stale() {
    let (server, account) = shop().await;
    let before = Time::now();
    said(&server, &account, "web-1", json!({"a": 1, "b": 1})).await;
    let found = consumers(&server).await;
    let item = &found.list()[0];
    assert_eq!(
        *item,
        json!({
            "id": format!("shop/web-1/{}", account.id), "actor_type": "service_account", "actor_id": account.id,
            "actor_name": "web", "namespace": "shop", "pod": "web-1", "node": "ip-10-0-0-1.internal",
            "agent_version": "0.1.0", "versions": {"a": 1, "b": 1}, "stale": ["b"],
            "last_seen_at": item["last_seen_at"],
        })
    );
    let seen: Time = item["last_seen_at"].as_str().unwrap().parse().unwrap();
    assert!(before <= seen && seen <= Time::now(), "{seen}");

    // What is said again takes the place of what was said before.
    said(&server, &account, "web-1", json!({"a": 1, "b": 2})).await;
    let found = consumers(&server).await;
    assert_eq!((found.list().len(), &found.list()[0]["stale"]), (1, &json!([])));
    // An active version that is disabled, a secret that is deleted, one that never was: the pod has what nobody gets now.
    server
        .admin("PATCH", &format!("{ENV}/secrets/b/versions/2"))
        .json(json!({"is_enabled": false}))
        .status(200)
        .await;
    server.admin("DELETE", &format!("{ENV}/secrets/a")).status(204).await;
    said(&server, &account, "web-1", json!({"a": 1, "b": 2, "never": 7})).await;
    let found = consumers(&server).await;
    assert_eq!(found.list()[0]["stale"], json!(["a", "b", "never"]));
}

#[tokio::test]
async fn nobody_is_shown_as_a_reader_of_what_they_may_not_read() {
    let (server, account) = shop().await;
    let narrow = server.account("narrow", &[["shop", "local", "a", "read"]]).await;
    said(&server, &narrow, "web-1", json!({"a": 1, "b": 2})).await;
    said(&server, &account, "web-1", json!({"b": 2})).await;
    said(&server, &account, "web-2", json!({})).await;
    let found = consumers(&server).await;
    let versions: Vec<_> = found
        .list()
        .iter()
        .map(|item| {
            (
                item["pod"].as_str().unwrap(),
                item["actor_name"].as_str().unwrap(),
                &item["versions"],
            )
        })
        .collect();
    assert!(
        versions.contains(&("web-1", "narrow", &json!({"a": 1}))),
        "{versions:?}"
    );
    assert!(versions.contains(&("web-1", "web", &json!({"b": 2}))), "{versions:?}");
    assert_eq!(versions[2], ("web-2", "web", &json!({})));

    // And who asks sees of it what they may read themselves.
    let member = server.member("default", "m@example.com", "member").await;
    let call = || server.call("GET", &format!("{ENV}/consumers")).bearer(&member.token);
    call().problem(403, "forbidden").await;
    let rule = json!({
        "subject_type": "user", "subject_id": member.id, "project_pattern": "shop", "env_pattern": "*",
        "key_pattern": "b", "permission": "read",
    });
    server.admin("POST", &format!("{O}/acl")).json(rule).status(201).await;
    let found = call().status(200).await;
    assert_eq!(found.list().len(), 1, "{}", found.text);
    assert_eq!(found.list()[0]["versions"], json!({"b": 2}));
    assert!(!found.text.contains("narrow"));
}

#[tokio::test]
async fn a_caller_speaks_for_itself_and_for_nobody_else() {
    let (server, account) = shop().await;
    let other = server.account("other", &[["shop", "local", "*", "read"]]).await;
    said(&server, &account, "web-1", json!({"a": 1})).await;
    said(&server, &other, "web-1", json!({"a": 9})).await;
    let withdraw = |account: &Account, pod: &str| {
        let path = format!("{ENV}/bundle/report?namespace=shop&pod={pod}");
        server.call("DELETE", &path).key(&account.key)
    };
    withdraw(&other, "web-1").status(204).await;
    let found = consumers(&server).await;
    assert_eq!((found.list().len(), &found.list()[0]["actor_name"]), (1, &json!("web")));
    // Whether anything was said of it makes no difference.
    withdraw(&other, "web-1").status(204).await;
    withdraw(&account, "web-1").status(204).await;
    assert!(consumers(&server).await.list().is_empty());
    let path = format!("{ENV}/bundle/report");
    for query in [
        "",
        "?pod=web-1",
        "?namespace=shop&pod=Web_1",
        "?namespace=a.b&pod=web-1",
    ] {
        let call = server.call("DELETE", &format!("{path}{query}")).key(&account.key);
        call.problem(400, "validation_failed").await;
    }
    // People and the admin key speak for themselves as well.
    let owner = server.member("default", "o@example.com", "owner").await;
    let call = || server.call("POST", &path).json(report("laptop", json!({"a": 1})));
    call().bearer(&owner.token).status(200).await;
    call().bearer(crate::support::ADMIN).status(200).await;
    let found = consumers(&server).await;
    let actors: Vec<_> = found
        .list()
        .iter()
        .map(|item| (&item["actor_type"], &item["actor_id"]))
        .collect();
    assert_eq!(
        actors,
        [(&json!("admin_key"), &Value::Null), (&json!("user"), &json!(owner.id))]
    );
}

#[tokio::test]
async fn who_is_gone_is_not_shown_and_what_is_renamed_is() {
    let (server, account) = shop().await;
    let leaver = server.member("default", "leaver@example.com", "owner").await;
    server.member("default", "stays@example.com", "owner").await;
    said(&server, &account, "web-1", json!({"a": 1})).await;
    let path = format!("{ENV}/bundle/report");
    let call = server.call("POST", &path).json(report("laptop", json!({"a": 1})));
    call.bearer(&leaver.token).status(200).await;
    assert_eq!(pods(&consumers(&server).await), ["laptop", "web-1"]);
    let member = format!("{O}/members/{}", leaver.id);
    server.admin("DELETE", &member).status(204).await;
    assert_eq!(pods(&consumers(&server).await), ["web-1"]);

    // A rotated key is still the same account; another name of the project still the same project.
    let account_path = format!("{O}/service-accounts/{}", account.id);
    server
        .admin("POST", &format!("{account_path}/rotate"))
        .status(200)
        .await;
    says(&server, &account, report("web-2", json!({}))).status(401).await;
    let rename = json!({"name": "store"});
    server
        .admin("PATCH", &format!("{O}/projects/shop"))
        .json(rename)
        .status(200)
        .await;
    server.admin("GET", &format!("{ENV}/consumers")).status(404).await;
    let found = server.admin("GET", &format!("{O}/projects/store/envs/local/consumers"));
    assert_eq!(pods(&found.status(200).await), ["web-1"]);
    server
        .admin("PATCH", &format!("{O}/projects/store"))
        .json(json!({"name": "shop"}))
        .status(200)
        .await;

    // An environment that is deleted and restored is the same one; another of its name is not.
    server.admin("DELETE", ENV).status(204).await;
    server.admin("GET", &format!("{ENV}/consumers")).status(404).await;
    let trash = server.admin("GET", &format!("{O}/trash?limit=1")).status(200).await;
    let restore = format!("{O}/trash/{}/restore", trash.list()[0]["id"].as_str().unwrap());
    server.admin("POST", &restore).status(200).await;
    assert_eq!(pods(&consumers(&server).await), ["web-1"]);
    server.admin("DELETE", &format!("{ENV}?purge=true")).status(204).await;
    let again = json!({"name": "local"});
    server
        .admin("POST", &format!("{O}/projects/shop/envs"))
        .json(again)
        .status(201)
        .await;
    assert!(consumers(&server).await.list().is_empty());

    let account = server.account("second", &[["shop", "local", "*", "read"]]).await;
    said(&server, &account, "web-3", json!({"a": 1})).await;
    assert_eq!(pods(&consumers(&server).await), ["web-3"]);
    let path = format!("{O}/service-accounts/{}", account.id);
    server.admin("DELETE", &path).status(204).await;
    assert!(consumers(&server).await.list().is_empty());
}

#[tokio::test]
async fn a_list_comes_whole_or_in_pages_or_of_one_account() {
    let (server, account) = shop().await;
    let other = server.account("other", &[["shop", "local", "*", "read"]]).await;
    let mut names: Vec<_> = (0..205).map(|n| format!("web-{n}")).collect();
    for (n, pod) in names.iter().enumerate() {
        said(
            &server,
            if n % 5 == 0 { &other } else { &account },
            pod,
            json!({"a": 1}),
        )
        .await;
    }
    names.sort();
    let whole = consumers(&server).await;
    assert_eq!(whole.header("content-type"), "application/json");
    assert_eq!(pods(&whole), names);
    for size in [1, 100, 205, 1_000] {
        let (mut seen, mut after) = (vec![], String::new());
        loop {
            let path = format!("{ENV}/consumers?limit={size}{after}");
            let page = server.admin("GET", &path).status(200).await;
            let Some(last) = page.list().last() else { break };
            after = format!("&after={}", last["id"].as_str().unwrap());
            seen.extend(page.list().clone());
            if size == 1 && seen.len() == 3 {
                break;
            }
        }
        assert_eq!(seen[..], whole.list()[..seen.len()], "{size}");
        assert!(size == 1 || seen.len() == names.len());
    }
    let of = |query: &str| server.admin("GET", &format!("{ENV}/consumers?{query}"));
    let found = of(&format!("actor_id={}", other.id)).status(200).await;
    assert_eq!(found.list().len(), 41);
    assert!(found.list().iter().all(|item| item["actor_name"] == "other"));
    for (query, field) in [
        ("limit=0", "limit"),
        ("after=web-1", "after"),
        ("after=shop/web-1/x", "after"),
        ("actor_id=web", "actor_id"),
    ] {
        of(query).invalid(field).await;
    }
}

#[tokio::test]
async fn a_report_that_is_not_one_is_refused_by_field() {
    let (server, account) = shop().await;
    let of_keys = |count: u64| {
        let versions: serde_json::Map<_, _> = (0..count).map(|n| (format!("key-{n}"), json!(1))).collect();
        Value::Object(versions)
    };
    said(&server, &account, "most", of_keys(500)).await;
    for (field, bad) in [
        ("pod", json!("Web")),
        ("pod", json!("a/b")),
        ("pod", json!("a".repeat(254))),
        ("namespace", json!("a.b")),
        ("node", json!("node_1")),
        ("agent_version", json!("1 2")),
        ("versions", json!({"a": 0})),
        ("versions", json!({"a": "1"})),
        ("versions", json!({"a\u{7}": 1})),
        ("versions", json!({"": 1})),
        ("versions", of_keys(501)),
    ] {
        let mut body = report("web-1", json!({}));
        body[field] = bad;
        let reply = says(&server, &account, body).invalid(field).await;
        assert_eq!(reply.body["errors"].as_object().unwrap().len(), 1, "{}", reply.text);
    }
    let twice = r#"{"pod":"a","namespace":"b","node":"c","agent_version":"1","versions":{"a":1,"a":2}}"#;
    let call = server.call("POST", &format!("{ENV}/bundle/report")).key(&account.key);
    call.body("application/json", twice).invalid("versions").await;
    let long = report("web-1", json!({"a": 1, "x".repeat(131_000): 1}));
    says(&server, &account, long).problem(413, "payload_too_large").await;
    assert_eq!(pods(&consumers(&server).await), ["most"]);
}

#[tokio::test]
async fn reports_leave_no_entry_and_count_against_the_rate_of_their_key() {
    let mut limits = limits();
    limits.per_key = Some(burst(5));
    let server = Server::limited(limits).await;
    server.application("shop").await;
    server.put("shop", "local", "a", "1").await;
    let account = server.account("web", &[["shop", "local", "*", "read"]]).await;
    let entries = server.audit().await.len();
    for _ in 0..5 {
        said(&server, &account, "web-1", json!({"a": 1})).await;
    }
    let late = says(&server, &account, report("web-1", json!({})))
        .problem(429, "rate_limited")
        .await;
    assert!(late.headers.contains_key("retry-after"));
    consumers(&server).await;
    assert_eq!(server.audit().await.len(), entries, "no value was given out");
}
