use serde_json::json;

use crate::support::{C, M, Server};

#[tokio::test]
async fn an_application_is_made_read_changed_and_deleted() {
    let server = Server::start().await;
    let made = server
        .admin("POST", M)
        .json(json!({"name": "My Test Application", "description": ""}))
        .status(201)
        .await;
    assert!(made.text_at("plainApiKey").starts_with("grm_")); // 8
    assert_eq!(made.text_at("slug"), "my-test-application"); // 9
    let path = made.header("location").to_owned();
    assert_eq!(path, format!("{M}/my-test-application"));

    let read = server.admin("GET", &path).status(200).await; // 10
    assert_eq!(read.body["slug"], "my-test-application");
    assert!(read.body.get("plainApiKey").is_none());
    assert_eq!(
        server.admin("GET", M).status(200).await.list(),
        std::slice::from_ref(&read.body)
    );
    server
        .admin("GET", &format!("{M}/nonexistent-slug-xyz"))
        .problem(404, "not_found")
        .await; // 11

    let changed = server
        .admin("PUT", &path)
        .json(json!({"name": "Other", "description": "d"}))
        .status(200)
        .await; // 12
    assert_eq!(
        (&changed.body["name"], &changed.body["slug"]),
        (&json!("Other"), &json!("my-test-application"))
    );
    let changed = server
        .admin("PUT", &path)
        .json(json!({"name": "Other"}))
        .status(200)
        .await;
    assert!(changed.body["description"].is_null());

    server.admin("DELETE", &path).status(204).await; // 13
    server.admin("GET", &path).status(404).await;
    server.admin("DELETE", &path).status(404).await;
    server
        .admin("POST", M)
        .json(json!({"name": "My Test Application"}))
        .status(201)
        .await;
}

#[tokio::test]
async fn a_rotated_key_replaces_the_old_one_at_once_or_after_its_overlap() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let read = |key: &str| {
        server
            .call("GET", &format!("{C}/configurations?environment=local"))
            .key(key)
    };
    let second = app
        .admin("POST", "/rotate-key")
        .status(200)
        .await
        .text_at("plainApiKey"); // 14
    assert_ne!(second, app.key);
    read(&app.key).status(401).await; // 53
    read(&second).status(200).await; // 54
    let overlap = json!({"overlapSeconds": 60});
    let third = app
        .admin("POST", "/rotate-key")
        .json(overlap)
        .status(200)
        .await
        .text_at("plainApiKey");
    read(&second).status(200).await;
    read(&third).status(200).await;
    app.admin("POST", "/rotate-key")
        .json(json!({"overlapSeconds": -1}))
        .invalid("overlapSeconds")
        .await;
    app.admin("DELETE", "").status(204).await;
    read(&third).status(401).await;
}

#[tokio::test]
async fn names_follow_their_rules() {
    let server = Server::start().await;
    let create = |name: &str| server.admin("POST", M).json(json!({"name": name}));
    create("Twice").status(201).await;
    create("Twice").problem(409, "conflict").await; // 16
    create("").invalid("name").await; // 55
    create(" \t ").invalid("name").await;
    create(&"a".repeat(201)).invalid("name").await; // 56
    create(&"é-a".repeat(66)).status(201).await; // characters are counted, not bytes
    create(&"a".repeat(200)).status(201).await; // 56
    create("!!!").invalid("name").await;
    create("line\nbreak").invalid("name").await;
    server.admin("POST", M).json(json!({})).invalid("name").await;
    server.admin("POST", M).json(json!({"name": 1})).invalid("name").await;
    let long = json!({"name": "Long", "description": "d".repeat(1_001)});
    server.admin("POST", M).json(long).invalid("description").await;
    let app = server.application("shop").await;
    app.admin("PUT", "").json(json!({"name": ""})).invalid("name").await; // 57
    app.admin("PUT", "")
        .json(json!({"name": "a", "slug": "b"}))
        .invalid("slug")
        .await;
}

#[tokio::test]
async fn a_name_becomes_a_slug() {
    let server = Server::start().await;
    for (name, slug) in [
        ("Hello World", "hello-world"), // 66
        ("ALL CAPS", "all-caps"),
        ("already-slug", "already-slug"),
        ("Special!@#Chars", "specialchars"), // 67
        ("Multiple   Spaces", "multiple-spaces"),
        ("  Leading Trailing  ", "leading-trailing"), // 68
        ("123 Numbers", "123-numbers"),
        ("a---b---c", "a-b-c"),
    ] {
        let made = server.admin("POST", M).json(json!({"name": name})).status(201).await;
        assert_eq!(
            (made.text_at("slug"), made.text_at("name")),
            (slug.to_owned(), name.to_owned())
        );
    }
    let own = json!({"name": "!!!", "slug": "own-slug"});
    assert_eq!(
        server.admin("POST", M).json(own).status(201).await.body["slug"],
        "own-slug"
    );
    for bad in ["", "Own", "-a", "a--b", "a_b"] {
        server
            .admin("POST", M)
            .json(json!({"name": "a", "slug": bad}))
            .invalid("slug")
            .await;
    }
}

#[tokio::test]
async fn labels_are_kept_and_filter_the_list() {
    let server = Server::start().await;
    let labels = json!({"sealpod.dev/owner": "c/ns/uid/shop", "team": "a"});
    server
        .admin("POST", M)
        .json(json!({"name": "shop", "labels": labels}))
        .status(201)
        .await;
    server.application("bank").await;
    let listed = |query: &'static str| {
        let call = server.admin("GET", &format!("{M}?{query}"));
        async move {
            let reply = call.status(200).await;
            reply
                .list()
                .iter()
                .map(|app| app["slug"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(listed("label=sealpod.dev/owner%3Dc/ns/uid/shop").await, ["shop"]);
    assert_eq!(
        listed("label=team%3Da&label=sealpod.dev%2Fowner%3Dc%2Fns%2Fuid%2Fshop").await,
        ["shop"]
    );
    assert!(listed("label=team%3Db").await.is_empty());
    assert_eq!(listed("").await, ["bank", "shop"]);
    let path = format!("{M}/shop");
    let kept = server
        .admin("PUT", &path)
        .json(json!({"name": "Shop"}))
        .status(200)
        .await;
    assert_eq!(kept.body["labels"]["team"], "a");
    let cleared = server
        .admin("PUT", &path)
        .json(json!({"name": "Shop", "labels": {}}))
        .status(200)
        .await;
    assert_eq!(cleared.body["labels"], json!({}));
    server
        .admin("POST", M)
        .json(json!({"name": "x", "labels": {"a=b": "c"}}))
        .invalid("labels")
        .await;
}
