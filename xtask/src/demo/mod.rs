//! `cargo xtask demo`: the whole product at work, on a cluster of its own or on the user's.

mod down;
mod measure;
mod options;
mod prepare;
mod quickstart;
mod release;
mod server;
mod table;
mod tools;
mod tour;
mod wait;
mod watch;
mod workloads;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

use self::measure::{CHANGES, STARTS, Starts, median};
pub use self::measure::{app_pid, is_ready, random};
pub use self::options::Options;
use self::prepare::Stage;
use self::quickstart::{APPLICATION, ENVIRONMENT, SECRET};
pub use self::server::Server;
use self::table::{Limit, Row};
use self::tour::Tour;
use self::watch::Watch;
use crate::progress::{Progress, seconds};
use crate::workspace::Workspace;

/// The project's targets.
const UPDATE: Duration = Duration::from_secs(2);
const SERVER_MEMORY: Limit = Limit::Mebibytes(20);
const SIDECAR_MEMORY: Limit = Limit::Mebibytes(8);
const IMAGE: Limit = Limit::Megabytes(20);
const SIDECAR_IMAGE: Limit = Limit::Megabytes(8);

/// Times from the call that changes a value to the app's file.
type Updates = Vec<Duration>;

pub fn run(options: Options, workspace: &Workspace) -> Result<()> {
    let begun = Instant::now();
    let mut progress = Progress::new();
    if options.down {
        return if options.existing {
            down::existing(workspace, &mut progress)
        } else {
            down::local(workspace, options.subnet, &mut progress)
        };
    }
    let logs = tools::logs(workspace);
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let stage = if options.existing {
        prepare::existing(workspace, options.into_existing()?, &mut progress)?
    } else {
        prepare::local(workspace, options.subnet, &mut progress)?
    };
    let shown = show(&stage, workspace, &mut progress);
    let rows = shown.inspect_err(|_| eprintln!("{}", left(&stage)))?;
    print!(
        "\nMeasured on Kubernetes {}\n{}",
        stage.kubernetes,
        table::render(&rows)
    );
    print!("{}", tour(&stage, workspace)?);
    eprintln!("\nAll of it took {}.", seconds(begun.elapsed()));
    Ok(())
}

/// The example with its app at work on the local cluster, for whoever measures something else there.
pub struct Example {
    pub client: kube::Client,
    folder: std::path::PathBuf,
    tools: tools::Tools,
}

impl Example {
    pub const NAMESPACE: &str = quickstart::NAMESPACE;
    pub const CONTAINER: &str = quickstart::CONTAINER;
    /// Its file, below the folder of all mounts.
    pub const FILE: &str = "shop/database-password";

    /// Installs all of it as the demo does.
    pub fn install(workspace: &Workspace, runtime: &Runtime, progress: &mut Progress) -> Result<Self> {
        let logs = tools::logs(workspace);
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let stage = prepare::local(workspace, None, progress)?;
        let folder = quickstart::folder(workspace);
        progress.step("Installing the chart with helm", |step| {
            release::install(&stage.tools, &stage.chart, step)
        })?;
        progress.step("Applying examples/quickstart", |step| {
            quickstart::apply(&stage.tools, &folder, None, step)?;
            let server = Server::open(&stage.tools, runtime)?;
            server.create_secret(APPLICATION, SECRET)?;
            server.set(APPLICATION, ENVIRONMENT, SECRET, &value()?)?;
            quickstart::await_app(&stage.tools, step)
        })?;
        Ok(Self {
            client: runtime.block_on(stage.tools.client())?,
            folder,
            tools: stage.tools,
        })
    }

    /// A pod like that of the app, in a shape of its own; none: without injection.
    pub fn pod(&self, name: &str, mode: Option<&str>) -> Result<serde_json::Value> {
        let mut pod = quickstart::pod(&self.folder, None, name, mode.is_some())?;
        if let Some(mode) = mode {
            pod["metadata"]["annotations"][sealpod_core::kubernetes::annotations::MODE] = mode.into();
        }
        Ok(pod)
    }

    /// An open way to its server.
    pub fn server<'a>(&self, runtime: &'a Runtime) -> Result<Server<'a>> {
        Server::open(&self.tools, runtime)
    }

    /// Changes the value that its pods read.
    pub fn set(server: &Server<'_>, value: &str) -> Result<()> {
        server.set(APPLICATION, ENVIRONMENT, SECRET, value)
    }

    /// Removes the pods that were made of it, without waiting for their end.
    pub fn clear(&self) -> Result<()> {
        quickstart::remove_measured(&self.tools)
    }
}

/// After a failure: what is there to look at, and the ways on.
fn left(stage: &Stage) -> String {
    let mut lines = vec!["\nThe cluster is left as it is, to look around:".to_string()];
    lines.extend(stage.tools.exports().iter().map(|line| format!("  {line}")));
    lines.push(format!(
        "The same command may be run again at any time; `cargo xtask demo{} --down` removes all of it.",
        stage.flags
    ));
    lines.join("\n")
}

/// The story: install, apply, set, read, change, measure.
fn show(stage: &Stage, workspace: &Workspace, progress: &mut Progress) -> Result<Vec<Row>> {
    let tools = &stage.tools;
    let example = quickstart::folder(workspace);
    let app_image = stage.app_image.as_deref();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = Runtime::new().context("cannot start threads")?;

    progress.step("Installing the chart with helm", |step| {
        release::install(tools, &stage.chart, step)
    })?;
    progress.step("Applying examples/quickstart", |step| {
        quickstart::apply(tools, &example, app_image, step)
    })?;
    let server = Server::open(tools, &runtime)?;
    let first = value()?;
    progress.step("Setting a secret through the REST API", |step| {
        server.create_secret(APPLICATION, SECRET)?;
        server.set(APPLICATION, ENVIRONMENT, SECRET, &first)?;
        step.note(&format!("{SECRET} of {APPLICATION}/{ENVIRONMENT} is {first:?}"));
        Ok(())
    })?;
    let watch = progress.step("Waiting until the app's container reads it from its file", |step| {
        quickstart::await_app(tools, step)?;
        let watch = Watch::open(tools, &quickstart::file())?;
        watch.until(&first)?;
        Ok(watch)
    })?;
    progress.say(&format!("  {} holds {first:?}; the app says:", quickstart::file()));
    progress.say(&format!("  {}", quickstart::last_log_line(tools)?));

    let second = value()?;
    let shown = progress.step("Changing the value", |_| change(&server, &watch, &second))?;
    progress.say(&format!(
        "  {second:?} is in the file of the running pod {} ms after the call began",
        shown.as_millis()
    ));
    let mut updates = vec![shown];
    progress.step(
        &format!("Changing it {} times more, after random waits", CHANGES - 1),
        |step| {
            for round in 1..CHANGES {
                step.follow(&format!("{round} of {}", CHANGES - 1));
                std::thread::sleep(measure::random(Duration::from_millis(700))?);
                updates.push(change(&server, &watch, &value()?)?);
            }
            Ok(())
        },
    )?;
    drop(watch);
    let starts = starts(stage, &example, &runtime, progress)?;
    rows(stage, &updates, &starts)
}

/// A harmless text that was never there before.
fn value() -> Result<String> {
    Ok(format!("demo-{:08x}", getrandom::u32()?))
}

/// Sets a value and waits until the app's file holds it; the time from before the call.
fn change(server: &Server, watch: &Watch, value: &str) -> Result<Duration> {
    let begun = Instant::now();
    server.set(APPLICATION, ENVIRONMENT, SECRET, value)?;
    Ok(watch.until(value)?.saturating_duration_since(begun))
}

/// Times of pods with and without injection; the error says why this cluster cannot be measured so exactly.
fn starts(
    stage: &Stage,
    example: &std::path::Path,
    runtime: &Runtime,
    progress: &mut Progress,
) -> Result<Result<Starts, String>> {
    let title = format!("Starting the app's pod {STARTS} times with and {STARTS} times without injection");
    let app_image = stage.app_image.as_deref();
    let measured = progress.step(&title, |step| {
        let starts = runtime.block_on(measure::starts(&stage.tools, example, app_image, step));
        quickstart::remove_measured(&stage.tools)?;
        match starts {
            // An unusual KUBECONFIG that kubectl can use and our library cannot.
            Err(error) if error.is::<kube::Error>() && stage.app_image.is_some() => Ok(Err(format!("{error:#}"))),
            other => other.map(Ok),
        }
    })?;
    Ok(measured)
}

fn rows(stage: &Stage, updates: &Updates, starts: &Result<Starts, String>) -> Result<Vec<Row>> {
    const ELSEWHERE: &str = "its process is not on this machine";
    let mut rows = Vec::new();
    let tools = &stage.tools;
    let server = tools.get(&[
        "pod",
        &format!("{}-0", release::object("api-server")),
        "--namespace",
        release::NAMESPACE,
    ])?;
    let memory = server.and_then(|pod| measure::resident_memory(&pod, "api-server"));
    rows.push(Row::bytes(
        "api-server at rest, resident memory",
        memory,
        SERVER_MEMORY,
        ELSEWHERE,
    ));
    let memory = measure::resident_memory(
        &quickstart::app_pod(tools)?,
        sealpod_core::kubernetes::SIDECAR_CONTAINER,
    );
    rows.push(Row::bytes(
        "sidecar at rest, resident memory",
        memory,
        SIDECAR_MEMORY,
        ELSEWHERE,
    ));
    let median_update = median(updates).context("there were updates")?;
    let slowest = updates.iter().max().copied().unwrap_or_default();
    rows.push(Row::time(
        format!("update to file, median of {}", updates.len()),
        median_update,
        Some(UPDATE),
    ));
    rows.push(Row::time("update to file, slowest", slowest, Some(UPDATE)));
    match starts {
        Ok(starts) => {
            let [plain, injected] = [&starts.plain, &starts.injected].map(|times| median(times).unwrap_or_default());
            rows.push(Row::time(
                format!("pod to Ready without injection, median of {STARTS}"),
                plain,
                None,
            ));
            rows.push(Row::time(
                format!("pod to Ready with injection, median of {STARTS}"),
                injected,
                None,
            ));
            rows.push(Row::time("  difference", injected.saturating_sub(plain), None));
        }
        Err(why) => rows.push(Row::unmeasured("pod to Ready", why.clone())),
    }
    match &stage.images {
        Some(images) => rows.extend(images.images.iter().map(|image| {
            let name = image.reference.rsplit('/').next().unwrap_or_default();
            let name = name.split(':').next().unwrap_or_default();
            let limit = if name.ends_with("-sidecar") {
                SIDECAR_IMAGE
            } else {
                IMAGE
            };
            Row::bytes(format!("image {name}, unpacked"), Some(image.unpacked), limit, "")
        })),
        None => rows.push(Row::unmeasured("images, unpacked", "they are in a registry")),
    }
    Ok(rows)
}

fn tour(stage: &Stage, workspace: &Workspace) -> Result<String> {
    Ok(Tour {
        exports: &stage.tools.exports(),
        chart: &stage.chart,
        example: quickstart::folder(workspace).display().to_string(),
        app_image: stage.app_image.as_deref(),
        port: free_port(7100)?,
        flags: stage.flags,
    }
    .text())
}

/// The port wished for, or another one where somebody has it.
fn free_port(wish: u16) -> Result<u16> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = listen(wish)
        .or_else(|_| listen(0))
        .context("no port of this machine is free")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::http;

    #[test]
    fn a_port_that_is_taken_is_replaced() {
        let (_held, address) = http::free_address().unwrap();
        assert_eq!(free_port(address.port()).unwrap(), address.port());
        let taken = TcpListener::bind(address).unwrap();
        assert_ne!(free_port(address.port()).unwrap(), address.port());
        drop(taken);
    }

    #[test]
    fn values_are_never_the_same_twice() {
        assert_ne!(value().unwrap(), value().unwrap());
    }
}
