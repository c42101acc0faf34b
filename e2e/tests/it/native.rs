//! `spec.kubernetesSecret`, workloads that follow it, pods that were missed, and a controller with Roles only.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use sealpod_crds::SecretBinding;
use sealpod_e2e::install::{NAMESPACE, RELEASE, chart, object};
use sealpod_e2e::sandbox::{APPLICATION, CONVERGE};
use sealpod_e2e::server::readers;
use sealpod_e2e::tools::{fed, output};
use sealpod_e2e::{Sandbox, eventually, on_cluster, on_cluster_alone, pods};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Longer than the controller waits for more changes before it rolls out.
const SETTLED: Duration = Duration::from_secs(6);

/// A deletion may try for a minute before it lets go.
const GOING: Duration = Duration::from_mins(3);

const ROLLOUTS: &str = r#"{
  "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": {"name": "rollouts.argoproj.io"},
  "spec": {
    "group": "argoproj.io", "scope": "Namespaced",
    "names": {"plural": "rollouts", "singular": "rollout", "kind": "Rollout"},
    "versions": [{
      "name": "v1alpha1", "served": true, "storage": true,
      "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}
    }]
  }
}"#;

async fn bind(t: &Sandbox, native: Value) -> Result<()> {
    let binding: SecretBinding = serde_json::from_value(json!({
        "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": "db"},
        "spec": {
            "applicationRef": {"name": APPLICATION}, "environment": "prod",
            "secrets": [{"name": "password"}, {"name": "token"}],
            "kubernetesSecret": native, "onChange": {"restart": "Rollout"},
        },
    }))?;
    t.create(&binding).await?;
    Ok(())
}

async fn text(t: &Sandbox, secret: &str, key: &str) -> Result<String> {
    let secret = t.api::<Secret>().get(secret).await?;
    let bytes = secret
        .data
        .and_then(|mut data| data.remove(key))
        .context("no such entry")?;
    Ok(String::from_utf8(bytes.0)?)
}

async fn until(t: &Sandbox, key: &str, wanted: &str) -> Result<()> {
    eventually(&format!("the entry {key}"), CONVERGE, async || {
        let is = text(t, "copy", key).await?;
        ensure!(is == wanted, "it is {is:?}");
        Ok(())
    })
    .await
}

async fn merge<K>(api: &Api<K>, name: &str, patch: Value) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

#[test]
fn a_secret_is_made_and_put_back_and_one_of_others_is_left_alone() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "password", "one").await?;
        t.set("prod", "token", "t1").await?;
        let secrets = t.api::<Secret>();
        let foreign = json!({"metadata": {"name": "copy"}, "stringData": {"password": "theirs"}});
        t.create::<Secret>(&serde_json::from_value(foreign)?).await?;
        let data = json!([
            {"key": "password", "secret": "password"},
            {"key": "url", "template": "postgres://app:{{ secrets.password }}@db"},
        ]);
        bind(
            t,
            json!({"name": "copy", "data": data, "labels": {"team": "a"}, "deletionPolicy": "Delete"}),
        )
        .await?;
        let refused = t.until_ready_is::<SecretBinding>("db", "False").await?;
        assert_eq!(refused.reason, "SecretNotOwned", "{refused:?}");
        assert_eq!(text(t, "copy", "password").await?, "theirs");

        secrets.delete("copy", &DeleteParams::default()).await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        until(t, "url", "postgres://app:one@db").await?;
        assert_eq!(
            secrets.get("copy").await?.labels().get("team").map(String::as_str),
            Some("a")
        );

        // Edited, added to, and deleted.
        merge(
            &secrets,
            "copy",
            json!({"stringData": {"password": "edited", "more": "x"}}),
        )
        .await?;
        until(t, "password", "one").await?;
        assert!(text(t, "copy", "more").await.is_err());
        let before = secrets.get("copy").await?.uid();
        secrets.delete("copy", &DeleteParams::default()).await?;
        until(t, "password", "one").await?;
        assert_ne!(secrets.get("copy").await?.uid(), before);

        t.set("prod", "password", "two").await?;
        until(t, "url", "postgres://app:two@db").await?;
        // The values came by the binding's own key, and by no other.
        let readers = readers(&t.server().await?, &t.namespace).await?;
        assert_eq!(readers.into_iter().collect::<Vec<_>>(), ["service_account"]);
        // At rest nothing is written.
        let version = secrets.get("copy").await?.resource_version();
        sleep(SETTLED).await;
        assert_eq!(secrets.get("copy").await?.resource_version(), version);

        // Renamed: the former one goes, as its policy says.
        let bindings = t.api::<SecretBinding>();
        merge(
            &bindings,
            "db",
            json!({"spec": {"kubernetesSecret": {"name": "other"}}}),
        )
        .await?;
        eventually("the former Secret to go", CONVERGE, async || {
            ensure!(secrets.get_opt("copy").await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        assert_eq!(text(t, "other", "password").await?, "two");
        merge(
            &bindings,
            "db",
            json!({"spec": {"kubernetesSecret": {"deletionPolicy": "Retain"}}}),
        )
        .await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        bindings.delete("db", &DeleteParams::default()).await?;
        eventually("the binding to go", CONVERGE, async || {
            ensure!(bindings.get_opt("db").await?.is_none(), "it is still there");
            Ok(())
        })
        .await?;
        assert_eq!(text(t, "other", "password").await?, "two", "Retain");
        Ok(())
    })
}

/// A pod template that uses the entry `password` of the Secret; no pod of it has to run.
fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "x"}},
        "spec": {
            "nodeSelector": {"sealpod-e2e/none": "true"},
            "containers": [{
                "name": "app", "image": "none",
                "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "copy", "key": "password"}}}],
            }],
        },
    })
}

async fn workload<K>(t: &Sandbox, spec: Value) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "x"}});
    spec["template"] = template();
    let object =
        json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": "app"}, "spec": spec});
    t.create::<K>(&serde_json::from_value(object)?).await?;
    Ok(())
}

fn rollouts(t: &Sandbox) -> Api<DynamicObject> {
    let kind = ApiResource {
        group: "argoproj.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "argoproj.io/v1alpha1".to_owned(),
        kind: "Rollout".to_owned(),
        plural: "rollouts".to_owned(),
    };
    Api::namespaced_with(t.client(), &t.namespace, &kind)
}

/// Every mark that was put on a pod template, by the kind of its workload.
async fn marks(t: &Sandbox) -> Result<BTreeMap<&'static str, Option<String>>> {
    let mark = |object: Value| {
        let annotations = &object["spec"]["template"]["metadata"]["annotations"];
        annotations["restart.sealpod.dev/db"].as_str().map(str::to_owned)
    };
    Ok(BTreeMap::from([
        (
            "Deployment",
            mark(serde_json::to_value(t.api::<Deployment>().get("app").await?)?),
        ),
        (
            "StatefulSet",
            mark(serde_json::to_value(t.api::<StatefulSet>().get("app").await?)?),
        ),
        (
            "DaemonSet",
            mark(serde_json::to_value(t.api::<DaemonSet>().get("app").await?)?),
        ),
        ("Rollout", mark(serde_json::to_value(rollouts(t).get("app").await?)?)),
    ]))
}

/// Of the Deployment: how often its spec has changed.
async fn generation(t: &Sandbox) -> Result<Option<i64>> {
    Ok(t.api::<Deployment>().get("app").await?.metadata.generation)
}

#[test]
fn workloads_are_rolled_out_once_for_each_change_and_not_by_a_new_leader() -> Result<()> {
    on_cluster_alone(async |t| {
        let apply = t
            .tools()
            .kubectl(["apply", "--server-side", "--force-conflicts", "--filename=-"]);
        fed(apply, ROLLOUTS.as_bytes()).await?;
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "password", "one").await?;
        t.set("prod", "token", "t1").await?;
        bind(t, json!({"name": "copy"})).await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        workload::<Deployment>(t, json!({"replicas": 0})).await?;
        workload::<StatefulSet>(t, json!({"replicas": 0, "serviceName": "x"})).await?;
        workload::<DaemonSet>(t, json!({})).await?;
        let rollout: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "app"},
            "spec": {"replicas": 0, "template": template()},
        }))?;
        eventually("Rollouts to be served", CONVERGE, async || {
            Ok(rollouts(t).create(&PostParams::default(), &rollout).await.map(|_| ())?)
        })
        .await?;
        sleep(SETTLED).await;
        assert!(
            marks(t).await?.values().all(Option::is_none),
            "a first sight rolls out nothing"
        );
        t.until_followed("db").await?;
        let before = generation(t).await?;

        // Two at once are one rollout; `token` is used by nobody.
        t.set("prod", "token", "t2").await?;
        t.set("prod", "password", "two").await?;
        eventually("all to be rolled out", CONVERGE, async || {
            let marks = marks(t).await?;
            ensure!(marks.values().all(Option::is_some), "{marks:?}");
            Ok(())
        })
        .await?;
        t.set("prod", "token", "t3").await?;
        until(t, "token", "t3").await?;
        sleep(SETTLED).await;
        assert_eq!(generation(t).await?, before.map(|before| before + 1), "once");
        let rolled_out = marks(t).await?;

        // Another leader sees all of it for the first time.
        let controllers: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        let ours = ListParams::default().labels("app.kubernetes.io/component=controller");
        controllers.delete_collection(&DeleteParams::default(), &ours).await?;
        let labelled = json!({"spec": {"kubernetesSecret": {"labels": {"seen-by": "another"}}}});
        merge(&t.api::<SecretBinding>(), "db", labelled).await?;
        eventually("the next leader", Duration::from_mins(2), async || {
            let secret = t.api::<Secret>().get("copy").await?;
            ensure!(secret.labels().contains_key("seen-by"), "it has not looked yet");
            Ok(())
        })
        .await?;
        sleep(SETTLED).await;
        assert_eq!(marks(t).await?, rolled_out, "nothing is rolled out by a restart");
        assert_eq!(generation(t).await?, before.map(|before| before + 1));
        t.set("prod", "password", "three").await?;
        eventually("the next rollout", CONVERGE, async || {
            ensure!(marks(t).await?["StatefulSet"] != rolled_out["StatefulSet"], "not yet");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_pod_that_was_missed_is_told_of() -> Result<()> {
    on_cluster(async |t| {
        let mut template = pods::template("db", &[pods::container("app", t.image(), 10_001, pods::SLEEP)]);
        template["metadata"]["labels"] = json!({});
        // It need not run.
        template["spec"]["schedulingGates"] = json!([{"name": "sealpod-e2e/never"}]);
        t.create(&pods::pod("app", template)?).await?;
        merge(
            &t.api::<Pod>(),
            "app",
            json!({"metadata": {"labels": {"sealpod.dev/inject": "true"}}}),
        )
        .await?;
        eventually("the event", CONVERGE, async || {
            let events = t.api::<Event>().list(&ListParams::default()).await?;
            let missed = events
                .iter()
                .find(|event| event.reason.as_deref() == Some("InjectionMissed"));
            let about = missed.and_then(|event| event.regarding.as_ref()?.name.clone());
            ensure!(about.as_deref() == Some("app"), "there is none");
            Ok(())
        })
        .await
    })
}

/// Changes a value of the release.
pub async fn upgrade(t: &Sandbox, value: &str) -> Result<()> {
    let mut helm = t
        .tools()
        .helm(["upgrade", RELEASE, "--namespace", NAMESPACE, "--reuse-values", "--wait"]);
    helm.arg("--timeout=3m").arg(chart()).args(["--set-json", value]);
    output(helm).await.map(|_| ())
}

async fn may(t: &Sandbox, verb: &str, group: &str, resource: &str, namespace: &str) -> Result<bool> {
    let review: SubjectAccessReview = serde_json::from_value(json!({
        "metadata": {},
        "spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{}", object("controller")),
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace},
        },
    }))?;
    let answer = Api::<SubjectAccessReview>::all(t.client())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[test]
fn with_roles_only_the_controller_works_in_its_namespaces_and_reaches_no_other() -> Result<()> {
    on_cluster_alone(async |t| {
        upgrade(t, &format!("controller.watchNamespaces=[\"{}\"]", t.namespace)).await?;
        let ended = with_roles_only(t).await;
        let restored = upgrade(t, "controller.watchNamespaces=[]").await;
        ended.and(restored)
    })
}

async fn with_roles_only(t: &Sandbox) -> Result<()> {
    for (verb, group, resource) in [
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("get", "", "pods"),
        ("patch", "apps", "deployments"),
        ("get", "sealpod.dev", "secretbindings"),
    ] {
        assert!(may(t, verb, group, resource, &t.namespace).await?, "{verb} {resource}");
        for elsewhere in ["default", "kube-system", ""] {
            assert!(
                !may(t, verb, group, resource, elsewhere).await?,
                "{verb} {resource} in {elsewhere:?}"
            );
        }
    }
    t.application("Delete", &["prod"]).await?;
    t.set("prod", "password", "one").await?;
    t.set("prod", "token", "t1").await?;
    bind(t, json!({"name": "copy", "deletionPolicy": "Delete"})).await?;
    t.until_ready_is::<SecretBinding>("db", "True").await?;
    workload::<Deployment>(t, json!({"replicas": 0})).await?;
    t.running_app("app", pods::SLEEP).await?;
    t.until_followed("db").await?;
    t.set("prod", "password", "two").await?;
    until(t, "password", "two").await?;
    eventually("the rollout", CONVERGE, async || {
        let deployment = serde_json::to_value(t.api::<Deployment>().get("app").await?)?;
        let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
        ensure!(annotations["restart.sealpod.dev/db"].is_string(), "{annotations}");
        Ok(())
    })
    .await?;
    // Its finalizer and its Secret go by the same rights.
    t.api::<SecretBinding>().delete("db", &DeleteParams::default()).await?;
    eventually("binding and Secret to go", CONVERGE, async || {
        ensure!(
            t.api::<SecretBinding>().get_opt("db").await?.is_none(),
            "the binding is there"
        );
        ensure!(
            t.api::<Secret>().get_opt("copy").await?.is_none(),
            "the Secret is there"
        );
        Ok(())
    })
    .await?;
    // Its Role goes with the namespace, often first.
    let namespaces: Api<Namespace> = Api::all(t.client());
    namespaces.delete(&t.namespace, &DeleteParams::default()).await?;
    eventually("the namespace to go", GOING, async || {
        ensure!(namespaces.get_opt(&t.namespace).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    let left = t.server().await?.management().application(&t.namespace).await;
    assert!(matches!(left, Err(sealpod_client::Error::NotFound(_))), "{left:?}");
    Ok(())
}
