//! What a new user copies first.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use sealpod_e2e::sandbox::CONVERGE;
use sealpod_e2e::tools::{fed, text};
use sealpod_e2e::{eventually, on_cluster, pods};
use serde_json::{Value, json};

/// The documents of `examples/quickstart`, in the order in which `kubectl apply` takes them.
fn quickstart() -> Result<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let mut files = folder
        .read_dir()?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    let read = |path| serde_yaml::from_str(&std::fs::read_to_string(path)?).context("an example is YAML");
    files.into_iter().map(read).collect()
}

#[test]
fn the_quickstart_works_as_it_is_written() -> Result<()> {
    on_cluster(async |t| {
        let mut objects = quickstart()?;
        let namespace = objects.remove(0);
        assert_eq!(namespace["kind"], "Namespace");
        let labels = &namespace["metadata"]["labels"];
        assert_eq!(
            labels["pod-security.kubernetes.io/enforce"], "restricted",
            "as the test's own namespace"
        );
        // Only what must not meet other users of the cluster is changed.
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(t.namespace);
            match object["kind"].as_str() {
                Some("Application") => object["spec"]["slug"] = json!(t.namespace),
                Some("Deployment") => {
                    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(t.image());
                }
                _ => {}
            }
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fed(
            t.tools().kubectl(["apply", "--filename=-"]),
            list.to_string().as_bytes(),
        )
        .await?;
        t.until_ready_is::<sealpod_crds::Application>("shop", "True").await?;
        t.set("prod", "database-password", "twelve chars").await?;

        let deployments = t.api::<Deployment>();
        eventually("the app to run", pods::START, async || {
            let status = deployments.get("shop").await?.status.context("no status")?;
            ensure!(status.ready_replicas == Some(1), "{:?}", status.conditions);
            Ok(())
        })
        .await?;
        let namespace = format!("--namespace={}", t.namespace);
        eventually("the app's line", CONVERGE, async || {
            let logs = ["logs", &namespace, "deployment/shop", "--container=app"];
            let log = text(t.tools().kubectl(logs)).await?;
            ensure!(log.contains("read a new password of 12 characters"), "{log}");
            Ok(())
        })
        .await?;
        Ok(())
    })
}
