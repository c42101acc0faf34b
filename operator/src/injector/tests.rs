//! What the tests of several modules share, and those of the settings.

use std::sync::Arc;

use serde_json::{Value, json};

use super::cache::Known;
use super::select::Binding;
use super::*;

pub(super) fn settings() -> Settings {
    Settings::new(
        "https://sealpod-api-server.sealpod.svc:7100",
        "registry.test/sealpod-sidecar:1",
        "IfNotPresent",
        log(),
    )
    .unwrap()
}

fn log() -> SidecarLog {
    SidecarLog {
        filter: "info".to_owned(),
        format: Format::Json,
    }
}

/// A namespace with these bindings and no rules.
pub(super) fn known(bindings: &[Binding]) -> Known {
    let mut bindings: Vec<_> = bindings.iter().cloned().map(Arc::new).collect();
    bindings.sort_by(|a, b| a.name.cmp(&b.name));
    Known {
        bindings: Arc::new(bindings),
        ..Known::default()
    }
}

pub fn binding(name: &str) -> Binding {
    Binding {
        name: name.to_owned(),
        mount_path: format!("/var/run/secrets/sealpod.dev/{name}"),
        size_limit: Ok(16 << 20),
        pod_selector: None,
        service_accounts: vec![],
        signals: None,
        calls: false,
        not_ready: None,
        unavailable: vec![],
        changes: None,
        deleted: false,
    }
}

/// A pod as the API server sends it, with the fields of `spec` added to a plain one.
pub(super) fn pod_with(spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-", "labels": {"sealpod.dev/inject": "true"}},
        "spec": {
            "containers": [{
                "name": "app",
                "image": "registry.test/app:1",
                "resources": {},
                "volumeMounts": [
                    {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
                ],
            }],
            "restartPolicy": "Always",
            "securityContext": {},
            "volumes": [{"name": "token", "projected": {"sources": []}}],
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[test]
fn the_server_url_gives_the_port_and_nothing_else() {
    let port =
        |url| Settings::new(url, "image", "Always", log()).map(|settings| (settings.server_port, settings.server_url));
    assert_eq!(
        port("https://a.test:7100"),
        Ok((7100, "https://a.test:7100".to_owned()))
    );
    assert_eq!(port("https://a.test/"), Ok((443, "https://a.test".to_owned())));
    assert_eq!(port("http://[::1]:80"), Ok((80, "http://[::1]:80".to_owned())));
    for bad in [
        "",
        "a.test",
        "ftp://a.test",
        "https://a.test/x",
        "https://u:p@a.test",
        "https://a.test?x",
        "https://",
    ] {
        assert!(matches!(port(bad), Err(SettingsError::ServerUrl(_))), "{bad}");
    }
}

#[test]
fn a_wrong_setting_is_named() {
    let error = Settings::new("https://a.test", "image", "Sometimes", log())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--sidecar-image-pull-policy") && error.contains("Sometimes"),
        "{error}"
    );
    assert_eq!(
        Settings::new("https://a.test", " ", "Never", log()),
        Err(SettingsError::Image)
    );
}

/// Figures are of a whole process, so each test that asks for them runs itself in one of its own.
pub(super) mod memory {
    const ALONE: &str = "SEALPOD_TEST_ALONE";
    const GROWN: &str = "grown by ";

    /// Bytes by which that test makes a process of its own grow; none where this is that process.
    pub fn grown_in_a_process_of(test: &str) -> Option<usize> {
        if std::env::var_os(ALONE).is_some() {
            return None;
        }
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone
            .args(["--exact", test, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let grown = printed.lines().find_map(|line| line.split_once(GROWN)).unwrap().1;
        Some(grown.split(' ').next().unwrap().parse().unwrap())
    }

    /// What the process takes at this moment.
    pub fn now() -> usize {
        figure("VmRSS:")
    }

    /// By how much it has been more since.
    pub fn tell_growth(since: usize) {
        println!("{GROWN}{} bytes", figure("VmHWM:").saturating_sub(since));
    }

    fn figure(name: &str) -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit())
            .parse::<usize>()
            .unwrap()
            * 1024
    }
}
