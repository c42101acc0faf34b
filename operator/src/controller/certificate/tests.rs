use std::collections::VecDeque;

use serde_json::{Value, json};

use super::evaluate::OVERLAP;
use super::*;
use crate::bootstrap;
use crate::cli::BootstrapArgs;
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
    let settings = Settings {
        namespace: "sealpod".to_owned(),
        authority: "server-ca".to_owned(),
        certificate: "server-tls".to_owned(),
        dns_names: vec![SERVER.to_owned(), "localhost".to_owned()],
    };
    Keeper::new(api.client(), settings, lives)
}

fn keeper(api: &FakeApi) -> Keeper {
    keeper_for(api, Lives::default())
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
                Way::Steady => drop(keeper.keep(now).await.unwrap()),
                Way::Killed => drop(keeper.step(now).await.unwrap()),
                Way::Away if keeper.step(now).await.unwrap().is_none() => next_look = hour + 30,
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
        assert!((8..=14).contains(&of(TLS)), "{way:?}: {}", of(TLS));
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
        keeper(&api).keep(now).await.unwrap();
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
    let ends = keeper(&api).keep(after(DAY)).await.unwrap();
    assert_eq!(api.take_writes(), [""; 0]);
    assert_eq!(ends.serving, after(Lives::default().leaf));
    assert_eq!(ends.authority, after(certs::AUTHORITY_LIFE));
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
        keeper(&api).keep(now).await.unwrap();
        bootstrap(&api, now).await;
        check(&api, now);
        assert_eq!(shown(&api) == before.0, hour < 24, "{hour}");
        assert_eq!(certs::holds(&trusted(&api), &before.1), hour < 48, "{hour}");
    }
    assert!(certs::holds(&trusted(&api), &own.certificate));
    assert_eq!(
        certs::check_pair(&own).unwrap().until,
        keeper(&api).keep(after(DAY)).await.unwrap().authority
    );
}

#[tokio::test]
async fn a_ca_that_is_added_by_hand_is_trusted_for_a_day() {
    let api = installed().await;
    let other = certs::new_authority("another", start()).unwrap().certificate;
    let before = trusted(&api);
    keeper(&api).keep(after(DAY * 3)).await.unwrap();
    api.edit_secret(TLS, AUTHORITIES, &format!("{before}{other}"));
    for hour in 0..24 {
        keeper(&api).keep(after(DAY * 3 + HOUR * hour)).await.unwrap();
        assert!(certs::holds(&trusted(&api), &other), "{hour}");
    }
    keeper(&api).keep(after(DAY * 4)).await.unwrap();
    assert_eq!(trusted(&api), before);
}

#[tokio::test]
async fn controllers_that_work_at_the_same_time_agree() {
    let api = installed().await;
    let now = after(certs::AUTHORITY_LIFE);
    let keepers = [keeper(&api), keeper(&api), keeper(&api)];
    let ends = futures::future::join_all(keepers.iter().map(|keeper| keeper.keep(now))).await;
    let ends: Vec<Ends> = ends.into_iter().map(Result::unwrap).collect();
    assert!(ends.iter().all(|other| *other == ends[0]));
    check(&api, now);
}

#[tokio::test]
async fn what_a_clock_of_another_time_has_made_is_replaced_at_once() {
    for wrong in [DAY * 400, DAY * 365 * 12] {
        let api = installed().await;
        for day in 0..4 {
            keeper(&api).keep(after(wrong + DAY * day)).await.unwrap();
        }
        keeper(&api).keep(start()).await.unwrap();
        check(&api, start());
        for hour in 0..100 {
            keeper(&api).keep(after(HOUR * hour)).await.unwrap();
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
        let error = keeper(&api).keep(after(certs::AUTHORITY_LIFE)).await.unwrap_err();
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
        let error = keeper(&api).keep(start()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("Secret {name} is not there")), "{error}");
        assert_eq!(api.take_writes(), [""; 0]);
    }
}

#[tokio::test]
async fn a_refused_write_is_told_without_what_was_to_be_written_and_tried_again() {
    let api = installed().await;
    api.refuse(&format!("PUT {TLS}"), 403, "Forbidden");
    let late = after(DAY * 61);
    let error = keeper(&api).keep(late).await.unwrap_err().to_string();
    assert_eq!(error, "Secret server-tls: as a test wants it (Forbidden)");
    api.allow();
    keeper(&api).keep(late).await.unwrap();
    check(&api, late);
}

#[tokio::test]
async fn what_others_added_to_a_secret_stays() {
    let api = installed().await;
    let mut secret = api.get(TLS).unwrap();
    secret["metadata"]["annotations"] = json!({"team": "a"});
    api.put(TLS, secret);
    api.edit_secret(TLS, "more", "kept");
    keeper(&api).keep(after(certs::AUTHORITY_LIFE)).await.unwrap();
    assert_eq!(text(&api, TLS, "more"), "kept");
    assert_eq!(api.get(TLS).unwrap()["metadata"]["annotations"]["team"], "a");
}
