use serde_json::{Value, json};

use crate::support::{Application, Call, M, O, Reply, Server, time};

async fn shop(server: &Server) -> Application<'_> {
    let app = server.application("shop").await;
    app.secret("a/b").await;
    for value in ["one", "two"] {
        let item = json!([{"environmentSlug": "local", "value": value}]);
        app.admin("POST", "/secrets/a%2Fb/values").json(item).status(200).await;
    }
    app
}

fn patch(app: &Application<'_>, version: u64, body: Value) -> Call {
    app.admin("PATCH", &format!("/secrets/a%2Fb/versions/local/{version}"))
        .json(body)
}

async fn read(app: &Application<'_>) -> Reply {
    app.consumer("/secrets/a%2Fb?environment=local").send().await
}

#[tokio::test]
async fn the_state_of_a_version_is_changed_and_seen_on_every_plane() {
    let server = Server::start().await;
    let app = shop(&server).await;
    let disabled = patch(&app, 2, json!({"isEnabled": false})).status(200).await;
    assert_eq!(
        (&disabled.body["version"], &disabled.body["isEnabled"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(read(&app).await.body["value"], "one");
    let organization = format!("{O}/projects/shop/envs/local/secrets/a%2Fb");
    assert_eq!(
        server.admin("GET", &organization).status(200).await.body["value"],
        "one"
    );
    let listed = app.admin("GET", "/secrets/a%2Fb/versions/local").status(200).await;
    assert_eq!(listed.list()[0], disabled.body);

    patch(&app, 2, json!({"isEnabled": true})).status(200).await;
    assert_eq!(read(&app).await.body["value"], "two");
    let (soon, late) = (time(3_600_000), time(7_200_000));
    let coming = patch(&app, 2, json!({"notBefore": soon, "expiresAt": late}))
        .status(200)
        .await;
    assert!(coming.body["notBefore"].is_string() && coming.body["expiresAt"].is_string());
    assert_eq!(read(&app).await.body["value"], "one");
    let kept = patch(&app, 2, json!({"isEnabled": true})).status(200).await;
    assert_eq!(kept.body, coming.body, "what is left out stays");
    let cleared = patch(&app, 2, json!({"notBefore": null, "expiresAt": null}))
        .status(200)
        .await;
    assert!(cleared.body["notBefore"].is_null() && cleared.body["expiresAt"].is_null());
    assert_eq!(read(&app).await.body["value"], "two");
    let past = patch(&app, 2, json!({"expiresAt": time(-1_000)})).status(200).await;
    assert!(past.body["expiresAt"].is_string());
    assert_eq!(read(&app).await.body["value"], "one");

    // The organization plane's change is the same change.
    server
        .admin("PATCH", &format!("{organization}/versions/1"))
        .json(json!({"is_enabled": false}))
        .status(200)
        .await;
    read(&app).await;
    assert_eq!(read(&app).await.status, 404);
    let entries = server.audit().await;
    assert!(entries.iter().any(|entry| entry.action == "secret.update"));
}

#[tokio::test]
async fn what_no_version_can_be_is_refused_by_name() {
    let server = Server::start().await;
    let app = shop(&server).await;
    let at = time(3_600_000);
    patch(&app, 1, json!({"notBefore": at, "expiresAt": at}))
        .invalid("expiresAt")
        .await;
    patch(&app, 1, json!({"notBefore": time(7_200_000), "expiresAt": at}))
        .invalid("expiresAt")
        .await;
    // Against the end that stays.
    patch(&app, 1, json!({"expiresAt": at})).status(200).await;
    patch(&app, 1, json!({"notBefore": time(7_200_000)})).status(400).await;
    for bad in [
        "2026-01-01",
        "2026-01-01T00:00:00",
        "10000-01-01T00:00:00Z",
        "+010000-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "now",
        "",
    ] {
        patch(&app, 1, json!({"expiresAt": bad})).invalid("expiresAt").await;
        patch(&app, 1, json!({"notBefore": bad})).invalid("notBefore").await;
    }
    patch(&app, 1, json!({"isEnabled": null})).invalid("isEnabled").await;
    patch(&app, 1, json!({"isEnabled": "true"})).invalid("isEnabled").await;
    patch(&app, 1, json!({"value": "x"})).invalid("value").await;
    patch(&app, 1, json!([])).invalid("body").await;
    for missing in [0, 3, u64::MAX] {
        patch(&app, missing, json!({"isEnabled": true}))
            .problem(404, "not_found")
            .await;
    }
    for missing in [
        "shop/secrets/no/versions/local/1",
        "shop/secrets/a%2Fb/versions/no/1",
        "no/secrets/a%2Fb/versions/local/1",
    ] {
        let call = server
            .admin("PATCH", &format!("{M}/{missing}"))
            .json(json!({"isEnabled": true}));
        call.problem(404, "not_found").await;
    }
}
