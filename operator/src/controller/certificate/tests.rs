use std::collections::VecDeque;

use serde_json::{Value, json};

use super::evaluate::{DELIVERED as SPREAD, OVERLAP};
use super::*;
use crate::bootstrap;
use crate::certs::tests::authorities_that_sign_in_vain;
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

/// How the controller lives.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It looks every hour and does all there is to do.
    Steady,
    /// It is killed after each write and looks again within the hour.
    Killed,
    /// It is killed after each write and comes back after 30 hours.
    Away,
}

/// Days of it in steps of an hour: at each hour, whoever has what was to be trusted at any time of the day before takes
/// what the server shows; and who knows the latest takes what the server has shown at any time of the day before.
async fn live(way: Way, lives: Lives, days: u32) -> FakeApi {
    let api = installed_for(lives);
    let keeper = keeper_for(&api, lives);
    let hours_of_overlap = usize::try_from(OVERLAP.as_secs() / HOUR.as_secs()).unwrap();
    let mut past: VecDeque<(String, String)> = VecDeque::new();
    let mut next_look = 0;
    for hour in 0..days * 24 {
        let now = after(HOUR * hour);
        if hour >= next_look {
            match way {
                Way::Steady => drop(keep(&keeper, now).await.unwrap()),
                Way::Killed => drop(step(&keeper, now).await),
                Way::Away if step(&keeper, now).await => next_look = hour + 30,
                Way::Away => {}
            }
        }
        past.push_back((trusted(&api), shown(&api)));
        if past.len() > hours_of_overlap + 1 {
            past.pop_front();
        }
        let (latest, served) = past.back().unwrap();
        let mut last = (String::new(), String::new());
        for (known, was_served) in past
            .iter()
            .filter(|pair| hour % 24 == 0 || *pair != past.back().unwrap())
        {
            if (known, was_served) == (&last.0, &last.1) {
                continue;
            }
            for (certificate, authorities) in [(served, known), (was_served, latest)] {
                certs::check_server_and_roots(certificate, authorities, SERVER, now)
                    .unwrap_or_else(|error| panic!("{way:?}, hour {hour}: {error}"));
            }
            last = (known.clone(), was_served.clone());
        }
    }
    api
}

#[tokio::test]
async fn through_changes_of_its_ca_whoever_looked_within_a_day_trusts_what_the_server_shows() {
    let lives = Lives::new(Some(DAY * 45), Some(DAY * 15)).unwrap();
    let first = trusted(&installed_for(lives));
    for way in [Way::Steady, Way::Killed, Way::Away] {
        // The CA changes each 30 days.
        let api = live(way, lives, 75).await;
        let writes = api.take_writes();
        let of = |path: &str| writes.iter().filter(|call| call.ends_with(path)).count();
        assert_eq!(of(CA), 4, "{way:?}: two are made, two forgotten");
        assert!((10..=16).contains(&of(TLS)), "{way:?}: {}", of(TLS));
        assert_eq!(certs::count(&trusted(&api)), 1, "{way:?}");
        assert_eq!(certs::count(&text(&api, CA, AUTHORITIES)), 1, "{way:?}");
        assert!(!certs::holds(&trusted(&api), &first));
    }
}

#[tokio::test]
async fn years_with_the_usual_lives_end_with_another_ca_and_no_gap() {
    let api = installed().await;
    let (first, mut leaves) = (trusted(&api), 1);
    let mut last = shown(&api);
    for day in (0..7 * 366).step_by(3) {
        let now = after(DAY * day);
        keep(&keeper(&api), now).await.unwrap();
        if shown(&api) != last {
            leaves += 1;
            last = shown(&api);
        }
        check(&api, now);
    }
    assert!((42..=45).contains(&leaves), "one each 60 days: {leaves}");
    assert_eq!(certs::count(&trusted(&api)), 1);
    assert!(!certs::holds(&trusted(&api), &first), "after two thirds of ten years");
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
async fn a_ca_of_somebodys_own_is_rolled_out_and_the_bootstrap_may_run_at_any_time() {
    let api = installed().await;
    let own = certs::new_authority("our company", start()).unwrap();
    api.edit_secret(CA, CERTIFICATE, &own.certificate);
    api.edit_secret(CA, KEY, &own.key);
    let before = (shown(&api), trusted(&api));
    for hour in 0..100 {
        let now = after(HOUR * hour);
        keep(&keeper(&api), now).await.unwrap();
        bootstrap(&api, now).await;
        check(&api, now);
        assert_eq!(shown(&api) == before.0, hour < 24, "{hour}");
        assert_eq!(certs::holds(&trusted(&api), &before.1), hour < 48, "{hour}");
    }
    assert!(certs::holds(&trusted(&api), &own.certificate));
    assert_eq!(
        Some(certs::check_pair(&own).unwrap().until),
        keep(&keeper(&api), after(DAY)).await.unwrap().authority
    );
}

#[tokio::test]
async fn a_ca_that_is_added_by_hand_is_trusted_for_a_day() {
    let api = installed().await;
    let other = certs::new_authority("another", start()).unwrap().certificate;
    let before = trusted(&api);
    keep(&keeper(&api), after(DAY * 3)).await.unwrap();
    api.edit_secret(TLS, AUTHORITIES, &format!("{before}{other}"));
    for hour in 0..24 {
        keep(&keeper(&api), after(DAY * 3 + HOUR * hour)).await.unwrap();
        assert!(certs::holds(&trusted(&api), &other), "{hour}");
    }
    keep(&keeper(&api), after(DAY * 4)).await.unwrap();
    assert_eq!(trusted(&api), before);
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
async fn a_ca_that_signs_in_vain_is_told_and_what_is_shown_stays() {
    for own in authorities_that_sign_in_vain(start()) {
        let api = installed().await;
        bring(&api, &own.certificate, &own.key);
        // Also where a day has passed, and where nothing works any more.
        for now in [HOUR, DAY * 3, DAY * 91].map(after) {
            let error = keep(&keeper(&api), now).await.unwrap_err().to_string();
            assert!(
                error.contains("Secret server-ca: its CA cannot sign") && error.contains("put another CA"),
                "{error}"
            );
        }
        assert_eq!(api.take_writes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_ca_of_somebodys_own_that_is_of_no_use_is_told_and_never_replaced() {
    let own = certs::new_authority("our company", start()).unwrap();
    let later = certs::new_authority("our company", after(DAY)).unwrap();
    let ours = |api: &FakeApi| text(api, CA, CERTIFICATE);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (what, certificate, key) in [
        ("a key with a passphrase", Some(&own.certificate), encrypted),
        ("the certificate came first", Some(&own.certificate), ""),
        ("the key came first", None, own.key.as_str()),
        ("the key came first, with a passphrase", None, encrypted),
        ("not valid yet", Some(&later.certificate), &later.key),
        ("no certificate at all", Some(&"canary".to_owned()), &own.key),
    ] {
        let api = installed().await;
        let certificate = certificate.cloned().unwrap_or_else(|| ours(&api));
        bring(&api, &certificate, key);
        let error = keep(&keeper(&api), after(HOUR)).await.unwrap_err().to_string();
        assert!(
            error.contains("Secret server-ca: the CA in it is of no use"),
            "{what}: {error}"
        );
        assert!(!error.contains("canary"));
        assert_eq!(api.take_writes(), [""; 0], "{what}");
    }
}

#[tokio::test]
async fn a_ca_of_ours_that_is_lost_is_made_anew() {
    for (certificate, key) in [(None, ""), (Some(""), " \n"), (None, "damaged")] {
        let api = installed().await;
        let before = text(&api, CA, CERTIFICATE);
        bring(&api, certificate.unwrap_or(&before), key);
        keep(&keeper(&api), after(HOUR)).await.unwrap();
        assert_ne!(text(&api, CA, CERTIFICATE), before);
        check(&api, after(HOUR));
    }
}

const KEY_SECRET: &str = "/api/v1/namespaces/shop/secrets/db-sealpod-key";

/// A binding with its key Secret, which nobody reconciles.
fn with_a_binding(api: &FakeApi) {
    let binding = json!({"metadata": {
        "name": "db", "namespace": "shop", "uid": "u", "annotations": {"sealpod.dev/paused": "true"},
    }});
    api.put("/apis/sealpod.dev/v1alpha1/namespaces/shop/secretbindings/db", binding);
    let owner = json!({"apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBinding", "name": "db", "uid": "u", "controller": true});
    let ca = data_encoding::BASE64.encode(trusted(api).as_bytes());
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "data": {"ca.crt": ca, "api-key": "a2V5"},
        "metadata": {"name": "db-sealpod-key", "namespace": "shop", "uid": "s", "ownerReferences": [owner]},
    });
    api.put(KEY_SECRET, secret);
}

#[tokio::test]
async fn the_key_secret_of_a_binding_that_nobody_reconciles_has_a_new_ca_half_a_day_before_it_signs() {
    for away in [HOUR, DAY * 3, DAY * 10] {
        let api = installed().await;
        with_a_binding(&api);
        let own = certs::new_authority("our company", start()).unwrap();
        bring(&api, &own.certificate, &own.key);
        let (mut has_it, mut signs) = (None, None);
        keep(&keeper(&api), start()).await.unwrap();
        for hour in 0..100 {
            let now = after(away + HOUR * hour);
            keep(&keeper(&api), now).await.unwrap();
            let ca = text(&api, KEY_SECRET, AUTHORITIES);
            if certs::holds(&ca, &own.certificate) {
                has_it.get_or_insert(now);
            }
            if certs::check_server(&shown(&api), &own.certificate, SERVER, now).is_ok() {
                signs.get_or_insert(now);
            }
        }
        let waited = signs.unwrap().duration_since(has_it.unwrap()).unsigned_abs();
        assert_eq!(waited, SPREAD, "away for {away:?}");
        assert_eq!(
            text(&api, KEY_SECRET, "api-key"),
            "key",
            "nothing else in it is touched"
        );
    }
}

#[tokio::test]
async fn a_key_secret_that_cannot_be_written_holds_a_new_ca_up_and_is_told() {
    let api = installed().await;
    with_a_binding(&api);
    let own = certs::new_authority("our company", start()).unwrap();
    bring(&api, &own.certificate, &own.key);
    api.refuse(&format!("PATCH {KEY_SECRET}"), 403, "Forbidden");
    let before = shown(&api);
    keep(&keeper(&api), start()).await.unwrap();
    for hour in 12..12 + 7 * 24 {
        let error = keep(&keeper(&api), after(HOUR * hour)).await.unwrap_err().to_string();
        assert!(
            error.contains("1 key Secrets") && error.contains("shop/db: as a test wants it"),
            "{error}"
        );
        assert_eq!(shown(&api), before);
    }
    keep(&keeper(&api), after(HOUR * 12 + DAY * 7)).await.unwrap();
    assert_ne!(shown(&api), before, "not for ever");
}

#[tokio::test]
async fn a_namespace_that_cannot_be_listed_holds_up_no_other_and_a_new_ca_not_for_ever() {
    let api = installed().await;
    with_a_binding(&api);
    let own = certs::new_authority("our company", start()).unwrap();
    bring(&api, &own.certificate, &own.key);
    // In the order of names it comes first.
    api.refuse(
        "GET /apis/sealpod.dev/v1alpha1/namespaces/gone/secretbindings",
        403,
        "Forbidden",
    );
    let before = shown(&api);
    let keeper = keeper_in(&api, &["gone", "shop"], Lives::default());
    keep(&keeper, start()).await.unwrap();
    let error = keep(&keeper, after(HOUR * 12)).await.unwrap_err().to_string();
    assert!(
        error.contains("the SecretBindings of gone: as a test wants it"),
        "{error}"
    );
    assert!(certs::holds(&text(&api, KEY_SECRET, AUTHORITIES), &own.certificate));
    assert_eq!(shown(&api), before);
    keep(&keeper, after(HOUR * 12 + DAY * 7)).await.unwrap();
    assert_ne!(shown(&api), before);
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
