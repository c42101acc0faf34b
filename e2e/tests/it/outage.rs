//! R13: the injector, or the server, is away, or cannot be trusted.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, KeyPair};
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone, pods};
use serde_json::json;
use tokio::time::sleep;

use super::injector::{Injector, admit, is_injected};

/// R13: what asks for secrets is refused while nobody could give it them, and nothing else is.
#[test]
fn without_the_injector_only_pods_that_ask_are_refused() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "hello").await?;
        let injector = Injector::of(t);
        injector.scale(0).await?;
        let refused = async {
            // Until the last endpoint is gone, a pod may still be injected.
            until_refused(t, "").await?;
            others_are_admitted(t).await?;
            for free in ["kube-system", NAMESPACE] {
                let pods: Api<Pod> = Api::namespaced(t.client(), free);
                let pod = admit(&pods, t.image(), true).await.with_context(|| free.to_owned())?;
                assert_eq!(pods::containers(&pod), ["app"], "{free} is never touched");
            }
            deaf(t).await
        };
        let refused: Result<()> = refused.await;
        injector.scale(2).await?;
        refused?;
        let pod = t.running_app("app", pods::SLEEP).await?;
        assert!(is_injected(&pod));

        untrusted(t).await?;
        without_the_server(t).await
    })
}

/// Until a pod that asks is refused, because the webhook cannot be called, with `why` in the message.
async fn until_refused(t: &Sandbox, why: &str) -> Result<()> {
    until_refused_after(t, why, async || Ok(())).await
}

/// The same, with something to do before each look.
async fn until_refused_after(t: &Sandbox, why: &str, before: impl AsyncFn() -> Result<()>) -> Result<()> {
    let pods = t.api::<Pod>();
    eventually("the refusal", Duration::from_mins(1), async || {
        before().await?;
        match admit(&pods, t.image(), true).await {
            Err(kube::Error::Api(status)) => {
                let webhook = status.message.contains("failed calling webhook \"inject.sealpod.dev\"");
                ensure!(webhook && status.message.contains(why), "{}", status.message);
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(pod) => Err(anyhow!("it was admitted, injected: {}", is_injected(&pod))),
        }
    })
    .await
}

async fn others_are_admitted(t: &Sandbox) -> Result<()> {
    let plain = admit(&t.api::<Pod>(), t.image(), false).await?;
    assert_eq!(pods::containers(&plain), ["app"]);
    Ok(())
}

/// Behind the webhook's Service is one that takes connections and never says a word.
async fn deaf(t: &Sandbox) -> Result<()> {
    let listen = pods::container("app", t.image(), 10_001, "exec nc -ll -p 8443 -e sleep 60");
    let mut template = pods::template("none", &[listen]);
    template["metadata"]["labels"] = json!({});
    let pod = t.running("deaf", pods::pod("deaf", template)?).await?;
    let address = pod
        .status
        .and_then(|status| status.pod_ip)
        .context("it has an address")?;
    let slices: Api<EndpointSlice> = Api::namespaced(t.client(), NAMESPACE);
    let slice = serde_json::from_value(json!({
        "metadata": {"name": "e2e-deaf", "labels": {"kubernetes.io/service-name": object("injector")}},
        "addressType": "IPv4",
        "ports": [{"name": "webhook", "port": 8443, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    }))?;
    slices.create(&PostParams::default(), &slice).await?;
    let refused = async {
        until_refused(t, "deadline exceeded").await?;
        others_are_admitted(t).await
    };
    let refused: Result<()> = refused.await;
    slices.delete("e2e-deaf", &DeleteParams::default()).await?;
    refused
}

/// The API server is told to trust somebody else; the injector hears of that and puts it back at once, so it is told so
/// again before each look. What is served when its time is over is a matter of the operator's own tests, where years take
/// no time.
async fn untrusted(t: &Sandbox) -> Result<()> {
    let other = CertificateParams::default().self_signed(&KeyPair::generate()?)?.pem();
    until_refused_after(t, "certificate", async || trust(t, &other).await).await?;
    trust(t, &other).await?;
    others_are_admitted(t).await?;
    eventually("the injector's CA", Duration::from_mins(1), async || {
        Ok(admit(&t.api::<Pod>(), t.image(), true).await?)
    })
    .await
    .map(drop)
}

/// Has the API server trust `bundle` alone, however fast the injector writes to the same object.
async fn trust(t: &Sandbox, bundle: &str) -> Result<()> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(t.client());
    loop {
        let mut configuration = configurations.get(&object("injector")).await?;
        for webhook in configuration.webhooks.iter_mut().flatten() {
            webhook.client_config.ca_bundle = Some(ByteString(bundle.as_bytes().to_vec()));
        }
        let replaced = configurations
            .replace(&object("injector"), &PostParams::default(), &configuration)
            .await;
        match replaced {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Pods of both shapes wait while the server is away, are not failed by it, and go at once when they are deleted.
async fn without_the_server(t: &Sandbox) -> Result<()> {
    let servers: Api<StatefulSet> = Api::namespaced(t.client(), NAMESPACE);
    let scale = async |replicas: i32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        servers
            .patch(&object("api-server"), &PatchParams::default(), &patch)
            .await
    };
    t.hang_up().await;
    scale(0).await?;
    let waited = async {
        let pods = t.api::<Pod>();
        for (name, policy) in pods::POLICIES {
            let template = pods::of_policy(policy, t.image(), pods::SLEEP);
            t.create(&pods::pod(name, template)?).await?;
        }
        for (name, _) in pods::POLICIES {
            pods::until_ours_runs(&pods, name).await?;
        }
        sleep(Duration::from_secs(1)).await;
        for (name, _) in pods::POLICIES {
            let pod = pods.get(name).await?;
            assert!(
                pods::ready(&pod).is_err() && pods::restarts(&pod) == 0,
                "{name} waits in one go"
            );
            pods.delete(name, &DeleteParams::default()).await?;
        }
        for (name, _) in pods::POLICIES {
            eventually("the pod to go", Duration::from_secs(15), async || {
                let there = pods.get_opt(name).await?.is_some();
                ensure!(!there, "{name} is still there");
                Ok(())
            })
            .await?;
        }
        Ok(())
    };
    let waited: Result<()> = waited.await;
    scale(1).await?;
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    eventually("the api-server", pods::START, async || {
        let server = pods.get_opt(&format!("{}-0", object("api-server"))).await?;
        pods::ready(&server.context("its pod is not there yet")?)
    })
    .await?;
    waited
}
