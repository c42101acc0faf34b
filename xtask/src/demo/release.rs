//! The release of the chart: `helm upgrade --install`, whatever an earlier run left.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::tools::Tools;
use super::wait::{Seen, Wait, until};
use super::workloads::{self, Broken, Problem, State};
use crate::process::{self, Failure};
use crate::progress::Step;
use crate::workspace::Workspace;

/// As the end-to-end tests call theirs, so that both can use one cluster.
pub const RELEASE: &str = "sealpod";
pub const NAMESPACE: &str = "sealpod";
/// Label of a namespace that the demo made, with all that is in it.
pub const MARK: &str = "sealpod.dev/demo";

/// How long pods may take: images may have to come over a slow line.
const READY: Duration = Duration::from_mins(5);
/// How long a namespace may take to go.
const GONE: Duration = Duration::from_secs(90);
/// How often helm is called while others come between.
const ATTEMPTS: u32 = 3;
/// How long a helm of a killed run may go on.
const SETTLED: Duration = Duration::from_secs(10);

/// What the chart is installed with.
#[derive(Debug)]
pub struct Chart {
    pub path: PathBuf,
    /// Arguments for helm, such as `--set-string=image.tag=…`.
    pub arguments: Vec<String>,
}

impl Chart {
    pub fn new(workspace: &Workspace, arguments: Vec<String>) -> Self {
        Self {
            path: workspace.root.join("charts/sealpod"),
            arguments,
        }
    }

    /// The whole of `helm upgrade …`, without the name of the program.
    pub fn upgrade(&self) -> Vec<String> {
        let first = ["upgrade", "--install", RELEASE].map(String::from);
        let chart = self.path.display().to_string();
        let namespace = format!("--namespace={NAMESPACE}");
        first
            .into_iter()
            .chain([chart, namespace])
            .chain(self.arguments.iter().cloned())
            .collect()
    }
}

/// Name of an object of the release.
pub fn object(component: &str) -> String {
    format!("{RELEASE}-{component}")
}

/// Installs the chart, or brings the release that is there to its state, and returns when all of it is ready.
pub fn install(tools: &Tools, chart: &Chart, step: &Step) -> Result<()> {
    await_gone(tools, NAMESPACE, step)?;
    make_namespace(tools)?;
    upgrade(tools, chart, step)?;
    await_workloads(tools, NAMESPACE, step)
}

/// `helm upgrade --install`, again when another helm came between.
fn upgrade(tools: &Tools, chart: &Chart, step: &Step) -> Result<()> {
    let log = tools.log("helm");
    let mut attempts = 0;
    loop {
        attempts += 1;
        settle(tools, step)?;
        step.follow("helm upgrade --install");
        let Err(error) = process::run_logged(&mut tools.helm(chart.upgrade()), &log) else {
            return Ok(());
        };
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if attempts < ATTEMPTS && is_contended(&said) {
            continue;
        }
        return Err(match (helm_advice(&said), error.downcast::<Failure>()) {
            (Some(advice), Ok(failure)) => failure.advice(advice).into(),
            (None, Ok(failure)) => failure.into(),
            (_, Err(error)) => error,
        });
    }
}

/// Whether helm gave way to another one that was at work on the release, such as that of a demo just killed.
fn is_contended(said: &str) -> bool {
    said.contains("another operation") || said.contains("release: already exists")
}

/// What to do about a refusal whose text does not say it.
fn helm_advice(said: &str) -> Option<&'static str> {
    if said.contains("invalid ownership metadata") {
        return Some(
            "this cluster has another installation of Sealpod, which the demo leaves alone: use another cluster, \
             or uninstall that one with `helm uninstall` if nobody needs it",
        );
    }
    if said.contains("no space left on device") {
        return Some("the disk is full: free some space and run the demo again");
    }
    None
}

/// The release's namespace, under the strictest standard for pods.
fn make_namespace(tools: &Tools) -> Result<()> {
    tools.apply(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {MARK: "true", "pod-security.kubernetes.io/enforce": "restricted"}},
    }))
}

/// Fails when the namespace of a cluster that is not ours holds something that no demo put there.
pub fn require_ours(tools: &Tools) -> Result<()> {
    match tools.get(&["namespace", NAMESPACE])? {
        Some(namespace) if !is_marked(&namespace) => Err(Failure::new(format!(
            "the namespace {NAMESPACE} exists and was not made by the demo"
        ))
        .advice(format!(
            "if it holds a Sealpod that somebody uses, take another cluster; if not, delete it, or hand it over: \
                         `kubectl label namespace {NAMESPACE} {MARK}=true` (--down will then remove it and its keys)"
        ))
        .into()),
        _ => Ok(()),
    }
}

pub fn is_marked(namespace: &Value) -> bool {
    namespace["metadata"]["labels"][MARK] == "true"
}

/// Waits while a namespace of an earlier run is still going; fails, saying what holds it, when it stays.
pub fn await_gone(tools: &Tools, namespace: &str, step: &Step) -> Result<()> {
    let wait = Wait {
        what: format!("the namespace {namespace} of an earlier run to go"),
        within: GONE,
        advice: "`cargo xtask demo --down` clears it, with --existing if the demo was on such a cluster".to_string(),
    };
    until(step, &wait, || {
        Ok(match tools.get(&["namespace", namespace])? {
            Some(object) if object["metadata"]["deletionTimestamp"].is_string() => Seen::NotYet(held_by(&object)),
            _ => Seen::Reached(()),
        })
    })
}

/// What keeps a namespace from going, in Kubernetes' words.
pub fn held_by(namespace: &Value) -> String {
    let conditions = namespace["status"]["conditions"].as_array().into_iter().flatten();
    let held: Vec<_> = conditions
        .filter(|condition| condition["status"] == "True")
        .filter_map(|condition| condition["message"].as_str())
        .collect();
    if held.is_empty() {
        return "it is being deleted".to_string();
    }
    held.join("; ")
}

/// Status of the release; `None` when there is none.
pub fn status(tools: &Tools) -> Option<String> {
    let namespace = format!("--namespace={NAMESPACE}");
    let text = process::capture(&mut tools.helm(["status", RELEASE, &namespace, "--output=json"])).ok()?;
    let status: Value = serde_json::from_str(&text).ok()?;
    status["info"]["status"].as_str().map(ToString::to_string)
}

/// A helm that was killed leaves its release pending, and every later one would refuse to touch it. The helm of a demo
/// that was killed may also be still at work: it gets the time to end.
fn settle(tools: &Tools, step: &Step) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = status(tools).unwrap_or_default();
        let Some(cure) = cure(&status) else { return Ok(()) };
        if begun.elapsed() > SETTLED {
            step.note(&format!("an earlier helm left the release {status}: helm {cure}"));
            let namespace = format!("--namespace={NAMESPACE}");
            process::capture(&mut tools.helm([cure, RELEASE, &namespace, "--wait"]))?;
            return Ok(());
        }
        step.follow(&format!("another helm is at work ({status})"));
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The helm command that ends an interrupted one.
fn cure(status: &str) -> Option<&'static str> {
    match status {
        "pending-install" | "uninstalling" => Some("uninstall"),
        "pending-upgrade" | "pending-rollback" => Some("rollback"),
        _ => None,
    }
}

/// Waits until the workloads of a namespace are ready; fails early, with the log, for a pod that will not come up.
pub fn await_workloads(tools: &Tools, namespace: &str, step: &Step) -> Result<()> {
    let arguments = ["statefulsets,deployments,pods", "--namespace", namespace];
    let mut broken: Option<(Broken, Instant)> = None;
    let wait = Wait {
        what: format!("the pods of the namespace {namespace}"),
        within: READY,
        advice: format!("look why: kubectl --namespace {namespace} describe pods"),
    };
    until(step, &wait, || {
        let objects = match tools.list(&arguments) {
            Ok(objects) => objects,
            Err(error) => return Ok(Seen::NotYet(error.to_string())),
        };
        match workloads::state(&objects) {
            State::Ready => Ok(Seen::Reached(())),
            State::Waiting(missing) => {
                broken = None;
                Ok(Seen::NotYet(missing))
            }
            State::Broken(now) => {
                let since = match &broken {
                    Some((before, since)) if (&before.pod, before.problem) == (&now.pod, now.problem) => *since,
                    _ => Instant::now(),
                };
                if since.elapsed() > now.problem.patience() {
                    return Err(does_not_start(tools, namespace, &now).into());
                }
                let missing = format!("{}: {}", now.pod, now.said);
                broken = Some((now, since));
                Ok(Seen::NotYet(missing))
            }
        }
    })
}

fn does_not_start(tools: &Tools, namespace: &str, broken: &Broken) -> Failure {
    let failure = Failure::new(format!("the pod {} does not start: {}", broken.pod, broken.said));
    match broken.problem {
        Problem::Image => failure.advice(
            "the nodes cannot get the image: check --registry, --tag and --app-image, or bring the archives with --load-command",
        ),
        Problem::Unschedulable => failure.advice(
            "give the node more room; if it is the volume: --set apiServer.persistence.storageClassName=NAME names a class of \
             `kubectl get storageclass`, and --set apiServer.persistence.enabled=false does without one",
        ),
        Problem::Crashes => {
            let container = broken.container.as_deref().unwrap_or_default();
            let mut logs = tools.kubectl(["logs", "--namespace", namespace, &broken.pod, "--container", container]);
            let logs = logs.args(["--tail=20", "--ignore-errors"]);
            failure
                .output(process::capture(logs).unwrap_or_default().as_bytes())
                .advice(format!("look at it: kubectl --namespace {namespace} describe pod {}", broken.pod))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_interrupted_helm_is_cured() {
        assert_eq!(cure("pending-install"), Some("uninstall"));
        assert_eq!(cure("pending-upgrade"), Some("rollback"));
        for calm in ["", "deployed", "failed", "superseded"] {
            assert_eq!(cure(calm), None, "{calm}");
        }
    }

    #[test]
    fn helm_is_called_again_only_when_it_gave_way() {
        assert!(is_contended("Error: UPGRADE FAILED: release: already exists"));
        assert!(is_contended(
            "Error: another operation (install/upgrade/rollback) is in progress"
        ));
        assert!(!is_contended("Error: namespaces \"sealpod\" already exists"));
    }

    #[test]
    fn a_namespace_says_what_holds_it() {
        let namespace = json!({"status": {"conditions": [
            {"status": "False", "message": "fine"},
            {"status": "True", "message": "Some content has finalizers remaining"},
        ]}});
        assert_eq!(held_by(&namespace), "Some content has finalizers remaining");
        assert_eq!(held_by(&json!({})), "it is being deleted");
    }

    #[test]
    fn another_installation_is_told_apart_from_other_refusals() {
        let said = "Error: unable to continue with install: … invalid ownership metadata; annotation …";
        assert!(helm_advice(said).unwrap().contains("another installation"));
        assert_eq!(
            helm_advice("Error: values don't meet the specifications of the schema"),
            None
        );
    }

    #[test]
    fn a_namespace_is_ours_by_its_label_only() {
        assert!(is_marked(&json!({"metadata": {"labels": {MARK: "true"}}})));
        assert!(!is_marked(&json!({"metadata": {"name": NAMESPACE}})));
    }
}
