//! The pods of a cluster: how soon a change is in the file of each, and what their sidecars take.
//!
//! The files are looked at as the app's process sees them, which is on this machine, as the node is.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use sealpod_core::kubernetes::{MOUNT_ROOT, SIDECAR_CONTAINER};
use tokio::runtime::Runtime;

use super::super::bars::{Bars, Depends, Limit};
use super::super::figures::{median, mib, shown};
use super::super::{cgroup, child};
use super::{Options, WITHIN, percentiles, value};
use crate::demo::{Example, app_pid, is_ready};
use crate::process::Failure;
use crate::progress::{Progress, Step};
use crate::workspace::Workspace;

/// Pods that start at the same time.
const AT_ONCE: usize = 20;
const START_WITHIN: Duration = Duration::from_mins(5);

/// What was seen of so many pods.
#[derive(Debug, Default)]
pub struct Fleet {
    pods: usize,
    /// From the request that changes a value until the file of a pod shows it, for each change and pod.
    changes: Vec<Duration>,
    /// Of each sidecar, in KiB.
    resident: Vec<u64>,
    /// Of each sidecar's container, in KiB.
    groups: Vec<u64>,
}

/// A pod that runs.
struct Watching {
    /// The file, by the app's process.
    file: PathBuf,
    sidecar: u32,
}

pub fn measure(options: &Options, workspace: &Workspace, runtime: &Runtime, progress: &mut Progress) -> Result<Fleet> {
    let example = Example::install(workspace, runtime, progress)?;
    let server = example.server(runtime)?;
    let title = format!("{} pods on the cluster", options.pods);
    let watching = progress.step(&title, |step| {
        let pods = runtime.block_on(start(&example, options.pods, step))?;
        pods.iter().map(Watching::of).collect::<Result<Vec<_>>>()
    })?;
    let mut fleet = Fleet {
        pods: options.pods,
        ..Fleet::default()
    };
    progress.step("Values that change", |_| {
        for number in 1..=usize::from(options.changes) {
            std::thread::sleep(Duration::from_millis(500));
            let began = Instant::now();
            Example::set(&server, &value(number))?;
            fleet.changes.extend(until(&watching, &value(number), began)?);
        }
        anyhow::Ok(())
    })?;
    for pod in &watching {
        fleet.resident.push(child::memory(pod.sidecar)?.resident);
        fleet.groups.push(cgroup::of_process(pod.sidecar)?);
    }
    example.clear()?;
    Ok(fleet)
}

/// Starts injected pods of the example whose app does nothing.
async fn start(example: &Example, count: usize, step: &Step) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(example.client.clone(), Example::NAMESPACE);
    let mut running = Vec::with_capacity(count);
    while running.len() < count {
        let batch = (0..AT_ONCE.min(count - running.len())).map(async |_| {
            let name = format!("watching-{:08x}", getrandom::u32()?);
            let mut pod = example.pod(&name, Some("auto"))?;
            pod["spec"]["containers"][0]["args"] = serde_json::json!(["exec sleep 86400"]);
            let pod = serde_json::from_value(pod).context("the example's pod is a pod")?;
            let created = api.create(&PostParams::default(), &pod).await;
            created.with_context(|| format!("the pod {name} is not taken"))?;
            let ready = await_condition(api.clone(), &name, |pod: Option<&Pod>| pod.is_some_and(is_ready));
            tokio::time::timeout(START_WITHIN, ready)
                .await
                .with_context(|| format!("the pod {name} was not ready within {} s", START_WITHIN.as_secs()))??;
            anyhow::Ok(api.get(&name).await?)
        });
        running.extend(futures::future::try_join_all(batch).await?);
        step.follow(&format!("{} run", running.len()));
    }
    Ok(running)
}

impl Watching {
    fn of(pod: &Pod) -> Result<Self> {
        let pod = serde_json::to_value(pod)?;
        let process = |container: &str| {
            app_pid(&pod, container).with_context(|| format!("no process of container {container} is on this machine"))
        };
        let root = format!("/proc/{}/root{MOUNT_ROOT}", process(Example::CONTAINER)?);
        Ok(Self {
            file: PathBuf::from(root).join(Example::FILE),
            sidecar: process(SIDECAR_CONTAINER)?,
        })
    }
}

/// When the file of each pod showed `value`, from `began` on.
fn until(pods: &[Watching], value: &str, began: Instant) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(pods.len());
    let mut left: Vec<_> = pods.iter().collect();
    while !left.is_empty() {
        left.retain(|pod| {
            let shows = fs::read_to_string(&pod.file).is_ok_and(|text| text == value);
            if shows {
                took.push(began.elapsed());
            }
            !shows
        });
        if began.elapsed() > WITHIN {
            let (count, seconds) = (left.len(), WITHIN.as_secs());
            return Err(Failure::new(format!("{count} pods do not show the value within {seconds} s")).into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(took)
}

impl Fleet {
    pub fn hold(&self, bars: &mut Bars) {
        let mut at_most = |what: &str, most: f64, unit: &str, depends, figure| {
            let what = format!("{} pods: {what}", self.pods);
            bars.hold(&what, Limit::AtMost(most), unit, depends, figure);
        };
        let (p50, p99) = percentiles(&self.changes);
        at_most("change → file, p50", 200.0, "ms", Depends::OnDisk, p50);
        at_most("change → file, p99", 1_000.0, "ms", Depends::OnDisk, p99);
        let most = |figures: &[u64]| mib(figures.iter().copied().max().unwrap_or_default());
        let (resident, group) = (most(&self.resident), most(&self.groups));
        at_most("resident memory, the most", 8.0, "MiB", Depends::OnNothing, resident);
        at_most(
            "memory of the container, the most",
            8.0,
            "MiB",
            Depends::OnNothing,
            group,
        );
    }

    pub fn table(&self) -> String {
        let mut text = format!("\n| {} pods of a cluster on this machine | |\n|---|---|\n", self.pods);
        let (p50, p99) = percentiles(&self.changes);
        let _ = writeln!(
            text,
            "| change → file, p50 / p99, ms | {} / {} |",
            shown(p50),
            shown(p99)
        );
        for (what, figures) in [
            ("resident memory of the sidecar", &self.resident),
            ("memory of its container", &self.groups),
        ] {
            let middle = median(figures.iter().copied()).unwrap_or_default();
            let most = figures.iter().copied().max().unwrap_or_default();
            let _ = writeln!(
                text,
                "| {what}, median / the most, MiB | {} / {} |",
                shown(mib(middle)),
                shown(mib(most))
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::disk::Flushes;
    use super::*;

    #[test]
    fn every_bar_of_the_pods_is_held_against_its_own_figure() {
        let fleet = Fleet {
            pods: 3,
            changes: (1..=100).map(|n| Duration::from_millis(n * 5)).collect(),
            resident: vec![5 << 10, 6 << 10, 7 << 10],
            groups: vec![1 << 10, 2 << 10, 9 << 10],
        };
        let mut bars = Bars::new(&Flushes::of(vec![Duration::from_micros(100)]));
        fleet.hold(&mut bars);
        let text = bars.text();
        for line in [
            "| 3 pods: change → file, p50 | ≤ 200 ms | 250 ms | **MISS** |",
            "| 3 pods: change → file, p99 | ≤ 1000 ms | 495 ms | PASS |",
            "| 3 pods: resident memory, the most | ≤ 8 MiB | 7.0 MiB | PASS |",
            "| 3 pods: memory of the container, the most | ≤ 8 MiB | 9.0 MiB | **MISS** |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(
            fleet
                .table()
                .contains("| memory of its container, median / the most, MiB | 2.0 / 9.0 |")
        );
    }
}
