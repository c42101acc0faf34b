//! What a person would look at when a test failed, printed before its namespace goes.

use crate::install::NAMESPACE;
use crate::tools::{Tools, text};

/// Lines of each log.
const LINES: &str = "--tail=60";

/// Prints the state of the test's namespace and the logs of both. A log holds no secret, or the canary test fails.
pub async fn dump(tools: &Tools, namespace: &str) {
    let ours = format!("--namespace={NAMESPACE}");
    let theirs = format!("--namespace={namespace}");
    let kinds = "all,applications,environments,secretbindings";
    show(tools, &["get", kinds, &theirs, "--output=wide"]).await;
    show(tools, &["get", "events", &theirs, "--sort-by=.lastTimestamp"]).await;
    show(
        tools,
        &[
            "get",
            "applications,environments,secretbindings",
            &theirs,
            "--output=yaml",
        ],
    )
    .await;
    show(tools, &["describe", "pods", &theirs]).await;
    logs(tools, &theirs).await;
    show(tools, &["get", "all,events", &ours, "--output=wide"]).await;
    logs(tools, &ours).await;
}

async fn logs(tools: &Tools, namespace: &str) {
    let Ok(pods) = text(tools.kubectl(["get", "pods", namespace, "--output=name"])).await else {
        return;
    };
    for pod in pods.lines() {
        show(
            tools,
            &[
                "logs",
                pod,
                namespace,
                "--all-containers",
                "--prefix",
                "--ignore-errors",
                LINES,
            ],
        )
        .await;
    }
}

async fn show(tools: &Tools, arguments: &[&str]) {
    let printed = text(tools.kubectl(arguments)).await;
    let printed = printed.unwrap_or_else(|error| format!("{error:#}"));
    eprintln!("$ kubectl {}\n{printed}", arguments.join(" "));
}
