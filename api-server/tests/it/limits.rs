//! How much one caller may take, and where a request is said to come from.

use serde_json::json;

use crate::support::{ADMIN, C, Call, M, O, Reply, Server, limits, rate, time};

/// 429 with the seconds to wait.
async fn limited(call: Call) -> Reply {
    let reply = call.problem(429, "rate_limited").await;
    assert!(
        reply.header("retry-after").parse::<u64>().unwrap() >= 1,
        "{:?}",
        reply.headers
    );
    reply
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_told_to_wait_and_valid_keys_from_it_still_pass() {
    let mut limits = limits();
    limits.failures = rate(1, 5);
    let server = Server::limited(limits).await;
    let account = server.account("ci", &[]).await;
    let app = server.application("shop").await;
    let orgs = format!("{O}/projects");
    for _ in 0..5 {
        server.call("GET", &orgs).key("cr_sa_wrong").status(401).await;
    }
    let unknown = format!("cr_sa_{}", "0".repeat(40));
    limited(server.call("GET", &orgs).key(&unknown)).await;
    limited(server.call("GET", M).bearer("wrong")).await;
    limited(server.call("GET", C)).await;
    limited(server.call("GET", "/api/orgs/nowhere").key(&app.key)).await;

    server.call("GET", &orgs).key(&account.key).status(200).await;
    server.call("GET", M).bearer(ADMIN).status(200).await;
    app.consumer("/configurations?environment=local").status(200).await;
    server.call("GET", "/health").status(200).await;
}

#[tokio::test]
async fn a_valid_key_has_its_own_share_whatever_others_do() {
    let mut limits = limits();
    limits.per_key = Some(rate(1, 3));
    let server = Server::limited(limits).await;
    let (one, other) = (server.account("one", &[]).await, server.account("other", &[]).await);
    let app = server.application("shop").await;
    let projects = |key: &str| server.call("GET", &format!("{O}/projects")).key(key);
    for _ in 0..3 {
        projects(&one.key).status(200).await;
    }
    limited(projects(&one.key)).await;
    // Also on a path that is no route: the count comes before routing.
    limited(server.call("GET", "/api/orgs").key(&one.key)).await;
    projects(&other.key).status(200).await;

    let configurations = "/configurations?environment=local";
    for _ in 0..3 {
        app.consumer(configurations).status(200).await;
    }
    limited(app.consumer(configurations)).await;
    // The operator works with the admin key for everybody.
    for _ in 0..10 {
        server.admin("GET", M).status(200).await;
    }
}

#[tokio::test]
async fn a_key_has_a_bounded_number_of_open_polls() {
    let mut limits = limits();
    limits.polls = 2;
    let server = Server::limited(limits).await;
    server.application("shop").await;
    server.put("shop", "local", "db", "1").await;
    let reader = server.account("reader", &[["shop", "local", "*", "read"]]).await;
    let path = format!("{O}/projects/shop/envs/local/bundle");
    let read = |wait: &str| server.call("GET", &format!("{path}{wait}")).key(&reader.key);
    let etag = read("").status(200).await.header("etag").to_owned();
    let poll = || read("?wait=60").header("if-none-match", &etag).send();
    let open = [tokio::spawn(poll()), tokio::spawn(poll())];
    while server.store.stats().watchers < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    limited(read("?wait=60").header("if-none-match", &etag)).await;
    // What does not wait is no poll.
    read("").status(200).await;
    server.put("shop", "local", "db", "2").await;
    for poll in open {
        assert_eq!(poll.await.unwrap().status, 200);
    }
    let etag = read("").status(200).await.header("etag").to_owned();
    let again = read("?wait=1").header("if-none-match", &etag);
    again.status(304).await;
}

#[tokio::test]
async fn audit_entries_name_the_address_that_a_trusted_proxy_vouches_for() {
    let mut limits = limits();
    limits.trusted_proxies = "127.0.0.0/8, 10.0.0.0/8".parse().unwrap();
    let behind = Server::limited(limits).await;
    let direct = Server::start().await;
    for (server, forwarded, seen) in [
        (&behind, "1.1.1.1, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        (&behind, "198.51.100.7, unknown, 10.1.2.3", "10.1.2.3"),
        (&behind, "2001:db8::7", "2001:db8::7"),
        (&direct, "198.51.100.7", "127.0.0.1"),
    ] {
        let name = json!({"name": format!("a{}", time(0).replace([':', '.'], "-"))});
        let made = server.admin("POST", M).header("x-forwarded-for", forwarded).json(name);
        made.status(201).await;
        assert_eq!(server.audit().await[0].ip.as_deref(), Some(seen), "{forwarded}");
    }
}

#[tokio::test]
async fn failures_count_for_the_address_behind_the_proxy() {
    let mut limits = limits();
    limits.trusted_proxies = "127.0.0.1".parse().unwrap();
    limits.failures = rate(1, 2);
    let server = Server::limited(limits).await;
    let from = |address: &str| server.call("GET", M).header("x-forwarded-for", address);
    for address in ["198.51.100.7", "2001:db8::1"] {
        from(address).status(401).await;
        from(address).status(401).await;
        limited(from(address)).await;
    }
    from("198.51.100.8").status(401).await;
    limited(from("2001:db8::2")).await;
    from("2001:db8:0:1::1").status(401).await;
}
