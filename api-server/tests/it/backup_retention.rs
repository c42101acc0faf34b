//! What the schedule takes away of all that stands where the backups go.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use sealpod_api_server::backup::schedule::{self, Schedule};
use sealpod_api_server::backup::{Backups, Settings};
use sealpod_api_server::store::{Options, Store};
use sealpod_core::Time;
use sealpod_core::wire::backups::{Backup, Trigger};
use serde_json::json;
use uuid::Uuid;

use crate::backups::files;
use crate::retention::{backups, is_hours_old, later, place};
use crate::store_support::{Fixture, by, keyring};

/// Each turn is due.
const SCHEDULE: Schedule = Schedule {
    hours: 0,
    daily_days: 7,
    weekly_weeks: 4,
};

pub async fn turn_and_clear(backups: &Backups, schedule: Schedule, store: &Store, clock: impl Fn() -> Time) {
    schedule::turn(backups, schedule, store, &clock, |_| {}).await.unwrap();
    schedule::clear(backups, Some(schedule), store, clock).await.unwrap();
}

/// A backup that was made so many days ago, by its file.
async fn made(kept: &Path, (backups, store): (&Backups, &Store), trigger: Trigger, days: u32) -> String {
    let mut made = backups.create(store, trigger, by()).await.unwrap();
    made.created_at = Time::now().plus_seconds(-i64::from(days) * 24 * 3_600);
    let known = kept.join(format!("{}.json", made.filename));
    fs::write(&known, serde_json::to_vec(&made).unwrap()).unwrap();
    for file in [known, kept.join(&made.filename)] {
        is_hours_old(&file, u64::from(days) * 24);
    }
    made.filename
}

/// As if this one had been made so many days ago.
fn is_made_days_ago(kept: &Path, made: &Backup, days: u32) {
    let known = kept.join(format!("{}.json", made.filename));
    let mut of: serde_json::Value = serde_json::from_slice(&fs::read(&known).unwrap()).unwrap();
    of["created_at"] = json!(Time::now().plus_seconds(-i64::from(days) * 24 * 3_600));
    fs::write(&known, of.to_string()).unwrap();
}

#[tokio::test]
async fn of_two_servers_with_one_place_each_makes_and_removes_its_own_backups() {
    const DAILY: Schedule = Schedule { hours: 24, ..SCHEDULE };
    let fixture = Fixture::new().await;
    let (store, folder) = (&fixture.store, fixture.folder.path());
    let kept = folder.join("backups");
    let production = backups(folder, Some(place(folder)));
    let create = async |backups: &Backups, store: &Store, days| {
        let made = backups.create(store, Trigger::Schedule, by()).await.unwrap();
        is_made_days_ago(&kept, &made, days);
        made.id
    };
    let (old, newest) = (
        create(&production, store, 400).await,
        create(&production, store, 2).await,
    );
    // A drill: what was restored, with all that production's server is started with.
    let restored = production.restore(store, newest, by()).await.unwrap().path;
    let theirs = Store::open(&Options::new(&restored), &keyring()).unwrap();
    assert_ne!(theirs.epoch(), store.epoch());
    let settings = Settings {
        storage: Some(place(folder)),
        recipients: Vec::new(),
    };
    let drill = Backups::new(settings, restored, keyring());
    let told = Mutex::new(Vec::new());
    let turn = async |backups: &Backups, store: &Store| {
        let tell = |newest: Option<Time>| told.lock().unwrap().push(newest.is_some());
        schedule::turn(backups, DAILY, store, Time::now, tell).await.unwrap();
        schedule::clear(backups, Some(DAILY), store, Time::now).await.unwrap();
        let listed: BTreeSet<_> = backups.list().await.unwrap().iter().map(|made| made.id).collect();
        (listed.contains(&old), listed.len())
    };
    // It has none of its own, makes one, and takes nothing of production's.
    assert_eq!(turn(&drill, &theirs).await, (true, 3));
    assert_eq!(*told.lock().unwrap(), [false, true]);
    let ancient = create(&drill, &theirs, 500).await;
    // Which keeps production from nothing: it makes one, and takes the old one of its own.
    assert_eq!(turn(&production, store).await, (false, 4));
    let left: Vec<_> = production.list().await.unwrap().iter().map(|made| made.id).collect();
    assert!(left.contains(&ancient) && left.contains(&newest));
    // All of them are under this key, and so is the copy that the drill is on.
    let needed = BTreeMap::from([(keyring().current(), 5)]);
    assert_eq!(production.by_key().await.ok(), Some(needed));
}

#[tokio::test]
async fn the_schedule_takes_away_what_is_not_kept_any_more_and_what_belongs_to_nothing_and_no_archive_else() {
    let fixture = Fixture::new().await;
    let (store, kept) = (&fixture.store, fixture.folder.path().join("backups"));
    let backups = backups(fixture.folder.path(), Some(place(fixture.folder.path())));
    store.judged_time(Time::now(), Instant::now()).await.unwrap();
    let of = (&backups, store);
    let expired = made(&kept, of, Trigger::Schedule, 400).await;
    let lone = made(&kept, of, Trigger::Manual, 400).await;
    let scheduled_lone = made(&kept, of, Trigger::Schedule, 400).await;
    for lost in [&lone, &scheduled_lone] {
        fs::remove_file(kept.join(format!("{lost}.json"))).unwrap();
    }
    // The server went before it had opened this one again.
    let unproven = made(&kept, of, Trigger::Manual, 400).await;
    let mark = format!("{unproven}.json.partial");
    fs::rename(kept.join(format!("{unproven}.json")), kept.join(&mark)).unwrap();
    assert_eq!(files(&kept).iter().filter(|name| name.ends_with(".partial")).count(), 1);
    made(&kept, of, Trigger::Schedule, 1).await;
    made(&kept, of, Trigger::Manual, 400).await;
    made(&kept, of, Trigger::Command, 400).await;
    let name = |end: &str| format!("sealpod-20251122T000000Z-{}{end}", Uuid::now_v7());
    let write = |name: String, days: u64| {
        fs::write(kept.join(&name), "no archive").unwrap();
        is_hours_old(&kept.join(&name), days * 24);
        name
    };
    let left = [write(name(".backup.partial"), 2), write(name(".backup"), 2)];
    // Somebody's who is at work, of another kind, and what people put there.
    write(name(".backup.partial"), 0);
    write(name(".backup"), 0);
    write(name(".audit.partial"), 2);
    write("sealpod-before-the-move.backup".to_owned(), 2);
    write("notes.txt".to_owned(), 2);
    // All seven, and the two that may become one.
    let needed = BTreeMap::from([(keyring().current(), 9)]);
    assert_eq!(backups.by_key().await.ok(), Some(needed));

    let turn = async |gone: &[&String], clock: fn() -> Time| {
        let before: BTreeSet<_> = files(&kept).into_iter().collect();
        turn_and_clear(&backups, SCHEDULE, store, clock).await;
        let now: BTreeSet<_> = files(&kept).into_iter().collect();
        assert_eq!(before.difference(&now).collect::<Vec<_>>(), gone);
        assert_eq!(now.difference(&before).count(), 2, "it made none");
    };
    let known = format!("{expired}.json");
    let mut gone = vec![&expired, &known, &left[0], &left[1], &unproven, &mark];
    gone.sort();
    turn(&gone, Time::now).await;
    turn(&[], Time::now).await;
    // A clock that is set forward makes nothing older at once.
    turn(&[], || later(3_650)).await;
}
