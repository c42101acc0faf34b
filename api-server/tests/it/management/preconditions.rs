//! `ETag` and `If-Match` of what `PUT` changes.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Application, Call, M, Server};

/// Each kind of object that `PUT` changes: its path, and a body that makes it read `name`.
const OBJECTS: [(&str, &str); 3] = [
    ("", "name"),
    ("/environments/local", "name"),
    ("/configurations/local/K%2F%C3%A9", "value"),
];

async fn shop(server: &Server) -> Application<'_> {
    let app = server.application("shop").await;
    let entry = json!({"environmentSlug": "local", "key": "K/é", "value": "one", "description": "d"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    app
}

fn put(app: &Application<'_>, (path, field): (&str, &str), to: &str) -> Call {
    let mut body = json!({});
    body[field] = json!(to);
    app.admin("PUT", path).json(body)
}

#[tokio::test]
async fn a_writer_that_read_the_newest_state_writes_and_a_stale_one_loses_nothing() {
    let server = Server::start().await;
    let app = shop(&server).await;
    for object in OBJECTS {
        let read = app.admin("GET", object.0).status(200).await;
        let first = read.header("etag").to_owned();
        assert!(
            first.len() > 20 && first.starts_with('"') && first.ends_with('"'),
            "{first}"
        );
        assert_eq!(app.admin("GET", object.0).status(200).await.header("etag"), first);

        let changed = put(&app, object, "two").header("if-match", &first).status(200).await;
        let second = changed.header("etag").to_owned();
        assert_ne!(second, first);
        let read = app.admin("GET", object.0).status(200).await;
        assert_eq!((read.header("etag"), &read.body), (second.as_str(), &changed.body));

        let entries = server.audit().await.len();
        for stale in [first.as_str(), "\"\"", "\"other\", \"another\""] {
            let refused = put(&app, object, "three").header("if-match", stale);
            refused.problem(412, "precondition_failed").await;
        }
        // A change to what it is already is refused all the same: its writer does not know what it is.
        let same = put(&app, object, "two").header("if-match", &first);
        same.problem(412, "precondition_failed").await;
        let weak = format!("W/{second}");
        let weak = put(&app, object, "three").header("if-match", &weak);
        weak.problem(412, "precondition_failed").await;
        assert_eq!(server.audit().await.len(), entries, "nothing was written");
        assert_eq!(app.admin("GET", object.0).status(200).await.body[object.1], "two");

        let several = format!("\"a,b\", W/{first} ,{second}");
        put(&app, object, "three")
            .header("if-match", &several)
            .status(200)
            .await;
        put(&app, object, "four").header("if-match", "*").status(200).await;
        put(&app, object, "five").status(200).await;
        for bad in ["five", "\"a", "*, \"a\"", ""] {
            put(&app, object, "six")
                .header("if-match", bad)
                .invalid("If-Match")
                .await;
        }
    }
    for missing in [
        ("-no", "name"),
        ("/environments/no", "name"),
        ("/configurations/local/no", "value"),
    ] {
        for tag in ["*", "\"a\""] {
            put(&app, missing, "x")
                .header("if-match", tag)
                .problem(404, "not_found")
                .await;
        }
    }
}

#[tokio::test]
async fn of_writers_that_read_the_same_state_one_writes() {
    let server = Server::start().await;
    let app = shop(&server).await;
    for object in OBJECTS {
        let read = app.admin("GET", object.0).status(200).await;
        let writers = (0..8).map(|n| {
            let call = put(&app, object, &format!("by {n}"));
            call.header("if-match", read.header("etag")).send()
        });
        let mut statuses: Vec<u16> = join_all(writers).await.iter().map(|reply| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    }
}

#[tokio::test]
async fn a_state_has_a_tag_of_its_own_and_one_that_is_made_anew_is_another() {
    let server = Server::start().await;
    let app = shop(&server).await;
    let tag = |path: &'static str| {
        let call = app.admin("GET", path);
        async move { call.status(200).await.header("etag").to_owned() }
    };
    let made = server.admin("POST", M).json(json!({"name": "Bank"})).status(201).await;
    let path = made.header("location").to_owned();
    let read = server.admin("GET", &path).status(200).await;
    assert_eq!(made.header("etag"), read.header("etag"), "what made it tells its state");
    let before = tag("/configurations/local/K%2F%C3%A9").await;
    app.admin("DELETE", "/configurations/local/K%2F%C3%A9")
        .status(204)
        .await;
    let entry = json!({"environmentSlug": "local", "key": "K/é", "value": "one", "description": "d"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    assert_ne!(tag("/configurations/local/K%2F%C3%A9").await, before);
    let labels = json!({"name": "shop", "labels": {"a": "b"}});
    let before = tag("").await;
    app.admin("PUT", "").json(labels).status(200).await;
    assert_ne!(tag("").await, before);
    // The organization plane changes the same object.
    let before = tag("").await;
    server
        .admin("PATCH", "/api/orgs/default/projects/shop")
        .json(json!({"display_name": "The shop"}))
        .status(200)
        .await;
    assert_ne!(tag("").await, before);
    let stale = put(&app, OBJECTS[0], "x").header("if-match", &before);
    stale.problem(412, "precondition_failed").await;
}

#[tokio::test]
async fn a_reader_that_knows_the_state_is_told_so() {
    let server = Server::start().await;
    let app = shop(&server).await;
    for (path, _) in OBJECTS {
        let tag = app.admin("GET", path).status(200).await.header("etag").to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"a\", {tag}"), "*".to_owned()] {
            let same = app.admin("GET", path).header("if-none-match", &known).status(304).await;
            assert_eq!((same.header("etag"), same.text.as_str()), (tag.as_str(), ""));
        }
        let other = app
            .admin("GET", path)
            .header("if-none-match", "\"other\"")
            .status(200)
            .await;
        assert_ne!(other.body, Value::Null);
    }
}
