//! What the injector tells the sidecar, and what the operator tells it through the key Secret.
//!
//! A pod cannot change, so what is fixed for its life is one JSON document in an environment variable
//! ([`SidecarSettings`]); what may change while it runs is files of the key Secret, which the kubelet refreshes:
//! the key, the CA and [`BindingFile`].

use std::time::Duration;

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

/// Environment variable of the sidecar: `true` for metrics that tell the version of each key, and so which keys there are.
pub const VERSIONS_VARIABLE: &str = "SEALPOD_METRICS_VERSIONS";

/// Environment variable of a container that gets signals, with its name: by it the sidecar knows its main process on a node
/// whose mounts do not tell it.
pub const CONTAINER_VARIABLE: &str = "SEALPOD_CONTAINER";
/// Where a container that asks for it finds the sidecar's binary, as `exec`.
pub const EXEC_MOUNT: &str = "/sealpod";

/// File at the top of each mount that holds [`HandOver`] as JSON; beginning with `..` it is none of the delivered
/// files, and its mode 0600 keeps it the sidecar's own.
pub const HAND_OVER_FILE: &str = "..sealpod-state";

/// Path on the health port that answers once the files of every binding have been there, and not before.
pub const GATE_PATH: &str = "/wait";
/// How long the kubelet waits for that answer, in whole seconds, before it asks anew.
pub const GATE_TIMEOUT: Duration = Duration::from_mins(10);

/// What is fixed for the life of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSettings {
    /// Base URL of the api-server, without a path: `https://sealpod-api-server.sealpod.svc:7100`.
    pub server_url: String,
    pub pod: PodIdentity,
    /// Port of `/healthz`, `/readyz`, `/metrics` and [`GATE_PATH`] on the pod's address; none on `hostNetwork` pods.
    pub health_port: Option<u16>,
    pub bindings: Vec<MountedBinding>,
    /// Directory that the sidecar copies its own binary to, as `exec`, for a container that reads its values from the
    /// environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_directory: Option<String>,
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
    /// Also write the configurations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configurations: Option<ConfigurationFiles>,
    /// Files with several values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CombinedFile>,
    /// How the app is told of a change; none where it is not, or where the operator restarts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_change: Option<OnChange>,
    /// What becomes of the files while they cannot be checked; none = they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness: Option<Staleness>,
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

/// `spec.configurations`, where they are enabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationFiles {
    /// The folder where each key is a file, else the file; never left to a default.
    pub path: FilePath,
    /// None = each key a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// One entry of `spec.files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CombinedFile {
    pub path: FilePath,
    #[serde(flatten)]
    pub content: CombinedContent,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// What a file of several values holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CombinedContent {
    Values {
        format: Format,
        /// None = every secret that the binding names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        include: Option<Vec<Select>>,
    },
    /// Source of a template over `secrets` and `configurations`.
    Template(String),
}

/// How several values are written as one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Env,
    Json,
    Yaml,
    Properties,
}

/// `spec.onChange`, as far as it is the sidecar's to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnChange {
    /// `name` is that of the signal, `SIGHUP`.
    Signal {
        container: String,
        name: String,
    },
    Http {
        port: u16,
        path: String,
    },
}

/// `spec.staleness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staleness {
    /// Seconds that the server may be away; none = for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    pub then: Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stale {
    Keep,
    Remove,
    Unready,
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
    /// SHA-256 of the [`BindingFile`] under which the files were written; another one means a new fetch.
    #[serde(default)]
    pub settings: String,
    pub next_change_at: Option<crate::Time>,
    pub versions: std::collections::BTreeMap<String, u64>,
    /// Whether all that pods wait for was there. Where it was not, a new fetch tells what is wrong; the server's "nothing
    /// changed" would not.
    #[serde(default)]
    pub settled: bool,
    /// Whether the account could not read something that pods wait for.
    #[serde(default)]
    pub denied: bool,
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
            "configurations": {"path": "configurations"},
            "files": [
                {"path": "app.env", "values": {"format": "env", "include": [{"name": "db/password"}]}},
                {"path": "app.ini", "template": "x", "mode": 0o400},
            ],
            "onChange": {"signal": {"container": "app", "name": "SIGHUP"}},
            "staleness": {"max": 60, "then": "unready"},
        });
        let file: BindingFile = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&file).unwrap(), json);
        assert_eq!(file.secrets.unwrap()[0].select, Select::Name("db/password".to_owned()));
    }
}
