//! What is wrong with the operator itself, which disturbs all others.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use sealpod_core::wire::quotas::SetQuotas;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::tools::output;
use sealpod_e2e::{on_cluster_alone, pods};

use super::*;
use crate::native::upgrade;

const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Starts the controller anew with other settings.
async fn with_settings(t: &Sandbox, settings: &[String]) -> Result<()> {
    let deployment = format!("deployment/{}", object("controller"));
    let namespace = format!("--namespace={NAMESPACE}");
    let mut set = t.tools().kubectl(["set", "env", &deployment, &namespace]);
    set.args(settings);
    output(set).await?;
    let wait = ["rollout", "status", &deployment, &namespace, "--timeout=2m"];
    output(t.tools().kubectl(wait)).await?;
    Ok(())
}

async fn application(t: &Sandbox, name: &str) -> Result<()> {
    let slug = format!("{}-{name}", t.namespace);
    let object = json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": name},
        "spec": {"slug": slug, "deletionPolicy": "Delete"},
    });
    t.create::<Application>(&serde_json::from_value(object)?).await?;
    Ok(())
}

#[test]
fn the_operators_own_troubles_are_told_and_at_its_start_it_sweeps_and_evicts() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "one").await?;
        let controllers = t.client();
        let controllers: Api<Deployment> = Api::namespaced(controllers, NAMESPACE);
        let before = serde_json::to_value(controllers.get(&object("controller")).await?)?;
        let env = before["spec"]["template"]["spec"]["containers"][0]["env"].clone();
        let value = |name: &str| {
            let mut all = env.as_array().into_iter().flatten();
            let found = all.find(|e| e["name"] == name).and_then(|e| e["value"].as_str());
            found.map_or(format!("{name}-"), |value| format!("{name}={value}"))
        };
        let own = ["SEALPOD_SERVER_CA_FILE", "SEALPOD_ADMIN_KEY_FILE"].map(value);
        left_behind(t).await?;
        let ended = misled(t, &own).await;
        let restored = with_settings(t, &own).await;
        let calmed = upgrade(t, "controller.evictMissed=false").await;
        ended.and(restored).and(calmed)?;
        let server = t.server().await?;
        eventually("the sweep at the start", CONVERGE, async || {
            let accounts = server.org(ORGANIZATION).service_accounts(None).await?;
            let left = accounts
                .iter()
                .find(|account| account.name.ends_with(&format!("/{}/gone", t.namespace)));
            ensure!(left.is_none(), "{left:?}");
            Ok(())
        })
        .await?;
        for name in ["untrusted", "stranger"] {
            t.until_ready_is::<Application>(name, "True").await?;
        }
        let server = t.server().await?;
        let org = server.org(ORGANIZATION);
        let projects = org.quotas().await?.projects;
        let limit = |projects| SetQuotas {
            projects: Some(projects),
            ..SetQuotas::default()
        };
        org.set_quotas(&limit(projects.used)).await?;
        let ended = async {
            application(t, "too-many").await?;
            told::<Application>(t, "too-many", "Ready", "QuotaExceeded").await
        };
        let ended = ended.await;
        org.set_quotas(&limit(projects.limit)).await?;
        ended?;
        merge::<Application>(
            t,
            "too-many",
            json!({"metadata": {"annotations": {controls::RECONCILE_AT: "now"}}}),
        )
        .await?;
        t.until_ready_is::<Application>("too-many", "True").await?;
        Ok(())
    })
}

/// A binding that goes while it is paused leaves its account on the server.
async fn left_behind(t: &Sandbox) -> Result<()> {
    bind(t, "gone", "prod", json!({})).await?;
    t.until_ready_is::<SecretBinding>("gone", "True").await?;
    deleted_while_paused(t, "gone").await?;
    let accounts = t.server().await?.org(ORGANIZATION).service_accounts(None).await?;
    let end = format!("/{}/gone", t.namespace);
    ensure!(
        accounts.iter().any(|account| account.name.ends_with(&end)),
        "it is cleaned up"
    );
    Ok(())
}

async fn deleted_while_paused(t: &Sandbox, binding: &str) -> Result<()> {
    let paused = json!({"metadata": {"annotations": {controls::PAUSED: "true"}}});
    merge::<SecretBinding>(t, binding, paused).await?;
    told::<SecretBinding>(t, binding, "Ready", "Paused").await?;
    t.api::<SecretBinding>()
        .delete(binding, &DeleteParams::default())
        .await?;
    heard(t, binding, "ServerNotCleanedUp").await?;
    Ok(())
}

/// A pod that was missed is evicted; then another CA, then another key.
async fn misled(t: &Sandbox, own: &[String; 2]) -> Result<()> {
    let missed = pods::template("db", &[pods::container("app", t.image(), 10_001, pods::SLEEP)]);
    let mut unasked = missed.clone();
    unasked["metadata"]["labels"] = json!({"app": "missed"});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "missed"}}, "template": unasked});
    let deployment = json!({"metadata": {"name": "missed"}, "spec": spec});
    t.create::<Deployment>(&serde_json::from_value(deployment)?).await?;
    let of_it = ListParams::default().labels("app=missed");
    let pod = eventually("a pod of the Deployment", CONVERGE, async || {
        let pods = t.api::<Pod>().list(&of_it).await?;
        let first = pods.iter().next().map(ResourceExt::name_any);
        first.ok_or_else(|| anyhow::anyhow!("there is none"))
    })
    .await?;
    merge::<Pod>(t, &pod, json!({"metadata": {"labels": {"sealpod.dev/inject": "true"}}})).await?;
    heard(t, &pod, "InjectionMissed").await?;

    upgrade(t, "controller.evictMissed=true").await?;
    heard(t, &pod, "EvictedForInjection").await?;

    with_settings(t, &[format!("SEALPOD_SERVER_CA_FILE={MOUNTED}/ca.crt")]).await?;
    application(t, "untrusted").await?;
    told::<Application>(t, "untrusted", "Ready", "ServerNotTrusted").await?;

    let [ca, _] = own;
    let mistaken = [ca.clone(), format!("SEALPOD_ADMIN_KEY_FILE={MOUNTED}/namespace")];
    with_settings(t, &mistaken).await?;
    application(t, "stranger").await?;
    told::<Application>(t, "stranger", "Ready", "AdminKeyRejected").await?;
    Ok(())
}
