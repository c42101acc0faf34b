//! What the closing table shows.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::wait::await_condition;
use serde_json::Value;

use super::quickstart::{self, NAMESPACE};
use super::tools::Tools;
use crate::progress::Step;

/// Changes whose time to the file is measured.
pub const CHANGES: u32 = 8;
/// Pods of either kind that are started.
pub const STARTS: u32 = 4;
const START_WITHIN: Duration = Duration::from_mins(2);

/// Times of pods from the request that creates them to their readiness.
#[derive(Debug)]
pub struct Starts {
    pub plain: Vec<Duration>,
    pub injected: Vec<Duration>,
}

/// Starts the example's pod without and with injection, by turns.
///
/// Between the pods a random time passes: the kubelet goes round once a second, and a fixed gap would always meet it at
/// the same point of its round.
pub async fn starts(tools: &Tools, folder: &Path, app_image: Option<&str>, step: &Step) -> Result<Starts> {
    let pods: Api<Pod> = Api::namespaced(tools.client().await?, NAMESPACE);
    let mut starts = Starts {
        plain: Vec::new(),
        injected: Vec::new(),
    };
    for round in 1..=STARTS {
        step.follow(&format!("round {round} of {STARTS}"));
        for injected in [false, true] {
            tokio::time::sleep(random(Duration::from_secs(1))?).await;
            let name = format!("measured-{:08x}", getrandom::u32()?);
            let pod = quickstart::pod(folder, app_image, &name, injected)?;
            let took = start(&pods, &name, pod).await?;
            let times = if injected {
                &mut starts.injected
            } else {
                &mut starts.plain
            };
            times.push(took);
        }
    }
    Ok(starts)
}

async fn start(pods: &Api<Pod>, name: &str, pod: Value) -> Result<Duration> {
    let pod = serde_json::from_value(pod).context("the example's pod is a pod")?;
    let begun = Instant::now();
    pods.create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("the pod {name} is not taken"))?;
    let ready = await_condition(pods.clone(), name, |pod: Option<&Pod>| pod.is_some_and(is_ready));
    tokio::time::timeout(START_WITHIN, ready)
        .await
        .with_context(|| format!("the pod {name} was not ready within {} s", START_WITHIN.as_secs()))??;
    Ok(begun.elapsed())
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A random part of a duration.
pub fn random(of: Duration) -> Result<Duration> {
    let part = f64::from(getrandom::u32()?) / f64::from(u32::MAX);
    Ok(of.mul_f64(part))
}

/// The middle one; of an even number, the mean of the two in the middle.
pub fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2)
}

/// Resident memory in bytes of a container's main process; `None` when that does not run on this machine.
pub fn resident_memory(pod: &Value, container: &str) -> Option<u64> {
    processes(pod, container).find_map(|(_, status)| main_process_memory(&status))
}

/// Number of a container's main process on this machine.
pub fn app_pid(pod: &Value, container: &str) -> Option<u32> {
    processes(pod, container).find_map(|(pid, status)| main_process_memory(&status).map(|_| pid))
}

/// The processes of a container, each with its `/proc/PID/status`.
fn processes(pod: &Value, container: &str) -> impl Iterator<Item = (u32, String)> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let statuses = lists
        .into_iter()
        .filter_map(|list| pod["status"][list].as_array())
        .flatten();
    let id = statuses
        .into_iter()
        .find(|status| status["name"] == container)
        // `containerd://<64 hex digits>`; the runtime names the cgroup by it.
        .and_then(|status| Some(status["containerID"].as_str()?.split_once("://")?.1.to_owned()));
    let all = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let of_it = move |process: &Path| {
        let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        id.as_ref().is_some_and(|id| cgroups.contains(id))
    };
    all.filter(move |process| of_it(process)).filter_map(|process| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(process.join("status")).ok()?))
    })
}

/// `VmRSS` of a `/proc/PID/status`, if the process is the first one of its container.
fn main_process_memory(status: &str) -> Option<u64> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    // The pid in each namespace that the process is in, its own last.
    if field("NSpid")?.split_whitespace().last() != Some("1") {
        return None;
    }
    let kib: u64 = field("VmRSS")?.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |millis: &[u64]| {
            let times: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
            median(&times).map(|time| time.as_millis())
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7]), Some(7));
        assert_eq!(median(&[900, 1, 5]), Some(5));
        assert_eq!(median(&[4, 1, 900, 2]), Some(3));
    }

    #[test]
    fn a_random_wait_is_within_its_bound() {
        let all = [0; 100].map(|_| random(Duration::from_secs(1)).unwrap());
        assert!(all.iter().all(|wait| *wait <= Duration::from_secs(1)));
        assert!(all.iter().any(|wait| *wait != all[0]), "it is random");
    }

    #[test]
    fn memory_is_that_of_the_first_process_of_the_container() {
        let status = |pids: &str| format!("Name:\tx\nNSpid:\t{pids}\nVmRSS:\t    5120 kB\n");
        assert_eq!(main_process_memory(&status("812\t1")), Some(5 << 20));
        assert_eq!(
            main_process_memory(&status("830\t14")),
            None,
            "an exec in the container"
        );
        assert_eq!(
            main_process_memory("Name:\tx\nNSpid:\t812\t1\n"),
            None,
            "one that has just ended"
        );
    }

    #[test]
    fn a_container_elsewhere_has_no_memory_here() {
        let id = "containerd://0000000000000000000000000000000000000000000000000000000000000001";
        let pod = json!({"status": {"containerStatuses": [{"name": "app", "containerID": id}]}});
        assert_eq!(resident_memory(&pod, "app"), None);
        assert_eq!(resident_memory(&pod, "other"), None);
    }

    #[test]
    fn a_pod_is_ready_by_its_condition() {
        let pod = |status: &str| {
            serde_json::from_value::<Pod>(json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}))
                .unwrap()
        };
        assert!(is_ready(&pod("True")));
        assert!(!is_ready(&pod("False")));
        assert!(!is_ready(&Pod::default()));
    }
}
