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
        changes_at: None,
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
