//! What a process takes of the machine, under the names that every exporter and dashboard uses.

use std::fmt;
use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

static STARTED: LazyLock<f64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
});

/// Takes note of when the process began: the first call counts.
pub(crate) fn begin() {
    LazyLock::force(&STARTED);
}

/// A registry of this alone. Making it is cheap: everything is read when it is encoded.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        #[allow(
            clippy::cast_precision_loss,
            reason = "seconds since a process began are far below 2^52"
        )]
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        put(
            &mut encoder,
            "process_cpu",
            "Processor time spent",
            Some(&Unit::Seconds),
            &ConstCounter::new(cpu),
        )?;
        let started = ConstGauge::new(*STARTED);
        let help = "When the process began, in seconds since 1970";
        put(&mut encoder, "process_start_time", help, Some(&Unit::Seconds), &started)?;
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for (field, name, help) in [
                (
                    "VmRSS:",
                    "process_resident_memory",
                    "Memory that is in use, as the kernel counts it",
                ),
                (
                    "VmSize:",
                    "process_virtual_memory",
                    "Addresses that are mapped, used or not",
                ),
            ] {
                if let Some(kibibytes) = number(&status, field) {
                    let bytes = ConstGauge::new(kibibytes.saturating_mul(1024));
                    put(&mut encoder, name, help, Some(&Unit::Bytes), &bytes)?;
                }
            }
            if let Some(threads) = number(&status, "Threads:") {
                put(
                    &mut encoder,
                    "process_threads",
                    "Threads that run or wait",
                    None,
                    &ConstGauge::new(threads),
                )?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is what reads the folder.
            let open = i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1);
            put(
                &mut encoder,
                "process_open_fds",
                "Files and sockets that are open",
                None,
                &ConstGauge::new(open),
            )?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            let limit = ConstGauge::new(i64::try_from(limit).unwrap_or(i64::MAX));
            put(
                &mut encoder,
                "process_max_fds",
                "Files and sockets that may be open",
                None,
                &limit,
            )?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    // A registry puts the full stop behind the texts of its own metrics, and not behind these.
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, unit, metric.metric_type())?)
}

/// The number behind `field` in `/proc/self/status`.
fn number(status: &str, field: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_there_and_plausible() {
        begin();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry()).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .parse::<f64>()
                .unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
    }

    #[test]
    fn a_field_that_is_not_there_is_no_figure() {
        assert_eq!(number("VmRSS:\t   12 kB\nThreads:\t3\n", "VmRSS:"), Some(12));
        assert_eq!(number("VmRSS:\t   12 kB\n", "Threads:"), None);
    }
}
