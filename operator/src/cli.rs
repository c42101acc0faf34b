//! The command line: every setting is a flag and an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sealpod_runtime::telemetry::Format;

/// Sealpod's Kubernetes side: brings custom resources to the api-server and secrets into pods.
#[derive(Debug, Parser)]
#[command(name = "sealpod-operator", version, about)]
pub struct Cli {
    #[command(flatten)]
    pub log: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// What is logged: a level, or `target=level` pairs such as `info,sealpod_operator=debug`.
    #[arg(long = "log", env = "SEALPOD_LOG", default_value = "info", global = true)]
    pub filter: String,
    /// How it is logged: `text` or `json`.
    #[arg(
        long = "log-format",
        env = "SEALPOD_LOG_FORMAT",
        default_value = "text",
        global = true
    )]
    pub format: Format,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Brings Applications, Environments and SecretBindings to the api-server.
    Controller(ControllerArgs),
    /// Serves the admission webhook that puts the sidecar into pods.
    Injector(InjectorArgs),
    /// Makes the first keys and certificates of an installation; never replaces one.
    Bootstrap(BootstrapArgs),
    /// Prints the custom resource definitions as YAML.
    Crds,
}

#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// Base URL of the api-server, without a path: `https://sealpod-api-server.sealpod.svc:7100`.
    #[arg(long, env = "SEALPOD_SERVER_URL")]
    pub server_url: String,
    /// PEM file of the CA that signs the api-server's certificate; it also goes into each key Secret.
    #[arg(long, env = "SEALPOD_SERVER_CA_FILE")]
    pub server_ca_file: Option<PathBuf>,
    /// File that holds the api-server's admin key; read again when it changes.
    #[arg(long, env = "SEALPOD_ADMIN_KEY_FILE")]
    pub admin_key_file: PathBuf,
    /// Organization of the api-server in which the management plane works.
    #[arg(long, env = "SEALPOD_ORGANIZATION", default_value = "default")]
    pub organization: String,
    /// Name of this cluster in everything that is made on the api-server. Default: the UID of namespace kube-system.
    #[arg(long, env = "SEALPOD_CLUSTER_ID", value_parser = cluster_id)]
    pub cluster_id: Option<String>,
    /// The operator's own namespace, for the Lease.
    #[arg(long, env = "SEALPOD_NAMESPACE")]
    pub namespace: String,
    /// What tells this replica from the others; the pod's name.
    #[arg(long, env = "SEALPOD_POD_NAME")]
    pub identity: String,
    /// Address of `/metrics`, `/livez` and `/readyz`.
    #[arg(long, env = "SEALPOD_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    pub metrics_listen: SocketAddr,
    /// Namespaces to work in; all, if none is named. With names, no right beyond them is needed.
    #[arg(long, env = "SEALPOD_WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,
    /// Evict pods that ask for injection and run without it, so that their controllers make others.
    #[arg(long, env = "SEALPOD_EVICT_MISSED", requires = "injector_address")]
    pub evict_missed: bool,
    /// `host:port` of the injector's webhook: nothing is evicted while it does not answer.
    #[arg(long, env = "SEALPOD_INJECTOR_ADDRESS")]
    pub injector_address: Option<String>,
    /// Namespaces whose pods are never injected, as the webhook's configuration has it.
    #[arg(long, env = "SEALPOD_NOT_INJECTED_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub not_injected_namespaces: Vec<String>,
    /// Secret with the CA that signs the api-server's certificate, as the bootstrap makes it: then both are renewed.
    #[arg(long, env = "SEALPOD_SERVER_CA_SECRET", requires_all = ["server_tls_secret", "server_dns_names"])]
    pub server_ca_secret: Option<String>,
    /// Secret with the api-server's certificate, as the bootstrap makes it.
    #[arg(long, env = "SEALPOD_SERVER_TLS_SECRET", requires = "server_ca_secret")]
    pub server_tls_secret: Option<String>,
    /// DNS names in the api-server's certificate; the first is the one by which it is called.
    #[arg(long = "server-dns-name", env = "SEALPOD_SERVER_DNS_NAMES", value_delimiter = ',')]
    pub server_dns_names: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct InjectorArgs {
    /// Address of the webhook.
    #[arg(long, env = "SEALPOD_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Address of `/metrics`, `/livez` and `/readyz`.
    #[arg(long, env = "SEALPOD_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    pub metrics_listen: SocketAddr,
    /// Base URL of the api-server that sidecars call, without a path.
    #[arg(long, env = "SEALPOD_SERVER_URL")]
    pub server_url: String,
    /// Image of the sidecar.
    #[arg(long, env = "SEALPOD_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    #[arg(long, env = "SEALPOD_SIDECAR_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub sidecar_image_pull_policy: String,
    /// What sidecars log, as `--log`.
    #[arg(long, env = "SEALPOD_SIDECAR_LOG", default_value = "info")]
    pub sidecar_log: String,
    /// How sidecars log it: `text` or `json`.
    #[arg(long, env = "SEALPOD_SIDECAR_LOG_FORMAT", default_value = "text")]
    pub sidecar_log_format: Format,
    /// Name of the MutatingWebhookConfiguration that gets the CA and the path.
    #[arg(long, env = "SEALPOD_WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: String,
    /// Name of the webhook's Service, for its certificate.
    #[arg(long, env = "SEALPOD_WEBHOOK_SERVICE")]
    pub webhook_service: String,
    /// Where the webhook's certificate comes from.
    #[arg(long, env = "SEALPOD_CERTIFICATES", value_enum, default_value_t = Certificates::Own)]
    pub certificates: Certificates,
    /// Secret that keeps the webhook's CA; with `--certificates given`, the random part of its path alone.
    #[arg(long, env = "SEALPOD_CA_SECRET")]
    pub ca_secret: String,
    /// Secret that keeps the webhook's certificate.
    #[arg(long, env = "SEALPOD_TLS_SECRET")]
    pub tls_secret: String,
    /// How long a certificate of our own lives, such as `2160h`, the default; it is renewed after two thirds of it.
    #[arg(long, env = "SEALPOD_CERTIFICATE_LIFE", value_parser = sealpod_crds::parse_duration)]
    pub certificate_life: Option<Duration>,
    /// How long a CA of our own lives, at least three times as long as a certificate. Default: ten years.
    #[arg(long, env = "SEALPOD_AUTHORITY_LIFE", value_parser = sealpod_crds::parse_duration)]
    pub authority_life: Option<Duration>,
    /// PEM file of the CA of client certificates; then nobody without one is answered. Read at start.
    #[arg(long, env = "SEALPOD_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Common name that a client certificate has to have, beside being signed by that CA. Default: any.
    #[arg(long, env = "SEALPOD_CLIENT_NAME", requires = "client_ca_file")]
    pub client_name: Option<String>,
    /// The injector's own namespace.
    #[arg(long, env = "SEALPOD_NAMESPACE")]
    pub namespace: String,
}

/// Where the webhook's certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Certificates {
    /// The injector makes it, and its CA, and renews both.
    Own,
    /// Somebody else, such as cert-manager, keeps it in the Secret, as tls.crt, tls.key and ca.crt.
    Given,
}

/// A Secret whose name is left out is not made.
#[derive(Debug, Clone, Args)]
pub struct BootstrapArgs {
    /// Namespace of the Secrets.
    #[arg(long, env = "SEALPOD_NAMESPACE")]
    pub namespace: String,
    /// Secret of the master key.
    #[arg(long, env = "SEALPOD_MASTER_KEY_SECRET")]
    pub master_key_secret: Option<String>,
    /// Secret of the admin key.
    #[arg(long, env = "SEALPOD_ADMIN_KEY_SECRET")]
    pub admin_key_secret: Option<String>,
    /// Secret of the CA that signs the api-server's certificate.
    #[arg(long, env = "SEALPOD_CA_SECRET", requires = "tls_secret")]
    pub ca_secret: Option<String>,
    /// Secret of the api-server's certificate.
    #[arg(long, env = "SEALPOD_TLS_SECRET", requires = "ca_secret")]
    pub tls_secret: Option<String>,
    /// DNS names in the api-server's certificate.
    #[arg(long = "server-dns-name", env = "SEALPOD_SERVER_DNS_NAMES", value_delimiter = ',')]
    pub server_dns_names: Vec<String>,
}

/// It is one part of names whose parts are divided by slashes.
fn cluster_id(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if (1..=36).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(
            "must be 1 to 36 letters, digits, `.`, `_` and `-`, and never change; leave it out for the default"
                .to_owned(),
        )
    }
}

fn namespace(text: &str) -> Result<String, String> {
    match sealpod_core::names::check_label(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!("a namespace {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cluster_id_is_one_part_of_a_name() {
        assert!(cluster_id("eu-1.prod").is_ok() && cluster_id(&"a".repeat(36)).is_ok());
        for bad in ["", "a/b", "a b", &"a".repeat(37)] {
            assert!(cluster_id(bad).is_err(), "{bad:?}");
        }
    }
}
