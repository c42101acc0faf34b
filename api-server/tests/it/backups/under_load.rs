//! A backup that is made while others write, restored and compared with what there was, all of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sealpod_api_server::backup::{Asked, Storage, Stored, verify};
use sealpod_api_server::crypto::ApiKey;
use sealpod_api_server::store::{Options, Store};
use serde_json::json;
use uuid::Uuid;

use super::{files, keyring};
use crate::held::{Held, Place};
use crate::support::{M, Reply, SUPERADMIN, Server};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_to_one_consistent_instant() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    let account = server.account("ci", &[["shop", "local", "*", "read"]]).await;
    let user = server.user(SUPERADMIN).await;
    for n in 0..20 {
        server
            .put("shop", "local", &format!("before-{n}"), &format!("value {n}"))
            .await;
    }
    fill(&server).await;
    let before = Held::of(&server.store, &keyring(server.dir())).await;
    // Each round sets keys and a configuration, one after the other: a copy may never have the second one without the first.
    let done = AtomicBool::new(false);
    let writing = async {
        let mut n = 0_u32;
        while !done.load(Ordering::Relaxed) {
            n += 1;
            server.put("shop", "local", "first", &n.to_string()).await;
            server.put("shop", "local", "second", &n.to_string()).await;
            finish_round(&server, &n.to_string()).await;
        }
    };
    let making = async {
        let made = server.admin("POST", "/api/backups").status(201).await;
        done.store(true, Ordering::Relaxed);
        made
    };
    let ((), made) = tokio::join!(writing, making);
    let after = Held::of(&server.store, &keyring(server.dir())).await;
    // Of what comes later nothing is in it.
    server.grant(&account.id, ["shop", "*", "*", "write"]).await;
    server.put("shop", "local", "before-0", "later").await;
    let id = made.text_at("id");
    is_shown(&server, &made).await;

    let restored = server
        .admin("POST", &format!("/api/backups/{id}/restore"))
        .status(200)
        .await;
    let path = PathBuf::from(restored.text_at("restored_path"));
    assert_eq!(path, server.dir().join(format!("sealpod.db.restore.{id}")));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // A second time it would be written over.
    server
        .admin("POST", &format!("/api/backups/{id}/restore"))
        .problem(409, "conflict")
        .await;
    let left = files(server.dir());
    assert!(
        left.iter()
            .all(|name| !name.contains("partial") && !name.contains(".sealpod-scratch-")),
        "{left:?}"
    );

    compare(&server, &path, &made, [before, after], [&account.key, &shop.key]).await;
    // The live server has not noticed.
    server.call("GET", "/api/auth/me").bearer(&user.token).status(200).await;
}

/// That it is there, and listed, and on record, as it was answered.
async fn is_shown(server: &Server, made: &Reply) {
    let id = made.text_at("id");
    assert_eq!(made.header("location"), format!("/api/backups/{id}"));
    assert_eq!(made.body["trigger"], "manual");
    let archive = server.dir().join("backups").join(made.text_at("filename"));
    assert_eq!(archive.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        archive.metadata().unwrap().len(),
        made.body["size_bytes"].as_u64().unwrap()
    );
    let one = server.admin("GET", &format!("/api/backups/{id}")).status(200).await;
    assert_eq!(one.body, made.body);
    assert_eq!(
        server.admin("GET", "/api/backups").status(200).await.list(),
        std::slice::from_ref(&made.body)
    );
    let audit = server
        .admin("GET", "/api/audit-logs?resource_type=backup")
        .status(200)
        .await;
    assert_eq!(audit.body["entries"][0]["action"], "backup.create");
}

/// Two organizations with projects in which every environment has secrets, of several versions, and configurations;
/// accounts, rules and members.
async fn fill(server: &Server) {
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    for organization in ["default", "acme"] {
        let plane = format!("/api/orgs/{organization}");
        let project = json!({"name": "bank"});
        server
            .admin("POST", &format!("{plane}/projects"))
            .json(project)
            .status(201)
            .await;
        for (environment, versions) in [("prod", 3), ("dev", 1)] {
            for n in 0..5 * versions {
                let path = format!("{plane}/projects/bank/envs/{environment}/secrets/key-{}", n % 5);
                let value = json!({"value": format!("{organization} {environment} {n}")});
                assert!(server.admin("PUT", &path).json(value).send().await.status < 300);
            }
        }
        let account = json!({"name": "robot", "labels": {"team": organization}});
        let account = server
            .admin("POST", &format!("{plane}/service-accounts"))
            .json(account)
            .status(201)
            .await;
        for (pattern, permission) in [("key-*", "read"), ("*", "write")] {
            let rule = json!({
                "subject_type": "service_account", "subject_id": account.text_at("id"), "project_pattern": "bank",
                "env_pattern": "prod", "key_pattern": pattern, "permission": permission,
            });
            let rules = format!("{plane}/acl");
            assert!(server.admin("POST", &rules).json(rule).send().await.status < 300);
        }
        let (ann, bob) = (
            format!("ann@{organization}.example"),
            format!("bob@{organization}.example"),
        );
        server.member(organization, &ann, "developer").await;
        server.member(organization, &bob, "admin").await;
    }
    for (slug, environment, key) in [
        ("shop", "local", "FLAG"),
        ("shop", "local", "ROUND"),
        ("bank", "dev", "URL"),
    ] {
        let entry = json!({"environmentSlug": environment, "key": key, "value": "0", "description": "one of them"});
        let path = format!("{M}/{slug}/configurations");
        server.admin("POST", &path).json(entry).status(201).await;
    }
}

/// The last steps of a round that a copy may never have without those before.
async fn finish_round(server: &Server, value: &str) {
    let third = "/api/orgs/acme/projects/bank/envs/dev/secrets/third";
    let value = json!({"value": value});
    assert!(server.admin("PUT", third).json(value.clone()).send().await.status < 300);
    let round = format!("{M}/shop/configurations/local/ROUND");
    server.admin("PUT", &round).json(value).status(200).await;
}

/// What was restored to `path` is what the server had at an instant of the backup, without its sessions and keys.
async fn compare(server: &Server, path: &Path, backup: &Reply, seen: [Held; 2], keys: [&String; 2]) {
    let (keyring, live) = (keyring(server.dir()), server.store.clone());
    let source = Stored {
        storage: Storage::Directory(server.dir().join("backups")),
        name: backup.text_at("filename"),
    };
    let (opens, scratch) = (keyring.clone(), server.dir().to_owned());
    let manifest = tokio::task::spawn_blocking(move || {
        let asked = Asked {
            id: None,
            keyring: Some(&opens),
            identity: None,
        };
        verify(&source, &asked, &scratch).unwrap()
    });
    let manifest = manifest.await.unwrap();
    let store = Store::open(&Options::new(path), &keyring).unwrap();
    let [before, after] = seen;
    let mut restored = Held::of(&store, &keyring).await;
    let newest = restored.chains.get_mut(&Uuid::nil()).unwrap().pop().unwrap();
    assert_eq!(
        (newest.action.as_str(), newest.actor_name.as_str()),
        ("backup.restore", "admin-key")
    );
    restored.is_between(&before, &after);
    assert_eq!(restored.heads(), manifest.audit_heads);
    let counts = ["first", "second", "third"].map(|key| {
        let place = |(place, _): &(&Place, _)| place[3] == key;
        restored
            .versions
            .iter()
            .find(place)
            .map_or(0, |(_, all)| all.len() as u64)
    });
    let round = &restored.configurations[&["default", "shop", "local", "ROUND"].map(str::to_owned)];
    let [first, second, third] = counts;
    let order = [first, second, third, round.value.parse().unwrap()];
    assert!(
        order.is_sorted_by(|before, after| before >= after) && first - order[3] <= 1,
        "{order:?}"
    );
    // The rules are as they were; sessions and keys are ended, and waiting clients notice by the epoch.
    assert_eq!(store.live_sessions().await.unwrap(), 0);
    assert_ne!(store.epoch(), live.epoch());
    for key in keys {
        let digest = store.pepper().digest(&ApiKey::parse(key).unwrap());
        assert!(store.find_key(digest).await.unwrap().is_none());
        assert!(live.find_key(digest).await.unwrap().is_some());
    }
    store.close().await;
}
