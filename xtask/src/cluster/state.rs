//! What a running cluster must remember: to be recognised as whole by the next `up`, and to be taken away.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::layout::{Layout, write_whole};

/// Settings of the machine's kernel that the kubelet changes; they are put back when the cluster is stopped.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// `run/state.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// The boot of the machine in which the cluster was started; the recorded pids mean something in it only.
    pub boot_id: String,
    /// Hash of all that the cluster was started with; one with another hash is started anew.
    pub fingerprint: String,
    /// The addresses it was started with, kept by an `up` that names none.
    pub subnet: String,
    /// Whether it once was ready; `false` from the start of `up` until its end.
    pub ready: bool,
    /// The machine's own values of `SYSCTLS` before the start.
    pub sysctls: BTreeMap<String, String>,
}

impl RunState {
    /// `None`: no cluster, or one whose record was lost.
    pub fn read(layout: &Layout) -> Option<Self> {
        serde_json::from_slice(&fs::read(layout.state()).ok()?).ok()
    }

    pub fn write(&self, layout: &Layout) -> Result<()> {
        write_whole(&layout.state(), serde_json::to_vec_pretty(self)?)
    }
}

/// The present values.
pub fn save_sysctls() -> BTreeMap<String, String> {
    let values = SYSCTLS.iter().filter_map(|name| {
        let value = fs::read_to_string(sysctl_file(name)).ok()?;
        Some(((*name).to_string(), value.trim().to_string()))
    });
    values.collect()
}

/// Puts saved values back, as far as they differ and may be set.
pub fn restore_sysctls(saved: &BTreeMap<String, String>) {
    for (name, value) in saved.iter().filter(|(name, _)| SYSCTLS.contains(&name.as_str())) {
        let file = sysctl_file(name);
        if fs::read_to_string(&file).is_ok_and(|now| now.trim() != value) {
            let _ = fs::write(&file, value);
        }
    }
}

fn sysctl_file(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_half_of_one_counts_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.run()).unwrap();
        let state = RunState {
            boot_id: "b".into(),
            fingerprint: "f".into(),
            subnet: "s".into(),
            ready: true,
            sysctls: save_sysctls(),
        };
        assert!(state.sysctls.contains_key("vm/overcommit_memory"));
        state.write(&layout).unwrap();
        assert_eq!(RunState::read(&layout), Some(state));
        fs::write(layout.state(), "{\"boot_id\": \"b").unwrap();
        assert_eq!(RunState::read(&layout), None);
    }
}
