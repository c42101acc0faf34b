use super::*;
use sealpod_core::Time;
use uuid::Uuid;

const OURS: &str = "cluster/shop/uid/app";

fn entries(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn existing(key: &str, value: &str, description: Option<&str>) -> Configuration {
    Configuration {
        id: Uuid::nil(),
        environment_slug: "prod".to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        description: description.map(str::to_owned),
        created_at: Time::from_microseconds(0).unwrap(),
        updated_at: Time::from_microseconds(0).unwrap(),
    }
}

fn planned(wanted: &[(&str, &str)], owned: bool, found: &[Configuration]) -> Plan {
    let entries = entries(wanted);
    let wanted = Wanted {
        environment: "prod",
        entries: &entries,
        owned,
    };
    plan(&[wanted], found, OURS)
}

fn update(value: &str, description: Option<&str>) -> Action {
    Action::Update {
        environment: "prod".to_owned(),
        key: "K".to_owned(),
        body: UpdateConfiguration {
            value: value.to_owned(),
            description: description.map(str::to_owned),
        },
    }
}

fn deletion() -> Action {
    Action::Delete {
        environment: "prod".to_owned(),
        key: "K".to_owned(),
    }
}

#[test]
fn what_is_not_there_is_made_with_the_name_of_who_set_it() {
    let plan = planned(&[("K", "v")], true, &[]);
    let [Action::Create(body)] = &plan.actions[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        (body.environment_slug.as_str(), body.key.as_str(), body.value.as_str()),
        ("prod", "K", "v")
    );
    assert_eq!(
        body.description.as_deref(),
        Some("sealpod.dev/owner=cluster/shop/uid/app")
    );
    assert_eq!(setter(&existing("K", "v", body.description.as_deref())), Some(OURS));
}

#[test]
fn drift_of_what_it_set_is_put_back_and_everything_else_is_left_alone() {
    let ours = format!("why: see the runbook. {}", mark(OURS));
    for (name, found, owned, want) in [
        ("as it should be", existing("K", "v", Some(&ours)), true, vec![]),
        (
            "drifted",
            existing("K", "x", Some(&ours)),
            true,
            vec![update("v", None)],
        ),
        (
            "drifted, in an environment of others",
            existing("K", "x", Some(&ours)),
            false,
            vec![update("v", None)],
        ),
        ("the same, by an administrator", existing("K", "v", None), true, vec![]),
        (
            "set by an earlier object, in an environment that is ours now",
            existing("K", "v", Some("old sealpod.dev/owner=cluster/shop/old/app")),
            true,
            vec![update("v", Some("old sealpod.dev/owner=cluster/shop/uid/app"))],
        ),
    ] {
        let plan = planned(&[("K", "v")], owned, &[found]);
        assert_eq!((plan.actions, plan.contested), (want, vec![]), "{name}");
    }
}

#[test]
fn what_an_administrator_or_another_object_set_is_contested_and_not_touched() {
    for (description, owned) in [
        (None, true),
        (None, false),
        (Some("a note"), true),
        (Some("sealpod.dev/owner=cluster/shop/uid/environments/prod"), false),
        // Only the whole word counts.
        (Some("not-sealpod.dev/owner=cluster/shop/uid/app"), true),
    ] {
        let plan = planned(&[("K", "v"), ("L", "w")], owned, &[existing("K", "x", description)]);
        assert_eq!(plan.contested, ["prod/K"], "{description:?}");
        assert!(
            matches!(&plan.actions[..], [Action::Create(body)] if body.key == "L"),
            "the rest is set: {plan:?}"
        );
        let refusal = plan.refusal().unwrap();
        assert_eq!(refusal.reason, reasons::CONFLICT);
        assert!(
            refusal.message.contains("prod/K") && !refusal.message.contains('x'),
            "{}",
            refusal.message
        );
    }
}

#[test]
fn what_is_taken_out_of_the_spec_goes_only_if_an_object_of_this_namespace_set_it() {
    for (setter, owned, goes) in [
        (Some(OURS), true, true),
        (Some(OURS), false, true),
        (Some("cluster/shop/uid/environments/prod"), true, true),
        (Some("cluster/shop/uid/environments/prod"), false, false),
        (Some("cluster/shop/old-uid/app"), true, false),
        (Some("other/shop/uid/app"), true, false),
        (Some("nonsense"), true, false),
        (None, true, false),
    ] {
        let description = setter.map(mark);
        let plan = planned(&[], owned, &[existing("K", "v", description.as_deref())]);
        let want = if goes { vec![deletion()] } else { vec![] };
        assert_eq!(plan.actions, want, "{setter:?}, owned: {owned}");
    }
}

#[test]
fn configurations_of_other_environments_are_none_of_its_business() {
    let mut elsewhere = existing("K", "x", Some(&mark(OURS)));
    elsewhere.environment_slug = "qa".to_owned();
    assert_eq!(planned(&[], true, &[elsewhere]), Plan::default());
}

#[test]
fn an_empty_list_deletes_nothing() {
    assert_eq!(planned(&[], true, &[]), Plan::default());
}

#[test]
fn a_fault_names_the_field_and_never_the_value() {
    assert_eq!(fault("spec.configurations", &entries(&[("K", "v")])), None);
    for (key, value, says) in [
        ("K", "", "has no value for `K`"),
        (" ", "canary", "a key that must not be blank"),
        ("a\tb", "canary", "a key that must not contain control characters"),
    ] {
        let refusal = fault("spec.configurations", &entries(&[(key, value)])).unwrap();
        assert_eq!(refusal.reason, reasons::INVALID_SPEC);
        assert!(
            refusal.message.starts_with("spec.configurations ") && refusal.message.contains(says),
            "{}",
            refusal.message
        );
        assert!(!refusal.message.contains("canary"));
    }
}

#[test]
fn a_long_list_of_contested_ones_is_cut_and_a_story_counts() {
    let keys: Vec<_> = (0..30).map(|n| (format!("K{n:02}"), "v".to_owned())).collect();
    let entries = keys.iter().cloned().collect();
    let found: Vec<_> = keys.iter().map(|(key, _)| existing(key, "x", None)).collect();
    let wanted = Wanted {
        environment: "prod",
        entries: &entries,
        owned: true,
    };
    let message = plan(&[wanted], &found, OURS).refusal().unwrap().message;
    assert!(message.contains("prod/K09, …") && !message.contains("K10"), "{message}");
    let mixed = planned(
        &[("A", "v"), ("B", "v")],
        true,
        &[existing("K", "v", Some(&mark(OURS)))],
    );
    assert_eq!(mixed.story().as_deref(), Some("configurations: made 2, deleted 1"));
    assert_eq!(Plan::default().story(), None);
}
