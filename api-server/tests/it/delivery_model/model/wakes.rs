//! Who is woken by what: whoever waits on just that, before anybody knows whether it makes a difference.

use std::ops::RangeInclusive;

use sealpod_core::wire::Edit;

use super::super::questions::{QUESTIONS, RULES};
use super::super::steps::{ENVIRONMENTS, KEYS, Step};
use super::{Model, Version, What};

/// What a step changes.
enum Part {
    /// Versions of a secret, in one environment or in all.
    Secret(Option<usize>, usize, RangeInclusive<usize>),
    Entries(usize),
    /// An environment itself; without one all of them, with the project.
    Place(Option<usize>),
    /// A caller's keys or rules.
    Subject(usize),
    /// As a key that is joined by another one: this may be news to its caller, or none.
    Aside(usize),
}

impl Model {
    /// How many of those who wait a step that is done wakes: at least, and at most.
    pub fn wakes(&self, step: &Step, is_waiting: &[bool]) -> RangeInclusive<u64> {
        let parts = self.parts(step);
        let (mut least, mut most) = (0, 0);
        for caller in (0..QUESTIONS.len()).filter(|caller| is_waiting[*caller]) {
            let is_woken = parts.iter().any(|part| self.is_of_interest(part, caller));
            let may_be = parts
                .iter()
                .any(|part| matches!(part, Part::Aside(subject) if *subject == caller));
            least += u64::from(is_woken);
            most += u64::from(is_woken || may_be);
        }
        least..=most
    }

    fn is_of_interest(&self, part: &Part, caller: usize) -> bool {
        let question = &QUESTIONS[caller];
        match part {
            Part::Secret(environment, key, numbers) => {
                let (place, key) = (ENVIRONMENTS[question.environment], KEYS[*key]);
                let is_wanted = match question.pinned.iter().find(|(pinned, _)| *pinned == key) {
                    Some((_, number)) => numbers.contains(number),
                    None => question.asks_for(key),
                };
                let rules = &self.accounts[caller].rules;
                environment.is_none_or(|environment| environment == question.environment)
                    && is_wanted
                    && rules
                        .iter()
                        .any(|rule| (RULES[*rule].covers)(self.is_renamed, place, key))
            }
            Part::Entries(environment) => question.configurations && *environment == question.environment,
            Part::Place(environment) => environment.is_none_or(|environment| environment == question.environment),
            Part::Subject(subject) => *subject == caller,
            Part::Aside(_) => false,
        }
    }

    fn parts(&self, step: &Step) -> Vec<Part> {
        let next = |environment, key| {
            let number = self.list(environment, key).len() + 1;
            Part::Secret(Some(environment), key, number..=number)
        };
        match *step {
            Step::Put { environment, key, .. }
            | Step::RollBack { environment, key, .. }
            | Step::Begin { environment, key } => vec![next(environment, key)],
            Step::SetAll { key, .. } => (0..ENVIRONMENTS.len())
                .map(|environment| next(environment, key))
                .collect(),
            Step::Change {
                environment,
                key,
                at,
                enabled,
                from,
                to,
            } => {
                let differs = |version: &&Version| {
                    enabled.is_some_and(|enabled| enabled != version.enabled)
                        || matches!(from, Edit::To(from) if from != version.from)
                        || matches!(to, Edit::To(to) if to != version.to)
                };
                let changed = self.list(environment, key).get(at).filter(differs);
                changed
                    .map(|_| Part::Secret(Some(environment), key, at + 1..=at + 1))
                    .into_iter()
                    .collect()
            }
            Step::End { environment, key } => {
                let number = self.active(environment, key);
                number
                    .map(|number| Part::Secret(Some(environment), key, number..=number))
                    .into_iter()
                    .collect()
            }
            Step::Hide { environment, key, .. } => {
                let range = range(self.list(environment, key), None);
                range
                    .map(|numbers| Part::Secret(Some(environment), key, numbers))
                    .into_iter()
                    .collect()
            }
            Step::DeleteSecret { key, .. } => vec![Part::Secret(None, key, 0..=usize::MAX)],
            Step::SetEntry { environment, .. } | Step::DeleteEntry { environment, .. } => {
                vec![Part::Entries(environment)]
            }
            Step::DeleteEnvironment { environment, .. } => vec![Part::Place(Some(environment))],
            Step::Rename => vec![Part::Place(None)],
            Step::Restore { back } => self
                .trashed(back)
                .and_then(|id| self.restored(id))
                .into_iter()
                .collect(),
            Step::Grant { caller, rule } if self.accounts[caller].rules.contains(&rule) => vec![],
            Step::Grant { caller, .. }
            | Step::Revoke { caller, .. }
            | Step::Rotate { caller, overlap: false }
            | Step::Leave { caller } => vec![Part::Subject(caller)],
            Step::Rotate { caller, overlap: true } => vec![Part::Aside(caller)],
            // Nobody waits in what is not there, and what is purged was deleted before.
            Step::CreateEnvironment { .. } | Step::Purge { .. } | Step::Enter { .. } | Step::Elsewhere => vec![],
        }
    }

    fn restored(&self, id: usize) -> Option<Part> {
        let name = |id: usize| {
            let environment = self.environments.iter().find(|one| one.id == id);
            environment.map(|environment| environment.name)
        };
        match self.trash.iter().find(|(one, _)| *one == id)?.1 {
            What::Versions { secret, environment } => {
                let secret = self.secrets.iter().find(|one| one.id == secret)?;
                let numbers = range(secret.versions.get(&environment)?, Some(id))?;
                Some(Part::Secret(Some(name(environment)?), secret.key, numbers))
            }
            What::Secret(id) => {
                let key = self.secrets.iter().find(|one| one.id == id)?.key;
                Some(Part::Secret(None, key, 0..=usize::MAX))
            }
            What::Entry(id) => {
                let entry = self.entries.iter().find(|one| one.id == id)?;
                Some(Part::Entries(name(entry.environment)?))
            }
            What::Environment(_) => None,
        }
    }

    /// All versions of a live secret in a live environment.
    fn list(&self, environment: usize, key: usize) -> &[Version] {
        let secret = self.secrets.iter().find(|secret| secret.is_live && secret.key == key);
        let versions = secret
            .zip(self.environment(environment))
            .and_then(|(secret, id)| secret.versions.get(&id));
        versions.map_or(&[], Vec::as_slice)
    }
}

/// First and last number of the versions that this deletion hides, or that none does.
fn range(versions: &[Version], deletion: Option<usize>) -> Option<RangeInclusive<usize>> {
    let is_of_it = |version: &Version| version.deleted == deletion;
    let (first, last) = (
        versions.iter().position(is_of_it)?,
        versions.iter().rposition(is_of_it)?,
    );
    Some(first + 1..=last + 1)
}
