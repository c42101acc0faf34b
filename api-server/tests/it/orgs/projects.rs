use serde_json::{Value, json};

use crate::support::{Call, M, O, Reply, Server};

fn create(server: &Server, body: Value) -> Call {
    server.admin("POST", &format!("{O}/projects")).json(body)
}

fn change(server: &Server, name: &str, body: Value) -> Call {
    server.admin("PATCH", &format!("{O}/projects/{name}")).json(body)
}

#[tokio::test]
async fn a_service_account_sees_what_its_rules_or_scope_name() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.application("bank").await;
    shop.admin("POST", "/environments")
        .json(json!({"name": "prod"}))
        .status(201)
        .await;
    let account = server.account("ci", &[["sh*", "prod", "*", "read"]]).await;
    let names = async |path: &str, key: Option<&str>| {
        let call = server.call("GET", &format!("{O}/projects{path}"));
        let call = key.map_or_else(
            || server.admin("GET", &format!("{O}/projects{path}")),
            |key| call.key(key),
        );
        let reply = call.status(200).await;
        reply
            .list()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("", None).await, ["bank", "shop"]);
    assert_eq!(names("", Some(&account.key)).await, ["shop"]);
    assert_eq!(names("/shop/envs", None).await, ["local", "prod"]);
    assert_eq!(names("/shop/envs", Some(&account.key)).await, ["prod"]);
    let get = |path: &str| server.call("GET", &format!("{O}/projects{path}")).key(&account.key);
    assert_eq!(get("/shop").status(200).await.body["display_name"], "shop");
    get("/bank").problem(403, "forbidden").await;
    get("/nothing").problem(404, "not_found").await;

    let body = json!({"name": "scoped", "project": "bank"});
    let scoped = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await;
    assert_eq!(names("", Some(&scoped.text_at("api_key"))).await, ["bank"]);
}

#[tokio::test]
async fn a_project_begins_with_dev_staging_and_prod() {
    let server = Server::start().await;
    let made = create(&server, json!({"name": "shop"})).status(201).await;
    assert_eq!(
        (&made.body["name"], &made.body["display_name"]),
        (&json!("shop"), &json!("shop"))
    );
    assert!(made.body["description"].is_null());
    assert_eq!(made.header("location"), format!("{O}/projects/shop"));
    let got = server.admin("GET", made.header("location")).status(200).await;
    assert_eq!(got.body, made.body);
    let environments = server
        .admin("GET", &format!("{O}/projects/shop/envs"))
        .status(200)
        .await;
    let names: Vec<_> = environments.list().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["dev", "prod", "staging"]);
    assert_eq!(environments.body[0]["display_name"], "Development");
    // It is an application of the management plane, which has no key yet.
    let application = server.admin("GET", &format!("{M}/shop")).status(200).await;
    assert_eq!(application.body["id"], made.body["id"]);
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.resource_name.as_deref()),
        ("project.create", Some("shop"))
    );

    create(&server, json!({"name": "shop"})).problem(409, "conflict").await;
    let full = json!({"name": "bank", "display_name": "The Bank", "description": "money"});
    let bank = create(&server, full).status(201).await;
    assert_eq!(
        (&bank.body["display_name"], &bank.body["description"]),
        (&json!("The Bank"), &json!("money"))
    );
}

#[tokio::test]
async fn a_project_name_is_a_label_that_is_its_own_slug() {
    let server = Server::start().await;
    for bad in [
        json!(null),
        json!(1),
        json!(""),
        json!("-a"),
        json!("a-"),
        json!("a--b"),
        json!("A"),
        json!("a_b"),
        json!("a.b"),
        json!("a b"),
        json!("é"),
        json!("a\u{0}"),
        json!("../x"),
        json!("a".repeat(64)),
    ] {
        create(&server, json!({"name": bad})).invalid("name").await;
    }
    create(&server, json!({})).invalid("name").await;
    for (field, bad) in [
        ("display_name", json!(" ")),
        ("display_name", json!("a\nb")),
        ("display_name", json!("a".repeat(201))),
        ("display_name", json!(["a"])),
        ("description", json!("a".repeat(1_001))),
        ("description", json!(1)),
        ("slug", json!("x")),
        ("labels", json!({})),
    ] {
        create(&server, json!({"name": "shop", field: bad}))
            .invalid(field)
            .await;
    }
    create(&server, json!({"name": "a".repeat(63)})).status(201).await;
    let call = server.admin("POST", &format!("{O}/projects"));
    call.body("application/json", r#"{"name": "a", "name": "b"}"#)
        .invalid("name")
        .await;
    let projects = server.admin("GET", &format!("{O}/projects")).status(200).await;
    assert_eq!(projects.list().len(), 1, "nothing was half done");
    server
        .admin("GET", &format!("{O}/projects?limit=1"))
        .invalid("limit")
        .await;
}

#[tokio::test]
async fn of_two_who_make_the_same_project_at_once_one_does() {
    let server = Server::start().await;
    let calls = (0..8).map(|_| create(&server, json!({"name": "shop"})).send());
    let mut statuses: Vec<_> = futures::future::join_all(calls)
        .await
        .iter()
        .map(|reply| reply.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
}

#[tokio::test]
async fn a_new_name_moves_the_path_and_keeps_all_that_is_in_the_project() {
    let server = Server::start().await;
    let made = create(&server, json!({"name": "shop"})).status(201).await;
    server.put("shop", "prod", "db", "one").await;
    server.put("shop", "prod", "db", "two").await;
    let renamed = change(&server, "shop", json!({"name": "store"})).status(200).await;
    assert_eq!(
        (&renamed.body["id"], &renamed.body["name"]),
        (&made.body["id"], &json!("store"))
    );
    assert_eq!(
        renamed.body["display_name"], "store",
        "it was the old name, not one of its own"
    );
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.resource_name.as_deref()),
        ("project.rename", Some("store"))
    );
    assert_eq!(server.metadata().await["old_name"], "shop");

    server
        .admin("GET", &format!("{O}/projects/shop"))
        .problem(404, "not_found")
        .await;
    let path = format!("{O}/projects/store/envs/prod/secrets/db");
    let read = server.admin("GET", &path).status(200).await;
    assert_eq!((&read.body["value"], &read.body["version"]), (&json!("two"), &json!(2)));
    let versions = server.admin("GET", &format!("{path}/versions")).status(200).await;
    assert_eq!(versions.list().len(), 2);
    assert_eq!(
        server.admin("GET", &format!("{M}/store")).status(200).await.body["id"],
        made.body["id"]
    );

    // The old name is free, and nobody else's can be taken.
    create(&server, json!({"name": "shop"})).status(201).await;
    change(&server, "shop", json!({"name": "store"}))
        .problem(409, "conflict")
        .await;
    change(&server, "store", json!({"name": "shop", "display_name": "x"}))
        .problem(409, "conflict")
        .await;
    let unchanged = server.admin("GET", &format!("{O}/projects/store")).status(200).await;
    assert_eq!(unchanged.body["display_name"], "store");
}

#[tokio::test]
async fn what_a_change_leaves_out_stays_and_null_clears_the_description() {
    let server = Server::start().await;
    create(
        &server,
        json!({"name": "shop", "display_name": "Shop", "description": "d"}),
    )
    .status(201)
    .await;
    let of = |reply: &Reply| {
        [
            &reply.body["name"],
            &reply.body["display_name"],
            &reply.body["description"],
        ]
        .map(Value::clone)
    };
    let display = change(&server, "shop", json!({"display_name": "Store"}))
        .status(200)
        .await;
    assert_eq!(of(&display), [json!("shop"), json!("Store"), json!("d")]);
    let entries = server.audit().await.len();
    let same = change(
        &server,
        "shop",
        json!({"name": "shop", "display_name": "Store", "description": "d"}),
    )
    .status(200)
    .await;
    assert_eq!(of(&same), of(&display));
    change(&server, "shop", json!({})).status(200).await;
    assert_eq!(
        server.audit().await.len(),
        entries,
        "what changes nothing is not on record"
    );
    let cleared = change(&server, "shop", json!({"description": null})).status(200).await;
    assert_eq!(of(&cleared), [json!("shop"), json!("Store"), Value::Null]);
    assert_eq!(server.metadata().await, json!({"fields": ["description"]}));
    let renamed = change(&server, "shop", json!({"name": "bank"})).status(200).await;
    assert_eq!(of(&renamed), [json!("bank"), json!("Store"), Value::Null]);

    for (field, bad) in [
        ("name", json!(null)),
        ("name", json!("A")),
        ("name", json!("a--b")),
        ("display_name", json!(null)),
        ("display_name", json!("")),
        ("description", json!(1)),
        ("labels", json!({})),
    ] {
        change(&server, "bank", json!({field: bad})).invalid(field).await;
    }
    change(&server, "nothing", json!({"name": "x"}))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn an_operators_project_keeps_its_name_but_not_its_description() {
    let server = Server::start().await;
    let labels = json!({"sealpod.dev/owner": "cluster/ns/uid/shop"});
    server
        .admin("POST", M)
        .json(json!({"name": "shop", "labels": labels}))
        .status(201)
        .await;
    change(&server, "shop", json!({"name": "store"}))
        .problem(409, "managed")
        .await;
    change(&server, "shop", json!({"name": "shop", "description": "d"}))
        .status(200)
        .await;
    let labels = json!({"sealpod.dev/released-by": "cluster/ns/uid/shop"});
    let body = json!({"name": "shop", "labels": labels});
    server.admin("PUT", &format!("{M}/shop")).json(body).status(200).await;
    change(&server, "shop", json!({"name": "store"})).status(200).await;
}

#[tokio::test]
async fn rules_match_the_new_name_from_the_next_request_on() {
    let server = Server::start().await;
    create(&server, json!({"name": "shop"})).status(201).await;
    server.put("shop", "prod", "db", "v").await;
    let old = server.account("old", &[["shop", "*", "*", "read"]]).await;
    let new = server.account("new", &[["store", "*", "*", "read"]]).await;
    let read = |project: &str, key: &str| {
        let path = format!("{O}/projects/{project}/envs/prod/secrets/db");
        server.call("GET", &path).key(key)
    };
    read("shop", &old.key).status(200).await;
    let bundle = format!("{O}/projects/shop/envs/prod/bundle");
    let first = server.call("GET", &bundle).key(&old.key).status(200).await;
    let poll = server.call("GET", &format!("{bundle}?wait=60")).key(&old.key);
    let waiting = tokio::spawn(poll.header("if-none-match", first.header("etag")).send());
    while server.store.stats().watchers == 0 {
        tokio::task::yield_now().await;
    }
    change(&server, "shop", json!({"name": "store"})).status(200).await;
    assert_eq!(waiting.await.unwrap().status, 404, "an open poll hears of it at once");
    read("store", &old.key).problem(403, "forbidden").await;
    read("store", &new.key).status(200).await;
}

#[tokio::test]
async fn a_deleted_project_is_gone_from_both_planes_and_its_name_begins_anew() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let path = format!("{O}/projects/shop");
    let before = server.admin("GET", &path).status(200).await;
    server.admin("DELETE", &path).status(204).await;
    server.admin("DELETE", &path).problem(404, "not_found").await;
    server.admin("GET", &path).problem(404, "not_found").await;
    server.admin("GET", &format!("{M}/shop")).status(404).await;
    server
        .admin("GET", &format!("{path}/envs/local/secrets/db"))
        .status(404)
        .await;
    assert!(
        server
            .admin("GET", &format!("{O}/projects"))
            .status(200)
            .await
            .list()
            .is_empty()
    );
    shop.consumer("/secrets/db?environment=local").status(401).await;
    assert_eq!(server.audit().await[0].action, "project.delete");
    let again = create(&server, json!({"name": "shop"})).status(201).await;
    assert_ne!(again.body["id"], before.body["id"]);
    server.admin("GET", &format!("{path}/envs/local")).status(404).await;
}

#[tokio::test]
async fn a_service_account_changes_no_project() {
    let server = Server::start().await;
    create(&server, json!({"name": "shop"})).status(201).await;
    let account = server.account("ci", &[["*", "*", "*", "admin"]]).await;
    let call = |method: &str, path: &str| server.call(method, &format!("{O}/projects{path}")).key(&account.key);
    call("POST", "")
        .json(json!({"name": "x"}))
        .problem(403, "forbidden")
        .await;
    call("PATCH", "/shop")
        .json(json!({"name": "x"}))
        .problem(403, "forbidden")
        .await;
    call("DELETE", "/shop").problem(403, "forbidden").await;
    call("DELETE", "/nothing").problem(403, "forbidden").await;
    call("POST", "/shop/envs")
        .json(json!({"name": "x"}))
        .problem(403, "forbidden")
        .await;
    call("DELETE", "/shop/envs/dev").problem(403, "forbidden").await;
}
