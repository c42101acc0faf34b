use serde_json::json;

use crate::support::{ADMIN, C, M, O, OTHER_ADMIN, Server};

#[tokio::test]
async fn the_management_plane_takes_the_admin_key_only() {
    let server = Server::start().await;
    server.call("GET", M).problem(401, "unauthorized").await; // 1
    server
        .call("GET", M)
        .bearer("wrong-key")
        .problem(401, "unauthorized")
        .await; // 2
    assert!(server.call("GET", M).bearer(ADMIN).status(200).await.list().is_empty()); // 3, 7
    server.call("GET", M).bearer(OTHER_ADMIN).status(200).await;
    server
        .call("GET", M)
        .header("AUTHORIZATION", &format!("bEARER {ADMIN}"))
        .status(200)
        .await;
    server.call("GET", M).header("authorization", ADMIN).status(401).await;
    server
        .call("GET", M)
        .header("authorization", &format!("Basic {ADMIN}"))
        .status(401)
        .await;
    server.call("GET", M).key(ADMIN).status(401).await;
}

#[tokio::test]
async fn the_consumer_plane_takes_application_keys_only() {
    let server = Server::start().await;
    let path = format!("{C}/secrets/anything?environment=local");
    server.call("GET", &path).problem(401, "unauthorized").await; // 4
    server
        .call("GET", &path)
        .key("grm_wrongkey")
        .problem(401, "unauthorized")
        .await; // 5
    let unknown = format!("grm_{}", "0".repeat(40));
    server
        .call("GET", &path)
        .key(&unknown)
        .problem(401, "unauthorized")
        .await;
    server.call("GET", &path).bearer(ADMIN).status(401).await;
}

#[tokio::test]
async fn a_credential_of_one_plane_is_none_on_another() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let account = server.account("ci", &[["*", "*", "*", "write"]]).await;
    let (orgs, consumer) = (format!("{O}/projects"), format!("{C}/configurations?environment=local"));
    for (path, key, status) in [
        (M, &app.key, 401),
        (M, &account.key, 401),
        (&consumer, &account.key, 401),
        (&consumer, &app.key, 200),
        (&orgs, &app.key, 401),
        (&orgs, &account.key, 200),
    ] {
        assert_eq!(server.call("GET", path).key(key).send().await.status, status, "{path}");
        // A key is no bearer token, whatever it belongs to.
        server.call("GET", path).bearer(key).status(401).await;
    }
    server.call("GET", &orgs).bearer(ADMIN).status(200).await;
}

#[tokio::test]
async fn every_401_has_the_same_body() {
    let server = Server::start().await;
    let mut bodies = vec![];
    for path in [
        M,
        "/api/management/nothing/here",
        "/api/consumer",
        "/api/orgs",
        "/api/auth/me",
        "/api/backups",
    ] {
        bodies.push(server.call("GET", path).status(401).await.text);
        bodies.push(server.call("GET", path).bearer("wrong").status(401).await.text);
        bodies.push(server.call("DELETE", path).key("cr_sa_wrong").status(401).await.text);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn the_check_comes_before_routing() {
    let server = Server::start().await;
    server.call("GET", "/api/management/nothing").status(401).await;
    server.call("PATCH", M).status(401).await;
    server
        .admin("GET", "/api/management/nothing")
        .problem(404, "not_found")
        .await;
    server.admin("GET", "/api/keys/nothing").problem(404, "not_found").await;
    server.call("GET", "/api/managementx").problem(404, "not_found").await;
}

#[tokio::test]
async fn two_different_valid_credentials_are_refused() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let path = format!("{O}/projects");
    server
        .call("GET", &path)
        .bearer(ADMIN)
        .key(&account.key)
        .problem(400, "validation_failed")
        .await;
    server.call("GET", M).bearer(ADMIN).key(&account.key).status(400).await;
    // One that is not valid is no credential.
    server
        .call("GET", &path)
        .bearer("wrong")
        .key(&account.key)
        .status(200)
        .await;
    server.call("GET", M).bearer(ADMIN).key("cr_sa_wrong").status(200).await;
}

#[tokio::test]
async fn the_operator_says_for_which_object_it_calls() {
    let server = Server::start().await;
    let call = |value: &str| server.admin("POST", M).header("x-sealpod-on-behalf", value);
    call("Application/shop/shop")
        .json(json!({"name": "shop"}))
        .status(201)
        .await;
    assert_eq!(server.metadata().await["on_behalf"], "Application/shop/shop");
    for bad in ["", "a/b", "a//c", "a/b/c/d"] {
        call(bad)
            .json(json!({"name": "other"}))
            .invalid("x-sealpod-on-behalf")
            .await;
    }
    // From anybody else it is not believed.
    let account = server.account("ci", &[["*", "*", "*", "write"]]).await;
    let path = format!("{O}/projects/shop/envs/local/secrets/a");
    let put = server
        .call("PUT", &path)
        .key(&account.key)
        .header("x-sealpod-on-behalf", "Application/a/b");
    put.json(json!({"value": "v"})).status(201).await;
    assert!(server.metadata().await["on_behalf"].is_null());
}

#[tokio::test]
async fn a_revoked_or_rotated_key_is_dead_at_once() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let path = format!("{O}/service-accounts/{}", account.id);
    let projects = |key: &str| server.call("GET", &format!("{O}/projects")).key(key);
    let rotated = server.admin("POST", &format!("{path}/rotate")).status(200).await;
    projects(&account.key).status(401).await;
    let second = rotated.text_at("api_key");
    assert_eq!(rotated.text_at("key_prefix"), second[..12]);
    assert!(rotated.body["old_key_expires_at"].is_null());

    let body = json!({"overlap_seconds": 60});
    let rotated = server
        .admin("POST", &format!("{path}/rotate"))
        .json(body)
        .status(200)
        .await;
    assert!(rotated.body["old_key_expires_at"].is_string());
    projects(&second).status(200).await;
    projects(&rotated.text_at("api_key")).status(200).await;

    server.admin("DELETE", &path).status(204).await;
    projects(&second).status(401).await;
    projects(&rotated.text_at("api_key")).status(401).await;
}
