use serde_json::json;

use crate::support::{O, Server, time};

#[tokio::test]
async fn a_service_account_is_made_found_and_revoked() {
    let server = Server::start().await;
    server.application("shop").await;
    let path = format!("{O}/service-accounts");
    let name = "k8s/c1/shop/web";
    let body = json!({"name": name, "project": "shop", "labels": {"owner": "me"}});
    let made = server.admin("POST", &path).json(body.clone()).status(201).await;
    let key = made.text_at("api_key");
    assert!(key.starts_with("cr_sa_") && key.len() == 46);
    assert_eq!(made.text_at("key_prefix"), key[..12]);
    assert_eq!(
        (&made.body["project"], &made.body["labels"]["owner"]),
        (&json!("shop"), &json!("me"))
    );
    server.admin("POST", &path).json(body).problem(409, "conflict").await;

    let read = server.admin("GET", made.header("location")).status(200).await;
    assert!(read.body.get("api_key").is_none() && read.body["last_used_at"].is_null());
    server.account("other", &[]).await;
    assert_eq!(server.admin("GET", &path).status(200).await.list().len(), 2);
    let found = server
        .admin("GET", &format!("{path}?name=k8s%2Fc1%2Fshop%2Fweb"))
        .status(200)
        .await;
    assert_eq!(found.list(), std::slice::from_ref(&read.body));
    assert!(
        server
            .admin("GET", &format!("{path}?name=k8s"))
            .status(200)
            .await
            .list()
            .is_empty()
    );

    let rule = server.grant(&made.text_at("id"), ["shop", "*", "*", "read"]).await;
    server.admin("DELETE", made.header("location")).status(204).await;
    server
        .admin("GET", made.header("location"))
        .problem(404, "not_found")
        .await;
    server
        .admin("GET", &format!("{O}/acl/{rule}"))
        .problem(404, "not_found")
        .await;
    server
        .admin("POST", &format!("{}/rotate", made.header("location")))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn accounts_follow_their_rules() {
    let server = Server::start().await;
    let create = |body| server.admin("POST", &format!("{O}/service-accounts")).json(body);
    create(json!({"name": ""})).invalid("name").await;
    create(json!({"name": "a".repeat(401)})).invalid("name").await;
    create(json!({"name": "a", "project": "nothing"}))
        .problem(404, "not_found")
        .await;
    create(json!({"name": "a", "expires_at": time(-1_000)}))
        .invalid("expires_at")
        .await;
    create(json!({"name": "a", "expiresAt": time(1_000)}))
        .invalid("expiresAt")
        .await;
}

#[tokio::test]
async fn an_account_ends_at_its_deadline() {
    let server = Server::start().await;
    let body = json!({"name": "short", "expires_at": time(3_000)});
    let key = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await
        .text_at("api_key");
    let projects = || server.call("GET", &format!("{O}/projects")).key(&key);
    projects().status(200).await;
    tokio::time::sleep(std::time::Duration::from_millis(3_100)).await;
    projects().status(401).await;
}

#[tokio::test]
async fn a_service_account_never_administers() {
    let server = Server::start().await;
    let account = server.account("ci", &[["*", "*", "*", "admin"]]).await;
    for (method, path) in [
        ("GET", "service-accounts".to_owned()),
        ("POST", "service-accounts".to_owned()),
        ("GET", format!("service-accounts/{}", account.id)),
        ("DELETE", format!("service-accounts/{}", account.id)),
        ("POST", format!("service-accounts/{}/rotate", account.id)),
        ("GET", "acl".to_owned()),
        ("POST", "acl".to_owned()),
        ("GET", format!("acl/{}", account.id)),
        ("DELETE", format!("acl/{}", account.id)),
    ] {
        let call = server.call(method, &format!("{O}/{path}")).key(&account.key);
        let body = json!({
            "name": "x", "subject_type": "service_account", "subject_id": account.id, "project_pattern": "*",
            "env_pattern": "*", "permission": "admin",
        });
        let call = match (method, path.as_str()) {
            ("POST", "acl") => call.json({
                let mut rule = body;
                rule.as_object_mut().unwrap().remove("name");
                rule
            }),
            ("POST", "service-accounts") => call.json(json!({"name": "x"})),
            _ => call,
        };
        call.problem(403, "forbidden").await;
    }
    server
        .call("GET", "/api/orgs/other/acl")
        .key(&account.key)
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn accounts_are_listed_in_pieces() {
    let server = Server::start().await;
    for name in ["c", "a", "b"] {
        server.account(name, &[]).await;
    }
    let list = async |query: &str| {
        let reply = server
            .admin("GET", &format!("{O}/service-accounts{query}"))
            .status(200)
            .await;
        let name = |account: &serde_json::Value| account["name"].as_str().unwrap().to_owned();
        reply.list().iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["a", "b", "c"]);
    assert_eq!(list("?limit=2").await, ["a", "b"]);
    assert_eq!(list("?limit=2&after=b").await, ["c"]);
    assert_eq!(list("?name=b&limit=1").await, ["b"]);
    assert!(list("?name=b&after=b").await.is_empty());
    let bad = format!("{O}/service-accounts?limit=0");
    server.admin("GET", &bad).invalid("limit").await;
}

/// Moves what the database says of an account into the past.
fn age(server: &Server, id: &str, column: &str, days: i64) {
    let at = sealpod_core::Time::now()
        .plus_seconds(-days * 24 * 60 * 60)
        .microseconds();
    let id: uuid::Uuid = id.parse().unwrap();
    let connection = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    let sql = format!("UPDATE service_accounts SET {column} = ?2 WHERE id = ?1");
    assert_eq!(connection.execute(&sql, (id.as_bytes(), at)).unwrap(), 1);
}

#[tokio::test]
async fn orphans_are_accounts_that_an_operator_made_and_nobody_used_for_a_week() {
    let server = Server::start().await;
    let create = async |name: &str, labels: serde_json::Value| {
        let path = format!("{O}/service-accounts");
        let body = json!({"name": name, "labels": labels});
        server.admin("POST", &path).json(body).status(201).await.text_at("id")
    };
    let owned = json!({"sealpod.dev/owner": "c1/shop/uid/web"});
    let by_hand = create("by-hand", json!({"team": "shop"})).await;
    let in_use = create("in-use", owned.clone()).await;
    let never_used = create("never-used", owned.clone()).await;
    let left_behind = create("left-behind", owned.clone()).await;
    create("new", owned.clone()).await;
    let revoked = create("revoked", owned).await;
    for id in [&by_hand, &in_use, &never_used, &left_behind, &revoked] {
        age(&server, id, "created_at", 30);
    }
    age(&server, &in_use, "last_used_at", 6);
    age(&server, &left_behind, "last_used_at", 8);
    server
        .admin("DELETE", &format!("{O}/service-accounts/{revoked}"))
        .status(204)
        .await;

    let orphans = async |query: &str| {
        let reply = server.admin("GET", &format!("{O}/orphans{query}")).status(200).await;
        let name = |account: &serde_json::Value| account["name"].as_str().unwrap().to_owned();
        (reply.list().iter().map(name).collect::<Vec<_>>(), reply)
    };
    let (names, reply) = orphans("").await;
    assert_eq!(names, ["left-behind", "never-used"]);
    let [left, never] = &reply.list()[..] else {
        panic!("{}", reply.text)
    };
    assert!(left["last_used_at"].is_string() && never["last_used_at"].is_null());
    assert!(left.get("api_key").is_none() && left["labels"]["sealpod.dev/owner"].is_string());
    assert_eq!(orphans("?limit=1").await.0, ["left-behind"]);
    assert_eq!(orphans("?limit=1&after=left-behind").await.0, ["never-used"]);
}

#[tokio::test]
async fn the_scope_of_an_account_is_the_project_itself_and_not_its_name() {
    let server = Server::start().await;
    let projects = format!("{O}/projects");
    let create = |name: &str| server.admin("POST", &projects).json(json!({"name": name}));
    create("shop").status(201).await;
    server.put("shop", "prod", "db", "ours").await;
    let body = json!({"name": "ci", "project": "shop"});
    let made = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await;
    server.grant(&made.text_at("id"), ["*", "*", "*", "write"]).await;
    let key = made.text_at("api_key");
    let read = |project: &str| {
        server
            .call("GET", &format!("{projects}/{project}/envs/prod/secrets/db"))
            .key(&key)
    };
    let scope = async || {
        server
            .admin("GET", made.header("location"))
            .status(200)
            .await
            .text_at("project")
    };
    read("shop").status(200).await;

    let rename = server
        .admin("PATCH", &format!("{projects}/shop"))
        .json(json!({"name": "store"}));
    rename.status(200).await;
    assert_eq!(read("store").status(200).await.text_at("value"), "ours");
    assert_eq!(scope().await, "store");

    // Another project takes the name: it is not the one that the account was made for.
    create("shop").status(201).await;
    server.put("shop", "prod", "db", "theirs").await;
    read("shop").problem(403, "forbidden").await;

    server.admin("DELETE", &format!("{projects}/store")).status(204).await;
    read("store").problem(404, "not_found").await;
    create("store").status(201).await;
    server.put("store", "prod", "db", "theirs").await;
    read("store").problem(403, "forbidden").await;
    let seen = server.call("GET", &projects).key(&key).status(200).await;
    assert!(seen.list().is_empty(), "the key lives, and reaches nothing");
}

#[tokio::test]
async fn a_rotated_account_has_two_keys_until_the_overlap_ends() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let rotate = |body: serde_json::Value| {
        let path = format!("{O}/service-accounts/{}/rotate", account.id);
        server.admin("POST", &path).json(body).status(200)
    };
    let works = async |key: &str| server.call("GET", O).key(key).send().await.status;
    let second = rotate(json!({"overlap_seconds": 3_600})).await;
    assert!(second.text_at("old_key_expires_at") > time(3_500_000));
    let second = second.text_at("api_key");
    assert_eq!((works(&account.key).await, works(&second).await), (200, 200));
    // Somebody who rotated and died before storing the key rotates again; the key in use is not killed by that.
    let third = rotate(json!({"overlap_seconds": 3_600})).await.text_at("api_key");
    assert_eq!((works(&account.key).await, works(&third).await), (200, 200));
    let last = rotate(json!({})).await;
    assert!(last.body["old_key_expires_at"].is_null());
    for dead in [&account.key, &second, &third] {
        assert_eq!(works(dead).await, 401);
    }
    assert_eq!(works(&last.text_at("api_key")).await, 200);
}
