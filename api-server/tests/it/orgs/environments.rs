use serde_json::json;

use crate::support::{Call, M, O, Server};

const ENVS: &str = "/api/orgs/default/projects/shop/envs";

fn create(server: &Server, name: &serde_json::Value) -> Call {
    server.admin("POST", ENVS).json(json!({"name": name}))
}

async fn project(server: &Server) {
    let body = json!({"name": "shop"});
    server
        .admin("POST", &format!("{O}/projects"))
        .json(body)
        .status(201)
        .await;
}

#[tokio::test]
async fn an_environment_is_made_read_and_listed_on_both_planes() {
    let server = Server::start().await;
    project(&server).await;
    let made = create(&server, &json!("qa")).status(201).await;
    assert_eq!(
        (&made.body["name"], &made.body["display_name"]),
        (&json!("qa"), &json!("qa"))
    );
    assert_eq!(made.header("location"), format!("{ENVS}/qa"));
    assert_eq!(
        server.admin("GET", made.header("location")).status(200).await.body,
        made.body
    );
    let entry = &server.audit().await[0];
    assert_eq!(
        (entry.action.as_str(), entry.environment.as_deref()),
        ("env.create", Some("qa"))
    );
    let names: Vec<_> = server
        .admin("GET", ENVS)
        .status(200)
        .await
        .list()
        .iter()
        .map(|it| it["name"].clone())
        .collect();
    assert_eq!(names, ["dev", "prod", "qa", "staging"]);
    let other = server
        .admin("GET", &format!("{M}/shop/environments/qa"))
        .status(200)
        .await;
    assert_eq!(other.body["id"], made.body["id"]);

    create(&server, &json!("qa")).problem(409, "conflict").await;
    server
        .admin("POST", &format!("{O}/projects/nothing/envs"))
        .json(json!({"name": "qa"}))
        .problem(404, "not_found")
        .await;
    server
        .admin("GET", &format!("{ENVS}/nothing"))
        .problem(404, "not_found")
        .await;
}

#[tokio::test]
async fn an_environment_name_is_a_label_that_is_its_own_slug() {
    let server = Server::start().await;
    project(&server).await;
    for bad in [
        json!(null),
        json!(3),
        json!(""),
        json!("-"),
        json!("a--b"),
        json!("QA"),
        json!("a_b"),
        json!("q a"),
        json!("q\u{7}"),
        json!("a/b"),
        json!("a".repeat(64)),
        json!({}),
    ] {
        create(&server, &bad).invalid("name").await;
    }
    server
        .admin("POST", ENVS)
        .json(json!({"name": "qa", "display_name": "x"}))
        .invalid("display_name")
        .await;
    assert_eq!(server.admin("GET", ENVS).status(200).await.list().len(), 3);
}

#[tokio::test]
async fn a_deleted_environment_is_gone_everywhere_and_its_name_begins_anew() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    shop.admin("POST", "/configurations")
        .json(json!({"environmentSlug": "local", "key": "k", "value": "c"}))
        .status(201)
        .await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let bundle = server
        .call("GET", &format!("{ENVS}/local/bundle"))
        .key(&account.key)
        .status(200)
        .await;
    let poll = server
        .call("GET", &format!("{ENVS}/local/bundle?wait=60"))
        .key(&account.key);
    let waiting = tokio::spawn(poll.header("if-none-match", bundle.header("etag")).send());
    while server.store.stats().watchers == 0 {
        tokio::task::yield_now().await;
    }
    server.admin("DELETE", &format!("{ENVS}/local")).status(204).await;
    assert_eq!(waiting.await.unwrap().status, 404, "an open poll hears of it at once");

    server
        .admin("DELETE", &format!("{ENVS}/local"))
        .problem(404, "not_found")
        .await;
    for path in ["", "/secrets", "/secrets/db", "/secrets/db/versions", "/bundle"] {
        server
            .admin("GET", &format!("{ENVS}/local{path}"))
            .problem(404, "not_found")
            .await;
    }
    assert!(server.admin("GET", ENVS).status(200).await.list().is_empty());
    shop.consumer("/secrets/db?environment=local").status(404).await;
    shop.consumer("/configurations?environment=local").status(404).await;
    shop.admin("GET", "/environments/local").status(404).await;
    assert!(shop.admin("GET", "/configurations").status(200).await.list().is_empty());
    let detail = shop.admin("GET", "/secrets/db").status(200).await;
    assert_eq!(detail.body["requiredEnvironments"], json!([]));

    create(&server, &json!("local")).status(201).await;
    assert!(
        server
            .admin("GET", &format!("{ENVS}/local/secrets"))
            .status(200)
            .await
            .list()
            .is_empty()
    );
    assert_eq!(server.put("shop", "local", "db", "w").await.body["version"], 1);
}

#[tokio::test]
async fn an_account_reads_the_environments_that_its_rules_name() {
    let server = Server::start().await;
    project(&server).await;
    let account = server.account("ci", &[["shop", "prod", "*", "read"]]).await;
    let get = |name: &str| server.call("GET", &format!("{ENVS}/{name}")).key(&account.key);
    get("prod").status(200).await;
    let (hidden, absent) = (
        get("dev").problem(403, "forbidden").await,
        get("nothing").problem(403, "forbidden").await,
    );
    assert_eq!(hidden.text, absent.text, "whether it exists is not told");
}
