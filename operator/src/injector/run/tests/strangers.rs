//! Whoever can reach the webhook and does not know its path, beside the API server.

use std::net::Ipv4Addr;

use axum::http::StatusCode;
use futures::future::join_all;

use super::*;

const POD: Ipv4Addr = Ipv4Addr::LOCALHOST;
const API_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A webhook that takes so many connections, what an API server knows of it, and what somebody guesses.
async fn serving(limits: serve::Limits) -> (Starting, Registered, Registered) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let started = Starting::within(limits, "33", None);
    until("it serves", async || started.readiness.is_ready()).await;
    let seen = Registered::read(&started.api);
    let guessed = Registered {
        path: "/mutate/x".to_owned(),
        ..seen.clone()
    };
    (started, seen, guessed)
}

#[tokio::test]
async fn one_pod_that_holds_all_the_connections_it_gets_keeps_the_api_server_from_none() {
    let all = STRANGERS_PER_SOURCE + 30;
    let (started, seen, guessed) = serving(limits(all)).await;
    let (address, now) = (started.address, Timestamp::now());
    let mut held = Vec::new();
    for _ in 0..all {
        let pod = guessed.client_from(POD, address, now);
        // Beyond its share it is closed as it comes.
        if let Ok(answer) = guessed.post(&pod, address).await {
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        }
        held.push(pod);
    }
    // The API server has shown nothing either when all of these come.
    let servers: Vec<_> = (0..30).map(|_| seen.client_from(API_SERVER, address, now)).collect();
    join_all(servers.iter().map(|server| seen.ask(server, address))).await;
    drop(held);
    started.stop.cancel();
    started.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn where_there_is_room_an_api_server_may_begin_with_any_number_at_once() {
    let many = STRANGERS_PER_SOURCE * 3 / 2;
    let (started, seen, _) = serving(limits(many * 2 + 1)).await;
    let (address, now) = (started.address, Timestamp::now());
    let servers: Vec<_> = (0..many).map(|_| seen.client_from(API_SERVER, address, now)).collect();
    join_all(servers.iter().map(|server| seen.ask(server, address))).await;
    started.stop.cancel();
    started.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_on_which_somebody_asked_on_the_path_is_no_strangers() {
    let one = serve::Strangers {
        per_source: 1,
        from: 0,
        time: STRANGER_TIME,
        exempt: Arc::new(|_| false),
    };
    let (started, seen, guessed) = serving(serve::Limits {
        strangers: Some(one),
        ..serve::Limits::default()
    })
    .await;
    let (address, now) = (started.address, Timestamp::now());
    let client = || seen.client_from(POD, address, now);
    let servers = [client(), client(), client()];
    for server in &servers {
        seen.ask(server, address).await;
    }
    // There is still room for the one stranger of this source, who does not take the place of any of them.
    let pod = client();
    let answer = guessed.post(&pod, address).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    for server in &servers {
        seen.ask(server, address).await;
    }
    started.stop.cancel();
    started.serving.await.unwrap().unwrap();
}
