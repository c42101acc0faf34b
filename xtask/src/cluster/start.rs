//! From nothing to a node that takes pods.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::certs::Authority;
use super::components::{self, Component, State};
use super::config::{self, File};
use super::identity::boot_id;
use super::kubectl::{self, kubectl};
use super::layout::{Layout, write_whole};
use super::network::Network;
use super::state::{RunState, save_sysctls};
use super::{API_PORT, NODE, addons, cni_plugins, kubeconfig, require_no_other_kubelet};
use crate::prerequisites;
use crate::process::{self, Failure};
use crate::progress::Step;
use crate::workspace::require_free_disk;

/// Free disk for images, logs and etcd.
const RUN_GIB: u64 = 2;
/// How long any part of the start may take: many times what it does on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// All that a start needs to know, made without touching the machine.
#[derive(Debug)]
pub struct Plan {
    files: Vec<File>,
    components: Vec<Component>,
    /// Equal for two plans that would start the same cluster.
    pub fingerprint: String,
}

impl Plan {
    pub fn new(layout: &Layout, network: &Network, binary: &Path) -> Result<Self> {
        let files = config::render(layout, network, &cni_plugins()?);
        let containerd = prerequisites::find("containerd").context("containerd was installed")?;
        let components = components::all(layout, network, &containerd);
        let hash = Sha256::digest(format!("{files:?}{components:?}{}", binary.display()));
        Ok(Self {
            files,
            components,
            fingerprint: HEXLOWER.encode(&hash[..8]),
        })
    }

    /// Starts the cluster and returns when it takes pods. `images` are OCI archives that every cluster has.
    pub fn start(&self, layout: &Layout, network: &Network, images: &[PathBuf], step: &Step) -> Result<()> {
        // 1. What would break half way is refused before anything is made.
        require_free_disk(&layout.dir, RUN_GIB, "the cluster")?;
        require_no_other_kubelet()?;
        network.require_free_addresses()?;
        // 2. Files. The state comes first: from here on there is something to take away.
        layout.create_run()?;
        let mut state = RunState {
            boot_id: boot_id(),
            fingerprint: self.fingerprint.clone(),
            subnet: network.subnet.to_string(),
            ready: false,
            sysctls: save_sysctls(),
        };
        state.write(layout)?;
        write_credentials(layout, network)?;
        for (path, content) in &self.files {
            write_whole(path, content)?;
        }
        create_cgroups(network)?;
        // 3. The network and the parts that need no API; images while these come up.
        network.create()?;
        step.note("containerd, etcd, API server");
        self.start_components(layout, network, false)?;
        self.wait(layout, "containerd", "answer", || {
            UnixStream::connect(layout.containerd_socket()).is_ok()
        })?;
        load_images(layout, images.iter().map(PathBuf::as_path))?;
        let api = SocketAddr::from((network.subnet.node(), API_PORT));
        self.wait(layout, "kube-apiserver", "answer", || {
            TcpStream::connect_timeout(&api, Duration::from_millis(200)).is_ok()
                && process::succeeds(&mut kubectl(layout, &["get", "--raw=/readyz"]))
        })?;
        // 4. The parts that talk to the API.
        step.note("node");
        self.start_components(layout, network, true)?;
        let dns = addons::dns_service(network);
        self.wait(layout, "kube-apiserver", "take the DNS service", || {
            kubectl::apply(layout, &dns).is_ok()
        })?;
        // 5. Pods can be made once the node is ready and their service account exists.
        self.wait(layout, "kubelet", "make the node ready", || node_is_ready(layout))?;
        self.wait(
            layout,
            "kube-controller-manager",
            "make the service account default/default",
            || {
                process::succeeds(&mut kubectl(
                    layout,
                    &["get", "serviceaccount", "default", "--namespace=default"],
                ))
            },
        )?;
        state.ready = true;
        state.write(layout)
    }

    fn start_components(&self, layout: &Layout, network: &Network, after_api: bool) -> Result<()> {
        let chosen = self
            .components
            .iter()
            .filter(|component| component.after_api == after_api);
        chosen
            .into_iter()
            .try_for_each(|component| component.start(layout, network))
    }

    /// Asks until `reached`; fails when a component ends or patience does, with the log of `component`.
    fn wait(&self, layout: &Layout, component: &str, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !reached() {
            for component in &self.components {
                component.require_alive(layout)?;
            }
            if begun.elapsed() > PATIENCE {
                return Err(
                    Failure::new(format!("{component} did not {what} in {} s", PATIENCE.as_secs()))
                        .log(&layout.log(component))
                        .advice("try again; if it stays so, the log says what the component waits for")
                        .into(),
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Kills a component that runs, starts it anew and waits until the kubelet answers the API server again.
pub fn restart(component: &Component, layout: &Layout, network: &Network) -> Result<()> {
    let State::Running(former) = component.state(layout) else {
        return Err(Failure::new(format!("{} does not run", component.name))
            .advice("`cargo xtask cluster up` starts a cluster anew that is not whole")
            .into());
    };
    former.kill();
    let patiently = |what: &str, reached: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !reached() {
            if begun.elapsed() > PATIENCE {
                let failure = Failure::new(format!("{} did not {what} in {} s", component.name, PATIENCE.as_secs()));
                return Err(failure.log(&layout.log(component.name)).into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::Ok(())
    };
    patiently("end", &|| !former.is_alive())?;
    component.start(layout, network)?;
    patiently(
        "start",
        &|| matches!(component.state(layout), State::Running(new) if new != former),
    )?;
    let health = format!("/api/v1/nodes/{NODE}/proxy/healthz");
    patiently("let the node take pods", &|| {
        let asked = kubectl(layout, &["get", "--raw", &health, "--request-timeout=5s"]).output();
        asked.is_ok_and(|answer| answer.status.success()) && node_is_ready(layout)
    })
}

/// Certificates, and a kubeconfig for each component and for the user.
fn write_credentials(layout: &Layout, network: &Network) -> Result<()> {
    let authority = Authority::create(&layout.certs())?;
    authority.issue_servers(NODE, network.subnet)?;
    authority.issue_client(
        "kubelet-client",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
    )?;
    let server = format!("https://{}:{API_PORT}", network.subnet.node());
    let node = format!("system:node:{NODE}");
    let clients = [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
        ("kubelet", node.as_str(), Some("system:nodes")),
    ];
    for (file, user, group) in clients {
        let client = authority.issue_client(file, user, group)?;
        let text = kubeconfig::render(&server, &authority.certificate, &client)?;
        kubeconfig::write(&layout.config(&format!("{file}.kubeconfig")), &text)?;
        if file == "admin" {
            kubeconfig::write(&layout.kubeconfig(), &text)?;
        }
    }
    Ok(())
}

/// The kubelet wants its root cgroup to exist, in every hierarchy.
fn create_cgroups(network: &Network) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<PathBuf> = if root.join("cgroup.controllers").exists() {
        vec![root.to_path_buf()]
    } else {
        let entries = std::fs::read_dir(root).context("this machine has no cgroups at /sys/fs/cgroup")?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("cgroup.procs").exists())
            .collect()
    };
    for hierarchy in hierarchies {
        let cgroup = hierarchy.join(&network.namespace);
        std::fs::create_dir_all(&cgroup).with_context(|| format!("cannot create the cgroup {}", cgroup.display()))?;
    }
    Ok(())
}

/// Whether the node reports that it takes pods.
pub fn node_is_ready(layout: &Layout) -> bool {
    let ready = r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let arguments = ["get", "node", NODE, ready, "--request-timeout=5s"];
    process::capture(&mut kubectl(layout, &arguments)).is_ok_and(|status| status == "True")
}

/// Imports OCI archives into the image store that the kubelet uses.
pub fn load_images<'a>(layout: &Layout, archives: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    for archive in archives {
        let imported = process::capture(ctr(layout).args(["images", "import"]).arg(archive));
        imported.with_context(|| format!("cannot load the image {}", archive.display()))?;
    }
    Ok(())
}

pub fn has_image(layout: &Layout, reference: &str) -> bool {
    let listed = process::capture(ctr(layout).args(["images", "list", "--quiet", &format!("name=={reference}")]));
    listed.is_ok_and(|names| names.trim() == reference)
}

fn ctr(layout: &Layout) -> Command {
    let mut command = Command::new("ctr");
    command.env("PATH", super::SYSTEM_PATH);
    command
        .arg("--address")
        .arg(layout.containerd_socket())
        .args(["--namespace", "k8s.io"]);
    command
}
