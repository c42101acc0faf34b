//! The local Kubernetes: one node, in its own network namespace, all its files below `target/cluster`.
//!
//! `up` and `down` may be killed at any moment; the next `up` or `down` clears what was left. Nothing is remembered that
//! is needed for that: names are derived from the path of the checkout (see [`teardown`]).

mod addons;
mod binary;
mod certs;
mod components;
mod config;
mod identity;
mod kubeconfig;
mod kubectl;
mod layout;
pub mod network;
mod start;
mod state;
mod teardown;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

pub use self::addons::Claim;
use self::components::{Component, State};
use self::layout::Layout;
use self::network::{Network, Subnet};
use self::state::RunState;
use crate::images;
use crate::prerequisites;
use crate::process::Failure;
use crate::progress::Progress;
use crate::workspace::Workspace;

/// Name of the only node.
pub const NODE: &str = "sealpod";
/// Where the API server listens, at the node's address.
const API_PORT: u16 = 6443;
/// `PATH` of the components: where Debian puts programs, whatever the user's own `PATH` is.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The cluster of this checkout, running or not.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    network: Network,
}

/// How a cluster is, for people.
#[derive(Debug)]
pub struct Status {
    /// Component and what it does.
    pub components: Vec<(&'static str, State)>,
    /// Whether the node takes pods.
    pub node_ready: bool,
}

impl Status {
    pub fn is_healthy(&self) -> bool {
        self.node_ready
            && self
                .components
                .iter()
                .all(|(_, state)| matches!(state, State::Running(_)))
    }
}

impl Cluster {
    /// `subnet`: `None` keeps the addresses of a cluster that is there, else takes the default ones.
    pub fn open(workspace: &Workspace, subnet: Option<Subnet>) -> Self {
        let layout = Layout::new(&workspace.target);
        let recorded = || RunState::read(&layout).and_then(|state| state.subnet.parse().ok());
        let subnet = subnet.or_else(recorded).unwrap_or(Subnet::DEFAULT);
        // Unique to the checkout, and the same even when its target folder was removed under a running cluster.
        let id = HEXLOWER.encode(&Sha256::digest(layout.dir.as_os_str().as_encoded_bytes())[..4]);
        Self {
            network: Network::new(&id, subnet),
            layout,
        }
    }

    /// Starts the cluster unless it is already there and whole; installs and builds what that needs.
    pub fn up(&self, workspace: &Workspace, progress: &mut Progress) -> Result<()> {
        prerequisites::require_root("the local cluster")?;
        prerequisites::ensure_cluster_tools(workspace, progress)?;
        let binary = binary::ensure(workspace, &self.layout, progress)?;
        let images = images::local(workspace, &self.layout.images(), progress)?;
        let _lock = self.lock(progress)?;
        let plan = start::Plan::new(&self.layout, &self.network, &binary)?;
        if self.is_as_planned(&plan) {
            progress.say("The cluster is running.");
            return Ok(());
        }
        if self.exists() {
            progress.step("Clearing the former cluster", |_| {
                teardown::teardown(&self.layout, &self.network)
            })?;
        }
        progress.step("Starting Kubernetes", |step| {
            plan.start(&self.layout, &self.network, &images, step)
        })
    }

    /// Stops the cluster and removes every trace of it, in whatever condition it is.
    pub fn down(&self, progress: &mut Progress) -> Result<()> {
        if !self.exists() {
            progress.say("No cluster is running.");
            return Ok(());
        }
        prerequisites::require_root("stopping the local cluster")?;
        let _lock = self.lock(progress)?;
        progress.step("Stopping the cluster", |_| {
            teardown::teardown(&self.layout, &self.network)
        })
    }

    /// Kills one component and starts it anew; returns when the node takes pods again.
    pub fn restart(&self, name: &str, progress: &mut Progress) -> Result<()> {
        let containerd = prerequisites::find("containerd").context("containerd was installed")?;
        let components = components::all(&self.layout, &self.network, &containerd);
        let names = || {
            components
                .iter()
                .map(|component| component.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let component = components.iter().find(|component| component.name == name);
        let component = component.ok_or_else(|| {
            Failure::new(format!("there is no component `{name}`")).advice(format!("these are: {}", names()))
        })?;
        let _lock = self.lock(progress)?;
        progress.step(&format!("Restarting {name}"), |_| {
            start::restart(component, &self.layout, &self.network)
        })
    }

    /// Whether there is anything of a cluster, whole or not.
    pub fn exists(&self) -> bool {
        teardown::is_needed(&self.layout, &self.network)
    }

    pub fn status(&self) -> Status {
        let same_boot = RunState::read(&self.layout).is_some_and(|state| state.boot_id == identity::boot_id());
        let components = components::all(&self.layout, &self.network, Path::new("containerd"));
        let state = |component: &Component| {
            if same_boot {
                component.state(&self.layout)
            } else {
                State::NotStarted
            }
        };
        Status {
            components: components
                .iter()
                .map(|component| (component.name, state(component)))
                .collect(),
            node_ready: same_boot && start::node_is_ready(&self.layout),
        }
    }

    /// Makes the images in OCI archives known to the node.
    pub fn load_images<'a>(&self, archives: impl IntoIterator<Item = &'a Path>) -> Result<()> {
        start::load_images(&self.layout, archives)
    }

    /// Whether the node has an image of this name.
    pub fn has_image(&self, reference: &str) -> bool {
        start::has_image(&self.layout, reference)
    }

    /// A `PersistentVolume` that exactly this claim will bind; there is no provisioner in the cluster.
    pub fn create_volume(&self, claim: &Claim, size: &str) -> Result<()> {
        addons::create_volume(&self.layout, claim, size)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The folder with kubectl and helm.
    pub fn bin(&self) -> PathBuf {
        self.layout.bin()
    }

    /// Where the components log.
    pub fn logs(&self) -> PathBuf {
        self.layout.logs()
    }

    /// Folder for the directories of local `PersistentVolumes`.
    pub fn volumes(&self) -> PathBuf {
        self.layout.volumes()
    }

    fn is_as_planned(&self, plan: &start::Plan) -> bool {
        let recorded = RunState::read(&self.layout);
        recorded.is_some_and(|state| {
            state.ready && state.boot_id == identity::boot_id() && state.fingerprint == plan.fingerprint
        }) && self.status().is_healthy()
    }

    /// Keeps two commands from changing the cluster at the same time; released when the value is dropped.
    fn lock(&self, progress: &Progress) -> Result<File> {
        fs::create_dir_all(&self.layout.dir).with_context(|| format!("cannot create {}", self.layout.dir.display()))?;
        let path = self.layout.lock();
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.say("Waiting for another `cargo xtask` that is changing the cluster …");
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(Failure::new(format!("cannot lock {}: {error}", path.display())).into());
            }
        }
        Ok(file)
    }
}

/// The folder with the CNI plugins.
fn cni_plugins() -> Result<PathBuf> {
    let ptp = prerequisites::find("ptp").context("the CNI plugins were installed")?;
    Ok(ptp.parent().context("a program is in a folder")?.to_path_buf())
}

/// Fails when this machine has a kubelet of its own, whose device plugins ours would replace (their place is fixed).
fn require_no_other_kubelet() -> Result<()> {
    let socket = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    if std::os::unix::net::UnixStream::connect(socket).is_err() {
        return Ok(());
    }
    Err(
        Failure::new("this machine runs a kubelet already, and two would disturb each other")
            .advice(
                "use that cluster (set KUBECONFIG and pass --existing); if it is the cluster of another checkout, \
             stop it there with `cargo xtask cluster down`",
            )
            .into(),
    )
}
