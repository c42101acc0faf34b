//! The CA that the server's certificate is checked by changes under pods that run, as docs/OPERATOR.md says how.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sealpod_core::kubernetes::key_secret_name;
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::file;
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone, pods};
use serde_json::{Value, json};

/// The kubelet takes up to a minute and a half to show a pod the new state of a Secret, when nothing touches the pod.
const REFRESH: Duration = Duration::from_mins(3);

#[test]
fn a_pod_from_before_a_change_of_the_ca_keeps_working_behind_it() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "of the old CA").await?;
        let before = t.running_app("app", pods::SLEEP).await?;
        let old = entry(t, "ca.crt").await?;
        let service = format!("{}.{NAMESPACE}", object("api-server"));
        let names = [
            "localhost".to_owned(),
            format!("{service}.svc"),
            format!("{service}.svc.cluster.local"),
        ];
        let [new, new_key, certificate, key] = authority(&names)?;
        let release: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);

        // 1. Both are trusted.
        let both = format!("{}\n{new}", old.trim());
        put(t, "server-tls", json!({"ca.crt": both})).await?;
        eventually("the binding's Secret to have both", REFRESH, async || {
            look_again(&release, "app.kubernetes.io/component=controller").await?;
            let data = t.api::<Secret>().get(&key_secret_name("db")).await?.data;
            let trusted = data.unwrap_or_default().remove("ca.crt").context("it has a CA")?;
            let count = String::from_utf8(trusted.0)?.matches("BEGIN CERTIFICATE").count();
            ensure!(count == 2, "it has {count}");
            Ok(())
        })
        .await?;
        look_again(&t.api(), "sealpod.dev/inject=true").await?;
        delivers(t, "of both").await?;

        // 2. The server gets a certificate of the new one, and so does whoever makes the next.
        put(
            t,
            "server-ca",
            json!({"tls.crt": new, "tls.key": new_key, "ca.crt": both}),
        )
        .await?;
        put(t, "server-tls", json!({"tls.crt": certificate, "tls.key": key})).await?;
        until_the_server_has(t, &new).await?;
        t.hang_up().await;
        delivers(t, "of the new certificate").await?;

        // 3. Only the new one is trusted.
        put(t, "server-ca", json!({"ca.crt": new})).await?;
        put(t, "server-tls", json!({"ca.crt": new})).await?;
        t.hang_up().await;
        delivers(t, "of the new CA").await?;
        let after = t.until_running("app").await?;
        ensure!(
            after.uid() == before.uid() && pods::restarts(&after) == 0,
            "the same pod, never started again"
        );
        // Pods that start now know nothing of the old one.
        t.running_app("later", pods::SLEEP).await?;
        Ok(())
    })
}

/// Waits until the server shows a certificate of this CA.
async fn until_the_server_has(t: &Sandbox, ca: &str) -> Result<()> {
    let release: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    eventually("the server to have the new certificate", REFRESH, async || {
        look_again(&release, "app.kubernetes.io/component=api-server").await?;
        ensure!(t.is_trusted_by(ca).await?, "it has the old one");
        Ok(())
    })
    .await
}

/// A CA, and a certificate of it with its key, for these names.
fn authority(names: &[String]) -> Result<[String; 4]> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "the next CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key)?.pem();
    let ca_key = key.serialize_pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    Ok([certificate, ca_key, leaf.pem(), key.serialize_pem()])
}

async fn entry(t: &Sandbox, key: &str) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
    let data = secrets.get(&object("server-tls")).await?.data.unwrap_or_default();
    let value = data.get(key).with_context(|| format!("it has no {key}"))?;
    Ok(String::from_utf8(value.0.clone())?)
}

async fn put(t: &Sandbox, secret: &str, entries: Value) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
    let patch = Patch::Merge(json!({"stringData": entries}));
    secrets.patch(&object(secret), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// A pod that changes is looked at by the kubelet at once, which brings its volumes up to date.
async fn look_again(pods: &Api<Pod>, selector: &str) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let note = json!({"metadata": {"annotations": {"sealpod-e2e/looked-at": now.as_millis().to_string()}}});
    for pod in pods.list_metadata(&ListParams::default().labels(selector)).await? {
        let name = pod.name_any();
        pods.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&note))
            .await?;
    }
    Ok(())
}

async fn delivers(t: &Sandbox, value: &str) -> Result<()> {
    t.set("prod", "password", value).await?;
    eventually(&format!("the value {value:?}"), REFRESH, async || {
        let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
        ensure!(seen == value, "{seen}");
        Ok(())
    })
    .await
}
