//! The master key is rotated while many clients work, and the server is killed in the midst of it, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use sealpod_api_server::crypto::{Keyring, generate_master_key};
use sealpod_api_server::store::{Options, ProjectRef, Store};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::process::{maintain, text};
use crate::rotation::Running;
use crate::support::{M, O};

const CLIENTS: usize = 64;
const KILLS: usize = 3;
const TURNS: usize = 5;
/// Versions that are there before, so that a rotation takes some time.
const BEFORE: usize = 600;

/// Where the server is now; where it is not, nobody is asked.
#[derive(Clone, Default)]
struct Place(Arc<RwLock<Option<String>>>);

impl Place {
    fn set(&self, url: Option<String>) {
        *self.0.write().unwrap() = url;
    }

    fn get(&self) -> Option<String> {
        self.0.read().unwrap().clone()
    }
}

/// Somebody with a key of their own, and what was answered to them.
struct Caller {
    name: String,
    key: String,
    /// Number and value of each version.
    set: Vec<(u64, String)>,
    answers: usize,
}

impl Caller {
    async fn work(mut self, client: reqwest::Client, place: Place, done: Arc<AtomicBool>) -> Self {
        for n in 0.. {
            if done.load(Ordering::Relaxed) {
                return self;
            }
            let Some(url) = place.get() else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let path = format!("{url}{O}/projects/shop/envs/local/secrets/{}", self.name);
            let value = format!("{} {n}", self.name);
            let call = if n % 3 == 0 || self.set.is_empty() {
                client.put(path).json(&json!({"value": value}))
            } else {
                client.get(path)
            };
            // Nobody answers while it is dead; every answer there is has to be a good one.
            let Ok(answer) = call.header("x-api-key", &self.key).send().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let status = answer.status();
            let Ok(body) = answer.json::<Value>().await else {
                continue;
            };
            assert!(status.is_success(), "{}: {status} {body}", self.name);
            self.answers += 1;
            if body.get("value").is_none() {
                self.set.push((body["version"].as_u64().unwrap(), value));
            }
        }
        self
    }
}

/// An account for each, an application's key, and something to rotate.
async fn prepare(server: &Running) -> (Vec<Caller>, String) {
    let (status, made) = server.call("POST", M, Some(json!({"name": "shop"}))).await;
    assert_eq!(status, 201, "{made}");
    let mut callers = Vec::new();
    for n in 0..CLIENTS {
        let name = format!("client-{n}");
        let account = json!({"name": name});
        let (status, account) = server
            .call("POST", &format!("{O}/service-accounts"), Some(account))
            .await;
        assert_eq!(status, 201, "{account}");
        let rule = json!({"subject_type": "service_account", "subject_id": account["id"], "project_pattern": "shop",
            "env_pattern": "local", "key_pattern": name, "permission": "write"});
        assert_eq!(server.call("POST", &format!("{O}/acl"), Some(rule)).await.0, 201);
        callers.push(Caller {
            name,
            key: account["api_key"].as_str().unwrap().to_owned(),
            set: Vec::new(),
            answers: 0,
        });
    }
    let setting = (0..BEFORE).map(|n| async move { server.put(&format!("before-{}", n % 100), "value").await });
    futures::StreamExt::collect::<Vec<()>>(futures::StreamExt::buffer_unordered(futures::stream::iter(setting), 32))
        .await;
    (callers, made["plainApiKey"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_notice_neither_a_rotation_nor_that_it_was_killed_and_every_version_opens_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("master.key");
    let mut server = Running::with_backups(dir.path());
    let (callers, application) = prepare(&server).await;
    let (place, done) = (Place::default(), Arc::new(AtomicBool::new(false)));
    place.set(Some(server.url()));
    let mut working = JoinSet::new();
    for caller in callers {
        working.spawn(caller.work(server.client.clone(), place.clone(), Arc::clone(&done)));
    }
    let mut keys = vec![std::fs::read_to_string(&file).unwrap().trim().to_owned()];
    let phases = Mutex::new(Vec::new());
    for _ in 0..KILLS {
        keys.insert(0, generate_master_key().expose().to_owned());
        std::fs::write(&file, keys.join("\n")).unwrap();
        let (status, body) = server.call("POST", "/api/keys/rotate", None).await;
        assert_eq!(status, 200, "{body}");
        // SIGKILL while it is at it: at some point of some phase.
        let state = server.get("/api/keys").await["rotation"].clone();
        phases.lock().unwrap().push(state["state"].as_str().unwrap().to_owned());
        server.process.child.kill().unwrap();
        server.process.child.wait().unwrap();
        place.set(None);
        server = Running::with_backups(dir.path());
        place.set(Some(server.url()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(phases.lock().unwrap().iter().any(|state| state != "idle"), "{phases:?}");
    // The last one goes on by itself, behind what is written meanwhile, until no old key is needed.
    for attempt in 0.. {
        let keys = server.get("/api/keys").await;
        let mut old = keys["keys"].as_array().unwrap().iter().skip(1);
        if keys["rotation"]["state"] == "idle" && old.all(|key| key["may_be_removed"] == true) {
            break;
        }
        assert!(attempt < 600, "{keys}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    std::fs::write(&file, &keys[0]).unwrap();
    assert_eq!(server.call("POST", "/api/keys/rotate", None).await.0, 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    done.store(true, Ordering::Relaxed);
    let callers = working.join_all().await;
    assert!(
        callers.iter().all(|caller| caller.answers > KILLS),
        "somebody hardly worked"
    );
    // Every credential of before works, with the new key alone.
    let by_application = server.client.get(format!(
        "{}/api/consumer/secrets/before-1?environment=local",
        server.url()
    ));
    assert_eq!(
        by_application
            .header("x-api-key", application)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    server.process.stop();
    assert!(maintain(dir.path(), &["audit", "verify"]).status.success());
    let server = Running::with_backups(dir.path());
    for caller in &callers {
        let path = format!("{}{O}/projects/shop/envs/local/secrets/{}", server.url(), caller.name);
        let read = server
            .client
            .get(path)
            .header("x-api-key", &caller.key)
            .send()
            .await
            .unwrap();
        assert_eq!(read.status(), 200, "{}", caller.name);
    }
    server.process.stop();
    every_version_opens(dir.path(), &keys[0], &callers).await;
}

/// A key that came and goes again while its values are on the way to the disk, or on the way from there to a caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_put_back_again_and_again_refuses_nobody_and_every_version_opens_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("master.key");
    let server = Running::with_backups(dir.path());
    let (callers, _) = prepare(&server).await;
    let (place, done) = (Place::default(), Arc::new(AtomicBool::new(false)));
    place.set(Some(server.url()));
    let mut working = JoinSet::new();
    for caller in callers {
        working.spawn(caller.work(server.client.clone(), place.clone(), Arc::clone(&done)));
    }
    let first = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let put = async |keys: &[&str]| {
        std::fs::write(&file, keys.join("\n")).unwrap();
        let (status, body) = server.call("POST", "/api/keys/rotate", None).await;
        assert!(status == 200 || (status == 409 && keys.len() == 1), "{status} {body}");
        status
    };
    for _ in 0..TURNS {
        let next = generate_master_key().expose().to_owned();
        put(&[&next, &first]).await;
        put(&[&first]).await;
        put(&[&first, &next]).await;
        while put(&[&first]).await != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let callers = working.join_all().await;
    assert!(
        callers.iter().all(|caller| caller.answers > TURNS),
        "somebody hardly worked"
    );
    server.process.stop();
    Running::with_backups(dir.path()).process.stop();
    every_version_opens(dir.path(), &first, &callers).await;
}

async fn every_version_opens(dir: &std::path::Path, key: &str, callers: &[Caller]) {
    let keyring = Keyring::parse(key).unwrap();
    let store = Store::open(&Options::new(dir.join("sealpod.db")), &keyring).unwrap();
    let local = ProjectRef::slug("default", "shop").environment("local");
    let mut versions = 0;
    for caller in callers {
        for (number, value) in &caller.set {
            let version = store.version(local.clone(), &caller.name, *number).await.unwrap();
            let opened = keyring.open(&version.aad(), &version.sealed).unwrap();
            assert_eq!(text(&opened), *value, "version {number} of {}", caller.name);
            versions += 1;
        }
    }
    assert!(versions > CLIENTS);
    store.close().await;
}
