//! A binding's key: its rotation, and what heals one that was killed.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use sealpod_client::{Client, Credential};
use sealpod_core::SecretText;
use sealpod_core::kubernetes::KEY_ROTATED_AT;
use sealpod_core::wire::bundle::BundleRequest;
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster, pods};
use serde_json::json;

use super::{KUBELET, SOON, account, until};

#[test]
fn a_key_is_rotated_under_a_polling_pod_and_one_that_was_killed_heals() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "value 0").await?;
        let before = t.running_app("app", pods::SLEEP).await?;
        let first = key(t, "db").await?;
        let secrets = t.api::<Secret>();
        // The annotation decides when the next rotation comes, and nothing else.
        let old = json!({"metadata": {"annotations": {KEY_ROTATED_AT: "2026-01-01T00:00:00Z"}}});
        secrets
            .patch_metadata("db-sealpod-key", &PatchParams::default(), &Patch::Merge(old))
            .await?;
        let second = new_key(t, &first).await?;
        for key in [&first, &second] {
            ensure!(
                works(t, key).await?,
                "both keys work while the kubelet brings the new one"
            );
        }
        t.set("prod", "password", "value 1").await?;
        arrives(t, "value 1").await?;

        // Somebody kills every key of the account.
        let account = account(t, "db").await?;
        t.server()
            .await?
            .org(ORGANIZATION)
            .rotate_service_account(account.id, 0)
            .await?;
        let third = new_key(t, &second).await?;
        ensure!(works(t, &third).await? && !works(t, &second).await?);
        until(t, "db", "KeyFresh", "True", "Fresh", SOON).await?;
        t.set("prod", "password", "value 2").await?;
        arrives(t, "value 2").await?;

        // Somebody deletes the account.
        t.server()
            .await?
            .org(ORGANIZATION)
            .revoke_service_account(account.id)
            .await?;
        let fourth = new_key(t, &third).await?;
        ensure!(works(t, &fourth).await?);
        let after = t.until_running("app").await?;
        ensure!(
            before.uid() == after.uid() && pods::restarts(&after) == 0,
            "the same pod, never started again"
        );
        Ok(())
    })
}

async fn new_key(t: &Sandbox, old: &str) -> Result<String> {
    eventually("the Secret to have a new key", SOON, async || {
        let now = key(t, "db").await?;
        ensure!(now != old, "it is still the old one");
        Ok(now)
    })
    .await
}

async fn arrives(t: &Sandbox, value: &str) -> Result<()> {
    eventually(&format!("{value} to arrive"), KUBELET, async || {
        let path = sealpod_e2e::sandbox::file("db", "password");
        let now = t.exec("app", "app", &format!("cat {path}")).await?;
        ensure!(now == value, "it reads {now}");
        Ok(())
    })
    .await
}

/// Whether a pod could read with this key.
async fn works(t: &Sandbox, key: &str) -> Result<bool> {
    let credential = Credential::ServiceAccount(SecretText::new(key));
    let client: Client = t.server().await?.with_credential(&credential)?;
    let request = BundleRequest {
        values: false,
        ..BundleRequest::default()
    };
    let asked = client
        .org(ORGANIZATION)
        .bundle(&t.namespace, "prod", &request, None)
        .await;
    match asked {
        Ok(_) => Ok(true),
        Err(sealpod_client::Error::Unauthorized(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn key(t: &Sandbox, binding: &str) -> Result<String> {
    let secret = t.api::<Secret>().get(&format!("{binding}-sealpod-key")).await?;
    let data = secret.data.context("it has data")?;
    Ok(String::from_utf8(
        data.get("api-key").context("it has a key")?.0.clone(),
    )?)
}
