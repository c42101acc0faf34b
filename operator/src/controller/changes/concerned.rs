//! Which objects a change on the server concerns: pure. Too many cost a look, too few a stale status.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use sealpod_core::Pattern;
use sealpod_core::wire::management::{Change, ChangeKind};
use sealpod_crds::{Application, Environment};
use uuid::Uuid;

use crate::controller::kept::{KeptBinding, Selected};
use crate::tolerant::Tolerant;

pub struct Objects {
    pub applications: Vec<Arc<Tolerant<Application>>>,
    pub environments: Vec<Arc<Tolerant<Environment>>>,
    pub bindings: Vec<Arc<KeptBinding>>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Concerned {
    pub applications: Vec<ObjectRef<Tolerant<Application>>>,
    pub environments: Vec<ObjectRef<Tolerant<Environment>>>,
    pub bindings: Vec<ObjectRef<KeptBinding>>,
}

/// What moved of one application, by its slug.
#[derive(Default)]
struct Moved<'a> {
    /// The application itself.
    whole: bool,
    /// Environments, by their slugs.
    environments: HashMap<&'a str, InEnvironment<'a>>,
    /// Secrets in all environments.
    secrets: Vec<&'a str>,
}

#[derive(Default)]
struct InEnvironment<'a> {
    whole: bool,
    configurations: bool,
    secrets: Vec<&'a str>,
}

/// `account_of` gives the account that a binding, by its UID, was seen with.
pub fn concerned(
    changes: &[&Change],
    objects: &Objects,
    cluster_id: &str,
    account_of: impl Fn(&str) -> Option<Uuid>,
) -> Concerned {
    let by_slug = by_slug(changes);
    let mut concerned = Concerned::default();
    // Names of Applications in Kubernetes.
    let mut moved: HashMap<(String, String), &Moved<'_>> = HashMap::new();
    for application in &objects.applications {
        let Ok(slug) = application.slug() else { continue };
        let Some(found) = by_slug.get(slug.as_str()) else {
            continue;
        };
        let within = || found.environments.values().any(|e| e.whole || e.configurations);
        if found.whole || within() {
            concerned.applications.push(ObjectRef::from_obj(&**application));
        }
        moved.insert(
            (application.namespace().unwrap_or_default(), application.name_any()),
            found,
        );
    }
    for environment in &objects.environments {
        let namespace = environment.namespace().unwrap_or_default();
        let application = (namespace, environment.spec.application_ref.name.clone());
        if moved
            .get(&application)
            .is_some_and(|m| m.concerns_environment(environment))
        {
            concerned.environments.push(ObjectRef::from_obj(&**environment));
        }
    }
    let accounts: HashSet<Uuid> = of_kind(changes, ChangeKind::Grant)
        .filter_map(|c| c.subject_id)
        .collect();
    let account_names: HashSet<&str> = of_kind(changes, ChangeKind::Account)
        .filter_map(|c| c.name.as_deref())
        .collect();
    for binding in &objects.bindings {
        let namespace = binding.namespace().unwrap_or_default();
        let reference = &binding.application_ref;
        let of_application = (
            reference.namespace.clone().unwrap_or_else(|| namespace.clone()),
            reference.name.clone(),
        );
        let account = || binding.uid().and_then(|uid| account_of(&uid));
        let name = || sealpod_core::kubernetes::service_account_name(cluster_id, &namespace, &binding.name_any());
        if moved.get(&of_application).is_some_and(|m| m.concerns_binding(binding))
            || (!accounts.is_empty() && account().is_some_and(|account| accounts.contains(&account)))
            || (!account_names.is_empty() && account_names.contains(name().as_str()))
        {
            concerned.bindings.push(ObjectRef::from_obj(&**binding));
        }
    }
    concerned
}

fn of_kind<'a>(changes: &'a [&'a Change], kind: ChangeKind) -> impl Iterator<Item = &'a Change> {
    changes.iter().copied().filter(move |change| change.kind == kind)
}

fn by_slug<'a>(changes: &'a [&'a Change]) -> HashMap<&'a str, Moved<'a>> {
    let mut all: HashMap<&str, Moved<'_>> = HashMap::new();
    for change in changes {
        let Some(application) = change.application.as_deref() else {
            continue;
        };
        let moved = all.entry(application).or_default();
        let name = change.name.as_deref();
        match (change.kind, change.environment.as_deref()) {
            (ChangeKind::Environment, Some(environment)) => moved.environment(environment).whole = true,
            (ChangeKind::Configuration, Some(environment)) => moved.environment(environment).configurations = true,
            (ChangeKind::Version, Some(environment)) => moved.environment(environment).secrets.extend(name),
            (ChangeKind::Secret, _) => moved.secrets.extend(name),
            // Of these the account is what tells.
            (ChangeKind::Grant | ChangeKind::Account, _) => {}
            // All of it; or it says nothing of where, so it may be anywhere in it.
            (ChangeKind::Application, _)
            | (ChangeKind::Environment | ChangeKind::Configuration | ChangeKind::Version, None) => moved.whole = true,
        }
    }
    all
}

impl<'a> Moved<'a> {
    fn environment(&mut self, slug: &'a str) -> &mut InEnvironment<'a> {
        self.environments.entry(slug).or_default()
    }

    fn concerns_environment(&self, environment: &Environment) -> bool {
        let slug = environment.spec.slug.clone().unwrap_or_else(|| environment.name_any());
        let moved = self.environments.get(slug.as_str());
        self.whole || moved.is_some_and(|e| e.whole || e.configurations)
    }

    fn concerns_binding(&self, binding: &KeptBinding) -> bool {
        let within = self.environments.get(binding.environment.as_str());
        let in_all = || self.secrets.iter().any(|name| selects(binding, name));
        self.whole
            || in_all()
            || within.is_some_and(|e| {
                e.whole
                    || e.configurations && binding.configurations
                    || e.secrets.iter().any(|name| selects(binding, name))
            })
    }
}

/// A pattern that cannot be read is a matter of the binding's conditions.
fn selects(binding: &KeptBinding, name: &str) -> bool {
    let Some(entries) = &binding.secrets else {
        return true;
    };
    entries.iter().any(|entry| match entry {
        Selected::Name(selected) => **selected == *name,
        Selected::Pattern(pattern) => pattern.parse::<Pattern>().is_ok_and(|pattern| pattern.matches(name)),
    })
}
