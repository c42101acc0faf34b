//! How a new CA comes into the key Secrets of bindings.

use super::*;
use crate::controller::certificate::evaluate::DELIVERED as SPREAD;

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

/// An installation with such a binding, to which somebody brings a CA.
async fn with_a_new_ca() -> (FakeApi, Pair) {
    let api = installed().await;
    with_a_binding(&api);
    let own = certs::new_authority("our company", start()).unwrap();
    bring(&api, &own.certificate, &own.key);
    (api, own)
}

#[tokio::test]
async fn the_key_secret_of_a_binding_that_nobody_reconciles_has_a_new_ca_half_a_day_before_it_signs() {
    for away in [HOUR, DAY * 3, DAY * 10] {
        let (api, own) = with_a_new_ca().await;
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
    let (api, _) = with_a_new_ca().await;
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
    let (api, own) = with_a_new_ca().await;
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
