//! The feed of changes.

use std::time::{Duration, Instant};

use sealpod_api_server::audit::{By, Chain, Entry, Kind, Verb};
use sealpod_api_server::store::{ChangesPage, ChangesQuery};
use sealpod_core::Time;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{M, O, Reply, Server, time};

const FEED: &str = "/api/management/changes";

/// Long enough for a poll to be waiting, and far below its `wait`.
const SOON: Duration = Duration::from_millis(300);

async fn now(server: &Server) -> String {
    let answer = server.admin("GET", FEED).status(200).await;
    assert_eq!(answer.body["changes"], json!([]));
    answer.text_at("cursor")
}

/// What moved since `cursor`, as `kind name application environment`, and the next cursor.
async fn since(server: &Server, cursor: &mut String) -> Vec<String> {
    let answer = server.admin("GET", &format!("{FEED}?since={cursor}")).status(200).await;
    *cursor = answer.text_at("cursor");
    told(&answer)
}

fn told(answer: &Reply) -> Vec<String> {
    let changes = answer.body["changes"].as_array().unwrap().iter();
    changes
        .map(|change| {
            assert!(change["id"].is_string());
            let parts = ["kind", "name", "application", "environment"];
            let parts = parts.map(|field| change[field].as_str().unwrap_or("-").to_owned());
            let deleted = change["deleted"].as_bool().unwrap();
            format!("{}{}", parts.join(" "), if deleted { " deleted" } else { "" })
        })
        .collect()
}

#[tokio::test]
async fn everything_that_moves_is_told_once_whichever_plane_moved_it() {
    let server = Server::start().await;
    let mut cursor = now(&server).await;
    assert!(since(&server, &mut cursor).await.is_empty());

    let app = server.application("shop").await;
    app.admin("POST", "/environments")
        .json(json!({"name": "Prod"}))
        .status(201)
        .await;
    app.secret("a/b").await;
    app.set("a%2Fb", "prod", "v", json!({})).await;
    app.set("a%2Fb", "prod", "v", json!({})).await;
    server.put("shop", "local", "db", "v").await;
    let entry = json!({"environmentSlug": "local", "key": "K", "value": "v"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    let account = server.account("ci", &[["shop", "prod", "*", "read"]]).await;
    assert_eq!(
        since(&server, &mut cursor).await,
        [
            "application shop shop -",
            "environment prod shop prod",
            "secret a/b shop -",
            "version a/b shop prod",
            "version db shop local",
            "configuration K shop local",
            "account ci - -",
            "grant - - -",
        ]
    );
    assert!(since(&server, &mut cursor).await.is_empty(), "nothing is told twice");

    // Reads, refusals and what changes nothing are no changes; nor is another organization's.
    app.consumer("/secrets/db?environment=local").status(200).await;
    app.consumer("/secrets/db?environment=nowhere").status(404).await;
    server
        .call("GET", &format!("{O}/projects/shop/envs/local/secrets/db"))
        .key(&account.key)
        .status(403)
        .await;
    app.admin("PUT", "").json(json!({"name": "shop"})).status(200).await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    server
        .admin("POST", "/api/orgs/acme/projects")
        .json(json!({"name": "theirs"}))
        .status(201)
        .await;
    assert!(since(&server, &mut cursor).await.is_empty());

    app.admin("PATCH", "/secrets/a%2Fb/versions/prod/2")
        .json(json!({"isEnabled": false}))
        .status(200)
        .await;
    server
        .admin("DELETE", &format!("{O}/projects/shop/envs/local/secrets/db"))
        .status(204)
        .await;
    server
        .admin("PATCH", &format!("{O}/projects/shop"))
        .json(json!({"name": "store"}))
        .status(200)
        .await;
    server
        .admin("DELETE", &format!("{O}/service-accounts/{}", account.id))
        .status(204)
        .await;
    assert_eq!(
        since(&server, &mut cursor).await,
        [
            "version a/b shop prod",
            "version db shop local deleted",
            "application store store -",
            "account ci - - deleted",
        ]
    );
    server.application("made").await;
    server.admin("DELETE", &format!("{M}/made")).status(204).await;
    assert_eq!(since(&server, &mut cursor).await, ["application made made - deleted"]);
}

#[tokio::test]
async fn a_rule_is_told_with_its_subject() {
    let server = Server::start().await;
    let account = server.account("ci", &[]).await;
    let cursor = now(&server).await;
    let id = server.grant(&account.id, ["shop", "*", "*", "read"]).await;
    let answer = server.admin("GET", &format!("{FEED}?since={cursor}")).status(200).await;
    let change = &answer.body["changes"][0];
    assert_eq!((&change["id"], &change["subjectId"]), (&json!(id), &json!(account.id)));
    server.admin("DELETE", &format!("{O}/acl/{id}")).status(204).await;
    let answer = server
        .admin("GET", &format!("{FEED}?since={}", answer.text_at("cursor")))
        .status(200)
        .await;
    assert_eq!(answer.body["changes"][0]["deleted"], true);
}

struct Poll {
    answer: JoinHandle<Reply>,
    since: Instant,
}

impl Poll {
    async fn open(server: &Server, cursor: &str) -> Self {
        let call = server.admin("GET", &format!("{FEED}?since={cursor}&wait=20"));
        let watchers = server.store.stats().watchers;
        let answer = tokio::spawn(call.send());
        while server.store.stats().watchers == watchers {
            assert!(!answer.is_finished(), "the poll waits");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self {
            answer,
            since: Instant::now(),
        }
    }

    async fn woken(self) -> Reply {
        let reply = tokio::time::timeout(Duration::from_secs(3), self.answer)
            .await
            .expect("the poll is woken")
            .unwrap();
        assert!(self.since.elapsed() < Duration::from_secs(3));
        reply
    }
}

#[tokio::test]
async fn a_poll_waits_for_a_change_and_for_nothing_else() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let cursor = now(&server).await;
    let poll = Poll::open(&server, &cursor).await;
    app.consumer("/secrets/db?environment=local").status(200).await;
    tokio::time::sleep(SOON).await;
    assert!(!poll.answer.is_finished(), "a read wakes nobody");
    app.set("db", "local", "w", json!({})).await;
    let answer = poll.woken().await;
    assert_eq!(
        (answer.status, told(&answer)),
        (200, vec!["version db shop local".to_owned()])
    );

    // Its end comes without a change, with a cursor that has passed the reads.
    app.consumer("/secrets/db?environment=local").status(200).await;
    let began = Instant::now();
    let path = format!("{FEED}?since={}&wait=1", answer.text_at("cursor"));
    let answer = server.admin("GET", &path).status(200).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.body["changes"], json!([]));
    // A change before the question is told at once.
    app.set("db", "local", "x", json!({})).await;
    let path = format!("{FEED}?since={}&wait=20", answer.text_at("cursor"));
    let began = Instant::now();
    server.admin("GET", &path).status(200).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_version_whose_time_comes_or_goes_is_told() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "v", json!({"notBefore": time(1_500)})).await;
    let cursor = now(&server).await;
    let poll = Poll::open(&server, &cursor).await;
    let answer = poll.woken().await;
    assert_eq!(told(&answer), ["version db shop local"]);
    app.consumer("/secrets/db?environment=local").status(200).await;

    app.set("db", "local", "w", json!({"expiresAt": time(1_500)})).await;
    let mut cursor = answer.text_at("cursor");
    assert_eq!(since(&server, &mut cursor).await, ["version db shop local"]);
    let answer = Poll::open(&server, &cursor).await.woken().await;
    assert_eq!(told(&answer), ["version db shop local"]);
    let read = app.consumer("/secrets/db?environment=local").status(200).await;
    assert_eq!(read.body["value"], "v");
    // Who comes later hears of it too, and nobody twice; a version that is off has no time.
    assert_eq!(since(&server, &mut cursor).await, ["version db shop local"]);
    assert!(since(&server, &mut cursor).await.is_empty());
    app.set(
        "db",
        "local",
        "x",
        json!({"isEnabled": false, "notBefore": time(-1_000)}),
    )
    .await;
    let mut cursor = now(&server).await;
    assert!(since(&server, &mut cursor).await.is_empty());
}

#[tokio::test]
async fn a_clock_that_is_set_back_moves_what_it_passed_again() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "v", json!({"notBefore": time(60_000)})).await;
    let organization = server.store.organization("default").await.unwrap().id;
    let mut after = server.store.position(organization).await.unwrap();
    let edges = |page| match page {
        ChangesPage::Found { edges, entries, .. } if entries.is_empty() => edges.len(),
        other => panic!("{other:?}"),
    };
    let ask = |after, limit| {
        server.store.changes(ChangesQuery {
            organization,
            after,
            limit,
        })
    };
    assert_eq!(edges(ask(after, 100).await.unwrap()), 0);
    // As told by a server whose clock was two minutes ahead.
    after.at = Time::now().plus_seconds(120);
    assert_eq!(edges(ask(after, 100).await.unwrap()), 1);
    // More than one answer tells is no answer.
    assert_eq!(ask(after, 1).await.unwrap(), ChangesPage::Gone);
}

#[tokio::test]
async fn an_answer_tells_so_much_and_the_next_one_goes_on() {
    let server = Server::start().await;
    let organization = server.store.organization("default").await.unwrap().id;
    let mut after = server.store.position(organization).await.unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        server.application(name).await;
    }
    let mut names = vec![];
    for _ in 0..3 {
        let query = ChangesQuery {
            organization,
            after,
            limit: 2,
        };
        let ChangesPage::Found { entries, upto, .. } = server.store.changes(query).await.unwrap() else {
            panic!("gone")
        };
        names.extend(entries.into_iter().filter_map(|entry| entry.name));
        after = upto;
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn what_goes_for_good_is_not_told_as_what_is_there_again() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "v").await;
    let key = format!("{O}/projects/shop/envs/local/secrets/db");
    let mut cursor = now(&server).await;
    server.admin("DELETE", &key).status(204).await;
    assert_eq!(since(&server, &mut cursor).await, ["version db shop local deleted"]);
    server.put("shop", "local", "db", "w").await;
    assert_eq!(since(&server, &mut cursor).await, ["version db shop local"]);
    let trash = server.admin("GET", &format!("{O}/trash")).status(200).await;
    let id = trash.list()[0]["id"].as_str().unwrap().to_owned();
    server.admin("DELETE", &format!("{O}/trash/{id}")).status(204).await;
    assert!(since(&server, &mut cursor).await.is_empty());
    server.admin("GET", &key).status(200).await;
    // What goes at once is told all the same.
    server.admin("DELETE", &format!("{key}?purge=true")).status(204).await;
    assert_eq!(since(&server, &mut cursor).await, ["version db shop local deleted"]);
}

#[tokio::test]
async fn a_change_behind_very_many_that_are_not_told_is_told_at_once() {
    let server = Server::start().await;
    let organization = server.store.organization("default").await.unwrap().id;
    let cursor = now(&server).await;
    let mut entries = tokio::task::JoinSet::new();
    for _ in 0..2_001 {
        let store = server.store.clone();
        let entry = Entry::new(Kind::Member, Verb::Update);
        entries.spawn(async move {
            store
                .record(Chain::Organization(organization), entry, By::system("test"))
                .await
        });
    }
    assert!(entries.join_all().await.iter().all(Result::is_ok));
    server.application("shop").await;
    for wait in [0, 30] {
        let mut cursor = format!("{cursor}&wait={wait}");
        let asked = tokio::time::timeout(Duration::from_secs(10), since(&server, &mut cursor));
        let told = asked.await.expect("nobody waits for what is there");
        assert!(told.contains(&"application shop shop -".to_owned()), "{told:?}");
    }
}

#[tokio::test]
async fn a_cursor_that_is_too_old_or_of_another_database_is_gone() {
    let server = Server::start().await;
    let old = now(&server).await;
    server.application("shop").await;
    server.application("bank").await;
    let new = now(&server).await;
    let foreign = now(&Server::start().await).await;
    let ask = |cursor: &str| server.admin("GET", &format!("{FEED}?since={cursor}&wait=0"));
    ask(&foreign).problem(410, "cursor_gone").await;
    ask(&old).status(200).await;
    // As the retention of the log will do it: everything behind the newest cursor goes.
    let other = rusqlite::Connection::open(server.dir().join("sealpod.db")).unwrap();
    other
        .execute_batch(
            "DROP TRIGGER audit_entries_no_delete;
             DELETE FROM audit_entries
             WHERE seq < (SELECT max(seq) FROM audit_entries AS newest WHERE newest.chain = audit_entries.chain);",
        )
        .unwrap();
    ask(&old).problem(410, "cursor_gone").await;
    ask(&new).status(200).await;
    for bad in ["", "x", &new[1..], &format!("{new}="), "1"] {
        ask(bad).invalid("since").await;
    }
    for bad in ["wait=121", "wait=-1", "wait=", "wait=x", "wait=1.5", "wait=1&wait=1"] {
        server
            .admin("GET", &format!("{FEED}?since={new}&{bad}"))
            .invalid("wait")
            .await;
    }
    server
        .admin("GET", &format!("{FEED}?since={new}&since={new}"))
        .invalid("since")
        .await;
    server
        .admin("GET", &format!("{FEED}?cursor={new}"))
        .invalid("cursor")
        .await;
}

#[tokio::test]
async fn a_poll_ends_at_once_when_the_server_stops() {
    let server = Server::start().await;
    let cursor = now(&server).await;
    let poll = Poll::open(&server, &cursor).await;
    server.stop.cancel();
    let answer = poll.woken().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.body["code"], Value::from("unavailable"));
}
