//! What is to be done for an Environment: pure.

use kube::ResourceExt;
use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_core::names::MAX_ENVIRONMENT_NAME;
use sealpod_core::wire::Labels;
use sealpod_core::wire::management::{CreateEnvironment, UpdateEnvironment};
use sealpod_crds::{DeletionPolicy, Environment};

use super::observe::Observed;
use crate::controller::configurations;
use crate::controller::owner::{Ownership, is_left_behind, needs_consent, owned, ownership, released};
use crate::controller::referred::Referred;
use crate::controller::verdict::{Refusal, Verdict, reasons};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub environment: Action,
    pub configurations: configurations::Plan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Keep,
    Create(CreateEnvironment),
    Update(UpdateEnvironment),
    Delete,
}

impl Plan {
    /// What will be done, for an event.
    pub fn story(&self) -> Option<String> {
        let environment = match &self.environment {
            Action::Create(_) => Some("made the environment".to_owned()),
            Action::Update(body) if body.labels.is_some() => Some("took the environment over".to_owned()),
            Action::Update(_) => Some("put the environment's name back".to_owned()),
            Action::Keep | Action::Delete => None,
        };
        let parts: Vec<_> = environment.into_iter().chain(self.configurations.story()).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

struct Input<'a> {
    object: &'a Environment,
    observed: &'a Observed,
    server_url: &'a str,
}

impl Input<'_> {
    fn application(&self) -> Referred<'_> {
        Referred {
            namespace: &self.observed.namespace.name,
            name: &self.object.spec.application_ref.name,
            exists: self.observed.has_application,
            owner: &self.observed.application_owner,
            on_the_server: self.observed.application.as_ref(),
        }
    }
}

/// In this order; the first that objects names the reason.
const CHECKS: [fn(&Input) -> Option<Refusal>; 7] = [
    the_slug_is_valid,
    the_name_is_valid,
    the_configurations_are_valid,
    the_application_exists,
    the_application_is_on_the_server,
    no_older_object_claims_the_slug,
    the_environment_is_free_or_ours,
];

pub fn evaluate(object: &Environment, observed: &Observed, server_url: &str) -> Verdict<Plan> {
    if observed.namespace.terminating {
        return Verdict::Wait;
    }
    let input = Input {
        object,
        observed,
        server_url,
    };
    match CHECKS.iter().find_map(|check| check(&input)) {
        Some(refusal) => Verdict::Refuse(refusal),
        None => Verdict::Proceed(Plan {
            environment: action(object, observed),
            configurations: configurations(object, observed),
        }),
    }
}

fn the_slug_is_valid(input: &Input) -> Option<Refusal> {
    let field = if input.object.spec.slug.is_some() {
        "spec.slug"
    } else {
        "metadata.name, the default of spec.slug,"
    };
    let error = input.object.slug().err()?;
    Some(Refusal::until_edited(reasons::INVALID_SPEC, format!("{field} {error}")))
}

/// The schema knows the length of one that is given, and nothing else.
fn the_name_is_valid(input: &Input) -> Option<Refusal> {
    let given = input.object.spec.display_name.as_deref();
    Refusal::of_display_name(given, &input.object.name_any(), MAX_ENVIRONMENT_NAME)
}

fn the_configurations_are_valid(input: &Input) -> Option<Refusal> {
    configurations::fault("spec.configurations", &input.object.spec.configurations)
}

fn the_application_exists(input: &Input) -> Option<Refusal> {
    input
        .application()
        .must_exist("make this object again with the right spec.applicationRef.name")
}

fn the_application_is_on_the_server(input: &Input) -> Option<Refusal> {
    input.application().must_be_its_own_on_the_server()
}

fn no_older_object_claims_the_slug(input: &Input) -> Option<Refusal> {
    let older = input.observed.older.as_ref()?;
    let message = format!("Environment `{older}` is older and claims the same slug: delete one of the two");
    Some(Refusal::until_it_appears(reasons::CONFLICT, message))
}

fn the_environment_is_free_or_ours(input: &Input) -> Option<Refusal> {
    let environment = input.observed.environment.as_ref()?;
    if environment.labels.get(OWNER_LABEL) == Some(&input.observed.application_owner) {
        let message = format!(
            "environment `{}` is in spec.environments of Application `{}`: take it out there, or delete this object",
            environment.slug, input.object.spec.application_ref.name
        );
        return Some(Refusal::until_it_appears(reasons::CONFLICT, message));
    }
    match ownership(&environment.labels, &input.observed.owner) {
        Ownership::Ours | Ownership::Adoptable => None,
        // An application that is ours by consent comes with what its earlier owner made in it.
        _ if is_left_behind(&environment.labels, &input.observed.application_owner) => None,
        other => {
            let application = input.observed.application.as_ref().map_or("", |a| a.slug.as_str());
            let what = format!("environment `{}`", environment.slug);
            let path = format!(
                "/api/management/applications/{application}/environments/{}",
                environment.slug
            );
            let message = needs_consent(&what, other, input.server_url, &path, &input.observed.owner);
            Some(Refusal::until_it_appears(reasons::ALREADY_EXISTS, message))
        }
    }
}

fn action(object: &Environment, observed: &Observed) -> Action {
    let Some(environment) = &observed.environment else {
        return Action::Create(CreateEnvironment {
            name: object.spec.display_name.clone().unwrap_or_else(|| object.name_any()),
            slug: object.slug().ok().map(sealpod_core::Slug::into_string),
            labels: owned(&Labels::new(), &observed.owner),
        });
    };
    let name = object.spec.display_name.as_ref().unwrap_or(&environment.name);
    let taken = ownership(&environment.labels, &observed.owner) == Ownership::Ours;
    if taken && name.trim() == environment.name.trim() {
        return Action::Keep;
    }
    Action::Update(UpdateEnvironment {
        name: name.clone(),
        labels: (!taken).then(|| owned(&environment.labels, &observed.owner)),
    })
}

fn configurations(object: &Environment, observed: &Observed) -> configurations::Plan {
    let Ok(slug) = object.slug() else {
        return configurations::Plan::default();
    };
    let wanted = configurations::Wanted {
        environment: slug.as_str(),
        entries: &object.spec.configurations,
        // It passed the checks, so from now on it is.
        owned: true,
    };
    configurations::plan(&[wanted], &observed.configurations, &observed.owner)
}

/// What a deletion does on the server: nothing to what is not exactly ours.
pub fn clean_up(object: &Environment, observed: &Observed) -> Action {
    let ours = observed
        .environment
        .as_ref()
        .filter(|e| ownership(&e.labels, &observed.owner) == Ownership::Ours);
    match (ours, object.spec.deletion_policy) {
        (None, _) => Action::Keep,
        (Some(_), DeletionPolicy::Delete) => Action::Delete,
        (Some(environment), DeletionPolicy::Retain) => Action::Update(UpdateEnvironment {
            name: environment.name.clone(),
            labels: Some(released(&environment.labels, &observed.owner)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::namespace;
    use crate::controller::retries::Again;
    use sealpod_core::Time;
    use sealpod_core::kubernetes::{ADOPTABLE_BY_LABEL, RELEASED_BY_LABEL};
    use sealpod_core::wire::management as wire;
    use serde_json::json;
    use uuid::Uuid;

    const OURS: &str = "cluster/shop/uid/environments/prod";
    const APPLICATION: &str = "cluster/shop/uid/shop";

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn object(extra: &serde_json::Value) -> Environment {
        let mut spec = json!({"applicationRef": {"name": "shop"}});
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Environment::new("prod", serde_json::from_value(spec).unwrap())
    }

    /// An application of ours that has this environment.
    fn observed(environment: Option<&[(&str, &str)]>) -> Observed {
        let epoch = Time::from_microseconds(0).unwrap();
        Observed {
            namespace: namespace::Observed {
                name: "shop".to_owned(),
                uid: "uid".to_owned(),
                terminating: false,
            },
            owner: OURS.to_owned(),
            application_owner: APPLICATION.to_owned(),
            has_application: true,
            application: Some(wire::Application {
                id: Uuid::nil(),
                name: "Shop".to_owned(),
                slug: "shop".to_owned(),
                description: None,
                labels: labels(&[(OWNER_LABEL, APPLICATION)]),
                created_at: epoch,
                updated_at: epoch,
            }),
            environment: environment.map(|pairs| wire::Environment {
                id: Uuid::nil(),
                slug: "prod".to_owned(),
                name: "prod".to_owned(),
                labels: labels(pairs),
                created_at: epoch,
            }),
            configurations: vec![],
            older: None,
        }
    }

    fn action(object: &Environment, observed: &Observed) -> Action {
        match evaluate(object, observed, "") {
            Verdict::Proceed(plan) => plan.environment,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(observed: &Observed) -> Refusal {
        match evaluate(&object(&json!({})), observed, "https://s:7100") {
            Verdict::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_obstacle_names_the_reason() {
        let mut everything = observed(Some(&[]));
        everything.has_application = false;
        everything.application = None;
        let blank = evaluate(&object(&json!({"displayName": "  "})), &everything, "");
        assert!(
            matches!(&blank, Verdict::Refuse(r) if r.message == "spec.displayName must not be blank"),
            "{blank:?}"
        );
        let mut long = object(&json!({"slug": "prod"}));
        long.metadata.name = Some("p".repeat(101));
        let long = evaluate(&long, &everything, "");
        assert!(
            matches!(&long, Verdict::Refuse(r) if r.message.contains("displayName, must be at most 100 characters")),
            "{long:?}"
        );
        everything.older = Some("older".to_owned());
        assert_eq!(refusal(&everything).reason, reasons::APPLICATION_NOT_FOUND);
        everything.has_application = true;
        assert_eq!(refusal(&everything).reason, reasons::APPLICATION_NOT_READY);
        everything.application = observed(None).application;
        assert_eq!(refusal(&everything).reason, reasons::CONFLICT);
        everything.older = None;
        assert_eq!(refusal(&everything).reason, reasons::ALREADY_EXISTS);
        everything.environment = None;
        assert!(matches!(action(&object(&json!({})), &everything), Action::Create(_)));
    }

    #[test]
    fn an_application_that_another_object_made_is_not_ours_to_extend() {
        let mut foreign = observed(None);
        foreign.application.as_mut().unwrap().labels = labels(&[(OWNER_LABEL, "cluster/other/uid2/shop")]);
        assert_eq!(refusal(&foreign).reason, reasons::APPLICATION_NOT_READY);
        foreign.application.as_mut().unwrap().labels = labels(&[]);
        assert_eq!(refusal(&foreign).reason, reasons::APPLICATION_NOT_READY);
    }

    #[test]
    fn an_environment_is_taken_only_with_consent() {
        for (pairs, reason) in [
            (&[(OWNER_LABEL, APPLICATION)][..], reasons::CONFLICT),
            (
                &[(OWNER_LABEL, "cluster/shop/uid/environments/other")],
                reasons::ALREADY_EXISTS,
            ),
            (&[(RELEASED_BY_LABEL, OURS)], reasons::ALREADY_EXISTS),
            (&[], reasons::ALREADY_EXISTS),
        ] {
            let refusal = refusal(&observed(Some(pairs)));
            assert_eq!((refusal.reason, refusal.again), (reason, Again::Waiting), "{pairs:?}");
        }
        let left_behind = observed(Some(&[(OWNER_LABEL, "cluster/shop/old-uid/shop")]));
        assert!(matches!(
            action(&object(&json!({})), &left_behind),
            Action::Update(UpdateEnvironment { labels: Some(_), .. })
        ));
        let adoptable = observed(Some(&[(ADOPTABLE_BY_LABEL, OURS), (RELEASED_BY_LABEL, OURS)]));
        let update = UpdateEnvironment {
            name: "prod".to_owned(),
            labels: Some(labels(&[(OWNER_LABEL, OURS)])),
        };
        assert_eq!(action(&object(&json!({})), &adoptable), Action::Update(update));
    }

    #[test]
    fn a_name_is_put_back_only_if_the_spec_gives_one() {
        let ours = observed(Some(&[(OWNER_LABEL, OURS)]));
        assert_eq!(action(&object(&json!({})), &ours), Action::Keep);
        let renamed = UpdateEnvironment {
            name: "Production".to_owned(),
            labels: None,
        };
        let named = object(&json!({"displayName": "Production"}));
        assert_eq!(action(&named, &ours), Action::Update(renamed));
    }

    #[test]
    fn a_deletion_touches_only_what_is_exactly_ours() {
        let delete = object(&json!({"deletionPolicy": "Delete"}));
        for pairs in [&[(OWNER_LABEL, APPLICATION)][..], &[(RELEASED_BY_LABEL, OURS)], &[]] {
            assert_eq!(clean_up(&delete, &observed(Some(pairs))), Action::Keep, "{pairs:?}");
        }
        assert_eq!(clean_up(&delete, &observed(None)), Action::Keep);
        let ours = observed(Some(&[(OWNER_LABEL, OURS)]));
        assert_eq!(clean_up(&delete, &ours), Action::Delete);
        let released = UpdateEnvironment {
            name: "prod".to_owned(),
            labels: Some(labels(&[(RELEASED_BY_LABEL, OURS)])),
        };
        assert_eq!(clean_up(&object(&json!({})), &ours), Action::Update(released));
    }

    #[test]
    fn its_configurations_are_set_in_its_environment_and_a_bad_one_is_named() {
        let object = object(&json!({"configurations": {"LOG_LEVEL": "info"}}));
        let Verdict::Proceed(plan) = evaluate(&object, &observed(None), "") else {
            panic!("refused")
        };
        let [configurations::Action::Create(body)] = &plan.configurations.actions[..] else {
            panic!("{plan:?}")
        };
        assert_eq!(
            (body.environment_slug.as_str(), body.key.as_str()),
            ("prod", "LOG_LEVEL")
        );
        assert_eq!(body.description.as_deref(), Some(configurations::mark(OURS).as_str()));
        let empty = self::object(&json!({"configurations": {"LOG_LEVEL": ""}}));
        let Verdict::Refuse(refusal) = evaluate(&empty, &observed(None), "") else {
            panic!("not refused")
        };
        assert!(
            refusal
                .message
                .contains("spec.configurations has no value for `LOG_LEVEL`"),
            "{refusal:?}"
        );
    }
}
