//! What a plan for an Application comes to, for people.

use sealpod_core::kubernetes::OWNER_LABEL;

use super::evaluate::{Action, EnvironmentAction, Plan};
use super::key;
use crate::controller::verdict::Refusal;

/// Environments named in one event.
const NAMED: usize = 10;

impl Plan {
    /// What could not be planned, and is not in the way of the rest.
    pub fn refusal(&self) -> Option<Refusal> {
        self.configurations.refusal().or_else(|| self.key.refusal.clone())
    }

    /// What will be done, for an event.
    pub fn story(&self) -> Option<String> {
        let application = match &self.application {
            Action::Create(_) => Some("made the application".to_owned()),
            Action::Update(body) if body.labels.is_some() => Some("took the application over".to_owned()),
            Action::Update(_) => Some("put the application's name and description back".to_owned()),
            Action::Keep | Action::Delete => None,
        };
        let environments = self.environments.iter().take(NAMED).map(|action| match action {
            EnvironmentAction::Create(body) => {
                format!("made environment `{}`", body.slug.as_ref().unwrap_or(&body.name))
            }
            EnvironmentAction::Update { slug, body } => match &body.labels {
                None => format!("put the name of environment `{slug}` back"),
                Some(labels) if labels.contains_key(OWNER_LABEL) => format!("took environment `{slug}` over"),
                Some(_) => format!("released environment `{slug}`"),
            },
            EnvironmentAction::Delete { slug } => format!("deleted environment `{slug}`"),
        });
        let key = match &self.key.step {
            key::Step::Deliver(deliver) => match &deliver.key {
                key::Source::Mint(because) => Some(format!("made a new key: {because}")),
                key::Source::Write(_) => Some("wrote the key's Secret".to_owned()),
                key::Source::Keep => None,
            },
            key::Step::Withdraw => Some("withdrew the key".to_owned()),
            key::Step::Nothing => None,
        };
        let parts = application
            .into_iter()
            .chain(environments)
            .chain(self.configurations.story())
            .chain(key);
        let parts: Vec<_> = parts.collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
