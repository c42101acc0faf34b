//! What the store remembers is never older than what was answered: each change counts at the next request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealpod_core::Time;
use serde_json::json;

use crate::support::{Account, C, M, O, Server, time};

const SECRET: &str = "/api/orgs/default/projects/shop/envs/local/secrets/db";

async fn read(server: &Server, account: &Account) -> (u16, u64) {
    let reply = server.call("GET", SECRET).key(&account.key).send().await;
    (reply.status, reply.body["version"].as_u64().unwrap_or(0))
}

/// A server with a secret of one version, and an account that has read it twice.
async fn warm() -> (Server, Account) {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "db", "one").await;
    let account = server.account("ci", &[["shop", "local", "db", "read"]]).await;
    for _ in 0..2 {
        assert_eq!(read(&server, &account).await, (200, 1));
    }
    (server, account)
}

#[tokio::test]
async fn a_version_and_its_state_count_at_the_next_read() {
    let (server, account) = warm().await;
    server.put("shop", "local", "db", "two").await;
    assert_eq!(read(&server, &account).await, (200, 2));
    let version = format!("{SECRET}/versions/2");
    let edit = async |body| server.admin("PATCH", &version).json(body).status(200).await;
    edit(json!({"is_enabled": false})).await;
    assert_eq!(read(&server, &account).await, (200, 1));
    edit(json!({"is_enabled": true})).await;
    assert_eq!(read(&server, &account).await, (200, 2));
    edit(json!({"expires_at": time(-1_000)})).await;
    assert_eq!(read(&server, &account).await, (200, 1));
    server
        .admin("POST", &format!("{SECRET}/rollback"))
        .json(json!({"version": 2}))
        .status(200)
        .await;
    assert_eq!(read(&server, &account).await, (200, 3));
    server.admin("DELETE", SECRET).status(204).await;
    assert_eq!(read(&server, &account).await.0, 404);
    server.put("shop", "local", "db", "four").await;
    assert_eq!(read(&server, &account).await, (200, 4));
    server
        .admin("DELETE", &format!("{M}/shop/secrets/db"))
        .status(204)
        .await;
    assert_eq!(read(&server, &account).await.0, 404);
}

#[tokio::test]
async fn a_version_begins_and_ends_by_the_clock_although_it_is_remembered() {
    let (server, account) = warm().await;
    let put = async |value: &str, window: (&str, i64)| {
        let body = json!({"value": value, window.0: time(window.1)});
        server.admin("PUT", SECRET).json(body).status(200).await;
    };
    let began = Time::now();
    put("ends", ("expires_at", 1_000)).await;
    put("begins", ("not_before", 2_000)).await;
    let written = Time::now();
    // Which one may be there at these times, by when the two were written.
    let (ends, begins) = (1_000_000, 2_000_000);
    let since = |start: Time, at: Time| at.microseconds() - start.microseconds();
    loop {
        let asked = Time::now();
        let (status, version) = read(&server, &account).await;
        let answered = Time::now();
        let may_be = match version {
            2 => since(written, asked) < ends,
            1 => since(began, answered) >= ends && since(written, asked) < begins,
            3 => since(began, answered) >= begins,
            _ => false,
        };
        assert!(
            status == 200 && may_be,
            "{version} at {asked}, written from {began} to {written}"
        );
        // By then it has to be.
        if since(written, asked) >= begins {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_rule_that_is_taken_or_given_counts_at_the_next_read() {
    let (server, account) = warm().await;
    let rules = server.admin("GET", &format!("{O}/acl")).status(200).await;
    let rule = rules.list()[0]["id"].as_str().unwrap().to_owned();
    server.admin("DELETE", &format!("{O}/acl/{rule}")).status(204).await;
    assert_eq!(read(&server, &account).await.0, 403);
    server.grant(&account.id, ["shop", "*", "d*", "read"]).await;
    assert_eq!(read(&server, &account).await, (200, 1));
}

#[tokio::test]
async fn a_key_that_is_rotated_or_revoked_is_dead_at_the_next_read() {
    let (server, account) = warm().await;
    let path = format!("{O}/service-accounts/{}", account.id);
    let rotated = server
        .admin("POST", &format!("{path}/rotate"))
        .json(json!({}))
        .status(200)
        .await;
    assert_eq!(read(&server, &account).await.0, 401);
    let account = Account {
        key: rotated.text_at("api_key"),
        ..account
    };
    assert_eq!(read(&server, &account).await, (200, 1));
    server.admin("DELETE", &path).status(204).await;
    assert_eq!(read(&server, &account).await.0, 401);
}

#[tokio::test]
async fn a_place_that_goes_and_comes_back_is_another_one_at_the_next_read() {
    let (server, account) = warm().await;
    let environment = format!("{O}/projects/shop/envs/local");
    server.admin("DELETE", &environment).status(204).await;
    assert_eq!(read(&server, &account).await.0, 404);
    server
        .admin("POST", &format!("{O}/projects/shop/envs"))
        .json(json!({"name": "local"}))
        .status(201)
        .await;
    assert_eq!(read(&server, &account).await.0, 404);
    server.put("shop", "local", "db", "new").await;
    assert_eq!(read(&server, &account).await, (200, 1));
    server.admin("DELETE", &format!("{M}/shop")).status(204).await;
    assert_eq!(read(&server, &account).await.0, 404);
}

#[tokio::test]
async fn an_applications_key_is_dead_with_its_application() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    app.secret("db").await;
    app.set("db", "local", "one", json!({})).await;
    let read = async || {
        server
            .call("GET", &format!("{C}/secrets/db?environment=local"))
            .key(&app.key)
            .send()
            .await
    };
    for _ in 0..2 {
        assert_eq!(read().await.status, 200);
    }
    app.set("db", "local", "two", json!({})).await;
    assert_eq!(read().await.text_at("value"), "two");
    server.admin("DELETE", &format!("{M}/shop")).status(204).await;
    assert_eq!(read().await.status, 401);
}

/// Whoever asks after a write was answered gets it, or a later one, however many ask and write at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_reads_what_is_older_than_an_answer() {
    let (server, account) = warm().await;
    let (server, account) = (Arc::new(server), Arc::new(account));
    let answered = Arc::new(AtomicU64::new(1));
    let writer = {
        let (server, answered) = (Arc::clone(&server), Arc::clone(&answered));
        tokio::spawn(async move {
            for _ in 0..150 {
                let reply = server.put("shop", "local", "db", "next").await;
                answered.store(reply.body["version"].as_u64().unwrap(), Ordering::SeqCst);
            }
        })
    };
    let readers = (0..6).map(|_| {
        let (server, account, answered) = (Arc::clone(&server), Arc::clone(&account), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut last = 0;
            while last < 151 {
                let known = answered.load(Ordering::SeqCst).max(last);
                let (status, version) = read(&server, &account).await;
                assert_eq!(status, 200);
                assert!(version >= known, "{version} after {known}");
                last = version;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    writer.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}
