use std::sync::Arc;
use std::time::{Duration, Instant};

use sealpod_api_server::crypto::{ApiKey, ApiKeyKind};
use sealpod_api_server::ids::{AccountId, UserId};
use sealpod_api_server::store::{
    Account, AccountKey, KeyHolder, NewAccount, NewProject, NewRule, Object, Page, RuleQuery, StoreError, Subject,
};
use sealpod_core::wire::org::Permission;
use sealpod_core::{Pattern, Time};

use crate::process::PATIENCE;
use crate::store_support::{Fixture, ORGANIZATION, by, labels, new_project};

fn new_account(fixture: &Fixture, name: &str) -> (ApiKey, NewAccount) {
    let (key, new_key) = fixture.key(ApiKeyKind::ServiceAccount);
    let new = NewAccount {
        organization: ORGANIZATION.into(),
        name: name.to_owned(),
        project: None,
        expires_at: None,
        labels: labels(&[("owner", "operator")]),
        key: new_key,
    };
    (key, new)
}

async fn account(fixture: &Fixture, name: &str) -> (ApiKey, Account) {
    let (key, new) = new_account(fixture, name);
    (key, fixture.store.create_account(new, by()).await.unwrap())
}

async fn holder(fixture: &Fixture, key: &ApiKey) -> Option<Arc<AccountKey>> {
    match fixture
        .store
        .find_key(fixture.store.pepper().digest(key))
        .await
        .unwrap()
    {
        Some(KeyHolder::Account(key)) => Some(key),
        Some(KeyHolder::Application(_)) => panic!("an account's key is no application's"),
        None => None,
    }
}

fn rule(subject: Subject, env: &str, permission: Permission) -> NewRule {
    NewRule {
        subject,
        project_pattern: Pattern::any(),
        env_pattern: env.parse().unwrap(),
        key_pattern: "db-*".parse().unwrap(),
        configurations: false,
        permission,
    }
}

#[tokio::test]
async fn a_key_finds_its_account_with_its_rules() {
    let fixture = Fixture::new().await;
    fixture.project("shop").await;
    let (key, new) = new_account(&fixture, "ci");
    let expires_at = Some(Time::now().plus_seconds(3600));
    let new = NewAccount {
        project: Some("shop".into()),
        expires_at,
        ..new
    };
    let made = fixture.store.create_account(new, by()).await.unwrap();
    assert_eq!(made.key_prefix, key.prefix());
    assert_eq!(made.project.as_ref().unwrap().slug, "shop");
    let subject = Subject::ServiceAccount(made.id);
    fixture
        .store
        .upsert_rule(ORGANIZATION, rule(subject, "prod", Permission::Read), by())
        .await
        .unwrap();
    let found = holder(&fixture, &key).await.unwrap();
    assert_eq!((&found.account, found.expires_at), (&made, expires_at));
    assert_eq!((found.organization.name.as_str(), found.rules.len()), (ORGANIZATION, 1));
    assert!(
        holder(&fixture, &ApiKey::generate(ApiKeyKind::ServiceAccount))
            .await
            .is_none()
    );
}

#[tokio::test]
async fn accounts_are_listed_by_name_and_names_are_unique_among_the_living() {
    let fixture = Fixture::new().await;
    let (_, b) = account(&fixture, "b").await;
    let (_, a) = account(&fixture, "a").await;
    let taken = fixture.store.create_account(new_account(&fixture, "a").1, by()).await;
    assert_eq!(taken.unwrap_err(), StoreError::Conflict(Object::ServiceAccount));
    let unknown_project = NewAccount {
        project: Some("absent".into()),
        ..new_account(&fixture, "c").1
    };
    let refused = fixture.store.create_account(unknown_project, by()).await;
    assert_eq!(refused.unwrap_err(), StoreError::NotFound(Object::Project));
    let list = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        fixture.store.accounts(ORGANIZATION, name, Page::default())
    };
    assert_eq!(list(None).await.unwrap(), [a.clone(), b.clone()]);
    assert_eq!(list(Some("b")).await.unwrap(), [b]);
    assert!(list(Some("c")).await.unwrap().is_empty());
    fixture.store.revoke_account(ORGANIZATION, a.id, by()).await.unwrap();
    assert_ne!(account(&fixture, "a").await.1.id, a.id);
}

#[tokio::test]
async fn a_rotation_without_overlap_kills_earlier_keys_at_once() {
    let fixture = Fixture::new().await;
    let (first, made) = account(&fixture, "ci").await;
    let (second, new) = fixture.key(ApiKeyKind::ServiceAccount);
    let rotated = fixture
        .store
        .rotate_account(ORGANIZATION, made.id, new, 0, by())
        .await
        .unwrap();
    assert_eq!(rotated.old_key_expires_at, None);
    assert!(holder(&fixture, &first).await.is_none());
    let found = holder(&fixture, &second).await.unwrap();
    assert_eq!(
        (found.account.key_prefix.as_str(), found.expires_at),
        (second.prefix(), None)
    );
}

#[tokio::test]
async fn an_overlap_keeps_earlier_keys_until_their_own_deadline() {
    let fixture = Fixture::new().await;
    let (first, made) = account(&fixture, "ci").await;
    let rotate = |overlap| {
        let (key, new) = fixture.key(ApiKeyKind::ServiceAccount);
        let store = fixture.store.clone();
        async move {
            (
                key,
                store
                    .rotate_account(ORGANIZATION, made.id, new, overlap, by())
                    .await
                    .unwrap(),
            )
        }
    };
    let (second, rotated) = rotate(100).await;
    let first_deadline = rotated.old_key_expires_at.unwrap();
    // The caller died before it stored the second key: rotating again leaves the first one's deadline alone.
    let (third, rotated) = rotate(1000).await;
    assert!(rotated.old_key_expires_at.unwrap() > first_deadline);
    assert_eq!(holder(&fixture, &first).await.unwrap().expires_at, Some(first_deadline));
    assert_eq!(
        holder(&fixture, &second).await.unwrap().expires_at,
        rotated.old_key_expires_at
    );
    assert_eq!(holder(&fixture, &third).await.unwrap().expires_at, None);

    let (last, rotated) = rotate(1).await;
    assert!(rotated.old_key_expires_at.unwrap() < first_deadline);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for dead in [&first, &second, &third] {
        assert!(holder(&fixture, dead).await.is_none());
    }
    assert!(holder(&fixture, &last).await.is_some());
}

#[tokio::test]
async fn at_most_eight_keys_live() {
    let fixture = Fixture::new().await;
    let (first, made) = account(&fixture, "ci").await;
    let mut keys = vec![first];
    for _ in 0..10 {
        let (key, new) = fixture.key(ApiKeyKind::ServiceAccount);
        fixture
            .store
            .rotate_account(ORGANIZATION, made.id, new, 3600, by())
            .await
            .unwrap();
        keys.push(key);
    }
    let mut alive = Vec::new();
    for key in &keys {
        alive.push(holder(&fixture, key).await.is_some());
    }
    assert_eq!(alive, [vec![false; 3], vec![true; 8]].concat());
}

#[tokio::test]
async fn an_applications_key_rotates_the_same_way() {
    let fixture = Fixture::new().await;
    let (first, new_key) = fixture.key(ApiKeyKind::Application);
    let new = NewProject {
        key: Some(new_key),
        ..new_project("shop")
    };
    let shop = sealpod_api_server::store::ProjectRef::Id(fixture.store.create_project(new, by()).await.unwrap().id);
    let alive = |key: &ApiKey| {
        let digest = fixture.store.pepper().digest(key);
        let store = fixture.store.clone();
        async move { store.find_key(digest).await.unwrap().is_some() }
    };
    let (second, new) = fixture.key(ApiKeyKind::Application);
    fixture
        .store
        .rotate_project_key(shop.clone(), new, 60, by())
        .await
        .unwrap();
    assert!(alive(&first).await && alive(&second).await);
    let (third, new) = fixture.key(ApiKeyKind::Application);
    fixture
        .store
        .rotate_project_key(shop.clone(), new, 0, by())
        .await
        .unwrap();
    assert!(!alive(&first).await && !alive(&second).await && alive(&third).await);
    let (_, of_an_account) = fixture.key(ApiKeyKind::ServiceAccount);
    let refused = fixture.store.rotate_project_key(shop, of_an_account, 0, by()).await;
    assert!(matches!(refused, Err(StoreError::Internal(_))));
    assert!(alive(&third).await, "a rotation that failed kills nothing");
}

#[tokio::test]
async fn an_expired_account_has_no_key() {
    let fixture = Fixture::new().await;
    let (key, new) = new_account(&fixture, "ci");
    let new = NewAccount {
        expires_at: Some(Time::now().plus_seconds(-1)),
        ..new
    };
    fixture.store.create_account(new, by()).await.unwrap();
    assert!(holder(&fixture, &key).await.is_none());
}

#[tokio::test]
async fn revoking_an_account_kills_its_keys_and_rules() {
    let fixture = Fixture::new().await;
    let (key, made) = account(&fixture, "ci").await;
    let (_, other) = account(&fixture, "other").await;
    for id in [made.id, other.id] {
        let rule = rule(Subject::ServiceAccount(id), "prod", Permission::Read);
        fixture.store.upsert_rule(ORGANIZATION, rule, by()).await.unwrap();
    }
    fixture.store.revoke_account(ORGANIZATION, made.id, by()).await.unwrap();
    assert!(holder(&fixture, &key).await.is_none());
    let rules = fixture.store.rules(ORGANIZATION, RuleQuery::default()).await.unwrap();
    assert_eq!(rules.iter().map(|it| it.subject.id()).collect::<Vec<_>>(), [other.id.0]);
    let again = fixture.store.revoke_account(ORGANIZATION, made.id, by()).await;
    assert_eq!(again.unwrap_err(), StoreError::NotFound(Object::ServiceAccount));
}

#[tokio::test]
async fn a_rule_of_the_same_subject_and_patterns_is_replaced() {
    let fixture = Fixture::new().await;
    let (_, made) = account(&fixture, "ci").await;
    let subject = Subject::ServiceAccount(made.id);
    let upsert = |rule| fixture.store.upsert_rule(ORGANIZATION, rule, by());
    let (first, created) = upsert(rule(subject, "prod", Permission::Read)).await.unwrap();
    assert!(created);
    let (second, created) = upsert(rule(subject, "prod", Permission::Write)).await.unwrap();
    assert_eq!(
        (second.id, second.permission, created),
        (first.id, Permission::Write, false)
    );
    let (other, created) = upsert(rule(subject, "pro*", Permission::Write)).await.unwrap();
    assert!(created && other.id != first.id);
    fixture.store.delete_rule(ORGANIZATION, first.id, by()).await.unwrap();
    let gone = fixture.store.rule(ORGANIZATION, first.id).await;
    assert_eq!(gone.unwrap_err(), StoreError::NotFound(Object::AclRule));
    assert_eq!(
        fixture.store.rules(ORGANIZATION, RuleQuery::default()).await.unwrap(),
        [other]
    );
    let (anew, created) = upsert(rule(subject, "prod", Permission::Read)).await.unwrap();
    assert!(created && anew.id != first.id);
}

#[tokio::test]
async fn a_rule_names_somebody_of_its_own_organization() {
    let fixture = Fixture::new().await;
    fixture.store.ensure_organization("other", by()).await.unwrap();
    let (_, ours) = account(&fixture, "ci").await;
    for (organization, subject) in [
        ("other", Subject::ServiceAccount(ours.id)),
        (ORGANIZATION, Subject::ServiceAccount(AccountId::new())),
        (ORGANIZATION, Subject::User(UserId::new())),
    ] {
        let refused = fixture
            .store
            .upsert_rule(organization, rule(subject, "*", Permission::Read), by())
            .await;
        assert_eq!(refused.unwrap_err(), StoreError::NotFound(Object::Subject));
    }
    let foreign = fixture.store.account("other", ours.id).await;
    assert_eq!(foreign.unwrap_err(), StoreError::NotFound(Object::ServiceAccount));
}

#[tokio::test]
async fn the_last_use_is_written_along_with_other_writes_and_costs_a_read_no_commit() {
    let fixture = Fixture::with(|options| options.use_interval = Duration::from_secs(2)).await;
    let (key, made) = account(&fixture, "ci").await;
    let before = fixture.store.stats().commits;
    for _ in 0..50 {
        holder(&fixture, &key).await.unwrap();
    }
    assert_eq!(fixture.store.stats().commits, before);
    assert_eq!(
        fixture.store.account(ORGANIZATION, made.id).await.unwrap().last_used_at,
        None
    );
    // Nothing else is written: it gets a commit of its own once the interval is over.
    let began = Instant::now();
    while fixture.store.stats().commits == before {
        assert!(began.elapsed() < PATIENCE, "the use is written by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    let used = fixture.store.account(ORGANIZATION, made.id).await.unwrap().last_used_at;
    assert!(used.is_some_and(|at| at > made.created_at));
    assert_eq!(fixture.store.stats().commits, before + 1);
}
