//! Which pods are changed, and which refused.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use sealpod_core::kubernetes::annotations;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::json;

/// Why the cluster refuses a pod.
async fn refusal(t: &Sandbox, pod: &Pod) -> Result<String> {
    match t.api::<Pod>().create(&PostParams::default(), pod).await {
        Ok(_) => Err(anyhow!("the pod was admitted")),
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(error) => Err(error).context("the cluster does not answer"),
    }
}

#[test]
fn a_pod_whose_binding_does_not_exist_is_refused_with_its_name() -> Result<()> {
    on_cluster(async |t| {
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let pod = pods::pod("app", pods::template("payments-database", &[app]))?;
        let message = refusal(t, &pod).await?;
        assert!(message.contains("payments-database"), "{message}");
        assert!(message.contains(&t.namespace), "it says where it looked: {message}");
        Ok(())
    })
}

#[test]
fn a_pod_without_the_label_is_left_as_it_is() -> Result<()> {
    on_cluster(async |t| {
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let mut template = pods::template("db", &[app]);
        template["metadata"]["labels"] = json!({});
        // One from before there was any binding, and one from after.
        let before = t.running("before", pods::pod("before", template.clone())?).await?;
        t.delivery("password", "not for them").await?;
        let after = t.running("after", pods::pod("after", template)?).await?;
        for pod in [&before, &after, &t.until_running("before").await?] {
            assert_eq!(pods::containers(pod), ["app"]);
            let spec = pod.spec.as_ref().context("a pod has a spec")?;
            assert_eq!(spec.volumes.as_ref().map_or(0, Vec::len), 0, "no volume was added");
            let annotations = pod.metadata.annotations.as_ref();
            assert!(annotations.is_none_or(|all| !all.contains_key(annotations::INJECTED)));
        }
        assert_eq!(before.metadata.uid, t.until_running("before").await?.metadata.uid);
        Ok(())
    })
}

#[test]
fn injected_pods_keep_to_the_restricted_standard_and_say_what_they_got() -> Result<()> {
    on_cluster(async |t| {
        let mut privileged = pods::container("app", t.image(), 10_001, pods::SLEEP);
        privileged["securityContext"] = json!({"privileged": true});
        let mut template = pods::template("db", &[privileged]);
        template["metadata"]["labels"] = json!({});
        let message = refusal(t, &pods::pod("privileged", template)?).await?;
        assert!(
            message.contains("PodSecurity"),
            "the namespace enforces the standard: {message}"
        );

        t.delivery("password", "hello").await?;
        let pod = t.running_app("app", pods::SLEEP).await?;
        assert_eq!(pods::containers(&pod), ["sealpod-init", "app", "sealpod"]);
        let annotations = pod.metadata.annotations.context("it has annotations")?;
        assert_eq!(annotations.get(annotations::INJECTED).map(String::as_str), Some("db"));
        let spec = pod.spec.context("it has a spec")?;
        let app = spec
            .containers
            .iter()
            .find(|container| container.name == "app")
            .context("app")?;
        let key_volumes = app
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| mount.name.starts_with("sealpod-key-"));
        assert_eq!(key_volumes.count(), 0, "the key is the sidecar's alone");
        Ok(())
    })
}

#[test]
fn a_pod_that_waits_for_its_secret_can_be_deleted_at_once() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.binding("db", "prod", &["never-set"]).await?;
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        t.create_patiently(&pods::pod("app", pods::template("db", &[app]))?)
            .await?;
        let pods = t.api::<Pod>();
        eventually("the pod to be on its node", pods::START, async || {
            let status = pods.get("app").await?.status.unwrap_or_default();
            status.pod_ip.context("it has no address yet")
        })
        .await?;
        pods.delete("app", &kube::api::DeleteParams::default()).await?;
        eventually("the pod to go", Duration::from_secs(30), async || {
            match pods.get_opt("app").await? {
                None => Ok(()),
                Some(_) => Err(anyhow!("it is still there")),
            }
        })
        .await
    })
}
