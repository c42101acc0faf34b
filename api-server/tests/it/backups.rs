//! Backups: made while others write, restored elsewhere, refused when they are not what was written.

mod under_load;

use std::collections::BTreeMap;
use std::path::Path;

use sealpod_api_server::crypto::Keyring;
use serde_json::json;

use crate::process::{command, maintain, serve, text};
use crate::rotation::Running;
use crate::support::{ADMIN, Server};

pub fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub fn keyring(directory: &Path) -> Keyring {
    Keyring::parse(&std::fs::read_to_string(directory.join("master.key")).unwrap()).unwrap()
}

#[tokio::test]
async fn backups_are_for_superadmins_of_servers_that_have_a_place_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    for (method, path) in [
        ("GET", "/api/backups"),
        ("POST", "/api/backups"),
        ("GET", "/api/backups/0198c0de-5ea1-7000-8000-000000000001"),
    ] {
        let (status, body) = server.call(method, path, None).await;
        assert_eq!((status, &body["code"]), (503, &json!("backups_disabled")), "{body}");
    }
    server.process.stop();
    let server = Server::start().await;
    let unknown = "/api/backups/0198c0de-5ea1-7000-8000-000000000001";
    server.admin("GET", unknown).problem(404, "not_found").await;
    server
        .admin("POST", &format!("{unknown}/restore"))
        .problem(404, "not_found")
        .await;
    let somebody = server.user("somebody@example.com").await;
    server
        .call("POST", "/api/backups")
        .bearer(&somebody.token)
        .problem(403, "forbidden")
        .await;
    server.call("POST", "/api/backups").status(401).await;
}

#[tokio::test]
async fn a_damaged_swapped_or_foreign_archive_is_refused_and_nothing_is_written() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "key", "value").await;
    let folder = server.dir().join("backups");
    let [one, two] = [
        server.admin("POST", "/api/backups").status(201).await,
        server.admin("POST", "/api/backups").status(201).await,
    ];
    let path = |made: &crate::support::Reply| folder.join(made.text_at("filename"));
    let (first, second) = (std::fs::read(path(&one)).unwrap(), std::fs::read(path(&two)).unwrap());
    let restore = format!("/api/backups/{}/restore", one.text_at("id"));
    let before = files(server.dir());
    let mut changed = first.clone();
    let middle = first.len() / 2;
    changed[middle] ^= 1;
    for (content, why) in [
        (first[..first.len() / 2].to_vec(), "damaged"),
        (changed, "was changed"),
        (second, "renamed or swapped"),
        (b"SQLite format 3\0".to_vec(), "no archive"),
    ] {
        std::fs::write(path(&one), content).unwrap();
        let refused = server.admin("POST", &restore).problem(409, "backup_damaged").await;
        assert!(refused.text_at("detail").contains(why), "{}", refused.text);
        assert_eq!(files(server.dir()), before);
    }
    std::fs::write(path(&one), &first).unwrap();
    std::fs::remove_file(path(&two)).unwrap();
    // What has lost its archive is no backup any more.
    assert_eq!(server.admin("GET", "/api/backups").status(200).await.list().len(), 1);
    server.admin("POST", &restore).status(200).await;
}

async fn until_a_metric_says(server: &Running, line: &str) -> String {
    for _ in 0..200 {
        let metrics = reqwest::get(format!("http://{}/metrics", server.process.probes)).await;
        let text = metrics.unwrap().text().await.unwrap();
        if text.contains(line) {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("no metric says {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_backups_are_made_and_shown_when_they_fail() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("blocked");
    std::fs::write(&blocked, "no folder").unwrap();
    let mut scheduled = serve(dir.path());
    scheduled
        .env("SEALPOD_BACKUP_URL", format!("file://{}/backups", dir.path().display()))
        .env("SEALPOD_BACKUP_SCHEDULE_HOURS", "1");
    let server = Running::of(&mut scheduled);
    for attempt in 0.. {
        let backups = server.get("/api/backups").await;
        if let Some(backup) = backups.as_array().unwrap().first() {
            assert_eq!(backup["trigger"], "schedule");
            break;
        }
        assert!(attempt < 200, "no backup was made");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let keys = server.get("/api/keys").await;
    assert_eq!(keys["keys"][0]["backups"], 1);
    let made = until_a_metric_says(&server, "sealpod_backup_failed 0").await;
    let age = made
        .lines()
        .find_map(|line| line.strip_prefix("sealpod_backup_age_seconds "));
    assert!((0..30).contains(&age.unwrap().parse::<i64>().unwrap()), "{made}");
    server.process.stop();

    scheduled.env("SEALPOD_BACKUP_URL", format!("file://{}/backups", blocked.display()));
    let server = Running::of(&mut scheduled);
    for attempt in 0.. {
        let ready = reqwest::get(format!("http://{}/readyz", server.process.probes))
            .await
            .unwrap();
        let (status, body) = (ready.status(), ready.text().await.unwrap());
        if body.contains("warning: backups") {
            assert_eq!(status, 200, "{body}");
            break;
        }
        assert!(attempt < 100, "{body}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let failed = until_a_metric_says(&server, "sealpod_backup_failed 1").await;
    assert!(
        failed.contains(r#"sealpod_problem{part="backups",state="warning"} 1"#),
        "{failed}"
    );
    assert!(
        !failed.contains("sealpod_backup_age_seconds"),
        "there is none: {failed}"
    );
    server.process.stop();

    for (setting, value) in [
        ("SEALPOD_BACKUP_URL", "ftp://canary@host/x"),
        ("SEALPOD_BACKUP_SCHEDULE_HOURS", "often"),
        ("SEALPOD_BACKUP_RECIPIENTS", "AGE-SECRET-KEY-CANARY"),
    ] {
        let mut refused = serve(dir.path());
        let output = refused.env(setting, value).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(setting) && !said.to_lowercase().contains("canary"),
            "{said}"
        );
    }
}

/// What a backup holds: values appear in it as little as in the database.
#[tokio::test]
async fn no_value_stands_in_a_backup_or_beside_it() {
    let server = Server::start().await;
    server.application("shop").await;
    let canary = "canary-1f7a0c9e5b";
    server.put("shop", "local", "key", canary).await;
    let made = server.admin("POST", "/api/backups").status(201).await;
    server
        .admin("POST", &format!("/api/backups/{}/restore", made.text_at("id")))
        .status(200)
        .await;
    let mut seen = BTreeMap::new();
    for folder in [server.dir().to_owned(), server.dir().join("backups")] {
        for name in files(&folder).iter().filter(|name| *name != "backups") {
            let content = std::fs::read(folder.join(name)).unwrap();
            let found = content.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{name}");
            seen.insert(name.clone(), content.len());
        }
    }
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(!made.text.contains(ADMIN));
    assert!(command(&["backup", "--help"]).output().unwrap().status.success());
}

/// The copy has begun.
async fn until_copied(dir: &Path) {
    let is_copy = |name: &String| {
        let is_database = name.starts_with(".sealpod-scratch-") && name.matches('.').count() == 1;
        is_database && std::fs::metadata(dir.join(name)).is_ok_and(|copy| copy.len() > 0)
    };
    while !files(dir).iter().any(is_copy) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_in_the_middle_of_a_copy_ends_it_and_leaves_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Running::start(dir.path()).process.stop().0, Some(0));
    // So much that a stop comes in the middle.
    let database = rusqlite::Connection::open(dir.path().join("sealpod.db")).unwrap();
    let rows = "CREATE TABLE filler (content BLOB);
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
        INSERT INTO filler SELECT randomblob(1000) FROM n;";
    database.execute_batch(rows).unwrap();
    database.close().unwrap();
    let server = Running::with_backups(dir.path());
    {
        let asked = server.call("POST", "/api/backups", None);
        tokio::select! {
            () = until_copied(dir.path()) => {}
            answer = asked => panic!("{answer:?}"),
        }
        // Nobody waits for it any more, and it goes on.
    }
    server.process.signal();
    let ended = tokio::task::block_in_place(|| server.process.wait());
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains("did not end in time"), "{}", ended.log);
    let left = files(dir.path());
    assert!(left.iter().all(|name| !name.contains(".sealpod-scratch-")), "{left:?}");
    assert_eq!(files(&dir.path().join("backups")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_a_backup_is_made_leaves_no_copy_and_no_archive_but_for_those_that_go_in_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/backups", dir.path().display());
    let mut with_backups = serve(dir.path());
    with_backups.env("SEALPOD_BACKUP_URL", &url);
    let server = Running::of(&mut with_backups);
    let values = server.fill().await;
    server.process.stop();
    for pause in [5, 20, 40, 80] {
        let mut server = Running::of(&mut with_backups);
        let call = server
            .client
            .post(format!("{}/api/backups", server.url()))
            .bearer_auth(ADMIN);
        let making = tokio::spawn(call.send());
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        server.process.child.kill().unwrap();
        server.process.child.wait().unwrap();
        drop(making.await);
    }
    let server = Running::of(&mut with_backups);
    server.check(&values).await;
    let left = files(dir.path());
    assert!(left.iter().all(|name| !name.contains(".sealpod-scratch-")), "{left:?}");
    server.process.stop();
    // In the storage: what was finished, and what is marked as not.
    let kept = dir.path().join("backups");
    let listed = text(
        &command(&["backup", "list", "--backup-url", &url])
            .output()
            .unwrap()
            .stdout,
    );
    let is_finished = |name: &String| {
        listed
            .lines()
            .any(|line| name.contains(line.split(' ').next().unwrap()))
    };
    for name in files(&kept).iter().filter(|name| !is_finished(name)) {
        let mark = kept.join(format!("{name}.json.partial"));
        assert!(name.ends_with(".partial") || mark.exists(), "{name}");
        crate::retention::make_old(&kept.join(name));
    }
    let server = Running::of(&mut with_backups);
    for attempt in 0.. {
        let left: Vec<_> = files(&kept).into_iter().filter(|name| !is_finished(name)).collect();
        if left.is_empty() {
            break;
        }
        assert!(attempt < 300, "{left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (status, made) = server.call("POST", "/api/backups", None).await;
    assert_eq!(status, 201, "{made}");
    // What was not finished is in no list.
    let listed = server.get("/api/backups").await;
    for backup in listed.as_array().unwrap() {
        let restore = format!("/api/backups/{}/restore", backup["id"].as_str().unwrap());
        assert_eq!(server.call("POST", &restore, None).await.0, 200);
    }
    server.process.stop();
    assert!(maintain(dir.path(), &["audit", "verify"]).status.success());
}
