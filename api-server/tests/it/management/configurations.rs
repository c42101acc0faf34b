use serde_json::json;

use crate::support::Server;

#[tokio::test]
async fn a_configuration_is_made_changed_and_deleted() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    assert_eq!(app.admin("GET", "/configurations").status(200).await.body, json!([])); // 32
    let entry = json!({"environmentSlug": "local", "key": "Feature:Dark Mode", "value": "true", "description": "flag"});
    let made = app
        .admin("POST", "/configurations")
        .json(entry.clone())
        .status(201)
        .await; // 33
    assert_eq!(
        (&made.body["key"], &made.body["value"]),
        (&json!("Feature:Dark Mode"), &json!("true"))
    );
    app.admin("POST", "/configurations")
        .json(entry)
        .problem(409, "conflict")
        .await; // 34
    let path = made.header("location").to_owned();
    assert_eq!(server.admin("GET", &path).status(200).await.body, made.body);

    let changed = server
        .admin("PUT", &path)
        .json(json!({"value": "new"}))
        .status(200)
        .await; // 35
    assert_eq!(
        (&changed.body["value"], &changed.body["description"]),
        (&json!("new"), &json!("flag"))
    );
    let body = json!({"value": "new", "description": null});
    assert_eq!(
        server.admin("PUT", &path).json(body).status(200).await.body["description"],
        "flag"
    );
    assert_eq!(
        app.admin("GET", "/configurations").status(200).await.body[0]["value"],
        "new"
    );

    server.admin("DELETE", &path).status(204).await; // 36
    server.admin("DELETE", &path).problem(404, "not_found").await;
    let missing = app
        .admin("PUT", "/configurations/local/no-key")
        .json(json!({"value": "v"}));
    missing.problem(404, "not_found").await; // 37
}

#[tokio::test]
async fn configurations_follow_their_rules() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let create = |env: &str, key: &str, value: &str| {
        app.admin("POST", "/configurations")
            .json(json!({"environmentSlug": env, "key": key, "value": value}))
    };
    create("no-env", "k", "v").problem(404, "not_found").await; // 38
    create("local", "", "v").invalid("key").await; // 63
    create("", "k", "v").invalid("environmentSlug").await; // 64
    create("local", "Feature:EnableX", "v").status(201).await; // 65
    create("local", "k", "").invalid("value").await;
    create("local", &"k".repeat(500), "v").status(201).await;
    create("local", &"k".repeat(501), "v").invalid("key").await;
}
