//! `spec.onChange` and `spec.staleness`.

use std::time::Duration;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{DURATION_PATTERN, ParseError, parse_duration};

/// One of three ways to tell the app. Once for each change, and only for values that it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.signal), has(self.http), has(self.restart)].filter(x, x).size() == 1")
    .message("give one of signal, http and restart"))]
pub struct OnChange {
    /// The main process of a container gets a signal. Needs `shareProcessNamespace` and a `runAsUser` other than 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,

    /// A `POST` without a body to a port of the pod, repeated until it is answered with 2xx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCall>,

    /// `Rollout`: the workloads whose pods get this binding, or that use its `kubernetesSecret`, are rolled out anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// A signal to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signal {
    /// Name of the container.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,

    /// Name of the signal.
    #[serde(default = "default_signal")]
    #[schemars(length(max = 16), regex(pattern = "^SIG(HUP|INT|QUIT|TERM|USR1|USR2|WINCH)$"))]
    pub name: String,
}

fn default_signal() -> String {
    "SIGHUP".to_owned()
}

/// A call of the app itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HttpCall {
    /// A port that a container of the pod listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// Path, and query if any.
    #[serde(default = "default_path")]
    #[schemars(length(max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: String,
}

fn default_path() -> String {
    "/".to_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Restart {
    Rollout,
}

/// What becomes of the files when they can no longer be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Staleness {
    /// How long the server may be away. Absent: for ever. When access is taken away, `then` applies at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m') && duration(self) <= duration('8760h')")
        .message("max must be 1m to 8760h"))]
    pub max: Option<String>,

    /// `Keep`: the last good files stay. `Remove`: they go. `Unready`: they stay, and the pod is no longer ready.
    #[serde(default)]
    pub then: Stale,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stale {
    #[default]
    Keep,
    Remove,
    Unready,
}

impl Staleness {
    pub fn max(&self) -> Result<Option<Duration>, ParseError> {
        self.max.as_deref().map(parse_duration).transpose()
    }
}
