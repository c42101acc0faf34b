use super::super::tests::{after, bundle, installed, names, start};
use super::super::{KeepError, Source};
use super::*;
use crate::certs::Pair;
use crate::fake::FakeApi;
use serde_json::json;
use std::time::Duration;

const CERTIFICATE: &str = "/api/v1/namespaces/sealpod/secrets/webhook-tls";
const DAY: Duration = Duration::from_hours(24);

fn keeper(api: &FakeApi) -> Keeper {
    Keeper::new(api.client(), names(), Source::Given)
}

fn renew(api: &FakeApi, authority: &Pair, now: Timestamp) -> Pair {
    renew_for(api, authority, now, DAY * 90)
}

/// As cert-manager does: the certificate, its key and the CA change at once.
fn renew_for(api: &FakeApi, authority: &Pair, now: Timestamp, life: Duration) -> Pair {
    let names = ["sealpod-injector.sealpod.svc".to_owned()];
    let leaf = certs::issue(authority, &names, now, life).unwrap();
    let encode = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
    api.put(
        CERTIFICATE,
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook-tls"}, "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": encode(&leaf.certificate), "tls.key": encode(&leaf.key),
                "ca.crt": encode(&authority.certificate),
            },
        }),
    );
    leaf
}

#[tokio::test]
async fn what_is_given_is_served_once_its_ca_is_registered_and_never_written() {
    let api = installed();
    let error = keeper(&api).keep(start()).await.unwrap_err();
    assert!(
        matches!(&error, KeepError::Given { .. }) && error.to_string().contains("not there yet"),
        "{error}"
    );

    let authority = certs::new_authority("theirs", start()).unwrap();
    let leaf = renew(&api, &authority, start());
    api.take_writes();
    let current = keeper(&api).keep(start()).await.unwrap();
    assert_eq!(current.pair, leaf);
    assert_eq!(bundle(&api), authority.certificate);
    let writes = api.take_writes();
    assert!(!writes.iter().any(|call| call.ends_with("/webhook-tls")), "{writes:?}");
    // A second look finds nothing to do, and another replica agrees on the path.
    assert_eq!(keeper(&api).keep(start()).await.unwrap(), current);
    assert!(api.take_writes().is_empty());
}

#[tokio::test]
async fn a_ca_that_changes_with_its_certificate_leaves_the_one_before_trusted_for_a_while() {
    let api = installed();
    let [one, two] = ["one", "two"].map(|name| certs::new_authority(name, start()).unwrap());
    let old = renew(&api, &one, start());
    keeper(&api).keep(start()).await.unwrap();
    let at = after(DAY * 60);
    let new = renew(&api, &two, at);
    assert_eq!(keeper(&api).keep(at).await.unwrap().pair, new);
    for leaf in [&old, &new] {
        certs::check_server(&leaf.certificate, &bundle(&api), "sealpod-injector.sealpod.svc", at).unwrap();
    }
    keeper(&api).keep(after(DAY * 62)).await.unwrap();
    assert_eq!(bundle(&api), two.certificate);
}

#[tokio::test]
async fn the_ca_before_stays_trusted_also_where_the_certificate_was_issued_long_before_it_was_put_in() {
    let api = installed();
    let [one, two] = ["one", "two"].map(|name| certs::new_authority(name, start()).unwrap());
    let old = renew(&api, &one, start());
    let before = api.get(CERTIFICATE).unwrap();
    keeper(&api).keep(start()).await.unwrap();
    keeper(&api).keep(after(DAY * 2)).await.unwrap();
    // Issued on Monday, put in on Wednesday, and taken back the day after.
    let new = renew(&api, &two, start());
    let issued = api.get(CERTIFICATE).unwrap();
    for (secret, served, put_in, last) in [(issued, &new, DAY * 2, &two), (before, &old, DAY * 3 + DAY / 2, &one)] {
        api.put(CERTIFICATE, secret);
        for later in [Duration::ZERO, DAY / 2] {
            let now = after(put_in + later);
            assert_eq!(&keeper(&api).keep(now).await.unwrap().pair, served);
            for leaf in [&old, &new] {
                certs::check_server(&leaf.certificate, &bundle(&api), "sealpod-injector.sealpod.svc", now).unwrap();
            }
        }
        api.take_writes();
        keeper(&api).keep(after(put_in + DAY)).await.unwrap();
        assert_eq!(bundle(&api), last.certificate);
        // Nothing else is written than what is registered.
        assert_eq!(api.take_writes().len(), 1);
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_when_a_certificate_came_keeps_no_ca_for_as_long() {
    let api = installed();
    let [one, two] = ["one", "two"].map(|name| certs::new_authority(name, start()).unwrap());
    renew(&api, &one, start());
    keeper(&api).keep(start()).await.unwrap();
    renew(&api, &two, start());
    keeper(&api).keep(after(DAY * 30)).await.unwrap();
    keeper(&api).keep(after(DAY)).await.unwrap();
    assert_eq!(certs::count(&bundle(&api)), 2);
    keeper(&api).keep(after(DAY * 2)).await.unwrap();
    assert_eq!(bundle(&api), two.certificate);
}

#[tokio::test]
async fn a_replica_whose_clock_is_behind_lets_no_ca_go_too_early() {
    const HOUR: Duration = Duration::from_hours(1);
    let api = installed();
    let [one, two] = ["one", "two"].map(|name| certs::new_authority(name, start()).unwrap());
    renew(&api, &one, start());
    keeper(&api).keep(start()).await.unwrap();
    renew(&api, &two, start());
    keeper(&api).keep(after(DAY * 2)).await.unwrap();
    api.take_writes();
    keeper(&api).keep(after(DAY + HOUR * 23)).await.unwrap();
    assert!(api.take_writes().is_empty(), "the later time stays");
    keeper(&api).keep(after(DAY * 2 + HOUR * 23 + HOUR / 2)).await.unwrap();
    assert_eq!(certs::count(&bundle(&api)), 2);
    keeper(&api).keep(after(DAY * 3)).await.unwrap();
    assert_eq!(bundle(&api), two.certificate);
}

#[tokio::test]
async fn where_nothing_may_be_written_down_the_certificate_is_served_and_the_ca_before_stays_for_as_long() {
    const OWN: &str = "/api/v1/namespaces/sealpod/secrets/webhook-ca";
    let segment = "0123456789abcdef".repeat(2);
    for is_ours in [false, true] {
        let api = installed();
        let [one, two] = ["one", "two"].map(|name| certs::new_authority(name, start()).unwrap());
        let data = [(SEGMENT, Zeroizing::new(segment.clone()))];
        let mut own = serde_json::to_value(secrets::new("webhook-ca", OPAQUE_TYPE, data)).unwrap();
        if is_ours {
            api.refuse(&format!("PUT {OWN}"), 403, "Forbidden");
        } else {
            // As it is restored by hand.
            own["metadata"]["labels"] = json!(null);
        }
        api.put(OWN, own);
        renew(&api, &one, start());
        let replica = keeper(&api);
        assert_eq!(replica.keep(start()).await.unwrap().segment, segment);
        let new = renew(&api, &two, start());
        for (now, count) in [(DAY * 2, 2), (DAY * 2 + DAY / 2, 2), (DAY * 3, 1)] {
            assert_eq!(replica.keep(after(now)).await.unwrap().pair, new);
            assert_eq!(certs::count(&bundle(&api)), count, "{now:?}");
        }
        assert_eq!(bundle(&api), two.certificate);
        assert_eq!(api.secret_text(OWN, FOUND), None);
    }
    // Without the path there is nothing to serve by.
    let api = installed();
    let authority = certs::new_authority("one", start()).unwrap();
    renew(&api, &authority, start());
    api.put(
        OWN,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "webhook-ca"}}),
    );
    let error = keeper(&api).keep(start()).await.unwrap_err();
    assert!(matches!(error, KeepError::NotOurs(_)), "{error}");
}

#[tokio::test]
async fn the_ca_before_goes_also_where_no_certificate_becomes_a_day_old() {
    const HOUR: Duration = Duration::from_hours(1);
    let api = installed();
    for turn in 0..6 {
        let now = after(HOUR * 8 * turn);
        let authority = certs::new_authority(&format!("ca {turn}"), now).unwrap();
        let leaf = renew_for(&api, &authority, now, HOUR * 12);
        assert_eq!(keeper(&api).keep(now).await.unwrap().pair, leaf);
        assert_eq!(
            certs::count(&bundle(&api)),
            if turn == 0 { 1 } else { 2 },
            "with the one before"
        );
        keeper(&api).keep(after(HOUR * 8 * turn + HOUR * 3)).await.unwrap();
        assert_eq!(bundle(&api), authority.certificate);
    }
}

#[tokio::test]
async fn a_ca_that_has_ended_is_not_kept_for_the_sake_of_other_replicas() {
    let api = installed();
    let short = certs::new_authority_for("short", start(), DAY).unwrap();
    renew(&api, &short, start());
    keeper(&api).keep(start()).await.unwrap();
    let late = certs::new_authority("late", after(DAY)).unwrap();
    renew(&api, &late, after(DAY));
    keeper(&api).keep(after(DAY)).await.unwrap();
    assert_eq!(certs::count(&bundle(&api)), 2, "in its last second");
    keeper(&api).keep(after(DAY + Duration::from_secs(1))).await.unwrap();
    assert_eq!(bundle(&api), late.certificate);
}

#[tokio::test]
async fn what_an_api_server_would_not_accept_is_refused_with_what_is_needed() {
    let api = installed();
    let [theirs, other] = ["theirs", "other"].map(|name| certs::new_authority(name, start()).unwrap());
    renew(&api, &theirs, start());
    let mut secret = api.get(CERTIFICATE).unwrap();
    secret["data"]["ca.crt"] = json!(data_encoding::BASE64.encode(other.certificate.as_bytes()));
    api.put(CERTIFICATE, secret.clone());
    let mismatch = keeper(&api).keep(start()).await.unwrap_err().to_string();
    secret["data"]["ca.crt"] = json!(null);
    secret["data"].as_object_mut().unwrap().remove("ca.crt");
    api.put(CERTIFICATE, secret);
    let absent = keeper(&api).keep(start()).await.unwrap_err().to_string();
    for text in [mismatch, absent] {
        assert!(text.contains("Secret webhook-tls") && text.contains("ca.crt"), "{text}");
    }
    assert_eq!(
        api.get("/api/v1/namespaces/sealpod/secrets/webhook-ca"),
        None,
        "nothing was made for it"
    );
}
