//! What a node does to the pods on it: its kubelet starts anew, and pods are moved away.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams};
use sealpod_client::Page;
use sealpod_e2e::sandbox::file;
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster, on_cluster_alone, pods, tools};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// A regular sidecar, and a native one that a Job waits beside.
#[test]
fn a_kubelet_that_starts_anew_finds_the_pods_at_work_and_their_files_fresh() -> Result<()> {
    on_cluster_alone(async |t| {
        let Some(mut restart) = t.restart_of("kubelet") else {
            eprintln!("passed over: the kubelet of this cluster is not ours to restart");
            return Ok(());
        };
        t.delivery("password", "before").await?;
        let password = file("db", "password");
        let before = t.running_app("app", pods::SLEEP).await?;
        let script = format!("while [ \"$(cat {password})\" != after ]; do sleep 0.2; done");
        let mut template = pods::template("db", &[pods::container("work", t.image(), 10_001, &script)]);
        template["spec"]["restartPolicy"] = json!("Never");
        let job = json!({"metadata": {"name": "work"}, "spec": {"template": template, "backoffLimit": 0}});
        t.create::<Job>(&serde_json::from_value(job)?).await?;
        let jobs = t.api::<Job>();
        eventually("the Job's pod to be ready", pods::START, async || {
            let ready = jobs.get("work").await?.status.and_then(|status| status.ready);
            ensure!(ready == Some(1), "{ready:?}");
            Ok(())
        })
        .await?;

        restart.stdout(Stdio::null()).stderr(Stdio::piped());
        tools::output(restart).await?;
        // The way to the server went through the former kubelet; this one has to hear of its pods first.
        t.hang_up().await;
        eventually("the new kubelet to know its pods", SOON, async || {
            t.set("prod", "password", "after").await
        })
        .await?;
        eventually("the change", SOON, async || {
            let seen = t.exec("app", "app", &format!("cat {password}")).await?;
            ensure!(seen == "after", "{seen}");
            Ok(())
        })
        .await?;
        eventually("the Job to complete", Duration::from_mins(1), async || {
            let status = jobs.get("work").await?.status.context("no status")?;
            ensure!(status.succeeded == Some(1), "{status:?}");
            Ok(())
        })
        .await?;
        t.running_app("later", pods::SLEEP).await?;
        let after = t.until_running("app").await?;
        assert_eq!(after.uid(), before.uid());
        assert_eq!(pods::restarts(&after), 0, "no container was started again");
        Ok(())
    })
}

#[test]
fn a_pod_that_is_evicted_takes_itself_off_the_list_and_the_next_one_is_on_it() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "value").await?;
        let mut template = pods::template("db", &[pods::container("app", t.image(), 10_001, pods::SLEEP)]);
        template["metadata"]["labels"]["app"] = json!("moved");
        let deployment = json!({
            "metadata": {"name": "moved"},
            "spec": {"selector": {"matchLabels": {"app": "moved"}}, "template": template},
        });
        t.create_patiently::<Deployment>(&serde_json::from_value(deployment)?)
            .await?;
        let first = until_on_the_list(t, None).await?;
        t.api::<Pod>().evict(&first, &EvictParams::default()).await?;
        let second = until_on_the_list(t, Some(&first)).await?;
        let seen = t
            .exec(&second, "app", &format!("cat {}", file("db", "password")))
            .await?;
        assert_eq!(seen, "value");
        Ok(())
    })
}

/// The only pod of the Deployment, once it is ready and the server knows it and no other.
async fn until_on_the_list(t: &Sandbox, former: Option<&str>) -> Result<String> {
    let client = t.server().await?;
    let selected = ListParams::default().labels("app=moved");
    eventually("one pod, ready and known to the server", pods::START, async || {
        let listed = t.api::<Pod>().list(&selected).await?;
        let [pod] = &listed.items[..] else {
            return Err(anyhow::anyhow!("{} pods", listed.items.len()));
        };
        let name = pod.name_any();
        ensure!(former != Some(name.as_str()), "{name} is still there");
        pods::ready(pod)?;
        let org = client.org(ORGANIZATION);
        let consumers = org.consumers(&t.namespace, "prod", None, Page::default()).await?;
        let known: Vec<_> = consumers.iter().map(|consumer| consumer.pod.as_str()).collect();
        ensure!(known == [name.as_str()], "{known:?}, not {name}");
        Ok(name)
    })
    .await
}
