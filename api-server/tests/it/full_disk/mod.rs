//! A disk that is full: what goes on, what is refused, and that it heals by itself. What docs/OPERATIONS.md says of it.

mod backups;
mod serving;
mod starts;
mod stops;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Process, maintain, serve, text};
use crate::support::{ADMIN, O};
use crate::volume::Volume;

const PAGE: &str = include_str!("../../../../docs/OPERATIONS.md");
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const WRITERS: usize = 4;

struct Caller {
    client: reqwest::Client,
    url: String,
}

/// An answer: its status, its `code` where it is a problem, its text, and whether it says when to try again.
#[derive(Debug)]
struct Answer {
    status: u16,
    code: Value,
    text: String,
    retries: bool,
}

impl Caller {
    fn new(server: &Process) -> Self {
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: format!("http://{}", server.address),
        }
    }

    async fn call(&self, method: &str, path: &str, id: &str, body: Value) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let call = self.client.request(method, format!("{}{path}", self.url));
        self.send(call.bearer_auth(ADMIN).header("x-request-id", id), body)
            .await
    }

    async fn send(&self, mut call: reqwest::RequestBuilder, body: Value) -> Answer {
        if !body.is_null() {
            call = call.json(&body);
        }
        let answer = call.send().await.unwrap();
        let (status, retries) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        let text = answer.text().await.unwrap();
        let code = serde_json::from_str::<Value>(&text).map_or(Value::Null, |body| body["code"].clone());
        Answer {
            status,
            code,
            text,
            retries,
        }
    }

    async fn put(&self, key: &str, value: &str) -> Answer {
        let path = format!("{O}/projects/shop/envs/prod/secrets/{key}");
        self.call("PUT", &path, "put", json!({"value": value})).await
    }

    async fn get(&self, key: &str, id: &str) -> Answer {
        let path = format!("{O}/projects/shop/envs/prod/secrets/{key}");
        self.call("GET", &path, id, Value::Null).await
    }

    async fn project(&self) {
        let path = format!("{O}/projects");
        let made = self.call("POST", &path, "project", json!({"name": "shop"})).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }

    /// A service account without a rule: its id and key.
    async fn account(&self, name: &str) -> (String, String) {
        let path = format!("{O}/service-accounts");
        let made = self.call("POST", &path, "account", json!({"name": name})).await;
        let body: Value = serde_json::from_str(&made.text).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("id"), text("api_key"))
    }

    /// A read that no rule allows.
    async fn denied(&self, key: &str, id: &str) -> Answer {
        let path = format!("{}{O}/projects/shop/envs/prod/secrets/key-0", self.url);
        let call = self
            .client
            .get(path)
            .header("x-api-key", key)
            .header("x-request-id", id);
        self.send(call, Value::Null).await
    }
}

/// What writers were told is stored: by key and number, the value.
type Stored = BTreeMap<(String, u64), String>;

/// Writes until each writer is told that the disk is full.
async fn write_until_full(server: &Process, round: usize, stored: &mut Stored) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let caller = Caller::new(server);
        writers.spawn(async move {
            let (key, mut stored) = (format!("key-{writer}"), Stored::new());
            for n in 0..10_000 {
                let value = format!("{round} {n} {}", "v".repeat(100_000));
                let put = caller.put(&key, &value).await;
                if !matches!(put.status, 200 | 201) {
                    assert_eq!((put.status, &put.code), (507, &json!("disk_full")), "{}", put.text);
                    return stored;
                }
                let body: Value = serde_json::from_str(&put.text).unwrap();
                stored.insert((key.clone(), body["version"].as_u64().unwrap()), value);
            }
            panic!("it was never full");
        });
    }
    for written in writers.join_all().await {
        stored.extend(written);
    }
}

/// Everything that was said to be stored is, and nothing by halves.
async fn check(caller: &Caller, dir: &Path, stored: &Stored, reads: &[String]) {
    for ((key, number), value) in stored {
        let path = format!("{O}/projects/shop/envs/prod/bundle?version={key}:{number}&key={key}");
        let answer = caller.call("GET", &path, "check", Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(
            body["secrets"][key]["value"] == **value,
            "{key} {number} is another value"
        );
    }
    for key in (0..WRITERS).map(|n| format!("key-{n}")) {
        let path = format!("{O}/projects/shop/envs/prod/secrets/{key}/versions");
        let versions = caller.call("GET", &path, "check", Value::Null).await;
        let versions: Vec<Value> = serde_json::from_str(&versions.text).unwrap();
        let mut numbers: Vec<_> = versions
            .iter()
            .map(|version| version["version"].as_u64().unwrap())
            .collect();
        numbers.sort_unstable();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len() as u64),
            "{key}: {numbers:?}"
        );
        let told = stored.keys().filter(|(name, _)| *name == key).count();
        assert_eq!(numbers.len(), told, "{key} has what was refused");
    }
    let export = maintain_copy(dir, &["audit", "export", "--organization", "default"]);
    for id in reads {
        assert!(
            export.contains(&format!("\"{id}\"")),
            "{id} was answered and is not on record"
        );
    }
}

/// What a command says of a copy of the database, which nobody else uses.
fn maintain_copy(dir: &Path, arguments: &[&str]) -> String {
    let copy = tempfile::tempdir().unwrap();
    for name in ["sealpod.db", "sealpod.db-wal", "master.key"] {
        if dir.join(name).exists() {
            std::fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
    }
    let output = maintain(copy.path(), arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

async fn started(volume: &Volume) -> (PathBuf, Process, Caller) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = volume.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let server = Process::start(&mut serve(&dir));
    let caller = Caller::new(&server);
    caller.project().await;
    (dir, server, caller)
}

/// The words of the page's section about full disks, without its line breaks.
fn page() -> String {
    let section = PAGE
        .split("## The disk is full")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    section.split_whitespace().collect::<Vec<_>>().join(" ")
}
