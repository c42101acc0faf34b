//! The api-server or the controller goes away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_crds::{Application, SecretBinding};
use sealpod_e2e::install::{NAMESPACE, object};
use sealpod_e2e::sandbox::{CONVERGE, file};
use sealpod_e2e::server::ORGANIZATION;
use sealpod_e2e::world::TEST_LABEL;
use sealpod_e2e::{Sandbox, eventually, on_cluster_alone, pods};
use serde_json::json;
use tokio::time::sleep;

#[test]
fn a_restart_of_the_api_server_leaves_the_files_of_running_pods_alone() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "before").await?;
        let pod = t.running_app("app", pods::SLEEP).await?;
        // The directory behind `..data` is new after every write, so its name shows whether anything was written.
        let look = format!("readlink {} && cat {}", file("db", "..data"), file("db", "password"));
        let written = t.exec("app", "app", &look).await?;

        let servers: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        let name = format!("{}-0", object("api-server"));
        let old = servers.get(&name).await?.metadata.uid;
        servers.delete(&name, &DeleteParams::default()).await?;
        eventually("the old api-server to go", Duration::from_mins(1), async || {
            assert_eq!(t.exec("app", "app", &look).await?, written);
            let new = servers.get_opt(&name).await?.and_then(|pod| pod.metadata.uid);
            ensure!(new != old, "it is still there");
            Ok(())
        })
        .await?;
        eventually("the new api-server", pods::START, async || {
            assert_eq!(t.exec("app", "app", &look).await?, written);
            let server = servers.get_opt(&name).await?.context("its pod is not there yet")?;
            pods::ready(&server)
        })
        .await?;
        t.hang_up().await;
        // Time for the sidecar to notice and to ask again.
        sleep(Duration::from_secs(5)).await;
        assert_eq!(
            t.exec("app", "app", &look).await?,
            written,
            "nothing changed, so nothing was written"
        );
        let after = t.until_running("app").await?;
        assert_eq!(after.metadata.uid, pod.metadata.uid);
        assert_eq!(pods::restarts(&after), 0, "no container was started again");

        t.set("prod", "password", "after").await?;
        eventually("an update after the restart", Duration::from_secs(90), async || {
            let seen = t.exec("app", "app", &format!("cat {}", file("db", "password"))).await?;
            ensure!(seen == "after", "the file still says {seen:?}");
            Ok(())
        })
        .await
    })
}

#[test]
fn a_minute_without_the_api_server_costs_the_objects_nothing_but_the_minute() -> Result<()> {
    on_cluster_alone(async |t| {
        t.delivery("password", "value").await?;
        t.set("prod", "second", "value").await?;
        let key = sealpod_core::kubernetes::key_secret_name("db");
        let secrets: Api<Secret> = t.api();
        let before = secrets.get(&key).await?.data;
        let going = Going::make(t).await?;
        let servers: Api<StatefulSet> = Api::namespaced(t.client(), NAMESPACE);
        let name = object("api-server");
        let replicas = async |count: i32| {
            let scale = Patch::Merge(json!({"spec": {"replicas": count}}));
            servers
                .patch_scale(&name, &PatchParams::default(), &scale)
                .await
                .map(drop)
        };
        t.hang_up().await;
        replicas(0).await?;
        eventually("the api-server to go", Duration::from_mins(1), async || {
            let status = servers.get_status(&name).await?.status;
            let left = status.context("it has a status")?.replicas;
            ensure!(left == 0, "{left} left");
            Ok(())
        })
        .await?;
        let edit = Patch::Merge(json!({"spec": {"secrets": [{"name": "password"}, {"name": "second"}]}}));
        let bindings: Api<SecretBinding> = t.api();
        bindings.patch("db", &PatchParams::default(), &edit).await?;
        t.binding("late", "prod", &["password"]).await?;
        let unknown = t.until_ready_is::<SecretBinding>("late", "Unknown").await?;
        assert_eq!(unknown.reason, "ServerUnavailable");
        assert!(unknown.message.contains("trying again"), "{unknown:?}");
        // It is cleaned up after for a minute, and then let go.
        going.delete(t).await?;
        assert_eq!(
            secrets.get(&key).await?.data,
            before,
            "nobody to ask, nothing to change"
        );
        replicas(1).await?;
        // Nobody has to touch an object for that.
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        t.until_ready_is::<SecretBinding>("late", "True").await?;
        let left = t.server().await?.management().application(&going.namespace).await?;
        assert!(
            left.labels.contains_key(OWNER_LABEL),
            "its owner can still be told: {left:?}"
        );
        t.server()
            .await?
            .management()
            .delete_application(&going.namespace)
            .await?;
        Ok(())
    })
}

/// A namespace with an Application in it, that is deleted while the api-server is away.
struct Going {
    namespace: String,
}

impl Going {
    async fn make(t: &Sandbox) -> Result<Self> {
        let namespace = format!("{}-g", t.namespace);
        let (key, value) = TEST_LABEL;
        let object = json!({"metadata": {"name": namespace, "labels": {key: value}}});
        let namespaces: Api<Namespace> = Api::all(t.client());
        namespaces
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await?;
        let application = json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "Application", "metadata": {"name": "going"},
            "spec": {"slug": namespace},
        });
        let applications: Api<Application> = Api::namespaced(t.client(), &namespace);
        applications
            .create(&PostParams::default(), &serde_json::from_value(application)?)
            .await?;
        let server = t.server().await?;
        eventually("the application that will go", CONVERGE, async || {
            Ok(server.management().application(&namespace).await?)
        })
        .await?;
        Ok(Self { namespace })
    }

    async fn delete(&self, t: &Sandbox) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(t.client());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        eventually(
            "the namespace to go without the server",
            Duration::from_mins(3),
            async || {
                let left = namespaces.get_opt(&self.namespace).await?;
                ensure!(left.is_none(), "it is still there: {:?}", left.and_then(|n| n.status));
                Ok(())
            },
        )
        .await
    }
}

#[test]
fn of_two_controllers_the_other_one_takes_over_when_the_one_at_work_is_killed() -> Result<()> {
    on_cluster_alone(async |t| {
        t.application("Delete", &["prod"]).await?;
        t.set("prod", "password", "value").await?;
        let controllers: Api<Deployment> = Api::namespaced(t.client(), NAMESPACE);
        let name = object("controller");
        eventually("two controllers", pods::START, async || {
            let status = controllers.get_status(&name).await?.status;
            let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
            ensure!(ready == 2, "{ready} are ready");
            Ok(())
        })
        .await?;
        let leases: Api<Lease> = Api::namespaced(t.client(), NAMESPACE);
        let holder = async || {
            let lease = leases.get("sealpod-controller").await?;
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            ensure!(!holder.is_empty(), "nobody holds the Lease");
            Ok(holder)
        };
        let pods: Api<Pod> = Api::namespaced(t.client(), NAMESPACE);
        let first = eventually("somebody to lead", CONVERGE, async || {
            let holder = holder().await?;
            // One that an earlier test has replaced may not have released it.
            pods.get(&holder).await.context("whoever holds the Lease is gone")?;
            Ok(holder)
        })
        .await?;
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&first, &at_once).await?;
        eventually("the other one to lead", CONVERGE, async || {
            ensure!(holder().await? != first, "the killed one still holds the Lease");
            Ok(())
        })
        .await?;
        t.binding("db", "prod", &["password"]).await?;
        t.until_ready_is::<SecretBinding>("db", "True").await?;
        let accounts = t.server().await?.org(ORGANIZATION).service_accounts(None).await?;
        let ours: Vec<_> = accounts
            .iter()
            .filter(|account| account.name.contains(&t.namespace))
            .collect();
        assert_eq!(ours.len(), 1, "{ours:?}");
        Ok(())
    })
}
