//! Commands with values in their environment.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use sealpod_sidecar::agent::Until;
use serde_json::{Value, json};

use crate::fake::{Fake, KEY, secrets};
use crate::pod::{Pod, binding, eventually};

fn exec(options: &[&str], command: &[&str]) -> Command {
    let mut exec = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
    exec.arg("exec").args(options).arg("--").args(command);
    exec.env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    exec
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn delivered(answer: Value) -> (Fake, Pod, String) {
    let fake = Fake::start(answer);
    let pod = Pod::new(&fake.url());
    assert!(pod.init().await);
    let mount = pod.mount("db").to_str().unwrap().to_owned();
    (fake, pod, mount)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_command_takes_the_place_of_exec_with_the_values_in_its_environment() {
    let (_fake, _pod, mount) = delivered(secrets([("db-password", "it's\ntwo lines"), ("9lives", "cat")])).await;
    let script =
        "printf '%s|%s|%s|%s|' \"$DB_PASSWORD\" \"$_9LIVES\" \"$SEALPOD_SETTINGS\" \"$0\"; ulimit -Sc; echo $$; exit 7";
    let mut command = exec(&["--from", &mount], &["sh", "-c", script, "zero"]);
    let child = command.env("SEALPOD_SETTINGS", "x").spawn().unwrap();
    let pid = child.id();
    let done = child.wait_with_output().unwrap();
    let core = getrlimit(Resource::Core)
        .current
        .map_or("unlimited".to_owned(), |bytes| (bytes / 1024).to_string());
    let said = text(&done.stdout);
    let want = format!("it's\ntwo lines|cat||zero|{core}\n{pid}\n");
    // Shells count core files in blocks of 512 or 1024 bytes; 0 and unlimited are the same in both.
    assert!(
        said == want || !matches!(core.as_str(), "0" | "unlimited"),
        "{said} {want}"
    );
    assert_eq!(done.status.code(), Some(7));
    assert!(done.stderr.is_empty(), "{}", text(&done.stderr));
}

#[tokio::test]
async fn a_signal_ends_the_command_as_it_would_without_exec() {
    use std::os::unix::process::ExitStatusExt as _;
    let (_fake, _pod, mount) = delivered(secrets([("a", "1")])).await;
    for watch in [&[][..], &["--watch", "restart"]] {
        let options = [&["--from", &mount][..], watch].concat();
        let script = "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
        let mut child = exec(&options, &["sh", "-c", script]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        signal(&child, Signal::TERM);
        assert_eq!(lines.next().unwrap().unwrap(), "term", "{watch:?}");
        assert_eq!(child.wait().unwrap().code(), Some(9), "{watch:?}");

        let done = output(exec(&options, &["sh", "-c", "kill -9 $$"])).await;
        let ended = (done.status.code(), done.status.signal());
        assert!(
            matches!(ended, (None, Some(9)) | (Some(137), None)),
            "{watch:?} {ended:?}"
        );
    }
}

#[tokio::test]
async fn its_own_failures_have_codes_of_their_own() {
    let (_fake, _pod, mount) = delivered(secrets([("a", "1"), ("ld-preload", "x"), ("path", "y")])).await;
    let from = ["--from", &mount];
    for (options, command, code, said) in [
        (
            &["--from", "/nonexistent"][..],
            &["true"][..],
            125,
            "is the binding mounted here",
        ),
        (&from, &["true"], 125, "changes how programs start"),
        (
            &["--from", &mount, "--only", "absent"],
            &["true"],
            125,
            "\"absent\" is named by --only",
        ),
        (
            &["--from", &mount, "--only", "a"],
            &["nonexistent-command"],
            127,
            "cannot run",
        ),
        (&["--from", &mount, "--only", "a"], &["/"], 126, "cannot run"),
        (&["--nonsense", "x"], &["true"], 125, "no option"),
        (
            &[
                "--url",
                "http://127.0.0.1:1",
                "--key-file",
                "/nonexistent",
                "--project",
                "p",
                "--environment",
                "e",
            ],
            &["true"],
            125,
            "/nonexistent",
        ),
    ] {
        let done = output(exec(options, command)).await;
        let stderr = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{options:?}: {stderr}");
        assert!(stderr.contains(said), "{options:?}: {stderr}");
    }
    let named = output(exec(
        &["--from", &mount, "--only", "ld-preload"],
        &["sh", "-c", "echo done"],
    ))
    .await;
    assert_eq!(text(&named.stdout), "done\n", "named literally, it is meant");
}

#[tokio::test]
async fn on_a_laptop_the_values_come_from_the_server() {
    let fake = Fake::start(secrets([("db.password", "canary"), ("other", "x")]));
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    let url = fake.url();
    let options = [
        "--url",
        &url,
        "--key-file",
        key.to_str().unwrap(),
        "--project",
        "shop",
        "--environment",
        "local",
        "--only",
        "db.*",
    ];
    let script = "echo $DB_PASSWORD; env; cat /proc/$$/cmdline";
    let done = output(exec(&options, &["sh", "-c", script])).await;
    assert!(text(&done.stdout).starts_with("canary\n"), "{}", text(&done.stderr));
    assert!(!text(&done.stdout).contains(KEY), "the key is not for the command");
    assert!(
        fake.seen()[0].query.starts_with("pattern=db."),
        "{}",
        fake.seen()[0].query
    );
    fake.key("another");
    let done = output(exec(&options, &["true"])).await;
    assert_eq!(done.status.code(), Some(125));
    assert!(
        text(&done.stderr).contains("does not accept the credential"),
        "{}",
        text(&done.stderr)
    );
}

/// Runs `script` under `--watch`; gives the child and what it says.
fn watched(mount: &str, watch: &str, script: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = exec(&["--from", mount, "--watch", watch], &["sh", "-c", script])
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map(|line| line.unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_runs_the_command_anew_or_is_a_signal() {
    let (fake, pod, mount) = delivered(secrets([("a", "1")])).await;
    let running = pod.start(Until::Stopped);
    let (mut anew, mut lines) = watched(&mount, "restart", "echo $A; while :; do sleep 0.05; done");
    let script = "trap 'echo hup' HUP; echo $A; while :; do sleep 0.05; done";
    let (mut told, mut heard) = watched(&mount, "signal", script);
    assert_eq!(
        (lines.next().unwrap(), heard.next().unwrap()),
        ("1".to_owned(), "1".to_owned())
    );
    fake.answer(secrets([("a", "2")]));
    pod.shows("a", Some("2")).await;
    assert_eq!(tokio::task::block_in_place(|| lines.next().unwrap()), "2");
    assert_eq!(tokio::task::block_in_place(|| heard.next().unwrap()), "hup");
    for child in [&mut anew, &mut told] {
        signal(child, Signal::TERM);
        assert_eq!(
            child.wait().unwrap().code(),
            Some(143),
            "the shell was ended by SIGTERM"
        );
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_to_end_is_not_run_anew() {
    // The change comes while the command ends, and the signal while the command is ended for a change.
    for (ending, signal_first) in [(Signal::TERM, true), (Signal::INT, false), (Signal::QUIT, false)] {
        let (fake, pod, mount) = delivered(secrets([("a", "1")])).await;
        let running = pod.start(Until::Stopped);
        let script = "trap 'echo told; sleep 2; exit 9' TERM INT QUIT; echo $A; while :; do sleep 0.05; done";
        let (mut child, mut lines) = watched(&mount, "restart", script);
        let mut said = || tokio::task::block_in_place(|| lines.next());
        assert_eq!(said().as_deref(), Some("1"));
        if signal_first {
            signal(&child, ending);
            assert_eq!(said().as_deref(), Some("told"));
            fake.answer(secrets([("a", "2")]));
            pod.shows("a", Some("2")).await;
        } else {
            fake.answer(secrets([("a", "2")]));
            assert_eq!(said().as_deref(), Some("told"), "to be run anew");
            signal(&child, ending);
        }
        let rest: Vec<_> = std::iter::from_fn(said).filter(|line| line != "told").collect();
        assert_eq!(rest, Vec::<String>::new(), "{ending:?} {signal_first}");
        assert_eq!(tokio::task::block_in_place(|| child.wait().unwrap().code()), Some(9));
        running.stop().await;
    }
}

/// Runs a shell command under `exec` on a terminal of its own, which util-linux makes; gives what it says there.
fn on_a_terminal(mount: &str, watch: &str, script: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let program = env!("CARGO_BIN_EXE_sealpod-sidecar");
    let line = format!("exec {program} exec --from {mount} {watch} -- sh -c '{script}'");
    // Where the tests run in the background, a shell has them ignore SIGINT, and no shell below can trap it then.
    let mut terminal = Command::new("env");
    terminal
        .args([
            "--default-signal=INT,QUIT",
            "script",
            "--quiet",
            "--return",
            "--command",
            &line,
            "/dev/null",
        ])
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (
        child,
        lines.map_while(Result::ok).map(|line| line.trim_end().to_owned()),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_has_the_terminal_and_its_signals_once() {
    if Command::new("script").arg("--version").output().is_err() {
        return crate::pod::passed_over("script of util-linux is not installed");
    }
    let (_fake, _pod, mount) = delivered(secrets([("a", "1")])).await;
    for watch in ["", "--watch restart"] {
        // Only the group of processes in the foreground may read from a terminal.
        let script = "test -t 0 && test -t 1 && echo ready && read said && echo \"it reads $said\"; exit 7";
        let (mut child, mut lines) = on_a_terminal(&mount, watch, script);
        let mut keyboard = child.stdin.take().unwrap();
        assert!(
            tokio::task::block_in_place(|| lines.any(|line| line == "ready")),
            "{watch:?}"
        );
        keyboard.write_all(b"a word\n").unwrap();
        assert!(
            tokio::task::block_in_place(|| lines.any(|line| line == "it reads a word")),
            "{watch:?}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(7), "{watch:?}");

        // Ctrl-C is for all of them, and comes to the command once.
        // It waits for the first as long as a busy machine takes, and then half a second for one too many.
        let script = "trap \"told=1; echo told\" INT; echo ready; n=0; \
            while [ -z \"$told\" ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n + 1)); done; \
            n=0; while [ $n -lt 10 ]; do sleep 0.05; n=$((n + 1)); done; exit 9";
        let (mut child, mut lines) = on_a_terminal(&mount, watch, script);
        let mut keyboard = child.stdin.take().unwrap();
        assert!(
            tokio::task::block_in_place(|| lines.any(|line| line == "ready")),
            "{watch:?}"
        );
        keyboard.write_all(b"\x03").unwrap();
        let told = tokio::task::block_in_place(|| lines.filter(|line| line.ends_with("told")).count());
        assert_eq!((told, child.wait().unwrap().code()), (1, Some(9)), "{watch:?}");
    }
}

#[tokio::test]
async fn a_container_of_the_pod_runs_the_copy_of_the_binary() {
    let fake = Fake::start(secrets([("a", "canary")]));
    let mut pod = Pod::new(&fake.url());
    let dir = tempfile::tempdir().unwrap();
    pod.config.settings.exec_directory = Some(dir.path().to_str().unwrap().to_owned());
    let settings = serde_json::to_string(&pod.config.settings).unwrap();
    // The copy is of the running program, so it has to be the program itself that runs.
    let mut init = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
    init.arg("init")
        .env("SEALPOD_SETTINGS", settings)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(output(init).await.status.success());
    let copy = dir.path().join("exec");
    let mut command = Command::new(copy);
    command.args(["--from", pod.mount("db").to_str().unwrap(), "--", "sh", "-c", "echo $A"]);
    assert_eq!(text(&output(command).await.stdout), "canary\n");
}

#[tokio::test]
async fn probes_can_be_commands() {
    let fake = Fake::stopped(secrets([("a", "1")]));
    let mut pod = Pod::new(&fake.url());
    let ask = |pod: &Pod, what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
        command
            .arg(what)
            .env("SEALPOD_SETTINGS", serde_json::to_string(&pod.config.settings).unwrap());
        output(command)
    };
    // Without a port, the files tell.
    let code = ask(&pod, "readyz").await.status.code();
    assert_eq!((code, ask(&pod, "healthz").await.status.code()), (Some(1), Some(0)));
    pod.config.settings.health_port = Some(crate::agent::port());
    let running = pod.start(Until::Stopped);
    let mut ready = ask(&pod, "readyz").await;
    for _ in 0..100 {
        if text(&ready.stderr).contains("its files are not there yet") {
            break;
        }
        ready = ask(&pod, "readyz").await;
    }
    assert_eq!(ready.status.code(), Some(1), "{}", text(&ready.stderr));
    fake.up();
    pod.shows("a", Some("1")).await;
    eventually("the gate", || pod.is_open()).await;
    let ready = ask(&pod, "readyz").await;
    assert_eq!((ready.status.code(), text(&ready.stdout)), (Some(0), "ok\n".to_owned()));
    let metrics = text(&ask(&pod, "metrics").await.stdout);
    assert!(metrics.contains("sealpod_sidecar_secret_age_seconds"), "{metrics}");
    running.stop().await;
}

#[tokio::test]
async fn check_shows_every_file_and_a_template_that_is_none() {
    let mut answer = secrets([("user", "canary")]);
    answer["configurations"] = json!({"level": "canary"});
    let fake = Fake::start(answer);
    let mut file = binding(Value::Null);
    file["configurations"] = json!({"path": "conf", "format": "yaml"});
    file["files"] = json!([
        {"path": "app.env", "values": {"format": "env", "include": [{"name": "user"}]}},
        {"path": "app.ini", "template": "\n{{ secrets.user "},
    ]);
    let pod = Pod::with(&fake.url(), &["db"], &file);
    let mut check = Command::new(env!("CARGO_BIN_EXE_sealpod-sidecar"));
    check
        .arg("check")
        .env("SEALPOD_SETTINGS", serde_json::to_string(&pod.config.settings).unwrap());
    let done = output(check).await;
    let said = text(&done.stdout);
    assert_eq!(done.status.code(), Some(1), "{said}");
    for line in [
        "  user (440) <- \"user\", version 1\n",
        "  conf (440) <- 1 configurations as yaml\n",
        "  app.env (440) <- env of \"user\"\n",
        "  app.ini (440) <- template\n",
        "  wrong: \"app.ini\" cannot be made: line 2 of the template: syntax error",
    ] {
        assert!(said.contains(line), "{line:?}: {said}");
    }
    assert!(!said.contains("canary") && !Path::new(&pod.mount("db")).join("user").exists());
}
