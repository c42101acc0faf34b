use serde_json::json;

use crate::support::{M, Server};

#[tokio::test]
async fn an_application_begins_with_the_environment_local() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let listed = app.admin("GET", "/environments").status(200).await; // 15, 17
    assert_eq!(listed.list().len(), 1);
    assert_eq!(
        (&listed.body[0]["slug"], &listed.body[0]["name"]),
        (&json!("local"), &json!("Local"))
    );
    server
        .admin("GET", &format!("{M}/no-app-xyz/environments"))
        .problem(404, "not_found")
        .await; // 21
}

#[tokio::test]
async fn an_environment_is_made_renamed_and_deleted() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let create = |body| app.admin("POST", "/environments").json(body);
    let made = create(json!({"name": "Production"})).status(201).await;
    assert_eq!(made.text_at("slug"), "production"); // 18
    assert_eq!(made.header("location"), format!("{M}/shop/environments/production"));
    assert_eq!(
        server.admin("GET", made.header("location")).status(200).await.body,
        made.body
    );
    create(json!({"name": "Staging"})).status(201).await;
    create(json!({"name": "Staging"})).problem(409, "conflict").await; // 19
    create(json!({"name": ""})).invalid("name").await; // 58
    create(json!({"name": "a".repeat(101)})).invalid("name").await;
    assert_eq!(
        create(json!({"name": "Live", "slug": "prod"})).status(201).await.body["slug"],
        "prod"
    );

    let renamed = app
        .admin("PUT", "/environments/prod")
        .json(json!({"name": "Renamed"}))
        .status(200)
        .await;
    assert_eq!(
        (&renamed.body["slug"], &renamed.body["name"]),
        (&json!("prod"), &json!("Renamed"))
    );

    create(json!({"name": "Temp-Env"})).status(201).await;
    app.admin("DELETE", "/environments/temp-env").status(204).await; // 20
    app.admin("DELETE", "/environments/temp-env")
        .problem(404, "not_found")
        .await;
    app.admin("DELETE", "/environments/no-such-env")
        .problem(404, "not_found")
        .await; // 22
    create(json!({"name": "Temp-Env"})).status(201).await;
}

#[tokio::test]
async fn environments_have_labels() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let body = json!({"name": "prod", "labels": {"owner": "me"}});
    app.admin("POST", "/environments").json(body).status(201).await;
    let listed = app.admin("GET", "/environments?label=owner%3Dme").status(200).await;
    assert_eq!(listed.list().len(), 1);
    assert_eq!(listed.body[0]["labels"]["owner"], "me");
}
