//! What all tests share: the cluster, the release on it, and the runtime that its clients live on.

use std::sync::{LazyLock, OnceLock, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, ResourceExt};
use tokio::runtime::Runtime;

use crate::install;
use crate::settings::Settings;
use crate::tools::Tools;

/// Label of the namespaces that tests make.
pub const TEST_LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "sealpod-e2e");

pub struct World {
    pub settings: Settings,
    pub tools: Tools,
    pub client: kube::Client,
    /// Tells this run's names from those of a run that was killed.
    pub run: String,
    /// Held for reading by tests that need the release as it is, for writing by one that disturbs it.
    pub calm: RwLock<()>,
}

/// One for all: a client's connections live on the runtime that made it.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be made")
});

/// The world, made by the first who asks; where that failed, the same error for everybody.
pub fn world() -> Result<&'static World> {
    static WORLD: OnceLock<Result<World, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| RUNTIME.block_on(World::make()).map_err(|error| format!("{error:#}")));
    world.as_ref().map_err(|error| anyhow!("{error}"))
}

impl World {
    async fn make() -> Result<Self> {
        let settings = Settings::from_env()?;
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .map_err(|_| anyhow!("another TLS provider is installed already"))?;
        let kubeconfig = Kubeconfig::read_from(&settings.kubeconfig)
            .with_context(|| format!("cannot read KUBECONFIG={}", settings.kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config)?;
        client.apiserver_version().await.with_context(|| {
            format!(
                "the cluster of KUBECONFIG={} does not answer: is it running (`cargo xtask cluster up`)?",
                settings.kubeconfig.display()
            )
        })?;
        let tools = Tools::new(&settings);
        install::install(&tools, &settings).await?;
        clear_left_over(&client).await?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is past 1970")?;
        Ok(Self {
            settings,
            tools,
            client,
            run: format!("{:x}", since.as_secs() & 0xF_FFFF),
            calm: RwLock::new(()),
        })
    }
}

/// Namespaces of runs that were killed would fill the cluster.
async fn clear_left_over(client: &kube::Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let (key, value) = TEST_LABEL;
    let ours = ListParams::default().labels(&format!("{key}={value}"));
    for namespace in namespaces.list_metadata(&ours).await? {
        namespaces
            .delete(&namespace.name_any(), &DeleteParams::default())
            .await?;
    }
    Ok(())
}
