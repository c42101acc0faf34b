//! A restore that meets a fault of the disk: a whole database or none.

use std::path::Path;
use std::process::Command;

use crate::process::{command, maintain, serve, text};
use crate::rotation::Running;
use crate::shim::{Fault, Op, Power, Shim, rounds};

/// A backup in `backups`, its id, and the name of the database that it was made of.
async fn back_up(dir: &Path) -> (String, Vec<u8>) {
    let server = Running::of(&mut serve(dir));
    server.fill().await;
    let url = format!("file://{}", dir.join("backups").display());
    let made = maintain(dir, &["backup", "create", "--backup-url", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    (id, epoch(&dir.join("sealpod.db")))
}

fn restore(dir: &Path, id: &str, target: &Path) -> Command {
    let url = format!("file://{}", dir.join("backups").display());
    let mut restore = command(&["backup", "restore", id, "--backup-url", &url]);
    restore.arg("--to").arg(target);
    restore.arg("--master-key-file").arg(dir.join("master.key"));
    restore
}

fn one<T: rusqlite::types::FromSql>(database: &Path, sql: &str) -> T {
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn epoch(database: &Path) -> Vec<u8> {
    one(database, "SELECT value FROM meta WHERE name = 'epoch'")
}

/// How a restore into a folder of its own ended, and what there is then.
struct Ended {
    folder: tempfile::TempDir,
    succeeded: bool,
    said: String,
}

impl Ended {
    fn target(&self) -> std::path::PathBuf {
        self.folder.path().join("restored.db")
    }

    /// Nothing, or a database that is whole and lets nobody in who was not, as whoever takes the file alone finds it.
    fn is_all_or_nothing(&self, live: &[u8], what: &str) {
        let (target, what) = (self.target(), format!("{what}: {}", self.said));
        if target.exists() {
            assert!(!self.folder.path().join("restored.db-wal").exists(), "{what}");
            assert_ne!(epoch(&target), live, "{what}");
            assert_eq!(one::<i64>(&target, "SELECT count(*) FROM api_keys"), 0, "{what}");
            assert_eq!(one::<String>(&target, "PRAGMA integrity_check"), "ok", "{what}");
        }
    }
}

/// `arm` says what goes wrong, of the calls of the command in the folder that it restores into.
fn attempt(dir: &Path, id: &str, arm: impl FnOnce(&Shim)) -> (Shim, Ended) {
    let folder = tempfile::tempdir().unwrap();
    let shim = Shim::new(folder.path());
    arm(&shim);
    let ended = shim
        .over(&mut restore(dir, id, &folder.path().join("restored.db")))
        .output()
        .unwrap();
    let ended = Ended {
        folder,
        succeeded: ended.status.success(),
        said: text(&ended.stderr),
    };
    (shim, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_meets_a_fault_makes_a_database_whose_keys_are_revoked_or_none() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (id, live) = back_up(dir.path()).await;
    for (op, fault) in [
        (Op::Write, Fault::Broken),
        (Op::Write, Fault::Full),
        (Op::Sync, Fault::Broken),
        (Op::Sync, Fault::Full),
    ] {
        // `None`: nothing fails, and all calls are counted.
        let attempt = |point: Option<i64>| {
            let (shim, ended) = attempt(dir.path(), &id, |shim| {
                shim.fail(op, "", point.unwrap_or(i64::MAX), fault);
            });
            let what = format!("{op:?} {fault:?} behind {point:?}");
            assert_eq!(ended.target().exists(), ended.succeeded, "{what}: {}", ended.said);
            ended.is_all_or_nothing(&live, &what);
            if !ended.succeeded {
                assert!(!ended.said.trim().is_empty(), "{what}");
                assert_eq!(
                    crate::backups::files(ended.folder.path()),
                    [""; 0],
                    "{what}: {}",
                    ended.said
                );
            }
            (shim.seen(), ended.succeeded)
        };
        let (calls, succeeded) = attempt(None);
        assert!(succeeded && calls > 5, "{op:?}: {calls}");
        let points = i64::try_from(rounds(8)).unwrap().min(calls);
        let failed = (0..points).filter(|n| !attempt(Some(n * calls / points)).1).count();
        assert!(failed > 0, "{op:?} {fault:?}");
        // The last ones, where all is written and the file is about to get its name.
        for last in 1..=4.min(calls) {
            attempt(Some(calls - last));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_name_is_not_on_the_disk_is_none() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (id, _) = back_up(dir.path()).await;
    for fault in [Fault::Broken, Fault::Full] {
        let (shim, ended) = attempt(dir.path(), &id, |shim| shim.fail(Op::Sync, "/", 0, fault));
        assert!(shim.seen() > 0, "its folder was not synced");
        assert!(!ended.succeeded, "{fault:?}");
        assert_eq!(crate::backups::files(ended.folder.path()), [""; 0], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_the_power_ends_is_whole_or_none_and_one_that_was_told_of_is_there() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (id, live) = back_up(dir.path()).await;
    let cut = |arm: &dyn Fn(&Shim)| {
        let (shim, ended) = attempt(dir.path(), &id, |shim| {
            shim.watch_power(Power::Named);
            arm(shim);
        });
        shim.cut();
        (shim.seen(), ended)
    };
    for op in [Op::Write, Op::Sync] {
        let (calls, ended) = cut(&|shim| shim.fail(op, "", i64::MAX, Fault::Kill));
        assert!(ended.succeeded && ended.target().exists(), "{}", ended.said);
        ended.is_all_or_nothing(&live, "told of");
        let points = i64::try_from(rounds(4)).unwrap().min(calls);
        for point in (0..points).map(|n| n * calls / points).chain([calls - 1]) {
            let (_, ended) = cut(&|shim| shim.fail(op, "", point, Fault::Kill));
            assert!(!ended.succeeded, "{op:?} {point}: it was not killed");
            ended.is_all_or_nothing(&live, &format!("{op:?} {point}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_told_of_survives_a_power_cut() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    // The folder of the backups is there from the first one.
    back_up(dir.path()).await;
    let backups = dir.path().join("backups");
    let shim = Shim::new(&backups);
    shim.watch_power(Power::Named);
    let with = |arguments: &[&str]| {
        let mut backup = command(arguments);
        backup
            .env("SEALPOD_BACKUP_URL", format!("file://{}", backups.display()))
            .env(
                "SEALPOD_DATABASE_URL",
                format!("sqlite:{}", dir.path().join("sealpod.db").display()),
            )
            .env("SEALPOD_MASTER_KEY_FILE", dir.path().join("master.key"));
        backup
    };
    let made = shim.over(&mut with(&["backup", "create"])).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    shim.cut();
    let id = text(&made.stdout).split(' ').next().unwrap().to_owned();
    // The first one was not watched, and its disk has lost it.
    let listed = with(&["backup", "list"]).output().unwrap();
    let listed = text(&listed.stdout) + &text(&listed.stderr);
    assert!(listed.starts_with(&id) && listed.lines().count() == 1, "{listed}");
    let verified = with(&["backup", "verify", &id])
        .arg("--scratch")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_backups_whose_name_is_not_on_the_disk_takes_none() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (dir, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    back_up(dir.path()).await;
    let shim = Shim::new(place.path());
    let url = format!("file://{}", place.path().join("backups").display());
    let mut create = command(&["backup", "create", "--backup-url", &url]);
    create
        .env(
            "SEALPOD_DATABASE_URL",
            format!("sqlite:{}", dir.path().join("sealpod.db").display()),
        )
        .env("SEALPOD_MASTER_KEY_FILE", dir.path().join("master.key"));
    shim.fail(Op::Sync, "/", 0, Fault::Broken);
    let failed = shim.over(&mut create).output().unwrap();
    assert!(!failed.status.success() && shim.seen() == 1, "{}", text(&failed.stderr));
    assert_eq!(crate::backups::files(place.path()), [""; 0]);
    shim.heal();
    let made = create.output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}
