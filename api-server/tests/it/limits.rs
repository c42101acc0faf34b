//! How much one caller may take, and where a request is said to come from.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADMIN, C, Call, M, O, Reply, Server, burst, limits, time};

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
    limits.failures = burst(5);
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
    limits.per_key = Some(burst(3));
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
        tokio::time::sleep(Duration::from_millis(5)).await;
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
    limits.failures = burst(2);
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

/// A connection of its own.
async fn connect(server: &Server) -> TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// All that comes until the server closes the connection; an error is an end too.
async fn rest(mut connection: TcpStream) -> String {
    let mut all = Vec::new();
    let read = connection.read_to_end(&mut all);
    let ended = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(ended.is_ok(), "the connection stays open");
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_body_that_drips_is_408_and_the_end_of_its_connection() {
    let mut limits = limits();
    limits.body_time = Duration::from_millis(100);
    let server = Server::limited(limits).await;
    let mut connection = connect(&server).await;
    let head = format!(
        "POST {M} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-type: application/json\r\n\
         content-length: 20\r\n\r\n{{\"name\": "
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(connection).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(
        answer.contains("application/problem+json") && answer.contains("\"timeout\""),
        "{answer}"
    );
    assert!(
        server.admin("GET", M).status(200).await.list().is_empty(),
        "nothing half done"
    );
}

#[tokio::test]
async fn a_source_has_its_share_of_connections_without_a_valid_credential() {
    let mut limits = limits();
    limits.strangers_per_source = 3;
    let server = Server::limited(limits).await;
    let request = |key: &str| format!("GET {M} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n");
    // Known ones do not count, and stay.
    let mut known = vec![];
    for _ in 0..10 {
        let mut connection = connect(&server).await;
        connection.write_all(request(ADMIN).as_bytes()).await.unwrap();
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        known.push(connection);
    }
    let mut strangers = vec![];
    for _ in 0..3 {
        let mut connection = connect(&server).await;
        connection.write_all(request("wrong").as_bytes()).await.unwrap();
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 401");
        strangers.push(connection);
    }
    let mut over = connect(&server).await;
    // It may be closed before the request is out.
    let _ = over.write_all(request(ADMIN).as_bytes()).await;
    let mut nothing = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), over.read_to_end(&mut nothing))
        .await
        .unwrap();
    assert!(read.is_err() || nothing.is_empty(), "{nothing:?}");

    // A stranger that shows a valid credential makes room.
    let mut one = strangers.pop().unwrap();
    one.write_all(request(ADMIN).as_bytes()).await.unwrap();
    let mut answers = String::new();
    while !answers.contains("HTTP/1.1 200") {
        let mut piece = [0; 4096];
        let bytes = one.read(&mut piece).await.unwrap();
        assert!(bytes > 0, "{answers}");
        answers.push_str(std::str::from_utf8(&piece[..bytes]).unwrap());
    }
    let mut another = connect(&server).await;
    another.write_all(request("wrong").as_bytes()).await.unwrap();
    let mut start = [0; 12];
    another.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 401");
}

#[tokio::test]
async fn heads_of_any_size_are_refused_without_a_look() {
    let server = Server::start().await;
    let long = format!("{M}?{}", "a".repeat(40 * 1024));
    server.call("GET", &long).problem(414, "uri_too_long").await;
    // What does not even fit the reader's memory is refused by it.
    for (head, status) in [
        (
            format!(
                "GET {M} HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n",
                "a".repeat(80 * 1024)
            ),
            "431",
        ),
        (
            format!("GET {M} HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-many: a\r\n".repeat(200)),
            "431",
        ),
        (
            format!("GET {M}{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(80 * 1024)),
            "4",
        ),
        ("GET / HTTP/1.1 x\r\n\r\n".to_owned(), "400"),
    ] {
        let mut connection = connect(&server).await;
        let _ = connection.write_all(head.as_bytes()).await;
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        let start = std::str::from_utf8(&start).unwrap();
        assert!(start.starts_with(&format!("HTTP/1.1 {status}")), "{start}");
    }
    server.admin("GET", M).status(200).await;
}
