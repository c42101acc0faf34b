//! May this binding read, and what has to be done so that it can: pure.

use std::time::Duration;

use kube::ResourceExt;
use sealpod_core::kubernetes::{APPLICATION_ID_LABEL, OWNER_LABEL, key_secret_name};
use sealpod_core::wire::Labels;
use sealpod_core::wire::org::{AclRule, CreateServiceAccount, Permission, ServiceAccount};
use sealpod_core::{Pattern, Time};
use sealpod_crds::SecretBinding;
use uuid::Uuid;

use super::layout::Layout;
use super::observe::Observed;
use super::secret;
use super::selection::Selection;
use crate::controller::referred::Referred;
use crate::controller::selectors;
use crate::controller::verdict::{Refusal, reasons};

/// Characters of a key that the server shows in its lists.
const PREFIX: usize = 12;

#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    Grant(Box<Plan>),
    /// The first check that did not pass, and the rules that must go because of it.
    Refuse {
        refusal: Refusal,
        revoke: Vec<Uuid>,
        rights: Rights,
    },
    Wait,
}

/// What a check that does not pass means for rights that were granted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The object cannot be acted on; what was granted before stays.
    Leave,
    /// An authoritative no: they go at once.
    Revoke,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub project: String,
    pub selection: Selection,
    /// What is written beside one file for each secret.
    pub layout: Layout,
    pub account: Account,
    /// Key patterns of the rules to make.
    pub grant: Vec<Pattern>,
    /// Whether the rules also give the configurations.
    pub configurations: bool,
    /// Rules of the account that are not wanted; to be deleted after the others are made.
    pub revoke: Vec<Uuid>,
    pub key: Key,
    /// Age at which the key is replaced.
    pub rotate_every: Duration,
    /// How long an earlier key lives on, in seconds.
    pub overlap: u64,
    /// [`sealpod_core::injection::BindingFile`] as JSON.
    pub binding: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Account {
    Keep(Uuid),
    Create(CreateServiceAccount),
    /// It is of another application, or of one or of a namespace that went and came back under this name: no right and
    /// no key of it may live on.
    Replace(Uuid, CreateServiceAccount),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Keep,
    /// Why a new one is needed, for the log.
    Mint(&'static str),
}

struct Input<'a> {
    object: &'a SecretBinding,
    observed: &'a Observed,
}

impl Input<'_> {
    fn application(&self) -> Referred<'_> {
        Referred {
            namespace: &self.observed.application_namespace,
            name: &self.object.spec.application_ref.name,
            exists: self.observed.has_application,
            owner: &self.observed.application_owner,
            on_the_server: self.observed.application.as_ref(),
        }
    }
}

type Check = fn(&Input) -> Option<Refusal>;

/// In this order; the first that objects names the reason. Who may read comes before what is asked for, so that a
/// broken spec never keeps a right alive that the server has taken back.
const CHECKS: [(Check, Rights); 6] = [
    (the_application_admits_the_namespace, Rights::Revoke),
    (the_application_exists, Rights::Revoke),
    (the_application_is_of_that_object, Rights::Revoke),
    (the_spec_is_valid, Rights::Leave),
    (the_environment_exists, Rights::Revoke),
    (the_secret_is_free_or_ours, Rights::Leave),
];

pub fn evaluate(object: &SecretBinding, observed: &Observed, organization: &str, now: Time) -> Access {
    if observed.namespace.terminating {
        return Access::Wait;
    }
    let input = Input { object, observed };
    let objection = CHECKS
        .into_iter()
        .find_map(|(check, rights)| Some((check(&input)?, rights)));
    let (refusal, rights) = match objection {
        Some(objection) => objection,
        None => match plan(object, observed, organization, now) {
            Ok(plan) => return Access::Grant(Box::new(plan)),
            Err(refusal) => (refusal, Rights::Leave),
        },
    };
    // Nobody looks any more at the Application that granted these, so what its owner withdraws would stay.
    let rights = if is_of_another(observed) {
        Rights::Revoke
    } else {
        rights
    };
    let revoke = match rights {
        Rights::Leave => vec![],
        Rights::Revoke => all_rules(observed),
    };
    Access::Refuse {
        refusal,
        revoke,
        rights,
    }
}

/// The rules that end whatever else is put off.
pub fn ended(access: &Access, observed: &Observed) -> Vec<Uuid> {
    match access {
        Access::Refuse { revoke, .. } => revoke.clone(),
        Access::Grant(plan) if matches!(plan.account, Account::Replace(..)) => all_rules(observed),
        Access::Grant(_) | Access::Wait => vec![],
    }
}

fn all_rules(observed: &Observed) -> Vec<Uuid> {
    observed.rules.iter().map(|rule| rule.id).collect()
}

/// Whether the account is another application's than the one that was judged.
fn is_of_another(observed: &Observed) -> bool {
    let project = project(observed);
    matches!(account(observed, &project), Account::Replace(..))
}

/// Slug of the application on the server.
fn project(observed: &Observed) -> String {
    let application = observed.application.as_ref();
    application.map(|a| a.slug.clone()).unwrap_or_default()
}

/// Of another namespace nobody learns which Applications it has, only which admit them.
fn the_application_admits_the_namespace(input: &Input) -> Option<Refusal> {
    let observed = input.observed;
    if observed.application_namespace == observed.namespace.name || observed.is_admitted {
        return None;
    }
    let (application, own) = (&input.object.spec.application_ref.name, &observed.namespace.name);
    let other = &observed.application_namespace;
    let message = if observed.is_in_scope {
        format!(
            "namespace {other} has no Application `{application}` whose spec.allowedNamespaces admits namespace {own}: \
             let its owner add it, or correct spec.applicationRef"
        )
    } else {
        format!(
            "namespace {other} is none that the operator works in: correct spec.applicationRef, or let an administrator \
             add the namespace to the operator's watchNamespaces"
        )
    };
    Some(Refusal::until_it_appears(reasons::NAMESPACE_NOT_ADMITTED, message))
}

fn the_application_exists(input: &Input) -> Option<Refusal> {
    input.application().must_exist("correct spec.applicationRef.name")
}

fn the_application_is_of_that_object(input: &Input) -> Option<Refusal> {
    input.application().must_be_its_own_on_the_server()
}

fn the_spec_is_valid(input: &Input) -> Option<Refusal> {
    let spec = &input.object.spec;
    // The injector gives the binding to no pod by it, and tells nobody: a pod may be meant to get none.
    if let Some(fault) = spec.pod_selector.as_ref().and_then(selectors::selects_nothing) {
        let message = format!("spec.podSelector.{fault}");
        return Some(Refusal::until_edited(reasons::INVALID_SPEC, message));
    }
    match Selection::parse(spec) {
        Ok(selection) => Layout::parse(spec, &selection).err(),
        Err(refusal) => Some(refusal),
    }
}

fn the_environment_exists(input: &Input) -> Option<Refusal> {
    let wanted = &input.object.spec.environment;
    if input.observed.environments.contains(wanted) {
        return None;
    }
    let application = &input.object.spec.application_ref.name;
    let message = format!(
        "Application `{application}` has no environment `{wanted}` (it has {}): correct spec.environment, add it to \
         spec.environments of the Application, or create an Environment",
        listed(&input.observed.environments)
    );
    Some(Refusal::until_it_appears(reasons::ENVIRONMENT_NOT_FOUND, message))
}

/// At most ten, so that a message stays one.
fn listed(environments: &[String]) -> String {
    let mut text = environments.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    if environments.len() > 10 {
        text.push_str(", …");
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

fn the_secret_is_free_or_ours(input: &Input) -> Option<Refusal> {
    if input.observed.secret != secret::Observed::NotOurs {
        return None;
    }
    let name = key_secret_name(&input.object.name_any());
    let message = format!(
        "Secret `{name}` exists and does not belong to this SecretBinding, so it is left alone: delete it, or give the \
         SecretBinding another name"
    );
    Some(Refusal::until_it_appears(reasons::SECRET_NOT_OWNED, message))
}

fn plan(object: &SecretBinding, observed: &Observed, organization: &str, now: Time) -> Result<Plan, Refusal> {
    let spec = &object.spec;
    let selection = Selection::parse(spec)?;
    let project = project(observed);
    let layout = Layout::parse(spec, &selection)?;
    let configurations = layout.configurations.is_some();
    let binding = selection.binding_file(spec, layout.clone(), organization, &project)?;
    let invalid = |field: &str, error: sealpod_crds::ParseError| {
        Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.keyRotation.{field} {error}"))
    };
    let interval = spec.key_rotation.interval().map_err(|e| invalid("interval", e))?;
    let overlap = spec.key_rotation.overlap().map_err(|e| invalid("overlap", e))?;
    let account = account(observed, &project);
    let kept = match &account {
        Account::Keep(_) => observed.account.as_ref(),
        Account::Create(_) | Account::Replace(..) => None,
    };
    let rules = if kept.is_some() { &observed.rules[..] } else { &[] };
    let wanted = selection.rules();
    let serves = |rule: &AclRule, pattern: &Pattern| {
        rule.project_pattern.as_str() == project
            && rule.env_pattern.as_str() == spec.environment
            && rule.key_pattern.as_str() == pattern.as_str()
    };
    // A rule of the right patterns and the wrong permission is replaced by making it again.
    let is_right = |rule: &AclRule| rule.permission == Permission::Read && rule.configurations == configurations;
    Ok(Plan {
        grant: wanted
            .iter()
            .filter(|pattern| !rules.iter().any(|rule| serves(rule, pattern) && is_right(rule)))
            .cloned()
            .collect(),
        revoke: rules
            .iter()
            .filter(|rule| !wanted.iter().any(|pattern| serves(rule, pattern)))
            .map(|rule| rule.id)
            .collect(),
        key: kept.map_or(Key::Keep, |account| key(&observed.secret, account, interval, now)),
        rotate_every: interval,
        overlap: overlap.as_secs(),
        binding: serde_json::to_string(&binding).expect("the settings are plain data"),
        configurations,
        project,
        selection,
        layout,
        account,
    })
}

fn account(observed: &Observed, project: &str) -> Account {
    // The id, because slugs come again, and not the times of their making, because a clock may go back.
    let application = observed
        .application
        .as_ref()
        .map(|a| a.id.to_string())
        .unwrap_or_default();
    let wanted = Labels::from([
        (OWNER_LABEL.to_owned(), observed.account_owner.clone()),
        (APPLICATION_ID_LABEL.to_owned(), application),
    ]);
    let is_right = |account: &ServiceAccount| {
        account.project.as_deref() == Some(project)
            && wanted
                .iter()
                .all(|(label, value)| account.labels.get(label) == Some(value))
    };
    let create = || CreateServiceAccount {
        name: observed.account_name.clone(),
        project: Some(project.to_owned()),
        expires_at: None,
        labels: wanted.clone(),
    };
    match &observed.account {
        None => Account::Create(create()),
        Some(account) if is_right(account) => Account::Keep(account.id),
        Some(account) => Account::Replace(account.id, create()),
    }
}

/// Whether the key in the Secret is this account's and not due. A key that the server does not take is found out by
/// using it.
fn key(secret: &secret::Observed, account: &ServiceAccount, interval: Duration, now: Time) -> Key {
    let secret::Observed::Ours(contents) = secret else {
        return Key::Mint("there is no Secret");
    };
    let Some(key) = &contents.key else {
        return Key::Mint("the Secret has no key");
    };
    let Some(age) = contents.rotated_at.and_then(|time| age(time, now)) else {
        return Key::Mint("nobody knows how old the key is");
    };
    if key.expose().get(..PREFIX) != Some(&account.key_prefix) {
        return Key::Mint("the key in the Secret is not the account's latest");
    }
    if age >= interval {
        Key::Mint("its rotation is due")
    } else {
        Key::Keep
    }
}

/// How long ago; nothing for a time to come, which no key was made at.
fn age(time: Time, now: Time) -> Option<Duration> {
    let microseconds = now.microseconds().checked_sub(time.microseconds())?;
    u64::try_from(microseconds).ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests;
