//! A signal to the main process of another container of the pod, which shares its process namespace.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getpid, pidfd_open, pidfd_send_signal};
use sealpod_core::injection::CONTAINER_VARIABLE;

use super::{Heard, NotifyError};
use crate::clock;

/// Bytes of an environment that are looked at: the kernel's own limit of one is far below.
const MAX_ENVIRONMENT: u64 = 4 * 1024 * 1024;
/// Bytes of a list of mounts that are looked at: some hundred bytes each.
const MAX_MOUNTS: u64 = 1024 * 1024;
/// In a process namespace that a pod shares, the one that holds it: `pause`. It may have any user.
const HOLDER: i32 = 1;
/// One of `/proc/PID/stat`: a hundredth of a second wherever Kubernetes runs.
const TICK: Duration = Duration::from_millis(10);
/// Time that a program has for the handler of its signal. One that has none yet dies of it, and before the program itself
/// there is the runtime's, which starts it.
const STARTING: Duration = Duration::from_secs(10);

/// Sends the signal of that name to the main process of that container, unless it began after `swapped`, when readers
/// found the new files, as time since the node started.
pub(super) fn signal(container: &str, name: &str, swapped: Duration) -> Result<Heard, NotifyError> {
    let signal = of_name(name).ok_or_else(|| NotifyError::NoSignal(name.to_owned()))?;
    let (proc, own) = (Path::new("/proc"), getpid().as_raw_pid());
    let uid = geteuid().as_raw();
    let main = main_process(proc, container, own, uid)?;
    let pid = main.pid;
    match main.stage(swapped, clock::now()) {
        Stage::Knows => return Ok(Heard::Reads),
        Stage::Starts => return Err(NotifyError::Starting { pid }),
        Stage::Runs => {}
    }
    let gone = |cause| NotifyError::Signal { pid, cause };
    let handle = pidfd_open(
        Pid::from_raw(pid).expect("a number of a process is above 0"),
        PidfdFlags::empty(),
    );
    let handle = handle.map_err(gone)?;
    // Held from here on. Before, the number may have become another process's.
    if main_process(proc, container, own, uid)? != main {
        return Err(gone(rustix::io::Errno::SRCH));
    }
    pidfd_send_signal(&handle, signal).map_err(gone)?;
    Ok(Heard::Sent)
}

/// The main process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Main {
    pid: i32,
    /// In ticks, as [`Process::started`].
    started: u64,
}

/// What a main process has to do with a change.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// It began after the change.
    Knows,
    /// It may have read the former files, and may not await a signal yet.
    Starts,
    Runs,
}

impl Main {
    fn stage(self, swapped: Duration, now: Duration) -> Stage {
        let ticks = |time: Duration| u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX);
        // Within one tick nobody knows what was first.
        if self.started > ticks(swapped) {
            Stage::Knows
        } else if ticks(now).saturating_sub(self.started) < ticks(STARTING) {
            Stage::Starts
        } else {
            Stage::Runs
        }
    }
}

/// A process that none of the pod has started: the main one of a container, or one that was put beside it later, as by
/// an exec probe or `kubectl exec`.
#[derive(Debug)]
struct Process {
    pid: i32,
    /// Ticks since the node started.
    started: u64,
    uid: Option<u32>,
    /// What the kernel counts it under, by which the processes of one container belong together; empty where that is not
    /// to be seen.
    group: String,
    /// The container that it is of, by its mounts; by its environment on a node where mounts tell nothing.
    container: Option<String>,
}

impl Process {
    fn is_with(&self, other: &Self) -> bool {
        self.pid == other.pid || (!self.group.is_empty() && self.group == other.group)
    }
}

/// The oldest process of the container: what is put into one later is younger. A process belongs to the container that
/// it names, or else that a process beside it does. On a node where mounts tell nothing and nobody names the container, it
/// is the only one of our user that no container claims: where they tell, the container is not there.
fn main_process(proc: &Path, container: &str, own: i32, uid: u32) -> Result<Main, NotifyError> {
    let place = Place::of(&proc.join(own.to_string()));
    let all = processes(proc, place.as_ref());
    let (ourselves, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(|process| process.pid == own);
    let is_ours = |process: &Process| ourselves.iter().any(|own| process.is_with(own));
    let is_anothers = |process: &Process| {
        let own = ourselves.iter().any(|own| own.container == process.container);
        process.container.is_some() && !own
    };
    // Some runtimes show the same for all: that tells nothing.
    if others
        .iter()
        .any(|process| is_ours(process) && (process.pid == HOLDER || is_anothers(process)))
    {
        for process in &mut others {
            process.group.clear();
        }
    }
    others.retain(|process| !is_ours(process));
    others.sort_unstable_by_key(|process| (process.started, process.pid));
    let name = |process: &Process| {
        let beside = || others.iter().filter(|other| other.is_with(process));
        let own = process.container.as_deref();
        own.or_else(|| beside().find_map(|other| other.container.as_deref()))
            .map(str::to_owned)
    };
    let main = |process: &Process| Main {
        pid: process.pid,
        started: process.started,
    };
    if let Some(process) = others
        .iter()
        .find(|process| name(process).as_deref() == Some(container))
    {
        return Ok(main(process));
    }
    let is_unclaimed = |process: &&Process| {
        place.is_none() && process.pid != HOLDER && process.uid == Some(uid) && name(process).is_none()
    };
    let unclaimed: Vec<_> = others.iter().filter(is_unclaimed).collect();
    match unclaimed.split_first() {
        None => Err(NotifyError::NoProcess {
            container: container.to_owned(),
        }),
        Some((first, rest)) if rest.iter().all(|process| process.is_with(first)) => Ok(main(first)),
        Some(_) => Err(NotifyError::Ambiguous {
            container: container.to_owned(),
            pids: unclaimed.iter().map(|process| process.pid).collect(),
        }),
    }
}

/// Every process that no other has started.
fn processes(proc: &Path, place: Option<&Place>) -> Vec<Process> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids: BTreeSet<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.into_iter().filter_map(|pid| process(proc, pid, place)).collect()
}

fn process(proc: &Path, pid: i32, place: Option<&Place>) -> Option<Process> {
    let directory = proc.join(pid.to_string());
    // pid, the command in parentheses (which may hold some itself), then from the third field on state, parent, ….
    let stat = fs::read(directory.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if *fields.get(1)? != "0" {
        return None;
    }
    let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Some(Process {
        pid,
        started: fields.get(19)?.parse().ok()?,
        // Real, effective, saved, of the file system.
        uid: uid.and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok()),
        group: fs::read_to_string(directory.join("cgroup")).unwrap_or_default(),
        container: place.map_or_else(|| by_environment(&directory), |place| place.container(&directory)),
    })
}

/// The kernel shows an environment to processes of the same user and group only, and a program may give itself any.
fn by_environment(process: &Path) -> Option<String> {
    let mut environment = zeroize::Zeroizing::new(Vec::new());
    let file = fs::File::open(process.join("environ")).ok()?;
    file.take(MAX_ENVIRONMENT).read_to_end(&mut environment).ok()?;
    let mut entries = environment.split(|b| *b == 0);
    entries.find_map(|entry| {
        let name = entry.strip_prefix(CONTAINER_VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(name).into_owned())
    })
}

/// Where the kubelet keeps the files of this pod's containers. The kernel shows mounts to everybody, and one of each
/// container says which it is: the kubelet mounts the file for its last message from `…/pods/<UID of the
/// pod>/containers/<name of the container>/<a name of its own>`. Of a container's own volumes nothing lies there, so none
/// can say that it is another.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    device: String,
    /// `…/pods/<UID of the pod>` within its file system.
    pod: String,
}

impl Place {
    /// That of this process's own mounts; none where they tell nothing.
    fn of(process: &Path) -> Option<Self> {
        only(marks(&mounts(process)?)).map(|(place, _)| place)
    }

    /// The container that a process is of.
    fn container(&self, process: &Path) -> Option<String> {
        let mounts = mounts(process)?;
        let ours = marks(&mounts).filter(|(place, _)| place == self);
        only(ours).map(|(_, name)| name)
    }
}

/// The lines of a process's mounts that name a container: where, and which.
fn marks(mounts: &str) -> impl Iterator<Item = (Place, String)> {
    mounts.lines().filter_map(|line| {
        // Number, parent's number, device, path within the file system, where it is mounted, ….
        let mut fields = line.split(' ').skip(2);
        let (device, path) = (fields.next()?, fields.next()?);
        let mut from_end = path.rsplitn(4, '/').skip(1);
        let (name, containers, pod) = (from_end.next()?, from_end.next()?, from_end.next()?);
        let is_pod = containers == "containers" && pod.rsplit('/').nth(1) == Some("pods");
        let place = Place {
            device: device.to_owned(),
            pod: pod.to_owned(),
        };
        is_pod.then(|| (place, name.to_owned()))
    })
}

/// What all of them say.
fn only<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

fn mounts(process: &Path) -> Option<String> {
    let file = fs::File::open(process.join("mountinfo")).ok()?;
    let mut text = String::new();
    file.take(MAX_MOUNTS).read_to_string(&mut text).ok()?;
    Some(text)
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
mod tests;
