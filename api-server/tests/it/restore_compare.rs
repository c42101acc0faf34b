//! What people are shown before they keep the keys of a backup, and what these keys then open.

use std::sync::Arc;

use sealpod_api_server::backup::{Asked, Keep, Storage, Stored, Unpacked, restore};
use sealpod_api_server::crypto::{Keyring, generate_master_key};
use sealpod_api_server::login::{Login, Signup};
use sealpod_api_server::store::{Comparison, Fate, Options, ProjectRef, Store, compare, known_schema};
use serde_json::json;
use tempfile::TempDir;

use crate::backups::keyring;
use crate::store_support::{OLDER_KEY, by, older_database};
use crate::support::{Account, M, O, Server, limits};

async fn serve(folder: &Arc<TempDir>, master_key: &str) -> Server {
    let login = |_: &_, _: &_| Login::new(Signup::Open, None);
    Server::build(Arc::clone(folder), master_key, |_| {}, limits(), login).await
}

/// Restores a backup to the place of a database, with its keys; answers what was shown before.
async fn restore_with_keys(server: &Server, id: String, filename: String, into: &TempDir) -> Comparison {
    let (live, target) = (server.dir().join("sealpod.db"), into.path().join("sealpod.db"));
    let (storage, keyring) = (Storage::Directory(server.dir().join("backups")), keyring(server.dir()));
    let restored = tokio::task::spawn_blocking(move || {
        let asked = Asked {
            id: Some(id.parse().unwrap()),
            keyring: Some(&keyring),
            identity: None,
        };
        let mut shown = Comparison::default();
        let source = Stored {
            storage,
            name: filename,
        };
        let look = |unpacked: &Unpacked<'_>| {
            shown = compare(unpacked.path, &live)?;
            Ok(())
        };
        restore(&source, &asked, &target, Keep::Keys, look, by()).unwrap();
        shown
    });
    restored.await.unwrap()
}

/// The keys that there are when the backup is made.
struct Keys {
    bank: String,
    /// Accounts that read a value.
    leaked: Account,
    gone: Account,
    same: Account,
    /// Of an account of another organization.
    theirs: String,
}

/// What a backup is made of.
async fn fill(server: &Server) -> Keys {
    server.application("shop").await;
    let bank = server.application("bank").await;
    for (key, versions) in [("db", 1), ("token", 2), ("withdrawn", 1), ("untouched", 1)] {
        for n in 0..versions {
            server.put("shop", "local", key, &format!("value {n}")).await;
        }
    }
    let log = json!({"key": "LOG", "value": "info", "environmentSlug": "local"});
    let path = format!("{M}/shop/configurations");
    server.admin("POST", &path).json(log).status(201).await;
    let rule = [["shop", "local", "*", "read"]];
    let (leaked, gone) = (
        server.account("leaked", &rule).await,
        server.account("gone", &rule).await,
    );
    let same = server.account("same", &rule).await;
    server
        .admin("POST", "/api/orgs")
        .json(json!({"name": "acme"}))
        .status(201)
        .await;
    server.member("acme", "ann@example.com", "developer").await;
    let path = "/api/orgs/acme/service-accounts";
    let theirs = server
        .admin("POST", path)
        .json(json!({"name": "theirs"}))
        .status(201)
        .await;
    Keys {
        bank: bank.key,
        leaked,
        gone,
        same,
        theirs: theirs.text_at("api_key"),
    }
}

/// What happens after the backup: a leaked key goes on for an hour, an account, a project and an organization are
/// deleted, a rule lets in to more, and values are set, disabled and deleted. Answers the leaked account's new key.
async fn change(server: &Server, keys: &Keys) -> String {
    let overlap = json!({"overlap_seconds": 3_600});
    let rotate = format!("{O}/service-accounts/{}/rotate", keys.leaked.id);
    let rotated = server.admin("POST", &rotate).json(overlap).status(200).await;
    let gone = format!("{O}/service-accounts/{}", keys.gone.id);
    server.admin("DELETE", &gone).status(204).await;
    server.admin("DELETE", &format!("{M}/bank")).status(204).await;
    server.admin("DELETE", "/api/orgs/acme").status(204).await;
    let widened = json!({
        "subject_type": "service_account", "subject_id": keys.same.id, "project_pattern": "shop", "env_pattern": "local",
        "key_pattern": "*", "permission": "read", "configurations": true,
    });
    let granted = server.admin("POST", &format!("{O}/acl")).json(widened).send().await;
    assert!(granted.status < 300, "{}", granted.text);
    for n in 1..3 {
        server.put("shop", "local", "db", &format!("value {n}")).await;
    }
    server.put("shop", "local", "later", "value").await;
    let secrets = format!("{O}/projects/shop/envs/local/secrets");
    let disabled = json!({"is_enabled": false});
    let path = format!("{secrets}/token/versions/1");
    server.admin("PATCH", &path).json(disabled).status(200).await;
    server
        .admin("DELETE", &format!("{secrets}/withdrawn"))
        .status(204)
        .await;
    let path = format!("{M}/shop/configurations/local/LOG");
    server
        .admin("PUT", &path)
        .json(json!({"value": "debug"}))
        .status(200)
        .await;
    rotated.text_at("api_key")
}

/// The first characters of a key, which its line has.
fn start(key: &str) -> &str {
    &key[..12]
}

fn revived(keys: &Keys) -> Vec<String> {
    let key = |key: &str, of: &str| format!("key {}… of {of}", start(key));
    let mut revives = vec![
        key(&keys.bank, "application bank of organization default"),
        key(&keys.gone.key, "service account gone of organization default"),
        key(&keys.leaked.key, "service account leaked of organization default"),
        key(&keys.theirs, "service account theirs of organization acme"),
        "environment local of project bank of organization default".to_owned(),
        "member ann@example.com (developer) of organization acme".to_owned(),
        "organization acme".to_owned(),
        "project bank of organization default".to_owned(),
        "rule read on shop local * for service account gone of organization default".to_owned(),
        "rule read on shop local * for service account same of organization default".to_owned(),
        "service account gone of organization default".to_owned(),
        "service account theirs of organization acme".to_owned(),
    ];
    revives.sort_unstable();
    revives
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_kept_keys_bring_back_was_shown_before() {
    let (key, folder) = (generate_master_key(), Arc::new(tempfile::tempdir().unwrap()));
    let server = serve(&folder, key.expose()).await;
    let keys = fill(&server).await;
    let backup = server.admin("POST", "/api/backups").status(201).await;
    let rotated = change(&server, &keys).await;

    let into = Arc::new(tempfile::tempdir().unwrap());
    let shown = restore_with_keys(&server, backup.text_at("id"), backup.text_at("filename"), &into).await;
    assert_eq!(shown.revives, revived(&keys));
    // The key that goes on for an hour lives for ever in the restored database; what took its place is not there.
    let leaked = |key: &str| format!("key {}… of service account leaked of organization default", start(key));
    let until = leaked(&keys.leaked.key) + " until 20";
    let widened = "rule read on shop local * and on configurations for service account same of organization default";
    let lacks = &shown.lacks;
    assert_eq!(lacks.len(), 3, "{lacks:?}");
    assert!(lacks.iter().any(|line| line.starts_with(&until)), "{lacks:?}");
    assert!(
        lacks.contains(&leaked(&rotated)) && lacks.contains(&widened.to_owned()),
        "{lacks:?}"
    );
    let at = "in shop/local of organization default";
    assert_eq!(
        shown.values.lines,
        [
            format!("secret db {at}: version 1 there, 3 here"),
            format!("secret later {at}: none there, version 1 here"),
            format!("secret token {at}: version 2 there, 2 (disabled: 1) here"),
            format!("secret withdrawn {at}: version 1 there, none here"),
            format!("configuration LOG {at}: revision 1 there, 2 here"),
        ]
    );
    assert_eq!(shown.values.more, 0);

    let restored = serve(&into, key.expose()).await;
    let read = format!("{O}/projects/shop/envs/local/secrets/db");
    for kept in [&keys.leaked.key, &keys.gone.key, &keys.same.key] {
        let answer = restored.call("GET", &read).key(kept).status(200).await;
        assert_eq!(answer.body["value"], "value 0");
    }
    restored
        .call("GET", "/api/orgs/acme")
        .key(&keys.theirs)
        .status(200)
        .await;
    restored.call("GET", &read).key(&rotated).status(401).await;
}

/// As it is now, for later.
async fn copied(server: &Server, into: &TempDir) -> std::path::PathBuf {
    let (live, old) = (server.dir().join("sealpod.db"), into.path().join("old.db"));
    let copy = old.clone();
    tokio::task::spawn_blocking(move || sealpod_api_server::store::copy(&live, &copy).unwrap())
        .await
        .unwrap();
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_the_trash_and_is_purged_since_is_shown() {
    let (key, folder) = (generate_master_key(), Arc::new(tempfile::tempdir().unwrap()));
    let (server, into) = (serve(&folder, key.expose()).await, tempfile::tempdir().unwrap());
    for project in ["shop", "gone"] {
        server.application(project).await;
    }
    let secrets = format!("{O}/projects/shop/envs/local/secrets");
    for key in ["leaked", "kept", "returned"] {
        for value in ["first", "second"] {
            server.put("shop", "local", key, value).await;
        }
        server.admin("DELETE", &format!("{secrets}/{key}")).status(204).await;
    }
    server.put("shop", "local", "whole", "value").await;
    let whole = format!("{M}/shop/secrets/whole");
    server.admin("DELETE", &whole).status(204).await;
    let log = json!({"key": "LOG", "value": "info", "environmentSlug": "local"});
    let configurations = format!("{M}/shop/configurations");
    server.admin("POST", &configurations).json(log).status(201).await;
    server
        .admin("DELETE", &format!("{configurations}/local/LOG"))
        .status(204)
        .await;
    server.admin("DELETE", &format!("{M}/gone")).status(204).await;
    let old = copied(&server, &into).await;
    let live = server.dir().join("sealpod.db");
    assert_eq!(compare(&old, &live).unwrap(), Comparison::default());

    let trash = format!("{O}/trash");
    for item in server.admin("GET", &trash).status(200).await.list() {
        let (id, name) = (item["id"].as_str().unwrap(), item["name"].as_str().unwrap());
        match name {
            "kept" => {}
            "returned" => drop(server.admin("POST", &format!("{trash}/{id}/restore")).status(200).await),
            _ => drop(server.admin("DELETE", &format!("{trash}/{id}")).status(204).await),
        }
    }
    let shown = compare(&old, &live).unwrap();
    let expected = [
        "configuration LOG in shop/local",
        "project gone",
        "secret whole in shop",
        "versions 1 to 2 of secret leaked in shop/local",
    ];
    let expected = expected.map(|what| format!("{what} of organization default (in its trash, and purged since)"));
    assert_eq!(shown.revives, expected);
}

#[tokio::test]
async fn a_database_of_every_schema_can_be_compared_with_one_of_today() {
    let ring = Keyring::parse(OLDER_KEY).unwrap();
    for schema in 1..=known_schema() {
        let content = older_database(schema);
        let folder = tempfile::tempdir().unwrap();
        let (old, live) = (folder.path().join("old.db"), folder.path().join("live.db"));
        for path in [&old, &live] {
            std::fs::write(path, &content).unwrap();
        }
        let store = Store::open(&Options::new(&live), &ring).unwrap();
        assert_eq!(compare(&old, &live).unwrap(), Comparison::default(), "{schema}");
        let shop = ProjectRef::slug("default", "shop");
        store.delete_project(shop, Fate::Trash, by()).await.unwrap();
        let shown = compare(&old, &live).unwrap();
        assert_eq!(shown.lacks, [""; 0], "{schema}");
        let revived = |what: &str| shown.revives.iter().any(|line| line.contains(what));
        assert!(revived("project shop of organization default"), "{schema}: {shown:?}");
        assert!(
            revived("… of application shop of organization default"),
            "{schema}: {shown:?}"
        );
        store.close().await;
    }
}
