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
mod tests {
    use super::*;

    const OWN: i32 = 5;
    const UID: u32 = 1000;

    /// A `/proc` of a pod: `pause`, this program, and what a test adds.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Self {
            let proc = Self(tempfile::tempdir().unwrap());
            proc.add(1, 0, 10, "/pause", "PATH=/");
            proc.add(OWN, 0, 20, "/sidecar", "");
            proc
        }

        fn add(&self, pid: i32, parent: i32, started: u64, group: &str, environment: &str) {
            self.add_of(UID, pid, parent, started, group, environment);
        }

        fn add_of(&self, uid: u32, pid: i32, parent: i32, started: u64, group: &str, environment: &str) {
            let directory = self.0.path().join(pid.to_string());
            fs::create_dir(&directory).unwrap();
            let stat = format!("{pid} (a) b (c) S {parent} 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 {started} 99 9");
            fs::write(directory.join("stat"), stat).unwrap();
            fs::write(directory.join("status"), format!("Name:\tx\nUid:\t0\t{uid}\t0\t0\n")).unwrap();
            fs::write(directory.join("environ"), environment.replace(' ', "\0")).unwrap();
            if !group.is_empty() {
                fs::write(directory.join("cgroup"), format!("0::/..{group}\n")).unwrap();
            }
        }

        /// Mounts as containerd makes them, with the kubelet's files of that container.
        fn mounts(&self, pid: i32, container: &str) {
            self.mounts_from(pid, "8:1 /lib/kubelet/pods/6d61-9", container);
        }

        fn mounts_from(&self, pid: i32, place: &str, container: &str) {
            let mounts = format!(
                "694 607 0:52 / / ro,relatime - overlay overlay rw\n\
                 703 694 8:1 /lib/kubelet/pods/6d61-9/volumes/kubernetes.io~empty-dir/data /data rw - ext4 /dev/sda rw\n\
                 704 694 8:1 /lib/kubelet/pods/6d61-9/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda rw\n\
                 705 694 {place}/containers/{container}/0a1b2c3d /dev/termination-log rw - ext4 /dev/sda rw\n\
                 706 694 8:1 /docker/containers/0a1b/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda rw\n"
            );
            fs::write(self.0.path().join(pid.to_string()).join("mountinfo"), mounts).unwrap();
        }

        fn main(&self, container: &str) -> Result<i32, NotifyError> {
            main_process(self.0.path(), container, OWN, UID).map(|main| main.pid)
        }
    }

    #[test]
    fn a_main_process_is_known_by_its_parent_and_its_environment() {
        let proc = Proc::new();
        proc.add_of(0, 7, 0, 30, "/app", "A=1 SEALPOD_CONTAINER=app B=2");
        proc.add(9, 7, 31, "/app", "SEALPOD_CONTAINER=app");
        proc.add(10, 0, 30, "/other", "SEALPOD_CONTAINER=app2");
        assert_eq!(proc.main("app").unwrap(), 7);
        assert_eq!(proc.main("app2").unwrap(), 10);
        assert!(matches!(proc.main("ap"), Err(NotifyError::NoProcess { .. })));
    }

    #[test]
    fn a_probe_or_a_shell_in_the_container_is_not_its_main_process() {
        for group in ["/app", ""] {
            let proc = Proc::new();
            // Numbers come round again: the younger process may have the lower one.
            proc.add(3, 0, 90, group, "SEALPOD_CONTAINER=app");
            proc.add(7, 0, 30, group, "SEALPOD_CONTAINER=app");
            assert_eq!(proc.main("app").unwrap(), 7, "{group:?}");
        }
        let proc = Proc::new();
        proc.add(3, 0, 90, "/app", "SEALPOD_CONTAINER=app");
        proc.add(7, 0, 30, "/app", "nginx: master process");
        proc.add(8, 0, 25, "/other", "SEALPOD_CONTAINER=other");
        assert_eq!(proc.main("app").unwrap(), 7, "it belongs to the shell beside it");
    }

    #[test]
    fn a_main_process_that_overwrote_its_environment_is_the_one_that_nobody_else_claims() {
        for group in ["/app", ""] {
            let proc = Proc::new();
            proc.add(7, 0, 30, group, "nginx: master process");
            proc.add(8, 0, 31, "/other", "SEALPOD_CONTAINER=other");
            proc.add(9, 0, 40, "/other", "");
            proc.add(11, 0, 50, "/sidecar", "");
            proc.add_of(0, 12, 0, 60, "/stranger", "");
            proc.add(13, 7, 60, group, "nginx: worker process");
            assert_eq!(proc.main("app").unwrap(), 7, "{group:?}");
            assert_eq!(proc.main("other").unwrap(), 8);
        }
    }

    #[test]
    fn a_runtime_that_shows_one_group_for_all_hides_nobody() {
        let proc = Proc(tempfile::tempdir().unwrap());
        proc.add(1, 0, 10, "/", "PATH=/");
        proc.add(OWN, 0, 20, "/", "");
        proc.add(7, 0, 30, "/", "SEALPOD_CONTAINER=other");
        proc.add(8, 0, 31, "/", "nginx: master process");
        proc.add(9, 0, 32, "/", "SEALPOD_CONTAINER=third");
        assert_eq!(proc.main("third").unwrap(), 9);
        assert_eq!(proc.main("app").unwrap(), 8);
    }

    #[test]
    fn two_that_nobody_claims_are_not_chosen_between() {
        for (one, two) in [("/one", "/two"), ("", "")] {
            let proc = Proc::new();
            proc.add(7, 0, 30, one, "");
            proc.add(8, 0, 31, two, "");
            let error = proc.main("app").unwrap_err().to_string();
            assert!(error.contains("7, 8") && error.contains("onChange.http"), "{error}");
        }
        let proc = Proc::new();
        proc.add(7, 0, 30, "/app", "");
        proc.add(8, 0, 31, "/app", "");
        assert_eq!(proc.main("app").unwrap(), 7, "both are of one container");
    }

    #[test]
    fn containers_of_one_user_are_told_apart_by_their_mounts_where_no_environment_is_to_be_read() {
        for [pause, own, one, two] in [["/pause", "/own", "/one", "/two"], [""; 4], ["/"; 4]] {
            let proc = Proc(tempfile::tempdir().unwrap());
            proc.add(1, 0, 10, pause, "PATH=/");
            proc.add(OWN, 0, 20, own, "");
            proc.add(7, 0, 30, one, "nginx: master process");
            proc.add(8, 0, 31, two, "");
            proc.add(6, 0, 90, one, "");
            proc.mounts(7, "app");
            proc.mounts(8, "other");
            proc.mounts(6, "app");
            proc.mounts(OWN, "sealpod");
            assert_eq!(proc.main("app").unwrap(), 7, "{one:?}");
            assert_eq!(proc.main("other").unwrap(), 8, "{one:?}");
            assert!(matches!(proc.main("third"), Err(NotifyError::NoProcess { .. })));
        }
    }

    #[test]
    fn what_a_process_says_of_itself_counts_for_nothing_where_mounts_tell() {
        for group in ["/other", ""] {
            let proc = Proc::new();
            proc.mounts(OWN, "sealpod");
            proc.add(7, 0, 30, group, "SEALPOD_CONTAINER=app");
            proc.mounts(7, "other");
            assert!(
                matches!(proc.main("app"), Err(NotifyError::NoProcess { .. })),
                "{group:?}"
            );
            assert_eq!(proc.main("other").unwrap(), 7);
            // Nor do mounts of its own making.
            for (pid, place) in [
                (8, "0:77 /lib/kubelet/pods/6d61-9"),
                (
                    9,
                    "8:1 /lib/kubelet/pods/6d61-9/volumes/kubernetes.io~empty-dir/data/pods/6d61-9",
                ),
            ] {
                proc.add(pid, 0, 20, "", "SEALPOD_CONTAINER=app");
                proc.mounts_from(pid, place, "app");
            }
            assert!(
                matches!(proc.main("app"), Err(NotifyError::NoProcess { .. })),
                "{group:?}"
            );
            proc.add(10, 0, 90, "/app", "");
            proc.mounts(10, "app");
            assert_eq!(proc.main("app").unwrap(), 10);
        }
    }

    #[test]
    fn nobody_else_is_signalled_while_the_container_is_down() {
        let proc = Proc::new();
        proc.add(7, 0, 30, "/unknown", "");
        assert_eq!(proc.main("app").unwrap(), 7, "where mounts tell nothing");
        proc.mounts(OWN, "sealpod");
        assert!(matches!(proc.main("app"), Err(NotifyError::NoProcess { .. })));
    }

    #[test]
    fn a_process_that_began_after_the_change_knows_it_and_one_that_begins_is_given_time() {
        let main = Main { pid: 7, started: 1_000 };
        let at = |swapped, now| main.stage(Duration::from_millis(swapped), Duration::from_millis(now));
        assert_eq!(at(9_999, 10_000), Stage::Knows);
        assert_eq!(at(9_999, 99_000), Stage::Knows);
        assert_eq!(at(10_000, 10_500), Stage::Starts, "which was first is not known");
        assert_eq!(at(15_000, 19_999), Stage::Starts);
        assert_eq!(at(15_000, 20_000), Stage::Runs);
        assert_eq!(at(15_000, 0), Stage::Starts);
    }

    #[test]
    fn processes_are_dated_by_our_clock() {
        let before = clock::now();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let stat = fs::read_to_string(path).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let started = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
        let started = TICK * started.parse().unwrap();
        assert!(
            before < started + TICK && started <= clock::now(),
            "{before:?} {started:?}"
        );
    }

    #[test]
    fn mounts_that_name_several_containers_name_none() {
        let proc = Proc::new();
        proc.add(7, 0, 30, "/app", "");
        proc.mounts(7, "app");
        let path = proc.0.path().join("7");
        let by_mounts = |path: &Path| Place::of(path)?.container(path);
        assert_eq!(by_mounts(&path).as_deref(), Some("app"));
        let agent = "1 2 8:1 /pods/6d61-9/containers/{}/x /x rw - ext4 /dev/sda rw\n";
        let both = ["app", "other"].map(|name| agent.replace("{}", name)).concat();
        fs::write(path.join("mountinfo"), both).unwrap();
        assert_eq!(by_mounts(&path), None);
        fs::write(
            path.join("mountinfo"),
            "1 2 8:1 / / rw\n\n3\n4 5 8:1 pods/a/containers/b c\n",
        )
        .unwrap();
        assert_eq!(by_mounts(&path), None);
    }

    #[test]
    fn a_container_that_is_not_there_is_told() {
        let error = Proc::new().main("app").unwrap_err();
        assert!(error.to_string().contains(r#"the container "app""#), "{error}");
        assert!(matches!(
            signal("app", "SIGNONSENSE", Duration::ZERO),
            Err(NotifyError::NoSignal(_))
        ));
        assert_eq!(
            (of_name("SIGHUP"), of_name("USR1")),
            (Some(Signal::HUP), Some(Signal::USR1))
        );
        assert_eq!((of_name("SIGKILL"), of_name("")), (None, None));
    }
}
