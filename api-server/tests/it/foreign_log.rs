//! The log of one database beside another: it is never replayed over it, and nothing of it is lost.

use std::path::Path;

use crate::process::{Process, command, maintain, run, serve, text};
use crate::rotation::Running;
use crate::shim::{Fault, Op, Shim};
use crate::support::O;

/// A server that was killed: its database has changes in its log. Answers the id of a backup from before them.
async fn killed(dir: &Path) -> String {
    let server = Running::start(dir);
    server.fill().await;
    let url = format!("file://{}", dir.join("backups").display());
    let made = maintain(dir, &["backup", "create", "--backup-url", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    for n in 0..5 {
        server.put("after", &format!("{n} {}", "x".repeat(20_000))).await;
    }
    drop(server);
    assert!(dir.join("sealpod.db-wal").metadata().unwrap().len() > 50_000);
    text(&made.stdout).split(' ').next().unwrap().to_owned()
}

fn restore(dir: &Path, id: &str, name: &str) -> (bool, String) {
    restore_with(dir, id, name, &[])
}

fn restore_with(dir: &Path, id: &str, name: &str, more: &[&str]) -> (bool, String) {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let url = format!("file://{}", path("backups"));
    let rest = ["--backup-url", &url, "--master-key-file", &path("master.key")];
    let output = run(&[&["backup", "restore", id, "--to", &path(name)][..], &rest, more].concat());
    (output.status.success(), text(&output.stderr))
}

fn move_away(dir: &Path, names: &[&str]) {
    let away = dir.join("away");
    std::fs::create_dir_all(&away).unwrap();
    for name in names {
        let (from, to) = (dir.join(name), away.join(name));
        if from.exists() {
            std::fs::rename(from, to).unwrap();
        }
    }
}

/// It does not start, says so, and writes nothing into either file.
fn is_refused(dir: &Path, words: &str) {
    let content = |name: &str| std::fs::read(dir.join(name)).ok();
    let before = (content("sealpod.db"), content("sealpod.db-wal"));
    let (url, path) = (
        format!("file://{}", dir.join("backups").display()),
        dir.join("sealpod.db"),
    );
    let back_up = ["backup", "create", "--backup-url", &url];
    for arguments in [None, Some(&["audit", "verify"][..]), Some(&back_up)] {
        let said = match arguments {
            None => {
                let ended = Process::try_start(&mut serve(dir)).err().expect("it started");
                assert_eq!(ended.code, Some(1), "{}", ended.log);
                ended.log
            }
            Some(arguments) => {
                let output = maintain(dir, arguments);
                assert_eq!(output.status.code(), Some(1));
                text(&output.stderr)
            }
        };
        // Commands look for the database first.
        let is_absent = arguments.is_some() && before.0.is_none();
        let words = if is_absent {
            ["there is no database at", "sealpod.db"]
        } else {
            [words, "sealpod.db-wal"]
        };
        assert!(words.iter().all(|words| said.contains(words)), "{said}");
    }
    if path.exists() {
        let id = text(&run(&["backup", "list", "--backup-url", &url]).stdout);
        let id = id.lines().last().unwrap().split(' ').next().unwrap();
        let (ok, said) = restore_with(dir, id, "compared.db", &["--compare", path.to_str().unwrap()]);
        assert!(!ok && said.contains(words) && said.contains("sealpod.db-wal"), "{said}");
        assert!(!dir.join("compared.db").exists());
    }
    assert!(
        (content("sealpod.db"), content("sealpod.db-wal")) == before,
        "something was written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_name_that_a_log_stands_beside_is_refused_and_the_log_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let id = killed(dir.path()).await;
    let values = std::fs::read(dir.path().join("sealpod.db-wal")).unwrap();
    move_away(dir.path(), &["sealpod.db"]);
    let (ok, said) = restore(dir.path(), &id, "sealpod.db");
    assert!(
        !ok && said.contains("sealpod.db-wal is there") && said.contains("Move it away"),
        "{said}"
    );
    assert!(!dir.path().join("sealpod.db").exists());
    // A new database here would throw it away.
    is_refused(dir.path(), "with changes that are nowhere else");
    assert!(std::fs::read(dir.path().join("sealpod.db-wal")).unwrap() == values);

    std::fs::write(dir.path().join("other.db-journal"), "of somebody").unwrap();
    let (ok, said) = restore(dir.path(), &id, "other.db");
    assert!(!ok && said.contains("other.db-journal is there"), "{said}");
    // A log without anything in it is none; of a link nobody knows what it leads to by then.
    std::fs::write(dir.path().join("empty.db-wal"), "").unwrap();
    std::fs::write(dir.path().join("none.db-journal"), "").unwrap();
    std::os::unix::fs::symlink("empty.db-wal", dir.path().join("linked.db-wal")).unwrap();
    for (name, is_free) in [("empty", true), ("none", false), ("linked", false)] {
        let (ok, said) = restore(dir.path(), &id, &format!("{name}.db"));
        assert_eq!(ok, is_free, "{name}: {said}");
    }

    // With the database back, all is there.
    std::fs::rename(dir.path().join("away/sealpod.db"), dir.path().join("sealpod.db")).unwrap();
    let server = Running::start(dir.path());
    let read = server.get(&format!("{O}/projects/shop/envs/local/secrets/after")).await;
    assert!(read["value"].as_str().unwrap().starts_with("4 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_beside_the_log_of_another_one_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let id = killed(dir.path()).await;
    let (ok, said) = restore(dir.path(), &id, "restored.db");
    assert!(ok, "{said}");
    // Also behind somebody who looked at it.
    let url = format!("sqlite:{}", dir.path().join("restored.db").display());
    let looked = command(&["audit", "verify", "--database-url", &url])
        .arg("--master-key-file")
        .arg(dir.path().join("master.key"))
        .output()
        .unwrap();
    assert!(looked.status.success(), "{}", text(&looked.stderr));
    std::fs::rename(dir.path().join("restored.db"), dir.path().join("sealpod.db")).unwrap();
    is_refused(dir.path(), "was not written to");

    move_away(dir.path(), &["sealpod.db-wal"]);
    let server = Running::start(dir.path());
    let after = server
        .call("GET", &format!("{O}/projects/shop/envs/local/secrets/after"), None)
        .await;
    assert_eq!(after.0, 404);
    server.put("own", "value").await;
    drop(server);
    // Its own log is replayed.
    let server = Running::start(dir.path());
    let read = server.get(&format!("{O}/projects/shop/envs/local/secrets/own")).await;
    assert_eq!(read["value"], "value");
    assert_eq!(server.process.stop().0, Some(0));

    // Nobody can tell by its mark any more; a log that has all of another database tells by the epoch.
    let other = tempfile::tempdir().unwrap();
    for name in ["master.key", "admin.key"] {
        std::fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
    }
    drop(Running::start(other.path()));
    let log = other.path().join("sealpod.db-wal");
    std::fs::copy(log, dir.path().join("sealpod.db-wal")).unwrap();
    is_refused(dir.path(), "was not written to");
}

#[tokio::test(flavor = "multi_thread")]
async fn which_backups_a_database_has_is_told_whatever_is_the_matter_with_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let id = killed(dir.path()).await;
    assert_eq!(Running::start(dir.path()).process.stop().0, Some(0));
    let (url, database) = (
        format!("file://{}", dir.path().join("backups").display()),
        dir.path().join("sealpod.db").display().to_string(),
    );
    let listed = || {
        let output = run(&["backup", "list", "--backup-url", &url, "--of", &database]);
        assert!(text(&output.stdout).starts_with(&id), "{}", text(&output.stderr));
    };
    let note = dir.path().join("sealpod.db.lost-log");
    std::fs::write(&note, "its log is lost").unwrap();
    is_refused_for(dir.path(), "its log is lost");
    listed();
    // As the note says: what is restored is to be put in the place of all of it.
    let output = restored_of(dir.path(), &id);
    assert!(output.contains("the .lost-log beside it"), "{output}");
    std::fs::remove_file(note).unwrap();

    let other = tempfile::tempdir().unwrap();
    drop(Running::start(other.path()));
    std::fs::copy(other.path().join("sealpod.db-wal"), dir.path().join("sealpod.db-wal")).unwrap();
    is_refused_for(dir.path(), "was not written to");
    listed();
}

/// Nobody opens the database there, and is told why.
fn is_refused_for(dir: &Path, why: &str) {
    let output = maintain(dir, &["audit", "verify"]);
    assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
}

/// What a restore says.
fn restored_of(dir: &Path, id: &str) -> String {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let url = format!("file://{}", path("backups"));
    let (to, key) = (path("restored.db"), path("master.key"));
    let asked = [
        "backup",
        "restore",
        id,
        "--to",
        &to,
        "--backup-url",
        &url,
        "--master-key-file",
        &key,
    ];
    text(&run(&asked).stdout)
}

/// The restored database under its name, without a log.
fn put_in_place(dir: &Path) {
    for name in ["sealpod.db-wal", "sealpod.db-shm"] {
        drop(std::fs::remove_file(dir.join(name)));
    }
    std::fs::copy(dir.join("restored.db"), dir.join("sealpod.db")).unwrap();
}

/// Kills whoever opens the restored database at one write to its log after the other, and then to its file, until it ends
/// without that; each time a server starts behind it, and has what was restored.
async fn killed_at_any_write(dir: &Path, open: impl Fn(&Shim) -> Option<i32>) {
    // The header of the log, and a frame in two parts at the least; behind the last of them the log is whole.
    for (suffix, least) in [("-wal", 3), (".db", 1)] {
        let mut kills = 0;
        for point in 0..40 {
            put_in_place(dir);
            let shim = Shim::new(dir);
            shim.fail(Op::Write, suffix, point, Fault::Kill);
            let code = open(&shim);
            if shim.seen() <= point {
                break;
            }
            assert_eq!(code, None, "it was not killed");
            kills += 1;
            let server = Running::start(dir);
            let read = server.get(&format!("{O}/projects/shop/envs/local/secrets/key-3")).await;
            assert!(read["value"].as_str().unwrap().starts_with("new 3 "), "{read}");
        }
        assert!(kills >= least, "{suffix}: {kills}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_that_is_killed_at_any_write_of_its_first_start_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let id = killed(dir.path()).await;
    move_away(dir.path(), &["sealpod.db", "sealpod.db-wal", "sealpod.db-shm"]);
    let (ok, said) = restore(dir.path(), &id, "restored.db");
    assert!(ok, "{said}");
    killed_at_any_write(dir.path(), |shim| {
        match Process::try_start(shim.over(&mut serve(dir.path()))) {
            Err(ended) => ended.code,
            // Killed behind that, or not at all.
            Ok(server) => {
                server.signal();
                server.wait().code
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_that_is_killed_at_any_write_of_whoever_looks_at_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let id = killed(dir.path()).await;
    move_away(dir.path(), &["sealpod.db", "sealpod.db-wal", "sealpod.db-shm"]);
    let (ok, said) = restore(dir.path(), &id, "restored.db");
    assert!(ok, "{said}");
    // The clock was set back since, which the writer deals with by itself.
    let hour = std::time::Duration::from_hours(1);
    let ahead = (std::time::SystemTime::now() + hour).duration_since(std::time::UNIX_EPOCH);
    let ahead = i64::try_from(ahead.unwrap().as_micros()).unwrap();
    let sql = "INSERT INTO meta (name, value) VALUES ('credential_clock', ?1)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    let connection = rusqlite::Connection::open(dir.path().join("restored.db")).unwrap();
    connection.execute(sql, [ahead.to_be_bytes()]).unwrap();
    drop(connection);
    let url = format!("sqlite:{}", dir.path().join("sealpod.db").display());
    let look = ["audit", "verify", "--database-url", &url, "--master-key-file"];
    killed_at_any_write(dir.path(), |shim| {
        let mut looker = command(&look);
        looker.arg(dir.path().join("master.key"));
        shim.over(&mut looker).output().unwrap().status.code()
    })
    .await;
}
