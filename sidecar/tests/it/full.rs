//! Volumes that are full, and a state beside the files that cannot be written.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};

use crate::agent::{ask, port};
use crate::fake::{Fake, secrets};
use crate::notify::{app, calls};
use crate::pod::{Pod, binding, eventually, passed_over, questions};
use crate::stale::readyz;

const STATE: &str = "..sealpod-state";

/// A pod with one binding of all keys that is refreshed each second, whose app is told of changes; and its health port.
async fn told() -> (Fake, Pod, u16, Arc<Mutex<Vec<String>>>) {
    let (app, told) = app(&[200]).await;
    let fake = Fake::start(secrets([("a", "1")]));
    let mut file = calls(Value::Null, app);
    file["refreshInterval"] = json!(1);
    let mut pod = Pod::with(&fake.url(), &["db"], &file);
    let health = port();
    pod.config.settings.health_port = Some(health);
    (fake, pod, health, told)
}

/// The `etag` that the state beside the files vouches for.
fn stated(pod: &Pod) -> Option<String> {
    let text = fs::read(pod.mount("db").join(STATE)).ok()?;
    let state: Value = serde_json::from_slice(&text).ok()?;
    state["etag"].as_str().map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_state_that_cannot_be_written_holds_up_neither_the_files_nor_the_news() {
    let (fake, pod, health, told) = told().await;
    let running = pod.start(Until::Stopped);
    eventually("the state", || stated(&pod).as_deref() == Some("e1")).await;
    let obstacle = pod.mount("db").join(format!("{STATE}.tmp"));
    fs::create_dir(&obstacle).unwrap();
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    eventually("the news", || told.lock().unwrap().len() == 1).await;
    readyz(health, 200, "warning: db: the state beside the files cannot be written").await;
    questions(&fake, 2).await;
    assert_eq!(
        fake.seen().last().unwrap().etag.as_deref(),
        Some("e2"),
        "the files are good"
    );
    let metrics = ask(health, "/metrics").await;
    assert!(!metrics.contains("unwritable"), "{metrics}");
    assert_eq!(stated(&pod).as_deref(), Some("e1"));
    fs::remove_dir(&obstacle).unwrap();
    eventually("the state", || stated(&pod).as_deref() == Some("e2")).await;
    readyz(health, 200, "\r\n\r\nok\n").await;
    assert_eq!(told.lock().unwrap().len(), 1, "once");
    running.stop().await;
}

#[tokio::test]
async fn large_templates_are_no_part_of_the_state() {
    let fake = Fake::start(secrets([("a", "1")]));
    let template = format!("{{# {} #}}{{{{ secrets.a }}}}", "x".repeat(60_000));
    let files = (0..12).map(|n| json!({"path": format!("f{n}"), "template": template}));
    let mut file = binding(Value::Null);
    file["files"] = files.collect();
    let mut pod = Pod::with(&fake.url(), &["db"], &file);
    pod.config.settings.bindings[0].size_limit = 192 * 1024;
    assert!(pod.init().await);
    let state = fs::metadata(pod.mount("db").join(STATE)).unwrap().len();
    assert!(state < 1024, "{state} bytes beside files of a few");
    let running = pod.start(Until::Stopped);
    questions(&fake, 1).await;
    assert_eq!(
        fake.seen()[1].etag.as_deref(),
        Some("e1"),
        "and they are the same settings"
    );
    running.stop().await;
}

/// A tmpfs of so many pages, until the end of a test.
struct Volume(PathBuf);

impl Volume {
    fn mount(path: PathBuf, pages: usize) -> Option<Self> {
        let size = format!("size={}k", pages * 4);
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&path).output();
        done.is_ok_and(|done| done.status.success()).then_some(Self(path))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_volume_that_is_full_behind_the_swap_or_before_it_heals_by_itself() {
    let (fake, pod, health, told) = told().await;
    // The old file, its state and the new file: no page is left for the new state while the old file stays.
    let Some(_volume) = Volume::mount(pod.mount("db"), 3) else {
        return passed_over("a tmpfs of its own takes root");
    };
    let timing = sealpod_sidecar::pace::Timing {
        grace: Duration::from_secs(2),
        ..crate::pod::TIMING
    };
    let running = pod.start_with(Until::Stopped, &timing);
    eventually("the state", || stated(&pod).as_deref() == Some("e1")).await;
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    readyz(health, 200, "warning: db: the state beside the files cannot be written").await;
    assert_eq!(stated(&pod).as_deref(), Some("e1"));
    eventually("the state", || stated(&pod).as_deref() == Some("e2")).await;
    eventually("the news", || told.lock().unwrap().len() == 1).await;

    fake.answer(secrets([("a", &"x".repeat(9_000))]));
    readyz(
        health,
        200,
        "the files cannot be written; the old ones stay: cannot write a file",
    )
    .await;
    assert_eq!(pod.file("a").as_deref(), Some("2"));
    fake.answer(secrets([("a", "3")]));
    pod.shows("a", Some("3")).await;
    eventually("the news", || told.lock().unwrap().len() == 2).await;
    running.stop().await;
}
