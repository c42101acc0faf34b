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
