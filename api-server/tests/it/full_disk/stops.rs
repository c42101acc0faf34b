//! A server that is stopped on a full disk.

use super::{Caller, KIB, MIB, Stored, check, started, write_until_full};
use crate::process::{Process, serve};
use crate::shim::rounds;
use crate::volume::{Volume, available};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_on_a_full_disk_leaves_the_room_of_its_reserve_to_the_next_one() {
    for _ in 0..rounds(1) {
        let volume = Volume::new(96);
        let (dir, server, caller) = started(&volume).await;
        // While somebody reads, what is written stays in the log: the database would grow by all of it.
        let reader = rusqlite::Connection::open(dir.join("sealpod.db")).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").unwrap();
        for n in 0..120 {
            let put = caller.put("long", &format!("{n} {}", "v".repeat(100_000))).await;
            assert!(matches!(put.status, 200 | 201), "{}", put.text);
        }
        let mut stored = Stored::new();
        volume.fill("other", 2 * MIB);
        write_until_full(&server, 0, &mut stored).await;
        server
            .wait_for(|status, text| status == 503 && text.contains("no changes are made"))
            .await;
        drop(reader);
        assert_eq!(server.stop().0, Some(0));
        assert!(available(&dir) > 4 * MIB, "{} KiB are left", available(&dir) / KIB);

        let server = Process::start(&mut serve(&dir));
        let caller = Caller::new(&server);
        for n in 0..200 {
            let read = caller.get("key-0", &format!("read-{n}")).await;
            assert_eq!(read.status, 200, "{n}: {}", read.text);
        }
        volume.free("other");
        server.wait_for(|status, _| status == 200).await;
        check(&caller, &dir, &stored, &["read-199".to_owned()]).await;
    }
}
