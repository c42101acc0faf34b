//! A disk that is full: what goes on, what is refused, and that it heals by itself. What docs/OPERATIONS.md says of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Process, maintain, run, serve, text};
use crate::support::{ADMIN, O};
use crate::volume::{Volume, available};

const PAGE: &str = include_str!("../../../docs/OPERATIONS.md");
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

/// Reads until that is refused; answers what was on record by then.
async fn use_up(caller: Caller, id: String) -> Vec<String> {
    let mut reads = Vec::new();
    loop {
        let id = format!("{id}-{}", reads.len());
        if caller.get("key-3", &id).await.status != 200 {
            return reads;
        }
        reads.push(id);
        assert!(reads.len() < 20_000, "room was found where there is none");
    }
}

/// Uses the reserve up; answers what was read until then.
async fn nothing_is_left(server: &Process, caller: &Caller) -> Vec<String> {
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8 {
        readers.spawn(use_up(Caller::new(server), format!("last-{reader}")));
    }
    let reads = readers.join_all().await.into_iter().flatten().collect();
    let refused = caller.get("key-3", "refused").await;
    assert_eq!(
        (refused.status, &refused.code),
        (503, &json!("disk_full")),
        "{}",
        refused.text
    );
    assert!(page().contains("503 `disk_full`"));
    assert!(refused.retries && !refused.text.contains("vvv"), "{}", refused.text);
    server
        .wait_for(|status, text| status == 503 && text.contains("records: "))
        .await;
    reads
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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_answers_reads_from_its_reserve_and_heals() {
    let volume = Volume::new(80);
    let (dir, server, caller) = started(&volume).await;
    let reserve = dir.join("sealpod.db.reserve");
    assert!(page().contains(&format!(
        "`sealpod.db.reserve`, {} MiB",
        reserve.metadata().unwrap().len() / MIB
    )));
    let (mut stored, mut reads) = (Stored::new(), Vec::new());
    let ((account, _), (_, stranger)) = (caller.account("to-be-revoked").await, caller.account("stranger").await);
    for round in 0..2 {
        volume.fill("other", 3 * MIB);
        write_until_full(&server, round, &mut stored).await;

        // 1. Changes are refused, with the reserve given up; the probe says so.
        assert!(!reserve.exists());
        let probed = server
            .wait_for(|status, text| status == 503 && text.contains("writes:"))
            .await;
        assert!(page().contains("`/readyz` is red"), "{probed}");
        assert!(
            probed.contains("the disk is full: no changes are made") && !probed.contains("records:"),
            "{probed}"
        );
        for n in 0..5 {
            let refused = caller.put("key-0", "small").await;
            assert_eq!((refused.status, &refused.code), (507, &json!("disk_full")), "{n}");
        }
        assert!(page().contains("507 `disk_full`"));

        // 2. Values are given out, refusals kept, and access is taken away.
        assert!(page().contains("Reads of values, refusals, deletions and revocations go on"));
        let value = &stored.last_key_value().unwrap().1[..8];
        for n in 0..50 {
            let id = format!("read-{round}-{n}");
            let read = caller.get("key-3", &id).await;
            assert_eq!(read.status, 200, "{n}: {}", read.text);
            assert!(read.text.contains(value), "{}", &read.text[..200]);
            reads.push(id);
        }
        let id = format!("denied-{round}");
        assert_eq!(caller.denied(&stranger, &id).await.status, 403);
        if round == 0 {
            reads.push(id);
            let path = format!("{O}/service-accounts/{account}");
            assert_eq!(caller.call("DELETE", &path, "revoked", Value::Null).await.status, 204);
            reads.push("revoked".to_owned());
        }

        // 3. Nothing at all is left: no value is given out that cannot be put on record.
        if round == 0 {
            volume.fill("rest", 0);
            reads.extend(nothing_is_left(&server, &caller).await);
            volume.free("rest");
        }

        // 4. Room returns: it finds out by itself.
        volume.free("other");
        server
            .wait_for(|status, text| status == 200 && text.starts_with("ok"))
            .await;
        assert!(reserve.exists());
        let put = caller.put(&format!("after-{round}"), "v").await;
        assert_eq!(put.status, 201, "{}", put.text);
    }
    check(&caller, &dir, &stored, &reads).await;
    assert!(maintain_copy(&dir, &["audit", "verify"]).contains("ok"));
    assert!(stored.len() > 20, "hardly anything was written: {}", stored.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_on_a_full_disk_reads_on() {
    let volume = Volume::new(96);
    let (dir, server, caller) = started(&volume).await;
    let mut stored = Stored::new();
    volume.fill("other", 2 * MIB);
    write_until_full(&server, 0, &mut stored).await;
    drop((server, caller));
    // What a restart finds is taken by whatever else is on the volume, but for the reserve's room.
    volume.fill("more", 4 * MIB);
    let server = Process::start(&mut serve(&dir));
    let caller_now = Caller::new(&server);
    server
        .wait_for(|status, text| status == 503 && text.contains("no changes are made"))
        .await;
    let refused = caller_now.put("key-0", "small").await;
    assert_eq!((refused.status, &refused.code), (507, &json!("disk_full")));
    assert_eq!(caller_now.get("key-0", "read").await.status, 200);
    let (code, _) = server.stop();
    assert_eq!(code, Some(0), "it could not be stopped as usual");

    // With its reserve whole, and not a byte beside it: that is what the reserve is for, too.
    volume.free("more");
    volume.free("other");
    let server = Process::start(&mut serve(&dir));
    server.wait_for(|status, _| status == 200).await;
    assert_eq!(server.stop().0, Some(0));
    assert!(dir.join("sealpod.db.reserve").exists());
    volume.fill("other", 0);
    assert!(available(&dir) < 64 * KIB);
    let server = Process::start(&mut serve(&dir));
    let caller = Caller::new(&server);
    assert_eq!(caller.get("key-0", "read").await.status, 200);
    volume.free("other");
    server.wait_for(|status, _| status == 200).await;
    assert_eq!(caller.put("new", "v").await.status, 201);
    check(&caller, &dir, &stored, &["read".to_owned()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_room_for_a_reserve_is_warned_of_and_fails_closed() {
    let volume = Volume::new(16);
    let (dir, server, caller) = started(&volume).await;
    volume.fill("other", 10 * MIB);
    let warned = server.wait_for(|_, text| text.contains("warning: reserve")).await;
    assert!(warned.starts_with("ok") && warned.contains("too small"), "{warned}");
    assert!(page().contains("64 MiB"));
    assert!(!dir.join("sealpod.db.reserve").exists());
    let mut stored = Stored::new();
    write_until_full(&server, 0, &mut stored).await;
    volume.fill("rest", 0);
    let mut reads = Vec::new();
    let refused = loop {
        let id = format!("read-{}", reads.len());
        let read = caller.get("key-0", &id).await;
        if read.status != 200 {
            break read;
        }
        reads.push(id);
    };
    assert_eq!(
        (refused.status, &refused.code),
        (503, &json!("disk_full")),
        "{}",
        refused.text
    );
    assert_eq!(caller.put("key-0", "small").await.status, 507);
    server
        .wait_for(|status, text| status == 503 && text.contains("writes:"))
        .await;
    volume.free("rest");
    volume.free("other");
    server.wait_for(|status, _| status == 200).await;
    check(&caller, &dir, &stored, &reads).await;
    assert_eq!(caller.put("key-0", "small").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_makes_room_on_a_full_disk_by_itself() {
    let volume = Volume::new(80);
    let (dir, server, caller) = started(&volume).await;
    volume.fill("other", 30 * MIB);
    let mut stored = Stored::new();
    write_until_full(&server, 0, &mut stored).await;
    assert!(!dir.join("sealpod.db.reserve").exists());
    for key in ["key-1", "key-2", "key-3"] {
        let path = format!("{O}/projects/shop/envs/prod/secrets/{key}?purge=true");
        let purged = caller.call("DELETE", &path, "purge", Value::Null).await;
        assert_eq!(purged.status, 204, "{}", purged.text);
        stored.retain(|(name, _), _| name != key);
    }
    assert!(page().contains("purged makes room"));
    server.wait_for(|status, _| status == 200).await;
    assert!(dir.join("sealpod.db.reserve").exists());
    assert_eq!(caller.put("after", "v").await.status, 201);
    assert_eq!(maintain_copy(&dir, &["audit", "verify"]).matches(": ok").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_of_backups_is_named_and_holds_up_nothing_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (volume, dir) = (Volume::new(16), tempfile::tempdir().unwrap());
    let backups = volume.path().join("backups");
    std::fs::create_dir(&backups).unwrap();
    let server = Process::start(serve(dir.path()).env("SEALPOD_BACKUP_URL", format!("file://{}", backups.display())));
    let caller = Caller::new(&server);
    caller.project().await;
    volume.fill("other", 8 * KIB);
    let refused = caller.call("POST", "/api/backups", "backup", Value::Null).await;
    assert_eq!(
        (refused.status, &refused.code),
        (503, &json!("unavailable")),
        "{}",
        refused.text
    );
    assert!(
        refused.text.contains("the volume of the backups is full"),
        "{}",
        refused.text
    );
    assert_eq!(server.readiness().await.0, 200);
    assert_eq!(caller.put("key-0", "v").await.status, 201);
    let left: Vec<_> = std::fs::read_dir(&backups).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");

    volume.free("other");
    let made = caller.call("POST", "/api/backups", "backup", Value::Null).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let url = format!("file://{}", backups.display());
    let listed = run(&["backup", "list", "--backup-url", &url]);
    assert_eq!(text(&listed.stdout).lines().count(), 1, "{}", text(&listed.stderr));
}
