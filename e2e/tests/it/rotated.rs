//! The master key is rotated on a cluster, as docs/OPERATIONS.md says.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::tools::text;
use sealpod_e2e::{Sandbox, on_cluster, pods};

use crate::page;

/// The id of the key that seals, of what `key list` printed last.
fn current(printed: &str) -> Result<&str> {
    let mut lines = printed.lines().rev();
    let current = lines.find_map(|line| line.split_once(" current: "));
    Ok(current.with_context(|| format!("no key is current: {printed}"))?.0)
}

async fn listed(t: &Sandbox) -> Result<String> {
    let server = format!("{}-0", object("api-server"));
    let list = [
        "exec",
        "--namespace",
        NAMESPACE,
        &server,
        "--",
        "/sealpod-api-server",
        "key",
        "list",
    ];
    let remote = ["--url=https://localhost:7100", "--ca-file=/etc/sealpod/tls/ca.crt"];
    text(t.tools().kubectl(list.iter().chain(&remote))).await
}

#[test]
fn the_master_key_is_rotated_by_its_secret_while_the_server_serves() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "before").await?;
        let servers: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        let server = format!("{}-0", object("api-server"));
        let before = servers.get(&server).await?;
        let listed = listed(t).await?;
        let old = current(&listed)?;

        let printed = page::run(t, "Rotate the master key").await?;
        assert!(
            printed.contains("everything is under the current key, and opens"),
            "{printed}"
        );
        let new = current(&printed)?;
        assert_ne!(new, old, "{printed}");
        let kept = printed.lines().rev().find(|line| line.starts_with(old));
        let kept = kept.with_context(|| format!("the old key is not listed: {printed}"))?;
        assert!(kept.contains(" unused: 0 values"), "{kept}");

        let after = servers.get(&server).await?;
        assert_eq!(
            (before.uid(), pods::restarts(&before)),
            (after.uid(), pods::restarts(&after))
        );
        // What was sealed under the old key is given out, and so is what is sealed now.
        t.running_app("app", pods::SLEEP).await?;
        let file = sealpod_e2e::sandbox::file("db", "password");
        assert_eq!(t.exec("app", "app", &format!("cat {file}")).await?, "before");
        t.set("prod", "password", "after").await?;
        let changed = format!("for _ in $(seq 600); do grep -qx after {file} && exit 0; sleep 0.1; done; exit 1");
        t.exec("app", "app", &changed).await?;
        Ok(())
    })
}
