//! The OpenAPI document and the router, against each other: every operation that is described is walked.

use sealpod_api_server::auth::Plane;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Call, Server};

/// Where people get their credential.
const OPEN: [&str; 2] = ["/api/auth/login", "/api/auth/verify"];

struct Operation {
    method: String,
    /// With names filled in.
    path: String,
    body: Option<Value>,
}

/// Every operation of the planes; `body` is the schema of its body.
fn operations() -> (Value, Vec<Operation>) {
    let document = sealpod_api_server::routes::document();
    let mut operations = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let path = path
                .replace("{org}", "default")
                .replace("{n}", "1")
                .replace("{version}", "1")
                .replace("{id}", &Uuid::now_v7().to_string())
                .replace("{user_id}", &Uuid::now_v7().to_string());
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.split(['{', '}']).collect(),
                body: (!schema.is_null()).then(|| schema.clone()),
            });
        }
    }
    operations.retain(|operation| operation.path.starts_with("/api/"));
    (document, operations)
}

/// The properties of an object's schema, through references and options; of an array's items for an array.
fn properties(document: &Value, schema: &Value) -> Option<(bool, Vec<String>)> {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return properties(document, &document["components"]["schemas"][name]);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().find_map(|choice| properties(document, choice));
    }
    if schema["type"] == "array" {
        return properties(document, &schema["items"]).map(|(_, names)| (true, names));
    }
    let names = schema["properties"].as_object()?.keys().cloned().collect();
    Some((false, names))
}

fn call(server: &Server, operation: &Operation) -> Call {
    server.call(&operation.method, &operation.path)
}

#[tokio::test]
async fn no_operation_lets_anybody_in_without_its_credential() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let account = server.account("nobody", &[]).await;
    let (_, operations) = operations();
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

#[tokio::test]
async fn every_described_field_is_read_and_no_other() {
    let server = Server::start().await;
    let (document, operations) = operations();
    let mut bodies = 0;
    for operation in operations {
        let Some(schema) = &operation.body else { continue };
        let name = format!("{} {}", operation.method, operation.path);
        let (is_array, mut fields) = properties(&document, schema).unwrap_or_else(|| panic!("{name}: no properties"));
        fields.push("zzz".to_owned());
        // A value that no field takes, so that every field that is read has something to say.
        let object: serde_json::Map<_, _> = fields.iter().map(|field| (field.clone(), json!(-1.5))).collect();
        let (body, prefix) = if is_array {
            (json!([object]), "[0].")
        } else {
            (json!(object), "")
        };
        let reply = server
            .admin(&operation.method, &operation.path)
            .json(body)
            .invalid(&format!("{prefix}zzz"))
            .await;
        let errors = reply.body["errors"].as_object().unwrap();
        for field in &fields {
            let why = errors
                .get(&format!("{prefix}{field}"))
                .unwrap_or_else(|| panic!("{name}: {field} was taken"));
            assert_eq!(
                why.to_string().contains("unknown"),
                field == "zzz",
                "{name}: {field} {why}"
            );
        }
        bodies += 1;
    }
    assert!(bodies >= 12, "{bodies}");
}
