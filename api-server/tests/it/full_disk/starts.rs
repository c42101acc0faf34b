//! A server that is started on a full disk.

use serde_json::{Value, json};

use super::{Caller, KIB, MIB, Stored, check, maintain_copy, started, write_until_full};
use crate::process::{Process, run, serve, text};
use crate::shim::rounds;
use crate::volume::{Volume, available};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_on_a_full_disk_reads_on() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(96);
        let (dir, server, caller) = started(&volume).await;
        let mut stored = Stored::new();
        volume.fill("other", 2 * MIB);
        write_until_full(&server, 0, &mut stored).await;
        drop((server, caller));
        // What a restart finds is taken by whatever else is on the volume, but for the reserve's room.
        volume.fill("more", 4 * MIB);
        let server = Process::start(&mut serve(&dir));
        let caller_now = Caller::new(&server);
        server
            .wait_for(|status, text| status == 503 && text.contains("no changes are made"))
            .await;
        let refused = caller_now.put("key-0", "small").await;
        assert_eq!((refused.status, &refused.code), (507, &json!("disk_full")));
        assert_eq!(caller_now.get("key-0", "read").await.status, 200);
        let (code, _) = server.stop();
        assert_eq!(code, Some(0), "it could not be stopped as usual");

        // With its reserve whole, and not a byte beside it: that is what the reserve is for, too.
        volume.free("more");
        volume.free("other");
        let server = Process::start(&mut serve(&dir));
        server.wait_for(|status, _| status == 200).await;
        assert_eq!(server.stop().0, Some(0));
        assert!(dir.join("sealpod.db.reserve").exists());
        volume.fill("other", 0);
        assert!(available(&dir) < 64 * KIB);
        let server = Process::start(&mut serve(&dir));
        let caller = Caller::new(&server);
        assert_eq!(caller.get("key-0", "read").await.status, 200);
        // What it gave up to start is not taken back from what it was given up for.
        let reserve = dir.join("sealpod.db.reserve");
        let waits = |status, text: &str| status == 503 && text.contains("no changes are made");
        server.wait_for(waits).await;
        assert!(!reserve.exists());
        volume.free("other");
        server.wait_for(|status, _| status == 200).await;
        assert_eq!(caller.put("new", "v").await.status, 201);
        check(&caller, &dir, &stored, &["read".to_owned()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_on_a_full_disk_leaves_the_reserve() {
    let volume = Volume::new(80);
    let (dir, server, caller) = started(&volume).await;
    assert_eq!(caller.put("key-0", "v").await.status, 201);
    assert_eq!(server.stop().0, Some(0));
    let reserve = dir.join("sealpod.db.reserve");
    assert!(reserve.exists());
    volume.fill("other", 256 * KIB);
    // Beside the full volume: the file of the keys is on another one.
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), text(&run(&["key", "generate"]).stdout)).unwrap();
    let refused = Process::try_start(serve(&dir).env("SEALPOD_MASTER_KEY_FILE", keys.path()));
    let said = refused.err().expect("it started").log;
    assert!(said.contains("its reserve is given up to start at all"), "{said}");
    assert!(said.contains("the data is sealed under master key"), "{said}");
    assert_eq!(reserve.metadata().unwrap().len(), 8 * MIB, "{said}");
    let server = Process::start(&mut serve(&dir));
    assert_eq!(Caller::new(&server).get("key-0", "read").await.status, 200);
}

/// Waits until its readiness says nothing of the master keys any more.
async fn rotated(server: &Process) {
    server
        .wait_for(|status, text| status == 200 && !text.contains("master keys"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_on_a_full_disk_waits_for_room_and_holds_up_no_start() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(80);
        let (dir, server, caller) = started(&volume).await;
        assert_eq!(caller.put("key-0", "v").await.status, 201);
        assert_eq!(server.stop().0, Some(0));
        volume.fill("other", 0);
        let file = dir.join("master.key");
        let old = std::fs::read_to_string(&file).unwrap();
        let new = text(&run(&["key", "generate"]).stdout);
        // Beside the full volume: the file of the keys is on another one.
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), format!("{new}\n{old}")).unwrap();
        let server = Process::start(serve(&dir).env("SEALPOD_MASTER_KEY_FILE", keys.path()));
        let caller = Caller::new(&server);
        assert_eq!(caller.get("key-0", "read").await.status, 200);
        let (_, told) = server.readiness().await;
        assert!(told.contains("is not in use yet, because the disk is full"), "{told}");

        volume.free("other");
        rotated(&server).await;
        let listed = caller.call("GET", "/api/keys", "keys", Value::Null).await;
        assert_eq!(listed.status, 200, "{}", listed.text);
        assert_eq!(caller.put("key-0", "w").await.status, 200);
        drop(server);
        std::fs::copy(keys.path(), &file).unwrap();
        let on_record = maintain_copy(&dir, &["audit", "export", "--instance"]);
        assert_eq!(on_record.matches("\"key.rotate\"").count(), 1, "{on_record}");
    }
}
