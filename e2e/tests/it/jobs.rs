//! Pods that end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{eventually, on_cluster, pods};
use serde_json::json;

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
