//! `Idempotency-Key` on both planes.

use futures::future::join_all;
use rusqlite::Connection;
use sealpod_api_server::idempotency::{KEPT, READS};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{ADMIN, Call, M, O, Reply, SUPERADMIN, Server};

const KEY: &str = "0198f3c2-idempotency \"key\" ~";

fn post(server: &Server, path: &str, body: &Value) -> Call {
    server
        .admin("POST", path)
        .header("idempotency-key", KEY)
        .json(body.clone())
}

fn is_replayed(reply: &Reply) -> bool {
    reply
        .headers
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

fn database(server: &Server) -> Connection {
    Connection::open(server.dir().join("sealpod.db")).unwrap()
}

#[tokio::test]
async fn a_request_that_is_sent_twice_is_done_once_and_answered_twice() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("a/b").await;
    server.put("shop", "local", "db", "one").await;
    let account = server.account("ci", &[]).await;
    let rule = json!({
        "subject_type": "service_account", "subject_id": account.id, "project_pattern": "shop", "env_pattern": "*",
        "permission": "read",
    });
    let entry = json!({"environmentSlug": "local", "key": "K", "value": "v"});
    let value = json!([{"environmentSlug": "local", "value": "v"}]);
    for (path, body) in [
        (format!("{M}/shop/environments"), json!({"name": "Production"})),
        (format!("{M}/shop/secrets"), json!({"name": "new"})),
        (format!("{M}/shop/configurations"), entry),
        (format!("{M}/shop/secrets/a%2Fb/values"), value),
        (format!("{M}/shop/secrets/new/values"), json!([])),
        ("/api/orgs".to_owned(), json!({"name": "acme"})),
        (format!("{O}/projects"), json!({"name": "bank"})),
        (format!("{O}/projects/bank/envs"), json!({"name": "qa"})),
        (
            format!("{O}/members"),
            json!({"email": "a@example.com", "role": "member"}),
        ),
        (format!("{O}/acl"), rule),
        (
            format!("{O}/projects/shop/envs/local/secrets/db/rollback"),
            json!({"version": 1}),
        ),
    ] {
        let first = post(&server, &path, &body).send().await;
        assert!((200..300).contains(&first.status), "{path}: {}", first.text);
        assert!(!is_replayed(&first));
        let entries = server.audit().await;
        for _ in 0..2 {
            let again = post(&server, &path, &body).send().await;
            assert!(is_replayed(&again), "{path}: {}", again.text);
            assert_eq!((again.status, &again.text), (first.status, &first.text));
            for header in ["location", "etag", "content-type"] {
                assert_eq!(again.headers.get(header), first.headers.get(header), "{path}: {header}");
            }
            assert_ne!(again.headers["x-request-id"], first.headers["x-request-id"]);
        }
        assert_eq!(server.audit().await, entries, "{path}: nothing was done again");
    }
    let versions = app.admin("GET", "/secrets/a%2Fb/versions/local").status(200).await;
    assert_eq!(versions.list().len(), 1);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_refused_and_another_place_or_caller_is_another_request() {
    let server = Server::start().await;
    let path = format!("{M}/shop/environments");
    for name in ["shop", "bank"] {
        server.application(name).await;
    }
    let body = json!({"name": "Production"});
    post(&server, &path, &body).status(201).await;
    for other in [json!({"name": "Other"}), json!({"name": "Production", "labels": {}})] {
        let refused = post(&server, &path, &other).problem(409, "idempotency_mismatch").await;
        assert!(!refused.text.contains("Production"));
    }
    post(&server, &format!("{path}?x=y"), &body)
        .problem(409, "idempotency_mismatch")
        .await;
    let bank = format!("{M}/bank/environments");
    assert!(!is_replayed(&post(&server, &bank, &body).status(201).await));
    // Somebody else's key of the same text is another key: the name is taken, and no answer leaks.
    let root = server.user(SUPERADMIN).await;
    let projects = format!("{O}/projects");
    post(&server, &projects, &json!({"name": "mine"})).status(201).await;
    server
        .call("POST", &projects)
        .bearer(&root.token)
        .header("idempotency-key", KEY)
        .json(json!({"name": "mine"}))
        .problem(409, "conflict")
        .await;
    // No credential, no answer.
    server
        .call("POST", &path)
        .header("idempotency-key", KEY)
        .json(body)
        .problem(401, "unauthorized")
        .await;
}

#[tokio::test]
async fn a_key_that_was_made_is_never_shown_again() {
    let server = Server::start().await;
    server.application("shop").await;
    let body = json!({"name": "Bank"});
    let made = post(&server, M, &body).status(201).await;
    let key = made.text_at("plainApiKey");
    let again = post(&server, M, &body).problem(409, "already_created").await;
    assert_eq!(again.body["id"], made.body["id"]);
    assert!(!again.text.contains(&key) && !again.text.contains("grm_"));

    let accounts = format!("{O}/service-accounts");
    let account = post(&server, &accounts, &json!({"name": "ci"})).status(201).await;
    let again = post(&server, &accounts, &json!({"name": "ci"}))
        .problem(409, "already_created")
        .await;
    assert_eq!(again.body["id"], account.body["id"]);

    // A rotation that is repeated does not kill the key that the first one made.
    let rotate = format!("{M}/bank/rotate-key");
    let rotated = post(&server, &rotate, &json!({}))
        .status(200)
        .await
        .text_at("plainApiKey");
    let again = post(&server, &rotate, &json!({})).problem(409, "already_created").await;
    assert!(again.body["id"].is_string());
    let read = server
        .call("GET", "/api/consumer/configurations?environment=local")
        .key(&rotated);
    read.status(200).await;
    let rotate = format!("{accounts}/{}/rotate", account.text_at("id"));
    let newest = post(&server, &rotate, &json!({})).status(200).await.text_at("api_key");
    post(&server, &rotate, &json!({})).problem(409, "already_created").await;
    server
        .call("GET", &format!("{O}/projects"))
        .key(&newest)
        .status(200)
        .await;

    let sealed: i64 = database(&server)
        .query_row("SELECT count(*) FROM idempotency WHERE sealed IS NOT NULL", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(sealed, 0, "no answer with a key is kept, sealed or not");
}

#[tokio::test]
async fn of_two_at_once_one_is_done() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let values = format!("{M}/shop/secrets/db/values");
    let value = json!([{"environmentSlug": "local", "value": "v"}]);
    let replies = join_all((0..8).map(|_| post(&server, &values, &value).send())).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(replies.iter().filter(|reply| !is_replayed(reply)).count(), 1);
    let versions = app.admin("GET", "/secrets/db/versions/local").status(200).await;
    assert_eq!(versions.list().len(), 1);

    let body = json!({"name": "Bank"});
    let replies = join_all((0..8).map(|_| post(&server, M, &body).send())).await;
    let mut codes: Vec<_> = replies
        .iter()
        .map(|reply| (reply.status, reply.body["code"].as_str()))
        .collect();
    codes.sort_unstable();
    let mut want = vec![(201, None)];
    want.extend([(409, Some("already_created")); 7]);
    assert_eq!(codes, want);
}

#[tokio::test]
async fn what_failed_is_not_remembered() {
    let server = Server::start().await;
    let path = format!("{M}/shop/environments");
    let body = json!({"name": "Production"});
    post(&server, &path, &body).problem(404, "not_found").await;
    let app = server.application("shop").await;
    app.admin("POST", "/environments").json(body.clone()).status(201).await;
    post(&server, &path, &body).problem(409, "conflict").await;
    app.admin("DELETE", "/environments/production").status(204).await;
    post(&server, &path, &json!({"name": ""})).invalid("name").await;
    post(&server, &path, &body).status(201).await;
    assert!(is_replayed(&post(&server, &path, &body).status(201).await));
    // The first answer, whatever became of the object since.
    app.admin("DELETE", "/environments/production").status(204).await;
    assert!(is_replayed(&post(&server, &path, &body).status(201).await));
}

#[tokio::test]
async fn who_may_not_any_more_is_refused_in_place_of_being_answered() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "one").await;
    let ann = server.member("default", "ann@example.com", "admin").await;
    let member = format!("{O}/members/{}", ann.id);
    let call = |path: &str, body: &Value| {
        let call = server.call("POST", path).bearer(&ann.token);
        call.header("idempotency-key", KEY).json(body.clone())
    };
    let role = async |role: &str| {
        let call = server.admin("PATCH", &member).json(json!({"role": role}));
        call.status(200).await;
    };
    let (projects, accounts) = (format!("{O}/projects"), format!("{O}/service-accounts"));
    let rollback = format!("{O}/projects/shop/envs/local/secrets/db/rollback");
    let made = call(&projects, &json!({"name": "bank"})).status(201).await;
    call(&accounts, &json!({"name": "ci"})).status(201).await;
    call(&rollback, &json!({"version": 1})).status(200).await;
    role("developer").await;
    for (path, body) in [
        (&projects, json!({"name": "bank"})),
        (&accounts, json!({"name": "ci"})),
        (&rollback, json!({"version": 1})),
    ] {
        let refused = call(path, &body).problem(403, "forbidden").await;
        assert!(!is_replayed(&refused) && refused.body.get("id").is_none());
    }
    role("admin").await;
    let again = call(&projects, &json!({"name": "bank"})).status(201).await;
    assert!(is_replayed(&again));
    assert_eq!(again.text, made.text);
    let again = call(&accounts, &json!({"name": "ci"}));
    again.problem(409, "already_created").await;
    // What is gone since does not matter, as long as the organization is the caller's.
    let project = "/api/orgs/default/projects/shop";
    server.admin("DELETE", project).status(204).await;
    assert!(is_replayed(&call(&rollback, &json!({"version": 1})).status(200).await));
    server.admin("DELETE", &member).status(204).await;
    for (path, body) in [(&projects, json!({"name": "bank"})), (&rollback, json!({"version": 1}))] {
        call(path, &body).problem(404, "not_found").await;
    }
}

#[tokio::test]
async fn a_key_is_printable_ascii_and_given_once() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let call = || app.admin("POST", "/environments").json(json!({"name": "Production"}));
    let long = "k".repeat(256);
    for bad in ["", "a\tb", &long] {
        call().header("idempotency-key", bad).invalid("Idempotency-Key").await;
    }
    call().header("idempotency-key", "é").invalid("Idempotency-Key").await;
    let twice = reqwest::Client::builder().no_proxy().build().unwrap();
    let reply = twice
        .post(format!("{}{M}/shop/environments", server.url))
        .bearer_auth(ADMIN)
        .header("idempotency-key", "a")
        .header("idempotency-key", "a")
        .json(&json!({"name": "Production"}))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 400);
    call().header("idempotency-key", &long[..255]).status(201).await;
    // Elsewhere than on a POST the header means nothing.
    app.admin("GET", "").header("idempotency-key", "").status(200).await;
}

#[tokio::test]
async fn the_change_and_the_note_of_it_are_one() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let path = format!("{M}/shop/environments");
    let other = database(&server);
    let refuse = |what: &str| {
        let sql = format!("CREATE TRIGGER refuse BEFORE {what} ON idempotency BEGIN SELECT raise(ABORT, 'no'); END");
        other.execute_batch(&sql).unwrap();
    };
    // What cannot be noted is not done.
    refuse("INSERT");
    let body = json!({"name": "Production"});
    post(&server, &path, &body).problem(500, "internal").await;
    app.admin("GET", "/environments/production").status(404).await;
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    // As if the server had died between the change and the keeping of its answer.
    refuse("UPDATE");
    let made = post(&server, &path, &body).status(201).await;
    other.execute_batch("DROP TRIGGER refuse").unwrap();
    let again = post(&server, &path, &body).problem(409, "already_created").await;
    assert_eq!(again.body["id"], made.body["id"]);
    app.admin("DELETE", "/environments/production").status(204).await;
    post(&server, &path, &body).problem(409, "already_created").await;
    app.admin("GET", "/environments/production").status(404).await;
}

#[tokio::test]
async fn who_hangs_up_finds_the_answer_at_the_next_try() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let (path, body) = (
        format!("{M}/shop/secrets/db/values"),
        json!([{"environmentSlug": "local", "value": "v"}]),
    );
    let text = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN}\r\nidempotency-key: {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
    let mut socket = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://"))
        .await
        .unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    drop(socket);
    post(&server, &path, &body).status(200).await;
    assert!(is_replayed(&post(&server, &path, &body).status(200).await));
    let versions = app.admin("GET", "/secrets/db/versions/local").status(200).await;
    assert_eq!(versions.list().len(), 1);
}

#[tokio::test]
async fn a_request_is_a_new_one_once_the_server_has_forgotten_it_whatever_the_clock_says() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    let values = format!("{M}/shop/secrets/db/values");
    let value = json!([{"environmentSlug": "local", "value": "canary"}]);
    post(&server, &values, &value).status(200).await;
    for n in 0..30 {
        let call = server.admin("POST", &values).json(value.clone());
        call.header("idempotency-key", &format!("other {n}")).status(200).await;
    }
    let other = database(&server);
    let count = || -> i64 {
        other
            .query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0))
            .unwrap()
    };
    let sealed: Vec<u8> = other
        .query_row("SELECT sealed FROM idempotency LIMIT 1", [], |row| row.get(0))
        .unwrap();
    assert!(!sealed.windows(6).any(|window| window == b"status"));
    assert_eq!(count(), 31);
    assert!(is_replayed(&post(&server, &values, &value).status(200).await));
    // To a clock that is ten years ahead, all of that was long ago.
    other
        .execute(
            "UPDATE idempotency SET created_at = created_at - 3653 * 86400 * 1000000",
            [],
        )
        .unwrap();
    assert!(is_replayed(&post(&server, &values, &value).status(200).await));
    let long_ago = sealpod_core::Time::now().plus_seconds(-3_652 * 86_400);
    assert_eq!(
        server
            .store
            .forget_done(long_ago.plus_seconds(-2 * 86_400), 1_000)
            .await
            .unwrap(),
        0
    );
    assert_eq!(server.store.forget_done(long_ago, 10).await.unwrap(), 10);
    assert_eq!(server.store.forget_done(long_ago, 1_000).await.unwrap(), 21);
    assert_eq!(count(), 0);
    assert!(!is_replayed(&post(&server, &values, &value).status(200).await));
    assert!(is_replayed(&post(&server, &values, &value).status(200).await));
    let versions = app.admin("GET", "/secrets/db/versions/local").status(200).await;
    assert_eq!(versions.list().len(), 32);
}

/// Fields of answers that are credentials.
const CREDENTIALS: [&str; 3] = ["plainApiKey", "api_key", "token"];

fn fields(document: &Value, schema: &Value) -> Vec<String> {
    match schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        Some(name) => fields(document, &document["components"]["schemas"][name]),
        None => schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

#[test]
fn every_post_is_kept_or_a_read_or_answers_with_a_credential() {
    let document = sealpod_api_server::routes::document();
    let mut seen = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(post) = item.get("post") else { continue };
        let answers = post["responses"].as_object().unwrap().iter();
        let names: Vec<String> = answers
            .filter(|(status, _)| status.starts_with('2'))
            .flat_map(|(_, answer)| fields(&document, &answer["content"]["application/json"]["schema"]))
            .collect();
        let is_credential = names.iter().any(|name| CREDENTIALS.contains(&name.as_str()));
        let path = path.as_str();
        assert!(!(is_credential && KEPT.contains(&path)), "{path} keeps a credential");
        let known = is_credential || KEPT.contains(&path) || READS.contains(&path) || path == "/api/auth/login";
        assert!(known, "{path}: say in src/idempotency whether its answer may be kept");
        let described = post["parameters"].as_array().is_some_and(|all| {
            all.iter()
                .any(|parameter| parameter["name"] == "Idempotency-Key" && parameter["in"] == "header")
        });
        assert_eq!(
            described,
            !READS.contains(&path) && !path.starts_with("/api/auth/"),
            "{path}"
        );
        seen.push(path.to_owned());
    }
    for path in KEPT {
        assert!(seen.iter().any(|seen| seen == path), "{path} is no route");
    }
}
