//! Which process is which: a pid alone may by now belong to somebody else.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process since its start. No other process of the same boot is ever equal to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks from boot to its start, field 22 of `/proc/PID/stat`.
    started: u64,
}

impl ProcessId {
    /// Reads a line of `/proc/PID/stat`; `None` for one that is no such line or of a process that has ended (a zombie).
    pub fn from_stat(line: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may itself contain spaces and parentheses.
        let (pid, rest) = (line.split_once(' ')?.0, line.rsplit_once(')')?.1);
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    /// The process that now has this pid, if one is running.
    pub fn running(pid: i32) -> Option<Self> {
        Self::from_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    pub fn is_alive(self) -> bool {
        Self::running(self.pid) == Some(self)
    }

    /// Ends exactly this process; one that took over its pid is not touched.
    pub fn kill(self) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        // The descriptor stays with the process it was opened on, so nothing can slip in between check and signal.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        if self.is_alive() {
            // It may end by itself meanwhile, which is as good.
            let _ = pidfd_send_signal(descriptor, Signal::KILL);
        }
    }
}

/// Every running process of the machine.
fn all() -> impl Iterator<Item = ProcessId> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| ProcessId::running(entry.file_name().to_str()?.parse().ok()?))
}

/// The processes that were started with `entry` (`NAME=value`) in their environment, or by one that was.
pub fn with_environment(entry: &str) -> Vec<ProcessId> {
    let carries = |process: &ProcessId| {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == entry.as_bytes())
    };
    all().filter(carries).collect()
}

/// Distinguishes this boot of the machine from any other: after a reboot no recorded pid means anything.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_confuse_the_reader() {
        let line = "812 (a (b) c) S 1 812 812 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2990080 230";
        assert_eq!(
            ProcessId::from_stat(line),
            Some(ProcessId {
                pid: 812,
                started: 4711
            })
        );
        assert_eq!(
            ProcessId::from_stat(&line.replace(" S ", " Z ")),
            None,
            "a zombie has ended"
        );
        assert_eq!(
            ProcessId::from_stat("812 (sh) S 1"),
            None,
            "half a line, from a full disk"
        );
        assert_eq!(ProcessId::from_stat(""), None);
    }

    #[test]
    fn a_reused_pid_is_neither_alive_nor_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let real = ProcessId::running(child.id().try_into().unwrap()).unwrap();
        let former = ProcessId {
            started: real.started - 1,
            ..real
        };
        assert!(!former.is_alive());
        former.kill();
        assert!(real.is_alive(), "the process that has the pid now is left alone");
        real.kill();
        let begun = Instant::now();
        while real.is_alive() {
            assert!(begun.elapsed() < Duration::from_secs(5), "the process itself is killed");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_found_by_its_exact_environment() {
        let value = format!("SEALPOD_TEST=identity {}", std::process::id());
        let (name, text) = value.split_once('=').unwrap();
        let mut child = Command::new("sleep").arg("60").env(name, text).spawn().unwrap();
        // The kernel shows the environment of a new program a moment after it has let the parent go on.
        let begun = Instant::now();
        let mut found = Vec::new();
        while found.is_empty() && begun.elapsed() < Duration::from_secs(5) {
            found = with_environment(&value).iter().map(|process| process.pid).collect();
        }
        let prefix_found = with_environment(&value[..value.len() - 1]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [i32::try_from(child.id()).unwrap()]);
        assert_eq!(prefix_found, []);
    }
}
