//! Backups where there is no room, for them or for anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealpod_api_server::audit::Chain;
use sealpod_api_server::backup::{Backups, Settings, Storage};
use sealpod_api_server::store::{OpenError, Options, Reserve, Store, Trace, copy};
use sealpod_core::wire::backups::Trigger;
use serde_json::{Value, json};

use super::{Caller, KIB, MIB, Stored, page, started, write_until_full};
use crate::process::{Process, run, serve, text};
use crate::retention::fill;
use crate::shim::{Fault, Op, Shim, rounds};
use crate::store_support::{ORGANIZATION, by, keyring};
use crate::volume::Volume;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_of_backups_is_named_and_holds_up_nothing_else() {
    for _ in 0..rounds(1) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (volume, dir) = (Volume::new(16), tempfile::tempdir().unwrap());
        let backups = volume.path().join("backups");
        std::fs::create_dir(&backups).unwrap();
        let server =
            Process::start(serve(dir.path()).env("SEALPOD_BACKUP_URL", format!("file://{}", backups.display())));
        let caller = Caller::new(&server);
        caller.project().await;
        volume.fill("other", 8 * KIB);
        let refused = caller.call("POST", "/api/backups", "backup", Value::Null).await;
        assert_eq!(
            (refused.status, &refused.code),
            (503, &json!("unavailable")),
            "{}",
            refused.text
        );
        assert!(
            refused.text.contains("the volume of the backups is full"),
            "{}",
            refused.text
        );
        assert_eq!(server.readiness().await.0, 200);
        assert_eq!(caller.put("key-0", "v").await.status, 201);
        let left: Vec<_> = std::fs::read_dir(&backups).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");

        volume.free("other");
        let made = caller.call("POST", "/api/backups", "backup", Value::Null).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let url = format!("file://{}", backups.display());
        let listed = run(&["backup", "list", "--backup-url", &url]);
        assert_eq!(text(&listed.stdout).lines().count(), 1, "{}", text(&listed.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_takes_nothing_of_what_the_database_and_its_reserve_need() {
    for _ in 0..rounds(1) {
        let (volume, backups) = (Volume::new(80), tempfile::tempdir().unwrap());
        let (dir, server, _) = started(&volume).await;
        assert_eq!(server.stop().0, Some(0));
        let url = format!("file://{}", backups.path().display());
        let server = Process::start(serve(&dir).env("SEALPOD_BACKUP_URL", &url));
        let (caller, reserve) = (Caller::new(&server), dir.join("sealpod.db.reserve"));
        let refused = async || {
            let refused = caller.call("POST", "/api/backups", "backup", Value::Null).await;
            assert_eq!(
                (refused.status, &refused.code),
                (507, &json!("disk_full")),
                "{}",
                refused.text
            );
            assert_eq!(std::fs::read_dir(backups.path()).unwrap().count(), 0);
        };
        // Room for the copy, and for nothing beside it.
        volume.fill("other", 3 * MIB);
        refused().await;
        assert!(reserve.exists() && server.readiness().await.0 == 200);
        assert_eq!(caller.put("key-0", "v").await.status, 201);

        // What was the reserve's is for the audit log.
        write_until_full(&server, 0, &mut Stored::new()).await;
        refused().await;
        assert_eq!(caller.get("key-0", "read").await.status, 200);
        assert!(page().contains("No backup is made"));

        server.wait_for(|status, _| status == 503).await;
        volume.free("other");
        server.wait_for(|status, _| status == 200).await;
        let made = caller.call("POST", "/api/backups", "backup", Value::Null).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
}

/// Which was seen to fit before it was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_ends_where_others_took_the_room_meanwhile() {
    let volume = Volume::new(40);
    let path = volume.path().join("sealpod.db");
    let store = Store::open(&Options::new(&path), &keyring()).unwrap();
    store.ensure_organization(ORGANIZATION, by()).await.unwrap();
    fill(&store, 3_000).await;
    volume.fill("other", 3 * MIB);
    let refused = copy(&path, &volume.path().join("first")).unwrap_err();
    assert!(matches!(refused, OpenError::NoRoom { .. }), "{refused}");
    volume.free("other");
    copy(&path, &volume.path().join("second")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_on_record_from_the_reserve_where_the_disk_filled_while_it_was_made() {
    let (volume, elsewhere) = (Arc::new(Volume::new(80)), tempfile::tempdir().unwrap());
    let (filled, is_armed) = (Arc::clone(&volume), Arc::new(AtomicBool::new(false)));
    let armed = Arc::clone(&is_armed);
    // The first entry behind this is that of the backup.
    let trace = Trace::new(move |sql| {
        if sql.contains("INSERT INTO audit_entries") && armed.swap(false, Ordering::Relaxed) {
            filled.fill("other", 0);
        }
    });
    let mut options = Options::new(volume.path().join("sealpod.db"));
    (options.reserve, options.trace) = (true, Some(trace));
    let store = Store::open(&options, &keyring()).unwrap();
    store.ensure_organization(ORGANIZATION, by()).await.unwrap();
    let settings = Settings {
        storage: Some(Storage::Directory(elsewhere.path().to_owned())),
        recipients: Vec::new(),
    };
    let backups = Backups::new(settings, options.path.clone(), keyring());
    is_armed.store(true, Ordering::Relaxed);
    let made = backups.create(&store, Trigger::Manual, by()).await.unwrap();
    assert_eq!(
        (store.reserve(), is_armed.load(Ordering::Relaxed)),
        (Reserve::GivenUp, false)
    );
    assert_eq!(backups.list().await.unwrap(), std::slice::from_ref(&made));
    let entries = store.audit_following(Chain::Instance, 0, 100).await.unwrap();
    assert_eq!(entries.last().and_then(|entry| entry.resource_id), Some(made.id));
    // No further one is begun meanwhile.
    assert!(backups.create(&store, Trigger::Manual, by()).await.is_err());
    assert_eq!(backups.list().await.unwrap(), [made]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_over_the_api_that_finds_no_room_is_507_wherever_that_is_and_leaves_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (dir, backups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", backups.path().display());
    let shim = Shim::new(dir.path());
    let server = Process::start(shim.over(serve(dir.path()).env("SEALPOD_BACKUP_URL", &url)));
    let caller = Caller::new(&server);
    caller.project().await;
    for n in 0..8 {
        assert_eq!(caller.put(&format!("key-{n}"), &"v".repeat(100_000)).await.status, 201);
    }
    let made = caller.call("POST", "/api/backups", "backup", Value::Null).await;
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let path = format!("/api/backups/{}/restore", made["id"].as_str().unwrap());
    let restored = format!("sealpod.db.restore.{}", made["id"].as_str().unwrap());
    shim.fail(Op::Write, "", i64::MAX, Fault::Full);
    let whole = caller.call("POST", &path, "restore", Value::Null).await;
    assert_eq!(whole.status, 200, "{}", whole.text);
    let calls = shim.seen();
    assert!(calls > 20, "{calls}");
    std::fs::remove_file(dir.path().join(&restored)).unwrap();
    let points = i64::try_from(rounds(8)).unwrap().min(calls);
    // Among the last twelve are the copy of the log into the new file and the entry that puts it on record.
    for point in (0..points).map(|n| n * calls / points).chain(calls - 12..calls) {
        shim.fail(Op::Write, "", point, Fault::Full);
        let refused = caller.call("POST", &path, "restore", Value::Null).await;
        let seen = shim.seen();
        shim.heal();
        if refused.status == 200 && seen <= point {
            std::fs::remove_file(dir.path().join(&restored)).unwrap();
            continue;
        }
        assert_eq!(
            (refused.status, &refused.code),
            (507, &json!("disk_full")),
            "{point} of {calls}: {}",
            refused.text
        );
        let left = crate::backups::files(dir.path());
        let is_left = |name: &&String| name.contains("scratch") || name.contains(".restore.");
        assert_eq!(left.iter().find(is_left), None, "{point} of {calls}");
        server.wait_for(|status, _| status == 200).await;
    }
    assert_eq!(server.stop().0, Some(0));
}
