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
    let body = json!({"name": "short", "expires_at": time(800)});
    let key = server
        .admin("POST", &format!("{O}/service-accounts"))
        .json(body)
        .status(201)
        .await
        .text_at("api_key");
    let projects = || server.call("GET", &format!("{O}/projects")).key(&key);
    projects().status(200).await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
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
