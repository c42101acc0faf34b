use super::*;
use serde_json::{Value, json};

fn object(secret: Option<&str>, asked: Option<&str>) -> Application {
    let mut object = Application::new(
        "app",
        serde_json::from_value(json!({"apiKeySecretName": secret})).unwrap(),
    );
    object.metadata.uid = Some("uid".to_owned());
    object.metadata.namespace = Some("shop".to_owned());
    object.metadata.annotations =
        asked.map(|value| BTreeMap::from([(controls::ROTATE_KEY.to_owned(), value.to_owned())]));
    object
}

fn given(uid: &str, secret: &str) -> Option<Given> {
    Given::of(&Labels::from([(
        API_KEY_SECRET_LABEL.to_owned(),
        format!("{uid}/{secret}"),
    )]))
}

fn contents() -> Contents {
    Contents {
        uid: Some("s".to_owned()),
        key: Some(SecretText::new("grm_canary")),
        accepted: true,
        rotated_for: None,
        labelled: true,
    }
}

fn observed(given: Option<Given>, secret: Found) -> Observed {
    Observed {
        given,
        secret,
        former: Found::Absent,
    }
}

fn delivered(plan: &Plan) -> &Source {
    match &plan.step {
        Step::Deliver(deliver) => &deliver.key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_asks_for_a_key_and_nobody_gets_one() {
    assert_eq!(plan(&object(None, None), &Observed::default()), Plan::default());
    assert_eq!(plan(&object(None, Some("1")), &Observed::default()), Plan::default());
}

#[test]
fn a_key_that_works_is_kept_and_one_that_does_not_is_made_anew() {
    let here = || given("uid", "key");
    let with = |edit: &dyn Fn(&mut Contents)| {
        let mut contents = contents();
        edit(&mut contents);
        plan(&object(Some("key"), None), &observed(here(), Found::Ours(contents)))
    };
    assert_eq!(with(&|_| {}), Plan::default());
    for (edit, because) in [
        (&(|c: &mut Contents| c.key = None) as &dyn Fn(&mut Contents), "no key"),
        (&|c: &mut Contents| c.accepted = false, "does not take"),
    ] {
        assert!(matches!(delivered(&with(edit)), Source::Mint(why) if why.contains(because)));
    }
    // Without its label the controller would not hear of its edits.
    assert!(matches!(delivered(&with(&|c| c.labelled = false)), Source::Write(key) if key.expose() == "grm_canary"));
    let gone = plan(&object(Some("key"), None), &observed(here(), Found::Absent));
    assert!(matches!(delivered(&gone), Source::Mint("there is no Secret")));
}

#[test]
fn a_rotation_is_made_once_for_each_value_of_the_annotation() {
    let with = |asked: Option<&str>, remembered: Option<&str>| {
        let mut contents = contents();
        contents.rotated_for = remembered.map(str::to_owned);
        plan(
            &object(Some("key"), asked),
            &observed(given("uid", "key"), Found::Ours(contents)),
        )
    };
    for (asked, remembered) in [(Some("1"), None), (Some("2"), Some("1"))] {
        let plan = with(asked, remembered);
        let Step::Deliver(deliver) = plan.step else {
            panic!("{asked:?}")
        };
        assert_eq!(deliver.key, Source::Mint("its rotation was asked for"));
        assert_eq!(deliver.rotated_for.as_deref(), asked, "and it is remembered");
    }
    for (asked, remembered) in [(Some("1"), Some("1")), (None, Some("1")), (None, None)] {
        assert_eq!(with(asked, remembered), Plan::default(), "{asked:?} {remembered:?}");
    }
    // The first key is not rotated by an annotation that was there before it.
    let first = plan(&object(Some("key"), Some("1")), &Observed::default());
    let Step::Deliver(deliver) = first.step else {
        panic!("none")
    };
    assert_eq!(deliver.rotated_for.as_deref(), Some("1"));
}

#[test]
fn a_secret_of_somebody_else_is_never_overwritten() {
    let plan = plan(
        &object(Some("key"), Some("1")),
        &observed(given("uid", "key"), Found::NotOurs),
    );
    assert_eq!(plan.step, Step::Nothing);
    let refusal = plan.refusal.unwrap();
    assert_eq!(refusal.reason, reasons::SECRET_NOT_OWNED);
    assert!(refusal.message.contains("`key`"), "{}", refusal.message);
}

#[test]
fn a_new_name_takes_the_key_along() {
    let observed = Observed {
        given: given("uid", "old"),
        secret: Found::Absent,
        former: Found::Ours(contents()),
    };
    let moved = plan(&object(Some("new"), None), &observed);
    assert!(matches!(delivered(&moved), Source::Write(key) if key.expose() == "grm_canary"));
    // Killed after the new one was written: the old one still has to go.
    let again = Observed {
        secret: Found::Ours(contents()),
        ..observed
    };
    assert_eq!(delivered(&plan(&object(Some("new"), None), &again)), &Source::Keep);
}

#[test]
fn what_is_not_wanted_any_more_is_withdrawn() {
    let withdrawn = plan(&object(None, None), &observed(given("uid", "key"), Found::Absent));
    assert_eq!((withdrawn.step, withdrawn.ends_earlier), (Step::Withdraw, false));
}

#[test]
fn keys_that_an_earlier_object_was_given_end_at_once() {
    for secret in [None, Some("key")] {
        let plan = plan(&object(secret, None), &observed(given("earlier", "key"), Found::Absent));
        assert!(plan.ends_earlier);
        assert_eq!(plan.step == Step::Nothing, secret.is_none());
    }
    // Whatever lies in the Secret by now: it was made for somebody else.
    let stolen = plan(
        &object(Some("key"), None),
        &observed(given("earlier", "key"), Found::Ours(contents())),
    );
    assert!(matches!(delivered(&stolen), Source::Mint(_)));
}

#[test]
fn what_is_built_is_what_is_read_and_only_by_its_owner() {
    let deliver = Deliver {
        name: "key".to_owned(),
        key: Source::Keep,
        rotated_for: Some("1".to_owned()),
    };
    let at = Time::from_microseconds(1_000_000).unwrap();
    let owner = object(Some("key"), None);
    let mut secret = build(
        &owner,
        &deliver,
        &SecretText::new("grm_canary"),
        at,
        Some("s".to_owned()),
    );
    let want = Contents {
        accepted: false,
        rotated_for: Some("1".to_owned()),
        ..contents()
    };
    assert_eq!(found(Some(secret.clone()), &owner), Found::Ours(want));
    let mut other = object(Some("key"), None);
    other.metadata.uid = Some("other".to_owned());
    assert_eq!(found(Some(secret.clone()), &other), Found::NotOurs);
    // An owner reference that users add without `controller` makes it nobody's of ours.
    secret.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    assert_eq!(found(Some(secret), &owner), Found::NotOurs);
    assert_eq!(found(None, &owner), Found::Absent);
}

#[test]
fn what_is_no_key_of_an_application_is_none() {
    let owner = object(Some("key"), None);
    let mut raw: Value = serde_json::to_value(build(
        &owner,
        &Deliver {
            name: "key".to_owned(),
            key: Source::Keep,
            rotated_for: None,
        },
        &SecretText::new("cr_sa_canary"),
        Time::from_microseconds(0).unwrap(),
        None,
    ))
    .unwrap();
    assert_eq!(
        found(serde_json::from_value(raw.clone()).ok(), &owner)
            .ours()
            .unwrap()
            .key,
        None
    );
    raw["data"] = json!({});
    assert_eq!(
        found(serde_json::from_value(raw).ok(), &owner).ours().unwrap().key,
        None
    );
}

#[test]
fn no_key_is_made_for_a_secret_that_cannot_be() {
    for name in ["?watch=true", "a b", "A"] {
        let plan = plan(&object(Some(name), None), &observed(None, Found::Absent));
        let refusal = plan.refusal.unwrap();
        assert_eq!((refusal.reason, plan.step), (reasons::INVALID_SPEC, Step::Nothing));
        assert!(
            refusal.message.starts_with("spec.apiKeySecretName "),
            "{}",
            refusal.message
        );
    }
}
