//! A namespace for one test, with what most tests need in it.

use std::fmt::Debug;
use std::net::{IpAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::Stdio;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config, Resource, ResourceExt};
use sealpod_client::Client;
use sealpod_core::kubernetes::{ROLLED_OUT_FOR, key_secret_name};
use sealpod_crds::{Application, Environment, SecretBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::server::Connection;
use crate::tools::{Tools, text};
use crate::wait::eventually;
use crate::world::{RUNTIME, TEST_LABEL, World, world};
use crate::{diagnose, pods, server};

/// The application that most tests have.
pub const APPLICATION: &str = "shop";
/// How long the controller may take to bring an object to the state that is waited for.
pub const CONVERGE: Duration = Duration::from_mins(1);

/// Runs a test beside others. Its namespace goes afterwards, however it ended.
pub fn on_cluster(test: impl AsyncFnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    let world = world()?;
    let _calm = world.calm.read().unwrap_or_else(PoisonError::into_inner);
    in_sandbox(world, test)
}

/// Runs a test that disturbs the release, while no other runs.
pub fn on_cluster_alone(test: impl AsyncFnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    let world = world()?;
    let _alone = world.calm.write().unwrap_or_else(PoisonError::into_inner);
    in_sandbox(world, test)
}

fn in_sandbox(world: &'static World, test: impl AsyncFnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    RUNTIME.block_on(async {
        let sandbox = Sandbox::make(world).await?;
        let ended = AssertUnwindSafe(test(&sandbox)).catch_unwind().await;
        if !matches!(ended, Ok(Ok(()))) {
            diagnose::dump(&world.tools, &sandbox.namespace).await;
        }
        let removed = sandbox.remove().await;
        ended.unwrap_or_else(|panic| resume_unwind(panic)).and(removed)
    })
}

/// The namespace of a test. Its name is also the slug of the test's application, because slugs are the server's.
pub struct Sandbox {
    pub namespace: String,
    world: &'static World,
    /// Of this test alone: nothing ends what is shared when the last test has ended.
    connection: Mutex<Option<Connection>>,
}

/// Kinds with conditions in their status.
pub trait Conditions {
    fn conditions(&self) -> &[Condition];
}

macro_rules! conditions {
    ($($kind:ty),*) => {$(
        impl Conditions for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
        }
    )*};
}
conditions!(Application, Environment, SecretBinding);

impl Sandbox {
    async fn make(world: &'static World) -> Result<Self> {
        // libtest names the thread after the test.
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        let words = test.rsplit("::").next().unwrap_or_default().replace('_', "-");
        let namespace = format!(
            "e2e-{}-{}",
            world.run,
            words.get(..40).unwrap_or(&words).trim_end_matches('-')
        );
        let (key, value) = TEST_LABEL;
        let object: Namespace = serde_json::from_value(json!({
            "metadata": {
                "name": namespace,
                "labels": {key: value, "pod-security.kubernetes.io/enforce": "restricted"},
                "annotations": {"sealpod-e2e/test": test},
            },
        }))?;
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        namespaces.create(&PostParams::default(), &object).await?;
        let sandbox = Self {
            namespace,
            world,
            connection: Mutex::new(None),
        };
        // Without it no pod is admitted.
        let accounts: Api<ServiceAccount> = sandbox.api();
        eventually("the namespace's service account", CONVERGE, async || {
            Ok(accounts.get_metadata("default").await?)
        })
        .await?;
        Ok(sandbox)
    }

    /// Asks for the namespace's deletion; how it goes on is a test of its own.
    async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other
                .map(|_| ())
                .with_context(|| format!("cannot delete the namespace {}", self.namespace)),
        }
    }

    pub fn client(&self) -> kube::Client {
        self.world.client.clone()
    }

    pub fn tools(&self) -> &Tools {
        &self.world.tools
    }

    pub fn image(&self) -> &str {
        &self.world.settings.app_image
    }

    /// A client of the api-server with the admin key.
    pub async fn server(&self) -> Result<Client> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_mut()
            && open.is_open()
        {
            return Ok(open.client.clone());
        }
        let open = Connection::open(self.tools(), &self.world.client).await?;
        Ok(connection.insert(open).client.clone())
    }

    /// A client of the api-server with an application's own key.
    pub async fn as_application(&self, key: &str) -> Result<Client> {
        self.server().await?;
        let connection = self.connection.lock().await;
        connection.as_ref().context("it was just opened")?.as_application(key)
    }

    /// Whether whoever trusts this CA alone speaks with the api-server.
    pub async fn is_trusted_by(&self, ca: &str) -> Result<bool> {
        self.server().await?;
        let connection = self.connection.lock().await;
        connection
            .as_ref()
            .context("it was just opened")?
            .is_trusted_by(ca)
            .await
    }

    /// The command that starts a component of the cluster anew; none where the cluster is not ours.
    pub fn restart_of(&self, component: &str) -> Option<Command> {
        let mut command = Command::new(self.world.settings.xtask.as_ref()?);
        command.args(["cluster", "restart", component]).kill_on_drop(true);
        Some(command)
    }

    /// The address under which the API server reaches this process; none where the cluster is not ours, and may be anywhere.
    pub async fn machine(&self) -> Result<Option<IpAddr>> {
        let settings = &self.world.settings;
        if settings.xtask.is_none() {
            return Ok(None);
        }
        let kubeconfig = Kubeconfig::read_from(&settings.kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let server = config.cluster_url.host().context("an API server has an address")?;
        let port = config.cluster_url.port_u16().unwrap_or(443);
        // The way there is the way back. Nothing is sent.
        let way = UdpSocket::bind(("0.0.0.0", 0))?;
        way.connect((server, port))?;
        Ok(Some(way.local_addr()?.ip()))
    }

    /// Closes the way to the api-server, for when the pod behind it goes.
    pub async fn hang_up(&self) {
        *self.connection.lock().await = None;
    }

    /// Objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), &self.namespace)
    }

    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let created = self.api().create(&PostParams::default(), object).await;
        created.with_context(|| format!("cannot create {} {}", K::kind(&()), object.name_any()))
    }

    /// Waits until it is on record what the workloads of a binding follow: its values and its copy. Changes from then on are
    /// rolled out.
    pub async fn until_followed(&self, binding: &str) -> Result<()> {
        let secrets = self.api::<Secret>();
        eventually("the record of what is followed", CONVERGE, async || {
            let secret = secrets.get(&key_secret_name(binding)).await?;
            let record = secret.annotations().get(ROLLED_OUT_FOR).context("there is none")?;
            let record: serde_json::Value = serde_json::from_str(record)?;
            ensure!(record["copy"].is_object(), "{record}");
            Ok(())
        })
        .await
    }

    /// Waits until the condition `Ready` has this status, and gives the condition.
    pub async fn until_ready_is<K>(&self, name: &str, status: &str) -> Result<Condition>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Conditions,
    {
        let api = self.api::<K>();
        let what = format!("{} {name} to show Ready={status}", K::kind(&()));
        eventually(&what, CONVERGE, async || {
            let object = api.get(name).await?;
            let ready = object.conditions().iter().find(|condition| condition.type_ == "Ready");
            let ready = ready.context("there is no condition Ready")?;
            let (observed, current) = (ready.observed_generation, object.meta().generation);
            ensure!(
                observed == current,
                "the controller has seen generation {observed:?} of {current:?}"
            );
            ensure!(
                ready.status == status,
                "Ready={} {}: {}",
                ready.status,
                ready.reason,
                ready.message
            );
            Ok(ready.clone())
        })
        .await
    }

    /// Makes the test's application, `shop`, with these environments, and waits until the server has it.
    pub async fn application(&self, deletion_policy: &str, environments: &[&str]) -> Result<Application> {
        let environments: Vec<_> = environments.iter().map(|name| json!({"name": name})).collect();
        let application = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1",
            "kind": "Application",
            "metadata": {"name": APPLICATION},
            "spec": {"slug": self.namespace, "environments": environments, "deletionPolicy": deletion_policy},
        }))?;
        self.create::<Application>(&application).await?;
        self.until_ready_is::<Application>(APPLICATION, "True").await?;
        self.api().get(APPLICATION).await.context("the Application is there")
    }

    /// Makes a binding to secrets of the test's application; it need not become ready.
    pub async fn binding(&self, name: &str, environment: &str, secrets: &[&str]) -> Result<SecretBinding> {
        let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
        let binding = serde_json::from_value(json!({
            "apiVersion": "sealpod.dev/v1alpha1",
            "kind": "SecretBinding",
            "metadata": {"name": name},
            "spec": {"applicationRef": {"name": APPLICATION}, "environment": environment, "secrets": secrets},
        }))?;
        self.create(&binding).await
    }

    /// Sets a value of the test's application.
    pub async fn set(&self, environment: &str, name: &str, value: &str) -> Result<()> {
        server::set(&self.server().await?, &self.namespace, environment, name, value).await
    }

    /// Application, value and a binding that is ready: what a pod needs. The environment is `prod`, the binding `db`.
    pub async fn delivery(&self, secret: &str, value: &str) -> Result<()> {
        self.application("Delete", &["prod"]).await?;
        self.set("prod", secret, value).await?;
        self.binding("db", "prod", &[secret]).await?;
        self.until_ready_is::<SecretBinding>("db", "True").await?;
        Ok(())
    }

    /// Makes a pod that gets the binding `db` and waits until it is ready. It has one container, `app`.
    pub async fn running_app(&self, name: &str, script: &str) -> Result<Pod> {
        let app = pods::container("app", self.image(), 10_001, script);
        self.running(name, pods::pod(name, pods::template("db", &[app]))?).await
    }

    /// Makes a pod, with patience for an injector that has not heard of its binding yet, and waits until it is ready.
    pub async fn running(&self, name: &str, pod: Pod) -> Result<Pod> {
        self.create_patiently(&pod).await?;
        self.until_running(name).await
    }

    pub async fn until_running(&self, name: &str) -> Result<Pod> {
        let pods = self.api::<Pod>();
        eventually(&format!("the pod {name} to be ready"), pods::START, async || {
            let pod = pods.get(name).await?;
            pods::ready(&pod)?;
            Ok(pod)
        })
        .await
    }

    /// Creates what a webhook may refuse for a moment, because its cache follows the cluster.
    pub async fn create_patiently<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let what = format!("{} {} to be admitted", K::kind(&()), object.name_any());
        eventually(&what, Duration::from_secs(15), async || self.create(object).await).await
    }

    /// A shell command in a container of a pod.
    pub fn shell(&self, pod: &str, container: &str, script: &str) -> Command {
        let namespace = format!("--namespace={}", self.namespace);
        let mut command = self
            .tools()
            .kubectl(["exec", &namespace, pod, "--container", container]);
        command
            .args(["--", "/bin/sh", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What a shell command prints.
    pub async fn exec(&self, pod: &str, container: &str, script: &str) -> Result<String> {
        text(self.shell(pod, container, script)).await
    }
}

/// Where a binding's file is.
pub fn file(binding: &str, name: &str) -> String {
    format!("{}/{binding}/{name}", sealpod_core::kubernetes::MOUNT_ROOT)
}
