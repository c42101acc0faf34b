mod brought;
mod key_secrets;
mod years;

use serde_json::{Value, json};

use super::*;
use crate::bootstrap;
use crate::cli::BootstrapArgs;
use crate::controller::scope::Scope;
use crate::fake::FakeApi;
use crate::secrets::TLS_TYPE;

const CA: &str = "/api/v1/namespaces/sealpod/secrets/server-ca";
const TLS: &str = "/api/v1/namespaces/sealpod/secrets/server-tls";
const SERVER: &str = "server.sealpod.svc";
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

fn start() -> Timestamp {
    "2026-11-03T12:00:00Z".parse().unwrap()
}

fn after(duration: Duration) -> Timestamp {
    start().checked_add(duration).unwrap()
}

fn keeper_for(api: &FakeApi, lives: Lives) -> Keeper {
    keeper_in(api, &["shop"], lives)
}

fn keeper_in(api: &FakeApi, namespaces: &[&str], lives: Lives) -> Keeper {
    let settings = Settings {
        namespace: "sealpod".to_owned(),
        authority: "server-ca".to_owned(),
        certificate: "server-tls".to_owned(),
        dns_names: vec![SERVER.to_owned(), "localhost".to_owned()],
    };
    let cluster = api.clone();
    let scope = Scope::new(namespaces.iter().map(|&one| one.to_owned()).collect());
    let holders = Holders::new(api.client(), scope, move || cluster.secret_text(TLS, AUTHORITIES));
    Keeper::new(api.client(), settings, holders, lives)
}

/// Does what is missing by then.
async fn keep(keeper: &Keeper, now: Timestamp) -> Result<Ends, KeepError> {
    let mut ends = Ends::default();
    keeper.keep(now, &mut ends).await.map(|()| ends)
}

async fn step(keeper: &Keeper, now: Timestamp) -> bool {
    keeper.step(now, &mut Ends::default()).await.unwrap()
}

fn keeper(api: &FakeApi) -> Keeper {
    keeper_for(api, Lives::default())
}

/// A binding that was never reconciled.
fn with_a_new_binding(api: &FakeApi) {
    let binding = json!({"metadata": {"name": "new", "namespace": "shop", "uid": "n"}});
    api.put("/apis/sealpod.dev/v1alpha1/namespaces/shop/secretbindings/new", binding);
}

async fn bootstrap(api: &FakeApi, now: Timestamp) {
    let args = BootstrapArgs {
        namespace: "sealpod".to_owned(),
        master_key_secret: None,
        admin_key_secret: None,
        ca_secret: Some("server-ca".to_owned()),
        tls_secret: Some("server-tls".to_owned()),
        server_dns_names: vec![SERVER.to_owned(), "localhost".to_owned()],
    };
    let secrets = Api::namespaced(api.client(), "sealpod");
    bootstrap::make_all(&secrets, args, now).await.unwrap();
}

async fn installed() -> FakeApi {
    let api = FakeApi::default();
    bootstrap(&api, start()).await;
    with_a_new_binding(&api);
    api.take_calls();
    api
}

/// As the bootstrap leaves it, with these lives.
fn installed_for(lives: Lives) -> FakeApi {
    let api = FakeApi::default();
    let ca = certs::new_authority_for(SERVER_AUTHORITY, start(), lives.authority).unwrap();
    let leaf = certs::issue(&ca, &[SERVER.to_owned()], start(), lives.leaf).unwrap();
    let put = |path: &str, name: &str, data| {
        let secret = secrets::new(name, TLS_TYPE, data);
        api.put(path, serde_json::to_value(secret).unwrap());
    };
    put(CA, "server-ca", authority::data(&ca, &ca.certificate));
    put(TLS, "server-tls", authority::data(&leaf, &ca.certificate));
    with_a_new_binding(&api);
    api
}

fn text(api: &FakeApi, path: &str, key: &str) -> String {
    api.secret_text(path, key).unwrap()
}

fn trusted(api: &FakeApi) -> String {
    text(api, TLS, AUTHORITIES)
}

fn shown(api: &FakeApi) -> String {
    text(api, TLS, CERTIFICATE)
}

fn check(api: &FakeApi, at: Timestamp) {
    for name in [SERVER, "localhost"] {
        certs::check_server_and_roots(&shown(api), &trusted(api), name, at).unwrap();
    }
    certs::check_pair(&secrets::pair(&secret(api, TLS)).unwrap()).unwrap();
}

fn secret(api: &FakeApi, path: &str) -> Secret {
    serde_json::from_value(api.get(path).unwrap()).unwrap()
}

#[tokio::test]
async fn after_the_bootstrap_it_only_reads_and_says_when_both_end() {
    let api = installed().await;
    let ends = keep(&keeper(&api), after(DAY)).await.unwrap();
    assert_eq!(api.take_writes(), [""; 0]);
    assert_eq!(ends.serving, Some(after(Lives::default().leaf)));
    assert_eq!(ends.authority, Some(after(certs::AUTHORITY_LIFE)));
}

#[tokio::test]
async fn controllers_that_work_at_the_same_time_agree() {
    let api = installed().await;
    let now = after(certs::AUTHORITY_LIFE);
    let keepers = [keeper(&api), keeper(&api), keeper(&api)];
    let ends = futures::future::join_all(keepers.iter().map(|keeper| keep(keeper, now))).await;
    let ends: Vec<Ends> = ends.into_iter().map(Result::unwrap).collect();
    assert!(ends.iter().all(|other| *other == ends[0]));
    check(&api, now);
}

#[tokio::test]
async fn what_a_clock_of_another_time_has_made_is_replaced_at_once() {
    for wrong in [DAY * 400, DAY * 365 * 12] {
        let api = installed().await;
        for day in 0..4 {
            keep(&keeper(&api), after(wrong + DAY * day)).await.unwrap();
        }
        keep(&keeper(&api), start()).await.unwrap();
        check(&api, start());
        for hour in 0..100 {
            keep(&keeper(&api), after(HOUR * hour)).await.unwrap();
            check(&api, after(HOUR * hour));
        }
        assert_eq!(
            certs::count(&trusted(&api)),
            1,
            "nothing of the other time stays trusted"
        );
    }
}

#[tokio::test]
async fn a_secret_of_somebody_else_or_none_is_told_and_nothing_is_written() {
    let edit = |path: &'static str, edit: fn(&mut Value)| async move {
        let api = installed().await;
        let mut secret = api.get(path).unwrap();
        edit(&mut secret);
        api.put(path, secret);
        let error = keep(&keeper(&api), after(certs::AUTHORITY_LIFE)).await.unwrap_err();
        assert_eq!(api.take_writes(), [""; 0]);
        error.to_string()
    };
    for (path, name) in [(CA, "server-ca"), (TLS, "server-tls")] {
        let error = edit(path, |secret| secret["metadata"]["labels"] = json!({})).await;
        assert!(
            error.contains(&format!("Secret {name} was not made by Sealpod")),
            "{error}"
        );
        let api = installed().await;
        api.remove(path);
        let error = keep(&keeper(&api), start()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("Secret {name} is not there")), "{error}");
        assert_eq!(api.take_writes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_refused_write_is_told_without_what_was_to_be_written_and_tried_again() {
    let api = installed().await;
    api.refuse(&format!("PUT {TLS}"), 403, "Forbidden");
    let late = after(DAY * 61);
    let error = keep(&keeper(&api), late).await.unwrap_err().to_string();
    assert_eq!(error, "Secret server-tls: as a test wants it (Forbidden)");
    api.allow();
    keep(&keeper(&api), late).await.unwrap();
    check(&api, late);
}

#[tokio::test]
async fn what_others_added_to_a_secret_stays() {
    let api = installed().await;
    let mut secret = api.get(TLS).unwrap();
    secret["metadata"]["annotations"] = json!({"team": "a"});
    api.put(TLS, secret);
    api.edit_secret(TLS, "more", "kept");
    keep(&keeper(&api), after(certs::AUTHORITY_LIFE)).await.unwrap();
    assert_eq!(text(&api, TLS, "more"), "kept");
    assert_eq!(api.get(TLS).unwrap()["metadata"]["annotations"]["team"], "a");
}

/// Somebody's CA instead of ours.
fn bring(api: &FakeApi, certificate: &str, key: &str) {
    api.edit_secret(CA, CERTIFICATE, certificate);
    api.edit_secret(CA, KEY, key);
}

#[tokio::test]
async fn by_a_clock_that_is_not_that_of_the_kubernetes_api_nothing_is_written() {
    let api = installed().await;
    let due = after(DAY * 61);
    for (theirs, words) in [
        (HOUR * (61 * 24 - 1), "60 min ahead of"),
        (HOUR * (61 * 24 + 1), "60 min behind"),
    ] {
        api.set_clock(after(theirs));
        let error = keep(&keeper(&api), due).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("set the clocks"), "{error}");
        assert_eq!(api.take_writes(), [""; 0]);
        // Nothing is missing, so nothing is asked.
        keep(&keeper(&api), after(DAY)).await.unwrap();
    }
    api.set_clock(after(DAY * 61 + HOUR / 2));
    keep(&keeper(&api), due).await.unwrap();
    check(&api, due);
}

#[tokio::test]
async fn what_cannot_be_renewed_is_shown_by_the_metrics_with_what_could_be_read() {
    let mut registry = prometheus_client::registry::Registry::default();
    let metrics = Metrics::new(&mut registry);
    let shown = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("controller_certificate_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let row = |name: &str, until: Timestamp| {
        format!(
            "controller_certificate_expiry_timestamp_seconds{{certificate=\"{name}\"}} {}",
            until.as_second()
        )
    };
    let api = installed().await;
    let ca = api.get(CA).unwrap();
    api.remove(CA);
    let mut told = Told::default();
    assert_eq!(keeper(&api).turn(after(DAY), &metrics, &mut told).await, RETRY);
    let serving = row("serving", after(Lives::default().leaf));
    assert_eq!(
        shown(),
        [serving.clone(), "controller_certificate_failing 1".to_owned()]
    );
    api.put(CA, ca);
    assert_eq!(keeper(&api).turn(after(DAY), &metrics, &mut told).await, LOOK_EVERY);
    let ca = row("ca", after(certs::AUTHORITY_LIFE));
    let all = shown();
    assert!(all.contains(&ca) && all.contains(&serving), "{all:?}");
    assert!(all.contains(&"controller_certificate_failing 0".to_owned()), "{all:?}");
}
