//! The injector restarts and changes its certificates, while pods are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use sealpod_core::kubernetes::annotations;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::{Value, json};
use tokio::time::sleep;

/// A release's part has rolled out within this.
const ROLL: Duration = Duration::from_mins(2);

/// A pod that asks for injection, or does not; admitted, but never made.
pub async fn admit(pods: &Api<Pod>, image: &str, asks: bool) -> Result<Pod, kube::Error> {
    let app = pods::container("app", image, 10_001, pods::SLEEP);
    let mut template = pods::template("db", &[app]);
    if !asks {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["generateName"] = json!("app-");
    let pod: Pod = serde_json::from_value(template).expect("the test's pod is a pod");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    pods.create(&dry, &pod).await
}

pub fn is_injected(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(annotations::INJECTED)) && pods::containers(pod).contains(&"sealpod")
}

/// The injector's Deployment.
pub struct Injector(Api<Deployment>);

impl Injector {
    pub fn of(t: &Sandbox) -> Self {
        Self(Api::namespaced(t.client(), NAMESPACE))
    }

    async fn patch(&self, patch: &Value) -> Result<()> {
        let name = object("injector");
        self.0
            .patch(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await?;
        self.until_rolled_out().await
    }

    pub async fn until_rolled_out(&self) -> Result<()> {
        eventually("the injector to be as wanted", ROLL, async || {
            let deployment = self.0.get(&object("injector")).await?;
            let wanted = deployment.spec.replicas;
            let generation = deployment.metadata.generation;
            let status = deployment.status.context("it has no status")?;
            ensure!(status.observed_generation == generation, "its change is not seen yet");
            ensure!(
                status.updated_replicas.or(Some(0)) == wanted
                    && status.ready_replicas.or(Some(0)) == wanted
                    && status.replicas.or(Some(0)) == wanted,
                "{status:?}"
            );
            Ok(())
        })
        .await
    }

    pub async fn scale(&self, replicas: i32) -> Result<()> {
        self.patch(&json!({"spec": {"replicas": replicas}})).await
    }

    /// Sets variables of its container, which makes it roll; null takes one away.
    async fn set(&self, variables: &[(&str, &str)]) -> Result<()> {
        let env: Vec<Value> = variables
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let container = json!({"name": "injector", "env": env});
        self.patch(&json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
            .await
    }
}

/// Admits pods one after the other until it is told to stop.
pub struct Creating {
    stop: Arc<AtomicBool>,
    admitted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Creating {
    pub fn start(t: &Sandbox) -> Self {
        let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&admitted));
        let (pods, image) = (t.api::<Pod>(), t.image().to_owned());
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match admit(&pods, &image, true).await {
                    Ok(pod) if is_injected(&pod) => {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => failures.push("a pod was not injected".to_owned()),
                    Err(error) => failures.push(error.to_string()),
                }
                sleep(Duration::from_millis(20)).await;
            }
            failures
        });
        Self { stop, admitted, task }
    }

    pub async fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.task.await?;
        let admitted = self.admitted.load(Ordering::Relaxed);
        println!("{admitted} pods were admitted, {} were not", failures.len());
        ensure!(
            failures.is_empty(),
            "{} failed, the first: {}",
            failures.len(),
            failures[0]
        );
        ensure!(admitted > 100, "only {admitted} were tried");
        Ok(())
    }
}

/// The certificates that the API server trusts.
pub async fn trusted(t: &Sandbox) -> Result<String> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(t.client());
    let webhooks = configurations
        .get(&object("injector"))
        .await?
        .webhooks
        .unwrap_or_default();
    let bundle = webhooks
        .first()
        .and_then(|webhook| webhook.client_config.ca_bundle.clone());
    Ok(String::from_utf8(bundle.context("no CA is registered")?.0)?)
}

/// How many it trusts, and which it is shown.
async fn certificates(t: &Sandbox) -> Result<(usize, String)> {
    let bundle = trusted(t).await?;
    let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
    let data = secrets.get(&object("webhook-tls")).await?.data.unwrap_or_default();
    let leaf = data.get("tls.crt").context("it holds a certificate")?;
    Ok((
        bundle.matches("BEGIN CERTIFICATE").count(),
        String::from_utf8(leaf.0.clone())?,
    ))
}

/// Two rolling restarts, a CA that is lost, and certificates that live for less than a minute, while a pod is admitted
/// (server-side dry-run, which is all of the admission) every few milliseconds.
#[test]
fn restarts_and_a_rotation_of_ca_and_certificate_fail_no_pod() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "hello").await?;
        let pods = t.api::<Pod>();
        eventually(
            "the injector to know the binding",
            Duration::from_secs(15),
            async || Ok(admit(&pods, t.image(), true).await?),
        )
        .await?;
        let injector = Injector::of(t);
        let creating = Creating::start(t);
        let rotated = async {
            let (_, first) = certificates(t).await?;
            let short = [("SEALPOD_CERTIFICATE_LIFE", "45s"), ("SEALPOD_AUTHORITY_LIFE", "135s")];
            injector.set(&short).await?;
            let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
            secrets.delete(&object("webhook-ca"), &DeleteParams::default()).await?;
            eventually("a second CA beside the first", Duration::from_mins(1), async || {
                let (authorities, _) = certificates(t).await?;
                ensure!(authorities == 2, "{authorities} are trusted");
                Ok(())
            })
            .await?;
            let mut seen = vec![first];
            eventually(
                "the new CA alone, and two new certificates",
                Duration::from_mins(3),
                async || {
                    let (authorities, leaf) = certificates(t).await?;
                    if !seen.contains(&leaf) {
                        seen.push(leaf);
                    }
                    ensure!(
                        authorities == 1 && seen.len() >= 3,
                        "{authorities} CAs, {} certificates",
                        seen.len()
                    );
                    Ok(())
                },
            )
            .await?;
            seen.pop().context("there are some")
        };
        let rotated: Result<String> = rotated.await;
        // As the chart has it.
        let usual = [
            ("SEALPOD_CERTIFICATE_LIFE", "2160h"),
            ("SEALPOD_AUTHORITY_LIFE", "87648h"),
        ];
        injector.set(&usual).await?;
        let before = rotated?;
        eventually("a certificate that lives long", Duration::from_mins(3), async || {
            let (authorities, leaf) = certificates(t).await?;
            ensure!(authorities == 2 && leaf != before, "{authorities} CAs");
            Ok(())
        })
        .await?;
        creating.end().await
    })
}
