//! kubectl and helm, for the local cluster or for the one of the user.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::prerequisites;
use crate::process::{self, Failure};
use crate::workspace::Workspace;

/// Variables that would lead a client of the local cluster, at a private address of this machine, to a proxy.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];
/// The oldest Kubernetes that Sealpod supports, as minor version of 1.
const OLDEST_MINOR: u32 = 33;

/// The two programs, and the cluster they talk to.
#[derive(Debug, Clone)]
pub struct Tools {
    kubectl: PathBuf,
    helm: PathBuf,
    /// `None`: whatever kubectl takes by itself (`KUBECONFIG`, or the file in the home folder).
    kubeconfig: Option<PathBuf>,
    /// Folder for the logs of steps.
    logs: PathBuf,
}

impl Tools {
    /// Those of the local cluster's binary.
    pub fn local(cluster: &Cluster, workspace: &Workspace) -> Self {
        Self {
            kubectl: cluster.bin().join("kubectl"),
            helm: cluster.bin().join("helm"),
            kubeconfig: Some(cluster.kubeconfig()),
            logs: logs(workspace),
        }
    }

    /// Those of `PATH`, for the cluster of `KUBECONFIG`.
    pub fn from_path(workspace: &Workspace) -> Result<Self> {
        let [kubectl, helm] = ["kubectl", "helm"].map(prerequisites::find);
        let (Some(kubectl), Some(helm)) = (kubectl.clone(), helm.clone()) else {
            let missing: Vec<_> = [("kubectl", kubectl), ("helm", helm)]
                .into_iter()
                .filter_map(|(name, found)| found.is_none().then_some(name))
                .collect();
            return Err(Failure::new(format!("missing on PATH: {}", missing.join(" and ")))
                .advice(
                    "install kubectl (https://kubernetes.io/docs/tasks/tools) and helm (https://helm.sh/docs/intro/install); \
                     without --existing the demo builds both, and a cluster",
                )
                .into());
        };
        Ok(Self {
            kubectl,
            helm,
            kubeconfig: None,
            logs: logs(workspace),
        })
    }

    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command(&self.kubectl, arguments)
    }

    pub fn helm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        self.command(&self.helm, arguments)
    }

    fn command<S: AsRef<OsStr>>(&self, program: &Path, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
            for variable in PROXIES {
                command.env_remove(variable);
            }
        }
        command
    }

    /// `kubectl get … --output=json`; `None` when there is no such object.
    pub fn get(&self, arguments: &[&str]) -> Result<Option<Value>> {
        let mut command = self.kubectl(["get", "--output=json", "--ignore-not-found"]);
        let text = process::capture(command.args(arguments))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text)
            .map(Some)
            .context("`kubectl get --output=json` prints JSON")
    }

    /// The objects of a list.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let list = self.get(arguments)?;
        Ok(list
            .and_then(|list| list["items"].as_array().cloned())
            .unwrap_or_default())
    }

    /// `kubectl apply --server-side` of one object or a list.
    pub fn apply(&self, objects: &Value) -> Result<()> {
        use std::io::Write;
        let mut command = self.kubectl(["apply", "--server-side", "--force-conflicts", "--filename=-"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = command.spawn();
        let mut child = started.with_context(|| format!("cannot start `{}`", process::shown(&command)))?;
        let mut stdin = child.stdin.take().context("standard input is a pipe")?;
        // kubectl reads all of it before it complains about anything.
        let written = stdin.write_all(objects.to_string().as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(Failure::new("`kubectl apply` failed").output(&output.stderr).into());
        }
        written.context("kubectl did not read what it should apply")
    }

    /// A client for what has to be timed more exactly than a new process allows.
    pub async fn client(&self) -> Result<kube::Client> {
        let options = kube::config::KubeConfigOptions::default();
        let config = if let Some(path) = &self.kubeconfig {
            let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
            let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            config.proxy_url = None;
            config
        } else {
            kube::Config::from_kubeconfig(&options).await?
        };
        Ok(kube::Client::try_from(config)?)
    }

    /// A file for the output of a step.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Fails unless the cluster answers and is new enough; its version otherwise.
    pub fn require_reachable(&self) -> Result<String> {
        let named = std::env::var_os("KUBECONFIG").filter(|_| self.kubeconfig.is_none());
        if let Some(files) = named.filter(|files| !files.is_empty() && !names_a_file(files)) {
            return Err(Failure::new(format!("KUBECONFIG={} is no file", files.display()))
                .advice("set it to the file with which kubectl reaches your cluster")
                .into());
        }
        let mut version = self.kubectl(["version", "--output=json", "--request-timeout=10s"]);
        let output = version.stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot start `{}`", process::shown(&version)))?;
        if !output.status.success() {
            return Err(unreachable(
                std::env::var("KUBECONFIG").ok().as_deref(),
                &String::from_utf8_lossy(&output.stderr),
            )
            .into());
        }
        supported(&String::from_utf8_lossy(&output.stdout))
    }

    /// Lines that a user types to have the same tools for the same cluster.
    pub fn exports(&self) -> Vec<String> {
        let Some(kubeconfig) = &self.kubeconfig else {
            // The user's own shell has them.
            return Vec::new();
        };
        let bin = self.kubectl.parent().unwrap_or(Path::new(".")).display();
        vec![
            format!("export KUBECONFIG={}", kubeconfig.display()),
            format!("export PATH={bin}:$PATH"),
        ]
    }
}

/// The folder of the demo's logs.
pub fn logs(workspace: &Workspace) -> PathBuf {
    workspace.target.join("demo")
}

/// Whether there is any of the files of a `KUBECONFIG`.
fn names_a_file(list: &OsStr) -> bool {
    std::env::split_paths(list).any(|file| file.is_file())
}

fn unreachable(kubeconfig: Option<&str>, said: &str) -> Failure {
    let cluster = match kubeconfig {
        Some(path) if !path.is_empty() => format!("the cluster of KUBECONFIG={path}"),
        _ => "the cluster of ~/.kube/config (KUBECONFIG is not set)".to_string(),
    };
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("no reason given");
    Failure::new(format!("{cluster} does not answer: {}", last.trim())).advice(
        "set KUBECONFIG to a cluster for which `kubectl get namespaces` works; without --existing the demo starts a cluster of its own",
    )
}

/// The server's version in the output of `kubectl version --output=json`, if Sealpod supports it.
fn supported(version: &str) -> Result<String> {
    let version: Value = serde_json::from_str(version).context("`kubectl version --output=json` prints JSON")?;
    let server = &version["serverVersion"];
    let git = server["gitVersion"].as_str().context("the cluster tells its version")?;
    // Some providers write "33+".
    let minor = server["minor"].as_str().unwrap_or_default();
    let minor: String = minor.chars().take_while(char::is_ascii_digit).collect();
    if minor.parse().is_ok_and(|minor: u32| minor < OLDEST_MINOR) {
        return Err(Failure::new(format!(
            "the cluster is Kubernetes {git}; Sealpod needs 1.{OLDEST_MINOR} or newer"
        ))
        .advice("use a newer cluster, or leave --existing away: then the demo starts one")
        .into());
    }
    Ok(git.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_does_not_answer_is_told_in_one_line() {
        let said = "E1122 memcache.go: dial tcp\nThe connection to the server 10.0.0.1:6443 was refused\n\n";
        let failure = unreachable(Some("/k"), said).to_string();
        let first = failure.lines().next().unwrap();
        assert_eq!(
            first,
            "the cluster of KUBECONFIG=/k does not answer: The connection to the server 10.0.0.1:6443 was refused"
        );
        assert!(unreachable(None, "").to_string().contains("KUBECONFIG is not set"));
    }

    #[test]
    fn one_file_of_a_list_is_enough() {
        let file = file!()
            .rsplit('/')
            .next()
            .map(|name| format!("src/demo/{name}"))
            .unwrap();
        assert!(names_a_file(OsStr::new(&format!("/nowhere:{file}"))));
        assert!(!names_a_file(OsStr::new("/nowhere:/nor/here")));
    }

    #[test]
    fn only_supported_versions_are_taken() {
        let version =
            |minor: &str| format!(r#"{{"serverVersion": {{"minor": "{minor}", "gitVersion": "v1.{minor}.1"}}}}"#);
        assert_eq!(supported(&version("33+")).unwrap(), "v1.33+.1");
        assert_eq!(supported(&version("40")).unwrap(), "v1.40.1");
        let error = supported(&version("32")).unwrap_err().to_string();
        assert!(error.contains("v1.32.1") && error.contains("1.33"), "{error}");
    }
}
