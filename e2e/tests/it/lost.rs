//! The server gets its master key back, and an older version its database, as docs/OPERATIONS.md says.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use sealpod_crds::SecretBinding;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone, pods};
use serde_json::json;

use crate::page;

/// New keys for every binding, and a poll of every sidecar, on a loaded machine.
const HEALED: Duration = Duration::from_mins(3);
/// What stands in for the key generator of age, which not every machine has: a pair of keys that is used nowhere else.
const AGE_KEYGEN: &str = "#!/bin/sh
cat > \"$2\" <<KEY
# public key: age19zlq5grj66jxney29qyhy8cstdvfxczj0jy377kfr74p7eu34qzqmwkpk8
AGE-SECRET-KEY-1PRXHQHZQFGNZ922NDQ4S4XXLEYU3EZXACH48XFMTYXPAKHT2NDVSLXWM80
KEY
";

/// A master key of nothing.
const OTHER_KEY: &str = "8c264a6aae665f0228087db79ac50bfbb888cb6f4e227504d9083dfdfcf88551";

fn server() -> String {
    format!("{}-0", object("api-server"))
}

async fn scale(t: &Sandbox, replicas: i32) -> Result<()> {
    let servers: Api<StatefulSet> = Api::namespaced(t.client(), NAMESPACE);
    let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let name = object("api-server");
    servers.patch_scale(&name, &PatchParams::default(), &scale).await?;
    Ok(())
}

async fn until_the_server_is_ready(t: &Sandbox) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    eventually("the server to be ready", pods::START, async || {
        let server = pods.get_opt(&server()).await?.context("its pod is not there yet")?;
        ensure!(server.metadata.deletion_timestamp.is_none(), "the one of before goes");
        pods::ready(&server)
    })
    .await
}

async fn until_the_file_says(t: &Sandbox, value: &str) -> Result<()> {
    eventually(&format!("the file to say {value}"), HEALED, async || {
        let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
        ensure!(seen == value, "it says {seen:?}");
        Ok(())
    })
    .await
}

/// Puts another key in the place of the one that there is, and waits until the server has ended over that.
async fn lose(t: &Sandbox, keys: &Api<Secret>) -> Result<()> {
    let other = json!({"stringData": {"master.key": OTHER_KEY}});
    keys.patch(&object("master-key"), &PatchParams::default(), &Patch::Merge(other))
        .await?;
    let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    pods.delete(&server(), &DeleteParams::default()).await?;
    eventually("the server not to start", pods::START, async || {
        let server = pods.get_opt(&server()).await?.context("its pod is not there yet")?;
        ensure!(server.metadata.deletion_timestamp.is_none(), "the one of before goes");
        ensure!(pods::restarts(&server) > 0, "it was not started again yet");
        pods::ready(&server).map_or(Ok(()), |()| Err(anyhow::anyhow!("it is ready")))
    })
    .await
}

/// The first block while the server has its key, the second one when it has not.
async fn recover(t: &Sandbox, folder: &Path, keys: &Api<Secret>) -> Result<String> {
    const HEADING: &str = "The master key is lost";
    let blocks = page::blocks(HEADING)?;
    let [backup, recovery] = blocks[..] else {
        anyhow::bail!("there are other blocks than a backup and a recovery: {blocks:?}");
    };
    let made = page::run_in(t, folder, HEADING, backup).await?;
    ensure!(made.contains("opened and checked"), "{made}");
    // What came later is not in it.
    t.set("prod", "password", "after").await?;
    until_the_file_says(t, "after").await?;
    t.hang_up().await;
    lose(t, keys).await?;
    page::run_in(t, folder, HEADING, recovery).await
}

#[test]
fn a_server_that_has_lost_its_master_key_gets_it_back_with_a_backup_for_an_offline_key() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "before").await?;
        t.running_app("app", pods::SLEEP).await?;
        let folder = tempfile::tempdir()?;
        let tool = folder.path().join("bin").join("age-keygen");
        std::fs::create_dir(folder.path().join("bin"))?;
        std::fs::write(&tool, AGE_KEYGEN)?;
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755))?;
        let keys: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
        let name = object("master-key");
        let had = keys.get(&name).await?.data.context("it has a key")?;

        let recovered = recover(t, folder.path(), &keys).await;
        if recovered.is_err() {
            // The next test finds a server all the same: the key is the one of its database, whichever that is.
            let back = Patch::Merge(json!({"data": had}));
            keys.patch(&name, &PatchParams::default(), &back).await?;
            drop(keys.delete("sealpod-offline-key", &DeleteParams::default()).await);
            scale(t, 1).await?;
        }
        let recovered = recovered?;
        until_the_server_is_ready(t).await?;
        assert!(recovered.contains("restored to"), "{recovered}");
        let has = keys.get(&name).await?.data.context("it has a key")?;
        let lines = |data: &std::collections::BTreeMap<String, k8s_openapi::ByteString>| {
            let text = String::from_utf8_lossy(&data["master.key"].0).into_owned();
            text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(lines(&had) == lines(&has), "these are not the keys that there were");
        assert!(
            keys.get_opt("sealpod-offline-key").await?.is_none(),
            "the offline key stayed"
        );

        until_the_file_says(t, "before").await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        t.set("prod", "password", "again").await?;
        until_the_file_says(t, "again").await?;
        let pod = t.until_running("app").await?;
        assert_eq!(pods::restarts(&pod), 0, "nobody had to start it anew");
        Ok(())
    })
}

/// This version stands in for the older one: what an upgrade copied is a copy of the database as it is.
#[test]
fn the_way_back_from_an_upgrade_is_the_copy_of_before() -> Result<()> {
    on_cluster_alone(async |t| {
        const HEADING: &str = "Upgrade";
        t.delivery("password", "before").await?;
        t.running_app("app", pods::SLEEP).await?;
        t.hang_up().await;
        let copy = format!(
            "on_volume \"rm -rf upgraded; cp sealpod.db sealpod.db.schema-{}\"\n",
            page::COPY
        );
        let stop = page::blocks(HEADING)?.concat();
        // As the page stops the server, whose database is in one file then.
        let (stop, _) = stop
            .split_once("on_volume")
            .context("the page stops the server first")?;
        let folder = tempfile::tempdir()?;
        let copied = page::run_in(t, folder.path(), HEADING, &format!("{stop}{copy}")).await;
        scale(t, 1).await?;
        copied?;
        until_the_server_is_ready(t).await?;
        t.set("prod", "password", "after").await?;
        until_the_file_says(t, "after").await?;

        t.hang_up().await;
        let back = page::run(t, HEADING).await;
        scale(t, 1).await?;
        back?;
        until_the_server_is_ready(t).await?;
        until_the_file_says(t, "before").await?;
        let tidy = format!("on_volume \"rm -r upgraded sealpod.db.schema-{}\"\n", page::COPY);
        page::run_in(t, folder.path(), HEADING, &tidy).await?;
        t.set("prod", "password", "again").await?;
        until_the_file_says(t, "again").await
    })
}
