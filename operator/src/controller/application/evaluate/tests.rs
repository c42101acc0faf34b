use super::*;
use crate::controller::namespace;
use crate::controller::retries::Again;
use sealpod_core::Time;
use sealpod_core::kubernetes::{ADOPTABLE_BY_LABEL, RELEASED_BY_LABEL};
use sealpod_core::wire::management as wire;
use serde_json::{Value, json};
use uuid::Uuid;

const OURS: &str = "cluster/shop/uid/app";
const OTHERS: &str = "cluster/other/uid2/app";

fn object(spec: Value) -> Application {
    Application::new("app", serde_json::from_value(spec).unwrap())
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn application(pairs: &[(&str, &str)]) -> wire::Application {
    wire::Application {
        id: Uuid::nil(),
        name: "App".to_owned(),
        slug: "app".to_owned(),
        description: Some("by an administrator".to_owned()),
        labels: labels(pairs),
        created_at: Time::from_microseconds(0).unwrap(),
        updated_at: Time::from_microseconds(0).unwrap(),
    }
}

fn environment(slug: &str, pairs: &[(&str, &str)]) -> wire::Environment {
    wire::Environment {
        id: Uuid::nil(),
        slug: slug.to_owned(),
        name: slug.to_owned(),
        labels: labels(pairs),
        created_at: Time::from_microseconds(0).unwrap(),
    }
}

fn observed(application: Option<wire::Application>, environments: Vec<wire::Environment>) -> Observed {
    Observed {
        namespace: namespace::Observed {
            name: "shop".to_owned(),
            uid: "uid".to_owned(),
            terminating: false,
        },
        owner: OURS.to_owned(),
        application,
        environments,
        configurations: vec![],
        key: key::Observed::default(),
    }
}

fn plan(object: &Application, observed: &Observed) -> Plan {
    match evaluate(object, observed, "https://s:7100") {
        Verdict::Proceed(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn refusal(object: &Application, observed: &Observed) -> Refusal {
    match evaluate(object, observed, "https://s:7100") {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_application_is_made_with_its_owner_and_environments() {
    let object = object(json!({
        "displayName": "App",
        "environments": [{"name": "local"}, {"name": "Production", "slug": "prod"}],
    }));
    let plan = plan(&object, &observed(None, vec![]));
    let Action::Create(body) = plan.application else {
        panic!("{:?}", plan.application)
    };
    assert_eq!((body.name.as_str(), body.slug.as_deref()), ("App", Some("app")));
    assert_eq!(body.labels, labels(&[(OWNER_LABEL, OURS)]));
    // The server makes `local` itself.
    let want = CreateEnvironment {
        name: "Production".to_owned(),
        slug: Some("prod".to_owned()),
        labels: labels(&[(OWNER_LABEL, OURS)]),
    };
    assert_eq!(plan.environments, [EnvironmentAction::Create(want)]);
}

#[test]
fn what_this_object_did_not_make_is_refused_with_what_to_do() {
    for pairs in [
        &[(OWNER_LABEL, OTHERS)][..],
        &[(OWNER_LABEL, OTHERS), (ADOPTABLE_BY_LABEL, OURS)],
        &[(ADOPTABLE_BY_LABEL, OTHERS)],
        &[(RELEASED_BY_LABEL, OURS)],
        &[],
    ] {
        let wants = object(json!({"adopt": true}));
        let refusal = refusal(&wants, &observed(Some(application(pairs)), vec![]));
        assert_eq!(
            (refusal.reason, refusal.again),
            (reasons::ALREADY_EXISTS, Again::Waiting),
            "{pairs:?}"
        );
        assert!(refusal.message.contains("curl"), "{}", refusal.message);
        // It may be another tenant's: nothing of it is quoted.
        assert!(!refusal.message.contains("by an administrator") && !refusal.message.contains(OTHERS));
    }
}

#[test]
fn consent_takes_over_and_uses_the_consent_up() {
    let before = application(&[("team", "a"), (RELEASED_BY_LABEL, OURS), (ADOPTABLE_BY_LABEL, OURS)]);
    let refused = refusal(&object(json!({})), &observed(Some(before.clone()), vec![]));
    assert!(
        refused.message.ends_with("set spec.adopt to true if it shall"),
        "{}",
        refused.message
    );
    let Action::Update(body) = plan(&object(json!({"adopt": true})), &observed(Some(before), vec![])).application
    else {
        panic!("not updated")
    };
    assert_eq!(body.labels, Some(labels(&[("team", "a"), (OWNER_LABEL, OURS)])));
    assert_eq!(
        (body.name.as_str(), body.description.as_deref()),
        ("App", Some("by an administrator"))
    );
}

#[test]
fn only_what_the_spec_says_is_put_back() {
    let ours = || observed(Some(application(&[(OWNER_LABEL, OURS)])), vec![]);
    assert_eq!(plan(&object(json!({})), &ours()).application, Action::Keep);
    assert_eq!(
        plan(&object(json!({"displayName": "App"})), &ours()).application,
        Action::Keep
    );
    let Action::Update(body) = plan(&object(json!({"displayName": "Shop"})), &ours()).application else {
        panic!("not updated")
    };
    assert_eq!(body.name, "Shop");
    assert_eq!(body.description.as_deref(), Some("by an administrator"));
    assert_eq!(body.labels, None);
}

#[test]
fn an_environment_out_of_the_spec_goes_only_if_this_object_made_it() {
    let environments = vec![
        environment("local", &[]),
        environment("qa", &[]),
        environment("theirs", &[(OWNER_LABEL, "cluster/shop/uid/environments/theirs")]),
        environment("old", &[(OWNER_LABEL, OURS), ("team", "a")]),
    ];
    let observed = observed(Some(application(&[(OWNER_LABEL, OURS)])), environments);
    let delete = plan(&object(json!({"deletionPolicy": "Delete"})), &observed);
    assert_eq!(
        delete.environments,
        [EnvironmentAction::Delete { slug: "old".to_owned() }]
    );
    let retain = plan(&object(json!({})), &observed);
    let released = EnvironmentAction::Update {
        slug: "old".to_owned(),
        body: UpdateEnvironment {
            name: "old".to_owned(),
            labels: Some(labels(&[("team", "a"), (RELEASED_BY_LABEL, OURS)])),
        },
    };
    assert_eq!(retain.environments, [released]);
}

#[test]
fn environments_of_the_spec_are_made_renamed_or_left_to_whose_they_are() {
    let object = object(json!({"environments": [
        {"name": "local"}, {"name": "QA", "slug": "qa"}, {"name": "back"}, {"name": "new"},
    ]}));
    let environments = vec![
        environment("local", &[]),
        environment("qa", &[(OWNER_LABEL, OURS)]),
        environment("back", &[(RELEASED_BY_LABEL, OURS)]),
    ];
    let plan = plan(
        &object,
        &observed(Some(application(&[(OWNER_LABEL, OURS)])), environments),
    );
    let [
        EnvironmentAction::Update { slug: qa, body },
        EnvironmentAction::Update {
            slug: back,
            body: taken,
        },
        EnvironmentAction::Create(new),
    ] = &plan.environments[..]
    else {
        panic!("{:?}", plan.environments)
    };
    assert_eq!((qa.as_str(), body.name.as_str(), &body.labels), ("qa", "QA", &None));
    assert_eq!(
        (back.as_str(), &taken.labels),
        ("back", &Some(labels(&[(OWNER_LABEL, OURS)])))
    );
    assert_eq!(new.slug.as_deref(), Some("new"));
}

#[test]
fn an_environment_of_another_object_is_a_conflict_only_if_the_spec_wants_it() {
    let theirs = environment("prod", &[(OWNER_LABEL, "cluster/shop/uid/environments/prod")]);
    let observed = observed(Some(application(&[(OWNER_LABEL, OURS)])), vec![theirs]);
    let wants = object(json!({"environments": [{"name": "prod"}]}));
    assert_eq!(refusal(&wants, &observed).reason, reasons::CONFLICT);
    assert_eq!(plan(&object(json!({})), &observed), Plan::default());
}

#[test]
fn an_object_from_before_the_schema_is_refused_by_name_of_the_field() {
    for (spec, field) in [
        (json!({"slug": "Not A Slug"}), "spec.slug"),
        (
            json!({"environments": [{"name": "ok"}, {"name": "Not"}]}),
            "spec.environments[1].slug",
        ),
        (
            json!({"environments": [{"name": "a"}, {"name": "b", "slug": "a"}]}),
            "`a` twice",
        ),
        (
            json!({"allowedNamespaces": {"from": "Selector"}}),
            "spec.allowedNamespaces has",
        ),
    ] {
        let refusal = refusal(&object(spec), &observed(None, vec![]));
        assert_eq!((refusal.reason, refusal.again), (reasons::INVALID_SPEC, Again::Stuck));
        assert!(refusal.message.contains(field), "{}", refusal.message);
    }
}

#[test]
fn in_a_namespace_that_goes_nothing_is_made() {
    let mut observed = observed(None, vec![]);
    observed.namespace.terminating = true;
    assert_eq!(evaluate(&object(json!({})), &observed, ""), Verdict::Wait);
}

#[test]
fn a_deletion_touches_only_what_is_exactly_ours() {
    let delete = object(json!({"deletionPolicy": "Delete"}));
    for pairs in [&[(OWNER_LABEL, OTHERS)][..], &[(RELEASED_BY_LABEL, OURS)], &[]] {
        let observed = observed(
            Some(application(pairs)),
            vec![environment("prod", &[(OWNER_LABEL, OURS)])],
        );
        assert_eq!(clean_up(&delete, &observed), Plan::default(), "{pairs:?}");
    }
    assert_eq!(clean_up(&delete, &observed(None, vec![])), Plan::default());
    let ours = observed(
        Some(application(&[(OWNER_LABEL, OURS)])),
        vec![environment("prod", &[(OWNER_LABEL, OURS)])],
    );
    assert_eq!(clean_up(&delete, &ours).application, Action::Delete);
    let retained = clean_up(&object(json!({})), &ours);
    let Action::Update(body) = retained.application else {
        panic!("not released")
    };
    assert_eq!(body.labels, Some(labels(&[(RELEASED_BY_LABEL, OURS)])));
    assert_eq!(retained.environments.len(), 1);
}

#[test]
fn an_adopted_application_comes_with_what_its_earlier_owner_made_in_it() {
    let environments = vec![
        environment("prod", &[(OWNER_LABEL, "cluster/shop/old-uid/app")]),
        environment("qa", &[(OWNER_LABEL, "cluster/shop/old-uid/app")]),
    ];
    let observed = observed(Some(application(&[(ADOPTABLE_BY_LABEL, OURS)])), environments);
    let plan = plan(
        &object(json!({"adopt": true, "environments": [{"name": "prod"}]})),
        &observed,
    );
    let [EnvironmentAction::Update { slug, body }] = &plan.environments[..] else {
        panic!("{:?}", plan.environments)
    };
    assert_eq!(
        (slug.as_str(), &body.labels),
        ("prod", &Some(labels(&[(OWNER_LABEL, OURS)])))
    );
}

#[test]
fn a_name_that_the_server_would_refuse_is_named_by_its_field() {
    let mut long = object(json!({"slug": "app"}));
    long.metadata.name = Some("a".repeat(201));
    for (object, want) in [
        (
            object(json!({"displayName": " "})),
            "spec.displayName must not be blank",
        ),
        (
            object(json!({"environments": [{"name": "a\tb", "slug": "ab"}]})),
            "spec.environments[0].name must not contain control characters",
        ),
        (
            long,
            "metadata.name, the default of spec.displayName, must be at most 200 characters",
        ),
    ] {
        let refusal = refusal(&object, &observed(None, vec![]));
        assert_eq!(
            (refusal.reason, refusal.message.as_str()),
            (reasons::INVALID_SPEC, want)
        );
        assert_eq!(refusal.again, Again::Stuck);
    }
}

fn configuration(environment: &str, key: &str, setter: &str) -> wire::Configuration {
    wire::Configuration {
        id: Uuid::nil(),
        environment_slug: environment.to_owned(),
        key: key.to_owned(),
        value: "old".to_owned(),
        description: Some(configurations::mark(setter)),
        created_at: Time::from_microseconds(0).unwrap(),
        updated_at: Time::from_microseconds(0).unwrap(),
    }
}

#[test]
fn configurations_of_the_short_form_are_set_also_in_environments_of_others_and_pruned() {
    let object = object(json!({"environments": [
        {"name": "new", "configurations": {"A": "1"}}, {"name": "local", "configurations": {"A": "2"}},
    ]}));
    let mut observed = observed(
        Some(application(&[(OWNER_LABEL, OURS)])),
        vec![
            environment("local", &[]),
            environment("qa", &[]),
            environment("gone", &[(OWNER_LABEL, OURS)]),
            environment("theirs", &[(OWNER_LABEL, "cluster/shop/uid/environments/theirs")]),
        ],
    );
    observed.configurations = vec![
        configuration("local", "A", OURS),
        configuration("local", "B", OURS),
        configuration("qa", "C", OURS),
        configuration("qa", "D", "cluster/shop/uid/other"),
        configuration("gone", "E", OURS),
        configuration("theirs", "F", OURS),
    ];
    let actions: Vec<_> = plan(&object, &observed)
        .configurations
        .actions
        .into_iter()
        .map(|action| match action {
            configurations::Action::Create(body) => format!("make {}/{}", body.environment_slug, body.key),
            configurations::Action::Update { environment, key, .. } => format!("set {environment}/{key}"),
            configurations::Action::Delete { environment, key } => format!("delete {environment}/{key}"),
        })
        .collect();
    // `gone` is released with all that is in it, and `theirs` is another object's.
    assert_eq!(actions, ["make new/A", "set local/A", "delete local/B", "delete qa/C"]);
}

#[test]
fn a_released_application_has_no_key_that_its_old_owner_was_given() {
    let mut ours = application(&[(OWNER_LABEL, OURS), ("team", "a")]);
    let without = clean_up(&object(json!({})), &observed(Some(ours.clone()), vec![]));
    assert!(!without.key.ends_earlier, "an administrator's key is not ours to end");
    ours.labels
        .insert(API_KEY_SECRET_LABEL.to_owned(), "uid/key".to_owned());
    let plan = clean_up(&object(json!({})), &observed(Some(ours), vec![]));
    assert!(plan.key.ends_earlier);
    let Action::Update(body) = plan.application else {
        panic!("not released")
    };
    assert_eq!(body.labels, Some(labels(&[("team", "a"), (RELEASED_BY_LABEL, OURS)])));
}

#[test]
fn a_story_tells_what_is_done_and_no_value() {
    let object = object(json!({
        "apiKeySecretName": "key", "environments": [{"name": "prod", "configurations": {"A": "canary"}}],
    }));
    let story = plan(&object, &observed(None, vec![])).story().unwrap();
    assert_eq!(
        story,
        "made the application; made environment `prod`; configurations: made 1; made a new key: there is no Secret"
    );
    assert_eq!(Plan::default().story(), None);
}
