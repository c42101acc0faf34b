use super::super::world::{ACCOUNT, SECRET, object, world};
use super::*;
use crate::controller::namespace;
use serde_json::json;
use std::time::Duration;
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, ResponseTemplate};

fn observed(secret: secret::Observed) -> Observed {
    Observed {
        namespace: namespace::Observed {
            name: "shop".to_owned(),
            uid: "ns-uid".to_owned(),
            terminating: false,
        },
        application_owner: String::new(),
        account_name: "k8s/cluster/shop/db".to_owned(),
        account_owner: String::new(),
        application_namespace: "shop".to_owned(),
        is_in_scope: true,
        has_application: true,
        is_admitted: true,
        application: None,
        environments: vec![],
        account: None,
        rules: vec![],
        secret,
    }
}

fn plan(account: Account, key: Key) -> Plan {
    let selection = super::super::selection::Selection(None);
    Plan {
        configurations: false,
        project: "shop".to_owned(),
        grant: selection.rules(),
        selection,
        layout: super::super::layout::Layout::default(),
        account,
        revoke: vec![Uuid::from_u128(7)],
        key,
        rotate_every: std::time::Duration::from_hours(24),
        overlap: 3_600,
        binding: "{}".to_owned(),
    }
}

fn create() -> Account {
    Account::Create(CreateServiceAccount {
        name: "k8s/cluster/shop/db".to_owned(),
        project: Some("shop".to_owned()),
        expires_at: None,
        labels: sealpod_core::wire::Labels::new(),
    })
}

fn account_id() -> Uuid {
    ACCOUNT.parse().unwrap()
}

#[tokio::test]
async fn new_rights_come_before_old_ones_go_and_the_key_comes_last() {
    let world = world().await;
    world.accepts_everything().await;
    let plan = plan(create(), Key::Keep);
    let granted = grant(&object(), &plan, &observed(secret::Observed::Absent), &world.context)
        .await
        .unwrap();
    assert_eq!((granted.account, granted.key.expose()), (account_id(), "cr_sa_first"));
    let unwanted = format!("DELETE /acl/{}", Uuid::from_u128(7));
    assert_eq!(
        world.asked().await,
        ["POST /service-accounts", "POST /acl", unwanted.as_str()]
    );
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_first"));
}

#[tokio::test]
async fn a_key_that_could_not_be_stored_is_not_made_again() {
    let world = world().await;
    world.accepts_everything().await;
    // Somebody else's Secret appears between the look and the write.
    world
        .kube
        .put(SECRET, json!({"metadata": {"name": "db-sealpod-key"}, "data": {}}));
    let nothing = observed(secret::Observed::Absent);
    let first = grant(&object(), &plan(create(), Key::Keep), &nothing, &world.context).await;
    assert!(matches!(first, Err(Error::Kubernetes { .. })), "overwritten");
    assert_eq!(world.stored_key(), None);
    world.kube.remove(SECRET);
    let again = plan(Account::Keep(account_id()), Key::Mint("there is no Secret"));
    grant(&object(), &again, &nothing, &world.context).await.unwrap();
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_first"));
    assert!(!world.asked().await.iter().any(|call| call.ends_with("/rotate")));
}

#[tokio::test]
async fn keys_that_go_one_after_another_keep_no_right_alive() {
    let world = world().await;
    world.accepts_everything().await;
    for _ in 0..5 {
        world.context.resolutions.may_mint("uid", Instant::now()).unwrap();
    }
    // Its owner deletes the key Secret again and again.
    let mut plan = plan(Account::Keep(account_id()), Key::Mint("there is no Secret"));
    plan.grant.clear();
    let granted = grant(&object(), &plan, &observed(secret::Observed::Absent), &world.context).await;
    let within = granted.err().unwrap().retry_after().unwrap();
    assert!(
        (Duration::from_mins(2)..=Duration::from_mins(3)).contains(&within),
        "{within:?}"
    );
    assert_eq!(world.asked().await, [format!("DELETE /acl/{}", Uuid::from_u128(7))]);
}

#[tokio::test]
async fn a_new_key_leaves_the_one_in_use_alive_for_the_overlap() {
    let world = world().await;
    let rotated = json!({"api_key": "cr_sa_second", "key_prefix": "cr_sa_second", "old_key_expires_at": null});
    Mock::given(method("POST"))
        .and(path(format!("/api/orgs/default/service-accounts/{ACCOUNT}/rotate")))
        .and(body_partial_json(json!({"overlap_seconds": 3_600})))
        .respond_with(ResponseTemplate::new(200).set_body_json(rotated))
        .expect(1)
        .mount(&world.server)
        .await;
    world.accepts_everything().await;
    let plan = plan(Account::Keep(account_id()), Key::Mint("its rotation is due"));
    grant(&object(), &plan, &observed(secret::Observed::Absent), &world.context)
        .await
        .unwrap();
    assert_eq!(world.stored_key().as_deref(), Some("cr_sa_second"));
}

#[tokio::test]
async fn nothing_is_written_for_a_secret_that_is_as_it_should_be() {
    let world = world().await;
    let contents = secret::Contents {
        uid: Some("s".to_owned()),
        key: Some(SecretText::new("cr_sa_first")),
        ca: None,
        binding: Some("{}".to_owned()),
        rotated_at: Some(Time::from_microseconds(0).unwrap()),
        labelled: true,
        has_record: false,
    };
    let mut plan = plan(Account::Keep(account_id()), Key::Keep);
    plan.grant.clear();
    plan.revoke.clear();
    let granted = grant(
        &object(),
        &plan,
        &observed(secret::Observed::Ours(contents)),
        &world.context,
    )
    .await
    .unwrap();
    assert_eq!(granted.key.expose(), "cr_sa_first");
    assert!(world.asked().await.is_empty());
    assert!(world.kube.take_writes().is_empty());
}
