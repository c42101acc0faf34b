//! A server that is killed while it works, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sealpod_api_server::audit::Chain;
use sealpod_api_server::crypto::Keyring;
use sealpod_api_server::store::{Options, ProjectRef, Store};
use serde_json::{Value, json};

use crate::process::{Process, maintain, serve, text};
use crate::support::{ADMIN, O};

const ROUNDS: usize = 20;
/// How long each of them goes on from its first answer.
const ROUND: Duration = Duration::from_millis(100);
const CALLERS: usize = 8;
/// What a start takes two seconds for on a machine of its own; what a machine may take that many tests share.
const READY: Duration = Duration::from_secs(10);

/// What callers were answered, over all rounds.
#[derive(Default)]
struct Answered {
    /// By key and number: the value of each version.
    versions: BTreeMap<(String, u64), String>,
    writes: Vec<String>,
    reads: Vec<String>,
}

/// One that writes to, or reads from, a key of its own for as long as the server answers.
#[derive(Clone)]
struct Caller {
    client: reqwest::Client,
    url: String,
    key: String,
    round: usize,
    /// Attempts at writing the key so far, and the newest of those that were acknowledged.
    attempts: Arc<AtomicUsize>,
    acknowledged: Arc<AtomicUsize>,
}

impl Caller {
    fn call(&self, method: reqwest::Method, id: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}/{}", self.url, self.key))
            .bearer_auth(ADMIN)
            .header("x-request-id", id)
    }

    async fn write(self) -> Answered {
        let mut answered = Answered::default();
        loop {
            let attempt = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
            let (id, value) = (format!("w-{}-{attempt}", self.key), format!("value {attempt}"));
            let call = self.call(reqwest::Method::PUT, &id).json(&json!({"value": value}));
            let Ok(response) = call.send().await else {
                return answered;
            };
            assert!(response.status().is_success(), "{}", response.status());
            // A head without its body is an answer too: nothing is sent before the commit.
            answered.writes.push(id);
            self.acknowledged.store(attempt, Ordering::SeqCst);
            let Ok(body) = response.json::<Value>().await else {
                return answered;
            };
            let number = body["version"].as_u64().unwrap();
            answered.versions.insert((self.key.clone(), number), value);
        }
    }

    async fn read(self) -> Answered {
        let mut answered = Answered::default();
        for n in 0.. {
            let id = format!("r-{}-{}-{n}", self.key, self.round);
            let before = self.acknowledged.load(Ordering::SeqCst);
            let Ok(response) = self.call(reqwest::Method::GET, &id).send().await else {
                break;
            };
            if response.status() == 404 {
                assert_eq!(before, 0, "what was acknowledged is gone");
                continue;
            }
            assert_eq!(response.status(), 200);
            let Ok(body) = response.json::<Value>().await else {
                break;
            };
            answered.reads.push(id);
            let value = body["value"].as_str().unwrap().strip_prefix("value ").unwrap();
            let value: usize = value.parse().unwrap();
            assert!(
                (before..=self.attempts.load(Ordering::SeqCst)).contains(&value),
                "read {value} behind {before}"
            );
        }
        answered
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let marks: Vec<_> = (0..CALLERS)
        .map(|_| <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default())
        .collect();
    let mut all = Answered::default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let server = Process::start(&mut serve(dir.path()));
        assert!(begun.elapsed() < READY, "{:?}", begun.elapsed());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let plane = format!("http://{}{O}", server.address);
        if round == 0 {
            let projects = client.post(format!("{plane}/projects")).bearer_auth(ADMIN);
            let made = projects.json(&json!({"name": "shop"})).send().await.unwrap();
            assert_eq!(made.status(), 201);
        }
        let mut callers = tokio::task::JoinSet::new();
        for (n, (attempts, acknowledged)) in marks.iter().enumerate() {
            let caller = Caller {
                client: client.clone(),
                url: format!("{plane}/projects/shop/envs/prod/secrets"),
                key: format!("key-{n}"),
                round,
                attempts: Arc::clone(attempts),
                acknowledged: Arc::clone(acknowledged),
            };
            callers.spawn(caller.clone().write());
            callers.spawn(caller.read());
        }
        tokio::time::sleep(ROUND).await;
        // SIGKILL.
        drop(server);
        for answered in callers.join_all().await {
            all.versions.extend(answered.versions);
            all.writes.extend(answered.writes);
            all.reads.extend(answered.reads);
        }
    }
    assert!(
        all.writes.len() > ROUNDS && all.reads.len() > ROUNDS,
        "they hardly worked"
    );
    let verified = maintain(dir.path(), &["audit", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    check(dir.path(), all).await;
}

/// Everything that was answered is there, as it was answered, and on record.
async fn check(dir: &Path, all: Answered) {
    let keyring = Keyring::parse(&std::fs::read_to_string(dir.join("master.key")).unwrap()).unwrap();
    let store = Store::open(&Options::new(dir.join("sealpod.db")), &keyring).unwrap();
    let prod = ProjectRef::slug("default", "shop").environment("prod");
    for ((key, number), value) in all.versions {
        let version = store.version(prod.clone(), &key, number).await;
        let version = version.unwrap_or_else(|error| panic!("version {number} of {key}: {error}"));
        let stored = keyring.open(&version.aad(), &version.sealed).unwrap();
        assert_eq!(stored.as_slice(), value.as_bytes(), "version {number} of {key}");
    }
    for key in (0..CALLERS).map(|n| format!("key-{n}")) {
        let versions = store.versions(prod.clone(), &key).await.unwrap();
        let numbers: Vec<_> = versions.iter().rev().map(|version| version.number).collect();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len() as u64),
            "{key}: {numbers:?}"
        );
    }

    let chain = Chain::Organization(store.organization("default").await.unwrap().id);
    let (mut after, mut recorded) = (0, BTreeSet::new());
    loop {
        let entries = store.audit_following(chain, after, 1_000).await.unwrap();
        let Some(last) = entries.last() else { break };
        after = last.seq;
        for entry in entries {
            let Some(id) = entry.request_id.filter(|id| id.contains("-key-")) else {
                continue;
            };
            assert!(recorded.insert((entry.action, id.clone())), "{id} is on record twice");
        }
    }
    for (action, ids) in [("secret.set", all.writes), ("secret.read", all.reads)] {
        for id in ids {
            assert!(
                recorded.contains(&(action.to_owned(), id.clone())),
                "{action} {id} is not on record"
            );
        }
    }
    store.close().await;
}
