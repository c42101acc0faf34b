//! A CA of somebody's own in the place of ours, or none.

use super::*;
use crate::certs::tests::authorities_that_sign_in_vain;

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
