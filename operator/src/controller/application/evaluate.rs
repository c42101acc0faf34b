//! What is to be done for an Application: pure.

use std::collections::BTreeMap;

use kube::ResourceExt;
use sealpod_core::kubernetes::{API_KEY_SECRET_LABEL, OWNER_LABEL};
use sealpod_core::names::{MAX_APPLICATION_NAME, MAX_ENVIRONMENT_NAME};
use sealpod_core::wire::Labels;
use sealpod_core::wire::management::{CreateApplication, CreateEnvironment, UpdateApplication, UpdateEnvironment};
use sealpod_crds::{Application, DeletionPolicy};

use super::key;
use super::observe::Observed;
use crate::controller::allowed;
use crate::controller::configurations;
use crate::controller::owner::{Ownership, is_left_behind, needs_consent, owned, ownership, released};
use crate::controller::verdict::{Refusal, Verdict, reasons};

/// The environment that every application gets from the server.
const MADE_BY_SERVER: &str = "local";

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub application: Action,
    pub environments: Vec<EnvironmentAction>,
    pub configurations: configurations::Plan,
    pub key: key::Plan,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Keep,
    Create(CreateApplication),
    Update(UpdateApplication),
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvironmentAction {
    Create(CreateEnvironment),
    Update { slug: String, body: UpdateEnvironment },
    Delete { slug: String },
}

struct Input<'a> {
    object: &'a Application,
    observed: &'a Observed,
    server_url: &'a str,
}

/// In this order; the first that objects names the reason.
const CHECKS: [fn(&Input) -> Option<Refusal>; 7] = [
    slugs_are_valid,
    the_allowed_namespaces_are_valid,
    configurations_are_valid,
    names_are_valid,
    environments_are_different,
    the_application_is_free_or_ours,
    the_environments_are_not_others,
];

pub fn evaluate(object: &Application, observed: &Observed, server_url: &str) -> Verdict<Plan> {
    if observed.namespace.terminating {
        // Nothing can be made in a namespace that goes; the object's own deletion comes next.
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
            application: application(object, observed),
            environments: environments(object, observed),
            configurations: configurations(object, observed),
            key: key::plan(object, &observed.key),
        }),
    }
}

fn slugs_are_valid(input: &Input) -> Option<Refusal> {
    let invalid = |field: &str, error| Refusal::until_edited(reasons::INVALID_SPEC, format!("{field} {error}"));
    let slug = input.object.slug();
    let field = if input.object.spec.slug.is_some() {
        "spec.slug"
    } else {
        "metadata.name, the default of spec.slug,"
    };
    slug.err().map(|error| invalid(field, error)).or_else(|| {
        let slugs = input.object.spec.environments.iter().enumerate();
        let mut errors = slugs.filter_map(|(at, e)| e.slug().err().map(|error| (at, error)));
        errors
            .next()
            .map(|(at, error)| invalid(&format!("spec.environments[{at}].slug"), error))
    })
}

fn the_allowed_namespaces_are_valid(input: &Input) -> Option<Refusal> {
    let fault = allowed::fault(&input.object.spec.allowed_namespaces)?;
    Some(Refusal::until_edited(
        reasons::INVALID_SPEC,
        format!("spec.allowedNamespaces {fault}"),
    ))
}

fn configurations_are_valid(input: &Input) -> Option<Refusal> {
    let mut environments = input.object.spec.environments.iter().enumerate();
    environments.find_map(|(at, environment)| {
        let field = format!("spec.environments[{at}].configurations");
        configurations::fault(&field, &environment.configurations)
    })
}

/// The schema knows the lengths of what is given, and nothing else.
fn names_are_valid(input: &Input) -> Option<Refusal> {
    let spec = &input.object.spec;
    let mut environments = spec.environments.iter().enumerate();
    Refusal::of_display_name(
        spec.display_name.as_deref(),
        &input.object.name_any(),
        MAX_APPLICATION_NAME,
    )
    .or_else(|| {
        environments.find_map(|(at, environment)| {
            let field = format!("spec.environments[{at}].name");
            Refusal::of_name(&field, &environment.name, MAX_ENVIRONMENT_NAME)
        })
    })
}

fn environments_are_different(input: &Input) -> Option<Refusal> {
    let mut slugs: Vec<_> = input
        .object
        .spec
        .environments
        .iter()
        .filter_map(|e| e.slug().ok())
        .collect();
    slugs.sort_unstable();
    let twice = slugs.windows(2).find(|pair| pair[0] == pair[1])?;
    let message = format!("spec.environments has the slug `{}` twice: take one out", twice[0]);
    Some(Refusal::until_edited(reasons::INVALID_SPEC, message))
}

fn the_application_is_free_or_ours(input: &Input) -> Option<Refusal> {
    let application = input.observed.application.as_ref()?;
    match ownership(&application.labels, &input.observed.owner) {
        Ownership::Ours => None,
        Ownership::Adoptable if input.object.spec.adopt => None,
        other => {
            let what = format!("application `{}`", application.slug);
            let path = format!("/api/management/applications/{}", application.slug);
            let message = match other {
                Ownership::Adoptable => format!(
                    "{what} already exists on the server, and an administrator consents to this object taking it over: \
                     set spec.adopt to true if it shall"
                ),
                other => format!(
                    "{}{}",
                    if input.object.spec.adopt {
                        ""
                    } else {
                        "to take it over, set spec.adopt to true. "
                    },
                    needs_consent(&what, other, input.server_url, &path, &input.observed.owner)
                ),
            };
            Some(Refusal::until_it_appears(reasons::ALREADY_EXISTS, message))
        }
    }
}

fn the_environments_are_not_others(input: &Input) -> Option<Refusal> {
    let others = input.observed.environments.iter().find(|environment| {
        ownership(&environment.labels, &input.observed.owner) == Ownership::Others
            && !is_left_behind(&environment.labels, &input.observed.owner)
            && wanted(input.object).any(|(slug, _)| slug == environment.slug)
    })?;
    let message = format!(
        "environment `{}` belongs to another object (an Environment of this namespace, most likely): take it out of \
         spec.environments, or delete that object",
        others.slug
    );
    Some(Refusal::until_it_appears(reasons::CONFLICT, message))
}

/// Slug and name of each environment of the short form.
fn wanted(object: &Application) -> impl Iterator<Item = (String, &String)> {
    let environments = object.spec.environments.iter();
    environments.filter_map(|e| e.slug().ok().map(|slug| (slug.into_string(), &e.name)))
}

fn application(object: &Application, observed: &Observed) -> Action {
    let spec = &object.spec;
    let Some(application) = &observed.application else {
        return Action::Create(CreateApplication {
            name: spec.display_name.clone().unwrap_or_else(|| object.name_any()),
            description: spec.description.clone(),
            slug: object.slug().ok().map(sealpod_core::Slug::into_string),
            labels: owned(&Labels::new(), &observed.owner),
        });
    };
    // What the spec does not say is not this object's: an administrator may change it.
    let name = spec.display_name.as_ref().unwrap_or(&application.name);
    let description = spec.description.as_ref().or(application.description.as_ref());
    let text = |text: Option<&String>| text.map(|t| t.trim().to_owned()).unwrap_or_default();
    let taken = ownership(&application.labels, &observed.owner) == Ownership::Ours;
    if taken && name.trim() == application.name.trim() && text(description) == text(application.description.as_ref()) {
        return Action::Keep;
    }
    Action::Update(UpdateApplication {
        name: name.clone(),
        description: description.cloned(),
        labels: (!taken).then(|| owned(&application.labels, &observed.owner)),
    })
}

fn environments(object: &Application, observed: &Observed) -> Vec<EnvironmentAction> {
    let mut actions = Vec::new();
    for (slug, name) in wanted(object) {
        let Some(environment) = observed.environments.iter().find(|e| e.slug == slug) else {
            // A new application has this one already when its environments are made.
            if observed.application.is_some() || slug != MADE_BY_SERVER {
                actions.push(EnvironmentAction::Create(CreateEnvironment {
                    name: name.clone(),
                    slug: Some(slug),
                    labels: owned(&Labels::new(), &observed.owner),
                }));
            }
            continue;
        };
        let labels = match ownership(&environment.labels, &observed.owner) {
            Ownership::Ours if environment.name.trim() == name.trim() => continue,
            Ownership::Ours => None,
            // An application that is ours by consent comes with what its earlier owner made in it.
            _ if is_left_behind(&environment.labels, &observed.owner) => {
                Some(owned(&environment.labels, &observed.owner))
            }
            // It is in an application of ours and was ours: coming back to the list needs nobody's consent.
            Ownership::Adoptable | Ownership::Released => Some(owned(&environment.labels, &observed.owner)),
            // Made by the server or an administrator: there it is, and theirs it stays.
            Ownership::Nobodys | Ownership::Others => continue,
        };
        let name = name.clone();
        actions.push(EnvironmentAction::Update {
            slug,
            body: UpdateEnvironment { name, labels },
        });
    }
    let left_over = |slug: &String| !wanted(object).any(|(wanted, _)| wanted == *slug);
    actions.extend(let_go(object, observed, left_over));
    actions
}

/// What the short form says about configurations. Of environments that are let go, nothing is taken: they go or stay with
/// all that is in them.
fn configurations(object: &Application, observed: &Observed) -> configurations::Plan {
    let spec = object.spec.environments.iter();
    let spec: Vec<_> = spec
        .filter_map(|e| Some((e.slug().ok()?.into_string(), &e.configurations)))
        .collect();
    let nothing = BTreeMap::new();
    let mut wanted: Vec<_> = spec
        .iter()
        .map(|(slug, entries)| configurations::Wanted {
            environment: slug,
            entries,
            owned: becomes_ours(slug, observed),
        })
        .collect();
    // What was set in an environment of nobody's goes with its entry in the list.
    let others = observed.environments.iter().filter(|e| {
        !spec.iter().any(|(slug, _)| *slug == e.slug)
            && matches!(ownership(&e.labels, &observed.owner), Ownership::Nobodys)
    });
    wanted.extend(others.map(|environment| configurations::Wanted {
        environment: &environment.slug,
        entries: &nothing,
        owned: false,
    }));
    configurations::plan(&wanted, &observed.configurations, &observed.owner)
}

/// Whether an environment of the list is this object's once the plan is carried out.
fn becomes_ours(slug: &str, observed: &Observed) -> bool {
    match observed.environments.iter().find(|e| e.slug == slug) {
        Some(environment) => {
            is_left_behind(&environment.labels, &observed.owner)
                || !matches!(
                    ownership(&environment.labels, &observed.owner),
                    Ownership::Nobodys | Ownership::Others
                )
        }
        None => observed.application.is_some() || slug != MADE_BY_SERVER,
    }
}

/// Lets go of those of our environments that `which` names: they are deleted or released, as the policy says.
fn let_go(
    object: &Application,
    observed: &Observed,
    which: impl Fn(&String) -> bool,
) -> impl Iterator<Item = EnvironmentAction> {
    let owner = &observed.owner;
    let ours = observed
        .environments
        .iter()
        .filter(move |e| e.labels.get(OWNER_LABEL) == Some(owner));
    ours.filter(move |e| which(&e.slug)).map(move |environment| {
        let slug = environment.slug.clone();
        match object.spec.deletion_policy {
            DeletionPolicy::Delete => EnvironmentAction::Delete { slug },
            DeletionPolicy::Retain => EnvironmentAction::Update {
                slug,
                body: UpdateEnvironment {
                    name: environment.name.clone(),
                    labels: Some(released(&environment.labels, owner)),
                },
            },
        }
    })
}

/// What a deletion does on the server: nothing to what is not exactly ours.
pub fn clean_up(object: &Application, observed: &Observed) -> Plan {
    let ours = |application: &&_| {
        let application: &sealpod_core::wire::management::Application = application;
        ownership(&application.labels, &observed.owner) == Ownership::Ours
    };
    let Some(application) = observed.application.as_ref().filter(ours) else {
        return Plan::default();
    };
    match object.spec.deletion_policy {
        DeletionPolicy::Delete => Plan {
            application: Action::Delete,
            ..Plan::default()
        },
        DeletionPolicy::Retain => {
            let mut labels = released(&application.labels, &observed.owner);
            // A key that was handed out would outlive the right to it.
            let given = labels.remove(API_KEY_SECRET_LABEL);
            Plan {
                application: Action::Update(UpdateApplication {
                    name: application.name.clone(),
                    description: application.description.clone(),
                    labels: Some(labels),
                }),
                environments: let_go(object, observed, |_| true).collect(),
                key: key::Plan {
                    ends_earlier: given.is_some(),
                    ..key::Plan::default()
                },
                ..Plan::default()
            }
        }
    }
}

#[cfg(test)]
mod tests;
