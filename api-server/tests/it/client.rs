//! The client that operator and sidecar use, against the real server: both must mean the same by every call.

use sealpod_client::{Client, Credential, Fetched};
use sealpod_core::wire::Labels;
use sealpod_core::wire::bundle::BundleRequest;
use sealpod_core::wire::management as m;
use sealpod_core::wire::org as o;
use sealpod_core::{Encoding, Pattern, SecretText};

use crate::support::{ADMIN, Server};

fn client(server: &Server, credential: Credential) -> Client {
    Client::builder(&server.url).credential(credential).build().unwrap()
}

fn labels() -> Labels {
    Labels::from([("sealpod.dev/owner".to_owned(), "c/ns/uid/a=b&c".to_owned())])
}

fn value(environment: &str, value: &str) -> m::SetValue {
    m::SetValue {
        environment_slug: environment.to_owned(),
        value: SecretText::new(value),
        encoding: Encoding::Utf8,
        is_enabled: true,
        expires_at: None,
        not_before: None,
    }
}

#[tokio::test]
async fn every_call_of_the_management_plane_is_understood() {
    let server = Server::start().await;
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN))).on_behalf("Application", "ns", "ä b");
    let plane = client.management();
    let create = m::CreateApplication {
        name: "Shop".to_owned(),
        description: Some("d".to_owned()),
        slug: Some("shop".to_owned()),
        labels: labels(),
    };
    let made = plane.create_application(&create).await.unwrap();
    assert!(made.plain_api_key.expose().starts_with("grm_"));
    assert_eq!(server.metadata().await["on_behalf"], "Application/ns/%C3%A4%20b");
    let again = plane.create_application(&create).await.unwrap_err();
    assert_eq!(again.code(), Some("conflict"));
    let owner = Some(("sealpod.dev/owner", "c/ns/uid/a=b&c"));
    assert_eq!(plane.applications(owner).await.unwrap()[0].id, made.id);
    assert!(
        plane
            .applications(Some(("sealpod.dev/owner", "x")))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(plane.application("nothing").await.unwrap_err().is_not_found());
    let update = m::UpdateApplication {
        name: "Renamed".to_owned(),
        description: None,
        labels: Some(Labels::new()),
    };
    assert!(
        plane
            .update_application("shop", &update)
            .await
            .unwrap()
            .labels
            .is_empty()
    );
    plane.rotate_application_key("shop", 60).await.unwrap();
    plane.delete_application("shop").await.unwrap();
}

#[tokio::test]
async fn every_call_within_an_application_is_understood() {
    let server = Server::start().await;
    server.application("shop").await;
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let plane = client.management();
    let owner = Some(("sealpod.dev/owner", "c/ns/uid/a=b&c"));
    let environment = m::CreateEnvironment {
        name: "Production".to_owned(),
        slug: None,
        labels: labels(),
    };
    assert_eq!(
        plane.create_environment("shop", &environment).await.unwrap().slug,
        "production"
    );
    let renamed = m::UpdateEnvironment {
        name: "Live".to_owned(),
        labels: None,
    };
    assert_eq!(
        plane
            .update_environment("shop", "production", &renamed)
            .await
            .unwrap()
            .labels,
        labels()
    );
    assert_eq!(plane.environments("shop", owner).await.unwrap().len(), 1);

    let secret = m::CreateSecret {
        name: "db/password".to_owned(),
        description: None,
    };
    plane.create_secret("shop", &secret).await.unwrap();
    plane
        .set_values("shop", "db/password", &[value("local", "a"), value("production", "b")])
        .await
        .unwrap();
    let detail = plane.secret("shop", "db/password").await.unwrap();
    assert!(
        detail
            .required_environments
            .iter()
            .all(|environment| environment.value_provided)
    );
    assert_eq!(plane.secrets("shop").await.unwrap().len(), 1);
    assert_eq!(plane.versions("shop", "db/password", "local").await.unwrap().len(), 1);
    plane.delete_secret("shop", "db/password").await.unwrap();

    let entry = m::CreateConfiguration {
        environment_slug: "local".to_owned(),
        key: "Feature:A/b".to_owned(),
        value: "on".to_owned(),
        description: None,
    };
    plane.create_configuration("shop", &entry).await.unwrap();
    let update = m::UpdateConfiguration {
        value: "off".to_owned(),
        description: None,
    };
    plane
        .update_configuration("shop", "local", "Feature:A/b", &update)
        .await
        .unwrap();
    assert_eq!(plane.configurations("shop").await.unwrap()[0].value, "off");
    plane
        .delete_configuration("shop", "local", "Feature:A/b")
        .await
        .unwrap();
    plane.delete_environment("shop", "production").await.unwrap();
}

#[tokio::test]
async fn every_call_of_the_organization_plane_is_understood() {
    let server = Server::start().await;
    server.application("shop").await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let org = admin.org("default");
    let name = "k8s/c/ns/web";
    let create = o::CreateServiceAccount {
        name: name.to_owned(),
        project: Some("shop".to_owned()),
        expires_at: None,
        labels: labels(),
    };
    let account = org.create_service_account(&create).await.unwrap();
    assert_eq!(org.service_accounts(Some(name)).await.unwrap()[0].id, account.id);
    assert_eq!(org.service_accounts(None).await.unwrap().len(), 1);
    let rule = o::CreateAclRule {
        subject_type: o::SubjectType::ServiceAccount,
        subject_id: Some(account.id),
        email: None,
        project_pattern: Pattern::escape("shop").parse().unwrap(),
        env_pattern: "local".parse().unwrap(),
        key_pattern: "db-*".parse().unwrap(),
        configurations: true,
        permission: o::Permission::Read,
    };
    let granted = org.grant(&rule).await.unwrap();
    assert_eq!(org.grant(&rule).await.unwrap().id, granted.id);
    assert_eq!(org.acl_rules().await.unwrap().len(), 1);
    let put = o::PutSecret {
        value: SecretText::new("AP8="),
        description: None,
        encoding: Encoding::Base64,
        expires_at: None,
        not_before: None,
    };
    assert_eq!(org.put_secret("shop", "local", "db-1", &put).await.unwrap().version, 1);
    assert_eq!(
        org.secret("shop", "local", "db-1").await.unwrap().encoding,
        Encoding::Base64
    );

    let sidecar = client(&server, Credential::ServiceAccount(account.api_key));
    let bundles = sidecar.org("default");
    let mut request = BundleRequest {
        key: vec!["db-1".to_owned(), "db-2".to_owned(), "web".to_owned()],
        pattern: vec!["db-*".parse().unwrap()],
        version: vec!["db-1:1".parse().unwrap()],
        configurations: true,
        ..BundleRequest::default()
    };
    let Fetched::Bundle(bundle) = bundles.bundle("shop", "local", &request, None).await.unwrap() else {
        panic!("nothing was known")
    };
    assert_eq!(
        (bundle.missing, bundle.denied),
        (vec!["db-2".to_owned()], vec!["web".to_owned()])
    );
    assert_eq!(bundle.secrets["db-1"].value.as_ref().unwrap().expose(), "AP8=");
    request.wait = 1;
    let known = Some(bundle.etag.as_str());
    assert_eq!(
        bundles.bundle("shop", "local", &request, known).await.unwrap(),
        Fetched::NotModified
    );
    // A long question goes as a POST.
    request.key.extend((0..300).map(|n| format!("another-long-name-{n}")));
    assert!(matches!(
        bundles.bundle("shop", "local", &request, known).await.unwrap(),
        Fetched::Bundle(_)
    ));

    let rotated = org.rotate_service_account(account.id, 0).await.unwrap();
    let dead = bundles.bundle("shop", "local", &request, None).await.unwrap_err();
    assert_eq!(dead.code(), Some("unauthorized"));
    let sidecar = client(&server, Credential::ServiceAccount(rotated.api_key));
    sidecar
        .org("default")
        .bundle("shop", "local", &request, None)
        .await
        .unwrap();
    org.revoke_acl_rule(granted.id).await.unwrap();
    org.revoke_service_account(account.id).await.unwrap();
}
