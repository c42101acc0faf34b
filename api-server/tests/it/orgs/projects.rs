use serde_json::json;

use crate::support::{O, Server};

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
