//! The commands of docs/OPERATIONS.md, read from there and run in their order.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::process::{serve, text};
use crate::store_support::{OLDER_KEY, older_database};
use crate::support::held_port;

const PAGE: &str = include_str!("../../../docs/OPERATIONS.md");

/// What stands in for the machine: a service manager with one service, and the key generator of age.
const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
case $1 in
start)
    : > "$DATA/../log"
    sealpod-api-server serve >> "$DATA/../log" 2>&1 &
    echo $! > "$DATA/../pid"
    for _ in $(seq 300); do grep -q ' serving address=' "$DATA/../log" && exit 0; sleep 0.1; done
    cat "$DATA/../log" >&2; exit 1 ;;
stop)
    kill -TERM "$(cat "$DATA/../pid")"
    while kill -0 "$(cat "$DATA/../pid")" 2> /dev/null; do sleep 0.1; done ;;
esac
"#;
const AGE_KEYGEN: &str = "#!/bin/sh\ncp \"$PREPARED\" \"$2\"\n";

/// Of the blocks for Kubernetes: what they mean by `kubectl`, for one server with its volume and the Secret of its key. Whether
/// Kubernetes means the same by it is for a cluster to say.
const KUBECTL: &str = r#"#!/bin/bash
# One namespace with one server, its volume and one Secret.
set -eu
state="$DATA/.."
[ "$1" = --namespace ] && shift 2
case "$*" in
"exec sealpod-recovery "*)
    shift 4
    cd "$DATA"
    exec "$@" ;;
"exec "*)
    shift 4
    args=()
    for arg in "$@"; do
        arg=${arg//\/var\/lib\/sealpod/$DATA}
        case $arg in --ca-file|/etc/sealpod/tls/ca.crt) ;; *) args+=("${arg/https:\/\/localhost:7100/$S}") ;; esac
    done
    exec sealpod-api-server "${args[@]}" ;;
"get pod "*) echo node ;;
"get secret "*) base64 < "$SEALPOD_MASTER_KEY_FILE" ;;
"patch secret "*)
    sed 's/.*"\([^"]*\)"}}$/\1/' | base64 --decode > "$state/key.new"
    mv "$state/key.new" "$SEALPOD_MASTER_KEY_FILE" ;;
"get statefulset "*) ;;
"create secret generic sealpod-offline-key "*) mkdir "$state/offline"; cp "${5#--from-file=}" "$state/offline/" ;;
"create secret generic sealpod-master-key "*) cat master.key ;;
"apply --server-side "*)
    cat > "$state/key.new"
    mv "$state/key.new" "$SEALPOD_MASTER_KEY_FILE" ;;
"apply "*)
    cat > "$state/pod"
    sed -n 's/.*command: \[sh, -ec, "\(.*\)"\]/\1/p' "$state/pod" | sed "s|/data|$DATA|" > "$state/script" ;;
"wait --for=condition=Ready pod/sealpod-recovery "*)
    eval "args=($(sed -n 's/^ *args: \[\(.*\)\]$/\1/p' "$state/pod" | tr , ' '))"
    args=("${args[@]//\/var\/lib\/sealpod/$DATA}")
    sealpod-api-server "${args[@]//\/etc\/offline/$state/offline}" > "$state/printed" ;;
"wait --for=jsonpath"*) sh -ec "$(cat "$state/script")" > "$state/printed" ;;
"logs "*) cat "$state/printed" ;;
"scale "*=0)
    # What cannot start is in no process.
    ! kill -0 "$(cat "$state/pid")" 2> /dev/null || systemctl stop sealpod ;;
"scale "*=1) systemctl start sealpod ;;
"wait --for=delete"* | "delete "*) ;;
"port-forward "*) exec sleep 60 ;;
*) echo "kubectl $*: unknown" >&2; exit 1 ;;
esac
"#;
/// Of an older database.
const SECRET: &str = "/api/orgs/default/projects/shop/envs/prod/secrets/db";
/// Sets that secret.
const SET: &str = r#"
AUTH="Authorization: Bearer $(head -n 1 "$SEALPOD_ADMIN_API_KEY_FILE")"
curl -sS -o /dev/null -X POST "$S/api/orgs/default/projects" -H "$AUTH" -H 'Content-Type: application/json' -d '{"name": "shop"}'
curl -sSf -o /dev/null -X PUT "$S$SECRET" -H "$AUTH" -H 'Content-Type: application/json' -d '{"value": "of a secret"}'
"#;
const CURL: &str = r#"#!/bin/bash
exec /usr/bin/curl "${@/http:\/\/localhost:7101/$P}"
"#;

fn tool(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The page, in two: what is done to a server of this version, and how one comes to it and goes back.
fn parts() -> (&'static str, &'static str) {
    PAGE.split_once("\n## Upgrade\n").unwrap()
}

/// The blocks of a page in this language.
fn commands(page: &str, language: &str) -> String {
    let opening = format!("```{language}\n");
    let blocks = page.split(opening.as_str()).skip(1);
    blocks.map(|block| block.split("```").next().unwrap()).collect()
}

/// What the commands print, of a server that runs meanwhile, on what is `prepared` in the folder of its database.
fn run(commands: &str, prepare: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (tools, data) = (dir.path().join("bin"), dir.path().join("data"));
    std::fs::create_dir(&tools).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_sealpod-api-server"),
        tools.join("sealpod-api-server"),
    )
    .unwrap();
    for (name, content) in [
        ("systemctl", SYSTEMCTL),
        ("age-keygen", AGE_KEYGEN),
        ("kubectl", KUBECTL),
        ("curl", CURL),
    ] {
        tool(&tools, name, content);
    }
    let identity = age::x25519::Identity::generate();
    let prepared = dir.path().join("prepared");
    {
        use age::secrecy::ExposeSecret;
        let secret = identity.to_string();
        let text = format!("# public key: {}\n{}\n", identity.to_public(), secret.expose_secret());
        std::fs::write(&prepared, text).unwrap();
    }
    let ((_held, listen), (_also, probes)) = (held_port(), held_port());
    let script = format!("set -euo pipefail\nsystemctl start sealpod\n{commands}\nsystemctl stop sealpod\n");
    prepare(&data);
    let server = serve(&data);
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display()))
        .env("PREPARED", prepared)
        .env("DATA", &data)
        .env("IMAGE", "small")
        .env("SECRET", SECRET)
        .env("OLD", "1")
        .env("S", format!("http://127.0.0.1:{listen}"))
        .env("P", format!("http://127.0.0.1:{probes}"))
        .env("SEALPOD_LISTEN", format!("127.0.0.1:{listen}"))
        .env("SEALPOD_METRICS_LISTEN", format!("127.0.0.1:{probes}"))
        .env("SEALPOD_BACKUP_URL", format!("file://{}/backups", dir.path().display()))
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    if let Ok(pid) = std::fs::read_to_string(dir.path().join("pid")) {
        // Where a command failed, the server still runs.
        drop(Command::new("kill").arg(pid.trim()).output());
    }
    assert!(
        output.status.success(),
        "{said}\n{}",
        std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()
    );
    said
}

#[test]
fn every_command_of_the_page_works_in_its_order() {
    let commands = commands(parts().0, "sh");
    assert!(commands.lines().count() > 30);
    let said = run(&format!("{SET}{commands}"), |_| ());
    for what in [
        "the database in it is sound and opens",
        "restored to",
        "secrets and configurations that are not the same",
        "everything is under the current key",
        "ok",
        // Behind the recovery without the master key.
        r#""value":"of a secret""#,
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// This version stands in for the older one as well, and upgrades anew what it goes back to.
#[test]
fn an_upgrade_goes_as_the_page_says_and_so_does_the_way_back() {
    let commands = commands(parts().1, "sh");
    // Somebody sets a value between the two blocks.
    let (upgrade, back) = commands.split_once("systemctl stop sealpod\nmkdir").unwrap();
    let said = run(&format!("{upgrade}{SET}systemctl stop sealpod\nmkdir{back}"), |data| {
        std::fs::write(data.join("sealpod.db"), older_database(1)).unwrap();
        std::fs::write(data.join("master.key"), OLDER_KEY).unwrap();
        std::fs::write(data.join("admin.key"), crate::support::ADMIN).unwrap();
    });
    assert!(said.contains("has the schema of this version"), "{said}");
    // As it was before the upgrade: what was set behind it is in the newer database.
    assert!(said.contains(r#""value":"new""#), "{said}");
}

#[test]
fn every_command_for_kubernetes_does_to_the_server_what_the_page_says() {
    let commands = commands(PAGE, "bash");
    assert!(commands.lines().count() > 50);
    // The master key is lost between two blocks, and the server does not start any more.
    let (before, recovery) = commands.split_once("recover() {").unwrap();
    let lost = "systemctl stop sealpod; rm \"$SEALPOD_MASTER_KEY_FILE\"";
    let (recovery, back) = recovery
        .rsplit_once("kubectl --namespace sealpod scale statefulset sealpod-api-server --replicas=0\n")
        .unwrap();
    let read = r#"curl -sSf "$S$SECRET" -H "$AUTH"; echo " is what it reads now""#;
    // This version stands in for the older one as well.
    let copied = "systemctl stop sealpod; cp \"$DATA/sealpod.db\" \"$DATA/sealpod.db.schema-1\"; OLD=1";
    let said = run(
        &format!(
            "{SET}sealpod-api-server backup create\n{before}{lost}\nrecover() {{{recovery}{read}\n{copied}\n{back}{read}\n"
        ),
        |_| (),
    );
    assert_eq!(said.matches(r#""value":"of a secret""#).count(), 2, "{said}");
    for what in [
        "the database in it is sound and opens",
        "restored to",
        "everything is under the current key",
        " unused: 0 values, 1 backups need it; keep it",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
}
