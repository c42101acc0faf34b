//! What runs, with which arguments, and how a process is started so that it can always be found again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::identity::ProcessId;
use super::layout::{Layout, MARK};
use super::network::{Network, POD_CIDR, SERVICE_CIDR};
use super::{API_PORT, NODE};
use crate::process::{self, Failure};

/// One process of the cluster.
#[derive(Debug)]
pub struct Component {
    /// Also the name of its log and its pid file.
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// Started once the API server answers.
    pub after_api: bool,
}

/// Whether a component runs, by the identity it left in its pid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    NotStarted,
    Running(ProcessId),
    Dead,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("not started"),
            Self::Running(process) => write!(f, "running, pid {}", process.pid),
            Self::Dead => f.write_str("ended"),
        }
    }
}

/// All components in the order they are started.
pub fn all(layout: &Layout, network: &Network, containerd: &Path) -> Vec<Component> {
    let node = network.subnet.node();
    let ours = |name: &'static str, after_api: bool, arguments: Vec<String>| Component {
        name,
        program: layout.bin().join(name),
        arguments,
        after_api,
    };
    let config = |file: &str| layout.config(file).display().to_string();
    let containerd = Component {
        name: "containerd",
        program: containerd.to_path_buf(),
        arguments: vec!["--config".into(), config("containerd.toml")],
        after_api: false,
    };
    vec![
        containerd,
        ours("etcd", false, etcd(layout)),
        ours("kube-apiserver", false, api_server(layout, network)),
        ours("kube-controller-manager", true, controller_manager(layout)),
        ours(
            "kube-scheduler",
            true,
            vec![
                format!("--kubeconfig={}", config("scheduler.kubeconfig")),
                "--leader-elect=false".into(),
                "--bind-address=127.0.0.1".into(),
            ],
        ),
        ours(
            "kubelet",
            true,
            vec![
                format!("--config={}", config("kubelet.json")),
                format!("--kubeconfig={}", config("kubelet.kubeconfig")),
                format!("--root-dir={}", layout.run().join("kubelet").display()),
                format!("--cert-dir={}", layout.certs().display()),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={node}"),
            ],
        ),
        ours(
            "kube-proxy",
            true,
            vec![
                format!("--kubeconfig={}", config("proxy.kubeconfig")),
                format!("--hostname-override={NODE}"),
                format!("--cluster-cidr={POD_CIDR}"),
                "--proxy-mode=iptables".into(),
                // The limits of connection tracking belong to the machine: leave them as they are.
                "--conntrack-max-per-core=0".into(),
                "--conntrack-min=0".into(),
                "--conntrack-tcp-timeout-established=0s".into(),
                "--conntrack-tcp-timeout-close-wait=0s".into(),
                "--oom-score-adj=0".into(),
            ],
        ),
        ours("coredns", true, vec!["-conf".into(), config("Corefile")]),
    ]
}

fn etcd(layout: &Layout) -> Vec<String> {
    vec![
        "--name=sealpod".into(),
        format!("--data-dir={}", layout.run().join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-cluster=sealpod=http://127.0.0.1:2380".into(),
        // The data goes with the cluster, so no power cut matters, and syncing would cost every write.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server(layout: &Layout, network: &Network) -> Vec<String> {
    let certs = layout.certs();
    let cert = |file: &str| certs.join(file).display().to_string();
    vec![
        format!("--advertise-address={}", network.subnet.node()),
        format!("--secure-port={API_PORT}"),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--client-ca-file={}", cert("ca.crt")),
        format!("--tls-cert-file={}", cert("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", cert("kube-apiserver.key")),
        format!("--kubelet-certificate-authority={}", cert("ca.crt")),
        format!("--kubelet-client-certificate={}", cert("kubelet-client.crt")),
        format!("--kubelet-client-key={}", cert("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", cert("service-account.pub")),
        format!("--service-account-signing-key-file={}", cert("service-account.key")),
        "--profiling=false".into(),
    ]
}

fn controller_manager(layout: &Layout) -> Vec<String> {
    let certs = layout.certs();
    let cert = |file: &str| certs.join(file).display().to_string();
    vec![
        format!(
            "--kubeconfig={}",
            layout.config("controller-manager.kubeconfig").display()
        ),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--use-service-account-credentials=true".into(),
        format!("--root-ca-file={}", cert("ca.crt")),
        format!("--service-account-private-key-file={}", cert("service-account.key")),
        format!("--cluster-signing-cert-file={}", cert("ca.crt")),
        format!("--cluster-signing-key-file={}", cert("ca.key")),
    ]
}

impl Component {
    /// Starts it in the cluster's namespace, with its output in its log.
    ///
    /// A shell writes its own pid and start time to the pid file and then becomes the component, so that there is no
    /// moment in which a component runs and is not recorded, whenever this process may be killed. `setsid` detaches
    /// it from the terminal.
    pub fn start(&self, layout: &Layout, network: &Network) -> Result<()> {
        const RECORD_AND_BECOME: &str = r#"cat "/proc/$$/stat" > "$1.new" && mv "$1.new" "$1" && shift && exec "$@""#;
        let log = process::append_to(&layout.log(self.name))?;
        let enter = network.enter(&self.program);
        let mut command = Command::new("setsid");
        command
            .args(["sh", "-c", RECORD_AND_BECOME, "sh"])
            .arg(self.pid_file(layout));
        command
            .arg(enter.get_program())
            .args(enter.get_args())
            .args(&self.arguments);
        // A clean environment: no proxy, no credentials, no GOMAXPROCS of whoever started the cluster.
        command
            .env_clear()
            .env("PATH", super::SYSTEM_PATH)
            .env("HOME", layout.run())
            .env(MARK, layout.run());
        command
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // The handle is dropped: the component outlives this process and is found by its pid file.
        command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(())
    }

    pub fn state(&self, layout: &Layout) -> State {
        match recorded(&self.pid_file(layout)) {
            None => State::NotStarted,
            Some(process) if process.is_alive() => State::Running(process),
            Some(_) => State::Dead,
        }
    }

    /// Fails with the end of the log when the component has ended.
    pub fn require_alive(&self, layout: &Layout) -> Result<()> {
        if self.state(layout) != State::Dead {
            return Ok(());
        }
        Err(Failure::new(format!("{} ended", self.name))
            .log(&layout.log(self.name))
            .into())
    }

    fn pid_file(&self, layout: &Layout) -> PathBuf {
        layout.pids().join(self.name)
    }
}

/// The process that a pid file names.
pub fn recorded(pid_file: &Path) -> Option<ProcessId> {
    ProcessId::from_stat(&std::fs::read_to_string(pid_file).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::network::Subnet;

    #[test]
    fn components_are_named_once_and_the_api_server_does_not_wait_for_itself() {
        let layout = Layout::new(Path::new("/t"));
        let components = all(
            &layout,
            &Network::new("1a2b3c4d", Subnet::DEFAULT),
            Path::new("/usr/bin/containerd"),
        );
        let mut names: Vec<_> = components.iter().map(|component| component.name).collect();
        let first: Vec<_> = components
            .iter()
            .filter(|component| !component.after_api)
            .map(|c| c.name)
            .collect();
        assert_eq!(first, ["containerd", "etcd", "kube-apiserver"]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), components.len());
    }

    #[test]
    fn a_pid_file_without_a_running_process_means_a_dead_component() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.pids()).unwrap();
        let component = &all(&layout, &Network::new("1a2b3c4d", Subnet::DEFAULT), Path::new("/c"))[0];
        assert_eq!(component.state(&layout), State::NotStarted);
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        std::fs::write(layout.pids().join(component.name), &own).unwrap();
        assert!(matches!(component.state(&layout), State::Running(_)));
        let (head, tail) = own.rsplit_once(')').unwrap();
        let fields: Vec<_> = tail
            .split(' ')
            .enumerate()
            .map(|(at, field)| if at == 20 { "1" } else { field })
            .collect();
        std::fs::write(
            layout.pids().join(component.name),
            format!("{head}){}", fields.join(" ")),
        )
        .unwrap();
        assert_eq!(component.state(&layout), State::Dead, "another process has the pid now");
    }
}
