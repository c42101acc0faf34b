//! An api-server that knows one path and does as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum_server::tls_rustls::RustlsConfig;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How the server behaves.
#[derive(Debug, Clone, PartialEq)]
pub enum Manner {
    /// Long polls and answers.
    Proper,
    /// Answers every question with this status, and perhaps a `Retry-After`.
    Refusing(u16, Option<&'static str>),
    /// Says "nothing changed" at once, however long it was asked to wait.
    Hasty,
    /// As `Proper`, but a change does not end a poll.
    Sleepy,
}

/// A question that was asked.
#[derive(Debug, Clone)]
pub struct Seen {
    pub project: String,
    pub query: String,
    pub etag: Option<String>,
    pub key: String,
    pub at: Instant,
}

#[derive(Debug, Clone)]
struct World {
    revision: u64,
    answer: Value,
    manner: Manner,
    key: String,
}

#[derive(Clone)]
pub struct Fake {
    world: watch::Sender<World>,
    seen: Arc<Mutex<Vec<Seen>>>,
    reports: Arc<Mutex<Vec<Value>>>,
    pub address: SocketAddr,
    /// Bound, and never listens: keeps the port while nobody serves.
    #[expect(dead_code, reason = "held")]
    place: Arc<TcpSocket>,
    shutdown: Arc<Mutex<CancellationToken>>,
}

pub const KEY: &str = "cr_sa_0123456789012345678901234567890123456789";

/// Has an address for itself, and does not listen on it: who binds it to listen, with `SO_REUSEADDR` as all servers do, may.
pub fn bound(address: SocketAddr) -> TcpSocket {
    let place = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let place = place.unwrap();
    place.set_reuseaddr(true).unwrap();
    place.bind(address).unwrap();
    place
}

impl Fake {
    pub fn start(answer: Value) -> Self {
        let fake = Self::stopped(answer);
        fake.up();
        fake
    }

    /// Has a port, and nobody listens on it.
    pub fn stopped(answer: Value) -> Self {
        Self::stopped_on("127.0.0.1", answer)
    }

    pub fn stopped_on(address: &str, answer: Value) -> Self {
        let address: SocketAddr = format!("{address}:0").parse().unwrap();
        let place = bound(address);
        let world = World {
            revision: 1,
            answer,
            manner: Manner::Proper,
            key: KEY.to_owned(),
        };
        Self {
            world: watch::Sender::new(world),
            seen: Arc::default(),
            reports: Arc::default(),
            address: place.local_addr().unwrap(),
            place: Arc::new(place),
            shutdown: Arc::default(),
        }
    }

    pub fn up(&self) {
        self.serve(None);
    }

    /// Serves with a certificate of its own for `localhost`; gives its PEM.
    pub fn up_with_tls(&self) -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let config = sealpod_runtime::tls::server_config(cert.as_bytes(), key.as_bytes()).unwrap();
        self.serve(Some(RustlsConfig::from_config(Arc::new(config))));
        cert
    }

    fn serve(&self, tls: Option<RustlsConfig>) {
        let listener = sealpod_runtime::serve::bind(self.address).unwrap();
        let shutdown = CancellationToken::new();
        *self.shutdown.lock().unwrap() = shutdown.clone();
        let router = Router::new()
            .route("/api/orgs/{org}/projects/{project}/envs/{env}/bundle", get(bundle))
            .route(
                "/api/orgs/{org}/projects/{project}/envs/{env}/bundle/report",
                post(report).delete(withdraw),
            )
            .with_state(self.clone());
        tokio::spawn(sealpod_runtime::serve::run(
            listener,
            tls,
            router,
            shutdown,
            Duration::ZERO,
        ));
    }

    pub async fn down(&self) {
        self.shutdown.lock().unwrap().cancel();
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another answer, which ends the polls that wait.
    pub fn answer(&self, answer: Value) {
        self.world.send_modify(|world| {
            world.answer = answer;
            world.revision += 1;
        });
    }

    /// A state that has been before, under the `etag` that it had then: a version was switched off again.
    pub fn back_to(&self, revision: u64, answer: Value) {
        self.world.send_modify(|world| {
            world.answer = answer;
            world.revision = revision;
        });
    }

    pub fn manner(&self, manner: Manner) {
        self.world.send_modify(|world| world.manner = manner);
    }

    /// The only key that is taken from now on.
    pub fn key(&self, key: &str) {
        self.world.send_modify(|world| key.clone_into(&mut world.key));
    }

    /// What was said of pods, and `null` where it was taken back.
    pub fn reports(&self) -> Vec<Value> {
        self.reports.lock().unwrap().clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// `secrets` with values, all of version 1.
pub fn secrets<const N: usize>(secrets: [(&str, &str); N]) -> Value {
    let secrets: serde_json::Map<_, _> = secrets
        .into_iter()
        .map(|(key, value)| {
            (
                key.to_owned(),
                json!({"value": value, "version": 1, "encoding": "utf8"}),
            )
        })
        .collect();
    json!({"next_change_at": null, "secrets": secrets, "configurations": {}, "missing": [], "denied": []})
}

async fn bundle(
    State(fake): State<Fake>,
    Path((_, project, _)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let query = query.unwrap_or_default();
    let etag = text("if-none-match").map(|etag| etag.trim_matches('"').to_owned());
    let key = text("x-api-key").unwrap_or_default();
    fake.seen.lock().unwrap().push(Seen {
        project,
        query: query.clone(),
        etag: etag.clone(),
        key: key.clone(),
        at: Instant::now(),
    });
    let wait = query.split('&').find_map(|pair| pair.strip_prefix("wait="));
    let wait = Duration::from_secs(wait.map_or(0, |wait| wait.parse().unwrap()));
    let deadline = Instant::now() + wait;
    let mut changes = fake.world.subscribe();
    loop {
        let world = changes.borrow_and_update().clone();
        if let Manner::Refusing(status, retry_after) = world.manner {
            return problem(status, retry_after);
        }
        if key != world.key {
            return problem(401, None);
        }
        let current = format!("e{}", world.revision);
        let same = etag.as_ref() == Some(&current);
        if same && world.manner == Manner::Hasty {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        if !same && (world.manner != Manner::Sleepy || Instant::now() >= deadline || wait.is_zero()) {
            let mut answer = world.answer;
            answer["etag"] = json!(current);
            return axum::Json(answer).into_response();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        let _ = tokio::time::timeout(left, changes.changed()).await;
    }
}

fn problem(status: u16, retry_after: Option<&str>) -> Response {
    let code = match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        _ => "unavailable",
    };
    let body = json!({"type": "about:blank", "title": "", "status": status, "detail": "because", "code": code});
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, "application/problem+json".parse().unwrap());
    if let Some(text) = retry_after {
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
    }
    (StatusCode::from_u16(status).unwrap(), headers, body.to_string()).into_response()
}

async fn report(State(fake): State<Fake>, axum::Json(report): axum::Json<Value>) -> StatusCode {
    fake.reports.lock().unwrap().push(report);
    StatusCode::NO_CONTENT
}

async fn withdraw(State(fake): State<Fake>, RawQuery(query): RawQuery) -> StatusCode {
    assert_eq!(query.as_deref(), Some("namespace=team&pod=app-0"));
    fake.reports.lock().unwrap().push(Value::Null);
    StatusCode::NO_CONTENT
}
