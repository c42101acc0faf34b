//! The webhook with a certificate of cert-manager's, whose part the test plays.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sealpod_e2e::install::{NAMESPACE, RELEASE, chart, object};
use sealpod_e2e::tools::output;
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone};
use serde_json::{Value, json};

use super::injector::{Creating, Injector, admit, trusted};

/// The injector looks every half minute, and serves what it finds two seconds later.
const WITHIN: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// As much of cert-manager's kind as the API server needs to take the chart's object.
fn definition() -> Result<CustomResourceDefinition> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Ok(serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificates.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io", "scope": "Namespaced",
            "names": {"kind": "Certificate", "plural": "certificates"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    }))?)
}

/// Changes where the certificate comes from, without waiting for what follows.
async fn switch(t: &Sandbox, mode: &str, issuer: &str) -> Result<()> {
    let mut helm = t
        .tools()
        .helm(["upgrade", RELEASE, "--namespace", NAMESPACE, "--reuse-values"]);
    helm.arg(chart());
    helm.arg("--set").arg(format!("injector.certificate.mode={mode}"));
    helm.arg("--set")
        .arg(format!("injector.certificate.issuerRef.name={issuer}"));
    output(helm).await.map(|_| ())
}

/// Does what cert-manager does for a Certificate: writes its Secret, here by a CA that is new each time.
async fn issue(t: &Sandbox, certificate: &Value) -> Result<String> {
    let names = certificate["spec"]["dnsNames"].as_array().context("it has names")?;
    let names: Vec<_> = names
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let authority_key = KeyPair::generate()?;
    let mut authority = from_now(CertificateParams::default())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = from_now(CertificateParams::new(names)?)?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let name = certificate["spec"]["secretName"]
        .as_str()
        .context("it names a Secret")?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "stringData": {"tls.crt": leaf.pem(), "tls.key": key.serialize_pem(), "ca.crt": authority_pem},
    });
    let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
    let apply = PatchParams::apply("cert-manager").force();
    secrets.patch(name, &apply, &Patch::Apply(secret)).await?;
    Ok(authority_pem)
}

/// Valid from now on, for a season.
fn from_now(mut params: CertificateParams) -> Result<CertificateParams> {
    let now = rcgen::date_time_ymd(1970, 1, 1) + UNIX_EPOCH.elapsed()?;
    (params.not_before, params.not_after) = (now, now + DAY * 90);
    Ok(params)
}

async fn until_registered(t: &Sandbox, authority: &str) -> Result<()> {
    eventually("the CA to be registered", WITHIN, async || {
        let bundle = trusted(t).await?;
        ensure!(bundle.contains(authority.trim()), "it is not in\n{bundle}");
        Ok(())
    })
    .await
}

#[test]
fn a_certificate_of_cert_manager_is_served_and_its_renewal_with_another_ca_fails_no_pod() -> Result<()> {
    on_cluster_alone(async |t| {
        let definitions: Api<CustomResourceDefinition> = Api::all(t.client());
        let definition = definition()?;
        let name = definition.metadata.name.clone().context("it has a name")?;
        let apply = PatchParams::apply("sealpod-e2e").force();
        definitions.patch(&name, &apply, &Patch::Apply(&definition)).await?;
        let ended = given(t).await;
        switch(t, "auto", "").await?;
        Injector::of(t).until_rolled_out().await?;
        definitions.delete(&name, &DeleteParams::default()).await?;
        // cert-manager's own, which no release takes along.
        let secrets: Api<Secret> = Api::namespaced(t.client(), NAMESPACE);
        secrets
            .delete(&object("webhook-certificate"), &DeleteParams::default())
            .await?;
        ended
    })
}

async fn given(t: &Sandbox) -> Result<()> {
    t.delivery("password", "hello").await?;
    eventually("the kind to be served", WITHIN, async || {
        switch(t, "certManager", "ca").await
    })
    .await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "Certificate"));
    let all: Api<DynamicObject> = Api::namespaced_with(t.client(), NAMESPACE, &kind);
    let certificate = serde_json::to_value(all.get(&object("injector")).await?)?;
    // Until it is issued the replicas of before serve.
    let pods = t.api();
    eventually("the injector to know the binding", WITHIN, async || {
        Ok(admit(&pods, t.image(), true).await?)
    })
    .await?;

    let first = issue(t, &certificate).await?;
    Injector::of(t).until_rolled_out().await?;
    until_registered(t, &first).await?;
    let creating = Creating::start(t);
    let second = issue(t, &certificate).await?;
    until_registered(t, &second).await?;
    let bundle = trusted(t).await?;
    assert!(
        bundle.contains(first.trim()),
        "the one before stays trusted for a while"
    );
    let injectors: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
    eventually("every replica to serve it", WITHIN, async || {
        let all = ListParams::default().labels("app.kubernetes.io/component=injector");
        for pod in injectors.list_metadata(&all).await?.items {
            let name = pod.name_any();
            let log = injectors.logs(&name, &LogParams::default()).await?;
            ensure!(
                log.contains("serving the webhook's new certificate"),
                "{name} does not yet"
            );
        }
        Ok(())
    })
    .await?;
    creating.end().await
}
