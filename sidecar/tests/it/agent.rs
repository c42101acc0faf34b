//! From key Secret and server to files.

use std::fs;
use std::time::{Duration, Instant};

use sealpod_core::paths::FilePath;
use sealpod_sidecar::agent::Until;
use sealpod_sidecar::publish::{Content, File, FileSet, Publisher};
use serde_json::{Value, json};

use crate::fake::{Fake, KEY, Manner, bound, secrets};
use crate::pod::{Pod, binding, eventually, questions, required};

#[tokio::test]
async fn init_writes_the_files_and_run_goes_on_without_a_second_fetch() {
    let fake = Fake::start(secrets([("password", "one"), ("user", "app")]));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    assert_eq!(
        (pod.file("password").as_deref(), pod.file("user").as_deref()),
        (Some("one"), Some("app"))
    );
    assert!(pod.is_open());
    assert_eq!(fake.seen().len(), 1);

    let running = pod.start(Until::Stopped);
    eventually("the first poll", || fake.seen().len() == 2).await;
    let poll = &fake.seen()[1];
    assert_eq!(poll.etag.as_deref(), Some("e1"));
    assert!(poll.query.starts_with("wait="), "{}", poll.query);
    assert!(running.stop().await);
}

#[tokio::test]
async fn an_update_arrives_in_the_running_pod() {
    let fake = Fake::start(secrets([("password", "one"), ("old", "x")]));
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("password", Some("one")).await;
    questions(&fake, 0).await;
    let before = Instant::now();
    fake.answer(secrets([("password", "two"), ("new", "y")]));
    pod.shows("password", Some("two")).await;
    assert!(before.elapsed() < Duration::from_secs(2));
    assert_eq!((pod.file("new").as_deref(), pod.file("old")), (Some("y"), None));
    running.stop().await;
}

#[tokio::test]
async fn pods_that_start_while_the_server_is_away_wait_for_it() {
    let fake = Fake::stopped(secrets([("password", "one")]));
    let pod = Pod::new(&fake.url());
    let init = pod.start(Until::Complete);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(init.is_running() && !pod.is_open());
    fake.up();
    assert!(init.ended().await);
    assert_eq!(pod.file("password").as_deref(), Some("one"));
}

#[tokio::test]
async fn init_that_is_stopped_before_the_files_are_there_does_not_report_success() {
    let fake = Fake::stopped(secrets([]));
    let pod = Pod::new(&fake.url());
    let init = pod.start(Until::Complete);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = Instant::now();
    assert!(!init.stop().await, "the app must not start");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_the_files_alone() {
    let fake = Fake::start(secrets([("password", "one")]));
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("password", Some("one")).await;
    fake.down().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.is_running());
    assert_eq!(pod.file("password").as_deref(), Some("one"));
    for status in [500, 503, 404, 403, 401] {
        fake.manner(Manner::Refusing(status, None));
        if status == 500 {
            fake.up();
        }
        questions(&fake, 2).await;
        assert_eq!(pod.file("password").as_deref(), Some("one"), "{status}");
    }
    fake.manner(Manner::Proper);
    fake.answer(secrets([("password", "two")]));
    pod.shows("password", Some("two")).await;
    running.stop().await;
}

#[tokio::test]
async fn init_with_files_of_an_earlier_run_does_not_wait_for_an_absent_server() {
    let fake = Fake::start(secrets([("password", "one")]));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    fake.down().await;
    assert!(
        pod.init().await,
        "a restarted init container goes on with the last good files"
    );
    fake.up();
    fake.answer(secrets([("password", "two")]));
    assert!(pod.init().await);
    assert_eq!(pod.file("password").as_deref(), Some("two"), "but asks once");
}

#[tokio::test]
async fn init_that_runs_again_over_files_that_are_current_ends_at_once() {
    let fake = Fake::start(secrets([("password", "one")]));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    // The refresh is half a minute away; this would end behind it.
    assert!(pod.init().await);
    let seen = fake.seen();
    assert_eq!((seen.len(), seen[1].etag.as_deref()), (2, Some("e1")));
    assert!(!seen[1].query.contains("wait"), "{}", seen[1].query);
}

#[tokio::test]
async fn a_rotated_key_is_used_without_a_restart() {
    let fake = Fake::start(secrets([("password", "one")]));
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("password", Some("one")).await;
    let next = KEY.replace('0', "f");
    fake.key(&next);
    fake.answer(secrets([("password", "two")]));
    questions(&fake, 2).await;
    assert_eq!(pod.file("password").as_deref(), Some("one"), "401 removes nothing");
    pod.write_key("db", &format!("{next}\n"), None, &binding(Value::Null));
    pod.shows("password", Some("two")).await;
    assert_eq!(fake.seen().last().unwrap().key, next);
    running.stop().await;
}

#[tokio::test]
async fn an_edited_binding_reaches_the_running_pod() {
    let fake = Fake::start(secrets([("a", "1"), ("b", "2")]));
    let pod = Pod::with(&fake.url(), &["db"], &binding(json!([required("a")])));
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    assert_eq!((pod.file("b"), fake.seen()[0].query.as_str()), (None, "key=a"));
    let mut edited = binding(json!([{"name": "b", "path": "deep/b", "optional": false}]));
    edited["project"] = json!("other");
    pod.write_key("db", KEY, None, &edited);
    pod.shows("deep/b", Some("2")).await;
    assert_eq!(pod.file("a"), None);
    let seen = fake.seen();
    let fetch = seen.iter().find(|seen| seen.project == "other").unwrap();
    assert_eq!(
        (fetch.query.as_str(), fetch.etag.as_deref()),
        ("key=b", None),
        "a new question has no old answer"
    );

    // One that nobody can read changes nothing, and is got over.
    pod.write_key("db", KEY, None, &json!({"organization": 1}));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pod.file("deep/b").as_deref(), Some("2"));
    pod.write_key("db", KEY, None, &binding(json!([required("a")])));
    pod.shows("a", Some("1")).await;
    running.stop().await;
}

#[tokio::test]
async fn the_gate_opens_when_every_required_file_is_there() {
    let mut partial = secrets([("there", "1")]);
    partial["missing"] = json!(["late"]);
    partial["denied"] = json!(["maybe"]);
    let fake = Fake::start(partial.clone());
    let entries = json!([required("there"), required("late"), {"name": "maybe", "optional": true}]);
    let pod = Pod::with(&fake.url(), &["db"], &binding(entries));
    let init = pod.start(Until::Complete);
    questions(&fake, 2).await;
    assert!(init.is_running() && !pod.is_open());
    fake.answer(secrets([("there", "1"), ("late", "2"), ("maybe", "3")]));
    assert!(init.ended().await);
    assert!(pod.is_open());
    assert_eq!(
        (pod.file("late").as_deref(), pod.file("maybe").as_deref()),
        (Some("2"), Some("3"))
    );

    // Later, a required one that goes keeps its file; an optional one loses it; the others still change.
    let running = pod.start(Until::Stopped);
    partial["secrets"]["there"]["value"] = json!("new");
    fake.answer(partial);
    pod.shows("there", Some("new")).await;
    assert_eq!((pod.file("late").as_deref(), pod.file("maybe")), (Some("2"), None));
    assert!(pod.is_open());
    running.stop().await;
}

#[tokio::test]
async fn files_that_somebody_removes_come_back() {
    let fake = Fake::start(secrets([("a", "1")]));
    let mut file = binding(Value::Null);
    file["refreshInterval"] = json!(1);
    let pod = Pod::with(&fake.url(), &["db"], &file);
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    fs::remove_file(pod.mount("db").join("..data/a")).unwrap();
    pod.shows("a", Some("1")).await;
    running.stop().await;
    // Between two processes a link is missed.
    fs::remove_file(pod.mount("db").join("a")).unwrap();
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_set_that_was_half_written_does_not_outlive_the_return_of_the_former_state() {
    let first = secrets([("a", "1")]);
    let fake = Fake::start(first.clone());
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    // No link can be put over it: the swap is done, and then writing fails.
    fs::create_dir(pod.mount("db").join("b")).unwrap();
    fake.answer(secrets([("a", "2"), ("b", "2")]));
    pod.shows("a", Some("2")).await;
    fake.back_to(1, first);
    pod.shows("a", Some("1")).await;
    running.stop().await;
}

#[tokio::test]
async fn files_of_a_process_that_was_killed_before_it_vouched_for_them_are_not_believed() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let path: FilePath = "a".parse().unwrap();
    let write = vec![File {
        path,
        mode: 0o440,
        content: Content(b"of a state that is gone".to_vec().into()),
    }];
    let mut killed = Publisher::open(&pod.mount("db"), 1 << 20, Duration::ZERO).unwrap();
    killed.publish(FileSet { write, keep: vec![] }).unwrap();
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_that_waits_is_not_kept_waiting_by_a_long_interval() {
    let mut partial = secrets([]);
    partial["missing"] = json!(["late"]);
    let fake = Fake::start(partial);
    let mut file = binding(json!([required("late")]));
    file["watch"] = json!(false);
    file["refreshInterval"] = json!(3600);
    let pod = Pod::with(&fake.url(), &["db"], &file);
    let init = pod.start(Until::Complete);
    questions(&fake, 1).await;
    fake.answer(secrets([("late", "1")]));
    assert!(init.ended().await);
    assert_eq!(pod.file("late").as_deref(), Some("1"));
}

#[tokio::test]
async fn hostile_names_stay_outside() {
    let fake = Fake::start(secrets([
        ("../../escape", "x"),
        ("..data", "x"),
        ("/abs", "x"),
        ("a/b", "x"),
        ("fine", "1"),
    ]));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    let names: Vec<_> = fs::read_dir(pod.mount("db"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".."))
        .collect();
    assert_eq!(names, ["fine"]);
    assert!(!pod.mount("db").join("../../escape").exists());
}

#[tokio::test]
async fn a_set_that_does_not_fit_leaves_the_old_one() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    fake.answer(secrets([("a", "2"), ("large", &"x".repeat(700_000))]));
    questions(&fake, 2).await;
    assert_eq!((pod.file("a").as_deref(), pod.file("large")), (Some("1"), None));
    fake.answer(secrets([("a", "3")]));
    pod.shows("a", Some("3")).await;
    running.stop().await;
}

#[tokio::test]
async fn one_binding_does_not_wait_for_another() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::with(&fake.url(), &["db", "mail"], &binding(Value::Null));
    pod.write_key("mail", "cr_sa_wrong", None, &binding(Value::Null));
    let running = pod.start(Until::Complete);
    pod.shows("a", Some("1")).await;
    assert!(pod.is_open() && running.is_running(), "the pod waits for both");
    pod.write_key("mail", KEY, None, &binding(Value::Null));
    assert!(running.ended().await);
    assert_eq!(fs::read_to_string(pod.mount("mail").join("a")).unwrap(), "1");
}

#[tokio::test]
async fn probes_and_metrics_follow_the_files() {
    let fake = Fake::stopped(secrets([("a", "canary")]));
    let port = port();
    let mut pod = Pod::new(&fake.url());
    pod.config.settings.health_port = Some(port);
    let running = pod.start(Until::Stopped);
    eventually("the health port", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    assert!(ask(port, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(ask(port, "/readyz").await.starts_with("HTTP/1.1 503"));
    fake.up();
    pod.shows("a", Some("canary")).await;
    assert!(ask(port, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = ask(port, "/metrics").await;
    assert!(
        metrics.contains(r#"sealpod_sidecar_secret_age_seconds{binding="db"} "#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"sealpod_sidecar_fetch_total{binding="db",result="updated"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains("canary"));
    fake.down().await;
    assert!(
        ask(port, "/readyz").await.starts_with("HTTP/1.1 200"),
        "an outage takes no app out of service"
    );
    running.stop().await;
}

/// One that nobody listens on, and nobody else is given.
pub fn port() -> u16 {
    let place = bound("127.0.0.1:0".parse().unwrap());
    let port = place.local_addr().unwrap().port();
    // For as long as the tests run.
    std::mem::forget(place);
    port
}

/// The whole answer; empty where nobody answers.
pub async fn ask(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_replaced_ca_is_trusted_without_a_restart() {
    let fake = Fake::stopped(secrets([("a", "1")]));
    let old = fake.up_with_tls();
    let pod = Pod::new(&format!("https://localhost:{}", fake.address.port()));
    pod.write_key("db", KEY, Some(&old), &binding(Value::Null));
    let running = pod.start(Until::Stopped);
    pod.shows("a", Some("1")).await;
    fake.down().await;
    fake.answer(secrets([("a", "2")]));
    let new = fake.up_with_tls();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        pod.file("a").as_deref(),
        Some("1"),
        "a stranger's certificate is not believed"
    );
    pod.write_key("db", KEY, Some(&format!("{old}{new}")), &binding(Value::Null));
    pod.shows("a", Some("2")).await;
    running.stop().await;
}
