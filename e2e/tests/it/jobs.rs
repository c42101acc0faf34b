//! Pods that others make: of Jobs, which end, and of workloads that last.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::ListParams;
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{eventually, on_cluster, pods};
use serde_json::{Value, json};

#[test]
fn a_job_with_the_sidecar_finishes_by_itself() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "for the job").await?;
        let script = format!("[ \"$(cat {})\" = 'for the job' ]", file("db", "password"));
        let mut template = pods::template("db", &[pods::container("work", t.image(), 10_001, &script)]);
        template["spec"]["restartPolicy"] = json!("Never");
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": "work"},
            "spec": {"template": template, "backoffLimit": 0},
        }))?;
        t.create(&job).await?;
        let jobs = t.api::<Job>();
        eventually("the Job to complete", Duration::from_mins(3), async || {
            let status = jobs.get("work").await?.status.context("no status")?;
            ensure!(status.failed.unwrap_or(0) == 0, "its pod failed");
            ensure!(
                status.succeeded == Some(1),
                "active: {:?}, ready: {:?}",
                status.active,
                status.ready
            );
            Ok(())
        })
        .await
    })
}

#[test]
fn pods_of_every_kind_of_workload_have_their_files_before_they_start() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "for all").await?;
        let template = |policy: &str, then: &str| {
            let script = format!(
                "[ \"$(cat {})\" = 'for all' ] || exit 1; {then}",
                file("db", "password")
            );
            let mut template = pods::template("db", &[pods::container("app", t.image(), 10_001, &script)]);
            template["metadata"]["labels"]["app"] = json!("all");
            template["spec"]["restartPolicy"] = json!(policy);
            template
        };
        let selector = json!({"matchLabels": {"app": "all"}});
        let lasting = |kind: &str| {
            json!({
                "metadata": {"name": kind},
                "spec": {"selector": selector, "serviceName": kind, "template": template("Always", pods::SLEEP)},
            })
        };
        // Of a group of its own, which Kubernetes gives the volumes too.
        let mut stateful = lasting("statefulset");
        stateful["spec"]["template"]["spec"]["securityContext"] = json!({"fsGroup": 4_711});
        let without = |mut object: Value| {
            object["spec"]
                .as_object_mut()
                .expect("it has a spec")
                .remove("serviceName");
            object
        };
        let job = json!({"spec": {"template": template("OnFailure", "true"), "backoffLimit": 0}});
        let every_minute = json!({"metadata": {"name": "cron"}, "spec": {"schedule": "* * * * *", "jobTemplate": job}});
        t.create::<CronJob>(&serde_json::from_value(every_minute)?).await?;
        t.create::<Deployment>(&serde_json::from_value(without(lasting("deployment")))?)
            .await?;
        t.create::<StatefulSet>(&serde_json::from_value(stateful)?).await?;
        t.create::<DaemonSet>(&serde_json::from_value(without(lasting("daemonset")))?)
            .await?;

        eventually("a pod of each to be ready", pods::START, async || {
            let deployment = t
                .api::<Deployment>()
                .get("deployment")
                .await?
                .status
                .and_then(|s| s.ready_replicas);
            let stateful = t
                .api::<StatefulSet>()
                .get("statefulset")
                .await?
                .status
                .and_then(|s| s.ready_replicas);
            let daemon = t
                .api::<DaemonSet>()
                .get("daemonset")
                .await?
                .status
                .map(|s| s.number_ready);
            let ready = [deployment, stateful, daemon];
            ensure!(ready == [Some(1); 3], "ready: {ready:?}");
            Ok(())
        })
        .await?;
        eventually("a Job of the CronJob to complete", Duration::from_mins(3), async || {
            let jobs = t.api::<Job>().list(&ListParams::default()).await?;
            let ended = jobs
                .iter()
                .filter_map(|job| job.status.as_ref()?.succeeded)
                .sum::<i32>();
            ensure!(ended >= 1, "{} Jobs, none is complete", jobs.items.len());
            Ok(())
        })
        .await
    })
}
