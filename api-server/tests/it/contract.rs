//! The OpenAPI document and the router, against each other: every operation that is described is walked.

use sealpod_api_server::auth::Plane;
use uuid::Uuid;

use crate::support::{Call, Server};

/// Where people get their credential.
const OPEN: [&str; 2] = ["/api/auth/login", "/api/auth/verify"];

struct Operation {
    method: String,
    /// With names filled in.
    path: String,
}

/// Every operation of the planes.
fn operations() -> Vec<Operation> {
    let document = sealpod_api_server::routes::document();
    let mut operations = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path
                .replace("{org}", "default")
                .replace("{n}", "1")
                .replace("{version}", "1")
                .replace("{id}", &Uuid::now_v7().to_string())
                .replace("{user_id}", &Uuid::now_v7().to_string());
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.split(['{', '}']).collect(),
            });
        }
    }
    operations.retain(|operation| operation.path.starts_with("/api/"));
    operations
}

fn call(server: &Server, operation: &Operation) -> Call {
    server.call(&operation.method, &operation.path)
}

#[tokio::test]
async fn no_operation_lets_anybody_in_without_its_credential() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let account = server.account("nobody", &[]).await;
    let operations = operations();
    assert!(operations.len() > 40, "{}", operations.len());
    let guarded = |operation: &&Operation| !OPEN.contains(&operation.path.as_str());
    for operation in operations.iter().filter(guarded) {
        let name = format!("{} {}", operation.method, operation.path);
        call(&server, operation).status(401).await;
        call(&server, operation).bearer("wrong").status(401).await;
        let (is_consumer, is_org) = (
            name.contains("/consumer/"),
            Plane::of(&operation.path) == Some(Plane::Organization),
        );
        let of_app = call(&server, operation).key(&app.key).send().await.status;
        assert_eq!(of_app == 401, !is_consumer, "{name}: {of_app}");
        let of_account = call(&server, operation).key(&account.key).send().await.status;
        assert_eq!(of_account == 401, !is_org, "{name}: {of_account}");
        // An account without a rule sees its organization, and gets nothing but an empty list of projects.
        let seen = [
            "GET /api/orgs",
            "GET /api/orgs/default",
            "GET /api/orgs/default/projects",
        ];
        assert_eq!(
            of_account >= 400,
            !seen.contains(&name.as_str()),
            "{name}: {of_account}"
        );
    }
}

#[tokio::test]
async fn a_service_account_without_rules_is_refused_everything_that_exists() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let account = server.account("nobody", &[]).await;
    let path = "/api/orgs/default/projects/shop/envs/local/secrets";
    for (method, path) in [
        ("GET", path.to_owned()),
        ("GET", format!("{path}/db")),
        ("GET", format!("{path}/db/versions")),
        ("DELETE", format!("{path}/db")),
        ("GET", "/api/orgs/default/projects/shop".to_owned()),
        ("GET", "/api/orgs/default/projects/shop/envs".to_owned()),
        ("GET", "/api/orgs/default/projects/shop/envs/local/bundle".to_owned()),
    ] {
        server
            .call(method, &path)
            .key(&account.key)
            .problem(403, "forbidden")
            .await;
    }
}
