//! Everything that a binding says about files.

use std::os::unix::fs::PermissionsExt;

use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};

use crate::fake::{Fake, secrets};
use crate::pod::{Pod, binding, questions, required};

fn with_files(secrets: Value, files: &Value) -> Value {
    let mut file = binding(secrets);
    file["files"] = files.clone();
    file
}

#[tokio::test]
async fn every_form_of_file_is_delivered_in_one_change() {
    let mut answer = secrets([
        ("db.password", "p'w"),
        ("user", "ada"),
        ("tls-key", "S0VZ"),
        ("not/a/file", "x"),
    ]);
    answer["configurations"] = json!({"log.level": "debug", "empty": ""});
    let fake = Fake::start(answer.clone());
    let mut file = with_files(
        json!([
            {"name": "db.password", "path": "db/password", "mode": 0o400, "optional": false},
            required("user"),
            {"pattern": "tls-*", "path": "tls", "decode": "base64", "optional": true},
        ]),
        &json!([
            {"path": "app.env", "values": {"format": "env", "include": [{"name": "user"}, {"pattern": "db.*"}]}},
            {"path": "app.json", "values": {"format": "json"}, "mode": 0o400},
            {"path": "etc/app.yaml", "values": {"format": "yaml", "include": [{"name": "user"}]}},
            {"path": "app.properties", "values": {"format": "properties", "include": [{"name": "user"}]}},
            {"path": "app.ini", "template": "url={{ secrets.user }}:{{ secrets[\"db.password\"]|urlquote }}\nlevel={{ configurations[\"log.level\"] }}\n"},
        ]),
    );
    file["configurations"] = json!({"path": "configurations"});
    let pod = Pod::with(&fake.url(), &["db"], &file);
    assert!(pod.init().await);
    assert!(
        fake.seen()[0].query.contains("configurations=true"),
        "{}",
        fake.seen()[0].query
    );
    for (path, content) in [
        ("db/password", "p'w"),
        ("user", "ada"),
        ("tls/tls-key", "KEY"),
        ("app.env", "DB_PASSWORD='p'\\''w'\nUSER=ada\n"),
        (
            "app.json",
            "{\n  \"db.password\": \"p'w\",\n  \"tls-key\": \"S0VZ\",\n  \"user\": \"ada\"\n}\n",
        ),
        ("etc/app.yaml", "\"user\": \"ada\"\n"),
        ("app.properties", "USER=ada\n"),
        ("app.ini", "url=ada:p%27w\nlevel=debug\n"),
        ("configurations/log.level", "debug"),
        ("configurations/empty", ""),
    ] {
        assert_eq!(pod.file(path).as_deref(), Some(content), "{path}");
    }
    let mode = |path: &str| {
        std::fs::metadata(pod.mount("db").join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        [mode("app.json"), mode("db/password"), mode("app.env")],
        [0o400, 0o400, 0o440]
    );

    let running = pod.start(Until::Stopped);
    questions(&fake, 1).await;
    answer["secrets"]["user"]["value"] = json!("bob");
    answer["configurations"] = json!({"log.level": "info"});
    fake.answer(answer);
    pod.shows("app.properties", Some("USER=bob\n")).await;
    assert_eq!(pod.file("app.ini").as_deref(), Some("url=bob:p%27w\nlevel=info\n"));
    assert_eq!(pod.file("configurations/empty"), None);
    running.stop().await;
}

#[tokio::test]
async fn configurations_can_be_one_file() {
    let mut answer = secrets([]);
    answer["configurations"] = json!({"log.level": "debug"});
    let fake = Fake::start(answer);
    let mut file = binding(Value::Null);
    file["configurations"] = json!({"path": "app.env", "format": "env"});
    let pod = Pod::with(&fake.url(), &["db"], &file);
    assert!(pod.init().await);
    assert_eq!(pod.file("app.env").as_deref(), Some("LOG_LEVEL=debug\n"));
}

#[tokio::test]
async fn a_bad_template_keeps_its_last_file_and_takes_no_other_with_it() {
    let good = json!([{"path": "app.ini", "template": "user={{ secrets.user }}"}]);
    let fake = Fake::start(secrets([("user", "ada")]));
    let pod = Pod::with(&fake.url(), &["db"], &with_files(Value::Null, &good));
    let running = pod.start(Until::Stopped);
    pod.shows("app.ini", Some("user=ada")).await;
    // The key that it wants goes, and another changes.
    fake.answer(secrets([("other", "1")]));
    pod.shows("other", Some("1")).await;
    assert_eq!(
        (pod.file("app.ini").as_deref(), pod.file("user")),
        (Some("user=ada"), None)
    );
    // The template itself breaks, and others change.
    let bad =
        json!([{"path": "app.ini", "template": "{{ secrets.user"}, {"path": "all.json", "values": {"format": "json"}}]);
    pod.write_key("db", crate::fake::KEY, None, &with_files(Value::Null, &bad));
    pod.shows("all.json", Some("{\n  \"other\": \"1\"\n}\n")).await;
    assert_eq!(pod.file("app.ini").as_deref(), Some("user=ada"));
    pod.write_key("db", crate::fake::KEY, None, &with_files(Value::Null, &good));
    fake.answer(secrets([("user", "bob")]));
    pod.shows("app.ini", Some("user=bob")).await;
    running.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_a_file_that_cannot_be_made_and_has_the_others() {
    let fake = Fake::start(secrets([("a", "1")]));
    let files = json!([{"path": "app.ini", "template": "{{ secrets.late }}"}]);
    let pod = Pod::with(&fake.url(), &["db"], &with_files(Value::Null, &files));
    let init = pod.start(Until::Complete);
    pod.shows("a", Some("1")).await;
    questions(&fake, 1).await;
    assert!(init.is_running() && !pod.is_open());
    fake.answer(secrets([("late", "2")]));
    assert!(init.ended().await);
    assert_eq!(pod.file("app.ini").as_deref(), Some("2"));
}

#[tokio::test]
async fn a_file_of_several_values_is_never_without_one_that_is_required() {
    let entries = json!([required("a"), required("b"), {"name": "c", "optional": true}]);
    let files = json!([{"path": "all.env", "values": {"format": "env"}}, {"path": "c.env", "values": {"format": "env", "include": [{"name": "c"}, {"name": "a"}]}}]);
    let fake = Fake::start(secrets([("a", "1"), ("b", "2"), ("c", "3")]));
    let pod = Pod::with(&fake.url(), &["db"], &with_files(entries, &files));
    let running = pod.start(Until::Stopped);
    pod.shows("all.env", Some("A=1\nB=2\nC=3\n")).await;
    let mut partial = secrets([("a", "new")]);
    partial["missing"] = json!(["b", "c"]);
    fake.answer(partial);
    pod.shows("a", Some("new")).await;
    assert_eq!(
        pod.file("all.env").as_deref(),
        Some("A=1\nB=2\nC=3\n"),
        "b keeps it as it was"
    );
    assert_eq!(pod.file("c.env").as_deref(), Some("A=new\n"), "c is optional");
    assert_eq!((pod.file("b").as_deref(), pod.file("c")), (Some("2"), None));
    running.stop().await;
}

#[tokio::test]
async fn a_secret_that_would_choose_what_programs_load_has_to_be_named() {
    let fake = Fake::start(secrets([("ld-preload", "/tmp/x.so")]));
    let files = json!([{"path": "app.env", "values": {"format": "env"}}]);
    let pod = Pod::with(&fake.url(), &["db"], &with_files(Value::Null, &files));
    let init = pod.start(Until::Complete);
    pod.shows("ld-preload", Some("/tmp/x.so")).await;
    questions(&fake, 1).await;
    assert!(init.is_running() && pod.file("app.env").is_none());
    pod.write_key(
        "db",
        crate::fake::KEY,
        None,
        &with_files(json!([required("ld-preload")]), &files),
    );
    assert!(init.ended().await);
    assert_eq!(pod.file("app.env").as_deref(), Some("LD_PRELOAD=/tmp/x.so\n"));
}
