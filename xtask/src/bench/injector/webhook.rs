//! The webhook over TLS, with many bindings in the cluster.
//!
//! It runs as a process of this machine, against the API server of the local cluster; that one does not call it, the bench
//! does. What it keeps there is in a namespace of its own and goes with it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use sealpod_crds::{NextChange, SecretBinding};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::bars::{Bars, Depends, Limit};
use super::super::child::{self, Running};
use super::super::figures::{Rows, mib, milliseconds, shown};
use super::super::http;
use super::super::operator::apply_definitions;
use super::super::wrk::{Load, Plan, Wrk};
use super::Options;
use crate::cluster::Cluster;
use crate::process::Failure;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Where its objects are; removed at the end.
const NAMESPACE: &str = "sealpod-bench-injector";
/// Name of what is not in a namespace.
const NAME: &str = "sealpod-bench-injector";
const MANAGER: &str = "sealpod-bench";
/// Objects that are made at a time.
const AT_A_TIME: usize = 32;
const START_WITHIN: Duration = Duration::from_mins(1);
/// Kubernetes deletes the objects of a namespace one after the other, and a busy machine has taken more than a minute over
/// 2,500 of them.
const GONE_WITHIN: Duration = Duration::from_mins(10);
const CONNECTIONS: [usize; 2] = [1, 16];
/// Bars of 16 connections, and of memory.
const MOST_P99: f64 = 10.0;
const LEAST_RATE: f64 = 5_000.0;
const MOST_MIB: f64 = 16.0;

/// What the measurement needs.
pub struct Stage<'a> {
    pub workspace: &'a Workspace,
    pub cluster: &'a Cluster,
    pub program: &'a Path,
    pub directory: &'a Path,
    pub runtime: &'a Runtime,
    pub wrk: &'a Wrk,
}

/// The process, and how to ask it.
struct Webhook {
    address: SocketAddr,
    path: String,
    process: Running,
}

pub fn measure(
    options: &Options,
    stage: &Stage<'_>,
    progress: &mut Progress,
    (bars, rows): (&mut Bars, &mut Rows),
) -> Result<()> {
    let client = stage.runtime.block_on(client(stage.cluster))?;
    let title = format!("Making {} SecretBindings", options.bindings);
    progress.step(&title, |_| {
        apply_definitions(stage.workspace, stage.cluster)?;
        stage.runtime.block_on(prepare(&client, options.bindings))
    })?;
    let webhook = progress.step("Starting the injector", |_| start(stage, &client))?;
    for connections in CONNECTIONS {
        let title = format!("Asking it on {connections} connections");
        let load = progress.step(&title, |_| ask(options, stage, &webhook, connections))?;
        rows.add(
            &format!("webhook over TLS, {connections} connections"),
            &format!(
                "{} a second, p50 {} ms, p99 {} ms",
                shown(load.rate()),
                shown(milliseconds(load.p50)),
                shown(milliseconds(load.p99))
            ),
        );
        if connections == 16 {
            let p99 = milliseconds(load.p99);
            bars.hold(
                "webhook p99, 16 connections",
                Limit::AtMost(MOST_P99),
                "ms",
                Depends::OnNothing,
                p99,
            );
            bars.hold(
                "webhook, 16 connections",
                Limit::AtLeast(LEAST_RATE),
                "/s",
                Depends::OnNothing,
                load.rate(),
            );
        }
    }
    let memory = child::memory(webhook.process.pid())?;
    rows.add(
        &format!("resident memory with {} bindings, behind that", options.bindings),
        &format!(
            "{} MiB, at the most {} MiB",
            shown(mib(memory.resident)),
            shown(mib(memory.peak))
        ),
    );
    bars.hold(
        &format!("memory with {} bindings", options.bindings),
        Limit::AtMost(MOST_MIB),
        "MiB",
        Depends::OnNothing,
        mib(memory.resident),
    );
    webhook.process.stop()?;
    progress.step("Removing them", |_| stage.runtime.block_on(remove(&client)))
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// A namespace, a webhook configuration that no request goes to, and the bindings, each with a status.
async fn prepare(client: &Client, bindings: usize) -> Result<()> {
    let apply = PatchParams::apply(MANAGER).force();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces.patch(NAMESPACE, &apply, &Patch::Apply(namespace)).await?;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let _ = configurations.delete(NAME, &DeleteParams::default()).await;
    let configuration = json!({
        "metadata": {"name": NAME},
        "webhooks": [{
            "name": "bench.sealpod.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Ignore", "objectSelector": {"matchLabels": {"sealpod.dev/bench": "nothing"}},
            "clientConfig": {"service": {"name": NAME, "namespace": NAMESPACE}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        }],
    });
    configurations
        .create(&PostParams::default(), &serde_json::from_value(configuration)?)
        .await?;
    let api: Api<SecretBinding> = Api::namespaced(client.clone(), NAMESPACE);
    futures::stream::iter(0..bindings)
        .map(|number| {
            let (api, apply) = (api.clone(), apply.clone());
            async move {
                let name = name(number);
                api.patch(&name, &apply, &Patch::Apply(binding(&name))).await?;
                let status = json!({"status": status(&name)});
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                    .await?;
                Ok::<_, anyhow::Error>(())
            }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
}

fn name(number: usize) -> String {
    format!("binding-{number:05}")
}

/// As users write them.
fn binding(name: &str) -> Value {
    let secrets: Vec<_> = (0..5).map(|n| json!({"name": format!("{name}-secret-{n}")})).collect();
    json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": name},
        "spec": {
            "applicationRef": {"name": "shop"}, "environment": "prod", "secrets": secrets,
            "podSelector": {"matchLabels": {"app": name}}, "serviceAccountNames": ["default", name],
        },
    })
}

/// With all that the injector keeps of one: why it is not ready, what is not there, and what the clock changes next.
fn status(name: &str) -> Value {
    let secret = |n: usize| json!({"name": format!("{name}-secret-{n}"), "version": 1, "state": "Missing"});
    let condition = json!({
        "type": "Ready", "status": "False", "reason": "SecretsMissing",
        "message": "no active version of some of them: set a value, or make it optional",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let changes = |n: usize| json!({"name": format!("{name}-secret-{n}"), "change": "Begins"});
    json!({
        "secrets": (0..5).map(secret).collect::<Vec<_>>(), "conditions": [condition],
        "nextChangeAt": "2100-01-01T00:00:00Z",
        "nextChange": {"secrets": (0..NextChange::MOST_NAMED).map(changes).collect::<Vec<_>>(), "more": 2},
    })
}

fn start(stage: &Stage<'_>, client: &Client) -> Result<Webhook> {
    let log = stage.directory.join("injector.log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let ((_held, address), (_also, probes)) = (http::free_address()?, http::free_address()?);
    let mut command = child::command(stage.program);
    command.args([
        "injector",
        "--server-url",
        "https://sealpod-api-server.sealpod.svc:7100",
    ]);
    command.args(["--sidecar-image", "sealpod.dev/sealpod-sidecar:bench"]);
    command.args(["--webhook-configuration", NAME, "--webhook-service", NAME]);
    command.args(["--ca-secret", "ca", "--tls-secret", "tls", "--namespace", NAMESPACE]);
    command.args([
        "--listen",
        &address.to_string(),
        "--metrics-listen",
        &probes.to_string(),
    ]);
    command
        .env("KUBECONFIG", stage.cluster.kubeconfig())
        .env("SEALPOD_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let began = Instant::now();
    let mut process = Running::start(&mut command)?;
    while !matches!(http::get(probes, "/readyz"), Ok((200, _))) {
        if process.has_ended() || began.elapsed() > START_WITHIN {
            return Err(Failure::new("the injector does not become ready").log(&log).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let data = stage.runtime.block_on(secrets.get("tls"))?.data.unwrap_or_default();
    let segment = data.get("webhook-path-segment").context("the path is in the Secret")?;
    Ok(Webhook {
        address,
        path: format!("/mutate/{}", std::str::from_utf8(&segment.0)?),
        process,
    })
}

fn ask(options: &Options, stage: &Stage<'_>, webhook: &Webhook, connections: usize) -> Result<Load> {
    let plan = Plan {
        name: "the webhook",
        address: webhook.address,
        method: "POST",
        path: webhook.path.clone(),
        keys: 1,
        headers: vec![],
        body: Some(review(options.bindings).to_string()),
        expect: 200,
    };
    stage.wrk.check(&plan, connections)?;
    stage.wrk.run(&plan, connections, options.seconds)
}

/// As an API server asks for a pod of a Deployment.
fn review(bindings: usize) -> Value {
    let binding = name(bindings / 2);
    let token = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "shop-6d4cf56db6-", "namespace": NAMESPACE,
            "labels": {"app": binding, "pod-template-hash": "6d4cf56db6", "sealpod.dev/inject": "true"},
            "annotations": {"sealpod.dev/binding": binding},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-6d4cf56db6", "uid": "0", "controller": true}],
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "registry.example.com/shop:1", "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}, "volumeMounts": [token],
                "env": [{"name": "MODE", "value": "production"}], "imagePullPolicy": "IfNotPresent",
            }],
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [], "defaultMode": 420}}],
            "restartPolicy": "Always", "serviceAccountName": "default", "securityContext": {}, "dnsPolicy": "ClusterFirst",
        },
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0f7e5c2a-0000-4000-8000-000000000000", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": NAMESPACE, "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "object": pod,
            "oldObject": null, "dryRun": false, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

async fn remove(client: &Client) -> Result<()> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    configurations.delete(NAME, &DeleteParams::default()).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    let begun = Instant::now();
    while namespaces.get_opt(NAMESPACE).await?.is_some() {
        if begun.elapsed() > GONE_WITHIN {
            let advice = format!("look what holds it: kubectl get namespace {NAMESPACE} -o yaml");
            return Err(Failure::new("the bench's namespace does not go").advice(advice).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
