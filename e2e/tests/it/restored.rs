//! The api-server is put on a restored database, as docs/OPERATIONS.md says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use sealpod_core::kubernetes::key_secret_name;
use sealpod_crds::SecretBinding;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::tools::text;
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone, pods};
use serde_json::json;

use crate::page;

/// New keys for every binding, and a poll of every sidecar, on a loaded machine.
const HEALED: Duration = Duration::from_mins(3);

#[test]
fn operator_and_sidecars_heal_by_themselves_behind_a_restore() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "before").await?;
        t.running_app("app", pods::SLEEP).await?;
        let server = format!("{}-0", object("api-server"));
        let in_the_server = |arguments: &[&str]| {
            let exec = ["exec", "--namespace", NAMESPACE, &server, "--", "/sealpod-api-server"];
            t.tools().kubectl(exec.iter().chain(arguments))
        };
        let made = text(in_the_server(&["backup", "create"])).await?;
        assert!(made.contains("opened and checked"), "{made}");
        // What came later is not in it: a value, and a binding whose account the restored server does not know.
        t.set("prod", "password", "after").await?;
        t.binding("late", "prod", &["password"]).await?;
        t.until_ready_is::<SecretBinding>("late", "True").await?;
        until_the_file_says(t, "after").await?;
        let keys: Api<Secret> = t.api();
        let key = key_secret_name("db");
        let old = keys.get(&key).await?.data;

        t.hang_up().await;
        let drilled = page::run(t, "Restore drill").await?;
        assert!(drilled.contains("the database in it is sound and opens"), "{drilled}");
        let switched = page::run(t, "Restore").await;
        // However that ended, the next test finds a server.
        let servers: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(t.client(), NAMESPACE);
        let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
        servers
            .patch_scale(&object("api-server"), &PatchParams::default(), &scale)
            .await?;
        let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        switched?;
        eventually("the server to be ready", pods::START, async || {
            let server = pods.get_opt(&server).await?.context("its pod is not there yet")?;
            pods::ready(&server)
        })
        .await?;

        until_the_file_says(t, "before").await?;
        assert_ne!(keys.get(&key).await?.data, old, "the old key was revoked");
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        t.until_ready_is::<SecretBinding>("late", "True").await?;
        t.set("prod", "password", "again").await?;
        until_the_file_says(t, "again").await?;
        let pod = t.until_running("app").await?;
        assert_eq!(pods::restarts(&pod), 0, "nobody had to start it anew");
        Ok(())
    })
}

async fn until_the_file_says(t: &Sandbox, value: &str) -> Result<()> {
    eventually(&format!("the file to say {value}"), HEALED, async || {
        let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
        ensure!(seen == value, "it says {seen:?}");
        Ok(())
    })
    .await
}
