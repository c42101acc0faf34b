//! The admission webhook: a pod that asks for it gets the sidecar, its volumes and its mounts.
//!
//! A request goes `server` → `review` (the AdmissionReview) → `plan` (pure: from the pod, the cached bindings and our
//! settings) → `patch` (operations on the raw pod) → back. No call leaves the process while the API server waits.

mod cache;
mod callers;
mod certs;
mod completed;
mod conflicts;
mod containers;
mod denial;
mod earlier;
mod exec;
mod lines;
mod mesh;
mod metrics;
mod patch;
mod plan;
mod pod;
mod quantity;
mod resources;
mod review;
mod run;
mod select;
mod server;
mod signal;
mod version;
mod warnings;
mod weight;

use axum::http::Uri;
use sealpod_runtime::telemetry::Format;

pub use pod::Pod;
pub use run::run;
pub use select::{Binding, select};

/// What every injected pod has in common. It comes from the injector's own configuration alone, never from a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Base URL of the api-server, without a path.
    pub server_url: String,
    pub server_port: u16,
    pub image: String,
    pub image_pull_policy: String,
    pub log: SidecarLog,
}

/// What our containers log, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarLog {
    /// A level, or `target=level` pairs.
    pub filter: String,
    pub format: Format,
}

/// Why the injector does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("--server-url must be http:// or https:// with a host and no user, path or query: {0:?}")]
    ServerUrl(String),
    #[error("--sidecar-image must not be empty")]
    Image,
    #[error("--sidecar-image-pull-policy must be Always, IfNotPresent or Never, not {0:?}")]
    PullPolicy(String),
}

impl Settings {
    /// Whether only the cluster's own DNS knows the server's name.
    fn server_is_a_service(&self) -> bool {
        let uri: Option<Uri> = self.server_url.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        host.split('.').skip(1).any(|label| label == "svc")
    }

    pub fn new(server_url: &str, image: &str, image_pull_policy: &str, log: SidecarLog) -> Result<Self, SettingsError> {
        let bad_url = || SettingsError::ServerUrl(server_url.to_owned());
        let uri: Uri = server_url.parse().map_err(|_| bad_url())?;
        let default_port = match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => return Err(bad_url()),
        };
        let authority = uri.authority().ok_or_else(bad_url)?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad_url());
        }
        if image.trim().is_empty() {
            return Err(SettingsError::Image);
        }
        if !["Always", "IfNotPresent", "Never"].contains(&image_pull_policy) {
            return Err(SettingsError::PullPolicy(image_pull_policy.to_owned()));
        }
        Ok(Self {
            server_url: server_url.trim_end_matches('/').to_owned(),
            server_port: authority.port_u16().unwrap_or(default_port),
            image: image.to_owned(),
            image_pull_policy: image_pull_policy.to_owned(),
            log,
        })
    }
}

#[cfg(test)]
pub mod tests;
