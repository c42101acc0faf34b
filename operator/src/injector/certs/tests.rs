use super::evaluate::path;
use super::*;
use crate::fake::FakeApi;
use serde_json::json;
use std::time::Duration;

pub const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sealpod-injector";
const AUTHORITY: &str = "/api/v1/namespaces/sealpod/secrets/webhook-ca";
const LEAF: &str = "/api/v1/namespaces/sealpod/secrets/webhook-tls";
const SERVER_NAME: &str = "sealpod-injector.sealpod.svc";
const DAY: Duration = Duration::from_hours(24);

pub fn names() -> Names {
    Names {
        namespace: "sealpod".to_owned(),
        authority_secret: "webhook-ca".to_owned(),
        certificate_secret: "webhook-tls".to_owned(),
        configuration: "sealpod-injector".to_owned(),
        service: "sealpod-injector".to_owned(),
    }
}

/// A cluster as the chart leaves it, with one webhook of somebody else before ours.
pub fn installed() -> FakeApi {
    let api = FakeApi::default();
    let webhook = |name: &str, service: &str| {
        json!({
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "novel": 1,
            "clientConfig": {"service": {"name": service, "namespace": "sealpod", "port": 443}},
        })
    };
    api.put(
        CONFIGURATION,
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "sealpod-injector"},
            "webhooks": [webhook("other.test", "other"), webhook("inject.sealpod.dev", "sealpod-injector")],
        }),
    );
    api
}

fn keeper(api: &FakeApi) -> Keeper {
    Keeper::new(api.client(), names(), Source::Own(Lives::default()))
}

fn settle() -> Duration {
    Lives::default().settle()
}

fn overlap() -> Duration {
    Lives::default().overlap()
}

pub fn start() -> Timestamp {
    "2026-11-03T12:00:00Z".parse().unwrap()
}

pub fn after(duration: Duration) -> Timestamp {
    start().checked_add(duration).unwrap()
}

/// The CA bundle as the API server has it.
pub fn bundle(api: &FakeApi) -> String {
    let configuration = api.get(CONFIGURATION).unwrap();
    let text = configuration["webhooks"][1]["clientConfig"]["caBundle"]
        .as_str()
        .unwrap()
        .to_owned();
    String::from_utf8(data_encoding::BASE64.decode(text.as_bytes()).unwrap()).unwrap()
}

/// That the API server, with the bundle it has, accepts what is served.
fn check(api: &FakeApi, current: &Current, at: Timestamp) {
    certs::check_server_and_roots(&current.pair.certificate, &bundle(api), SERVER_NAME, at).unwrap();
    let configuration = api.get(CONFIGURATION).unwrap();
    assert_eq!(
        configuration["webhooks"][1]["clientConfig"]["service"]["path"],
        path(&current.segment)
    );
}

#[tokio::test]
async fn from_nothing_to_a_webhook_that_the_api_server_trusts_and_then_at_rest() {
    let api = installed();
    let current = keeper(&api).keep(start()).await.unwrap();
    check(&api, &current, start());
    assert_eq!(current.segment.len(), 32);
    assert_eq!(api.take_writes().len(), 3, "two Secrets and one patch");
    let configuration = api.get(CONFIGURATION).unwrap();
    assert_eq!(
        configuration["webhooks"][0]["clientConfig"].get("caBundle"),
        None,
        "the other's is left alone"
    );
    assert_eq!(configuration["webhooks"][1]["novel"], 1);

    assert_eq!(keeper(&api).keep(after(DAY)).await.unwrap(), current);
    assert_eq!(api.take_writes(), [""; 0]);
}

#[tokio::test]
async fn replicas_that_start_together_agree() {
    let api = installed();
    let keepers = [keeper(&api), keeper(&api), keeper(&api)];
    let all = keepers.iter().map(|keeper| keeper.keep(start()));
    let currents: Vec<Current> = futures::future::join_all(all)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    for current in &currents {
        assert_eq!(current, &currents[0]);
        check(&api, current, start());
    }
}

#[tokio::test]
async fn drift_is_put_back() {
    let api = installed();
    let current = keeper(&api).keep(start()).await.unwrap();
    for (pointer, value) in [
        ("/webhooks/1/clientConfig/caBundle", json!("Y2FuYXJ5")),
        ("/webhooks/1/clientConfig/service/path", json!("/mutate")),
        (
            "/webhooks/1/clientConfig",
            json!({"service": {"name": "sealpod-injector", "namespace": "sealpod"}}),
        ),
    ] {
        let mut configuration = api.get(CONFIGURATION).unwrap();
        *configuration.pointer_mut(pointer).unwrap() = value;
        api.put(CONFIGURATION, configuration);
        assert_eq!(keeper(&api).keep(start()).await.unwrap(), current);
        check(&api, &current, start());
    }
}

#[tokio::test]
async fn the_certificate_is_renewed_after_two_thirds_of_its_life_on_the_same_path() {
    let api = installed();
    let first = keeper(&api).keep(start()).await.unwrap();
    assert_eq!(keeper(&api).keep(after(DAY * 59)).await.unwrap(), first);
    let second = keeper(&api).keep(after(DAY * 60)).await.unwrap();
    assert_ne!(second.pair, first.pair);
    assert_eq!(second.segment, first.segment);
    check(&api, &second, after(DAY * 120));
}

#[tokio::test]
async fn a_new_ca_is_trusted_before_it_signs_and_the_old_one_until_nothing_of_it_is_served() {
    let api = installed();
    let due = certs::AUTHORITY_LIFE / 3 * 2;
    let before = DAY * 2_434;
    assert!(before < due && due < before + DAY);
    // As in years of work, so that the certificate is young when the CA becomes due.
    for month in 0..80 {
        keeper(&api).keep(after(DAY * 30 * month)).await.unwrap();
    }
    let old = keeper(&api).keep(after(before)).await.unwrap();

    let during = keeper(&api).keep(after(due + DAY)).await.unwrap();
    assert_eq!(during.pair, old.pair, "the old certificate is still served");
    assert_eq!(certs::count(&bundle(&api)), 2);
    check(&api, &during, after(due + DAY));

    let settled = due + DAY + settle();
    let new = keeper(&api).keep(after(settled)).await.unwrap();
    assert_ne!(new.pair, old.pair);
    check(&api, &new, after(settled));
    check(&api, &old, after(settled));

    let late = due + DAY + overlap();
    assert_eq!(keeper(&api).keep(after(late)).await.unwrap(), new);
    assert_eq!(certs::count(&bundle(&api)), 1);
    check(&api, &new, after(late));
}

#[tokio::test]
async fn what_a_clock_of_another_time_has_made_is_replaced_at_once_and_on_the_same_path() {
    const YEAR: Duration = DAY.saturating_mul(365);
    for ahead in [DAY, DAY * 61, YEAR * 7, YEAR * 10, YEAR * 100] {
        // From nothing, and from what had worked before the clock went wrong, for a look or for long.
        for (at_work_before, looks) in [(false, 1), (true, 1), (true, 3)] {
            let api = installed();
            let mut before = None;
            if at_work_before {
                before = Some(keeper(&api).keep(start()).await.unwrap());
            }
            for look in 0..looks {
                keeper(&api).keep(after(ahead + DAY * look)).await.unwrap();
            }
            let healed = keeper(&api).keep(start()).await.unwrap();
            check(&api, &healed, start());
            if let Some(before) = before {
                assert_eq!(healed.segment, before.segment);
            }
            assert_eq!(
                keeper(&api).keep(after(DAY / 24)).await.unwrap(),
                healed,
                "at rest again"
            );
            keeper(&api).keep(after(overlap())).await.unwrap();
            assert_eq!(
                certs::count(&bundle(&api)),
                1,
                "nothing of the other time stays trusted"
            );
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_years_behind_leaves_nothing_that_has_ended() {
    let api = installed();
    keeper(&api)
        .keep("1970-01-02T00:00:00Z".parse().unwrap())
        .await
        .unwrap();
    let healed = keeper(&api).keep(start()).await.unwrap();
    check(&api, &healed, start());
    assert_eq!(keeper(&api).keep(after(DAY / 24)).await.unwrap(), healed);
}

#[tokio::test]
async fn a_clock_that_goes_back_by_less_than_certificates_are_backdated_changes_nothing() {
    let api = installed();
    let first = keeper(&api).keep(after(DAY / 24)).await.unwrap();
    assert_eq!(keeper(&api).keep(start()).await.unwrap(), first);
    check(&api, &first, start());
}

#[tokio::test]
async fn replicas_whose_clocks_are_years_apart_fill_no_secret() {
    let api = installed();
    for _ in 0..12 {
        keeper(&api).keep(start()).await.unwrap();
        keeper(&api).keep(after(certs::AUTHORITY_LIFE)).await.unwrap();
    }
    assert!(certs::count(&bundle(&api)) <= 8);
    let healed = keeper(&api).keep(start()).await.unwrap();
    check(&api, &healed, start());
}

#[tokio::test]
async fn a_damaged_secret_is_made_anew() {
    let api = installed();
    let first = keeper(&api).keep(start()).await.unwrap();
    for (path, key) in [(LEAF, "tls.key"), (LEAF, SEGMENT)] {
        let mut secret = api.get(path).unwrap();
        secret["data"][key] = json!("Y2FuYXJ5");
        api.put(path, secret);
        let current = keeper(&api).keep(start()).await.unwrap();
        check(&api, &current, start());
        assert_ne!(current.pair, first.pair, "{path} {key}");
    }
}

#[tokio::test]
async fn a_ca_that_is_lost_stays_trusted_for_as_long_as_the_other_replicas_serve_by_it() {
    let api = installed();
    let first = keeper(&api).keep(start()).await.unwrap();
    let before = bundle(&api);
    let still_served = async || {
        let current = keeper(&api).keep(start()).await.unwrap();
        assert_eq!(current.pair, first.pair);
        assert!(bundle(&api).contains(&before) && bundle(&api) != before);
        check(&api, &first, start());
    };
    let mut damaged = api.get(AUTHORITY).unwrap();
    damaged["data"]["tls.crt"] = json!("Y2FuYXJ5");
    api.put(AUTHORITY, damaged);
    still_served().await;
    api.remove(AUTHORITY);
    still_served().await;
    let later = keeper(&api).keep(after(settle())).await.unwrap();
    assert_ne!(later.pair, first.pair);
    keeper(&api).keep(after(settle() + overlap())).await.unwrap();
    assert!(!bundle(&api).contains(&before));
}

#[tokio::test]
async fn a_certificate_that_is_deleted_comes_back_on_the_path_that_the_other_replicas_serve() {
    let api = installed();
    let first = keeper(&api).keep(start()).await.unwrap();
    api.remove(LEAF);
    let second = keeper(&api).keep(start()).await.unwrap();
    assert_ne!(second.pair, first.pair);
    assert_eq!(second.segment, first.segment);
    // A path that somebody else has written is not taken up: it could be guessed.
    api.remove(LEAF);
    let mut configuration = api.get(CONFIGURATION).unwrap();
    configuration["webhooks"][1]["clientConfig"]["service"]["path"] = json!("/mutate/canary");
    api.put(CONFIGURATION, configuration);
    let third = keeper(&api).keep(start()).await.unwrap();
    assert_ne!(third.segment, first.segment);
    check(&api, &third, start());
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_touched() {
    let api = installed();
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook-ca"}, "type": "Opaque"});
    api.put(AUTHORITY, foreign);
    let before = api.get(AUTHORITY);
    let error = keeper(&api).keep(start()).await.unwrap_err().to_string();
    assert!(error.contains("Secret webhook-ca was not made by Sealpod"), "{error}");
    assert_eq!(api.get(AUTHORITY), before);
}

#[tokio::test]
async fn a_configuration_that_is_not_there_or_not_ours_is_named() {
    let api = FakeApi::default();
    let error = keeper(&api).keep(start()).await.unwrap_err().to_string();
    assert!(
        error.contains("no MutatingWebhookConfiguration sealpod-injector"),
        "{error}"
    );
    let api = installed();
    let mut configuration = api.get(CONFIGURATION).unwrap();
    configuration["webhooks"].as_array_mut().unwrap().pop();
    api.put(CONFIGURATION, configuration);
    let error = keeper(&api).keep(start()).await.unwrap_err().to_string();
    assert!(
        error.contains("no webhook that calls Service sealpod/sealpod-injector"),
        "{error}"
    );
}

#[tokio::test]
async fn a_ca_that_signs_in_vain_is_told_and_what_is_served_stays() {
    let api = installed();
    keeper(&api).keep(start()).await.unwrap();
    let before = api.get(LEAF);
    for own in certs::tests::authorities_that_sign_in_vain(start()) {
        api.edit_secret(AUTHORITY, CERTIFICATE, &own.certificate);
        api.edit_secret(AUTHORITY, KEY, &own.key);
        let error = keeper(&api).keep(after(DAY * 61)).await.unwrap_err().to_string();
        assert!(error.contains("Secret webhook-ca: its CA cannot sign"), "{error}");
        assert_eq!(api.get(LEAF), before);
    }
    api.edit_secret(AUTHORITY, CERTIFICATE, "");
    let current = keeper(&api).keep(after(DAY * 61)).await.unwrap();
    check(&api, &current, after(DAY * 61));
}
