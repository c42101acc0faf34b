//! Pods of the example, with injection in each shape and without, on the local cluster.
//!
//! When a process began is asked of this machine's kernel, on which the node is: Kubernetes tells it in whole seconds only.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use sealpod_core::kubernetes::{MOUNT_ROOT, SIDECAR_CONTAINER};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::super::bars::{Bars, Depends, Limit};
use super::super::figures::{Rows, median, milliseconds, percentile, shown};
use super::Options;
use crate::demo::{Example, app_pid, is_ready, random};
use crate::progress::Progress;
use crate::workspace::Workspace;

const START_WITHIN: Duration = Duration::from_mins(3);
/// Without injection, and with it in each shape.
const SHAPES: [(&str, Option<&str>); 4] = [
    ("plain", None),
    ("auto: init container, then sidecar", AUTO),
    ("native sidecar", Some("native")),
    ("init container alone", Some("init")),
];
const AUTO: Option<&str> = Some("auto");
/// Without injection, and with containers that do nothing: what a container costs here, whoever adds it and whatever it does.
const FLOORS: [(&str, Idle); 3] = [
    (
        "plain and an init container that does nothing",
        Idle {
            first: true,
            beside: false,
        },
    ),
    (
        "plain and a second container that does nothing",
        Idle {
            first: false,
            beside: true,
        },
    ),
    ("plain and both, the floor of auto", FLOOR_OF_AUTO),
];
const FLOOR_OF_AUTO: Idle = Idle {
    first: true,
    beside: true,
};
/// The binding of the example.
const BINDING: &str = "shop";
/// What the kernel counts in towards programs.
const TICKS_PER_SECOND: u64 = 100;

/// What injection may add, in milliseconds, and the ratio of many at once.
const MOST_APP_START: f64 = 900.0;
const MOST_READY: f64 = 1_400.0;
const MOST_OURS: f64 = 300.0;
const MOST_AT_ONCE: f64 = 1.6;

/// Which containers that do nothing a pod has, beside its app's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Idle {
    /// An init container.
    first: bool,
    /// A regular one.
    beside: bool,
}

/// A pod that is started: how it is injected, if at all, and what does nothing in it.
type Made<'a> = (Option<&'a str>, Idle);

/// Times from the request that creates a pod.
#[derive(Debug, Default)]
struct Times {
    app_start: Vec<Duration>,
    ready: Vec<Duration>,
    /// From the start of our process until the files are there; where it still runs.
    ours: Vec<Duration>,
}

pub fn measure(
    options: &Options,
    workspace: &Workspace,
    runtime: &Runtime,
    progress: &mut Progress,
    (bars, rows): (&mut Bars, &mut Rows),
) -> Result<()> {
    let example = Example::install(workspace, runtime, progress)?;
    let mut all: [Times; SHAPES.len()] = std::array::from_fn(|_| Times::default());
    let title = format!("Starting {} pods of each shape, by turns", options.pods);
    progress.step(&title, |step| {
        for round in 1..=options.pods {
            step.follow(&format!("round {round} of {}", options.pods));
            for ((_, mode), times) in SHAPES.iter().zip(&mut all) {
                // A fixed gap would always meet the kubelet, which goes round once a second, at the same point.
                std::thread::sleep(random(Duration::from_secs(1))?);
                runtime.block_on(one(&example, *mode, times))?;
            }
        }
        Ok(())
    })?;
    report(&mut all, bars, rows);
    many(options, &example, runtime, progress, (bars, rows))
}

/// In every shape, by turns.
fn many(
    options: &Options,
    example: &Example,
    runtime: &Runtime,
    progress: &mut Progress,
    (bars, rows): (&mut Bars, &mut Rows),
) -> Result<()> {
    let shapes = SHAPES.map(|(name, mode)| (name, (mode, Idle::default())));
    let floors = FLOORS.map(|(name, idle)| (name, (None, idle)));
    let mut all: Vec<(&str, Made, Vec<Duration>)> = shapes
        .into_iter()
        .chain(floors)
        .map(|(name, made)| (name, made, vec![]))
        .collect();
    let title = format!("Starting {} pods at once, {} times", options.at_once, options.rounds);
    progress.step(&title, |step| {
        for round in 1..=options.rounds {
            for (name, made, took) in &mut all {
                step.follow(&format!("round {round}, {name}"));
                took.push(runtime.block_on(at_once(example, *made, options.at_once))?);
            }
        }
        Ok(())
    })?;
    let seconds_of = |which: Made| {
        let took = all.iter().find(|(_, made, _)| *made == which).map(|(_, _, took)| took);
        let middle = median(took.into_iter().flatten().copied()).unwrap_or_default();
        middle.as_secs_f64().max(f64::EPSILON)
    };
    let plain = seconds_of((None, Idle::default()));
    let how = format!(
        "{} at once until all are Ready, median of {}",
        options.at_once, options.rounds
    );
    for (name, made, _) in &all {
        let seconds = seconds_of(*made);
        let ratio = seconds / plain;
        let value = format!("{} s, {ratio:.2} × plain", shown(seconds));
        rows.add(&format!("{name}: {how}"), &value);
        if made.0 == AUTO {
            bars.hold(
                "many at once, injected to plain",
                Limit::AtMost(MOST_AT_ONCE),
                "×",
                Depends::OnNothing,
                ratio,
            );
        }
    }
    let to_floor = seconds_of((AUTO, Idle::default())) / seconds_of((None, FLOOR_OF_AUTO));
    rows.add(
        &format!("auto to the floor of auto: {how}"),
        &format!("{to_floor:.2} ×"),
    );
    Ok(())
}

fn report(all: &mut [Times; SHAPES.len()], bars: &mut Bars, rows: &mut Rows) {
    let middle = |times: &[Duration]| milliseconds(median(times.iter().copied()).unwrap_or_default());
    let plain = (middle(&all[0].app_start), middle(&all[0].ready));
    for ((name, mode), times) in SHAPES.iter().zip(all) {
        times.app_start.sort_unstable();
        times.ready.sort_unstable();
        let (app, ready) = (middle(&times.app_start), middle(&times.ready));
        let slow = [&times.app_start, &times.ready].map(|times| shown(milliseconds(percentile(times, 90))));
        rows.add(
            &format!("{name}: create → app start, p50 (p90)"),
            &format!(
                "{} ms ({} ms), plain + {} ms",
                shown(app),
                slow[0],
                shown(app - plain.0)
            ),
        );
        rows.add(
            &format!("{name}: create → Ready, p50 (p90)"),
            &format!(
                "{} ms ({} ms), plain + {} ms",
                shown(ready),
                slow[1],
                shown(ready - plain.1)
            ),
        );
        if *mode == AUTO {
            bars.hold(
                "app start beyond plain, p50",
                Limit::AtMost(MOST_APP_START),
                "ms",
                Depends::OnNothing,
                app - plain.0,
            );
            bars.hold(
                "Ready beyond plain, p50",
                Limit::AtMost(MOST_READY),
                "ms",
                Depends::OnNothing,
                ready - plain.1,
            );
        }
        if !times.ours.is_empty() {
            let ours = middle(&times.ours);
            rows.add("our process start → files there, p50", &format!("{} ms", shown(ours)));
            bars.hold(
                "our start → files, p50",
                Limit::AtMost(MOST_OURS),
                "ms",
                Depends::OnNothing,
                ours,
            );
        }
    }
}

impl Idle {
    /// Adds them to a pod of one container, like that one but for what they run.
    fn add(self, pod: &mut Value) {
        let app = pod["spec"]["containers"][0].clone();
        let container = |name: &str, command: &[&str]| {
            let mut container = app.clone();
            container["name"] = json!(name);
            container["command"] = json!(command);
            if let Some(fields) = container.as_object_mut() {
                fields.remove("args");
            }
            container
        };
        if self.first {
            pod["spec"]["initContainers"] = json!([container("idle-first", &["true"])]);
        }
        if self.beside {
            pod["spec"]["containers"] = json!([app, container("idle-beside", &["sleep", "86400"])]);
        }
    }
}

/// Starts a pod, waits until it is ready, asks how it went, and removes it.
async fn one(example: &Example, mode: Option<&str>, times: &mut Times) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(example.client.clone(), Example::NAMESPACE);
    let (name, begun) = create(example, &pods, (mode, Idle::default())).await?;
    let ready = until_ready(&pods, &name, begun).await?;
    let pod = serde_json::to_value(pods.get(&name).await?)?;
    let app = process(&pod, Example::CONTAINER)?;
    times.ready.push(ready);
    times
        .app_start
        .push(app.begun.duration_since(begun).unwrap_or_default());
    if mode == Some("native") {
        let ours = process(&pod, SIDECAR_CONTAINER)?;
        times
            .ours
            .push(app.files()?.duration_since(ours.begun).unwrap_or_default());
    }
    example.clear()
}

async fn create(example: &Example, pods: &Api<Pod>, (mode, idle): Made<'_>) -> Result<(String, SystemTime)> {
    let name = format!("measured-{:08x}", getrandom::u32()?);
    let mut pod = example.pod(&name, mode)?;
    idle.add(&mut pod);
    let pod = serde_json::from_value(pod).context("the example's pod is a pod")?;
    let begun = SystemTime::now();
    let created = pods.create(&PostParams::default(), &pod).await;
    created.with_context(|| format!("the pod {name} is not taken"))?;
    Ok((name, begun))
}

async fn until_ready(pods: &Api<Pod>, name: &str, begun: SystemTime) -> Result<Duration> {
    let ready = await_condition(pods.clone(), name, |pod: Option<&Pod>| pod.is_some_and(is_ready));
    tokio::time::timeout(START_WITHIN, ready)
        .await
        .with_context(|| format!("the pod {name} was not ready within {} s", START_WITHIN.as_secs()))??;
    Ok(begun.elapsed().unwrap_or_default())
}

async fn at_once(example: &Example, made: Made<'_>, count: usize) -> Result<Duration> {
    let pods: Api<Pod> = Api::namespaced(example.client.clone(), Example::NAMESPACE);
    let begun = SystemTime::now();
    let all = (0..count).map(async |_| {
        let (name, _) = create(example, &pods, made).await?;
        until_ready(&pods, &name, begun).await
    });
    futures::future::try_join_all(all).await?;
    let took = begun.elapsed().unwrap_or_default();
    example.clear()?;
    // Their end is work of the node too, and no part of the next round.
    let gone = pods.clone();
    tokio::time::timeout(START_WITHIN, async {
        let ours = kube::api::ListParams::default().labels("app.kubernetes.io/part-of=sealpod-demo");
        while !gone.list_metadata(&ours).await?.items.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok::<_, kube::Error>(())
    })
    .await??;
    Ok(took)
}

/// A container's main process on this machine.
struct Process {
    pid: u32,
    begun: SystemTime,
}

fn process(pod: &Value, container: &str) -> Result<Process> {
    let pid =
        app_pid(pod, container).with_context(|| format!("no process of container {container} is on this machine"))?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let since = since_boot(&stat)
        .zip(parse_uptime(&uptime))
        .context("/proc is not what is expected")?;
    let (began, now) = since;
    Ok(Process {
        pid,
        begun: SystemTime::now() - now.saturating_sub(began),
    })
}

impl Process {
    /// When the files that it sees were put in their place.
    fn files(&self) -> Result<SystemTime> {
        let link = format!("/proc/{}/root{MOUNT_ROOT}/{BINDING}/..data", self.pid);
        let meta = fs::symlink_metadata(&link).with_context(|| format!("cannot look at {link}"))?;
        let [seconds, nanos] = [meta.ctime(), meta.ctime_nsec()].map(u64::try_from);
        Ok(UNIX_EPOCH + Duration::from_secs(seconds?) + Duration::from_nanos(nanos?))
    }
}

/// Field 22: when it began. The name in field 2 may hold anything but ends with the last parenthesis.
fn since_boot(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

fn parse_uptime(text: &str) -> Option<Duration> {
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_do_nothing_are_like_the_app_but_for_what_they_run() {
        let app =
            json!({"name": "app", "image": "i", "command": ["sh", "-c"], "args": ["x"], "resources": {"requests": {}}});
        let plain = json!({"spec": {"containers": [app]}});
        let with = |idle: Idle| {
            let mut pod = plain.clone();
            idle.add(&mut pod);
            pod["spec"].take()
        };
        assert_eq!(with(Idle::default()), plain["spec"]);
        let spec = with(FLOOR_OF_AUTO);
        let idle = |name: &str, command: Value| json!({"name": name, "image": "i", "command": command, "resources": {"requests": {}}});
        assert_eq!(spec["initContainers"], json!([idle("idle-first", json!(["true"]))]));
        assert_eq!(
            spec["containers"],
            json!([app, idle("idle-beside", json!(["sleep", "86400"]))])
        );
        let all = FLOORS.map(|(_, idle)| with(idle).to_string());
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }

    #[test]
    fn the_begin_of_a_process_is_read_behind_a_name_with_parentheses() {
        let stat = "7 (a) 1 (b)) S 1 7 7 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 4 0 12345 1 2";
        assert_eq!(since_boot(stat), Some(Duration::from_millis(123_450)));
        assert_eq!(since_boot("7 (a) S 1"), None);
        assert_eq!(parse_uptime("12.50 99.00\n"), Some(Duration::from_millis(12_500)));
        assert_eq!(parse_uptime(""), None);
    }
}
