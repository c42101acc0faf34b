use super::*;
use crate::fake::FakeApi;

const SECRETS: &str = "/api/v1/namespaces/sealpod/secrets";

fn now() -> Timestamp {
    "2026-11-03T12:00:00Z".parse().unwrap()
}

fn path(name: &str) -> String {
    format!("{SECRETS}/{name}")
}

fn args() -> BootstrapArgs {
    BootstrapArgs {
        namespace: "sealpod".to_owned(),
        master_key_secret: Some("master".to_owned()),
        admin_key_secret: Some("admin".to_owned()),
        ca_secret: Some("ca".to_owned()),
        tls_secret: Some("tls".to_owned()),
        server_dns_names: vec!["server".to_owned(), "server.sealpod.svc".to_owned()],
    }
}

async fn bootstrap(api: &FakeApi, args: BootstrapArgs) -> Result<(), BootstrapError> {
    make_all(&Api::namespaced(api.client(), "sealpod"), args, now()).await
}

/// That what is there works together.
fn check(api: &FakeApi, name: &str) {
    let text = |secret, key| api.secret_text(&path(secret), key).unwrap();
    certs::check_server(&text("tls", "tls.crt"), &text("ca", "tls.crt"), name, now()).unwrap();
    certs::check_server(&text("tls", "tls.crt"), &text("tls", "ca.crt"), name, now()).unwrap();
}

#[tokio::test]
async fn the_first_run_makes_all_that_belongs_together() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    for (name, key) in [("master", "master.key"), ("admin", "admin.key")] {
        let text = api.secret_text(&path(name), key).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        assert!(text.trim_end().bytes().all(|b| b.is_ascii_hexdigit()));
        let secret = api.get(&path(name)).unwrap();
        assert_eq!(secret["type"], "Opaque");
        assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "sealpod");
    }
    assert_ne!(
        api.secret_text(&path("master"), "master.key"),
        api.secret_text(&path("admin"), "admin.key")
    );
    assert_eq!(api.get(&path("tls")).unwrap()["type"], "kubernetes.io/tls");
    check(&api, "server");
    check(&api, "server.sealpod.svc");
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    let all = || ["master", "admin", "ca", "tls"].map(|name| api.get(&path(name)));
    let before = all();
    bootstrap(&api, args()).await.unwrap();
    assert_eq!(all(), before);
}

#[tokio::test]
async fn runs_at_the_same_time_end_in_one_consistent_set() {
    let api = FakeApi::default();
    let (a, b, c) = tokio::join!(
        bootstrap(&api, args()),
        bootstrap(&api, args()),
        bootstrap(&api, args())
    );
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    check(&api, "server");
}

#[tokio::test]
async fn a_ca_that_is_there_signs_the_certificate() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    let ca = api.get(&path("ca"));
    // As after a run that was killed before the last step.
    api.remove(&path("tls"));
    bootstrap(&api, args()).await.unwrap();
    assert_eq!(api.get(&path("ca")), ca);
    check(&api, "server");
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_is_lost_is_kept_for_the_controller_to_replace() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    let tls = api.get(&path("tls"));
    api.remove(&path("ca"));
    bootstrap(&api, args()).await.unwrap();
    assert_eq!(api.get(&path("tls")), tls);
    let pair = secrets::pair(&serde_json::from_value(api.get(&path("ca")).unwrap()).unwrap()).unwrap();
    certs::check_authority(&pair).unwrap();
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_nobody_trusts_is_named_and_kept() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    api.remove(&path("ca"));
    let other = certs::new_authority("other", now()).unwrap();
    api.edit_secret(&path("tls"), AUTHORITIES, &other.certificate);
    let tls = api.get(&path("tls"));
    let error = bootstrap(&api, args()).await.unwrap_err().to_string();
    assert!(
        error.contains("Delete Secret tls and run the bootstrap again"),
        "{error}"
    );
    assert_eq!(api.get(&path("tls")), tls);
}

#[tokio::test]
async fn a_certificate_of_the_ca_before_is_right_while_both_are_trusted() {
    let api = FakeApi::default();
    bootstrap(&api, args()).await.unwrap();
    let old = api.secret_text(&path("ca"), "tls.crt").unwrap();
    let new = certs::new_authority("next", now()).unwrap();
    let both = certs::bundle(&new.certificate, &old);
    let secret = tls("ca", &new, Some(&both));
    api.put(&path("ca"), serde_json::to_value(secret).unwrap());
    bootstrap(&api, args()).await.unwrap();
}

#[tokio::test]
async fn a_secret_that_cannot_sign_is_named_and_kept() {
    let api = FakeApi::default();
    let broken = secrets::new("ca", TLS_TYPE, [(CERTIFICATE, Zeroizing::new("canary".to_owned()))]);
    api.put(&path("ca"), serde_json::to_value(&broken).unwrap());
    let error = bootstrap(&api, args()).await.unwrap_err().to_string();
    assert!(
        error.contains("Secret ca exists, but has no tls.crt and tls.key"),
        "{error}"
    );
    let text = || Zeroizing::new("canary".to_owned());
    let broken = secrets::new("ca", TLS_TYPE, [(CERTIFICATE, text()), (KEY, text())]);
    api.put(&path("ca"), serde_json::to_value(&broken).unwrap());
    let error = bootstrap(&api, args()).await.unwrap_err().to_string();
    assert!(
        error.contains("cannot sign certificates") && !error.contains("canary"),
        "{error}"
    );
}

#[tokio::test]
async fn what_has_no_name_is_not_made() {
    let api = FakeApi::default();
    let nothing = BootstrapArgs {
        master_key_secret: None,
        admin_key_secret: None,
        ca_secret: None,
        tls_secret: None,
        ..args()
    };
    bootstrap(&api, nothing).await.unwrap();
    assert_eq!(api.take_writes(), [""; 0]);
    let unnamed = BootstrapArgs {
        server_dns_names: vec![],
        ..args()
    };
    assert!(matches!(
        bootstrap(&api, unnamed).await,
        Err(BootstrapError::NoNames(_))
    ));
}

#[test]
fn no_two_keys_are_equal() {
    assert_ne!(new_key().unwrap(), new_key().unwrap());
}

#[tokio::test]
async fn a_ca_that_signs_in_vain_is_named_and_what_it_would_sign_is_not_made() {
    for own in certs::tests::authorities_that_sign_in_vain(now()) {
        let api = FakeApi::default();
        api.put(&path("ca"), serde_json::to_value(tls("ca", &own, None)).unwrap());
        let error = bootstrap(&api, args()).await.unwrap_err().to_string();
        assert!(error.contains("Secret ca exists and cannot sign"), "{error}");
        assert_eq!(api.get(&path("tls")), None);
    }
}
