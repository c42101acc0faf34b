//! The one rule of which version counts, on every plane and through everything that can happen to a secret, against a
//! model of a few lines.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sealpod_core::Time;
use sealpod_core::wire::Edit;
use serde_json::{Value, json};

use crate::support::{Application, Call, Server};

const ENV: &str = "/api/orgs/default/projects/shop/envs/local";

#[derive(Debug, Clone)]
enum Step {
    /// On the organization plane: first and last hour from now.
    Put(Option<i64>, Option<i64>),
    /// On the management plane.
    Set(bool, Option<i64>, Option<i64>),
    /// Of one version: enabled, first and last hour.
    Change(usize, Option<bool>, Edit<Option<i64>>, Edit<Option<i64>>),
    RollBack(usize),
    Delete,
    Purge,
    /// The newest deletion that is in the trash.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let hour = || prop::option::of(-4..4_i64);
    let edit = || prop_oneof![Just(Edit::Keep), hour().prop_map(Edit::To)];
    prop_oneof![
        3 => (hour(), hour()).prop_map(|(from, to)| Step::Put(from, to)),
        2 => (any::<bool>(), hour(), hour()).prop_map(|(enabled, from, to)| Step::Set(enabled, from, to)),
        3 => (0..9_usize, any::<Option<bool>>(), edit(), edit())
            .prop_map(|(at, enabled, from, to)| Step::Change(at, enabled, from, to)),
        2 => (0..9_usize).prop_map(Step::RollBack),
        1 => Just(Step::Delete),
        1 => Just(Step::Purge),
        2 => Just(Step::Restore),
    ]
}

#[derive(Debug, Clone)]
struct Version {
    value: String,
    enabled: bool,
    from: Option<i64>,
    to: Option<i64>,
    /// The deletion that hides it.
    deleted: Option<usize>,
}

/// All that a secret has ever had in one environment; the version at 0 has the number 1.
#[derive(Debug, Default)]
struct Model {
    versions: Vec<Version>,
    /// Those that can be undone.
    deletions: Vec<usize>,
    count: usize,
}

fn in_order(from: Option<i64>, to: Option<i64>) -> bool {
    from.zip(to).is_none_or(|(from, to)| from < to)
}

impl Model {
    fn append(&mut self, enabled: bool, from: Option<i64>, to: Option<i64>, value: String) -> u16 {
        if !in_order(from, to) {
            return 400;
        }
        let first = !self.visible().any(|_| true);
        let deleted = None;
        self.versions.push(Version {
            value,
            enabled,
            from,
            to,
            deleted,
        });
        if first { 201 } else { 200 }
    }

    fn visible(&self) -> impl DoubleEndedIterator<Item = (usize, &Version)> {
        let all = self.versions.iter().enumerate();
        all.filter(|(_, version)| version.deleted.is_none())
            .map(|(at, version)| (at + 1, version))
    }

    fn active(&self) -> Option<(usize, &Version)> {
        // Hours are a quarter of one off, so now is between -1 and 0.
        self.visible().rev().find(|(_, version)| {
            version.enabled && version.from.is_none_or(|from| from < 0) && version.to.is_none_or(|to| to >= 0)
        })
    }

    fn delete(&mut self, restorable: bool) -> u16 {
        if !self.visible().any(|_| true) {
            return 404;
        }
        self.count += 1;
        for version in self.versions.iter_mut().filter(|version| version.deleted.is_none()) {
            version.deleted = Some(self.count);
        }
        if restorable {
            self.deletions.push(self.count);
        }
        204
    }

    fn restore(&mut self) -> u16 {
        if self.visible().any(|_| true) {
            return 409;
        }
        let newest = self.deletions.pop();
        for version in self.versions.iter_mut().filter(|version| version.deleted == newest) {
            version.deleted = None;
        }
        200
    }

    /// Does it, and says what the server answers.
    fn take(&mut self, step: &Step, value: String) -> u16 {
        match step {
            Step::Put(from, to) => self.append(true, *from, *to, value),
            Step::Set(enabled, from, to) => match self.append(*enabled, *from, *to, value) {
                201 => 200,
                status => status,
            },
            // What is wrong by itself is refused before anything is looked up.
            Step::Change(_, _, Edit::To(from), Edit::To(to)) if !in_order(*from, *to) => 400,
            Step::Change(at, enabled, from, to) => match self.versions.get_mut(*at) {
                Some(version) if version.deleted.is_none() => {
                    let (from, to) = (from.over(version.from), to.over(version.to));
                    if !in_order(from, to) {
                        return 400;
                    }
                    version.enabled = enabled.unwrap_or(version.enabled);
                    (version.from, version.to) = (from, to);
                    200
                }
                _ => 404,
            },
            Step::RollBack(at) => match self.versions.get(*at) {
                Some(version) if version.deleted.is_none() => {
                    let value = version.value.clone();
                    self.append(true, None, None, value);
                    200
                }
                _ => 404,
            },
            Step::Delete => self.delete(true),
            Step::Purge => self.delete(false),
            Step::Restore => self.restore(),
        }
    }
}

/// A quarter of an hour off, so that no window begins or ends while the test runs.
fn hour(start: Time, hour: Option<i64>) -> Value {
    hour.map_or(Value::Null, |hour| json!(start.plus_seconds(hour * 3_600 + 900)))
}

async fn call(server: &Server, start: Time, step: &Step, (key, value): (&str, &str)) -> Option<Call> {
    let path = format!("{ENV}/secrets/{key}");
    Some(match step {
        Step::Put(from, to) => {
            let body = json!({"value": value, "not_before": hour(start, *from), "expires_at": hour(start, *to)});
            server.admin("PUT", &path).json(body)
        }
        Step::Set(enabled, from, to) => {
            let item = json!({
                "environmentSlug": "local", "value": value, "isEnabled": enabled, "notBefore": hour(start, *from),
                "expiresAt": hour(start, *to),
            });
            let path = format!("/api/management/applications/shop/secrets/{key}/values");
            server.admin("POST", &path).json(json!([item]))
        }
        Step::Change(at, enabled, from, to) => {
            let mut body = json!({});
            if let Some(enabled) = enabled {
                body["is_enabled"] = json!(enabled);
            }
            for (field, change) in [("not_before", from), ("expires_at", to)] {
                if let Edit::To(change) = change {
                    body[field] = hour(start, *change);
                }
            }
            server.admin("PATCH", &format!("{path}/versions/{}", at + 1)).json(body)
        }
        Step::RollBack(at) => server
            .admin("POST", &format!("{path}/rollback"))
            .json(json!({"version": at + 1})),
        Step::Delete => server.admin("DELETE", &path),
        Step::Purge => server.admin("DELETE", &format!("{path}?purge=true")),
        Step::Restore => {
            let trash = server.admin("GET", "/api/orgs/default/trash").status(200).await;
            let item = trash.list().iter().find(|item| item["name"] == key)?;
            let id = item["id"].as_str().unwrap();
            server.admin("POST", &format!("/api/orgs/default/trash/{id}/restore"))
        }
    })
}

async fn check(server: &Server, app: &Application<'_>, key: &str, model: &Model) {
    let active = model.active();
    let number = active.map_or(Value::Null, |(number, _)| json!(number));
    let value = active.map_or(Value::Null, |(_, version)| json!(version.value));
    let status = if active.is_some() { 200 } else { 404 };

    let read = server
        .admin("GET", &format!("{ENV}/secrets/{key}"))
        .status(status)
        .await;
    let consumed = app
        .consumer(&format!("/secrets/{key}?environment=local"))
        .status(status)
        .await;
    if status == 200 {
        assert_eq!((&read.body["value"], &read.body["version"]), (&value, &number));
        assert_eq!(
            (&consumed.body["value"], &consumed.body["properties"]["version"]),
            (&value, &number)
        );
    }
    let bundle = server
        .admin("GET", &format!("{ENV}/bundle?key={key}"))
        .status(200)
        .await;
    let bundled = &bundle.body["secrets"][key];
    assert_eq!((&bundled["value"], &bundled["version"]), (&value, &number));
    let missing = if status == 404 { json!([key]) } else { json!([]) };
    assert_eq!(bundle.body["missing"], missing);

    let visible: Vec<_> = model.visible().map(|(number, _)| number as u64).collect();
    let listed = server.admin("GET", &format!("{ENV}/secrets")).status(200).await;
    let listed = listed.list().iter().find(|item| item["key"] == key);
    assert_eq!(
        listed.map(|item| item["version"].clone()),
        (!visible.is_empty()).then_some(number)
    );
    let versions = server
        .admin("GET", &format!("{ENV}/secrets/{key}/versions"))
        .status(200)
        .await;
    let numbers: Vec<_> = versions
        .list()
        .iter()
        .rev()
        .map(|item| item["version"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, visible);
    let detail = app.admin("GET", &format!("/secrets/{key}")).status(200).await;
    assert_eq!(
        detail.body["requiredEnvironments"][0]["valueProvided"],
        !visible.is_empty()
    );
}

async fn walk(server: &Server, app: &Application<'_>, key: &str, steps: &[Step]) {
    app.secret(key).await;
    let (start, mut model) = (Time::now(), Model::default());
    for (n, step) in steps.iter().enumerate() {
        let value = format!("value {n}");
        // There is nothing to restore yet.
        let Some(call) = call(server, start, step, (key, &value)).await else {
            assert!(model.deletions.is_empty());
            continue;
        };
        let reply = call.send().await;
        assert_eq!(reply.status, model.take(step, value), "{step:?}: {}", reply.text);
        check(server, app, key, &model).await;
    }
}

#[test]
fn every_plane_reads_the_version_that_the_rule_names_whatever_happened_before() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let app = runtime.block_on(server.application("shop"));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let walked = runner.run(&prop::collection::vec(step(), 1..14), |steps| {
        // Each walk has a secret of its own.
        let key = uuid::Uuid::now_v7().to_string();
        runtime.block_on(walk(&server, &app, &key, &steps));
        Ok(())
    });
    walked.unwrap();
}
