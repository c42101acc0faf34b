//! Probes and metrics of a process, as Prometheus and the kubelet see them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;

/// `dev` on a folder of its own; killed when dropped.
struct Process {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    /// Where probes and metrics are.
    probes: String,
}

impl Process {
    /// Starts it; probes answer from here on.
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealpod-api-server"))
            .args([
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--metrics-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(directory)
            .env_clear()
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self {
            child,
            log,
            probes: String::new(),
        };
        process.probes = process.address("serving probes and metrics address=");
        process
    }

    /// The address behind these words of its log.
    fn address(&mut self, words: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.log.read_line(&mut line).unwrap(),
                0,
                "it ended before it said `{words}`"
            );
            if let Some((_, rest)) = line.split_once(words) {
                return format!("http://{}", rest.split_whitespace().next().unwrap());
            }
        }
    }

    /// Waits until it serves, and gives the planes' address.
    fn serves(&mut self) -> String {
        self.address(" serving address=")
    }

    /// Status and text of a path of the listener for probes.
    async fn probe(&self, path: &str) -> (u16, String) {
        let response = client().get(format!("{}{path}", self.probes)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Waits for a state of readiness with these words.
    async fn until_ready_is(&self, status: u16, words: &str) -> String {
        let since = Instant::now();
        loop {
            let (got, text) = self.probe("/readyz").await;
            if got == status && text.contains(words) {
                return text;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "still {got}: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everything that `/metrics` shows, by name and labels.
    async fn scrape(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.probe("/metrics").await;
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{rest}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn admin_key(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("admin.key"))
        .unwrap()
        .trim()
        .to_owned()
}

/// A database that a server has made and left.
fn made(directory: &Path) -> Connection {
    let mut process = Process::start(directory);
    process.serves();
    process.stop();
    Connection::open(directory.join("sealpod.db")).unwrap()
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let url = process.serves();
    let before = process.scrape().await;
    let applications = format!("{url}/api/management/applications");
    let call = |request: reqwest::RequestBuilder| async move { request.send().await.unwrap().status().as_u16() };
    let key = admin_key(dir.path());
    let create = client()
        .post(&applications)
        .bearer_auth(&key)
        .json(&json!({"name": "Shop-canary"}));
    assert_eq!(call(create.try_clone().unwrap()).await, 201);
    assert_eq!(call(create).await, 409);
    assert_eq!(
        call(client().get(format!("{applications}/shop-canary")).bearer_auth(&key)).await,
        200
    );
    assert_eq!(call(client().get(&applications).bearer_auth("canary")).await, 401);
    assert_eq!(call(client().get(format!("{url}/canary"))).await, 404);

    let after = process.scrape().await;
    let moved = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    let requests = |labels: &str| moved(&format!("sealpod_http_requests_total{{{labels}}}"));
    let plane = "/api/management/applications";
    for (labels, want) in [
        (
            format!(r#"method="POST",route="{plane}",status="201",caller="admin_key""#),
            1.0,
        ),
        (
            format!(r#"method="POST",route="{plane}",status="409",caller="admin_key""#),
            1.0,
        ),
        (
            format!(r#"method="GET",route="{plane}/{{slug}}",status="200",caller="admin_key""#),
            1.0,
        ),
        (
            format!(r#"method="GET",route="{plane}",status="401",caller="none""#),
            1.0,
        ),
        (
            r#"method="GET",route="none",status="404",caller="none""#.to_owned(),
            1.0,
        ),
    ] {
        assert!((requests(&labels) - want).abs() < 0.1, "{labels}: {after:#?}");
    }
    for name in [
        format!(r#"sealpod_http_request_duration_seconds_count{{method="GET",route="{plane}/{{slug}}"}}"#),
        r#"sealpod_http_problems_total{code="conflict"}"#.to_owned(),
        r#"sealpod_http_problems_total{code="unauthorized"}"#.to_owned(),
        "sealpod_store_writes_total".to_owned(),
        "sealpod_store_commits_total".to_owned(),
        "sealpod_store_reads_total".to_owned(),
        "sealpod_store_transaction_duration_seconds_count".to_owned(),
        "sealpod_store_transaction_duration_seconds_sum".to_owned(),
        "sealpod_store_commit_duration_seconds_count".to_owned(),
        "sealpod_store_commit_duration_seconds_sum".to_owned(),
        "sealpod_store_commit_group_size_count".to_owned(),
        "sealpod_store_wal_bytes".to_owned(),
        "sealpod_audit_entries_total".to_owned(),
        "process_cpu_seconds_total".to_owned(),
    ] {
        assert!(moved(&name) > 0.0, "{name} stood still: {after:#?}");
    }
    for name in [
        "sealpod_store_database_bytes",
        "sealpod_store_available_bytes",
        "sealpod_store_readers",
    ] {
        assert!(after[name] > 0.0, "{name}");
    }
    for name in [
        "sealpod_live_sessions",
        "sealpod_open_polls",
        "sealpod_consumer_reports",
        "sealpod_consumer_reports_memory_bytes",
        "sealpod_store_queued_writes",
    ] {
        assert!(after[name].abs() < 0.1, "{name}");
    }
    assert!((after["sealpod_store_serving"] - 1.0).abs() < 0.1);
    assert!(
        !format!("{after:?}").contains("canary"),
        "a name is no label: {after:#?}"
    );
}

/// Apart from transactions: what the write-ahead log costs behind a commit delays whoever comes next as much.
#[tokio::test]
async fn what_the_log_costs_behind_commits_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let url = process.serves();
    let key = admin_key(dir.path());
    let plane = format!("{url}/api/orgs/default/projects");
    let made = client().post(&plane).bearer_auth(&key).json(&json!({"name": "shop"}));
    assert_eq!(made.send().await.unwrap().status(), 201);
    let value = json!({"value": "v".repeat(100_000)});
    let reader = Connection::open(dir.path().join("sealpod.db")).unwrap();
    for attempt in 0.. {
        let all = process.scrape().await;
        if all["sealpod_store_log_duration_seconds_count"] > 0.5 {
            assert!(all["sealpod_store_log_duration_seconds_sum"] > 0.0, "{all:#?}");
            return;
        }
        // 20 MiB are five times as much as the log may have before it is copied.
        assert!(attempt < 200, "the writer never copied its log: {all:#?}");
        // While somebody reads, the log does not begin anew behind what the other thread copied, and the rest is the writer's.
        if !reader.is_autocommit() {
            reader.execute_batch("ROLLBACK").unwrap();
        }
        reader.execute_batch("BEGIN").unwrap();
        reader.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).unwrap();
        let set = client().put(format!("{plane}/shop/envs/prod/secrets/large"));
        let set = set.bearer_auth(&key).json(&value).send().await.unwrap();
        assert!(set.status().is_success(), "{}", set.text().await.unwrap());
    }
}

#[tokio::test]
async fn what_waits_and_what_lives_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let connection = made(dir.path());
    connection
        .execute_batch(
            "INSERT INTO users (id, email, created_at) VALUES (zeroblob(16), 'a@example.com', 0);
             INSERT INTO sessions (id, user_id, digest, created_at, expires_at) VALUES
                 (zeroblob(16), zeroblob(16), zeroblob(32), 0, 253402300799000000),
                 (randomblob(16), zeroblob(16), randomblob(32), 0, 1)",
        )
        .unwrap();
    let mut process = Process::start(dir.path());
    let url = process.serves();
    let until = async |name: &str, want: fn(f64) -> bool| {
        let since = Instant::now();
        loop {
            let all = process.scrape().await;
            if all.get(name).is_some_and(|value| want(*value)) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{name}: {all:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until("sealpod_live_sessions", |live| (0.5..1.5).contains(&live)).await;
    until("process_resident_memory_bytes", |bytes| bytes > 1e6).await;

    // A long poll, from when it begins to wait until its caller is gone.
    let (key, changes) = (admin_key(dir.path()), format!("{url}/api/management/changes"));
    let cursor = client().get(&changes).bearer_auth(&key).send().await.unwrap();
    let cursor: serde_json::Value = cursor.json().await.unwrap();
    let cursor = cursor["cursor"].as_str().unwrap();
    let poll = client()
        .get(format!("{changes}?since={cursor}&wait=60"))
        .bearer_auth(&key);
    let poll = tokio::spawn(poll.send());
    until("sealpod_open_polls", |open| open > 0.5).await;
    until("sealpod_store_watchers", |open| open > 1.5).await;
    poll.abort();
    until("sealpod_open_polls", |open| open < 0.5).await;

    // Changes that come while another is being written wait, and then share one transaction.
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let creates: Vec<_> = (0..20)
        .map(|n| {
            let create = client().post(format!("{url}/api/management/applications"));
            let create = create.bearer_auth(&key).json(&json!({"name": format!("App {n}")}));
            tokio::spawn(create.send())
        })
        .collect();
    until("sealpod_store_queued_writes", |queued| queued > 0.5).await;
    connection.execute_batch("ROLLBACK").unwrap();
    for create in creates {
        assert_eq!(create.await.unwrap().unwrap().status(), 201);
    }
    until("sealpod_store_queued_writes", |queued| queued < 0.5).await;
    let all = process.scrape().await;
    let (sum, count) = (
        all["sealpod_store_commit_group_size_sum"],
        all["sealpod_store_commit_group_size_count"],
    );
    assert!(sum > count + 0.5, "{sum} in {count} transactions");
}

#[tokio::test]
async fn the_listener_of_probes_shows_nothing_else_and_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    process.serves();
    for path in [
        "/",
        "/health",
        "/docs",
        "/openapi.json",
        "/api/management/applications",
        "/debug",
    ] {
        assert_eq!(process.probe(path).await, (404, String::new()), "{path}");
    }
    for path in ["/metrics", "/readyz", "/livez"] {
        let posted = client()
            .post(format!("{}{path}", process.probes))
            .body("{}")
            .send()
            .await;
        assert_eq!(posted.unwrap().status(), 405, "{path}");
    }
    let (_, text) = process.probe("/metrics").await;
    assert!(!text.contains(&admin_key(dir.path())) && !text.contains(dir.path().to_str().unwrap()));
}

/// The metrics of the server that the page lists.
fn documented() -> BTreeSet<&'static str> {
    let page = include_str!("../../../docs/MONITORING.md");
    let (_, table) = page.split_once("## The api-server\n").unwrap();
    let rows = table.split("\n## ").next().unwrap().split("| `sealpod_").skip(1);
    let names = rows.map(|row| row.split(['`', '{']).next().unwrap());
    names
        .collect::<Vec<_>>()
        .into_iter()
        .map(|name| &*format!("sealpod_{name}").leak())
        .collect()
}

#[test]
fn the_alerts_of_the_chart_ask_for_metrics_that_are_documented() {
    let alerts = include_str!("../../../charts/sealpod/alerts.yaml");
    let operator = include_str!("../../../docs/OPERATOR.md");
    let documented = documented();
    let asked = alerts.split("sealpod_").skip(1);
    let asked = asked.map(|rest| {
        rest.split(|c: char| !c.is_ascii_lowercase() && c != '_')
            .next()
            .unwrap()
    });
    let asked: BTreeSet<_> = asked.map(|name| format!("sealpod_{name}")).collect();
    assert!(asked.len() > 4, "{asked:?}");
    for name in asked {
        assert!(
            documented.contains(name.as_str()) || operator.contains(&format!("`{name}`")),
            "{name} is documented nowhere"
        );
    }
}

#[tokio::test]
async fn every_metric_follows_the_conventions() {
    const UNITS: [&str; 2] = ["seconds", "bytes"];
    const LABELS: [&str; 10] = [
        "method",
        "route",
        "status",
        "caller",
        "code",
        "component",
        "version",
        "le",
        // Each part is a word of the source.
        "part",
        "state",
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let url = process.serves();
    client().get(format!("{url}/api/orgs")).send().await.unwrap();
    let (_, text) = process.probe("/metrics").await;
    let of = |comment: &str| -> BTreeMap<&str, &str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(comment));
        lines.map(|line| line.split_once(' ').unwrap()).collect()
    };
    let (types, helps, units) = (of("# TYPE "), of("# HELP "), of("# UNIT "));
    let documented = documented();
    assert!(types.len() > 20, "{text}");
    for (name, kind) in &types {
        assert!(name.starts_with("sealpod_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_count"), "{name}");
        let suffix = match *kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let known = name.starts_with("process_") || documented.contains(format!("{name}{suffix}").as_str());
        assert!(known, "docs/MONITORING.md lacks {name}{suffix}");
        let help = helps[name];
        assert!(
            help.len() > 10 && help.ends_with('.') && !help.ends_with(".."),
            "{name}: {help}"
        );
        assert!(
            help.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()),
            "{name}: {help}"
        );
        let timed = ["duration", "cpu", "_time"].iter().any(|word| name.contains(word));
        let sized = ["memory", "database", "wal", "volume", "available"]
            .iter()
            .any(|word| name.contains(word));
        let unit = units.get(name).copied();
        assert!(
            unit.is_none_or(|unit| UNITS.contains(&unit) && name.ends_with(unit)),
            "{name}"
        );
        assert_eq!(
            unit.is_some(),
            timed || sized,
            "{name} ({kind}) has no unit, or one too many"
        );
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = types
            .keys()
            .filter(|family| name.starts_with(**family))
            .max_by_key(|family| family.len());
        let kind = types[family.unwrap_or_else(|| panic!("{name} has no type"))];
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let labels = series
            .split_once('{')
            .map_or("", |(_, labels)| labels.trim_end_matches('}'));
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (label, _) = label.split_once('=').unwrap();
            assert!(
                LABELS.contains(&label),
                "{series}: could `{label}` have any number of values?"
            );
        }
    }
    let series = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0);
    let all: Vec<_> = series.collect();
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "a series stands there twice"
    );
}

#[tokio::test]
async fn it_is_not_ready_while_the_database_opens_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let connection = made(dir.path());
    // A migration of a large database takes as long as this lock is held.
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut process = Process::start(dir.path());
    let text = process.until_ready_is(503, "store: the database is being opened").await;
    assert!(!text.contains("ok"), "{text}");
    for path in ["/livez", "/healthz"] {
        assert_eq!(process.probe(path).await.0, 200);
    }
    assert!(
        process
            .scrape()
            .await
            .keys()
            .any(|name| name.starts_with("sealpod_build_info"))
    );
    connection.execute_batch("ROLLBACK").unwrap();
    let url = process.serves();
    assert_eq!(process.until_ready_is(200, "ok").await, "ok\n");
    let main = client().get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(main.status(), 200);
}

#[tokio::test]
async fn it_is_not_ready_while_reads_cannot_be_recorded_and_finds_out_when_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path());
    let url = process.serves();
    process.until_ready_is(200, "ok").await;
    let connection = Connection::open(dir.path().join("sealpod.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let broken = "CREATE TRIGGER broken BEFORE INSERT ON audit_entries BEGIN SELECT raise(ABORT, 'broken'); END";
    connection.execute_batch(broken).unwrap();
    let create = client()
        .post(format!("{url}/api/management/applications"))
        .bearer_auth(admin_key(dir.path()))
        .json(&json!({"name": "Shop"}));
    let failed = create.try_clone().unwrap().send().await.unwrap().status();
    assert!(failed.is_server_error(), "{failed}");
    process.until_ready_is(503, "audit: nothing can be stored").await;
    // The planes' own probe is as red, and keeps the reason to itself.
    let main = client().get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(main.status(), 503);
    assert!(!main.text().await.unwrap().contains("broken"));
    // Nobody sends a request to a server that is not ready, and it heals all the same.
    connection.execute_batch("DROP TRIGGER broken").unwrap();
    process.until_ready_is(200, "ok").await;
    assert_eq!(create.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_damaged_database_makes_it_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let connection = made(dir.path());
    connection
        .execute_batch(
            "PRAGMA ignore_check_constraints = ON;
             INSERT INTO users (id, email, created_at) VALUES (x'00', 'canary@example.com', 0)",
        )
        .unwrap();
    drop(connection);
    let mut process = Process::start(dir.path());
    let url = process.serves();
    let text = process
        .until_ready_is(503, "integrity: the database is damaged; restore a backup")
        .await;
    assert!(text.contains("users") && !text.contains("canary"), "{text}");
    // What can be read can still be saved.
    let list = client().get(format!("{url}/api/management/applications"));
    assert_eq!(
        list.bearer_auth(admin_key(dir.path())).send().await.unwrap().status(),
        200
    );
}
