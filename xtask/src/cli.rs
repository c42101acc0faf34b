//! The commands of `cargo xtask`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::network::Subnet;
use crate::cluster::{Claim, Cluster};
use crate::process::Failure;
use crate::progress::Progress;
use crate::workspace::Workspace;
use crate::{api, bench, demo, generate, images, test, torture};

/// Tasks of the Sealpod repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Show Sealpod at work: builds and starts all that is missing, sets a secret, changes it, measures
    Demo(demo::Options),
    /// The local Kubernetes: one node, no Docker; needs root, installs and builds what it lacks
    #[command(subcommand)]
    Cluster(ClusterTask),
    /// Measure, on this machine
    #[command(subcommand)]
    Bench(BenchTask),
    /// Keep a server busy with all that it does, and watch whether it needs ever more
    Soak(bench::SoakOptions),
    /// Build the images as OCI archives, which `docker load`, `kind load image-archive` and skopeo take
    Images {
        /// Folder for the archives
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Write the files that are made from code (CRDs and the chart's copy of them)
    Generate {
        /// Write nothing; fail when a file is not up to date
        #[arg(long)]
        check: bool,
    },
    /// Call a server by its own description, as every kind of caller, and use its page in a browser
    Api,
    /// Only the end-to-end tests, on the local cluster, which stays afterwards
    E2e {
        /// Run only tests whose names hold one of these
        filters: Vec<String>,
    },
    /// Break the disk, the power and the clock under the server, again and again; `test` does so for seconds
    Torture(torture::Options),
    /// Formatting, clippy, generated files, unit and integration tests, then the end-to-end tests on the local cluster
    Test {
        /// Stop before the cluster
        #[arg(long)]
        fast: bool,
    },
}

#[derive(Debug, Subcommand)]
enum BenchTask {
    /// The api-server beside OpenBao, alone, and with a large organization's data
    Server(bench::Options),
    /// The controller on the local cluster: how soon objects are ready, what it takes to keep many
    Operator(bench::OperatorOptions),
    /// The webhook alone, and what injection adds to the start of pods on the local cluster
    Injector(bench::InjectorOptions),
    /// Backup, restore and rotation of a large database, and what they cost others meanwhile
    Durability(bench::DurabilityOptions),
    /// The sidecar beside OpenBao's agent: how soon a change is in the file, and what it takes to wait for one
    Sidecar(bench::SidecarOptions),
}

#[derive(Debug, Subcommand)]
enum ClusterTask {
    /// Start it, or do nothing when it is running and whole; prints the path for KUBECONFIG
    Up {
        /// Four private addresses for the cluster and this machine to reach each other [default: 10.99.0.0/30]
        #[arg(long, env = "SEALPOD_CLUSTER_SUBNET", value_name = "NETWORK/30")]
        subnet: Option<Subnet>,
    },
    /// Stop it and remove every trace of it, even after a crash
    Down,
    /// Kill one component and start it anew, as after a crash; returns when the node takes pods again
    Restart {
        /// Its name, as `status` shows it
        component: String,
    },
    /// Show what runs; the exit code is 0 when the cluster is whole
    Status,
    /// Make the volume for one claim; there is no provisioner
    Volume {
        /// The claim, as NAMESPACE/NAME
        claim: Claim,
        /// Capacity of the volume
        #[arg(long, default_value = "1Gi")]
        size: String,
    },
}

impl Cli {
    pub fn run(self) -> Result<()> {
        let workspace = Workspace::locate()?;
        match self.task {
            Task::Demo(options) => demo::run(options, &workspace),
            Task::Cluster(task) => task.run(&workspace),
            Task::Bench(BenchTask::Server(options)) => bench::server(&options, &workspace),
            Task::Bench(BenchTask::Operator(options)) => bench::operator(&options, &workspace),
            Task::Bench(BenchTask::Injector(options)) => bench::injector(&options, &workspace),
            Task::Bench(BenchTask::Sidecar(options)) => bench::sidecar(&options, &workspace),
            Task::Bench(BenchTask::Durability(options)) => bench::durability(&options, &workspace),
            Task::Soak(options) => bench::soak(&options, &workspace),
            Task::Images { output } => {
                let output = output.unwrap_or_else(|| workspace.target.join("images"));
                let images = images::build(&workspace, &output, &mut Progress::new())?;
                eprintln!("Archives in {}; names and unpacked sizes:", workspace.short(&output));
                print!("{}", images.report());
                Ok(())
            }
            Task::Generate { check } => generate::run(&workspace, check),
            Task::Api => api::run(&workspace, &mut Progress::plain()),
            Task::E2e { filters } => test::end_to_end(&workspace, &filters),
            Task::Torture(options) => torture::run(&options, &workspace),
            Task::Test { fast } => test::run(&workspace, fast),
        }
    }
}

impl ClusterTask {
    fn run(self, workspace: &Workspace) -> Result<()> {
        let mut progress = Progress::new();
        match self {
            Self::Up { subnet } => {
                let cluster = Cluster::open(workspace, subnet);
                cluster.up(workspace, &mut progress)?;
                eprintln!(
                    "\nkubectl and helm for it:\n  export KUBECONFIG={} PATH={}:$PATH\n",
                    cluster.kubeconfig().display(),
                    cluster.bin().display()
                );
                println!("{}", cluster.kubeconfig().display());
                Ok(())
            }
            Self::Down => Cluster::open(workspace, None).down(&mut progress),
            Self::Restart { component } => Cluster::open(workspace, None).restart(&component, &mut progress),
            Self::Status => print_status(&Cluster::open(workspace, None)),
            Self::Volume { claim, size } => Cluster::open(workspace, None).create_volume(&claim, &size),
        }
    }
}

fn print_status(cluster: &Cluster) -> Result<()> {
    const START: &str = "`cargo xtask cluster up`";
    if !cluster.exists() {
        return Err(Failure::new("no cluster is running")
            .advice(format!("{START} starts one"))
            .into());
    }
    let status = cluster.status();
    for (name, state) in &status.components {
        println!("  {name:<25}{state}");
    }
    println!(
        "  {:<25}{}",
        "node",
        if status.node_ready { "ready" } else { "not ready" }
    );
    if status.is_healthy() {
        println!("KUBECONFIG={}", cluster.kubeconfig().display());
        return Ok(());
    }
    Err(Failure::new("the cluster is not whole")
        .advice(format!(
            "{START} starts it anew, empty; logs: {}",
            cluster.logs().display()
        ))
        .into())
}
