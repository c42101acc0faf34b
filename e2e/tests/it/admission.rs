//! Which pods are changed, and which refused.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{LimitRange, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use sealpod_core::kubernetes::annotations;
use sealpod_crds::SecretBinding;
use sealpod_e2e::{Sandbox, eventually, on_cluster, on_cluster_alone, pods};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Why the cluster refuses a pod.
async fn refusal(t: &Sandbox, pod: &Pod) -> Result<String> {
    match t.api::<Pod>().create(&PostParams::default(), pod).await {
        Ok(_) => Err(anyhow!("the pod was admitted")),
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(error) => Err(error).context("the cluster does not answer"),
    }
}

#[test]
fn a_pod_whose_binding_does_not_exist_is_refused_with_its_name() -> Result<()> {
    on_cluster(async |t| {
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let pod = pods::pod("app", pods::template("payments-database", &[app]))?;
        let message = refusal(t, &pod).await?;
        assert!(message.contains("payments-database"), "{message}");
        assert!(message.contains(&t.namespace), "it says where it looked: {message}");
        Ok(())
    })
}

#[test]
fn a_pod_without_the_label_is_left_as_it_is() -> Result<()> {
    on_cluster(async |t| {
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let mut template = pods::template("db", &[app]);
        template["metadata"]["labels"] = json!({});
        // One from before there was any binding, and one from after.
        let before = t.running("before", pods::pod("before", template.clone())?).await?;
        t.delivery("password", "not for them").await?;
        let after = t.running("after", pods::pod("after", template)?).await?;
        for pod in [&before, &after, &t.until_running("before").await?] {
            assert_eq!(pods::containers(pod), ["app"]);
            let spec = pod.spec.as_ref().context("a pod has a spec")?;
            assert_eq!(spec.volumes.as_ref().map_or(0, Vec::len), 0, "no volume was added");
            let annotations = pod.metadata.annotations.as_ref();
            assert!(annotations.is_none_or(|all| !all.contains_key(annotations::INJECTED)));
        }
        assert_eq!(before.metadata.uid, t.until_running("before").await?.metadata.uid);
        Ok(())
    })
}

#[test]
fn injected_pods_keep_to_the_restricted_standard_and_say_what_they_got() -> Result<()> {
    on_cluster(async |t| {
        let mut privileged = pods::container("app", t.image(), 10_001, pods::SLEEP);
        privileged["securityContext"] = json!({"privileged": true});
        let mut template = pods::template("db", &[privileged]);
        template["metadata"]["labels"] = json!({});
        let message = refusal(t, &pods::pod("privileged", template)?).await?;
        assert!(
            message.contains("PodSecurity"),
            "the namespace enforces the standard: {message}"
        );

        t.delivery("password", "hello").await?;
        let pod = t.running_app("app", pods::SLEEP).await?;
        assert_eq!(pods::containers(&pod), ["sealpod-init", "app", "sealpod"]);
        let annotations = pod.metadata.annotations.context("it has annotations")?;
        assert_eq!(annotations.get(annotations::INJECTED).map(String::as_str), Some("db"));
        let spec = pod.spec.context("it has a spec")?;
        let app = spec
            .containers
            .iter()
            .find(|container| container.name == "app")
            .context("app")?;
        let key_volumes = app
            .volume_mounts
            .iter()
            .flatten()
            .filter(|mount| mount.name.starts_with("sealpod-key-"));
        assert_eq!(key_volumes.count(), 0, "the key is the sidecar's alone");
        Ok(())
    })
}

/// Pods of a template, admitted but not made.
async fn admitted(t: &Sandbox, template: &Value) -> Result<Pod, kube::Error> {
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut pod = template.clone();
    pod["metadata"]["generateName"] = json!("app-");
    let pod = serde_json::from_value(pod).expect("the test's pod is a pod");
    t.api::<Pod>().create(&dry, &pod).await
}

#[test]
fn every_annotation_shows_in_the_pod_and_a_second_injection_changes_nothing() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "hello").await?;
        let signalling = json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "metadata": {"name": "mail"},
            "spec": {
                "applicationRef": {"name": "shop"}, "environment": "prod", "mountPath": "/mail", "sizeLimit": "1Mi",
                "onChange": {"signal": {"container": "app"}},
            },
        });
        t.create::<SecretBinding>(&serde_json::from_value(signalling)?).await?;
        let container = |name: &str, script: &str| pods::container(name, t.image(), 10_001, script);
        let apps = ["app", "legacy"].map(|name| container(name, pods::SLEEP));
        let mut template = pods::template("db,mail", &apps);
        template["spec"]["initContainers"] = json!([container("vpn", "true"), container("migrate", "true")]);
        template["spec"]["automountServiceAccountToken"] = json!(true);
        let refused = eventually(
            "both bindings to be known",
            Duration::from_secs(15),
            async || match admitted(t, &template).await {
                Err(kube::Error::Api(status)) if status.message.contains("shareProcessNamespace: true") => Ok(status),
                other => Err(anyhow!("{other:?}")),
            },
        )
        .await?;
        assert!(
            refused
                .message
                .contains("SecretBinding \"mail\" signals container \"app\""),
            "{}",
            refused.message
        );

        template["spec"]["shareProcessNamespace"] = json!(true);
        let all = [
            (annotations::CONTAINERS, "legacy,migrate"),
            (annotations::MODE, "native"),
            (annotations::AFTER, "vpn"),
            (annotations::EXEC, "legacy"),
            (annotations::CPU_REQUEST, "10m"),
            (annotations::CPU_LIMIT, "1"),
            (annotations::MEMORY_REQUEST, "16Mi"),
            (annotations::MEMORY_LIMIT, "64Mi"),
            (annotations::METRICS_VERSIONS, "true"),
        ];
        for (name, value) in all {
            template["metadata"]["annotations"][name] = json!(value);
        }
        let written = template["metadata"]["annotations"].as_object().context("annotations")?;
        let written: BTreeSet<_> = written.keys().map(String::as_str).collect();
        assert_eq!(
            written,
            annotations::FOR_USERS
                .iter()
                .map(|annotation| annotation.name)
                .collect()
        );
        let pod = admitted(t, &template).await?;
        let raw = serde_json::to_value(&pod)?;
        assert_eq!(pods::containers(&pod), ["vpn", "sealpod", "migrate", "app", "legacy"]);
        let ours = &raw["spec"]["initContainers"][1];
        let resources = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}});
        assert_eq!(ours["resources"], resources);
        assert_eq!(ours["securityContext"]["runAsUser"], 10_001);
        assert_eq!(
            raw["spec"]["containers"][0]["env"],
            json!([{"name": "SEALPOD_CONTAINER", "value": "app"}])
        );
        let mounts = |container: &Value, what: &str| {
            let all = container["volumeMounts"].as_array().into_iter().flatten();
            all.filter(|mount| mount.to_string().contains(what)).count()
        };
        for (container, files, program) in [
            (&raw["spec"]["initContainers"][0], 0, 0),
            (&raw["spec"]["initContainers"][2], 1, 0),
            (&raw["spec"]["containers"][0], 0, 0),
            (&raw["spec"]["containers"][1], 1, 1),
        ] {
            let found = (mounts(container, "\"/mail\""), mounts(container, "\"/sealpod\""));
            assert_eq!(found, (files, program), "{container}");
            assert_eq!(
                mounts(container, "kube-api-access"),
                1,
                "the pod's own token stays: {container}"
            );
        }
        assert_eq!(mounts(ours, "kube-api-access"), 0, "the sidecar gets no token: {ours}");

        let mut again = raw.clone();
        for field in ["uid", "name", "creationTimestamp", "resourceVersion", "managedFields"] {
            again["metadata"].as_object_mut().context("metadata")?.remove(field);
        }
        let twice = serde_json::to_value(admitted(t, &again).await?)?;
        assert_eq!(twice["spec"], raw["spec"], "a second injection changes nothing");
        assert_eq!(twice["metadata"]["annotations"], raw["metadata"]["annotations"]);

        versions_are_told(t, template).await
    })
}

/// The pod that has every annotation runs, and its metrics tell versions.
async fn versions_are_told(t: &Sandbox, template: Value) -> Result<()> {
    t.running("every", pods::pod("every", template)?).await?;
    let namespace = format!("--namespace={}", t.namespace);
    let ask = [
        "exec",
        &namespace,
        "every",
        "--container",
        "sealpod",
        "--",
        "/sealpod-sidecar",
        "metrics",
    ];
    let metrics = sealpod_e2e::tools::text(t.tools().kubectl(ask)).await?;
    ensure!(metrics.contains("sealpod_sidecar_version{"), "{metrics}");
    Ok(())
}

#[test]
fn whoever_makes_a_pod_is_warned_of_an_annotation_without_a_meaning_and_of_a_binding_that_is_not_ready() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "hello").await?;
        t.binding("late", "prod", &["never-set"]).await?;
        t.until_ready_is::<SecretBinding>("late", "False").await?;
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let mut template = pods::template("db,late", &[app]);
        template["metadata"]["annotations"]["sealpod.dev/contaners"] = json!("app");
        template["metadata"]["name"] = json!("warned");
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        eventually("the warning", Duration::from_secs(15), async || {
            let path = format!("/api/v1/namespaces/{}/pods", t.namespace);
            let request = kube::core::Request::new(path).create(&dry, serde_json::to_vec(&template)?)?;
            let answer = t.client().send(request.map(kube::client::Body::from)).await?;
            let warnings: Vec<_> = answer.headers().get_all("warning").iter().collect();
            let text = format!("{} {warnings:?}", answer.status());
            let wanted = [
                "unknown annotation",
                "did you mean sealpod.dev/containers?",
                "is not ready, and the pod waits until it is: ",
                "SecretsMissing: there is no `never-set`",
            ];
            let is_told = wanted.iter().all(|wanted| text.contains(wanted));
            (answer.status().is_success() && is_told).then_some(()).context(text)
        })
        .await
    })
}

#[test]
fn pods_are_injected_when_they_are_made_and_never_later() -> Result<()> {
    on_cluster(async |t| {
        t.delivery("password", "hello").await?;
        let app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let mut template = pods::template("db", &[app]);
        let apply = PatchParams::apply("sealpod-e2e");
        let mut applied = template.clone();
        for (field, value) in [("apiVersion", "v1"), ("kind", "Pod")] {
            applied[field] = json!(value);
        }
        applied["metadata"]["name"] = json!("applied");
        let pods = t.api::<Pod>();
        let pod = eventually("the binding to be known", Duration::from_secs(15), async || {
            let dry = apply.clone().dry_run();
            Ok(pods.patch("applied", &dry, &Patch::Apply(&applied)).await?)
        })
        .await?;
        assert_eq!(
            pods::containers(&pod),
            ["sealpod-init", "app", "sealpod"],
            "server-side apply, dry"
        );
        // The same object is applied, and applied again, without a conflict with what was added.
        for _ in 0..2 {
            pods.patch("applied", &apply, &Patch::Apply(&applied)).await?;
        }
        // The label comes too late for a pod that is there.
        template["metadata"]["labels"] = json!({});
        t.create(&pods::pod("plain", template)?).await?;
        let label = json!({"metadata": {"labels": {"sealpod.dev/inject": "true"}}});
        let labelled = pods
            .patch("plain", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        assert_eq!(pods::containers(&labelled), ["app"]);
        t.until_running("applied").await?;
        Ok(())
    })
}

#[test]
fn a_hundred_pods_at_once_are_all_admitted_and_a_namespace_with_limits_and_a_quota_takes_them() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "hello").await?;
        // What makes a container of 5m and 8Mi, or one without a limit, impossible.
        let range: LimitRange = serde_json::from_value(json!({
            "metadata": {"name": "range"},
            "spec": {"limits": [{
                "type": "Container", "min": {"cpu": "10m", "memory": "16Mi"}, "max": {"memory": "64Mi"},
                "maxLimitRequestRatio": {"memory": "3"}, "defaultRequest": {"cpu": "10m", "memory": "32Mi"},
            }]},
        }))?;
        t.create(&range).await?;
        let hard = json!({
            "limits.cpu": "200", "limits.memory": "100Gi", "requests.cpu": "100", "requests.memory": "100Gi",
            "limits.ephemeral-storage": "100Gi", "requests.ephemeral-storage": "100Gi",
        });
        let quota: ResourceQuota =
            serde_json::from_value(json!({"metadata": {"name": "quota"}, "spec": {"hard": hard}}))?;
        t.create(&quota).await?;
        let mut app = pods::container("app", t.image(), 10_001, pods::SLEEP);
        let amounts = json!({"cpu": "100m", "memory": "32Mi", "ephemeral-storage": "1Mi"});
        app["resources"] = json!({"requests": amounts, "limits": amounts});
        let mut template = pods::template("db", &[app]);
        eventually(
            "the injector to know the namespace",
            Duration::from_secs(15),
            async || Ok(admitted(t, &template).await?),
        )
        .await?;
        // Made, and kept off the node, which has room for 110 of all: what is asked here is the admission.
        let mut hundred = template.clone();
        hundred["metadata"]["generateName"] = json!("many-");
        hundred["spec"]["nodeSelector"] = json!({"sealpod.test/node": "none"});
        let hundred: Pod = serde_json::from_value(hundred)?;
        let api = t.api::<Pod>();
        let make = PostParams::default();
        let begun = std::time::Instant::now();
        let all = futures::future::join_all((0..100).map(|_| api.create(&make, &hundred))).await;
        println!("100 pods at once were made within {:?}", begun.elapsed());
        for pod in all {
            let pod = pod?;
            assert_eq!(pods::containers(&pod), ["sealpod-init", "app", "sealpod"]);
            api.delete(&pod.name_any(), &kube::api::DeleteParams::default()).await?;
        }
        t.running("real", pods::pod("real", template.clone())?).await?;

        // Of the disk, the quota counts what has an amount and asks for none.
        for kind in ["requests", "limits"] {
            let amounts = template["spec"]["containers"][0]["resources"][kind].as_object_mut();
            amounts.context("amounts")?.remove("ephemeral-storage");
        }
        let pod = serde_json::to_value(admitted(t, &template).await?)?;
        assert_eq!(pod["spec"]["containers"][1]["name"], "sealpod");
        assert!(!pod["spec"].to_string().contains("ephemeral-storage"), "{pod}");
        Ok(())
    })
}

#[test]
fn pods_of_both_shapes_that_wait_for_their_secret_can_be_deleted_at_once() -> Result<()> {
    on_cluster(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.binding("db", "prod", &["never-set"]).await?;
        let pods = t.api::<Pod>();
        for (name, policy) in pods::POLICIES {
            let template = pods::of_policy(policy, t.image(), pods::SLEEP);
            t.create_patiently(&pods::pod(name, template)?).await?;
            pods::until_ours_runs(&pods, name).await?;
            // Of the second one, the kubelet waits at its gate by now.
            sleep(Duration::from_secs(3)).await;
            pods.delete(name, &kube::api::DeleteParams::default()).await?;
            eventually(
                &format!("the pod {name} to go"),
                Duration::from_secs(30),
                async || match pods.get_opt(name).await? {
                    None => Ok(()),
                    Some(_) => Err(anyhow!("it is still there")),
                },
            )
            .await?;
        }
        Ok(())
    })
}
