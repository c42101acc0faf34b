//! The rotation of the master key: while serving, cut off anywhere, with wrong keys; and that nothing sealed opens elsewhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sealpod_api_server::audit::Chain;
use sealpod_api_server::crypto::{Keyring, generate_master_key};
use sealpod_api_server::store::{Options, Shelf, Store, Wrapped};
use serde_json::{Value, json};

use crate::process::{Process, maintain, run, serve, text};
use crate::shim::rounds;
use crate::support::{ADMIN, M, O, Server};

const SECRETS: usize = 40;

/// A server as a process, and calls with the admin key.
pub struct Running {
    pub process: Process,
    pub client: reqwest::Client,
}

impl Running {
    pub fn start(directory: &Path) -> Self {
        Self::of(&mut serve(directory))
    }

    /// With a place for backups, without which no key is known to be of no use.
    pub fn with_backups(directory: &Path) -> Self {
        let url = format!("file://{}/backups", directory.display());
        Self::of(serve(directory).env("SEALPOD_BACKUP_URL", url))
    }

    pub fn of(command: &mut Command) -> Self {
        Self {
            process: Process::start(command),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.process.address)
    }

    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let call = self
            .client
            .request(method.parse().unwrap(), format!("{}{path}", self.url()))
            .bearer_auth(ADMIN);
        let call = match body {
            Some(body) => call.json(&body),
            None => call,
        };
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Secrets of several versions, a configuration, an answer that is kept; returns what a read of each secret answers.
    pub async fn fill(&self) -> BTreeMap<String, String> {
        let (status, made) = self.call("POST", M, Some(json!({"name": "shop"}))).await;
        assert_eq!(status, 201, "{made}");
        let entry = json!({"key": "LOG", "value": "info", "environmentSlug": "local"});
        let (status, body) = self
            .call("POST", &format!("{M}/shop/configurations"), Some(entry))
            .await;
        assert_eq!(status, 201, "{body}");
        let mut values = BTreeMap::new();
        for n in 0..SECRETS {
            let key = format!("key-{n}");
            for version in ["old", "new"] {
                let value = format!("{version} {n} {}", "x".repeat(n * 100));
                self.put(&key, &value).await;
                values.insert(key.clone(), value);
            }
        }
        values
    }

    pub async fn put(&self, key: &str, value: &str) {
        let path = format!("{O}/projects/shop/envs/local/secrets/{key}");
        let (status, body) = self.call("PUT", &path, Some(json!({"value": value}))).await;
        assert!(status < 300, "{body}");
    }

    pub async fn check(&self, values: &BTreeMap<String, String>) {
        for (key, value) in values {
            let path = format!("{O}/projects/shop/envs/local/secrets/{key}");
            assert_eq!(self.get(&path).await["value"], value.as_str(), "{key}");
        }
        let configurations = self.get(&format!("{M}/shop/configurations")).await;
        assert_eq!(configurations[0]["value"], "info", "{configurations}");
    }

    /// Runs a command that asks this server.
    fn ask(&self, directory: &Path, arguments: &[&str]) -> (bool, String) {
        let admin = directory.join("admin.key");
        let rest = ["--url", &self.url(), "--admin-api-key-file", admin.to_str().unwrap()];
        let output = run(&[arguments, &rest].concat());
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }
}

fn id(key: &str) -> String {
    Keyring::parse(key).unwrap().current().to_string()
}

fn new_key() -> String {
    generate_master_key().expose().to_owned()
}

fn write_keys(directory: &Path, keys: &[&str]) {
    std::fs::write(directory.join("master.key"), keys.join("\n")).unwrap();
}

fn read_key(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("master.key"))
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_place_for_backups_no_key_is_said_to_be_of_no_use() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let (old, new) = (read_key(dir.path()), new_key());
    write_keys(dir.path(), &[&new, &old]);
    let (ok, said) = server.ask(dir.path(), &["key", "rotate"]);
    assert!(ok && said.contains("no place for backups is set: keep"), "{said}");
    assert!(
        said.contains("unknown backups need it; keep it") && !said.contains("thrown away"),
        "{said}"
    );
    let keys = server.get("/api/keys").await;
    let unused = &keys["keys"][1];
    assert_eq!(
        (&unused["state"], &unused["may_be_removed"]),
        (&json!("unused"), &json!(false))
    );
    assert!(
        unused.get("backups").is_none() && keys["backups_unknown"].is_string(),
        "{keys}"
    );
    // One that is not in the file any more is no news.
    write_keys(dir.path(), &[&new]);
    let (status, body) = server.call("POST", "/api/keys/rotate", None).await;
    assert_eq!(
        (status, body["keys"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{body}"
    );
    server.process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_every_value_and_credential_and_then_the_old_key_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::with_backups(dir.path());
    let (old, new) = (read_key(dir.path()), new_key());
    let values = server.fill().await;
    let account = server
        .call("POST", &format!("{O}/service-accounts"), Some(json!({"name": "ci"})))
        .await;
    let key = account.1["api_key"].as_str().unwrap().to_owned();
    let before = server.get("/api/keys").await;
    assert_eq!(before["current"], id(&old));
    assert_eq!(before["keys"][0]["versions"], SECRETS * 2);
    assert_eq!(before["keys"].as_array().unwrap().len(), 1);

    write_keys(dir.path(), &[&new, &old]);
    // Others write meanwhile, and are never refused.
    let writing = async {
        for n in 0..20 {
            server.put(&format!("other-{n}"), "value").await;
        }
    };
    let rotating = async { tokio::task::block_in_place(|| server.ask(dir.path(), &["key", "rotate"])) };
    let ((), (ok, said)) = tokio::join!(writing, rotating);
    assert!(ok && said.contains(&id(&new)), "{said}");
    assert!(
        said.contains("the key thrown away") && !said.contains(&old) && !said.contains(&new),
        "{said}"
    );
    let after = server.get("/api/keys").await;
    assert_eq!(after["rotation"]["state"], "idle");
    let [first, second] = [&after["keys"][0], &after["keys"][1]];
    assert_eq!(
        (&first["state"], &second["state"]),
        (&json!("current"), &json!("unused"))
    );
    assert_eq!((&first["server_keys"], &second["versions"]), (&json!(2), &json!(0)));
    assert_eq!(second["may_be_removed"], true);
    server.check(&values).await;

    // Without the old line, also what the server has in its memory opens.
    write_keys(dir.path(), &[&new]);
    let (status, body) = server.call("POST", "/api/keys/rotate", None).await;
    assert_eq!(
        (status, body["keys"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{body}"
    );
    // Nor does it come back while its backups cannot be listed.
    let backups = dir.path().join("backups");
    std::fs::write(&backups, "no folder").unwrap();
    let keys = server.get("/api/keys").await;
    assert!(
        keys["keys"].as_array().map(Vec::len) == Some(1) && keys["backups_unknown"].is_string(),
        "{keys}"
    );
    std::fs::remove_file(backups).unwrap();
    server.check(&values).await;
    let projects = server.client.get(format!("{}{O}/projects", server.url()));
    assert_eq!(projects.header("x-api-key", key).send().await.unwrap().status(), 200);
    let log = server.get("/api/audit-logs?resource_type=key").await;
    let actions: Vec<_> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["key.rewrap", "key.rotate"], "{log}");
    let (_, said) = server.ask(dir.path(), &["key", "list"]);
    assert!(said.starts_with(&format!("{} current", id(&new))), "{said}");
    server.process.stop();

    let server = Running::start(dir.path());
    server.check(&values).await;
    server.process.stop();
    let verified = maintain(dir.path(), &["audit", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_without_a_needed_key_is_not_taken_and_stops_a_start_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let (old, new) = (read_key(dir.path()), new_key());
    let values = server.fill().await;
    for (keys, why) in [
        (vec![new.as_str()], id(&old)),
        (vec!["abc"], "64 hex characters".to_owned()),
        (vec![old.as_str(), &old], "repeats".to_owned()),
        (vec![], "no master key".to_owned()),
    ] {
        write_keys(dir.path(), &keys);
        let (status, body) = server.call("POST", "/api/keys/rotate", None).await;
        assert_eq!((status, &body["code"]), (409, &json!("conflict")), "{body}");
        assert!(body["detail"].as_str().unwrap().contains(&why), "{body}");
    }
    server.check(&values).await;
    server.put("another", "value").await;
    server.process.stop();

    let file = dir.path().join("sealpod.db");
    let before = std::fs::read(&file).unwrap();
    write_keys(dir.path(), &[&new]);
    let refused = maintain(dir.path(), &["migrate"]);
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains(&id(&old)) && said.contains("Nothing was written"),
        "{said}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    write_keys(dir.path(), &[&old]);
    let server = Running::start(dir.path());
    server.check(&values).await;
    server.process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_anywhere_goes_on_at_the_next_start() {
    for late in 0..rounds(1) {
        killed_in_rotations(Duration::from_micros(300 * late as u64)).await;
    }
}

/// At points of a rotation that are each so much later.
async fn killed_in_rotations(late: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let values = server.fill().await;
    let mut keys = vec![read_key(dir.path())];
    drop(server);
    for pause in [0, 1, 3, 6, 10] {
        keys.insert(0, new_key());
        write_keys(dir.path(), &keys.iter().map(String::as_str).collect::<Vec<_>>());
        let mut server = Running::start(dir.path());
        tokio::time::sleep(Duration::from_millis(pause) + late).await;
        server.process.child.kill().unwrap();
    }
    let server = Running::start(dir.path());
    let (ok, said) = server.ask(dir.path(), &["key", "rotate"]);
    assert!(ok, "{said}");
    write_keys(dir.path(), &[&keys[0]]);
    assert_eq!(server.call("POST", "/api/keys/rotate", None).await.0, 200);
    server.check(&values).await;
    server.process.stop();
    let verified = maintain(dir.path(), &["audit", "verify"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_value_keeps_its_key_needed_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    server.fill().await;
    server.process.stop();
    let old = read_key(dir.path());
    // A byte of the wrapped data key of one version.
    let file = rusqlite::Connection::open(dir.path().join("sealpod.db")).unwrap();
    let sql = "UPDATE versions SET sealed = CAST(substr(sealed, 1, 40)
            || iif(substr(sealed, 41, 1) = x'00', x'01', x'00') || substr(sealed, 42) AS BLOB)
        WHERE rowid = 3";
    assert_eq!(file.execute(sql, []).unwrap(), 1);
    drop(file);
    write_keys(dir.path(), &[&new_key(), &old]);
    let server = Running::start(dir.path());
    let (ok, said) = server.ask(dir.path(), &["key", "rotate"]);
    assert!(
        !ok && said.contains("does not open") && said.contains("version "),
        "{said}"
    );
    let keys = server.get("/api/keys").await;
    let second = &keys["keys"][1];
    assert_eq!(
        (&second["state"], &second["versions"]),
        (&json!("in_use"), &json!(1)),
        "{keys}"
    );
    assert_eq!(second["may_be_removed"], false);
    server.process.stop();
}

async fn everything(store: &Store) -> Vec<Wrapped> {
    let mut all = Vec::new();
    for shelf in Shelf::ALL {
        let mut from = Some(0);
        while let Some(at) = from {
            let piece = store.sealed_values(shelf, None, at).await.unwrap();
            all.extend(piece.values);
            from = piece.next;
        }
    }
    all
}

#[tokio::test]
async fn no_sealed_value_opens_in_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let master = std::sync::Arc::new(dir);
    let key = new_key();
    let server = Server::build(
        std::sync::Arc::clone(&master),
        &key,
        |_| {},
        crate::support::limits(),
        |_, _| sealpod_api_server::login::Login::new(sealpod_api_server::login::Signup::Open, None),
    )
    .await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    for organization in ["default", "acme"] {
        let projects = format!("/api/orgs/{organization}/projects");
        for project in ["shop", "bank"] {
            let made = server.admin("POST", &projects).json(json!({"name": project}));
            made.header("idempotency-key", &format!("{organization}-{project}"))
                .status(201)
                .await;
            for environment in ["dev", "prod"] {
                for key in ["db", "api"] {
                    for value in ["one", "two"] {
                        let path = format!("{projects}/{project}/envs/{environment}/secrets/{key}");
                        server.admin("PUT", &path).json(json!({"value": value})).send().await;
                    }
                }
            }
        }
    }
    for key in ["LOG", "LEVEL"] {
        let entry = json!({"key": key, "value": "info", "environmentSlug": "dev"});
        server
            .admin("POST", &format!("{M}/shop/configurations"))
            .json(entry)
            .status(201)
            .await;
    }
    let all = everything(&server.store).await;
    assert_eq!(all.len(), 32 + 2 + 4 + 2);
    let keyring = Keyring::parse(&key).unwrap();
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            let opened = keyring.open(&one.aad, &other.sealed).is_ok();
            assert_eq!(opened, at == other_at, "{} in the place of {}", other.place, one.place);
        }
    }

    // The same by hand in the file: what was moved is a failure of the server, and never somebody else's value.
    let (path, chain) = (format!("{O}/projects/shop/envs/prod/secrets/db"), Chain::Instance);
    server.admin("GET", &path).status(200).await;
    server.stop.cancel();
    server.store.close().await;
    let file = master.path().join("sealpod.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute_batch(
            "CREATE TEMP TABLE was AS SELECT rowid AS id, sealed FROM versions;
        UPDATE versions SET sealed = (SELECT sealed FROM was WHERE id = 1 + versions.rowid % 32);",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&Options::new(&file), &keyring).unwrap();
    let swapped = everything(&store).await;
    let versions = swapped.iter().filter(|it| it.place.to_string().starts_with("version "));
    assert_eq!(
        versions.filter(|it| keyring.open(&it.aad, &it.sealed).is_err()).count(),
        32
    );
    assert!(!store.audit_entries(chain, 1).await.unwrap().is_empty());
    store.close().await;
}
