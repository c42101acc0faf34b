use sealpod_api_server::store::ProjectRef;
use serde_json::{Value, json};

use crate::support::{Call, O, Reply, Server, time};

const SECRETS: &str = "/api/orgs/default/projects/shop/envs/local/secrets";

fn secret(server: &Server, method: &str, key: &str) -> Call {
    server.admin(method, &format!("{SECRETS}/{key}"))
}

#[tokio::test]
async fn a_secret_is_set_read_listed_and_deleted() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    let made = secret(&server, "PUT", "db")
        .json(json!({"value": "one", "description": "d"}))
        .status(201)
        .await;
    assert_eq!((&made.body["key"], &made.body["version"]), (&json!("db"), &json!(1)));
    assert!(made.body.get("value").is_none());
    assert_eq!(
        server.admin("GET", made.header("location")).status(200).await.body["value"],
        "one"
    );
    let again = secret(&server, "PUT", "db")
        .json(json!({"value": "two"}))
        .status(200)
        .await;
    assert_eq!(
        (&again.body["id"], &again.body["version"]),
        (&made.body["id"], &json!(2))
    );

    let read = secret(&server, "GET", "db").status(200).await;
    assert_eq!(
        (&read.body["value"], &read.body["version"], &read.body["encoding"]),
        (&json!("two"), &json!(2), &json!("utf8"))
    );
    let listed = server.admin("GET", SECRETS).status(200).await;
    assert_eq!(
        (&listed.body[0]["key"], &listed.body[0]["version"]),
        (&json!("db"), &json!(2))
    );
    assert_eq!(listed.body[0]["description"], "d");
    let versions = secret(&server, "GET", "db/versions").status(200).await;
    assert_eq!((versions.list().len(), &versions.body[0]["version"]), (2, &json!(2)));
    assert_eq!(versions.body[0]["created_by"], "admin-key");
    // Both planes show one data model.
    assert_eq!(
        shop.consumer("/secrets/db?environment=local").status(200).await.body["value"],
        "two"
    );

    secret(&server, "DELETE", "db").status(204).await;
    secret(&server, "GET", "db").problem(404, "not_found").await;
    secret(&server, "DELETE", "db").problem(404, "not_found").await;
    assert!(server.admin("GET", SECRETS).status(200).await.list().is_empty());
    shop.consumer("/secrets/db?environment=local").status(404).await;
    let third = secret(&server, "PUT", "db")
        .json(json!({"value": "three"}))
        .status(201)
        .await;
    assert_eq!(third.body["version"], 3, "numbering goes on");
}

#[tokio::test]
async fn a_deleted_secret_stays_in_other_environments() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    shop.admin("POST", "/environments")
        .json(json!({"name": "prod"}))
        .status(201)
        .await;
    server.put("shop", "local", "db", "l").await;
    server.put("shop", "prod", "db", "p").await;
    secret(&server, "DELETE", "db").status(204).await;
    let other = server
        .admin("GET", &format!("{O}/projects/shop/envs/prod/secrets/db"))
        .status(200)
        .await;
    assert_eq!(other.body["value"], "p");
}

#[tokio::test]
async fn keys_and_values_follow_their_rules() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    let put = |key: &str, body| secret(&server, "PUT", key).json(body);
    for bad in [".hidden", "-a", "a%2Fb", "a%20b", &"a".repeat(201)] {
        put(bad, json!({"value": "v"})).invalid("key").await;
    }
    // A name that the other plane made can be read and set, percent-encoded.
    shop.secret("a/b").await;
    put("a%2Fb", json!({"value": "v"})).status(201).await;
    assert_eq!(secret(&server, "GET", "a%2Fb").status(200).await.body["key"], "a/b");
    put("k", json!({})).invalid("value").await;
    put("k", json!({"value": ""})).invalid("value").await;
    put("k", json!({"value": "v", "expiresAt": time(1)}))
        .invalid("expiresAt")
        .await;
    put(
        "k",
        json!({"value": "v", "expires_at": time(1_000), "not_before": time(2_000)}),
    )
    .invalid("expires_at")
    .await;
    put("k", json!({"value": "v", "expires_at": "tomorrow"}))
        .invalid("expires_at")
        .await;
    let binary = put("k", json!({"value": "AP8=", "encoding": "base64"}))
        .status(201)
        .await;
    assert_eq!(binary.body["version"], 1);
    assert_eq!(secret(&server, "GET", "k").status(200).await.body["encoding"], "base64");
    put("future", json!({"value": "v", "not_before": time(60_000)}))
        .status(201)
        .await;
    secret(&server, "GET", "future").problem(404, "not_found").await;
    // What many programs write for "never", and the last second there is.
    put("never", json!({"value": "v", "expires_at": "9999-12-31T23:59:59Z"}))
        .status(201)
        .await;
    let versions = secret(&server, "GET", "never/versions").status(200).await;
    assert_eq!(versions.body[0]["expires_at"], "9999-12-31T23:59:59Z");
    secret(&server, "GET", "never").status(200).await;
    let listed = server
        .admin("GET", &format!("{SECRETS}?after=a/b&limit=1"))
        .status(200)
        .await;
    assert_eq!((listed.list().len(), &listed.body[0]["key"]), (1, &json!("future")));
    assert!(listed.body[0]["version"].is_null());
    server
        .admin("GET", &format!("{SECRETS}?limit=0"))
        .invalid("limit")
        .await;
    server
        .admin("GET", &format!("{SECRETS}?limit=1001"))
        .invalid("limit")
        .await;
}

#[tokio::test]
async fn rules_decide_what_a_service_account_may() {
    let server = Server::start().await;
    server.application("shop").await;
    for key in ["db-1", "db-2", "web"] {
        server.put("shop", "local", key, "v").await;
    }
    let account = server
        .account(
            "ci",
            &[["shop", "local", "db-*", "read"], ["shop", "local", "db-2", "write"]],
        )
        .await;
    let call = |method: &str, key: &str| server.call(method, &format!("{SECRETS}/{key}")).key(&account.key);
    let body = json!({"value": "w"});
    call("GET", "db-1").status(200).await;
    call("GET", "db-1/versions").status(200).await;
    call("PUT", "db-1").json(body.clone()).problem(403, "forbidden").await;
    call("DELETE", "db-1").problem(403, "forbidden").await;
    call("PUT", "db-2").json(body).status(200).await;
    call("GET", "web").problem(403, "forbidden").await;
    // Whether it exists makes no difference to who may not know.
    let (absent, present) = (
        call("GET", "nothing").status(403).await,
        call("GET", "web").status(403).await,
    );
    assert_eq!(absent.text, present.text);
    let listed = server.call("GET", SECRETS).key(&account.key).status(200).await;
    let keys: Vec<_> = listed.list().iter().map(|item| item["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["db-1", "db-2"]);

    let stranger = server.account("stranger", &[["bank", "*", "*", "write"]]).await;
    server
        .call("GET", SECRETS)
        .key(&stranger.key)
        .problem(403, "forbidden")
        .await;
    server
        .call("GET", &format!("{SECRETS}/db-1"))
        .key(&stranger.key)
        .problem(403, "forbidden")
        .await;
}

#[tokio::test]
async fn a_project_scoped_account_reaches_nothing_else() {
    let server = Server::start().await;
    server.application("shop").await;
    server.application("bank").await;
    server.put("shop", "local", "a", "v").await;
    server.put("bank", "local", "a", "v").await;
    let body = json!({"name": "scoped", "project": "bank"});
    let made = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await;
    server.grant(&made.text_at("id"), ["*", "*", "*", "write"]).await;
    let read = |project: &str| {
        let path = format!("{O}/projects/{project}/envs/local/secrets/a");
        server.call("GET", &path).key(&made.text_at("api_key"))
    };
    read("bank").status(200).await;
    read("shop").problem(403, "forbidden").await;
}

#[tokio::test]
async fn refusals_are_on_record_at_a_bounded_rate() {
    let server = Server::start().await;
    server.application("shop").await;
    let account = server.account("ci", &[]).await;
    for _ in 0..40 {
        server
            .call("GET", &format!("{SECRETS}/db"))
            .key(&account.key)
            .status(403)
            .await;
    }
    let entries = server.audit().await;
    let denied: Vec<_> = entries.iter().filter(|entry| entry.outcome == "denied").collect();
    assert_eq!(denied.len(), 30);
    assert_eq!(
        (denied[0].action.as_str(), denied[0].resource_name.as_deref()),
        ("secret.read", Some("db"))
    );
    assert_eq!(denied[0].actor_name, "ci");
    // Nor can a long path write more than a name holds.
    let other = server.account("other", &[]).await;
    let call = server.call("GET", &format!("{SECRETS}/{}", "%C3%A9".repeat(2_000)));
    call.key(&other.key).status(403).await;
    assert_eq!(server.audit().await[0].resource_name, Some("é".repeat(200)));
}

#[tokio::test]
async fn lists_of_any_length_are_sent_in_pieces_and_whole() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let all = format!("{O}/projects/shop/envs/local/secrets");
    let limited = server.account("limited", &[["shop", "local", "k-0*", "read"]]).await;
    app.secret("many").await;
    let item = json!({"environmentSlug": "local", "value": "v"});
    let items = Value::Array(vec![item; 450]);
    app.admin("POST", "/secrets/many/values").json(items).status(200).await;
    let listed = server.admin("GET", &format!("{all}/many/versions")).status(200).await;
    let numbers: Vec<_> = listed
        .list()
        .iter()
        .map(|item| item["version"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=450).rev().collect::<Vec<_>>());
    assert!(listed.headers.get("content-length").is_none(), "it is a stream");

    // Behind the server's back: quicker than by as many requests.
    let project = server.store.project(ProjectRef::slug("default", "shop")).await.unwrap();
    let other = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 449)
        INSERT INTO secrets (id, project_id, name, created_at, updated_at)
        SELECT randomblob(16), ?1, printf('k-%03d', i), 0, 0 FROM n";
    other.execute(sql, [project.id.0.as_bytes()]).unwrap();
    let sql = "INSERT INTO versions (id, secret_id, environment_id, number, is_enabled, created_at, created_by_type,
            created_by_name, sealed)
        SELECT randomblob(16), s.id, v.environment_id, 1, 1, 0, 'system', 'test', v.sealed
        FROM secrets s, (SELECT environment_id, sealed FROM versions LIMIT 1) v WHERE s.name GLOB 'k-*'";
    other.execute(sql, []).unwrap();
    let keys = |reply: &Reply| -> Vec<String> {
        let keys = reply.list().iter().map(|item| item["key"].as_str().unwrap().to_owned());
        keys.collect()
    };
    let listed = server.admin("GET", &all).status(200).await;
    assert_eq!(keys(&listed).len(), 451);
    assert!(keys(&listed).is_sorted_by(|a, b| a < b));
    assert_eq!(server.metadata().await["count"], 451);
    let rest = server.admin("GET", &format!("{all}?after=k-199")).status(200).await;
    assert_eq!(keys(&rest), keys(&listed)[200..]);
    assert_eq!(server.metadata().await["count"], 251);
    let page = server
        .admin("GET", &format!("{all}?after=k-199&limit=3"))
        .status(200)
        .await;
    assert_eq!(keys(&page), ["k-200", "k-201", "k-202"]);
    assert_eq!(server.metadata().await["count"], 3);
    let own = server.call("GET", &all).key(&limited.key).status(200).await;
    assert_eq!(keys(&own), keys(&listed)[..100]);
    assert_eq!(server.metadata().await["count"], 100);

    // As many deletions, each of its own.
    let trash = format!("{O}/trash");
    for key in &keys(&listed)[..250] {
        server.admin("DELETE", &format!("{all}/{key}")).status(204).await;
    }
    let thrown = server.admin("GET", &trash).status(200).await;
    let names: Vec<_> = thrown
        .list()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    let newest_first: Vec<_> = keys(&listed)[..250].iter().rev().cloned().collect();
    assert_eq!(names, newest_first);
    let page = server.admin("GET", &format!("{trash}?limit=2")).status(200).await;
    assert_eq!(page.list(), &thrown.list()[..2]);
}
