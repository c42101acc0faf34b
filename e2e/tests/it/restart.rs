//! The api-server goes away under running pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{eventually, on_cluster_alone, pods};
use tokio::time::sleep;

#[test]
fn a_restart_of_the_api_server_leaves_the_files_of_running_pods_alone() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "before").await?;
        let pod = t.running_app("app", pods::SLEEP).await?;
        // The directory behind `..data` is new after every write, so its name shows whether anything was written.
        let look = format!("readlink {} && cat {}", file("db", "..data"), file("db", "password"));
        let written = t.exec("app", "app", &look).await?;

        let servers: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        let name = format!("{}-0", object("api-server"));
        let old = servers.get(&name).await?.metadata.uid;
        servers.delete(&name, &DeleteParams::default()).await?;
        eventually("the old api-server to go", Duration::from_mins(1), async || {
            assert_eq!(t.exec("app", "app", &look).await?, written);
            let new = servers.get_opt(&name).await?.and_then(|pod| pod.metadata.uid);
            ensure!(new != old, "it is still there");
            Ok(())
        })
        .await?;
        eventually("the new api-server", pods::START, async || {
            assert_eq!(t.exec("app", "app", &look).await?, written);
            let server = servers.get_opt(&name).await?.context("its pod is not there yet")?;
            pods::ready(&server)
        })
        .await?;
        t.hang_up().await;
        // Time for the sidecar to notice and to ask again.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(
            t.exec("app", "app", &look).await?,
            written,
            "nothing changed, so nothing was written"
        );
        let after = t.until_running("app").await?;
        assert_eq!(after.metadata.uid, pod.metadata.uid);
        assert_eq!(pods::restarts(&after), 0, "no container was started again");

        t.set("prod", "password", "after").await?;
        eventually("an update after the restart", Duration::from_secs(90), async || {
            let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
            ensure!(seen == "after", "the file still says {seen:?}");
            Ok(())
        })
        .await
    })
}
