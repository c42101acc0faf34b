//! The configurations that Applications and Environments set: what is to be done about them (pure), and doing it.
//!
//! Which of them an object has set is written on each of them, on the server: its description holds the word
//! `sealpod.dev/owner=<owner>`, in the same write that makes it. Only administrators can write there, so nobody who
//! may write objects, statuses or Secrets in a namespace can claim a configuration, and nothing can be lost between
//! two writes. Text that an administrator adds around the word stays. One without the word is an administrator's.

use std::collections::BTreeMap;

use sealpod_client::Client;
use sealpod_core::kubernetes::OWNER_LABEL;
use sealpod_core::names::{MAX_CONFIGURATION_KEY, MAX_DESCRIPTION, check_free_text};
use sealpod_core::wire::management::{Configuration, CreateConfiguration, UpdateConfiguration};

use super::error::Error;
use super::owner::is_left_behind;
use super::verdict::{Refusal, reasons};

/// Configurations in one answer of the server.
const PAGE: u32 = 500;
/// Names in a message, so that it stays one.
const NAMED: usize = 10;

/// What the spec of an object says about one environment.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub environment: &'a str,
    pub entries: &'a BTreeMap<String, String>,
    /// Whether the environment is the object's own, so that what was set by an object in it before is its, too.
    pub owned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Create(CreateConfiguration),
    Update {
        environment: String,
        key: String,
        body: UpdateConfiguration,
    },
    Delete {
        environment: String,
        key: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// `environment/key` of those that an administrator has set to something else.
    pub contested: Vec<String>,
}

/// What is wrong with the configurations of a spec. The server would refuse it too, but cannot name the field.
pub fn fault(field: &str, entries: &BTreeMap<String, String>) -> Option<Refusal> {
    let invalid = |what: String| Some(Refusal::until_edited(reasons::INVALID_SPEC, format!("{field} {what}")));
    for (key, value) in entries {
        if let Err(error) = check_free_text(key, MAX_CONFIGURATION_KEY) {
            return invalid(format!("has a key that {error}"));
        }
        if value.is_empty() {
            return invalid(format!("has no value for `{key}`: give it one, or take it out"));
        }
    }
    None
}

/// `owner` is the owner label's value of the object; `existing` holds at least what is marked or wanted.
pub fn plan(wanted: &[Wanted<'_>], existing: &[Configuration], owner: &str) -> Plan {
    let mut plan = Plan::default();
    for environment in wanted {
        for (key, value) in environment.entries {
            set(&mut plan, *environment, key, value, existing, owner);
        }
        let left_over = existing.iter().filter(|c| {
            c.environment_slug == environment.environment
                && !environment.entries.contains_key(&c.key)
                && setter(c).is_some_and(|s| s == owner || (environment.owned && !is_of_another_namespace(s, owner)))
        });
        plan.actions.extend(left_over.map(|c| Action::Delete {
            environment: c.environment_slug.clone(),
            key: c.key.clone(),
        }));
    }
    plan
}

fn set(plan: &mut Plan, wanted: Wanted<'_>, key: &str, value: &str, existing: &[Configuration], owner: &str) {
    let environment = wanted.environment.to_owned();
    let found = existing
        .iter()
        .find(|c| c.environment_slug == environment && c.key == key);
    let Some(found) = found else {
        plan.actions.push(Action::Create(CreateConfiguration {
            environment_slug: environment,
            key: key.to_owned(),
            value: value.to_owned(),
            description: Some(mark(owner)),
        }));
        return;
    };
    let ours = match setter(found) {
        Some(setter) if setter == owner => true,
        Some(_) if wanted.owned => false,
        _ => {
            if found.value != value {
                plan.contested.push(format!("{environment}/{key}"));
            }
            return;
        }
    };
    if !ours || found.value != value {
        plan.actions.push(Action::Update {
            environment,
            key: key.to_owned(),
            body: UpdateConfiguration {
                value: value.to_owned(),
                // What is left out stays.
                description: (!ours).then(|| marked(found, owner)),
            },
        });
    }
}

/// The word that says who has set a configuration.
pub fn mark(owner: &str) -> String {
    format!("{OWNER_LABEL}={owner}")
}

fn setter(configuration: &Configuration) -> Option<&str> {
    let mut words = configuration.description.as_deref()?.split_whitespace();
    words.find_map(|word| word.strip_prefix(OWNER_LABEL)?.strip_prefix('='))
}

/// The description with another setter, and the rest of its words as they were.
fn marked(configuration: &Configuration, owner: &str) -> String {
    let before = configuration.description.as_deref().unwrap_or_default();
    let mark = mark(owner);
    let description = match setter(configuration) {
        Some(setter) => before.replace(&self::mark(setter), &mark),
        None => mark.clone(),
    };
    if description.chars().count() > MAX_DESCRIPTION {
        mark
    } else {
        description
    }
}

fn is_of_another_namespace(setter: &str, owner: &str) -> bool {
    is_left_behind(&BTreeMap::from([(OWNER_LABEL.to_owned(), setter.to_owned())]), owner)
}

impl Plan {
    /// What stands in the way of the contested ones.
    pub fn refusal(&self) -> Option<Refusal> {
        let (first, rest) = self.contested.split_at(self.contested.len().min(NAMED));
        let more = if rest.is_empty() { "" } else { ", …" };
        (!first.is_empty()).then(|| {
            let message = format!(
                "an administrator has set {}{more} on the server to another value: take it out of the spec, or let an \
                 administrator delete it there; everything else is set",
                first.join(", ")
            );
            Refusal::until_it_appears(reasons::CONFLICT, message)
        })
    }

    /// What will be done, for an event.
    pub fn story(&self) -> Option<String> {
        let count = |which: fn(&Action) -> bool| self.actions.iter().filter(|a| which(a)).count();
        let parts = [
            ("made", count(|a| matches!(a, Action::Create(_)))),
            ("put back or changed", count(|a| matches!(a, Action::Update { .. }))),
            ("deleted", count(|a| matches!(a, Action::Delete { .. }))),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{what} {n}"))
            .collect();
        (!parts.is_empty()).then(|| format!("configurations: {}", parts.join(", ")))
    }
}

/// Those of an application that are marked, or that `concerns` names by environment and key.
pub async fn observe(
    client: &Client,
    application: &str,
    concerns: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Configuration>, Error> {
    let failed = || Error::server("listing the configurations");
    let pages = client.management().configuration_pages(application, PAGE);
    let mut pages = pages.map_err(failed())?;
    let mut found = Vec::new();
    while let Some(page) = pages.next_page().await.map_err(failed())? {
        found.extend(
            page.into_iter()
                .filter(|c| setter(c).is_some() || concerns(&c.environment_slug, &c.key)),
        );
    }
    Ok(found)
}

/// Each step alone is safe to be the last before a crash: the next look goes on from what is there.
pub async fn apply(client: &Client, application: &str, plan: &Plan) -> Result<(), Error> {
    let management = client.management();
    for action in &plan.actions {
        match action {
            Action::Create(body) => management
                .create_configuration(application, body)
                .await
                .map(drop)
                .map_err(Error::server("setting a configuration"))?,
            Action::Update { environment, key, body } => management
                .update_configuration(application, environment, key, body)
                .await
                .map(drop)
                .map_err(Error::server("putting a configuration back"))?,
            Action::Delete { environment, key } => {
                match management.delete_configuration(application, environment, key).await {
                    Err(error) if error.is_not_found() => {}
                    other => other.map_err(Error::server("deleting a configuration"))?,
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
