//! The commands that make, prove and restore backups.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;

use crate::backups::keyring;
use crate::process::{command, maintain, run, text};
use crate::rotation::Running;
use crate::shim::{Fault, Op, Shim};
use crate::support::O;

/// The commands, on a database that a server uses at the time.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_make_prove_and_restore_backups_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let values = server.fill().await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let url = format!("file://{}", path("backups"));
    let recipient = offline_key(&path("offline.txt"));
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
        ok && said.contains("the database in it is sound and opens") && said.contains("versions: 80"),
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

    // One that is damaged says what to do.
    let archive = listed.split(' ').next().map(|id| format!("{id}.backup")).unwrap();
    let mut archives = crate::backups::files(Path::new(&path("backups"))).into_iter();
    let archive = archives.find(|name| name.ends_with(&archive)).unwrap();
    let mut bytes = std::fs::read(dir.path().join("backups").join(archive)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path("damaged"), bytes).unwrap();
    let (ok, said) = with_key(&["backup", "verify", &path("damaged"), "--scratch", &path("")]);
    assert!(
        !ok && said.contains("the archive is damaged") && said.contains("use another one"),
        "{said}"
    );

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

/// Writes a new key of age there; answers its public half.
fn offline_key(path: &str) -> String {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    std::fs::write(path, identity.to_string().expose_secret()).unwrap();
    identity.to_public().to_string()
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
    assert_eq!(std::fs::metadata(&found).unwrap().permissions().mode() & 0o777, 0o600);

    // A file that is there is not written over, and that is known before anything else is done.
    let other = path("other.db");
    let with = ["--backup-url", url, "--identity", &offline, "--to", &other];
    let refused = run(&[&["backup", "restore", id, "--master-key-out", &found][..], &with].concat());
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("name a file that is not there yet"),
        "{said}"
    );
    assert!(!Path::new(&other).exists(), "it was restored");
    assert_eq!(read(&found), read(&path("master.key")));
    // What fails behind it takes it away again.
    let (key, taken) = (path("again.key"), path("master.key"));
    let with = ["--backup-url", url, "--identity", &offline, "--to", &taken];
    let refused = run(&[&["backup", "restore", id, "--master-key-out", &key][..], &with].concat());
    assert!(
        !refused.status.success() && !Path::new(&key).exists(),
        "{}",
        text(&refused.stderr)
    );
    // Without it, it is said which key is needed and how to get it.
    let without = path("without.db");
    let with = ["--backup-url", url, "--identity", &offline, "--to", &without];
    let restored = run(&[&["backup", "restore", id][..], &with].concat());
    let (said, needed) = (text(&restored.stdout), keyring(directory).current().to_string());
    assert!(said.contains(&format!("it opens with master key {needed}")), "{said}");
    assert!(said.contains("--master-key-out"), "{said}");
    out
}

/// The keys that a restored database needs are on the disk, or there is none.
#[tokio::test(flavor = "multi_thread")]
async fn master_keys_that_cannot_be_written_leave_neither_them_nor_a_database() {
    let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Running::start(dir.path());
    server.fill().await;
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, offline) = (format!("file://{}", path("backups")), path("offline.txt"));
    let recipient = offline_key(&offline);
    let made = maintain(
        dir.path(),
        &["backup", "create", "--backup-url", &url, "--recipient", &recipient],
    );
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    let shim = Shim::new(keys.path());
    let out = keys.path().join("found.key");
    // The file, and its folder, whose sync is what keeps its name.
    for (op, suffix, fault) in [
        (Op::Write, ".key", Fault::Full),
        (Op::Sync, ".key", Fault::Broken),
        (Op::Sync, "/", Fault::Broken),
    ] {
        shim.fail(op, suffix, 0, fault);
        let mut restore = command(&["backup", "restore", &id, "--backup-url", &url, "--identity", &offline]);
        restore
            .args(["--to", &path("restored.db"), "--master-key-out"])
            .arg(&out);
        let failed = shim.over(&mut restore).output().unwrap();
        let said = text(&failed.stderr);
        assert!(
            !failed.status.success() && shim.seen() > 0,
            "{op:?} of {suffix}: {said}"
        );
        assert!(
            said.contains("cannot write the master keys"),
            "{op:?} of {suffix}: {said}"
        );
        assert!(
            !out.exists() && !dir.path().join("restored.db").exists(),
            "{op:?} of {suffix}"
        );
    }
}

/// What stands in a line of `backup list`: the id, and the name of the database.
fn ends(line: &str) -> (String, String) {
    let (id, database) = (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap());
    (id.to_owned(), database.to_owned())
}

/// A drill with production's settings makes newer ones in the same place.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_databases_in_one_place_each_has_its_own_newest_backup() {
    let dir = tempfile::tempdir().unwrap();
    drop(Running::start(dir.path()));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, key) = (format!("file://{}", path("backups")), path("master.key"));
    let create = |database: &str| {
        let database = format!("sqlite:{}", path(database));
        let made = run(&[
            "backup",
            "create",
            "--backup-url",
            &url,
            "--database-url",
            &database,
            "--master-key-file",
            &key,
        ]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        text(&made.stdout).split(' ').next().unwrap().to_owned()
    };
    let with_key = |arguments: &[&str]| {
        let output = run(&[arguments, &["--backup-url", &url, "--master-key-file", &key]].concat());
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let list = |of: &[&str]| run(&[&["backup", "list", "--backup-url", &url], of].concat());
    let own = create("sealpod.db");
    let (ok, said) = with_key(&["backup", "restore", &own, "--to", &path("drill.db")]);
    assert!(ok, "{said}");
    // Before it made any, there is none that a script could take for its own.
    let none = list(&["--of", &path("drill.db")]);
    assert!(!none.status.success() && none.stdout.is_empty());
    assert!(
        text(&none.stderr).contains("there is no backup of database"),
        "{}",
        text(&none.stderr)
    );
    let theirs = create("drill.db");

    let listed = text(&list(&[]).stdout);
    let lines: Vec<_> = listed.lines().map(ends).collect();
    assert_eq!((&lines[0].0, &lines[1].0, lines.len()), (&theirs, &own, 2), "{listed}");
    let (drill, production) = (&lines[0].1, &lines[1].1);
    assert!(drill != production && production.len() == 8, "{listed}");
    for of in [&path("sealpod.db"), production] {
        let listed = text(&list(&["--of", of]).stdout);
        assert!(listed.starts_with(&own) && listed.lines().count() == 1, "{listed}");
    }
    let missing = list(&["--of", &path("nowhere.db")]);
    assert!(
        text(&missing.stderr).contains("there is no database at"),
        "{}",
        text(&missing.stderr)
    );

    // Whoever takes the newest one of all is told, by each command.
    let (ok, said) = with_key(&["backup", "verify", &theirs, "--scratch", &path("")]);
    assert!(ok && said.contains(&format!("of database {drill}, ")), "{said}");
    let live = path("sealpod.db");
    let compare = |id: &str, to: &str| with_key(&["backup", "restore", id, "--to", &path(to), "--compare", &live]);
    let (ok, said) = compare(&theirs, "theirs.db");
    let told = format!("the backup is of database {drill}, and {live} is database {production}");
    assert!(ok && said.contains(&told) && said.contains("restored since"), "{said}");
    assert!(said.contains(&format!("of database {drill}, ")), "{said}");
    let (ok, said) = compare(&own, "own.db");
    assert!(ok && !said.contains("the backup is of database"), "{said}");

    // One of an earlier version may be of any.
    let kept = dir.path().join("backups");
    let mut known = crate::backups::files(&kept).into_iter();
    let known = kept.join(
        known
            .find(|name| name.ends_with(&format!("{theirs}.backup.json")))
            .unwrap(),
    );
    let mut of: serde_json::Value = serde_json::from_slice(&std::fs::read(&known).unwrap()).unwrap();
    of.as_object_mut().unwrap().remove("epoch").unwrap();
    std::fs::write(&known, of.to_string()).unwrap();
    let said = text(&list(&["--of", &path("drill.db")]).stderr);
    assert!(said.contains("(1 of an earlier version"), "{said}");
    let listed = text(&list(&[]).stdout);
    assert!(
        listed.lines().next().unwrap().ends_with(" of database unknown"),
        "{listed}"
    );
}

/// A process that is killed on the way leaves keys without a database, and never a database without its keys.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_never_has_its_name_before_its_keys_are_on_the_disk() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(Running::start(dir.path()));
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, offline) = (format!("file://{}", path("backups")), path("offline.txt"));
    let recipient = offline_key(&offline);
    let made = maintain(
        dir.path(),
        &["backup", "create", "--backup-url", &url, "--recipient", &recipient],
    );
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    let shim = Shim::new(out.path());
    let (restored, found) = (out.path().join("restored.db"), out.path().join("found.key"));
    let needed = std::fs::read_to_string(path("master.key")).unwrap();
    let mut named = 0;
    for point in 0..100 {
        for file in crate::backups::files(out.path()) {
            std::fs::remove_file(out.path().join(file)).unwrap();
        }
        shim.fail(Op::Sync, "", point, Fault::Kill);
        let mut restore = command(&["backup", "restore", &id, "--backup-url", &url, "--identity", &offline]);
        restore.arg("--to").arg(&restored).arg("--master-key-out").arg(&found);
        let ended = shim.over(&mut restore).output().unwrap();
        if restored.exists() {
            named += 1;
            let keys = std::fs::read_to_string(&found).unwrap_or_default();
            assert_eq!(keys.trim(), needed.trim(), "{point}");
        }
        if shim.seen() <= point {
            assert!(ended.status.success() && named > 1, "{point}: {}", text(&ended.stderr));
            return;
        }
        assert_eq!(ended.status.code(), None, "it was not killed");
    }
    panic!("it never came to its end");
}
