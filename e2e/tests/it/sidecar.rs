//! What a binding says about files and changes, in a pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use sealpod_crds::SecretBinding;
use sealpod_e2e::sandbox::{CONVERGE, file};
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::{Value, json};

/// The kubelet takes up to a minute and a half to show a pod the new state of a Secret.
const REFRESH: Duration = Duration::from_mins(3);

/// Notes each SIGHUP; `/dev/shm` is the one place that it may write to, and all containers of a pod have the same.
fn counts_hups(file: &str) -> String {
    format!("trap 'echo hup >> /dev/shm/{file}' HUP; trap 'exit 0' TERM; while :; do sleep 0.1; done")
}

#[test]
fn every_form_of_file_reaches_the_pod_and_a_change_is_signalled() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "db.password", "p'w 1").await?;
        t.set("prod", "user", "ada").await?;
        t.create::<SecretBinding>(&binding(&json!({
            "files": [
                {"path": "app.env", "format": "env", "include": [{"name": "user"}, {"pattern": "db.*"}]},
                {"path": "etc/app.ini", "format": "template", "template": "u={{ secrets.user }};p={{ secrets[\"db.password\"]|urlquote }}"},
            ],
            "onChange": {"signal": {"container": "app"}},
        }))?)
        .await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        let pod = start(t).await?;
        assert_eq!(pods::restarts(&pod), 0);
        let read = |path: &str| format!("cat {}", file("db", path));
        let sourced = format!("set -a; . {}; echo \"$USER $DB_PASSWORD\"", file("db", "app.env"));
        assert_eq!(t.exec("app", "app", &sourced).await?, "ada p'w 1\n");
        assert_eq!(t.exec("app", "app", &read("etc/app.ini")).await?, "u=ada;p=p%27w%201");
        // The other container has the value as a variable; it printed it.
        let namespace = format!("--namespace={}", t.namespace);
        eventually("the worker's line", CONVERGE, async || {
            let logs = t.tools().kubectl(["logs", &namespace, "app", "--container", "worker"]);
            let said = sealpod_e2e::tools::text(logs).await?;
            ensure!(said == "p'w 1\n", "{said}");
            Ok(())
        })
        .await?;
        reported(t).await?;
        asked(t).await?;
        other_shapes(t).await?;

        let count = "cd /dev/shm; for app in *; do [ -f $app ] && echo $app $(wc -l < $app); done; true";
        let heard = async || t.exec("app", "app", count).await;
        assert_eq!(heard().await?, "");
        t.set("prod", "db.password", "p'w 2").await?;
        eventually("the signal", Duration::from_secs(30), async || {
            let heard = heard().await?;
            ensure!(heard == "app 1\n", "{heard:?}");
            Ok(())
        })
        .await?;
        assert_eq!(t.exec("app", "app", &read("etc/app.ini")).await?, "u=ada;p=p%27w%202");

        too_much(t).await?;
        edited(t).await?;
        let after = t.api::<Pod>().get("app").await?;
        assert_eq!(pods::restarts(&after), 0, "nothing was started again");
        assert_eq!(after.metadata.uid, pod.metadata.uid, "the same pod");
        Ok(())
    })
}

fn binding(extra: &Value) -> Result<SecretBinding> {
    let mut spec = json!({
        "applicationRef": {"name": "shop"}, "environment": "prod", "sizeLimit": "128Ki",
        "secrets": [{"name": "db.password"}, {"name": "user"}],
    });
    for (field, value) in extra.as_object().context("an object")? {
        spec[field] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": "db"}, "spec": spec,
    }))
    .context("the test's binding is one")
}

/// A pod with an app that gets signals, one of the same user that gets none and says that it is the app, and one that
/// gets variables.
async fn start(t: &Sandbox) -> Result<Pod> {
    let [app, mut twin] = ["app", "twin"].map(|name| pods::container(name, t.image(), 10_001, &counts_hups(name)));
    twin["env"] = json!([{"name": "SEALPOD_CONTAINER", "value": "app"}]);
    let mut worker = pods::container("worker", t.image(), 10_002, "");
    let script = format!("echo \"$DB_PASSWORD\"; {}", pods::SLEEP);
    worker["command"] = json!([
        "/sealpod/exec",
        "--from",
        file("db", "").trim_end_matches('/'),
        "--only",
        "db.password",
        "--",
        "/bin/sh",
        "-c",
        script
    ]);
    let mut template = pods::template("db", &[app, twin, worker]);
    template["metadata"]["annotations"]["sealpod.dev/exec"] = json!("worker");
    template["spec"]["shareProcessNamespace"] = json!(true);
    let pod = t.running("app", pods::pod("app", template)?).await?;
    let spec = serde_json::to_value(&pod.spec)?;
    let context = ours(&spec)?;
    ensure!(
        context["runAsUser"] == 10_001 && context["runAsGroup"] == 64_999,
        "the user, never the group, of the app: {context}"
    );
    Ok(pod)
}

/// The security context of the sidecar.
fn ours(spec: &Value) -> Result<&Value> {
    let containers = spec["containers"].as_array().context("containers")?;
    let ours = containers.iter().find(|container| container["name"] == "sealpod");
    Ok(&ours.context("the sidecar")?["securityContext"])
}

/// The sidecar's program says how it is, and what it would write.
async fn asked(t: &Sandbox) -> Result<()> {
    let namespace = format!("--namespace={}", t.namespace);
    for (form, says) in [
        ("check", "user (440) <- \"user\", version 1\n"),
        ("healthz", "ok"),
        ("readyz", "ok"),
        ("metrics", "sealpod_sidecar_secret_age_seconds{binding=\"db\"} "),
        ("wait", ""),
    ] {
        let ask = [
            "exec",
            &namespace,
            "app",
            "--container",
            "sealpod",
            "--",
            "/sealpod-sidecar",
            form,
        ];
        let said = sealpod_e2e::tools::text(t.tools().kubectl(ask)).await?;
        ensure!(said.contains(says) && !said.contains("p'w"), "{form}: {said}");
    }
    Ok(())
}

/// The files are there before the app starts in the shapes that the pod has to ask for, too.
async fn other_shapes(t: &Sandbox) -> Result<()> {
    for mode in ["init", "native"] {
        let script = format!("cat {} && {}", file("db", "app.env"), pods::SLEEP);
        let mut template = pods::template("db", &[pods::container("app", t.image(), 10_001, &script)]);
        template["metadata"]["annotations"]["sealpod.dev/mode"] = json!(mode);
        template["spec"]["shareProcessNamespace"] = json!(true);
        let pod = t.running(mode, pods::pod(mode, template)?).await?;
        ensure!(pods::restarts(&pod) == 0, "{mode}: the app came before its files");
    }
    Ok(())
}

/// The server knows which versions the pod has loaded.
async fn reported(t: &Sandbox) -> Result<()> {
    let client = t.server().await?;
    eventually("the pod's report", Duration::from_secs(30), async || {
        let org = client.org(ORGANIZATION);
        let consumers = org
            .consumers(&t.namespace, "prod", None, sealpod_client::Page::default())
            .await?;
        let found = consumers.iter().find(|consumer| consumer.pod == "app");
        let found = found.with_context(|| format!("{consumers:?}"))?;
        ensure!(found.versions.len() == 2 && found.stale.is_empty(), "{found:?}");
        Ok(())
    })
    .await
}

/// An edit of the binding reaches the pod that runs.
async fn edited(t: &Sandbox) -> Result<()> {
    let edit = json!({"spec": {"files": [{"path": "edited.json", "format": "json", "include": [{"name": "user"}]}]}});
    let api = t.api::<SecretBinding>();
    api.patch("db", &PatchParams::default(), &Patch::Merge(&edit)).await?;
    eventually("the edited binding's file", REFRESH, async || {
        let read = t
            .exec("app", "app", &format!("cat {}", file("db", "edited.json")))
            .await?;
        ensure!(read == "{\n  \"user\": \"ada\"\n}\n", "{read:?}");
        Ok(())
    })
    .await?;
    let gone = format!("ls {} 2>/dev/null || echo gone", file("db", "app.env"));
    assert_eq!(t.exec("app", "app", &gone).await?, "gone\n");
    Ok(())
}

/// A value that does not fit leaves the old files, and the log says what to do.
async fn too_much(t: &Sandbox) -> Result<()> {
    t.set("prod", "user", &"x".repeat(100_000)).await?;
    eventually("the log to name the limit", Duration::from_secs(30), async || {
        let namespace = format!("--namespace={}", t.namespace);
        let logs = t.tools().kubectl(["logs", &namespace, "app", "--container", "sealpod"]);
        let logs = sealpod_e2e::tools::text(logs).await?;
        ensure!(logs.contains("raise spec.sizeLimit"), "{logs}");
        Ok(())
    })
    .await?;
    assert_eq!(
        t.exec("app", "app", &format!("cat {}", file("db", "user"))).await?,
        "ada"
    );
    t.set("prod", "user", "ada").await
}
