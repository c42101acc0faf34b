//! A value, a key, a token: in the answers that are meant to carry it, and nowhere else that the server leaves anything.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::process::{maintain, serve, text};
use crate::rotation::Running;
use crate::support::{ADMIN, M, O};

const CANARY: &str = "canary-9d3b61-value-zQ8kV3xLw7";
const PASSWORD: &str = "canary-of-the-mail-server";
const S3: &str = "canary-of-the-storage-0123456789";

const DB: &str = "/api/orgs/default/projects/shop/envs/local/secrets/db";

/// Every file below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Something that was searched, and what is in it.
type Place = (String, Vec<u8>);

fn read(folder: &Path) -> Vec<Place> {
    // The two files that hold keys are there to hold them.
    let keys = ["master.key", "admin.key"];
    let searched = files(folder)
        .into_iter()
        .filter(|path| !keys.iter().any(|key| path.ends_with(key)));
    searched
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect()
}

/// What is answered to requests that fail, with a secret wherever a message could quote it. The name of an unknown
/// field is quoted, as the contract of the API says.
async fn errors(server: &Running, secrets: &[&str]) -> Vec<Place> {
    let (client, url, mut places) = (&server.client, server.url(), Vec::new());
    let bodies = [
        format!("{{\"value\": {CANARY}}}"),
        format!("{{\"value\": [\"{CANARY}\"]}}"),
        json!({"value": CANARY, "expires_at": CANARY}).to_string(),
        json!({"value": CANARY, "encoding": CANARY}).to_string(),
    ];
    for body in bodies {
        let put = client
            .put(format!("{url}{DB}"))
            .bearer_auth(ADMIN)
            .header("content-type", "application/json");
        let answer = put.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        places.push(("an error".to_owned(), answer.bytes().await.unwrap().to_vec()));
    }
    for token in secrets {
        let answer = client.get(format!("{url}{M}")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        places.push(("an error".to_owned(), answer.bytes().await.unwrap().to_vec()));
    }
    let login = client
        .post(format!("{url}/api/auth/login"))
        .json(&json!({"email": "somebody@example.com"}));
    assert_eq!(login.send().await.unwrap().status(), 200);
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_material_is_nowhere_but_in_the_answers_that_carry_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(dir.path());
    command
        .env(
            "SEALPOD_BACKUP_URL",
            format!("file://{}", dir.path().join("backups").display()),
        )
        .env("SEALPOD_SMTP_URL", format!("smtp://me:{PASSWORD}@127.0.0.1:9"))
        .env("SEALPOD_SMTP_FROM", "sealpod@example.com")
        .env("AWS_SECRET_ACCESS_KEY", S3)
        .env("SEALPOD_LOG", "debug");
    let mut server = Running::of(&mut command);
    let (_, made) = server.call("POST", M, Some(json!({"name": "shop"}))).await;
    let application = made["plainApiKey"].as_str().unwrap().to_owned();
    let (_, account) = server
        .call("POST", &format!("{O}/service-accounts"), Some(json!({"name": "ci"})))
        .await;
    let account = account["api_key"].as_str().unwrap().to_owned();
    server.put("db", CANARY).await;
    let entry = json!({"key": "K", "value": CANARY, "environmentSlug": "local"});
    assert_eq!(
        server
            .call("POST", &format!("{M}/shop/configurations"), Some(entry))
            .await
            .0,
        201
    );
    assert_eq!(server.get(DB).await["value"], CANARY, "the search can find it");

    // 1. Answers that are errors.
    let mut places = errors(&server, &[CANARY, &application, &account]).await;

    // 2. All that it does with its files: a backup, a rotation, a restore; and what it tells.
    let (status, backup) = server.call("POST", "/api/backups", None).await;
    assert_eq!(status, 201, "{backup}");
    let restore = format!("/api/backups/{}/restore", backup["id"].as_str().unwrap());
    assert_eq!(server.call("POST", &restore, None).await.0, 200);
    let old = std::fs::read_to_string(dir.path().join("master.key")).unwrap();
    let new = sealpod_api_server::crypto::generate_master_key();
    std::fs::write(dir.path().join("master.key"), format!("{}\n{old}", new.expose())).unwrap();
    assert_eq!(server.call("POST", "/api/keys/rotate", None).await.0, 200);
    let metrics = reqwest::get(format!("http://{}/metrics", server.process.probes))
        .await
        .unwrap();
    places.push(("the metrics".to_owned(), metrics.bytes().await.unwrap().to_vec()));
    let pid = server.process.child.id();
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(text(&command_line).contains("serve"));
    places.push(("the command line".to_owned(), command_line));
    // The environment has what it was started with, and nothing that came later.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(text(&environment).contains(S3), "the search can find it");
    places.extend(read(dir.path()));
    assert!(
        places.iter().any(|(name, _)| name.ends_with("sealpod.db-wal")),
        "the log of the database was searched"
    );
    let log = server.process.log.take().unwrap();
    server.process.stop();
    places.extend(read(dir.path()));
    let verified = maintain(dir.path(), &["audit", "verify"]);
    assert!(verified.status.success());
    places.push(("a command".to_owned(), [verified.stdout, verified.stderr].concat()));
    let log = log.join().unwrap();
    assert!(
        log.contains("answered") && log.contains("made and checked a backup"),
        "the log was captured"
    );
    places.push(("the log".to_owned(), log.into_bytes()));

    let values = [CANARY, &application, &account];
    let settings = [ADMIN, PASSWORD, S3, old.trim(), new.expose()];
    let has = |content: &[u8], needle: &str| content.windows(needle.len()).any(|window| window == needle.as_bytes());
    for value in values {
        assert!(!has(&environment, value), "it is in the environment");
    }
    assert!(places.len() > 12, "{}", places.len());
    for (name, content) in &places {
        for needle in values.iter().chain(&settings) {
            assert!(!has(content, needle), "something secret is in {name}");
        }
    }
}
