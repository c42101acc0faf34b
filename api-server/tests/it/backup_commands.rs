//! The commands that make, prove and restore backups.

use std::path::Path;

use serde_json::json;

use crate::backups::keyring;
use crate::process::{maintain, run, text};
use crate::rotation::Running;
use crate::support::O;

/// The commands, on a database that a server uses at the time.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_make_prove_and_restore_backups_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let values = server.fill().await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let url = format!("file://{}", path("backups"));
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    {
        use age::secrecy::ExposeSecret;
        std::fs::write(path("offline.txt"), identity.to_string().expose_secret()).unwrap();
    }
    let made = maintain(
        dir.path(),
        &["backup", "create", "--backup-url", &url, "--recipient", &recipient],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    let listed = text(&run(&["backup", "list", "--backup-url", &url]).stdout);
    assert!(listed.starts_with(&id) && listed.contains("command"), "{listed}");

    let with_key = |arguments: &[&str]| {
        let rest = ["--backup-url", &url, "--master-key-file", &path("master.key")];
        let output = run(&[arguments, &rest].concat());
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (ok, said) = with_key(&["backup", "verify", &id, "--scratch", &path("")]);
    assert!(
        ok && said.contains("everything in it opens") && said.contains("versions: 80"),
        "{said}"
    );
    std::fs::write(
        path("other.key"),
        sealpod_api_server::crypto::generate_master_key().expose(),
    )
    .unwrap();
    let foreign = run(&[
        "backup",
        "verify",
        &id,
        "--backup-url",
        &url,
        "--master-key-file",
        &path("other.key"),
    ]);
    let needed = keyring(dir.path()).current().to_string();
    assert!(text(&foreign.stderr).contains(&needed), "{}", text(&foreign.stderr));

    // What was made since, the backup lacks; what was taken away since, it revives.
    server.put("later", "value").await;
    let kept = server
        .call("POST", &format!("{O}/service-accounts"), Some(json!({"name": "later"})))
        .await;
    assert_eq!(kept.0, 201);
    let compared = path("compared.db");
    let live = path("sealpod.db");
    let (ok, said) = with_key(&[
        "backup",
        "restore",
        &id,
        "--to",
        &compared,
        "--compare",
        &live,
        "--keep-keys",
    ]);
    assert!(ok && said.contains("the backup revives: nothing"), "{said}");
    assert!(said.contains("service account later of organization default"), "{said}");
    let (ok, said) = with_key(&["backup", "restore", &id, "--to", &compared]);
    assert!(!ok && said.contains("nothing was written over it"), "{said}");
    assert!(!with_key(&["backup", "restore", &id, "--to", &path("x.db"), "--keep-keys"]).0);

    let out = recover(dir.path(), &url, &id);
    server.process.stop();

    // The switch.
    std::fs::rename(&out, path("sealpod.db")).unwrap();
    for suffix in ["-wal", "-shm"] {
        drop(std::fs::remove_file(path(&format!("sealpod.db{suffix}"))));
    }
    let server = Running::start(dir.path());
    server.check(&values).await;
    let (status, _) = server
        .call("GET", &format!("{O}/projects/shop/envs/local/secrets/later"), None)
        .await;
    assert_eq!(status, 404);
    server.process.stop();
    assert!(maintain(dir.path(), &["audit", "verify"]).status.success());
}

/// Without the master key: by the offline one, which brings the master key back.
fn recover(directory: &Path, url: &str, id: &str) -> String {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (out, found, offline) = (path("drill.db"), path("found.key"), path("offline.txt"));
    let with = [
        "--backup-url",
        url,
        "--identity",
        &offline,
        "--master-key-out",
        &found,
        "--to",
        &out,
    ];
    let restored = run(&[&["backup", "restore", id][..], &with].concat());
    let said = text(&restored.stdout) + &text(&restored.stderr);
    assert!(
        restored.status.success() && said.contains("to switch: stop the server"),
        "{said}"
    );
    let read = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
    assert_eq!(read(&found), read(&path("master.key")));
    out
}
