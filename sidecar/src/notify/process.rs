//! A signal to the main process of another container of the pod, which shares its process namespace.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use sealpod_core::injection::CONTAINER_VARIABLE;

use super::NotifyError;

/// Bytes of an environment that are looked at: the kernel's own limit of one is far below.
const MAX_ENVIRONMENT: u64 = 4 * 1024 * 1024;

/// Sends the signal of that name to the main process of that container.
pub(super) fn signal(container: &str, name: &str) -> Result<(), NotifyError> {
    let signal = of_name(name).ok_or_else(|| NotifyError::NoSignal(name.to_owned()))?;
    signal_in(Path::new("/proc"), container, signal)
}

/// The main process is the one that no process of the pod has started and that knows itself to be of that container; what
/// it has started itself may know that too.
fn signal_in(proc: &Path, container: &str, signal: Signal) -> Result<(), NotifyError> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        // Held from here on, so that the number cannot become another process's before the signal is sent.
        let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        let process = proc.join(pid.to_string());
        if parent(&process) == Some(0) && is_of(&process, container) {
            return pidfd_send_signal(&handle, signal).map_err(|cause| NotifyError::Signal { pid, cause });
        }
    }
    Err(NotifyError::NoProcess {
        container: container.to_owned(),
    })
}

/// `/proc/<pid>/stat`: pid, the command in parentheses (which may hold some itself), state, parent.
fn parent(process: &Path) -> Option<i32> {
    let stat = fs::read(process.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn is_of(process: &Path, container: &str) -> bool {
    use std::io::Read as _;
    let Ok(file) = fs::File::open(process.join("environ")) else {
        return false;
    };
    let mut environment = zeroize::Zeroizing::new(Vec::new());
    if file.take(MAX_ENVIRONMENT).read_to_end(&mut environment).is_err() {
        return false;
    }
    let wanted = format!("{CONTAINER_VARIABLE}={container}");
    environment.split(|b| *b == 0).any(|entry| entry == wanted.as_bytes())
}

/// Signals that a program may have a use for; those that it cannot catch are not among them.
pub(crate) fn of_name(name: &str) -> Option<Signal> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    Some(match name {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        "CONT" => Signal::CONT,
        "ALRM" => Signal::ALARM,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(proc: &Path, pid: u32, parent: i32, command: &str, environment: &str) {
        let directory = proc.join(pid.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("stat"), format!("{pid} ({command}) S {parent} 1 1 0")).unwrap();
        fs::write(directory.join("environ"), environment.replace(' ', "\0")).unwrap();
    }

    #[test]
    fn a_main_process_is_known_by_its_parent_and_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        process(dir.path(), 1, 0, "pause", "PATH=/");
        process(dir.path(), 7, 0, "a) b (c", "A=1 SEALPOD_CONTAINER=app B=2");
        process(dir.path(), 9, 7, "worker", "SEALPOD_CONTAINER=app");
        let is_main = |pid: u32, container: &str| {
            let process = dir.path().join(pid.to_string());
            parent(&process) == Some(0) && is_of(&process, container)
        };
        assert!(is_main(7, "app"));
        for (pid, container) in [(1, "app"), (9, "app"), (7, "ap"), (7, "app2"), (8, "app")] {
            assert!(!is_main(pid, container), "{pid} {container}");
        }
    }

    #[test]
    fn a_container_that_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = signal_in(dir.path(), "app", Signal::HUP).unwrap_err();
        assert!(error.to_string().contains(r#"SEALPOD_CONTAINER="app""#), "{error}");
        assert!(matches!(signal("app", "SIGNONSENSE"), Err(NotifyError::NoSignal(_))));
        assert_eq!(
            (of_name("SIGHUP"), of_name("USR1")),
            (Some(Signal::HUP), Some(Signal::USR1))
        );
        assert_eq!((of_name("SIGKILL"), of_name("")), (None, None));
    }
}
