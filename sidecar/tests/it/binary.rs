//! The program as the kubelet starts it.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sealpod_core::injection::SETTINGS_VARIABLE;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::fake::{Fake, KEY, secrets};
use crate::pod::{Pod, binding, eventually, questions, required};

fn command(pod: &Pod, argument: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
    command
        .arg(argument)
        .env_clear()
        .env(SETTINGS_VARIABLE, serde_json::to_string(&pod.config.settings).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(pod: &Pod, argument: &str) -> Child {
    command(pod, argument).spawn().unwrap()
}

async fn output(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap()
}

/// Whether the process has a handler for SIGTERM by now; without one it dies of it.
fn handles_termination(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (Signal::TERM.as_raw() - 1) != 0
}

/// SIGTERM; gives the exit code and how long that took.
async fn terminate(child: Child) -> (Option<i32>, Duration) {
    let before = Instant::now();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    let code = output(child).await.status.code();
    (code, before.elapsed())
}

#[tokio::test]
async fn sigterm_ends_run_within_a_second_in_the_middle_of_a_poll() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    let child = start(&pod, "run");
    pod.shows("a", Some("1")).await;
    eventually("the poll", || fake.seen().len() >= 2).await;
    let (code, took) = terminate(child).await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(
        pod.file("a").as_deref(),
        Some("1"),
        "the files stay for containers that stop later"
    );
}

#[tokio::test]
async fn sigterm_ends_init_within_a_second_while_the_server_is_away() {
    let fake = Fake::stopped(secrets([]));
    let pod = Pod::new(&fake.url());
    let child = start(&pod, "init");
    eventually("the signal to be handled", || handles_termination(&child)).await;
    let (code, took) = terminate(child).await;
    assert_eq!(code, Some(143));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn sigterm_ends_run_within_a_second_while_the_kubelet_waits_at_the_gate() {
    let fake = Fake::stopped(secrets([]));
    let mut pod = Pod::new(&fake.url());
    let port = crate::agent::port();
    pod.config.settings.health_port = Some(port);
    let child = start(&pod, "run");
    crate::gate::listening(port).await;
    let mut waiting = crate::gate::request(port).await;
    let mut answer = String::new();
    let early = tokio::time::timeout(Duration::from_millis(300), waiting.read_to_string(&mut answer)).await;
    assert!(early.is_err(), "{answer}");
    let (code, took) = terminate(child).await;
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503"),
        "it is told, and not left: {answer:?}"
    );
}

#[tokio::test]
async fn the_startup_probe_passes_when_the_files_are_there() {
    let fake = Fake::stopped(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    let mut probe = start(&pod, "wait");
    let run = start(&pod, "run");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(probe.try_wait().unwrap().is_none(), "it blocks");
    fake.up();
    assert_eq!(output(probe).await.status.code(), Some(0));
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    terminate(run).await;
    assert_eq!(
        output(start(&pod, "wait")).await.status.code(),
        Some(0),
        "also after a restart"
    );
}

/// The kernel's own words on a process.
fn kernel(child: &Child, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap()
}

#[tokio::test]
async fn it_is_one_thread_with_one_connection_and_leaves_no_core() {
    let fake = Fake::start(secrets([("a", "1")]));
    let pod = Pod::new(&fake.url());
    let child = start(&pod, "run");
    pod.shows("a", Some("1")).await;
    eventually("a report and a poll", || {
        !fake.reports().is_empty() && fake.seen().len() >= 2
    })
    .await;
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
    assert_eq!(threads, 1);
    // Number, local address, remote address, state, …, in hexadecimal; 01 is established.
    let remote = format!(":{:04X}", fake.address.port());
    let connections = kernel(&child, "net/tcp");
    let to_server = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&remote) && fields[3] == "01"
    };
    assert_eq!(connections.lines().filter(to_server).count(), 1, "{connections}");
    let limits = kernel(&child, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4], "0", "{core:?}");
    terminate(child).await;
}

/// The swap is killed at each of its steps in the tests of `publish`; this is the whole program, at any moment.
#[tokio::test]
async fn a_process_that_is_killed_at_any_moment_leaves_whole_files_that_the_next_one_goes_on_from() {
    const ROUNDS: u32 = 25;
    let of_round = |round: u32| {
        let text = round.to_string().repeat(2_000);
        secrets([("a", &text), ("b", &text), ("c", &text)])
    };
    let fake = Fake::start(of_round(0));
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    let data = pod.mount("db").join("..data");
    for round in 1..=ROUNDS {
        fake.answer(of_round(round));
        let mut child = start(&pod, "run");
        tokio::time::sleep(Duration::from_millis(u64::from(round % 13) * 7)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let files = ["a", "b", "c"].map(|name| std::fs::read(data.join(name)).unwrap());
        assert!(
            files[0] == files[1] && files[1] == files[2] && !files[0].is_empty(),
            "{round}"
        );
        assert!(pod.is_open(), "{round}: what was there once lets an app start");
    }
    let last = ROUNDS.to_string().repeat(2_000);
    let running = pod.start(sealpod_sidecar::agent::Until::Stopped);
    for name in ["a", "b", "c"] {
        pod.shows(name, Some(&last)).await;
    }
    eventually("what the killed ones left to go", || {
        let names = std::fs::read_dir(pod.mount("db")).unwrap();
        let names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.iter().filter(|name| name.starts_with("..2")).count() == 1
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn nothing_that_it_says_holds_a_value_or_the_key() {
    let fake = Fake::start(secrets([("a", "canary-value"), ("not/a/file", "canary-other")]));
    let pod = Pod::new(&fake.url());
    let child = command(&pod, "run")
        .env("SEALPOD_LOG", "trace")
        .env("SEALPOD_LOG_FORMAT", "json")
        .spawn()
        .unwrap();
    pod.shows("a", Some("canary-value")).await;
    fake.key("another");
    fake.answer(secrets([("a", "canary-2")]));
    questions(&fake, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    let output = output(child).await;
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("files written") && said.contains("not/a/file"), "{said}");
    assert!(said.contains("does not accept the credential"), "{said}");
    assert!(
        !said.contains("canary") && !said.contains(KEY) && !said.contains(&KEY[6..]),
        "{said}"
    );
    let env = format!("{:?}", std::fs::read_dir(pod.mount("db")).unwrap().collect::<Vec<_>>());
    assert!(!env.contains("canary"));
}

#[tokio::test]
async fn check_tells_what_would_be_fetched_and_shows_no_value() {
    let mut answer = secrets([("db/password", "canary")]);
    answer["missing"] = json!(["gone"]);
    let fake = Fake::start(answer);
    let entries = json!([{"name": "db/password", "path": "password", "optional": false}, required("gone")]);
    let pod = Pod::with(&fake.url(), &["db"], &binding(entries));
    let output = output(start(&pod, "check")).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(r#"password (440) <- "db/password", version 1"#), "{text}");
    assert!(text.contains(r#"wrong: "gone""#), "{text}");
    assert!(!text.contains("canary"));
    assert!(
        fake.seen()[0].query.contains("values=false"),
        "it does not even ask for one"
    );
    assert!(!pod.is_open(), "and it writes nothing");
}

#[tokio::test]
async fn bad_settings_end_it_with_every_fault() {
    let pod = Pod::with("nonsense", &["db"], &binding(Value::Null));
    let output = output(start(&pod, "run")).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("serverUrl"), "{text}");
}
