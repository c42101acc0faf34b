//! The client that operator and sidecar use, against the real server: both must mean the same by every call.

use sealpod_client::{AuditFilter, Client, Code, Credential, Fetched, Page};
use sealpod_core::wire::bundle::BundleRequest;
use sealpod_core::wire::consumers::BundleReport;
use sealpod_core::wire::management as m;
use sealpod_core::wire::org as o;
use sealpod_core::wire::people as p;
use sealpod_core::wire::quotas::SetQuotas;
use sealpod_core::wire::{Edit, Labels};
use sealpod_core::{Encoding, Pattern, SecretText};
use serde_json::json;
use uuid::Uuid;

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
    let off = m::UpdateVersion {
        is_enabled: Some(false),
        expires_at: Edit::Keep,
        not_before: Edit::To(None),
    };
    let version = plane
        .update_version("shop", "db/password", "local", 1, &off)
        .await
        .unwrap();
    assert!(!version.is_enabled);
    assert_eq!(plane.environment("shop", "local").await.unwrap().slug, "local");
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
    assert_eq!(
        plane.configuration("shop", "local", "Feature:A/b").await.unwrap().value,
        "off"
    );
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
    assert_eq!(org.service_account(account.id).await.unwrap().name, name);
    assert!(org.orphans().await.unwrap().is_empty(), "it is new");
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
    let of = |kind, id| org.acl_rules_of(kind, id);
    assert_eq!(of(o::SubjectType::ServiceAccount, account.id).await.unwrap().len(), 1);
    assert!(of(o::SubjectType::User, account.id).await.unwrap().is_empty());
    assert_eq!(org.acl_rule(granted.id).await.unwrap(), granted);
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

#[tokio::test]
async fn what_arrives_twice_is_done_once() {
    let server = Server::start().await;
    server.application("shop").await;
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let prod = m::CreateEnvironment {
        name: "Prod".to_owned(),
        slug: None,
        labels: Labels::new(),
    };
    let once = client.idempotent(Uuid::from_u128(7));
    let made = once.management().create_environment("shop", &prod).await.unwrap();
    assert_eq!(once.management().create_environment("shop", &prod).await.unwrap(), made);
    let again = client.management().create_environment("shop", &prod).await.unwrap_err();
    assert_eq!(again.kind(), Some(Code::Conflict));
    let other = m::CreateEnvironment {
        name: "Other".to_owned(),
        ..prod
    };
    let mixed_up = once.management().create_environment("shop", &other).await.unwrap_err();
    assert_eq!(mixed_up.kind(), Some(Code::IdempotencyMismatch));
    // What shows a key shows it once, and says what it made.
    let create = m::CreateApplication {
        name: "Two".to_owned(),
        description: None,
        slug: None,
        labels: Labels::new(),
    };
    let once = client.idempotent(Uuid::from_u128(8));
    once.management().create_application(&create).await.unwrap();
    let again = once.management().create_application(&create).await.unwrap_err();
    assert_eq!(again.kind(), Some(Code::AlreadyCreated));
}

#[tokio::test]
async fn changes_are_followed_by_a_cursor() {
    let server = Server::start().await;
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let plane = client.management();
    let begun = plane.changes(None, 0).await.unwrap();
    assert!(begun.changes.is_empty());
    let (waited, _) = tokio::join!(plane.changes(Some(&begun.cursor), 30), server.application("shop"));
    assert_eq!(waited.unwrap().changes[0].name.as_deref(), Some("shop"));
    let known = plane.changes(Some(&begun.cursor), 0).await.unwrap();
    assert!(plane.changes(Some(&known.cursor), 0).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn a_stale_writer_hears_of_it_and_changes_nothing() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let entry = json!({"environmentSlug": "local", "key": "c", "value": "on"});
    app.admin("POST", "/configurations").json(entry).status(201).await;
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let plane = client.management();
    let read = plane.tagged_application("shop").await.unwrap();
    assert_eq!(plane.tagged_application("shop").await.unwrap(), read);
    let update = m::UpdateApplication {
        name: "Mine".to_owned(),
        description: None,
        labels: None,
    };
    let careful = client.if_match(&read.tag);
    careful.management().update_application("shop", &update).await.unwrap();
    let stale = careful
        .management()
        .update_application("shop", &update)
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), Some(Code::PreconditionFailed));
    assert_ne!(plane.tagged_application("shop").await.unwrap().tag, read.tag);

    let environment = plane.tagged_environment("shop", "local").await.unwrap();
    let renamed = m::UpdateEnvironment {
        name: "Live".to_owned(),
        labels: None,
    };
    let careful = client.if_match(&environment.tag);
    careful
        .management()
        .update_environment("shop", "local", &renamed)
        .await
        .unwrap();
    let tag = plane.tagged_configuration("shop", "local", "c").await.unwrap().tag;
    let update = m::UpdateConfiguration {
        value: "off".to_owned(),
        description: None,
    };
    plane.update_configuration("shop", "local", "c", &update).await.unwrap();
    let careful = client.if_match(&tag);
    let stale = careful
        .management()
        .update_configuration("shop", "local", "c", &update)
        .await
        .unwrap_err();
    assert_eq!(stale.kind(), Some(Code::PreconditionFailed));
}

#[tokio::test]
async fn every_call_about_people_and_organizations_is_understood() {
    let server = Server::start().await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let made = admin
        .create_organization(&p::CreateOrganization {
            name: "acme".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(admin.organizations().await.unwrap().len(), 2);
    let org = admin.org("acme");
    assert_eq!(org.get().await.unwrap().id, made.id);
    assert_eq!(org.quotas().await.unwrap().projects.used, 0);
    let limits = SetQuotas {
        projects: Some(5),
        ..SetQuotas::default()
    };
    assert_eq!(org.set_quotas(&limits).await.unwrap().projects.limit, 5);

    let ann = server.user("ann@example.com").await;
    let member = org
        .invite(&p::InviteMember {
            email: "ann@example.com".parse().unwrap(),
            role: p::Role::Owner,
        })
        .await
        .unwrap();
    let session = client(&server, Credential::Session(SecretText::new(ann.token)));
    let me = session.me().await.unwrap();
    assert_eq!((me.id, me.email.as_str()), (member.user_id, "ann@example.com"));
    assert_eq!(session.organizations().await.unwrap()[0].role, Some(p::Role::Owner));
    let org = session.org("acme");
    assert_eq!(org.member(me.id).await.unwrap(), member);
    let alone = org.remove_member(me.id).await.unwrap_err();
    assert_eq!(alone.kind(), Some(Code::LastOwner));
    let ben = p::InviteMember {
        email: "ben@example.com".parse().unwrap(),
        role: p::Role::Member,
    };
    let ben = org.invite(&ben).await.unwrap();
    let changed = org
        .change_role(ben.user_id, &p::ChangeRole { role: p::Role::Admin })
        .await
        .unwrap();
    assert_eq!(changed.role, p::Role::Admin);
    org.remove_member(ben.user_id).await.unwrap();
    assert_eq!(org.members().await.unwrap().len(), 1);

    let page = org
        .audit_log(&AuditFilter {
            limit: Some(2),
            ..AuditFilter::default()
        })
        .await
        .unwrap();
    assert_eq!(
        (page.entries.len(), page.entries[0].action.as_str()),
        (2, "member.delete")
    );
    let filter = AuditFilter {
        action: Some("member.create".to_owned()),
        actor_id: Some(me.id),
        since: Some(made.created_at),
        ..AuditFilter::default()
    };
    assert_eq!(org.audit_log(&filter).await.unwrap().entries.len(), 1);
    let refused = session.audit_log(&AuditFilter::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Some(Code::Forbidden));
    assert!(
        !admin
            .audit_log(&AuditFilter::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );

    let renamed = org
        .rename(&p::RenameOrganization {
            name: "acme-two".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(renamed.id, made.id);
    assert!(org.get().await.unwrap_err().is_not_found());
    session.org("acme-two").delete().await.unwrap();
    let protected = admin.org("default").delete().await.unwrap_err();
    assert_eq!(protected.kind(), Some(Code::DefaultOrg));
    session.logout().await.unwrap();
    assert_eq!(session.me().await.unwrap_err().kind(), Some(Code::Unauthorized));
}

#[tokio::test]
async fn every_call_about_projects_and_their_secrets_is_understood() {
    let server = Server::start().await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let org = admin.org("default");
    let create = o::CreateProject {
        name: "shop".to_owned(),
        display_name: None,
        description: Some("sells".to_owned()),
    };
    let made = org.create_project(&create).await.unwrap();
    assert_eq!(
        org.create_project(&create).await.unwrap_err().kind(),
        Some(Code::Conflict)
    );
    let update = o::UpdateProject {
        description: Edit::To(None),
        ..o::UpdateProject::default()
    };
    assert_eq!(org.update_project("shop", &update).await.unwrap().description, None);
    assert_eq!(org.project("shop").await.unwrap().id, made.id);
    assert_eq!(org.projects().await.unwrap().len(), 1);
    org.create_environment(
        "shop",
        &o::CreateEnvironment {
            name: "test".to_owned(),
        },
    )
    .await
    .unwrap();
    assert_eq!(org.environments("shop").await.unwrap().len(), 4);
    assert_eq!(org.environment("shop", "test").await.unwrap().name, "test");
    org.delete_environment("shop", "test").await.unwrap();

    for (key, value) in [("a", "1"), ("b", "1"), ("b", "2")] {
        let put = o::PutSecret {
            value: SecretText::new(value),
            description: None,
            encoding: Encoding::Utf8,
            expires_at: None,
            not_before: None,
        };
        org.put_secret("shop", "dev", key, &put).await.unwrap();
    }
    let all = org.secrets("shop", "dev", Page::default()).await.unwrap();
    let page = Page {
        limit: Some(1),
        after: Some("a"),
    };
    assert_eq!(org.secrets("shop", "dev", page).await.unwrap(), all[1..]);
    assert_eq!(org.secret_versions("shop", "dev", "b").await.unwrap().len(), 2);
    let off = o::UpdateSecretVersion {
        is_enabled: Some(false),
        ..o::UpdateSecretVersion::default()
    };
    assert!(
        !org.update_secret_version("shop", "dev", "b", 2, &off)
            .await
            .unwrap()
            .is_enabled
    );
    assert_eq!(org.secret("shop", "dev", "b").await.unwrap().value.expose(), "1");
    let back = org
        .rollback_secret("shop", "dev", "b", o::Rollback { version: 2 })
        .await
        .unwrap();
    assert_eq!(back.version, 3);
    assert_eq!(org.secret("shop", "dev", "b").await.unwrap().value.expose(), "2");
    org.delete_secret("shop", "dev", "b").await.unwrap();
    assert!(org.secret("shop", "dev", "b").await.unwrap_err().is_not_found());
    let item = org.trash().await.unwrap().remove(0);
    assert_eq!(
        (item.name.as_str(), org.trashed(item.id).await.unwrap()),
        ("b", item.clone())
    );
    org.restore(item.id).await.unwrap();
    assert_eq!(org.secret("shop", "dev", "b").await.unwrap().value.expose(), "2");
    org.delete_secret("shop", "dev", "b").await.unwrap();
    org.purge(org.trash().await.unwrap()[0].id).await.unwrap();
    assert!(org.trashed(item.id).await.unwrap_err().is_not_found());
    org.delete_project("shop").await.unwrap();
}

#[tokio::test]
async fn every_list_of_the_management_plane_is_read_in_pages() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    for name in ["Bank", "Café 1"] {
        server.application(name).await;
    }
    for name in ["a/b", "é?&=#", "c"] {
        shop.secret(name).await;
        let body = json!({"name": name, "slug": format!("e{}", name.len()), "labels": {"t/a": "x&y z"}});
        shop.admin("POST", "/environments").json(body).status(201).await;
        let entry = json!({"environmentSlug": "local", "key": name, "value": "v"});
        shop.admin("POST", "/configurations").json(entry).status(201).await;
        let item = json!([{"environmentSlug": "local", "value": "v"}]);
        let path = "/secrets/a%2Fb/values";
        shop.admin("POST", path).json(item).status(200).await;
    }
    let client = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let plane = client.management();
    let label = Some(("t/a", "x&y z"));
    for limit in [1, 2, 1_000] {
        let pages = plane.application_pages(None, limit).unwrap();
        assert_eq!(pages.rest().await.unwrap(), plane.applications(None).await.unwrap());
        let pages = plane.environment_pages("shop", label, limit).unwrap();
        let all = plane.environments("shop", label).await.unwrap();
        assert_eq!((pages.rest().await.unwrap(), all.len()), (all, 3));
        let pages = plane.secret_pages("shop", limit).unwrap();
        assert_eq!(pages.rest().await.unwrap(), plane.secrets("shop").await.unwrap());
        let pages = plane.version_pages("shop", "a/b", "local", limit).unwrap();
        let all = plane.versions("shop", "a/b", "local").await.unwrap();
        assert_eq!((pages.rest().await.unwrap(), all.len()), (all, 3));
        let pages = plane.configuration_pages("shop", limit).unwrap();
        let all = plane.configurations("shop").await.unwrap();
        assert_eq!((pages.rest().await.unwrap(), all.len()), (all, 3));
    }
    let mut pages = plane.application_pages(None, 0).unwrap();
    let refused = pages.next_page().await.unwrap_err();
    assert_eq!(refused.kind(), Some(Code::ValidationFailed));
}

#[tokio::test]
async fn every_call_of_the_consumer_plane_is_understood() {
    let server = Server::start().await;
    let shop = server.application("shop").await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let plane = admin.management();
    let secret = m::CreateSecret {
        name: "db/password".to_owned(),
        description: None,
    };
    plane.create_secret("shop", &secret).await.unwrap();
    plane
        .set_values("shop", "db/password", &[value("local", "one")])
        .await
        .unwrap();
    let entry = m::CreateConfiguration {
        environment_slug: "local".to_owned(),
        key: "Feature:A/b".to_owned(),
        value: "on".to_owned(),
        description: None,
    };
    plane.create_configuration("shop", &entry).await.unwrap();

    let reads = client(&server, Credential::Application(SecretText::new(shop.key.clone())));
    let consumer = reads.consumer();
    let read = consumer.secret("db/password", "local").await.unwrap();
    assert_eq!((read.value.expose(), read.properties.version), ("one", 1));
    let all = consumer.configurations("local").await.unwrap();
    assert_eq!(all, [consumer.configuration("Feature:A/b", "local").await.unwrap()]);
    assert_eq!((all[0].value.as_str(), all[0].label.as_str()), ("on", "local"));
    assert!(consumer.secret("db/password", "no").await.unwrap_err().is_not_found());

    // An old key lives on for its overlap, and no longer.
    let second = plane.rotate_application_key("shop", 60).await.unwrap().plain_api_key;
    consumer.secret("db/password", "local").await.unwrap();
    let reads_on = client(&server, Credential::Application(second));
    reads_on.consumer().secret("db/password", "local").await.unwrap();
    plane.rotate_application_key("shop", 0).await.unwrap();
    for dead in [reads, reads_on] {
        let error = dead.consumer().secret("db/password", "local").await.unwrap_err();
        assert_eq!(error.kind(), Some(Code::Unauthorized));
    }
}

#[tokio::test]
async fn a_purging_client_leaves_nothing_in_the_trash() {
    let server = Server::start().await;
    let app = server.application("shop").await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    for client in [admin.clone(), admin.purging()] {
        app.secret("db").await;
        app.set("db", "local", "v", json!({})).await;
        server.put("shop", "local", "key", "v").await;
        let entry = json!({"environmentSlug": "local", "key": "k", "value": "v"});
        app.admin("POST", "/configurations").json(entry).status(201).await;
        let body = json!({"name": "Prod"});
        app.admin("POST", "/environments").json(body).status(201).await;
        let (plane, org) = (client.management(), client.org("default"));
        plane.delete_configuration("shop", "local", "k").await.unwrap();
        plane.delete_secret("shop", "db").await.unwrap();
        org.delete_secret("shop", "local", "key").await.unwrap();
        plane.delete_environment("shop", "prod").await.unwrap();
    }
    let org = admin.org("default");
    assert_eq!(org.trash().await.unwrap().len(), 4, "those of the first client");
    admin.purging().org("default").delete_project("shop").await.unwrap();
    assert!(org.trash().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_export_is_the_whole_log_entry_by_entry() {
    let server = Server::start().await;
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    for name in 0..30 {
        server.application(&format!("app {name}")).await;
    }
    let org = admin.org("default");
    let filter = AuditFilter {
        action: Some("project.create".to_owned()),
        ..AuditFilter::default()
    };
    let mut export = org.audit_export(&filter).await.unwrap();
    let mut seen = vec![];
    while let Some(entry) = export.next_entry().await.unwrap() {
        seen.push(entry);
    }
    let page = AuditFilter {
        limit: Some(100),
        ..filter
    };
    assert_eq!(seen, org.audit_log(&page).await.unwrap().entries);
    assert_eq!(seen.len(), 30);
    let mut instance = admin.audit_export(&AuditFilter::default()).await.unwrap();
    assert!(instance.next_entry().await.unwrap().is_some());
    let app = server.application("shop").await;
    let nobody = client(&server, Credential::ServiceAccount(SecretText::new(app.key)));
    let refused = nobody.org("default").audit_export(&AuditFilter::default()).await;
    assert_eq!(refused.unwrap_err().kind(), Some(Code::Unauthorized));
}

#[tokio::test]
async fn every_call_about_who_runs_which_version_is_understood() {
    let server = Server::start().await;
    server.application("shop").await;
    server.put("shop", "local", "a", "1").await;
    let account = server.account("web", &[["shop", "local", "*", "read"]]).await;
    let sidecar = client(&server, Credential::ServiceAccount(SecretText::new(account.key)));
    let sidecar = sidecar.org("default");
    for pod in ["web-1", "web-2"] {
        let report = BundleReport {
            pod: pod.to_owned(),
            namespace: "shop".to_owned(),
            node: "node-1".to_owned(),
            versions: [("a".to_owned(), 1)].into(),
            agent_version: "0.1.0".to_owned(),
        };
        sidecar.report("shop", "local", &report).await.unwrap();
    }
    let admin = client(&server, Credential::Admin(SecretText::new(ADMIN)));
    let org = admin.org("default");
    let all = org.consumers("shop", "local", None, Page::default()).await.unwrap();
    assert_eq!((all.len(), all[0].pod.as_str(), all[0].stale.len()), (2, "web-1", 0));
    let page = Page {
        limit: Some(1),
        after: Some(&all[0].id),
    };
    assert_eq!(
        org.consumers("shop", "local", all[0].actor_id, page).await.unwrap(),
        all[1..]
    );
    let nobody = Some(Uuid::now_v7());
    assert!(
        org.consumers("shop", "local", nobody, Page::default())
            .await
            .unwrap()
            .is_empty()
    );
    sidecar.withdraw_report("shop", "local", "shop", "web-2").await.unwrap();
    assert_eq!(
        org.consumers("shop", "local", None, Page::default()).await.unwrap(),
        all[..1]
    );
    let refused = sidecar
        .consumers("shop", "local", None, Page::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Some(Code::Forbidden));
}
