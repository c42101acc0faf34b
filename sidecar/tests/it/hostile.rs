//! Servers that misbehave. Whatever they do, the files stay, nothing grows without bound, and the return of a proper
//! server is enough.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::secrets;
use crate::pod::{Pod, binding, eventually};

/// What is done with a connection behind its request.
#[derive(Debug, Clone)]
enum Deed {
    /// Answers with these bytes and closes.
    Say(Vec<u8>),
    /// Answers with a body of this many bytes.
    Flood(u64),
    /// Never answers.
    Hang,
    /// Closes without a word.
    Slam,
}

struct Hostile {
    address: std::net::SocketAddr,
    deed: Arc<Mutex<Deed>>,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Hostile {
    async fn start(deed: Deed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hostile = Self {
            address: listener.local_addr().unwrap(),
            deed: Arc::new(Mutex::new(deed)),
            asked: Arc::default(),
            sent: Arc::default(),
        };
        let (deed, asked, sent) = (hostile.deed.clone(), hostile.asked.clone(), hostile.sent.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, deed.clone(), asked.clone(), sent.clone()));
            }
        });
        hostile
    }

    fn does(&self, deed: Deed) {
        *self.deed.lock().unwrap() = deed;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(mut stream: TcpStream, deed: Arc<Mutex<Deed>>, asked: Arc<AtomicUsize>, sent: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if !String::from_utf8_lossy(&request).starts_with("GET /api/orgs/default/projects/shop/envs/prod/bundle") {
        return;
    }
    asked.fetch_add(1, Ordering::Relaxed);
    let deed = deed.lock().unwrap().clone();
    match deed {
        Deed::Say(answer) => {
            let _ = stream.write_all(&answer).await;
        }
        Deed::Hang => tokio::time::sleep(Duration::from_hours(1)).await,
        Deed::Slam => {}
        Deed::Flood(bytes) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n{{\"etag\":\""
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let chunk = vec![b'x'; 64 * 1024];
            let mut left = bytes;
            while left > 0 && stream.write_all(&chunk).await.is_ok() {
                sent.fetch_add(chunk.len(), Ordering::Relaxed);
                left = left.saturating_sub(64 * 1024);
            }
        }
    }
}

fn response(head: &str, body: &str) -> Deed {
    let length = body.len();
    Deed::Say(format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes())
}

fn bundle(mut answer: Value, etag: &str) -> String {
    answer["etag"] = json!(etag);
    answer.to_string()
}

fn proper(value: &str) -> Deed {
    response(
        "200 OK\r\ncontent-type: application/json",
        &bundle(secrets([("a", value)]), &format!("e{value}")),
    )
}

fn watching() -> Value {
    let mut file = binding(Value::Null);
    // Questions without a wait, so that each has its answer at once.
    file["watch"] = json!(false);
    file["refreshInterval"] = json!(1);
    file
}

#[tokio::test]
async fn no_answer_of_a_stranger_touches_the_files() {
    let json = "content-type: application/json";
    let server = Hostile::start(proper("1")).await;
    let pod = Pod::with(&server.url(), &["db"], &watching());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    let half = bundle(secrets([("a", "half")]), "e9");
    let deeds = [
        Deed::Slam,
        Deed::Say(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Deed::Say(b"\0\xff garbage \r\n\r\n".to_vec()),
        Deed::Say(
            format!(
                "HTTP/1.1 200 OK\r\n{json}\r\ncontent-length: {}\r\n\r\n{}",
                half.len(),
                &half[..half.len() / 2]
            )
            .into_bytes(),
        ),
        response(&format!("200 OK\r\n{json}"), ""),
        response(&format!("200 OK\r\n{json}"), "{}"),
        response(&format!("200 OK\r\n{json}"), "[[[[[[[["),
        response("200 OK\r\ncontent-type: text/html", "<html>sign in</html>"),
        response(&format!("200 OK\r\n{json}"), &bundle(secrets([("a", "x")]), "")),
        response(
            &format!("200 OK\r\n{json}"),
            &bundle(secrets([("a", "x")]), &"e".repeat(300)),
        ),
        response(
            &format!("200 OK\r\n{json}"),
            &bundle(secrets([("a", "x")]), "a\r\nx-evil: 1"),
        ),
        response("404 Not Found\r\ncontent-type: text/html", "<html>no such site</html>"),
        response("500 Internal Server Error", "oops"),
        response("204 No Content", ""),
    ];
    for deed in deeds {
        server.does(deed.clone());
        let before = server.asked();
        eventually("two questions", || server.asked() >= before + 2).await;
        assert_eq!(pod.file("a").as_deref(), Some("1"), "{deed:?}");
    }
    server.does(proper("2"));
    pod.shows("a", Some("2")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_redirect_is_refused_and_the_key_goes_nowhere_else() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = elsewhere.local_addr().unwrap();
    let server = Hostile::start(response(
        &format!("307 Temporary Redirect\r\nlocation: http://{target}/"),
        "",
    ))
    .await;
    let pod = Pod::with(&server.url(), &["db"], &watching());
    let init = pod.start(Until::Complete);
    eventually("two questions", || server.asked() >= 2).await;
    let visited = tokio::time::timeout(Duration::from_millis(200), elsewhere.accept()).await;
    assert!(visited.is_err() && init.is_running());
    server.does(proper("1"));
    assert!(init.ended().await);
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let server = Hostile::start(proper("1")).await;
    let pod = Pod::with(&server.url(), &["db"], &watching());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    server.does(Deed::Flood(1 << 30));
    let before = server.asked();
    eventually("two questions", || server.asked() >= before + 2).await;
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    server.does(proper("2"));
    pod.shows("a", Some("2")).await;
    // What fits the volume and a margin, and what lay in the buffers of a few connections.
    let sent = server.sent.load(Ordering::Relaxed);
    assert!(sent < 200 << 20, "{sent} bytes of each 1 GiB");
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_ends_no_pod_and_holds_no_stop_up() {
    let server = Hostile::start(Deed::Hang).await;
    let pod = Pod::with(&server.url(), &["db"], &watching());
    let running = pod.start(Until::Stopped);
    eventually("a question", || server.asked() == 1).await;
    // New credentials give it up and ask anew.
    server.does(proper("1"));
    pod.write_key("db", crate::fake::KEY, None, &{
        let mut edited = watching();
        edited["mode"] = json!(0o400);
        edited
    });
    pod.shows("a", Some("1")).await;
    server.does(Deed::Hang);
    let before = server.asked();
    eventually("a question", || server.asked() > before).await;
    let stop = std::time::Instant::now();
    running.stop().await;
    assert!(stop.elapsed() < Duration::from_secs(1));
    assert_eq!(pod.file("a").as_deref(), Some("1"));
}

#[tokio::test]
async fn names_of_any_length_and_kind_stay_inside_and_out_of_the_log() {
    let long = "x".repeat(10_000);
    let mut answer = secrets([("a", "1")]);
    for name in [
        &long,
        "\u{1b}[2J\r\nlevel=error",
        "..",
        "a/../../b",
        "..data",
        ".hidden",
        "a\0b",
        "\u{202e}gpj",
    ] {
        answer["secrets"][name] = json!({"value": "x", "version": 1, "encoding": "utf8"});
    }
    answer["configurations"] = json!({"../../c": "x", long.as_str(): "x", "fine": "y"});
    answer["missing"] = json!([long, "\u{1b}[2J"]);
    answer["next_change_at"] = json!("1999-01-01T00:00:00Z");
    let server = Hostile::start(response(
        "200 OK\r\ncontent-type: application/json",
        &bundle(answer, "e1"),
    ))
    .await;
    let mut file = watching();
    file["configurations"] = json!({"path": "conf"});
    let mut pod = Pod::with(&server.url(), &["db"], &file);
    let port = crate::agent::port();
    pod.config.settings.health_port = Some(port);
    let running = pod.start(Until::Stopped);
    pod.shows("conf/fine", Some("y")).await;
    let names: Vec<_> = std::fs::read_dir(pod.mount("db").join("..data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let readyz = crate::agent::ask(port, "/readyz").await;
    assert!(readyz.len() < 8 * 1024 && !readyz.contains('\u{1b}'), "{readyz}");
    running.stop().await;
}

#[tokio::test]
async fn a_stranger_with_the_right_certificate_for_another_name_is_not_believed() {
    let fake = crate::fake::Fake::stopped(secrets([("a", "1")]));
    let ca = fake.up_with_tls();
    // The certificate is for `localhost`.
    let pod = Pod::new(&format!("https://127.0.0.1:{}", fake.address.port()));
    pod.write_key("db", crate::fake::KEY, Some(&ca), &binding(Value::Null));
    let init = pod.start(Until::Complete);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        init.is_running() && fake.seen().is_empty(),
        "no request, and so no key, gets through"
    );
    init.stop().await;
}
