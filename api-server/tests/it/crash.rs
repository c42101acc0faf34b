//! A server that is killed while it works, or whose power is cut, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sealpod_api_server::audit::Chain;
use sealpod_api_server::crypto::{Keyring, generate_master_key};
use sealpod_api_server::store::{Options, ProjectRef, Store};
use serde_json::{Value, json};

use crate::process::{Process, maintain, serve, text};
use crate::shim::{Power, Shim, is_torture, rounds};
use crate::support::{ADMIN, O};

/// How long each of them goes on from its first answer.
const ROUND: Duration = Duration::from_millis(100);
const CALLERS: usize = 8;
/// Behind a kill a server is ready before this is over, on a machine that has nothing else to do: asked for in a torture.
const READY: Duration = Duration::from_secs(2);
/// And so soon on one that many tests share: what a start has to read does not grow with what the one before has done.
const READY_AMONG_OTHERS: Duration = Duration::from_secs(10);
/// How long a round waits for anything to be done at all.
const PATIENCE: Duration = Duration::from_secs(10);

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
            if !response.status().is_success() {
                busy(response).await;
                continue;
            }
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
            if response.status() != 200 {
                busy(response).await;
                continue;
            }
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

/// What goes on beside the callers, and is cut off with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The master key is rotated, each time to a new one.
    Rotation,
    /// Backups are made, one after the other.
    Backups,
}

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    /// A kill, and the disk has what it would have without power.
    Cut(Power),
}

/// Lets callers work on a server that ends again and again; answers what is wrong behind it, which should be nothing.
async fn ended_again_and_again(dir: &Path, (beside, end): (Beside, End), rounds: usize) -> Vec<String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let marks: Vec<_> = (0..CALLERS)
        .map(|_| <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default())
        .collect();
    let shim = match end {
        End::Kill => None,
        End::Cut(power) => {
            let shim = Shim::new(dir);
            shim.watch_power(power);
            Some(shim)
        }
    };
    let mut all = Answered::default();
    for round in 0..rounds {
        let begun = Instant::now();
        let server = start(dir, shim.as_ref());
        let soon = if is_torture() { READY } else { READY_AMONG_OTHERS };
        assert!(begun.elapsed() < soon, "ready only behind {:?}", begun.elapsed());
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
        if round == 0 && beside == Beside::Backups {
            let post = client.post(format!("http://{}/api/backups", server.address));
            assert_eq!(post.bearer_auth(ADMIN).send().await.unwrap().status(), 201);
        }
        let disturbing = tokio::spawn(disturb(beside, dir.to_owned(), server.address.clone(), client));
        let done = || -> usize {
            marks
                .iter()
                .map(|(_, acknowledged)| acknowledged.load(Ordering::SeqCst))
                .sum()
        };
        let before = done();
        // Not always at the same point of what goes on beside; on a busy machine, once there was anything at all.
        tokio::time::sleep(ROUND + Duration::from_millis(7 * (round as u64 % 16))).await;
        while done() == before && begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // SIGKILL.
        drop(server);
        disturbing.await.unwrap();
        for answered in callers.join_all().await {
            all.versions.extend(answered.versions);
            all.writes.extend(answered.writes);
            all.reads.extend(answered.reads);
        }
        if let Some(shim) = &shim {
            assert!(shim.synced() > 0, "the library was not loaded");
            shim.cut();
        }
    }
    assert!(
        all.writes.len() >= rounds && all.reads.len() >= rounds,
        "they hardly worked: {} writes, {} reads",
        all.writes.len(),
        all.reads.len()
    );
    finish(beside, dir);
    let verified = maintain(dir, &["audit", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let connection = rusqlite::Connection::open(dir.join("sealpod.db")).unwrap();
    let sql = "PRAGMA integrity_check";
    assert_eq!(
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(),
        "ok"
    );
    drop(connection);
    missing(dir, all).await
}

fn start(dir: &Path, shim: Option<&Shim>) -> Process {
    let mut serve = serve(dir);
    serve.env("SEALPOD_BACKUP_URL", format!("file://{}/backups", dir.display()));
    Process::start(match shim {
        Some(shim) => shim.over(&mut serve),
        None => &mut serve,
    })
}

async fn disturb(beside: Beside, dir: std::path::PathBuf, address: String, client: reqwest::Client) {
    let post = |path: &str| client.post(format!("http://{address}{path}")).bearer_auth(ADMIN);
    match beside {
        Beside::Nothing => {}
        Beside::Rotation => {
            let (file, new) = (dir.join("master.key"), dir.join("master.key.new"));
            let keys = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&new, format!("{}\n{keys}", generate_master_key().expose())).unwrap();
            std::fs::rename(new, file).unwrap();
            // The server may be gone before its answer is out.
            drop(post("/api/keys/rotate").send().await);
        }
        Beside::Backups => while post("/api/backups").send().await.is_ok() {},
    }
}

/// What was cut off comes to its end once it is left alone.
fn finish(beside: Beside, dir: &Path) {
    if beside == Beside::Nothing {
        return;
    }
    let server = start(dir, None);
    match beside {
        Beside::Nothing => {}
        Beside::Rotation => {
            let url = format!("http://{}", server.address);
            let admin = dir.join("admin.key").to_str().unwrap().to_owned();
            let arguments = ["key", "rotate", "--url", &url, "--admin-api-key-file", &admin];
            let rotated = crate::process::run(&arguments);
            assert!(rotated.status.success(), "{}", text(&rotated.stderr));
            drop(server);
            // Nothing needs any other key.
            let keys = std::fs::read_to_string(dir.join("master.key")).unwrap();
            assert!(keys.lines().count() > 2, "nothing was rotated");
            std::fs::write(dir.join("master.key"), keys.lines().next().unwrap()).unwrap();
        }
        Beside::Backups => {
            let left = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = left
                .filter(|name| name.to_string_lossy().contains(".sealpod-scratch-"))
                .collect();
            assert!(
                left.is_empty(),
                "copies of backups that were cut off are still there: {left:?}"
            );
            drop(server);
            let url = format!("file://{}/backups", dir.display());
            let list = crate::process::run(&["backup", "list", "--backup-url", &url]);
            let ids: Vec<_> = text(&list.stdout)
                .lines()
                .map(|line| line.split(' ').next().unwrap().to_owned())
                .collect();
            assert!(!ids.is_empty(), "no backup was finished: {}", text(&list.stderr));
            let scratch = dir.to_str().unwrap();
            for id in ids {
                let verify = ["backup", "verify", &id, "--scratch", scratch, "--backup-url", &url];
                let keys = ["--master-key-file", &format!("{scratch}/master.key")];
                let verified = crate::process::run(&[&verify[..], &keys].concat());
                assert!(verified.status.success(), "{id}: {}", text(&verified.stderr));
            }
        }
    }
}

/// On a machine that many tests share, a server may have too much to do: it says so, and has answered for nothing.
async fn busy(response: reqwest::Response) {
    // Its end may come first.
    let Ok(text) = response.text().await else { return };
    assert!(
        text.contains("\"overloaded\"") || text.contains("\"timeout\""),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ended_again_and_again(dir.path(), (Beside::Nothing, End::Kill), rounds(20)).await;
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill_while_the_master_key_is_rotated() {
    // A file of master keys holds no more than 16.
    for _ in 0..rounds(1) {
        let dir = tempfile::tempdir().unwrap();
        let missing = ended_again_and_again(dir.path(), (Beside::Rotation, End::Kill), 6).await;
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_kill_while_backups_are_made_and_so_does_each_finished_one() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ended_again_and_again(dir.path(), (Beside::Backups, End::Kill), rounds(6)).await;
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_power_cut() {
    for power in [Power::Synced, Power::Mixed] {
        let dir = tempfile::tempdir().unwrap();
        let missing = ended_again_and_again(dir.path(), (Beside::Nothing, End::Cut(power)), rounds(5)).await;
        assert!(missing.is_empty(), "{power:?}: {missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_power_cut_while_the_master_key_is_rotated() {
    for _ in 0..rounds(1) {
        for power in [Power::Synced, Power::Mixed] {
            let dir = tempfile::tempdir().unwrap();
            let missing = ended_again_and_again(dir.path(), (Beside::Rotation, End::Cut(power)), 4).await;
            assert!(missing.is_empty(), "{power:?}: {missing:?}");
        }
    }
}

/// The tests above would find it out: as with `synchronous=NORMAL`, nothing waits for the log here.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_did_not_wait_for_its_log_would_lose_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    // All that is needed to start is on the disk.
    assert_eq!(start(dir.path(), None).stop().0, Some(0));
    let shim = Shim::new(dir.path());
    shim.watch_power(Power::ForgetsTheLog);
    let server = start(dir.path(), Some(&shim));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let projects = |address: &str| format!("http://{address}{O}/projects");
    let post = client.post(projects(&server.address)).bearer_auth(ADMIN);
    assert_eq!(post.json(&json!({"name": "shop"})).send().await.unwrap().status(), 201);
    drop(server);
    shim.cut();
    let server = start(dir.path(), None);
    let list = client
        .get(projects(&server.address))
        .bearer_auth(ADMIN)
        .send()
        .await
        .unwrap();
    assert_eq!(list.text().await.unwrap(), "[]");
}

/// Whether everything that was answered is there, as it was answered, and on record; names what is not.
async fn missing(dir: &Path, all: Answered) -> Vec<String> {
    let mut missing = Vec::new();
    let keyring = Keyring::parse(&std::fs::read_to_string(dir.join("master.key")).unwrap()).unwrap();
    let store = Store::open(&Options::new(dir.join("sealpod.db")), &keyring).unwrap();
    let prod = ProjectRef::slug("default", "shop").environment("prod");
    for ((key, number), value) in all.versions {
        match store.version(prod.clone(), &key, number).await {
            Ok(version) => {
                let stored = keyring.open(&version.aad(), &version.sealed).unwrap();
                assert_eq!(stored.as_slice(), value.as_bytes(), "version {number} of {key}");
            }
            Err(error) => missing.push(format!("version {number} of {key}: {error}")),
        }
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
            if !recorded.contains(&(action.to_owned(), id.clone())) {
                missing.push(format!("{action} {id} is not on record"));
            }
        }
    }
    store.close().await;
    missing
}
