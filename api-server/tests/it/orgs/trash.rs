//! What is deleted on one plane is gone from all of them, comes back from the trash, or goes for good.

use sealpod_api_server::audit::{By, StoredEntry};
use sealpod_core::Time;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Application, Call, M, O, Reply, Server, User};

const TRASH: &str = "/api/orgs/default/trash";
const SECRETS: &str = "/api/orgs/default/projects/shop/envs/local/secrets";

async fn trash(server: &Server) -> Vec<Value> {
    server.admin("GET", TRASH).status(200).await.list().clone()
}

/// The id of the newest deletion.
async fn newest(server: &Server) -> String {
    trash(server).await[0]["id"].as_str().unwrap().to_owned()
}

fn restore(server: &Server, id: &str) -> Call {
    server.admin("POST", &format!("{TRASH}/{id}/restore"))
}

async fn restore_newest(server: &Server) -> Reply {
    restore(server, &newest(server).await).status(200).await
}

async fn delete(server: &Server, path: &str) {
    server.admin("DELETE", path).status(204).await;
}

fn secret(server: &Server, method: &str, key: &str) -> Call {
    server.admin(method, &format!("{SECRETS}/{key}"))
}

async fn configuration(app: &Application<'_>, key: &str, value: &str) -> Reply {
    app.admin("POST", "/configurations")
        .json(json!({"environmentSlug": "local", "key": key, "value": value}))
        .status(201)
        .await
}

/// How many rows of the file there are for each table that a project fills.
fn rows(server: &Server) -> Vec<(String, i64)> {
    let file = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    [
        "projects",
        "environments",
        "secrets",
        "versions",
        "hidden_versions",
        "configurations",
        "api_keys",
        "service_accounts",
        "acl_rules",
        "trash",
    ]
    .map(|table| {
        let count = file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
        (table.to_owned(), count.unwrap())
    })
    .to_vec()
}

#[tokio::test]
async fn every_deletion_of_either_plane_is_listed_newest_first_with_who_and_until_when() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    assert_eq!(trash(&server).await, Vec::<Value>::new());
    for value in ["1", "2"] {
        server.put("shop", "local", "db", value).await;
    }
    shop.secret("slot").await;
    configuration(&shop, "k", "v").await;
    secret(&server, "DELETE", "db").status(204).await;
    shop.admin("DELETE", "/secrets/slot").status(204).await;
    shop.admin("DELETE", "/configurations/local/k").status(204).await;
    shop.admin("DELETE", "/environments/local").status(204).await;
    delete(&server, &format!("{O}/projects/shop")).await;

    let listed = trash(&server).await;
    let said: Vec<_> = listed
        .iter()
        .map(|item| (item["kind"].as_str().unwrap(), item["name"].as_str().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            ("project", "shop"),
            ("environment", "local"),
            ("configuration", "k"),
            ("secret", "slot"),
            ("secret_versions", "db"),
        ]
    );
    assert_eq!(listed[4]["versions"], json!([1, 2]));
    assert_eq!(
        (&listed[4]["environment"], &listed[4]["project"]),
        (&json!("local"), &json!("shop"))
    );
    assert!(listed[3].get("environment").is_none() && listed[0].get("versions").is_none());
    for item in &listed {
        assert_eq!(item["deleted_by"], "admin-key");
        let time = |field: &str| item[field].as_str().unwrap().parse::<Time>().unwrap();
        assert_eq!(time("purge_at"), time("deleted_at").plus_seconds(30 * 24 * 3_600));
    }

    let one = format!("{TRASH}/{}", listed[4]["id"].as_str().unwrap());
    assert_eq!(server.admin("GET", &one).status(200).await.body, listed[4]);
    let first = server.admin("GET", &format!("{TRASH}?limit=2")).status(200).await;
    assert_eq!(first.list(), &listed[..2]);
    let after = first.body[1]["id"].as_str().unwrap();
    let second = server
        .admin("GET", &format!("{TRASH}?limit=2&after={after}"))
        .status(200)
        .await;
    assert_eq!(second.list(), &listed[2..4]);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("after=x", "after"),
        ("after=", "after"),
        ("kind=secret", "kind"),
    ] {
        server.admin("GET", &format!("{TRASH}?{query}")).invalid(field).await;
    }
}

#[tokio::test]
async fn deleted_versions_come_back_with_their_numbers_and_wake_who_waits() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    for value in ["1", "2"] {
        server.put("shop", "local", "db", value).await;
    }
    secret(&server, "DELETE", "db").status(204).await;
    let bundle = "/api/orgs/default/projects/shop/envs/local/bundle?key=db";
    let state = server.admin("GET", bundle).status(200).await;
    assert_eq!(state.body["missing"], json!(["db"]));
    let poll = server.admin("GET", &format!("{bundle}&wait=60"));
    let waiting = tokio::spawn(poll.header("if-none-match", state.header("etag")).send());
    while server.store.stats().watchers == 0 {
        tokio::task::yield_now().await;
    }
    let restored = restore_newest(&server).await;
    let secret_id = restored.body["id"].clone();
    assert_eq!(
        restored.body,
        json!({
            "kind": "secret_versions", "id": secret_id, "name": "db", "project": "shop", "environment": "local",
            "versions": [1, 2],
        })
    );
    assert_eq!(waiting.await.unwrap().body["secrets"]["db"]["version"], 2);
    let entry = &server.audit().await[1];
    assert_eq!(
        (entry.action.as_str(), entry.resource_name.as_deref()),
        ("secret.restore", Some("db"))
    );
    let read = secret(&server, "GET", "db").status(200).await;
    assert_eq!((&read.body["value"], &read.body["version"]), (&json!("2"), &json!(2)));
    assert_eq!(
        shop.consumer("/secrets/db?environment=local").status(200).await.body["value"],
        "2"
    );
    assert_eq!(server.put("shop", "local", "db", "3").await.body["version"], 3);
    assert!(trash(&server).await.is_empty());
}

#[tokio::test]
async fn a_key_that_was_set_again_is_not_overrun_by_what_was_deleted() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "1").await;
    secret(&server, "DELETE", "db").status(204).await;
    let first = newest(&server).await;
    server.put("shop", "local", "db", "2").await;
    let refused = restore(&server, &first).problem(409, "conflict").await;
    assert!(
        refused.text_at("detail").contains("delete it there first"),
        "{}",
        refused.text
    );
    assert_eq!(secret(&server, "GET", "db").status(200).await.body["value"], "2");

    // Both deletions are kept apart, whatever order they are undone in.
    secret(&server, "DELETE", "db").status(204).await;
    let second = newest(&server).await;
    restore(&server, &first).status(200).await;
    restore(&server, &second).problem(409, "conflict").await;
    assert_eq!(server.put("shop", "local", "db", "3").await.body["version"], 3);
    secret(&server, "DELETE", "db").status(204).await;
    let third = trash(&server).await[0].clone();
    assert_eq!(third["versions"], json!([1, 3]));
    restore(&server, &second).status(200).await;
    assert_eq!(secret(&server, "GET", "db").status(200).await.body["version"], 2);
    secret(&server, "DELETE", "db").status(204).await;
    restore(&server, third["id"].as_str().unwrap()).status(200).await;
    let versions = secret(&server, "GET", "db/versions").status(200).await;
    let numbers: Vec<_> = versions
        .list()
        .iter()
        .map(|it| it["version"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [3, 1]);
}

#[tokio::test]
async fn a_secret_that_the_other_plane_deleted_comes_back_in_every_environment() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    shop.admin("POST", "/environments")
        .json(json!({"name": "prod"}))
        .status(201)
        .await;
    for env in ["local", "prod"] {
        server.put("shop", env, "db", env).await;
    }
    let before = shop.admin("GET", "/secrets/db").status(200).await;
    shop.admin("DELETE", "/secrets/db").status(204).await;
    secret(&server, "GET", "db").problem(404, "not_found").await;
    assert!(server.admin("GET", SECRETS).status(200).await.list().is_empty());
    let id = newest(&server).await;
    // A new secret of the name is another one, and stands in the way.
    assert_eq!(server.put("shop", "local", "db", "new").await.body["version"], 1);
    restore(&server, &id).problem(409, "conflict").await;
    shop.admin("DELETE", "/secrets/db?purge=true").status(204).await;
    let restored = restore(&server, &id).status(200).await;
    assert_eq!(
        (&restored.body["kind"], &restored.body["id"]),
        (&json!("secret"), &before.body["id"])
    );
    assert_eq!(shop.admin("GET", "/secrets/db").status(200).await.body, before.body);
    for env in ["local", "prod"] {
        let read = shop
            .consumer(&format!("/secrets/db?environment={env}"))
            .status(200)
            .await;
        assert_eq!(read.body["value"], env);
    }
}

#[tokio::test]
async fn an_environment_comes_back_with_what_was_live_in_it() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.put("shop", "local", "kept", "v").await;
    server.put("shop", "local", "gone", "v").await;
    configuration(&shop, "k", "c").await;
    secret(&server, "DELETE", "gone").status(204).await;
    let gone = newest(&server).await;
    delete(&server, &format!("{O}/projects/shop/envs/local")).await;
    let environment = newest(&server).await;
    let refused = restore(&server, &gone).problem(409, "conflict").await;
    assert!(refused.text_at("detail").contains("environment"), "{}", refused.text);

    restore(&server, &environment).status(200).await;
    assert_eq!(secret(&server, "GET", "kept").status(200).await.body["value"], "v");
    secret(&server, "GET", "gone").problem(404, "not_found").await;
    assert_eq!(
        shop.consumer("/configurations/k?environment=local")
            .status(200)
            .await
            .body["value"],
        "c"
    );
    restore(&server, &gone).status(200).await;
    secret(&server, "GET", "gone").status(200).await;

    delete(&server, &format!("{O}/projects/shop/envs/local")).await;
    let environment = newest(&server).await;
    let body = json!({"name": "local"});
    server
        .admin("POST", &format!("{O}/projects/shop/envs"))
        .json(body)
        .status(201)
        .await;
    restore(&server, &environment).problem(409, "conflict").await;
}

#[tokio::test]
async fn a_project_comes_back_without_its_application_key() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    shop.admin("POST", "/environments")
        .json(json!({"name": "old"}))
        .status(201)
        .await;
    shop.admin("DELETE", "/environments/old").status(204).await;
    let old = newest(&server).await;
    let before = server.admin("GET", &format!("{O}/projects/shop")).status(200).await;
    shop.admin("DELETE", "").status(204).await;
    let refused = restore(&server, &old).problem(409, "conflict").await;
    assert!(refused.text_at("detail").contains("project"), "{}", refused.text);

    let restored = restore_newest(&server).await;
    assert_eq!(
        (&restored.body["kind"], &restored.body["id"]),
        (&json!("project"), &before.body["id"])
    );
    assert!(
        restored
            .text_at("note")
            .contains("/api/management/applications/shop/rotate-key")
    );
    assert_eq!(
        server
            .admin("GET", &format!("{O}/projects/shop"))
            .status(200)
            .await
            .body,
        before.body
    );
    assert_eq!(secret(&server, "GET", "db").status(200).await.body["value"], "v");
    shop.admin("GET", "/environments/old").status(404).await;
    shop.consumer("/secrets/db?environment=local").status(401).await;
    let key = shop
        .admin("POST", "/rotate-key")
        .status(200)
        .await
        .text_at("plainApiKey");
    let read = server
        .call("GET", "/api/consumer/secrets/db?environment=local")
        .key(&key);
    assert_eq!(read.status(200).await.body["value"], "v");

    shop.admin("DELETE", "").status(204).await;
    let id = newest(&server).await;
    server.application("shop").await;
    let refused = restore(&server, &id).problem(409, "conflict").await;
    assert!(refused.text_at("detail").contains("rename"), "{}", refused.text);
    let body = json!({"name": "other"});
    server
        .admin("PATCH", &format!("{O}/projects/shop"))
        .json(body)
        .status(200)
        .await;
    restore(&server, &id).status(200).await;
}

#[tokio::test]
async fn a_configuration_comes_back_unless_its_key_was_given_anew() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    configuration(&shop, "k", "one").await;
    shop.admin("DELETE", "/configurations/local/k").status(204).await;
    let id = newest(&server).await;
    configuration(&shop, "k", "two").await;
    restore(&server, &id).problem(409, "conflict").await;
    shop.admin("DELETE", "/configurations/local/k").status(204).await;
    assert_eq!(restore(&server, &id).status(200).await.body["kind"], "configuration");
    assert_eq!(
        shop.consumer("/configurations/k?environment=local")
            .status(200)
            .await
            .body["value"],
        "one"
    );
    assert_eq!(server.audit().await[0].action, "config.restore");
}

#[tokio::test]
async fn what_is_restored_twice_at_once_comes_back_once() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    secret(&server, "DELETE", "db").status(204).await;
    let id = newest(&server).await;
    let calls = (0..8).map(|_| restore(&server, &id).send());
    let mut statuses: Vec<_> = futures::future::join_all(calls)
        .await
        .iter()
        .map(|it| it.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404, 404, 404, 404, 404, 404]);
    let restores = server
        .audit()
        .await
        .iter()
        .filter(|it| it.action == "secret.restore")
        .count();
    assert_eq!(restores, 1);
}

#[tokio::test]
async fn another_organizations_trash_is_as_good_as_none() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    secret(&server, "DELETE", "db").status(204).await;
    let id = newest(&server).await;
    let body = json!({"name": "acme"});
    server.admin("POST", "/api/orgs").json(body).status(201).await;
    assert!(
        server
            .admin("GET", "/api/orgs/acme/trash")
            .status(200)
            .await
            .list()
            .is_empty()
    );
    let (foreign, absent) = (id.clone(), Uuid::now_v7().to_string());
    for (method, end) in [("POST", "/restore"), ("DELETE", "")] {
        let call = |id: &str| server.admin(method, &format!("/api/orgs/acme/trash/{id}{end}"));
        let foreign = call(&foreign).problem(404, "not_found").await;
        assert_eq!(foreign.text, call(&absent).problem(404, "not_found").await.text);
        call("no-uuid").problem(404, "not_found").await;
    }
    let owner = server.member("acme", "olga@example.com", "owner").await;
    server
        .call("GET", TRASH)
        .bearer(&owner.token)
        .problem(404, "not_found")
        .await;
    restore(&server, &id).status(200).await;
}

#[tokio::test]
async fn each_role_sees_and_restores_what_it_may_write() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    for key in ["mine", "theirs"] {
        server.put("shop", "local", key, "v").await;
        secret(&server, "DELETE", key).status(204).await;
    }
    shop.secret("slot").await;
    shop.admin("DELETE", "/secrets/slot").status(204).await;
    let rule = |email: &str, key: &str, permission: &str| {
        server.admin("POST", &format!("{O}/acl")).json(json!({
            "subject_type": "user", "email": email, "project_pattern": "shop", "env_pattern": "*",
            "key_pattern": key, "permission": permission,
        }))
    };
    let developer = server.member("default", "dev@example.com", "developer").await;
    let member = server.member("default", "mem@example.com", "member").await;
    let admin = server.member("default", "adm@example.com", "admin").await;
    rule("dev@example.com", "mine", "write").status(201).await;
    rule("dev@example.com", "*", "read").status(201).await;
    rule("mem@example.com", "*", "admin").status(201).await;
    let account = server.account("ci", &[["*", "*", "*", "admin"]]).await;
    let call =
        |user: &User, method: &str, path: &str| server.call(method, &format!("{TRASH}{path}")).bearer(&user.token);

    let all = trash(&server).await;
    let id = |name: &str| {
        let item = all.iter().find(|item| item["name"] == name).unwrap();
        item["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(call(&admin, "GET", "").status(200).await.list(), &all);
    let seen = call(&developer, "GET", "").status(200).await;
    let names: Vec<_> = seen.list().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["mine"]);
    call(&member, "GET", "").problem(403, "forbidden").await;
    server
        .call("GET", TRASH)
        .key(&account.key)
        .problem(403, "forbidden")
        .await;

    for name in ["theirs", "slot"] {
        let path = format!("/{}/restore", id(name));
        call(&developer, "POST", &path).problem(403, "forbidden").await;
        call(&member, "POST", &path).problem(403, "forbidden").await;
        server
            .call("POST", &format!("{TRASH}{path}"))
            .key(&account.key)
            .problem(403, "forbidden")
            .await;
    }
    let entries = server.audit().await;
    let denied = |entry: &&StoredEntry| entry.outcome == "denied" && entry.resource_name.is_some();
    let denied = entries.iter().find(denied).unwrap();
    assert_eq!(
        (denied.action.as_str(), denied.resource_name.as_deref()),
        ("secret.restore", Some("slot"))
    );
    for user in [&developer, &member] {
        call(user, "DELETE", &format!("/{}", id("mine")))
            .problem(403, "forbidden")
            .await;
    }
    call(&developer, "POST", &format!("/{}/restore", id("mine")))
        .status(200)
        .await;
    call(&admin, "POST", &format!("/{}/restore", id("slot")))
        .status(200)
        .await;
    call(&admin, "DELETE", &format!("/{}", id("theirs"))).status(204).await;

    // A right to write is none to purge.
    let path = format!("{SECRETS}/mine?purge=true");
    server
        .call("DELETE", &path)
        .bearer(&developer.token)
        .problem(403, "forbidden")
        .await;
    server
        .call("DELETE", &path)
        .key(&account.key)
        .problem(403, "forbidden")
        .await;
    secret(&server, "GET", "mine").status(200).await;
    server.call("DELETE", &path).bearer(&admin.token).status(204).await;
    assert!(trash(&server).await.is_empty());
}

#[tokio::test]
async fn a_purge_leaves_nothing_to_restore_and_is_on_record() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    let empty = rows(&server);
    for bad in ["purge=1", "purge=", "purge=yes", "purge=true&purge=true"] {
        secret(&server, "DELETE", &format!("db?{bad}")).invalid("purge").await;
    }
    server.put("shop", "local", "db", "1").await;
    secret(&server, "DELETE", "db?purge=false").status(204).await;
    server.put("shop", "local", "db", "2").await;
    secret(&server, "DELETE", "db?purge=true").status(204).await;
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.resource_name.as_deref()),
        ("secret.delete", Some("db"))
    );
    assert_eq!(server.metadata().await, json!({"purged": true, "range": [2, 2]}));
    let left = trash(&server).await;
    assert_eq!((left.len(), &left[0]["versions"]), (1, &json!([1, 1])));
    server
        .admin("DELETE", &format!("{TRASH}/{}", left[0]["id"].as_str().unwrap()))
        .status(204)
        .await;
    assert!(trash(&server).await.is_empty());
    assert_eq!(
        server.put("shop", "local", "db", "3").await.body["version"],
        3,
        "numbering goes on"
    );
    secret(&server, "DELETE", "db").status(204).await;

    configuration(&shop, "k", "v").await;
    shop.admin("DELETE", "/configurations/local/k?purge=true")
        .status(204)
        .await;
    shop.admin("DELETE", "/secrets/db?purge=true").status(204).await;
    assert_eq!(rows(&server), empty, "nothing of them is in the file");

    server.put("shop", "local", "db", "1").await;
    shop.admin("POST", "/environments")
        .json(json!({"name": "prod"}))
        .status(201)
        .await;
    server.put("shop", "prod", "db", "1").await;
    delete(&server, &format!("{O}/projects/shop/envs/prod?purge=true")).await;
    let scoped = json!({"name": "scoped", "project": "shop"});
    let scoped = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(scoped)
        .status(201)
        .await;
    server.grant(&scoped.text_at("id"), ["*", "*", "*", "read"]).await;
    secret(&server, "GET", "db").status(200).await;
    server
        .admin("DELETE", &format!("{M}/shop?purge=true"))
        .status(204)
        .await;
    assert!(
        rows(&server).iter().all(|(_, count)| *count == 0),
        "{:?}",
        rows(&server)
    );
    let purged: Vec<_> = server
        .audit()
        .await
        .into_iter()
        .filter(|it| it.metadata.contains("purged"))
        .collect();
    assert_eq!(
        purged[0].action, "service_account.delete",
        "it had no other project to reach"
    );
    assert_eq!(
        (purged[1].action.as_str(), purged[1].actor_name.as_str()),
        ("project.delete", "admin-key")
    );
    let dead = server
        .call("GET", &format!("{O}/projects"))
        .key(&scoped.text_at("api_key"));
    dead.problem(401, "unauthorized").await;
    assert!(server.store.verify_audit().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_purge_beside_readers_and_writers_disturbs_none_of_them() {
    let server = Server::start().await;
    server.application("shop").await;
    server.application("bank").await;
    for n in 0..40 {
        server
            .put("shop", "local", &format!("key-{n}"), &"x".repeat(50_000))
            .await;
    }
    server.put("bank", "local", "db", "v").await;
    let purge = server.admin("DELETE", &format!("{O}/projects/shop?purge=true")).send();
    let others = async {
        for n in 0..20_u64 {
            assert_eq!(server.put("bank", "local", "db", "w").await.body["version"], n + 2);
            let path = format!("{O}/projects/bank/envs/local/secrets/db");
            server.admin("GET", &path).status(200).await;
            server.admin("GET", TRASH).status(200).await;
        }
    };
    let (purged, ()) = tokio::join!(purge, others);
    assert_eq!(purged.status, 204);
    let left: Vec<_> = rows(&server).into_iter().map(|(_, count)| count).collect();
    assert_eq!(left[..4], [1, 1, 1, 21]);
}

#[tokio::test]
async fn what_was_in_the_trash_for_long_enough_is_purged_and_younger_things_stay() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    secret(&server, "DELETE", "db").status(204).await;
    shop.admin("DELETE", "").status(204).await;
    let account = server.account("ci", &[["*", "*", "*", "read"]]).await;
    delete(&server, &format!("{O}/service-accounts/{}", account.id)).await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    server.member("acme", "olga@example.com", "owner").await;
    server
        .admin("POST", "/api/orgs/acme/projects")
        .json(json!({"name": "shop"}))
        .status(201)
        .await;
    let path = "/api/orgs/acme/projects/shop/envs/dev/secrets/db";
    server.admin("PUT", path).json(json!({"value": "v"})).status(201).await;
    delete(&server, "/api/orgs/acme").await;
    let before = rows(&server);
    let purge = |cutoff: Time| server.store.purge_due(cutoff, By::system("trash"));
    let nothing = purge(Time::now().plus_seconds(-60)).await.unwrap();
    assert_eq!((nothing.rows, rows(&server)), (0, before));

    let all = purge(Time::now().plus_seconds(1)).await.unwrap();
    assert_eq!((all.items, all.organizations), (2, 1));
    assert!(
        rows(&server).iter().all(|(_, count)| *count == 0),
        "{:?}",
        rows(&server)
    );
    assert!(trash(&server).await.is_empty());
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.actor_name.as_str()),
        ("project.delete", "trash")
    );
    assert!(server.store.verify_audit().await.unwrap().is_intact());
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
}
