//! The process: its configuration, its exit codes, TLS, and its end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use sealpod_core::wire::audit::AuditEntry;

use crate::mail_server::{MailServer, Security};
use crate::process::{Process, command, dev, run, text};
use crate::support::ADMIN;

#[test]
fn bad_configuration_is_exit_code_2_with_every_fault() {
    let output = command(&["serve", "--listen", "nowhere"])
        .env("SEALPOD_SMTP_PORTS", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let faults = text(&output.stderr);
    for setting in [
        "SEALPOD_LISTEN",
        "SEALPOD_MASTER_KEY_FILE",
        "SEALPOD_ADMIN_API_KEY_FILE",
        "SEALPOD_SMTP_PORTS",
    ] {
        assert!(faults.contains(setting), "{faults}");
    }
    assert_eq!(run(&["serve", "--nonsense"]).status.code(), Some(2));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = run(&["dev", "--listen", "0.0.0.0:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!data.exists(), "nothing is written for a server that will not start");
}

#[test]
fn a_generated_key_is_64_hex_characters_and_another_each_time() {
    let keys = [(); 2].map(|()| text(&run(&["key", "generate"]).stdout));
    assert!(
        keys.iter()
            .all(|key| key.len() == 65 && key.trim().bytes().all(|b| b.is_ascii_hexdigit()))
    );
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_openapi_document_is_printed() {
    let document: serde_json::Value = serde_json::from_slice(&run(&["openapi"]).stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/management/applications"]["post"].is_object());
}

#[tokio::test]
async fn a_server_that_is_not_asked_to_serves_no_description() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dev(dir.path()).args(["--docs", "off"]));
    for path in [
        "openapi.json",
        "docs",
        "docs/start.js",
        "docs/swagger-ui.js",
        "docs/swagger-ui.css",
    ] {
        let response = reqwest::get(format!("http://{}/{path}", server.address)).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    }
    let output = run(&["dev", "--docs", "perhaps", "--data-dir", dir.path().to_str().unwrap()]);
    assert!(text(&output.stderr).contains("SEALPOD_DOCS: must be `on` or `off`"));
}

#[tokio::test]
async fn dev_serves_with_its_own_keys_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&mut dev(dir.path()));
    let admin = std::fs::read_to_string(dir.path().join("admin.key")).unwrap();
    let url = format!("http://{}/api/management/applications", server.address);
    let client = reqwest::Client::new();
    assert_eq!(
        client
            .get(&url)
            .bearer_auth(admin.trim())
            .send()
            .await
            .unwrap()
            .status(),
        200
    );

    // A second server on the same file refuses, and harms nothing.
    let second = dev(dir.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("another server uses"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(
        client
            .get(&url)
            .bearer_auth(admin.trim())
            .send()
            .await
            .unwrap()
            .status(),
        200
    );

    let (code, took) = server.stop();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");

    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, master) = (format!("sqlite:{}", path("sealpod.db")), path("master.key"));
    let output = run(&["audit", "verify", "--database-url", &url, "--master-key-file", &master]);
    assert!(
        output.status.success() && text(&output.stdout).contains(": ok, "),
        "{}",
        text(&output.stderr)
    );
    let (admin, other) = (path("admin.key"), path("other.key"));
    let check = [
        "check",
        "--database-url",
        &url,
        "--master-key-file",
        &master,
        "--admin-api-key-file",
        &admin,
    ];
    assert!(run(&check).status.success());
    std::fs::write(&other, text(&run(&["key", "generate"]).stdout)).unwrap();
    let output = run(&["migrate", "--database-url", &url, "--master-key-file", &other]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("master key"), "{}", text(&output.stderr));
}

/// Signs in at a server that is started like this, with the code that `code` finds.
async fn sign_in(command: &mut Command, code: impl AsyncFnOnce(&mut BufReader<std::process::ChildStderr>) -> String) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = line_with(&mut log, "serving address=");
    let address = line
        .split_once("address=")
        .unwrap()
        .1
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let server = Process {
        child,
        address,
        probes: String::new(),
        log: None,
    };
    let url = |path: &str| format!("http://{}/api/auth/{path}", server.address);
    let client = reqwest::Client::new();
    let email = "root@example.com";
    let login = client.post(url("login")).json(&serde_json::json!({"email": email}));
    assert_eq!(login.send().await.unwrap().status(), 200);
    let code = code(&mut log).await;
    let verify = client
        .post(url("verify"))
        .json(&serde_json::json!({"email": email, "code": code}));
    let begun: serde_json::Value = verify.send().await.unwrap().json().await.unwrap();
    let me = client.get(url("me")).bearer_auth(begun["token"].as_str().unwrap());
    let me: serde_json::Value = me.send().await.unwrap().json().await.unwrap();
    assert_eq!((&me["email"], &me["is_superadmin"]), (&email.into(), &true.into()));
    assert_eq!(server.stop().0, Some(0));
}

fn line_with(log: &mut impl BufRead, what: &str) -> String {
    let mut lines = log.lines().map(Result::unwrap);
    lines.find(|line| line.contains(what)).expect("the log says so")
}

#[tokio::test]
async fn dev_prints_login_codes_into_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = dev(dir.path());
    sign_in(command.env("SEALPOD_SUPERADMINS", "root@example.com"), async |log| {
        let line = line_with(log, "login code");
        line.split("code=\"").nth(1).unwrap()[..6].to_owned()
    })
    .await;
}

#[tokio::test]
async fn dev_sends_login_codes_to_a_mail_server_that_it_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mail = MailServer::start(Security::Implicit).await;
    let mut command = dev(dir.path());
    command
        .env("SEALPOD_SUPERADMINS", "root@example.com")
        .env("SEALPOD_SMTP_URL", mail.url())
        .env("SEALPOD_SMTP_FROM", crate::mail_server::FROM);
    sign_in(&mut command, async |_| mail.next().await.code()).await;
}

#[tokio::test]
async fn serve_speaks_tls_and_both_versions_of_http() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let master = text(&run(&["key", "generate"]).stdout);
    let mut serve = command(&["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    serve
        .env("SEALPOD_MASTER_KEY", master.trim())
        .env("SEALPOD_ADMIN_API_KEY", ADMIN)
        .env("SEALPOD_DATABASE_URL", format!("sqlite:{}", path("sealpod.db")))
        .env("SEALPOD_TLS_CERT", path("tls.crt"))
        .env("SEALPOD_TLS_KEY", path("tls.key"))
        .env("SEALPOD_API_SERVER_SERVICE_HOST", "10.0.0.1");
    let server = Process::start(&mut serve);
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}/api/management/applications");
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = || {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        reqwest::Client::builder()
            .tls_certs_only([root.clone()])
            .resolve("localhost", address)
    };
    for (client, version) in [
        (client().build().unwrap(), reqwest::Version::HTTP_2),
        (client().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        let reply = client.get(&url).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.version()), (200, version));
    }
}

#[tokio::test]
async fn the_log_has_the_heads_of_the_chains_and_an_export_leads_up_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(&mut dev(dir.path()));
    let admin = std::fs::read_to_string(dir.path().join("admin.key")).unwrap();
    let url = format!("http://{}/api", server.address);
    let client = reqwest::Client::new();
    for (path, body) in [
        ("orgs", r#"{"name":"acme"}"#),
        ("management/applications", r#"{"name":"shop"}"#),
    ] {
        let call = client.post(format!("{url}/{path}")).bearer_auth(admin.trim());
        let reply = call
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(reply.status(), 201);
    }
    let call = client.delete(format!("{url}/orgs/acme")).bearer_auth(admin.trim());
    assert_eq!(call.send().await.unwrap().status(), 204);
    let log = server.stop_for_log();

    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, master) = (format!("sqlite:{}", path("sealpod.db")), path("master.key"));
    let audit = |arguments: &[&str]| {
        let store = ["--database-url", &url, "--master-key-file", &master];
        run(&[&["audit"], arguments, &store].concat())
    };
    let export = |arguments: &[&str]| -> Vec<AuditEntry> {
        let output = audit(&[&["export"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = text(&output.stdout);
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let instance = export(&["--instance"]);
    let made = instance
        .iter()
        .find(|entry| entry.resource_name.as_deref() == Some("acme"));
    let deleted = made.unwrap().resource_id.unwrap().to_string();
    let verified = text(&audit(&["verify"]).stdout);
    for entries in [
        &instance,
        &export(&["--organization", "default"]),
        &export(&["--organization", &deleted]),
    ] {
        assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64));
        let head = &entries.last().unwrap().hash;
        assert!(verified.contains(&format!("head {head}")), "{verified}");
        assert!(log.contains("audit chain head") && log.contains(head.as_str()), "{log}");
    }
    let third = instance[2].created_at.to_string();
    assert_eq!(export(&["--instance", "--since", &third]), instance[2..]);
    assert_eq!(export(&["--instance", "--until", &third]), instance[..3]);
    for (wrong, code) in [
        (&["export"][..], 2),
        (&["export", "--instance", "--organization", "default"], 2),
        (&["export", "--instance", "--since", "yesterday"], 2),
        (&["export", "--organization", "acme"], 1),
    ] {
        assert_eq!(audit(wrong).status.code(), Some(code), "{wrong:?}");
    }
}

#[test]
fn output_that_nobody_reads_to_its_end_is_no_error_to_speak_of() {
    let mut openapi = command(&["openapi"]);
    let mut child = openapi
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // More than a pipe takes at once.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), String::new()));
}
