//! Brings Applications, Environments and SecretBindings to the api-server: observe, evaluate, apply.

mod allowed;
mod application;
mod binding;
mod certificate;
mod changes;
mod conditions;
mod configurations;
mod context;
mod echo;
mod environment;
mod error;
mod events;
mod gone;
mod guests;
mod kept;
mod kind;
mod leader;
mod lookup;
mod metrics;
mod missed;
mod namespace;
mod owned;
mod owner;
mod referred;
mod report;
mod restart;
mod retries;
mod scope;
#[cfg(test)]
mod sealpod;
mod selectors;
mod server;
#[cfg(test)]
mod stage;
mod streams;
mod told;
mod uid;
mod verdict;
mod work;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use sealpod_runtime::admin::{self, Readiness};
use sealpod_runtime::{serve, shutdown};
use tokio_util::sync::CancellationToken;

use crate::cli::ControllerArgs;
use leader::Leader;
use metrics::Metrics;
use scope::Scope;
use server::Server;

/// Whose UID names the cluster: every cluster has it, and nobody deletes it.
const CLUSTER_NAMESPACE: &str = "kube-system";
const RETRY: Duration = Duration::from_secs(2);

/// Runs until SIGTERM; an error means that the process must end at once.
pub async fn run(args: ControllerArgs) -> anyhow::Result<()> {
    let ControllerArgs {
        server_url,
        server_ca_file,
        admin_key_file,
        organization,
        cluster_id,
        namespace,
        identity,
        metrics_listen,
        watch_namespaces,
        evict_missed,
        injector_address,
        not_injected_namespaces,
        server_ca_secret,
        server_tls_secret,
        server_dns_names,
    } = args;
    let certificate = certificate::Settings::new(&namespace, server_ca_secret, server_tls_secret, server_dns_names);
    let scope = Scope::new(watch_namespaces);
    let missed = missed::Options {
        evict: evict_missed,
        injector: injector_address.unwrap_or_default(),
        excluded: not_injected_namespaces,
    };
    let (server, follower) = Server::new(&server_url, organization, admin_key_file, server_ca_file)?;
    let listener = serve::bind(metrics_listen)?;
    let kube = Client::try_default().await.context("finding the Kubernetes API")?;
    let stop = shutdown::signalled();
    let mut registry = admin::registry("operator-controller", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::new(&mut registry);
    let readiness = Readiness::new();
    readiness.block("kubernetes", "not reached yet");
    let probes_stop = CancellationToken::new();
    let probes = admin::serve_on(listener, Arc::new(registry), readiness.clone(), probes_stop.clone());
    let mut probes = tokio::spawn(probes);

    let lead = async {
        let Some(cluster_id) = cluster_id_of(&kube, cluster_id, &stop).await else {
            return Ok(());
        };
        readiness.clear("kubernetes");
        let candidate = Leader::new(kube.clone(), &namespace, &identity);
        let Some(mut leader) = candidate.acquire(&stop).await else {
            return Ok(());
        };
        tracing::info!(cluster_id, identity, "this replica does the work");
        metrics.leader.set(1);
        // Not behind the rest of the work, which waits for a server that shows a certificate of use.
        let written = server.clone();
        let holders = certificate::Holders::new(kube.clone(), scope.clone(), move || written.ca());
        let certificate = Box::pin(certificate::run(kube.clone(), certificate, holders, metrics.clone()));
        let setup = work::Setup {
            cluster_id,
            identity: identity.clone(),
            scope,
            missed,
        };
        let context = work::Parts::new(kube, server, setup, metrics);
        tokio::select! {
            lost = leader.hold() => return Err(lost.into()),
            never = certificate => match never {},
            () = context.run(&stop) => {}
        }
        leader.release().await;
        Ok(())
    };
    let ended = tokio::select! {
        ended = lead => ended,
        () = follower.run() => Ok(()),
        ended = &mut probes => Err(anyhow::anyhow!("the listener of probes and metrics has ended: {ended:?}")),
    };
    probes_stop.cancel();
    ended
}

/// The name of the cluster, given or looked up; nothing if the process is stopped before.
async fn cluster_id_of(kube: &Client, given: Option<String>, stop: &CancellationToken) -> Option<String> {
    if let Some(id) = given {
        return Some(id);
    }
    let api: Api<Namespace> = Api::all(kube.clone());
    loop {
        match api
            .get_metadata(CLUSTER_NAMESPACE)
            .await
            .map(|namespace| namespace.uid())
        {
            Ok(Some(uid)) => return Some(uid),
            Ok(None) => tracing::warn!("namespace {CLUSTER_NAMESPACE} has no UID"),
            Err(error) => {
                tracing::warn!(
                    "namespace {CLUSTER_NAMESPACE} cannot be read: {}",
                    error::describe(&error)
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return None,
        }
    }
}
