use super::*;
use crate::controller::namespace;
use crate::controller::retries::Again;
use sealpod_core::SecretText;
use sealpod_core::wire::management as wire;
use sealpod_core::wire::org::SubjectType;
use serde_json::{Value, json};

const APPLICATION: &str = "cluster/shop/uid/shop";
const BINDING: &str = "cluster/shop/uid/secretbindings/db";
const KEY: &str = "cr_sa_123456789abc";
const DAY: i64 = 86_400;

fn at(seconds: i64) -> Time {
    Time::from_microseconds(seconds * 1_000_000).unwrap()
}

fn object(extra: &Value) -> SecretBinding {
    let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    SecretBinding::new("db", serde_json::from_value(spec).unwrap())
}

fn account(project: &str, owner: &str) -> ServiceAccount {
    ServiceAccount {
        id: Uuid::from_u128(1),
        name: "k8s/cluster/shop/db".to_owned(),
        project: Some(project.to_owned()),
        key_prefix: KEY[..12].to_owned(),
        expires_at: None,
        labels: Labels::from([
            (OWNER_LABEL.to_owned(), owner.to_owned()),
            (APPLICATION_ID_LABEL.to_owned(), Uuid::nil().to_string()),
        ]),
        created_at: at(0),
        last_used_at: None,
    }
}

fn rule(id: u128, project: &str, environment: &str, key: &str) -> AclRule {
    AclRule {
        id: Uuid::from_u128(id),
        subject_type: SubjectType::ServiceAccount,
        subject_id: Uuid::from_u128(1),
        email: None,
        project_pattern: project.parse().unwrap(),
        env_pattern: environment.parse().unwrap(),
        key_pattern: key.parse().unwrap(),
        configurations: false,
        permission: Permission::Read,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn contents(key: &str, rotated_at: Option<Time>) -> secret::Observed {
    secret::Observed::Ours(secret::Contents {
        key: Some(SecretText::new(key)),
        rotated_at,
        ..secret::Contents::default()
    })
}

/// A binding that has everything: account, rule for `*`, and a key made at second 0.
fn settled() -> Observed {
    Observed {
        namespace: namespace::Observed {
            name: "shop".to_owned(),
            uid: "uid".to_owned(),
            terminating: false,
        },
        application_owner: APPLICATION.to_owned(),
        account_name: "k8s/cluster/shop/db".to_owned(),
        account_owner: BINDING.to_owned(),
        application_namespace: "shop".to_owned(),
        is_in_scope: true,
        has_application: true,
        is_admitted: true,
        application: Some(wire::Application {
            id: Uuid::nil(),
            name: "Shop".to_owned(),
            slug: "shop".to_owned(),
            description: None,
            labels: Labels::from([(OWNER_LABEL.to_owned(), APPLICATION.to_owned())]),
            created_at: at(0),
            updated_at: at(0),
        }),
        environments: vec!["local".to_owned(), "prod".to_owned()],
        account: Some(account("shop", BINDING)),
        rules: vec![rule(7, "shop", "prod", "*")],
        secret: contents(KEY, Some(at(0))),
    }
}

fn plan_at(object: &SecretBinding, observed: &Observed, now: i64) -> Plan {
    match evaluate(object, observed, "default", at(now)) {
        Access::Grant(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn refused(object: &SecretBinding, observed: &Observed) -> (Refusal, Vec<Uuid>) {
    match evaluate(object, observed, "default", at(100)) {
        Access::Refuse { refusal, revoke, .. } => (refusal, revoke),
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_rest_nothing_is_done() {
    let plan = plan_at(&object(&json!({})), &settled(), 100);
    assert_eq!(plan.account, Account::Keep(Uuid::from_u128(1)));
    assert_eq!((plan.grant.len(), plan.revoke.len(), plan.key), (0, 0, Key::Keep));
    assert_eq!(plan.overlap, 3_600);
    let file: sealpod_core::injection::BindingFile = serde_json::from_str(&plan.binding).unwrap();
    assert_eq!(
        (file.project.as_str(), file.environment.as_str(), file.mode),
        ("shop", "prod", 0o440)
    );
    assert_eq!((file.refresh_interval, file.watch, file.secrets), (30, true, None));
}

#[test]
fn a_right_ends_with_what_it_rests_on() {
    let revoked = vec![Uuid::from_u128(7)];
    let mut no_object = settled();
    no_object.has_application = false;
    no_object.application = None;
    let mut gone = settled();
    gone.application = None;
    let mut label_gone = settled();
    label_gone.application.as_mut().unwrap().labels.clear();
    let mut others = settled();
    others
        .application
        .as_mut()
        .unwrap()
        .labels
        .insert(OWNER_LABEL.to_owned(), "cluster/other/uid2/shop".to_owned());
    let mut no_environment = settled();
    no_environment.environments = vec!["local".to_owned()];
    for (observed, reason) in [
        (no_object, reasons::APPLICATION_NOT_FOUND),
        (gone, reasons::APPLICATION_NOT_READY),
        (label_gone, reasons::APPLICATION_NOT_READY),
        (others, reasons::APPLICATION_NOT_READY),
        (no_environment, reasons::ENVIRONMENT_NOT_FOUND),
    ] {
        let (refusal, revoke) = refused(&object(&json!({})), &observed);
        assert_eq!(
            (refusal.reason, refusal.again, &revoke),
            (reason, Again::Waiting, &revoked)
        );
    }
}

#[test]
fn another_namespaces_application_is_read_only_while_it_admits_this_one() {
    let object = object(&json!({"applicationRef": {"name": "shop", "namespace": "platform"}}));
    let mut admitted = settled();
    admitted.application_namespace = "platform".to_owned();
    plan_at(&object, &admitted, 100);
    let mut refused_by_it = admitted.clone();
    refused_by_it.is_admitted = false;
    let mut no_such = refused_by_it.clone();
    no_such.has_application = false;
    no_such.application = None;
    let (one, revoke) = refused(&object, &refused_by_it);
    let (other, _) = refused(&object, &no_such);
    assert_eq!(
        (one.reason, revoke),
        (reasons::NAMESPACE_NOT_ADMITTED, vec![Uuid::from_u128(7)])
    );
    // Nobody can find out what another namespace has.
    assert_eq!(one, other);
    assert!(one.message.contains("spec.allowedNamespaces"), "{}", one.message);
}

#[test]
fn the_rules_give_configurations_only_where_the_binding_wants_them() {
    let wanted = object(&json!({"configurations": {}}));
    let plan = plan_at(&wanted, &settled(), 100);
    assert!(plan.configurations, "{plan:?}");
    assert_eq!((plan.grant, plan.revoke), (vec![Pattern::any()], vec![]));
    let mut given = settled();
    given.rules[0].configurations = true;
    assert_eq!(plan_at(&wanted, &given, 100).grant, []);
    let plan = plan_at(&object(&json!({"configurations": {"enabled": false}})), &given, 100);
    assert!(!plan.configurations && plan.grant.len() == 1, "{plan:?}");
}

#[test]
fn a_message_says_what_to_fix() {
    let mut observed = settled();
    observed.environments = vec!["local".to_owned(), "staging".to_owned()];
    let (refusal, _) = refused(&object(&json!({})), &observed);
    assert!(
        refusal
            .message
            .contains("no environment `prod` (it has local, staging)"),
        "{}",
        refusal.message
    );
    assert!(
        refusal.message.contains("correct spec.environment"),
        "{}",
        refusal.message
    );
}

#[test]
fn a_broken_spec_leaves_rights_as_they_are_but_not_when_the_server_took_them_back() {
    let broken = object(&json!({"secrets": [{"name": "a"}, {"name": "b", "path": "a"}]}));
    let (refusal, revoke) = refused(&broken, &settled());
    assert_eq!((refusal.reason, revoke), (reasons::PATH_COLLISION, vec![]));
    let mut gone = settled();
    gone.application = None;
    let (refusal, revoke) = refused(&broken, &gone);
    assert_eq!((refusal.reason, revoke.len()), (reasons::APPLICATION_NOT_READY, 1));
}

#[test]
fn a_selector_that_selects_nothing_is_told_with_its_expression() {
    let selected = |expression: Value| {
        let first = json!({"key": "app", "operator": "Exists"});
        object(&json!({"podSelector": {"matchExpressions": [first, expression]}}))
    };
    // What an object of before the schema's rule has too much, or leaves out, and selects by all the same.
    for expression in [
        json!({"key": "tier", "operator": "In", "values": ["web"]}),
        json!({"key": "tier", "operator": "NotIn", "values": []}),
        json!({"key": "tier", "operator": "DoesNotExist", "values": ["web"]}),
    ] {
        plan_at(&selected(expression), &settled(), 100);
    }
    for (expression, why) in [
        (json!({"key": "tier", "operator": "In"}), "no values"),
        (json!({"key": "tier", "operator": "In", "values": []}), "no values"),
        (json!({"key": "tier", "operator": "NotIn"}), "no values"),
        (
            json!({"key": "tier", "operator": "in", "values": ["web"]}),
            "another operator",
        ),
    ] {
        let (refusal, revoke) = refused(&selected(expression), &settled());
        assert_eq!(
            (refusal.reason, revoke),
            (reasons::INVALID_SPEC, vec![]),
            "pods that have it keep it"
        );
        let message = &refusal.message;
        assert!(
            message.starts_with("spec.podSelector.matchExpressions[1] has ") && message.contains(why),
            "{message}"
        );
    }
}

#[test]
fn a_secret_of_somebody_else_is_left_alone() {
    let mut observed = settled();
    observed.secret = secret::Observed::NotOurs;
    let (refusal, revoke) = refused(&object(&json!({})), &observed);
    assert_eq!((refusal.reason, revoke), (reasons::SECRET_NOT_OWNED, vec![]));
    assert!(refusal.message.contains("`db-sealpod-key`"), "{}", refusal.message);
}

#[test]
fn new_rules_are_made_and_unwanted_ones_end() {
    let object = object(&json!({"secrets": [{"name": "db*", "path": "db"}, {"pattern": "tls-*"}]}));
    let mut observed = settled();
    observed.rules = vec![
        rule(1, "shop", "prod", "*"),
        rule(2, "shop", "prod", "tls-*"),
        rule(3, "shop", "staging", "tls-*"),
        rule(4, "other", "prod", "tls-*"),
    ];
    let plan = plan_at(&object, &observed, 100);
    assert_eq!(plan.grant.iter().map(Pattern::as_str).collect::<Vec<_>>(), ["db\\*"]);
    assert_eq!(plan.revoke, [1, 3, 4].map(Uuid::from_u128));
}

#[test]
fn a_rule_that_gives_more_is_put_back() {
    for widen in [
        |r: &mut AclRule| r.permission = Permission::Write,
        |r: &mut AclRule| r.configurations = true,
    ] {
        let mut observed = settled();
        widen(&mut observed.rules[0]);
        let plan = plan_at(&object(&json!({})), &observed, 100);
        assert_eq!((plan.grant, plan.revoke), (vec![Pattern::any()], vec![]));
    }
}

#[test]
fn configurations_are_a_right_of_their_own_and_reach_the_pods_with_the_files() {
    let enabled = object(&json!({
        "configurations": {"format": "env"},
        "files": [{"path": "app.ini", "format": "template", "template": "x"}],
    }));
    let mut observed = settled();
    let plan = plan_at(&enabled, &observed, 100);
    assert!(plan.configurations);
    assert_eq!((plan.grant.len(), plan.revoke.len()), (1, 0), "the rule is made again");
    let file: serde_json::Value = serde_json::from_str(&plan.binding).unwrap();
    assert_eq!(
        file["configurations"],
        json!({"path": "configurations.env", "format": "env"})
    );
    assert_eq!(file["files"], json!([{"path": "app.ini", "template": "x"}]));
    observed.rules[0].configurations = true;
    assert!(plan_at(&enabled, &observed, 100).grant.is_empty());
    let disabled = plan_at(&object(&json!({})), &observed, 100);
    assert_eq!(
        (disabled.grant.len(), disabled.configurations),
        (1, false),
        "and taken back"
    );
}

#[test]
fn the_account_is_this_bindings_in_this_project_or_replaced() {
    let mut none = settled();
    none.account = None;
    none.rules = vec![];
    let plan = plan_at(&object(&json!({})), &none, 100);
    let Account::Create(body) = &plan.account else {
        panic!("{:?}", plan.account)
    };
    assert_eq!(
        (body.name.as_str(), body.project.as_deref()),
        ("k8s/cluster/shop/db", Some("shop"))
    );
    assert_eq!(body.labels[OWNER_LABEL], BINDING);
    assert_eq!(body.labels[APPLICATION_ID_LABEL], Uuid::nil().to_string());
    for (other, application) in [
        (account("mail", BINDING), Uuid::nil()),
        (account("shop", "cluster/shop/old-uid/secretbindings/db"), Uuid::nil()),
        // The application is another one of the same slug.
        (account("shop", BINDING), Uuid::from_u128(9)),
    ] {
        let mut observed = settled();
        observed.account = Some(other);
        observed.application.as_mut().unwrap().id = application;
        let plan = plan_at(&object(&json!({})), &observed, 100);
        assert!(matches!(plan.account, Account::Replace(old, _) if old == Uuid::from_u128(1)));
        // Its rules end with it; the new one needs them all.
        assert_eq!((plan.grant.len(), plan.revoke.len()), (1, 0));
    }
}

#[test]
fn a_server_whose_clock_went_back_costs_no_account() {
    let mut observed = settled();
    observed.application.as_mut().unwrap().created_at = at(DAY);
    assert_eq!(
        plan_at(&object(&json!({})), &observed, 100).account,
        Account::Keep(Uuid::from_u128(1))
    );
}

#[test]
fn a_key_is_kept_until_it_is_lost_foreign_or_due() {
    let key = |secret: secret::Observed, now: i64| {
        let mut observed = settled();
        observed.secret = secret;
        plan_at(&object(&json!({})), &observed, now).key
    };
    let keep = |plan: Key| plan == Key::Keep;
    assert!(keep(key(contents(KEY, Some(at(0))), DAY - 1)));
    assert!(!keep(key(contents(KEY, Some(at(0))), DAY)));
    assert!(!keep(key(secret::Observed::Absent, 100)));
    assert!(!keep(key(secret::Observed::Ours(secret::Contents::default()), 100)));
    assert!(!keep(key(contents(KEY, None), 100)));
    // An annotation from the future would put the rotation off for ever.
    assert!(!keep(key(contents(KEY, Some(at(200))), 100)));
    assert!(!keep(key(contents("cr_sa_anotherkey0", Some(at(0))), 100)));
    assert!(!keep(key(contents("short", Some(at(0))), 100)));
}

#[test]
fn in_a_namespace_that_goes_nothing_is_granted() {
    let mut observed = settled();
    observed.namespace.terminating = true;
    assert_eq!(
        evaluate(&object(&json!({})), &observed, "default", at(100)),
        Access::Wait
    );
}
