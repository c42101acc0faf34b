use serde_json::json;

use crate::support::{Account, Call, O, Server, time};

fn bundle(server: &Server, account: &Account, query: &str) -> Call {
    let path = format!("{O}/projects/shop/envs/local/bundle{query}");
    server.call("GET", &path).key(&account.key)
}

async fn shop() -> Server {
    let server = Server::start().await;
    server.application("shop").await;
    for (key, value) in [("a", "1"), ("db-1", "2"), ("db-2", "3"), ("web", "4")] {
        server.put("shop", "local", key, value).await;
    }
    server
}

#[tokio::test]
async fn a_bundle_holds_what_was_asked_for_and_says_what_is_missing_and_denied() {
    let server = shop().await;
    let account = server
        .account("ci", &[["shop", "local", "db-*", "read"], ["shop", "*", "a", "read"]])
        .await;
    let all = bundle(&server, &account, "").status(200).await;
    assert_eq!(
        all.body["secrets"],
        json!({
            "a": {"value": "1", "version": 1, "encoding": "utf8"},
            "db-1": {"value": "2", "version": 1, "encoding": "utf8"},
            "db-2": {"value": "3", "version": 1, "encoding": "utf8"},
        })
    );
    assert_eq!((&all.body["missing"], &all.body["denied"]), (&json!([]), &json!([])));
    assert!(all.body["next_change_at"].is_null());
    assert_eq!(all.header("etag"), format!("\"{}\"", all.text_at("etag")));

    let some = bundle(&server, &account, "?key=a&key=db-9&key=web&key=nothing&pattern=*-2")
        .status(200)
        .await;
    let keys: Vec<_> = some.body["secrets"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["a", "db-2"]);
    assert_eq!(some.body["missing"], json!(["db-9"]));
    // What the rules refuse is denied whether it exists or not.
    assert_eq!(some.body["denied"], json!(["nothing", "web"]));
    let names = bundle(&server, &account, "?values=false&key=a").status(200).await;
    assert_eq!(names.body["secrets"], json!({"a": {"version": 1}}));
}

#[tokio::test]
async fn a_bundle_reads_pinned_versions_only_while_they_can_be_read() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    server.put("shop", "local", "a", "new").await;
    let pinned = bundle(&server, &account, "?version=a%3A1&key=a&key=web")
        .status(200)
        .await;
    assert_eq!(
        pinned.body["secrets"]["a"],
        json!({"value": "1", "version": 1, "encoding": "utf8"})
    );
    let missing = bundle(&server, &account, "?version=a%3A9&version=web%3A1")
        .status(200)
        .await;
    assert_eq!(
        (
            &missing.body["missing"],
            missing.body["secrets"].as_object().unwrap().len()
        ),
        (&json!(["a"]), 1)
    );
    let path = format!("{O}/projects/shop/envs/local/secrets/a");
    server
        .admin("PUT", &path)
        .json(json!({"value": "x", "not_before": time(60_000)}))
        .status(200)
        .await;
    let early = bundle(&server, &account, "?version=a%3A3").status(200).await;
    assert_eq!(early.body["missing"], json!(["a"]));
    assert!(early.body["next_change_at"].is_string());
}

#[tokio::test]
async fn configurations_need_a_rule_that_covers_them() {
    let server = shop().await;
    let entry = json!({"environmentSlug": "local", "key": "Flag", "value": "on"});
    server
        .admin("POST", "/api/management/applications/shop/configurations")
        .json(entry)
        .status(201)
        .await;
    let account = server.account("ci", &[["shop", "local", "a", "read"]]).await;
    bundle(&server, &account, "?configurations=true")
        .problem(403, "forbidden")
        .await;
    let rule = json!({
        "subject_type": "service_account", "subject_id": account.id, "project_pattern": "shop", "env_pattern": "local",
        "key_pattern": "none", "configurations": true, "permission": "read",
    });
    server.admin("POST", &format!("{O}/acl")).json(rule).status(201).await;
    let reply = bundle(&server, &account, "?configurations=true&key=a")
        .status(200)
        .await;
    assert_eq!(reply.body["configurations"], json!({"Flag": "on"}));
    let without = bundle(&server, &account, "?key=a").status(200).await;
    assert_eq!(without.body["configurations"], json!({}));
}

#[tokio::test]
async fn a_caller_without_any_right_gets_refusals_and_no_names() {
    let server = shop().await;
    let account = server.account("ci", &[]).await;
    let named = bundle(&server, &account, "?key=a&version=nothing%3A1")
        .status(200)
        .await;
    assert_eq!(
        (&named.body["denied"], &named.body["secrets"]),
        (&json!(["a", "nothing"]), &json!({}))
    );
    bundle(&server, &account, "").problem(403, "forbidden").await;
    let pattern = bundle(&server, &account, "?pattern=*").status(200).await;
    assert_eq!(
        (&pattern.body["secrets"], &pattern.body["denied"]),
        (&json!({}), &json!([]))
    );
    server
        .call("GET", &format!("{O}/projects/shop/envs/nothing/bundle?key=a"))
        .key(&account.key)
        .status(404)
        .await;
    server
        .call("GET", "/api/orgs/other/projects/shop/envs/local/bundle")
        .key(&account.key)
        .status(404)
        .await;
}

#[tokio::test]
async fn the_post_form_is_the_same_read() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let path = format!("{O}/projects/shop/envs/local/bundle");
    let post = |body| server.call("POST", &path).key(&account.key).json(body);
    let posted = post(json!({"key": ["a", "nothing"], "pattern": ["db-*"], "version": ["web:1"]}))
        .status(200)
        .await;
    let got = bundle(&server, &account, "?version=web%3A1&pattern=db-*&key=nothing&key=a")
        .status(200)
        .await;
    assert_eq!(posted.body, got.body);
    let etag = got.header("etag").to_owned();
    let same = post(json!({"key": ["nothing", "a"], "pattern": ["db-*"], "version": ["web:1"]}));
    same.header("if-none-match", &etag).status(304).await;
    post(json!({"keys": []})).invalid("keys").await;
    post(json!({"wait": 121})).invalid("wait").await;
    post(json!({"pattern": ["{"]})).invalid("pattern").await;
    post(json!({"key": vec!["a"; 501]})).invalid("key").await;
    bundle(&server, &account, "?keys=a").invalid("keys").await;
    bundle(&server, &account, "?version=a").invalid("version").await;
}

#[tokio::test]
async fn the_etag_stands_for_what_was_asked_by_whom_and_what_was_found() {
    let server = shop().await;
    let one = server.account("one", &[["shop", "local", "*", "read"]]).await;
    let two = server.account("two", &[["shop", "local", "*", "read"]]).await;
    let etag = async |account: &Account, query: &str| bundle(&server, account, query).status(200).await.text_at("etag");
    let first = etag(&one, "?key=a").await;
    assert_eq!(etag(&one, "?key=a").await, first);
    assert_ne!(etag(&two, "?key=a").await, first);
    assert_ne!(etag(&one, "?key=a&key=web").await, first);
    assert_ne!(etag(&one, "?key=a&values=false").await, first);
    server.put("shop", "local", "web", "changed").await;
    assert_eq!(etag(&one, "?key=a").await, first, "another key changed");
    server.put("shop", "local", "a", "1").await;
    assert_ne!(
        etag(&one, "?key=a").await,
        first,
        "a new version, though of the same value"
    );
    bundle(&server, &one, "?key=a")
        .header("if-none-match", &format!("\"{first}\""))
        .status(200)
        .await;
    let now = etag(&one, "?key=a").await;
    let same = bundle(&server, &one, "?key=a")
        .header("if-none-match", &format!("W/\"x\", \"{now}\""))
        .status(304)
        .await;
    assert_eq!(
        (same.header("etag"), same.text.as_str()),
        (format!("\"{now}\"").as_str(), "")
    );
}

#[tokio::test]
async fn one_entry_names_every_key_and_version_that_was_given_out() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "{a,db-1}", "read"]]).await;
    bundle(&server, &account, "?key=a&key=db-1&key=web").status(200).await;
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.outcome.as_str()),
        ("secret.read", "success")
    );
    let metadata = server.metadata().await;
    assert_eq!(
        (&metadata["versions"], &metadata["denied"]),
        (&json!({"a": 1, "db-1": 1}), &json!(["web"]))
    );
    bundle(&server, &account, "?values=false").status(200).await;
    assert_eq!(server.audit().await[0].action, "secret.list");
    bundle(&server, &account, "?key=web").status(200).await;
    assert_eq!(server.audit().await[0].outcome, "denied");
}

#[tokio::test]
async fn refused_names_go_on_record_at_a_bounded_rate_also_beside_what_is_given_out() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "a", "read"]]).await;
    for _ in 0..40 {
        let reply = bundle(&server, &account, "?key=a&key=web").status(200).await;
        assert_eq!(reply.body["denied"], json!(["web"]));
    }
    let entries = server.audit().await;
    let reads: Vec<_> = entries.iter().filter(|entry| entry.action == "secret.read").collect();
    assert_eq!(reads.len(), 40, "what was given out is always on record");
    assert!(
        reads
            .iter()
            .all(|entry| entry.metadata.contains(r#""versions":{"a":1}"#))
    );
    let naming = reads.iter().filter(|entry| entry.metadata.contains("web"));
    assert_eq!(naming.count(), 30);
}

#[tokio::test]
async fn the_admin_key_reads_bundles_too() {
    let server = shop().await;
    let reply = server
        .admin("GET", &format!("{O}/projects/shop/envs/local/bundle?key=a&key=x"))
        .status(200)
        .await;
    assert_eq!(
        (&reply.body["missing"], &reply.body["denied"]),
        (&json!(["x"]), &json!([]))
    );
}

#[tokio::test]
async fn an_answer_is_never_compressed_so_its_length_says_nothing_of_what_stands_beside_a_secret() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let reply = bundle(&server, &account, "")
        .header("accept-encoding", "gzip, zstd, br, deflate")
        .status(200)
        .await;
    assert!(!reply.headers.contains_key("content-encoding") && !reply.headers.contains_key("transfer-encoding"));
    assert_eq!(reply.header("content-length"), reply.text.len().to_string());
    assert_eq!(reply.body["secrets"]["a"]["value"], "1");
}

#[tokio::test]
async fn an_answer_may_be_large() {
    let server = shop().await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let value = "v".repeat(700_000);
    for key in ["large-1", "large-2"] {
        server.put("shop", "local", key, &value).await;
    }
    let all = bundle(&server, &account, "").status(200).await;
    assert_eq!(all.body["secrets"].as_object().unwrap().len(), 6);
    assert_eq!(all.body["secrets"]["large-2"]["value"], value);
    let same = bundle(&server, &account, "").header("if-none-match", all.header("etag"));
    same.status(304).await;
}
