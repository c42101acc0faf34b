//! Networks that lose packets, and clocks that jump: with programs of the system, and passed over where these are missing.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealpod_core::injection::SETTINGS_VARIABLE;
use serde_json::{Value, json};

use crate::fake::{Fake, secrets};
use crate::pod::{Pod, binding, passed_over, questions};

/// Ended with the test, however that ends.
struct Sidecar(Child);

impl Sidecar {
    fn start(pod: &Pod, mut command: Command) -> Self {
        command
            .env(SETTINGS_VARIABLE, serde_json::to_string(&pod.config.settings).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace with one cable to this one.
struct Network(String);

impl Network {
    /// None where this process may not make one, or has no tools for it.
    fn new(host: &str, inside: &str) -> Option<Self> {
        let name = format!("sp{}", std::process::id());
        let network = Self(name.clone());
        let (near, far) = (format!("{name}a"), format!("{name}b"));
        let made = run("ip", &["netns", "add", &name])
            && run("ip", &["link", "add", &near, "type", "veth", "peer", "name", &far])
            && run("ip", &["link", "set", &far, "netns", &name])
            && run("ip", &["address", "add", &format!("{host}/30"), "dev", &near])
            && run("ip", &["link", "set", &near, "up"])
            && network.inside("ip", &["address", "add", &format!("{inside}/30"), "dev", &far])
            && network.inside("ip", &["link", "set", &far, "up"])
            && network.inside("ip", &["link", "set", "lo", "up"])
            && network.inside("iptables", &["-L", "-n"]);
        made.then_some(network)
    }

    fn inside(&self, program: &str, arguments: &[&str]) -> bool {
        run("ip", &[&["netns", "exec", &self.0, program], arguments].concat())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words);
        command
    }

    /// Every packet is lost without a word, or every so many-th.
    fn lose(&self, every: Option<u32>) {
        for chain in ["INPUT", "OUTPUT"] {
            let every = every.map(|every| every.to_string());
            let mut rule = vec!["-A", chain, "!", "-o", "lo", "-j", "DROP"];
            if chain == "INPUT" {
                rule[3] = "-i";
            }
            if let Some(every) = &every {
                rule.extend(["-m", "statistic", "--mode", "nth", "--every", every, "--packet", "0"]);
            }
            assert!(self.inside("iptables", &rule), "{rule:?}");
        }
    }

    fn heal(&self) {
        assert!(self.inside("iptables", &["-F"]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run("ip", &["link", "del", &format!("{}a", self.0)]);
        run("ip", &["netns", "del", &self.0]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success())
}

/// R14. The server is restarted behind the hole, so that no packet of the old connection is ever answered in good faith.
#[tokio::test]
async fn a_black_hole_is_got_over_within_half_a_minute_of_its_end() {
    let (host, inside) = ("10.231.7.1", "10.231.7.2");
    let Some(network) = Network::new(host, inside) else {
        return passed_over("a network namespace takes root, iproute2 and iptables");
    };
    let fake = Fake::stopped_on(host, secrets([("a", "1")]));
    fake.up();
    let pod = Pod::new(&fake.url());
    let _sidecar = Sidecar::start(&pod, network.command(&[env!("CARGO_BIN_EXE_sealpod-sidecar"), "run"]));
    pod.shows("a", Some("1")).await;
    questions(&fake, 0).await;
    network.lose(None);
    fake.down().await;
    fake.answer(secrets([("a", "2")]));
    fake.up();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pod.file("a").as_deref(), Some("1"));
    network.heal();
    let healed = Instant::now();
    shows(&pod, "2", Duration::from_secs(30), healed).await;

    network.lose(Some(5));
    for value in ["3", "4"] {
        fake.answer(secrets([("a", value)]));
        shows(&pod, value, Duration::from_secs(30), Instant::now()).await;
    }
}

async fn shows(pod: &Pod, value: &str, within: Duration, since: Instant) {
    while pod.file("a").as_deref() != Some(value) {
        assert!(since.elapsed() < within, "{value} did not arrive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// R9, of the sidecar. Its waits are by the clock that does not jump; the other one only tells when a change is due.
#[tokio::test]
async fn a_clock_that_jumps_neither_stops_the_files_nor_hurries_the_questions() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(library).exists() {
        return passed_over("faketime is not installed");
    }
    let fake = Fake::start(secrets([("a", "0")]));
    let mut file = binding(Value::Null);
    file["staleness"] = json!({"max": 3600, "then": "remove"});
    let pod = Pod::with(&fake.url(), &["db"], &file);
    let dir = tempfile::tempdir().unwrap();
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
    command
        .arg("run")
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let _sidecar = Sidecar::start(&pod, command);
    pod.shows("a", Some("0")).await;
    for (round, jump) in ["+10y", "-1d", "+1h", "-10y"].into_iter().enumerate() {
        std::fs::write(&clock, jump).unwrap();
        let asked = fake.seen().len();
        let value = format!("{}", round + 1);
        let mut answer = secrets([("a", &value)]);
        // By its own clock long past, or years ahead.
        answer["next_change_at"] = json!((jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60)).to_string());
        fake.answer(answer);
        pod.shows("a", Some(&value)).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        let questions = fake.seen().len() - asked;
        assert!(questions < 5, "{jump}: {questions} questions");
        assert_eq!(
            pod.file("a").as_deref(),
            Some(value.as_str()),
            "{jump}: no file grows old by a jump"
        );
    }
}
