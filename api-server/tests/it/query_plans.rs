//! What runs in the database when a request comes. Beside these, every [`Server`] of every test insists at its end that
//! nothing it ran reads a whole table.

use rusqlite::Connection;
use serde_json::json;

use crate::statements::scans;
use crate::support::{O, Server};

#[tokio::test]
async fn statements_are_told_with_the_names_of_their_parameters_only() {
    let server = Server::start().await;
    server.application("shop-canary").await;
    let statements = server.statements.take();
    assert!(
        statements
            .iter()
            .any(|sql| sql.contains("INSERT INTO projects") && sql.contains("?1")),
        "{statements:?}"
    );
    assert!(!format!("{statements:?}").contains("canary"));
}

#[tokio::test]
async fn a_statement_that_reads_a_whole_table_is_noticed() {
    let server = Server::start().await;
    let connection = Connection::open(server.dir().join("sealpod.db")).unwrap();
    for sql in [
        "SELECT count(*) FROM projects",
        "SELECT p.id FROM projects p WHERE p.display_name = ?1",
        "SELECT s.id FROM projects AS p JOIN secrets AS s ON s.project_id = p.id",
        "UPDATE projects SET display_name = 'x' WHERE labels = ?1",
        "DELETE FROM projects WHERE labels = ?1",
        "WITH some(id) AS (SELECT id FROM projects) SELECT * FROM some",
    ] {
        assert!(!scans(&connection, sql).is_empty(), "{sql}");
    }
    for sql in [
        "SELECT id FROM projects WHERE id = ?1",
        "SELECT value FROM json_each(?1)",
        "WITH some(id) AS (VALUES (?1)) SELECT * FROM some",
        "SELECT EXISTS (SELECT 1 FROM meta WHERE name = ?1)",
        "BEGIN",
    ] {
        assert_eq!(scans(&connection, sql), Vec::<String>::new(), "{sql}");
    }
}

/// Every read that is described, of things that are there; `roles` does the same with changes.
#[tokio::test]
async fn the_reads_of_all_planes_are_looked_at() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let configuration = json!({"environmentSlug": "local", "key": "flag", "value": "on"});
    app.admin("POST", "/configurations")
        .json(configuration)
        .status(201)
        .await;
    let user = server.member("default", "ada@example.com", "owner").await;
    let account = server.account("ci", &[]).await;
    let rule = server.grant(&account.id, ["shop", "*", "*", "read"]).await;
    let ends: [(&str, &str, &str); 9] = [
        ("{org}", "", "default"),
        ("{slug}", "", "shop"),
        ("{project}", "", "shop"),
        ("{env}", "", "local"),
        ("{environmentSlug}", "", "local"),
        ("{key}", "configurations", "flag"),
        ("{user_id}", "", &user.id),
        ("{id}", "acl", &rule),
        ("{id}", "service-accounts", &account.id),
    ];
    let document = serde_json::to_value(sealpod_api_server::routes::document()).unwrap();
    let mut reached = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() || !template.starts_with("/api/") {
            continue;
        }
        let mut path = template.clone();
        for (parameter, under, value) in ends {
            if template.contains(under) {
                path = path.replace(parameter, value);
            }
        }
        path = path.replace("{key}", "db").replace("{name}", "db").replace("{n}", "1");
        let call = if path.starts_with("/api/consumer") {
            server.call("GET", &format!("{path}?environment=local")).key(&app.key)
        } else if path.starts_with("/api/management") {
            server.admin("GET", &path)
        } else {
            server.call("GET", &path).bearer(&user.token)
        };
        reached += usize::from(call.send().await.status == 200);
    }
    let path = format!(
        "{O}/audit-logs?actor_id={}&resource_id={}&since=2026-01-01T00:00:00Z",
        user.id, user.id
    );
    server.admin("GET", &path).status(200).await;
    assert!(reached >= 30, "{reached}");
    let distinct = server.statements.distinct().len();
    assert!(distinct >= 60, "{distinct}");
}
