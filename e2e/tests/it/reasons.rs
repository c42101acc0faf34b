//! Each word that a condition or an event of the operator can hold, where no other test comes across it. The others are
//! told by the tests of their subject.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use sealpod_core::kubernetes::controls;
use sealpod_core::wire::org::SubjectType;
use sealpod_crds::{Application, Environment, SecretBinding};
use sealpod_e2e::sandbox::{APPLICATION, CONVERGE, Conditions};
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::{Sandbox, eventually, on_cluster};
use serde_json::{Value, json};

mod alone;

const COPIED: &str = "KubernetesSecretSynced";
const MEBIBYTE: usize = 1024 * 1024;

async fn bind(t: &Sandbox, name: &str, environment: &str, fields: Value) -> Result<()> {
    let mut spec = json!({"applicationRef": {"name": APPLICATION}, "environment": environment});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": name}, "spec": spec,
    });
    let parameters = PatchParams::apply("e2e").force();
    t.api::<SecretBinding>()
        .patch(name, &parameters, &Patch::Apply(&object))
        .await?;
    Ok(())
}

fn copy(name: &str) -> Value {
    json!({"kubernetesSecret": {"name": name, "deletionPolicy": "Delete"}})
}

/// Waits for a reason, whatever the status of the condition is; gives the message.
async fn told<K>(t: &Sandbox, name: &str, condition: &str, reason: &str) -> Result<String>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Conditions,
{
    let what = format!("{condition} {reason} of {name}");
    eventually(&what, CONVERGE, async || {
        let object = t.api::<K>().get(name).await?;
        let found = object.conditions().iter().find(|c| c.type_ == condition);
        ensure!(found.is_some_and(|c| c.reason == reason), "{found:?}");
        Ok(found.map(|c| c.message.clone()).unwrap_or_default())
    })
    .await
}

/// Waits for an event about an object.
async fn heard(t: &Sandbox, name: &str, reason: &str) -> Result<String> {
    eventually(&format!("an event {reason} about {name}"), CONVERGE, async || {
        let events = t.api::<Event>().list(&ListParams::default()).await?;
        let about = |e: &Event| e.regarding.as_ref().and_then(|r| r.name.clone());
        let mut found = events.items.into_iter();
        let found = found.find(|e| e.reason.as_deref() == Some(reason) && about(e).as_deref() == Some(name));
        ensure!(found.is_some(), "there is none");
        Ok(found.and_then(|e| e.note).unwrap_or_default())
    })
    .await
}

async fn merge<K>(t: &Sandbox, name: &str, patch: Value) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(patch);
    t.api::<K>().patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn look_now(t: &Sandbox, binding: &str) -> Result<()> {
    let now = json!({"metadata": {"annotations": {controls::RECONCILE_AT: "now"}}});
    merge::<SecretBinding>(t, binding, now).await
}

#[test]
fn copies_tell_what_is_wrong_with_a_value_a_template_a_size_or_the_cluster() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod", "big", "huge"]).await?;
        for (name, value) in [("password", "one"), ("config", "no JSON"), ("not/a-key", "x")] {
            t.set("prod", name, value).await?;
        }
        // One more than an answer may hold, and than a Secret.
        let large = "x".repeat(MEBIBYTE - 1024);
        for n in 0..34 {
            let environment = if n < 2 { "big" } else { "huge" };
            t.set(environment, &format!("large-{n}"), &large).await?;
        }
        t.set("huge", "large-0", &large).await?;
        let of = |kind: &str, data: Value| json!({"kubernetesSecret": {"name": "made", "type": kind, "data": data}});
        for (kind, keys) in [
            ("tls", &["tls.crt", "tls.key"][..]),
            ("basic-auth", &["username"]),
            ("ssh-auth", &["ssh-privatekey"]),
        ] {
            let data = keys
                .iter()
                .map(|key| json!({"key": key, "template": "{{ secrets.password }}"}));
            let mut fields = of(&format!("kubernetes.io/{kind}"), data.collect());
            fields["kubernetesSecret"]["name"] = json!(kind);
            bind(t, kind, "prod", fields).await?;
            t.until_ready_is::<SecretBinding>(kind, "True").await?;
            let made = t.api::<Secret>().get(kind).await?.type_;
            ensure!(made == Some(format!("kubernetes.io/{kind}")), "{made:?}");
        }
        bind(t, "names", "prod", copy("names")).await?;
        let config = json!([{"key": ".dockerconfigjson", "secret": "config"}]);
        bind(t, "value", "prod", of("kubernetes.io/dockerconfigjson", config)).await?;
        let absent = json!([{"key": "url", "template": "{{ secrets.absent }}"}]);
        bind(t, "template", "prod", of("Opaque", absent)).await?;
        bind(t, "large", "big", copy("large")).await?;
        bind(t, "huge", "huge", copy("huge")).await?;
        for (binding, reason, says) in [
            ("names", "NeedsKey", "spec.kubernetesSecret.data"),
            ("value", "InvalidValue", "set it anew"),
            ("template", "TemplateFailed", "absent"),
            ("large", "TooLarge", "1 MiB"),
            ("huge", "TooLarge", "one answer of the server"),
        ] {
            let message = told::<SecretBinding>(t, binding, COPIED, reason).await?;
            ensure!(message.contains(says), "{message}");
        }

        // Somebody's finalizer holds the Secret.
        let secrets = t.api::<Secret>();
        merge::<Secret>(t, "names", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await?;
        secrets.delete("names", &DeleteParams::default()).await?;
        told::<SecretBinding>(t, "names", COPIED, "SecretBeingDeleted").await?;
        merge::<Secret>(t, "names", json!({"metadata": {"finalizers": null}})).await?;
        told::<SecretBinding>(t, "names", COPIED, "NeedsKey").await?;

        // A quota of the namespace: for the key of one, and for the copy of another.
        bind(t, "full", "prod", json!({})).await?;
        t.until_ready_is::<SecretBinding>("full", "True").await?;
        let quota = json!({"metadata": {"name": "full"}, "spec": {"hard": {"count/secrets": "0"}}});
        t.create::<ResourceQuota>(&serde_json::from_value(quota)?).await?;
        eventually("the quota to be counted", CONVERGE, async || {
            let status = t.api::<ResourceQuota>().get("full").await?.status;
            ensure!(status.is_some_and(|status| status.used.is_some()), "it is not");
            Ok(())
        })
        .await?;
        bind(t, "full", "prod", copy("full")).await?;
        bind(t, "keyless", "prod", json!({})).await?;
        let message = told::<SecretBinding>(t, "full", COPIED, "KubernetesRefused").await?;
        ensure!(message.contains("quotas"), "{message}");
        told::<SecretBinding>(t, "keyless", "Ready", "KubernetesForbidden").await?;
        t.api::<ResourceQuota>()
            .delete("full", &DeleteParams::default())
            .await?;
        eventually("room for Secrets", CONVERGE, async || {
            look_now(t, "full").await?;
            look_now(t, "keyless").await?;
            ensure!(secrets.get_opt("full").await?.is_some(), "no copy");
            ensure!(secrets.get_opt("keyless-sealpod-key").await?.is_some(), "no key");
            Ok(())
        })
        .await?;
        t.until_ready_is::<SecretBinding>("keyless", "True").await?;
        Ok(())
    })
}

/// A webhook of somebody else that is away, for what is made or changed in this namespace.
async fn broken_webhook(t: &Sandbox) -> Result<()> {
    let rule = |group: &str, resource: &str, operation: &str| json!({"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": [operation]});
    let service = json!({"name": "nobody", "namespace": t.namespace, "path": "/"});
    let object = json!({
        "metadata": {"name": t.namespace},
        "webhooks": [{
            "name": "away.example.com", "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"], "clientConfig": {"service": service},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": t.namespace}},
            "rules": [rule("", "secrets", "CREATE"), rule("apps", "deployments", "UPDATE")],
        }],
    });
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(t.client());
    webhooks
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

#[test]
fn conflicts_broken_admission_and_lost_rights_are_told() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "password", "one").await?;
        let claim = async |name: &str, configurations: Value| {
            let environment = json!({
                "apiVersion": "sealpod.dev/v1alpha1", "kind": "Environment", "metadata": {"name": name},
                "spec": {"applicationRef": {"name": APPLICATION}, "slug": "qa", "deletionPolicy": "Delete",
                         "configurations": configurations},
            });
            t.create(&serde_json::from_value::<Environment>(environment)?).await
        };
        claim("first", json!({})).await?;
        t.until_ready_is::<Environment>("first", "True").await?;
        // What no schema bounds, and the server does.
        claim("second", json!({"LARGE": "x".repeat(MEBIBYTE + 1024)})).await?;
        let message = told::<Environment>(t, "second", "Ready", "Conflict").await?;
        ensure!(message.contains("`first` is older"), "{message}");
        t.api::<Environment>().delete("first", &DeleteParams::default()).await?;
        told::<Environment>(t, "second", "Ready", "ServerRefused").await?;
        told::<Environment>(t, "second", "Stalled", "ServerRefused").await?;
        merge::<Environment>(t, "second", json!({"spec": {"configurations": null}})).await?;
        told::<Environment>(t, "second", "Ready", "Synced").await?;
        told::<Environment>(t, "second", "Stalled", "Progressing").await?;

        let mut rolled = copy("copy");
        rolled["onChange"] = json!({"restart": "Rollout"});
        bind(t, "db", "prod", rolled).await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        let from = json!([{"secretRef": {"name": "copy"}}]);
        let deployment = json!({
            "metadata": {"name": "app"},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": {"app": "x"}},
                "template": {
                    "metadata": {"labels": {"app": "x"}},
                    "spec": {"containers": [{"name": "app", "image": "none", "envFrom": from}]},
                },
            },
        });
        t.create::<Deployment>(&serde_json::from_value(deployment)?).await?;
        t.until_followed("db").await?;
        broken_webhook(t).await?;
        t.set("prod", "password", "two").await?;
        bind(t, "late", "prod", json!({})).await?;
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(t.client());
        let told_of = async {
            told::<SecretBinding>(t, "late", "Ready", "KubernetesError").await?;
            heard(t, "app", "RolloutFailed").await?;
            heard(t, "db", "RolloutFailed").await
        };
        let told_of = told_of.await;
        webhooks.delete(&t.namespace, &DeleteParams::default()).await?;
        told_of?;
        t.until_ready_is::<SecretBinding>("late", "True").await?;
        heard(t, "app", "RolledOut").await?;

        taken_away(t).await
    })
}

/// Somebody with the admin key takes from bindings what the operator gives them, as fast as it can.
async fn taken_away(t: &Sandbox) -> Result<()> {
    let server = t.server().await?;
    let org = server.org(ORGANIZATION);
    let account = async |binding: &str| {
        let end = format!("/{}/{binding}", t.namespace);
        let accounts = org.service_accounts(None).await?;
        let account = accounts.into_iter().find(|a| a.name.ends_with(&end));
        account.map(|account| account.id).context("no account")
    };
    // A rule for each name, given a few at a time: the first can be gone again before the operator looks behind the last.
    let names: Vec<_> = (0..100).map(|n| json!({"name": format!("name-{n}")})).collect();
    bind(t, "many", "prod", json!({"secrets": names})).await?;
    told::<SecretBinding>(t, "many", "Ready", "SecretsMissing").await?;
    let many = account("many").await?;
    let revoke = async {
        loop {
            let rules = org.acl_rules_of(SubjectType::ServiceAccount, many).await;
            for rule in rules.unwrap_or_default() {
                drop(org.revoke_acl_rule(rule.id).await);
            }
        }
    };
    let note = tokio::select! {
        heard = heard(t, "many", "SecretsDenied") => heard?,
        () = revoke => unreachable!("it goes on for ever"),
    };
    ensure!(note.contains("may not read `name-"), "{note}");
    told::<SecretBinding>(t, "many", "Ready", "SecretsMissing").await?;
    let account = account("db").await?;
    t.until_ready_is::<SecretBinding>("db", "True").await?;
    let rotate = async || {
        loop {
            drop(org.rotate_service_account(account, 0).await);
        }
    };
    let both = async {
        heard(t, "db", "KeyRejected").await?;
        heard(t, "db", "Retrying").await
    };
    tokio::select! {
        heard = both => {
            let note = heard?;
            ensure!(note.contains("five new keys"), "{note}");
        }
        () = rotate() => {}
    }
    Ok(())
}
