//! The controller, run on this machine against the local cluster and a server of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bars::{Bars, Depends, Limit};
use super::child::{self, Running};
use super::client::{Micros, Times};
use super::conversation::Conversation;
use super::disk::Flushes;
use super::figures::{Rows, mib, milliseconds, shown};
use super::server::{Launch, Server};
use super::{header, http, machine};
use crate::cluster::Cluster;
use crate::images;
use crate::process::{self, Failure};
use crate::progress::Progress;
use crate::workspace::{Workspace, require_free_disk};

/// Where its objects are; removed at the end.
const NAMESPACE: &str = "sealpod-bench";
/// Where its Lease is.
const LEASE_NAMESPACE: &str = "default";
/// The chart's own, which takes the definitions over when it is installed later.
const FIELD_MANAGER: &str = "--field-manager=helm";
const WARM_UP: usize = 10;
const CHANGES: usize = 50;
const FOREIGN: usize = 128;
/// A Secret has room for a MiB, with its names.
const FOREIGN_BYTES: usize = 1_000_000;

#[derive(Debug, Args)]
pub struct Options {
    /// SecretBindings that are made one after the other
    #[arg(long, value_name = "N", default_value_t = 200)]
    one: usize,

    /// SecretBindings that are made at once
    #[arg(long, value_name = "N", default_value_t = 2_500)]
    many: usize,

    /// As many there are in the end, for the memory that they take
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    most: usize,

    /// How long nothing happens, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    rest: u64,
}

#[derive(Deserialize)]
struct Many {
    /// In microseconds.
    took: u64,
}

#[derive(Deserialize)]
struct Rest {
    writes: u64,
}

/// What is under measurement.
struct Stage {
    controller: Running,
    client: Conversation,
    _server: Server,
}

/// Measures all of it, holds it against the bars and prints the tables.
pub fn run(options: &Options, workspace: &Workspace) -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let load = machine::load();
    let mut progress = Progress::new();
    let directory = workspace.target.join("bench").join("operator");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    require_free_disk(&directory, 4, "the bench")?;
    let cluster = Cluster::open(workspace, None);
    cluster.up(workspace, &mut progress)?;
    require_no_controller(&cluster)?;
    let programs = build(workspace, &mut progress)?;
    let flushes = progress.step("Asking the disk", |_| Flushes::measure(&directory))?;
    let mut stage = progress.step("Starting server and controller", |_| {
        prepare(workspace, &programs, &cluster, &directory)
    })?;
    let mut bars = Bars::new(&flushes);
    let mut rows = Rows::default();
    let measured = measure(options, &mut stage, &mut progress, (&mut bars, &mut rows));
    // What was measured is shown, whatever went wrong behind it.
    print!(
        "\n{}\nload before it began {load}; {}\n\n| the controller | |\n|---|---|\n{}{}",
        header(workspace, &programs.controller)?,
        flushes.describe(),
        rows.0,
        bars.text()
    );
    measured
}

fn measure(
    options: &Options,
    stage: &mut Stage,
    progress: &mut Progress,
    (bars, rows): (&mut Bars, &mut Rows),
) -> Result<()> {
    let one: Times = progress.step("Bindings, one after the other", |_| {
        stage
            .ask::<Micros>(&json!({"one": {"count": options.one, "warm_up": WARM_UP}}))
            .map(Times::from)
    })?;
    rows.add(
        &format!("create → Ready, {} one after the other", options.one),
        &percentiles(&one),
    );
    hold(bars, "create → Ready, p50", 50.0, milliseconds(one.p50));
    hold(bars, "create → Ready, p99", 150.0, milliseconds(one.p99));

    let change: Times = progress.step("Values that change", |_| {
        stage
            .ask::<Micros>(&json!({"change": {"count": CHANGES}}))
            .map(Times::from)
    })?;
    rows.add(
        &format!("value set → Secret of Kubernetes, {CHANGES}"),
        &percentiles(&change),
    );
    hold(
        bars,
        "value set → Secret of Kubernetes, p99",
        2_000.0,
        milliseconds(change.p99),
    );

    let many: Many = progress.step(&format!("{} bindings at once", options.many), |_| {
        stage.ask(&json!({"many": {"count": options.many}}))
    })?;
    let seconds = Duration::from_micros(many.took).as_secs_f64();
    rows.add(
        &format!("{} at once until all are ready", options.many),
        &format!("{} s", shown(seconds)),
    );
    bars.hold(
        &format!("{} at once", options.many),
        Limit::AtMost(60.0),
        "s",
        Depends::OnDisk,
        seconds,
    );

    at_rest(options, stage, progress, (bars, rows))?;
    memory(stage, (bars, rows), &format!("{} bindings", options.many), 32.0)?;

    progress.step("Large Secrets of others", |_| {
        stage.ask::<Value>(&json!({"foreign": {"count": FOREIGN, "bytes": FOREIGN_BYTES}}))
    })?;
    memory(
        stage,
        (bars, rows),
        &format!("{FOREIGN} Secrets of others of 1 MB as well"),
        32.0,
    )?;

    let there = options.one + WARM_UP + options.many;
    if let Some(more) = options.most.checked_sub(there).filter(|more| *more > 0) {
        progress.step(&format!("{} bindings", options.most), |_| {
            stage.ask::<Many>(&json!({"many": {"count": more}}))
        })?;
        memory(stage, (bars, rows), &format!("{} bindings", options.most), 64.0)?;
    }
    let gone: Many = progress.step("Deleting the namespace", |_| stage.ask(&json!({"clear": {}})))?;
    let seconds = Duration::from_micros(gone.took).as_secs_f64();
    rows.add("the namespace deleted with all of it", &format!("{} s", shown(seconds)));
    Ok(())
}

fn hold(bars: &mut Bars, what: &str, most: f64, figure: f64) {
    bars.hold(what, Limit::AtMost(most), "ms", Depends::OnDisk, figure);
}

fn at_rest(
    options: &Options,
    stage: &mut Stage,
    progress: &mut Progress,
    (bars, rows): (&mut Bars, &mut Rows),
) -> Result<()> {
    let pid = stage.controller.pid();
    let (rest, worked) = progress.step("Nothing happens", |_| {
        // What the last change brought about ends first: a look behind each change that was the controller's own comes within
        // half a minute.
        stage.ask::<Rest>(&json!({"rest": {"seconds": 45}}))?;
        let before = child::cpu(pid)?;
        let rest = stage.ask::<Rest>(&json!({"rest": {"seconds": options.rest}}))?;
        Ok((rest, child::cpu(pid)?.saturating_sub(before)))
    })?;
    let seconds = Duration::from_secs(options.rest).as_secs_f64();
    let percent = worked.as_secs_f64() * 100.0 / seconds;
    rows.add(
        &format!("at rest for {seconds} s"),
        &format!("{} writes; {percent:.2} % of a processor", rest.writes),
    );
    #[allow(clippy::cast_precision_loss, reason = "a few of them")]
    let writes = rest.writes as f64;
    bars.hold(
        "writes at rest",
        Limit::AtMost(0.0),
        "writes",
        Depends::OnNothing,
        writes,
    );
    bars.hold(
        "processor at rest",
        Limit::AtMost(1.0),
        "%",
        Depends::OnNothing,
        percent,
    );
    Ok(())
}

fn memory(stage: &Stage, (bars, rows): (&mut Bars, &mut Rows), with: &str, most: f64) -> Result<()> {
    let memory = child::memory(stage.controller.pid())?;
    let [now, peak, anonymous] = [memory.resident, memory.peak, memory.anonymous].map(mib);
    rows.add(
        &format!("resident memory with {with}"),
        &format!(
            "{} MiB ({} MiB but for the program itself), at the most {} MiB",
            shown(now),
            shown(anonymous),
            shown(peak)
        ),
    );
    bars.hold(
        &format!("memory with {with}"),
        Limit::AtMost(most),
        "MiB",
        Depends::OnNothing,
        now,
    );
    Ok(())
}

fn percentiles(times: &Times) -> String {
    let [p50, p99, max] = [times.p50, times.p99, times.max].map(|time| shown(milliseconds(time)));
    format!("p50 {p50} ms, p99 {p99} ms, at the most {max} ms")
}

/// What runs: the programs of the images, because those are what users have, and a client that no image has.
struct Programs {
    server: PathBuf,
    controller: PathBuf,
    client: PathBuf,
}

fn build(workspace: &Workspace, progress: &mut Progress) -> Result<Programs> {
    progress.step("Building server and controller", |step| {
        let server = images::program(workspace, "sealpod-api-server", step)?;
        let controller = images::program(workspace, "sealpod-operator", step)?;
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--package", "sealpod-operator"]);
        command.args(["--example", "bench_operator"]);
        // It asks one thing at a time: minutes of optimizing over all crates would be for nothing.
        command.env("CARGO_PROFILE_RELEASE_LTO", "false");
        process::run_followed(&mut command, &workspace.target.join("bench").join("build.log"), step)?;
        let client = workspace.target.join("release").join("examples").join("bench_operator");
        Ok(Programs {
            server,
            controller,
            client,
        })
    })
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(cluster.bin().join("kubectl"));
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    command
}

/// Two of them would work on the same objects, each for a server of its own.
pub fn require_no_controller(cluster: &Cluster) -> Result<()> {
    let selector = "app.kubernetes.io/name=sealpod,app.kubernetes.io/component=controller";
    let arguments = [
        "get",
        "deployments",
        "--all-namespaces",
        "--selector",
        selector,
        "--output",
        "name",
    ];
    if process::capture(&mut kubectl(cluster, &arguments))?.trim().is_empty() {
        return Ok(());
    }
    Err(
        Failure::new("Sealpod is installed on the local cluster, and its controller would work on the bench's objects")
            .advice("`cargo xtask cluster down` removes that cluster; the bench starts a new one")
            .into(),
    )
}

/// Brings our kinds into the cluster.
pub fn apply_definitions(workspace: &Workspace, cluster: &Cluster) -> Result<()> {
    let crds = workspace.root.join("crds").display().to_string();
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        FIELD_MANAGER,
        "--filename",
        &crds,
    ];
    process::capture(&mut kubectl(cluster, &apply)).map(drop)
}

fn prepare(workspace: &Workspace, programs: &Programs, cluster: &Cluster, directory: &Path) -> Result<Stage> {
    apply_definitions(workspace, cluster)?;
    let master = process::capture(Command::new(&programs.server).args(["key", "generate"]))?;
    let launch = Launch::new(&programs.server, directory)?;
    fs::write(&launch.master_key, master)?;
    let server = launch.start()?;
    let key_file = directory.join("admin.key");
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&key_file)?;
    writeln!(file, "{}", launch.admin_key)?;
    let controller = controller(&programs.controller, cluster, &server, &key_file)?;
    let mut command = child::command(&programs.client);
    command.env("KUBECONFIG", cluster.kubeconfig());
    let mut client = Conversation::begin(command, &directory.join("client.log"))?;
    let setting = json!({"namespace": NAMESPACE, "server": server.url(), "admin_key": launch.admin_key});
    client.say(&setting.to_string())?;
    client.hear::<Value>()?;
    Ok(Stage {
        controller,
        client,
        _server: server,
    })
}

fn controller(program: &Path, cluster: &Cluster, server: &Server, key_file: &Path) -> Result<Running> {
    let log = key_file.with_file_name("controller.log");
    let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let (_held, probes) = http::free_address()?;
    let mut command = child::command(program);
    command
        .args(["controller", "--server-url", &server.url()])
        .arg("--admin-key-file")
        .arg(key_file);
    command.args([
        "--namespace",
        LEASE_NAMESPACE,
        "--identity",
        "bench",
        "--metrics-listen",
        &probes.to_string(),
    ]);
    // A cluster that was made anew has other objects of the same names.
    command
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("SEALPOD_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    Running::start(&mut command)
}

impl Stage {
    fn ask<T: serde::de::DeserializeOwned>(&mut self, order: &Value) -> Result<T> {
        self.client.say(&order.to_string())?;
        self.client.hear()
    }
}
