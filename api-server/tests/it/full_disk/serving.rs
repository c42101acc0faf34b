//! What a server does that meets a full disk.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Caller, MIB, O, Stored, check, maintain_copy, page, started, write_until_full};
use crate::process::{PATIENCE, Process};
use crate::shim::rounds;
use crate::volume::Volume;

/// So often at the most there may be room again for a while where there is none beside it, should the log begin anew in the room
/// that its own file has (ADR 23). On an idle machine it does not.
const LAPS: usize = 2;

/// Reads until that is refused; answers what was on record by then.
async fn use_up(caller: Caller, id: String) -> Vec<String> {
    let mut reads = Vec::new();
    loop {
        let id = format!("{id}-{}", reads.len());
        let read = caller.get("key-3", &id).await;
        if read.status != 200 {
            assert_eq!((read.status, &read.code), (503, &json!("disk_full")), "{}", read.text);
            return reads;
        }
        reads.push(id);
        assert!(reads.len() < 20_000, "room was found where there is none");
    }
}

/// Uses the reserve up; answers what was read until then.
async fn nothing_is_left(server: &Process, caller: &Caller) -> Vec<String> {
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8 {
        readers.spawn(use_up(Caller::new(server), format!("last-{reader}")));
    }
    let mut reads: Vec<_> = readers.join_all().await.into_iter().flatten().collect();
    let (mut laps, since) = (0, Instant::now());
    let refused = loop {
        let late = use_up(Caller::new(server), format!("late-{}", reads.len())).await;
        let refused = caller.get("key-3", "refused").await;
        laps += usize::from(!late.is_empty() || refused.status == 200);
        assert!(laps <= LAPS, "room was found where there is none: {refused:?}");
        reads.extend(late);
        let (status, text) = server.readiness().await;
        if refused.status != 200 && status == 503 && text.contains("records: ") {
            break refused;
        }
        assert!(
            since.elapsed() < PATIENCE,
            "{status}: {text}, while a read is {refused:?}"
        );
    };
    assert_eq!(
        (refused.status, &refused.code),
        (503, &json!("disk_full")),
        "{}",
        refused.text
    );
    assert!(page().contains("503 `disk_full`"));
    assert!(refused.retries && !refused.text.contains("vvv"), "{}", refused.text);
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_changes_answers_reads_from_its_reserve_and_heals() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(80);
        let (dir, server, caller) = started(&volume).await;
        let reserve = dir.join("sealpod.db.reserve");
        assert!(page().contains(&format!(
            "`sealpod.db.reserve`, {} MiB",
            reserve.metadata().unwrap().len() / MIB
        )));
        let (mut stored, mut reads) = (Stored::new(), Vec::new());
        let ((account, _), (_, stranger)) = (caller.account("to-be-revoked").await, caller.account("stranger").await);
        for round in 0..2 {
            volume.fill("other", 3 * MIB);
            write_until_full(&server, round, &mut stored).await;

            // 1. Changes are refused, with the reserve given up; the probe says so.
            assert!(!reserve.exists());
            let probed = server
                .wait_for(|status, text| status == 503 && text.contains("writes:"))
                .await;
            assert!(page().contains("`/readyz` is red"), "{probed}");
            assert!(
                probed.contains("the disk is full: no changes are made") && !probed.contains("records:"),
                "{probed}"
            );
            for n in 0..5 {
                let refused = caller.put("key-0", "small").await;
                assert_eq!((refused.status, &refused.code), (507, &json!("disk_full")), "{n}");
            }
            assert!(page().contains("507 `disk_full`"));

            // 2. Values are given out, refusals kept, and access is taken away.
            assert!(page().contains("Reads of values, refusals, deletions and revocations go on"));
            let value = &stored.last_key_value().unwrap().1[..8];
            for n in 0..50 {
                let id = format!("read-{round}-{n}");
                let read = caller.get("key-3", &id).await;
                assert_eq!(read.status, 200, "{n}: {}", read.text);
                assert!(read.text.contains(value), "{}", &read.text[..200]);
                reads.push(id);
            }
            let id = format!("denied-{round}");
            assert_eq!(caller.denied(&stranger, &id).await.status, 403);
            if round == 0 {
                reads.push(id);
                let path = format!("{O}/service-accounts/{account}");
                assert_eq!(caller.call("DELETE", &path, "revoked", Value::Null).await.status, 204);
                reads.push("revoked".to_owned());
            }

            // 3. Nothing at all is left: no value is given out that cannot be put on record.
            if round == 0 {
                volume.fill("rest", 0);
                reads.extend(nothing_is_left(&server, &caller).await);
                volume.free("rest");
            }

            // 4. Room returns: it finds out by itself.
            volume.free("other");
            server
                .wait_for(|status, text| status == 200 && text.starts_with("ok"))
                .await;
            assert!(reserve.exists());
            let put = caller.put(&format!("after-{round}"), "v").await;
            assert_eq!(put.status, 201, "{}", put.text);
        }
        check(&caller, &dir, &stored, &reads).await;
        assert!(maintain_copy(&dir, &["audit", "verify"]).contains("ok"));
        assert!(stored.len() > 20, "hardly anything was written: {}", stored.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_without_room_for_a_reserve_is_warned_of_and_fails_closed() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(16);
        let (dir, server, caller) = started(&volume).await;
        volume.fill("other", 10 * MIB);
        let warned = server.wait_for(|_, text| text.contains("warning: reserve")).await;
        assert!(warned.starts_with("ok") && warned.contains("too small"), "{warned}");
        assert!(page().contains("64 MiB"));
        assert!(!dir.join("sealpod.db.reserve").exists());
        let mut stored = Stored::new();
        write_until_full(&server, 0, &mut stored).await;
        volume.fill("rest", 0);
        let (mut reads, mut laps) = (Vec::new(), 0);
        loop {
            reads.extend(use_up(Caller::new(&server), format!("read-{}", reads.len())).await);
            let put = caller.put("key-0", "small").await;
            if put.status == 200 {
                let body: Value = serde_json::from_str(&put.text).unwrap();
                let version = body["version"].as_u64().unwrap();
                stored.insert(("key-0".to_owned(), version), "small".to_owned());
                laps += 1;
                assert!(laps <= LAPS, "room was found where there is none");
                continue;
            }
            assert_eq!((put.status, &put.code), (507, &json!("disk_full")), "{}", put.text);
            break;
        }
        server
            .wait_for(|status, text| status == 503 && text.contains("writes:"))
            .await;
        volume.free("rest");
        volume.free("other");
        server.wait_for(|status, _| status == 200).await;
        check(&caller, &dir, &stored, &reads).await;
        assert_eq!(caller.put("key-0", "small").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_makes_room_on_a_full_disk_by_itself() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(80);
        let (dir, server, caller) = started(&volume).await;
        volume.fill("other", 30 * MIB);
        let mut stored = Stored::new();
        write_until_full(&server, 0, &mut stored).await;
        assert!(!dir.join("sealpod.db.reserve").exists());
        for key in ["key-1", "key-2", "key-3"] {
            let path = format!("{O}/projects/shop/envs/prod/secrets/{key}?purge=true");
            let purged = caller.call("DELETE", &path, "purge", Value::Null).await;
            assert_eq!(purged.status, 204, "{}", purged.text);
            stored.retain(|(name, _), _| name != key);
        }
        assert!(page().contains("purged makes room"));
        // What `/readyz` says may still be of before the disk was full.
        let reserve = dir.join("sealpod.db.reserve");
        server.wait_for(|status, _| status == 200 && reserve.exists()).await;
        assert_eq!(caller.put("after", "v").await.status, 201);
        assert_eq!(maintain_copy(&dir, &["audit", "verify"]).matches(": ok").count(), 2);
    }
}
