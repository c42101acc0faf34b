use sealpod_api_server::crypto::ApiKeyKind;
use sealpod_api_server::store::{
    EnvironmentUpdate, Expect, Fate, Grantor, KeyHolder, NewProject, Object, OrganizationRef, Page, ProjectRef,
    ProjectUpdate, StoreError,
};

use crate::store_support::{Fixture, ORGANIZATION, by, labels, new_environment, new_project};

#[tokio::test]
async fn a_project_begins_with_its_environments_and_key() {
    let fixture = Fixture::new().await;
    let (key, new_key) = fixture.key(ApiKeyKind::Application);
    let new = NewProject {
        key: Some(new_key),
        description: Some("text".into()),
        ..new_project("shop")
    };
    let made = fixture.store.create_project(new, by()).await.unwrap();
    assert_eq!((made.slug.as_str(), made.display_name.as_str()), ("shop", "SHOP"));
    let shop = ProjectRef::slug(ORGANIZATION, "shop");
    assert_eq!(fixture.store.project(shop.clone()).await.unwrap(), made);
    assert_eq!(fixture.store.project(ProjectRef::Id(made.id)).await.unwrap(), made);
    let environments = fixture
        .store
        .environments(shop, labels(&[]), Page::default())
        .await
        .unwrap();
    assert_eq!(
        environments.iter().map(|it| it.slug.as_str()).collect::<Vec<_>>(),
        ["local", "prod"]
    );
    let holder = fixture
        .store
        .find_key(fixture.store.pepper().digest(&key))
        .await
        .unwrap();
    assert!(matches!(holder, Some(KeyHolder::Application(it)) if it.project == made));
}

#[tokio::test]
async fn a_deleted_project_takes_everything_along_and_frees_its_slug() {
    let fixture = Fixture::new().await;
    let (key, new_key) = fixture.key(ApiKeyKind::Application);
    let new = NewProject {
        key: Some(new_key),
        ..new_project("shop")
    };
    let made = fixture.store.create_project(new, by()).await.unwrap();
    let shop = ProjectRef::slug(ORGANIZATION, "shop");
    let prod = shop.clone().environment("prod");
    fixture.set(&prod, "db", "v").await;
    assert_eq!(
        fixture.try_project("shop").await.unwrap_err(),
        StoreError::Conflict(Object::Project)
    );

    fixture
        .store
        .delete_project(shop.clone(), Fate::Trash, by())
        .await
        .unwrap();
    let gone = StoreError::NotFound(Object::Project);
    assert_eq!(fixture.store.project(shop.clone()).await.unwrap_err(), gone);
    assert_eq!(fixture.store.project(ProjectRef::Id(made.id)).await.unwrap_err(), gone);
    assert_eq!(
        fixture
            .store
            .delete_project(shop.clone(), Fate::Trash, by())
            .await
            .unwrap_err(),
        gone
    );
    assert_eq!(fixture.get(&prod, "db").await.unwrap_err(), gone);
    assert!(
        fixture
            .store
            .projects(ORGANIZATION, labels(&[]), Page::default())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        fixture
            .store
            .find_key(fixture.store.pepper().digest(&key))
            .await
            .unwrap(),
        None
    );

    let again = fixture.try_project("shop").await.unwrap();
    assert_ne!(again.id, made.id);
    assert!(fixture.store.secrets(shop, Page::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn updates_change_what_they_name_and_nothing_is_written_without_a_difference() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let update = |labels| ProjectUpdate {
        display_name: "New".into(),
        description: Some("text".into()),
        labels,
    };
    let owner = labels(&[("owner", "operator")]);
    let updated = fixture
        .store
        .update_project(shop.clone(), update(Some(owner.clone())), Expect::anything(), by())
        .await
        .unwrap();
    assert_eq!((updated.slug.as_str(), updated.display_name.as_str()), ("shop", "New"));
    assert_eq!(updated.labels, owner);
    let commits = fixture.store.stats().commits;
    let same = fixture
        .store
        .update_project(shop.clone(), update(None), Expect::anything(), by())
        .await
        .unwrap();
    assert_eq!(same, updated);
    let cleared = ProjectUpdate {
        description: None,
        ..update(None)
    };
    let cleared = fixture
        .store
        .update_project(shop.clone(), cleared, Expect::anything(), by())
        .await
        .unwrap();
    assert_eq!((cleared.description, cleared.labels), (None, owner));

    let prod = shop.clone().environment("prod");
    let rename = EnvironmentUpdate {
        display_name: "Production".into(),
        labels: None,
    };
    let renamed = fixture
        .store
        .update_environment(prod.clone(), rename, Expect::anything(), by())
        .await
        .unwrap();
    assert_eq!(
        (renamed.slug.as_str(), renamed.display_name.as_str()),
        ("prod", "Production")
    );
    let (location, found) = fixture.store.environment(prod).await.unwrap();
    assert_eq!((found, location.project_slug.as_str()), (renamed, "shop"));
    assert!(fixture.store.stats().commits > commits);
}

#[tokio::test]
async fn labels_filter_lists() {
    let fixture = Fixture::new().await;
    for (slug, pairs) in [
        ("a", &[("team", "x"), ("tier", "1")][..]),
        ("b", &[("team", "x")]),
        ("c", &[("team", "y \" ' %")]),
    ] {
        let new = NewProject {
            labels: labels(pairs),
            ..new_project(slug)
        };
        fixture.store.create_project(new, by()).await.unwrap();
    }
    for (pairs, want) in [
        (&[][..], &["a", "b", "c"][..]),
        (&[("team", "x")], &["a", "b"]),
        (&[("team", "x"), ("tier", "1")], &["a"]),
        (&[("team", "y \" ' %")], &["c"]),
        (&[("team", "")], &[]),
    ] {
        let found = fixture
            .store
            .projects(ORGANIZATION, labels(pairs), Page::default())
            .await
            .unwrap();
        assert_eq!(found.iter().map(|it| it.slug.as_str()).collect::<Vec<_>>(), want);
    }
}

#[tokio::test]
async fn a_deleted_environment_takes_its_values_along_and_frees_its_slug() {
    let fixture = Fixture::new().await;
    let shop = fixture.project("shop").await;
    let prod = shop.clone().environment("prod");
    fixture.set(&prod, "db", "v").await;
    let taken = fixture
        .store
        .create_environment(shop.clone(), new_environment("prod"), by())
        .await;
    assert_eq!(taken.unwrap_err(), StoreError::Conflict(Object::Environment));
    fixture
        .store
        .delete_environment(prod.clone(), Fate::Trash, by())
        .await
        .unwrap();
    let gone = StoreError::NotFound(Object::Environment);
    assert_eq!(fixture.get(&prod, "db").await.unwrap_err(), gone);
    assert_eq!(
        fixture
            .store
            .delete_environment(prod.clone(), Fate::Trash, by())
            .await
            .unwrap_err(),
        gone
    );
    fixture
        .store
        .create_environment(shop, new_environment("prod"), by())
        .await
        .unwrap();
    let anew = fixture.get(&prod, "db").await.unwrap_err();
    assert_eq!(anew, StoreError::NotFound(Object::Version));
    assert_eq!(fixture.set(&prod, "db", "v").await.number, 1);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    let missing = |organization: &str, project: &str| {
        let prod = ProjectRef::slug(organization, project).environment("absent");
        let store = fixture.store.clone();
        async move { store.environment(prod).await.unwrap_err() }
    };
    assert_eq!(
        missing("absent", "shop").await,
        StoreError::NotFound(Object::Organization)
    );
    assert_eq!(
        missing(ORGANIZATION, "absent").await,
        StoreError::NotFound(Object::Project)
    );
    assert_eq!(
        missing(ORGANIZATION, "shop").await,
        StoreError::NotFound(Object::Environment)
    );
}

#[tokio::test]
async fn organizations_do_not_see_each_other() {
    let fixture = Fixture::new().await;
    fixture.store.ensure_organization("other", by()).await.unwrap();
    let again = fixture.store.ensure_organization("other", by()).await.unwrap();
    assert_eq!(fixture.store.organization("other").await.unwrap(), again);
    fixture.project("shop").await;
    let same_slug = NewProject {
        organization: "other".into(),
        ..new_project("shop")
    };
    let theirs = fixture.store.create_project(same_slug, by()).await.unwrap();
    let ours = fixture
        .store
        .project(ProjectRef::slug(ORGANIZATION, "shop"))
        .await
        .unwrap();
    assert_ne!(ours.id, theirs.id);
    let prod = ProjectRef::slug(ORGANIZATION, "shop").environment("prod");
    fixture.set(&prod, "db", "v").await;
    let other = ProjectRef::slug("other", "shop").environment("prod");
    let read = fixture.get(&other, "db").await.unwrap_err();
    assert_eq!(read, StoreError::NotFound(Object::Secret));
}

#[tokio::test]
async fn who_was_found_in_an_organization_stays_there_when_its_name_goes_over_to_another_one() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    let one = store.create_organization("acme", None, by()).await.unwrap().id;
    let project = NewProject {
        organization: one.into(),
        ..new_project("shop")
    };
    store.create_project(project, by()).await.unwrap();
    store
        .rename_organization(one, "acme-old", (Grantor::Superadmin, by()))
        .await
        .unwrap();
    let other = store.create_organization("acme", None, by()).await.unwrap().id;
    let slugs = async |organization: OrganizationRef| {
        let all = store
            .projects(organization, labels(&[]), Page::default())
            .await
            .unwrap();
        all.into_iter().map(|project| project.slug).collect::<Vec<_>>()
    };
    assert_eq!(slugs(one.into()).await, ["shop"]);
    for empty in [other.into(), OrganizationRef::from("acme")] {
        assert!(slugs(empty).await.is_empty());
    }
    let environment = |organization: OrganizationRef| {
        let target = ProjectRef::slug(organization, "shop").environment("local");
        async move {
            store
                .environment(target)
                .await
                .map(|(location, _)| location.organization)
        }
    };
    assert_eq!(environment(one.into()).await.unwrap(), one);
    assert_eq!(environment("acme-old".into()).await.unwrap(), one);
    for stranger in [other.into(), OrganizationRef::from("acme")] {
        let gone = environment(stranger).await.unwrap_err();
        assert!(matches!(gone, StoreError::NotFound(Object::Project)), "{gone}");
    }
    store
        .delete_organization(one, (Grantor::Superadmin, by()))
        .await
        .unwrap();
    let gone = store.quotas(one).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound(Object::Organization)), "{gone}");
}
