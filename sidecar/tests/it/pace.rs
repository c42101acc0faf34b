//! When the server is asked.

use std::time::{Duration, Instant};

use sealpod_sidecar::agent::Until;
use sealpod_sidecar::pace::Timing;
use serde_json::{Value, json};

use crate::fake::{Fake, Manner, secrets};
use crate::pod::{Pod, TIMING, binding, questions};

#[tokio::test]
async fn an_instant_304_makes_no_hot_loop() {
    let fake = Fake::start(secrets([("a", "1")]));
    fake.manner(Manner::Hasty);
    let pod = Pod::new(&fake.url());
    let timing = Timing {
        backoff: Duration::from_millis(500),
        backoff_cap: Duration::from_mins(1),
        ..TIMING
    };
    let running = pod.start_with(Until::Stopped, &timing);
    pod.shows("a", Some("1")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = fake.seen().len();
    assert!(asked < 15, "{asked} questions in 2 s");
    fake.manner(Manner::Proper);
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    running.stop().await;
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    for status in [429, 503] {
        let fake = Fake::start(secrets([("a", "1")]));
        fake.manner(Manner::Refusing(status, Some("1")));
        let pod = Pod::new(&fake.url());
        let init = pod.start(Until::Complete);
        questions(&fake, 1).await;
        fake.manner(Manner::Proper);
        assert!(init.ended().await);
        let seen = fake.seen();
        assert_eq!(seen.len(), 2, "{status}");
        assert!(seen[1].at - seen[0].at >= Duration::from_secs(1), "{status}");
    }
}

#[tokio::test]
async fn a_change_that_time_brings_is_asked_for_when_it_comes() {
    let mut answer = secrets([("a", "1")]);
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_200);
    answer["next_change_at"] = json!(soon.to_string());
    let fake = Fake::start(answer);
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    fake.manner(Manner::Sleepy);
    fake.answer(secrets([("a", "2")]));
    let before = Instant::now();
    pod.shows("a", Some("2")).await;
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "not only at the refresh of 30 s"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_change_announced_for_the_past_or_for_now_is_no_hot_loop() {
    let mut answer = secrets([("a", "1")]);
    answer["next_change_at"] = json!(jiff::Timestamp::now().to_string());
    let fake = Fake::start(answer);
    let mut file = binding(Value::Null);
    file["watch"] = json!(false);
    file["refreshInterval"] = json!(0);
    let pod = Pod::with(&fake.url(), &["db"], &file);
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = fake.seen().len();
    assert!(
        (2..=5).contains(&asked),
        "{asked} questions in 2 s at an interval of at least 0.8 s"
    );
    assert!(
        fake.seen().iter().all(|seen| !seen.query.contains("wait")),
        "it was told not to poll"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_update_arrives_soon_after_a_restart_of_the_server() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    // Without the exception for restarts, the first delay would be half a minute on average.
    let timing = Timing {
        backoff: Duration::from_mins(1),
        backoff_cap: Duration::from_mins(1),
        restart_cap: Timing::default().restart_cap,
        ..TIMING
    };
    let running = pod.start_with(Until::Stopped, &timing);
    pod.shows("a", Some("1")).await;
    questions(&fake, 0).await;
    fake.down().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    fake.answer(secrets([("a", "2")]));
    fake.up();
    let before = Instant::now();
    pod.shows("a", Some("2")).await;
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    running.stop().await;
}
