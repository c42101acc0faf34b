//! What the injector tells the sidecar, and what the operator tells it through the key Secret.
//!
//! A pod cannot change, so what is fixed for its life is one JSON document in an environment variable
//! ([`SidecarSettings`]); what may change while it runs is files of the key Secret, which the kubelet refreshes:
//! the key, the CA and [`BindingFile`].

use serde::{Deserialize, Serialize};

use crate::paths::FilePath;
use crate::pattern::Pattern;

/// Environment variable that holds [`SidecarSettings`] as JSON.
pub const SETTINGS_VARIABLE: &str = "SEALPOD_SETTINGS";

/// Data keys of a binding's key Secret, and so the names of the files in [`MountedBinding::credentials`].
pub const API_KEY_FILE: &str = "api-key";
/// PEM certificates; old and new while the CA changes. Absent where the server's URL is plain HTTP.
pub const CA_FILE: &str = "ca.crt";
/// [`BindingFile`] as JSON.
pub const BINDING_FILE: &str = "binding.json";

/// File at the top of each mount that holds [`HandOver`] as JSON; beginning with `..` it is none of the delivered
/// files, and its mode 0600 keeps it the sidecar's own.
pub const HAND_OVER_FILE: &str = "..sealpod-state";

/// What is fixed for the life of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSettings {
    /// Base URL of the api-server, without a path: `https://sealpod-api-server.sealpod.svc:7100`.
    pub server_url: String,
    pub pod: PodIdentity,
    /// Port of `/healthz`, `/readyz` and `/metrics` on the pod's address; none on `hostNetwork` pods.
    pub health_port: Option<u16>,
    pub bindings: Vec<MountedBinding>,
}

/// Filled in by the kubelet: the injector writes `$(VARIABLE)` references to downward-API variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
}

/// One binding in one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountedBinding {
    pub name: String,
    /// Directory of the tmpfs volume, the same in the sidecar as in the app's containers.
    pub mount_path: String,
    /// Directory of the key Secret's files, in the sidecar only.
    pub credentials: String,
    /// Size limit of the tmpfs volume in bytes; half of it is usable, because a swap holds old and new.
    pub size_limit: u64,
}

/// The part of a SecretBinding that the sidecar acts on; an edit of the binding reaches running pods by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingFile {
    pub organization: String,
    /// Slug of the application.
    pub project: String,
    /// Slug of the environment.
    pub environment: String,
    /// What to write; none = every key that the account may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretFile>>,
    /// Mode of files that name none, for example `0o440`.
    pub mode: u32,
    /// Seconds between fetches, as the safety net beside the long poll.
    pub refresh_interval: u64,
    /// Whether to long-poll.
    pub watch: bool,
}

/// One entry of `spec.secrets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFile {
    #[serde(flatten)]
    pub select: Select,
    /// For a name, the file; for a pattern, the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<FilePath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Whether the files may be written without it.
    pub optional: bool,
    /// A version instead of the active one; for names only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<Decode>,
}

/// Which secrets an entry means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Select {
    Name(String),
    Pattern(Pattern),
}

/// What the value's text is turned into before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    Base64,
}

/// What the init container leaves for the sidecar, so that it goes on without a second fetch. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandOver {
    pub etag: String,
    /// The settings under which the files were written; others mean a new fetch.
    pub binding: BindingFile,
    pub next_change_at: Option<crate::Time>,
    pub versions: std::collections::BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binding_file_reads_as_a_binding_is_written() {
        let json = serde_json::json!({
            "organization": "default", "project": "shop", "environment": "prod", "mode": 0o440, "refreshInterval": 30,
            "watch": true,
            "secrets": [
                {"name": "db/password", "path": "db/password", "optional": false, "version": 3},
                {"pattern": "tls-*", "path": "tls", "mode": 0o400, "optional": true, "decode": "base64"},
            ],
        });
        let file: BindingFile = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&file).unwrap(), json);
        assert_eq!(file.secrets.unwrap()[0].select, Select::Name("db/password".to_owned()));
    }
}
