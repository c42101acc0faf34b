//! What the server is said to do, in memory and without any of its code: versions, deletions and rights as lists that are
//! looked through from end to end.

mod answers;
mod wakes;

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::Time;
use sealpod_core::wire::Edit;

pub use answers::{Answer, State};

use super::questions::QUESTIONS;
use super::steps::{ENVIRONMENTS, KEYS, Step, Window};

#[derive(Debug, Clone)]
struct Version {
    id: usize,
    value: String,
    enabled: bool,
    from: Option<i64>,
    to: Option<i64>,
    /// The deletion that hides it.
    deleted: Option<usize>,
}

impl Version {
    /// Now is between -1000 and 0.
    fn is_readable(&self) -> bool {
        self.is_there() && self.from.is_none_or(|from| from < 0) && self.to.is_none_or(|to| to >= 0)
    }

    fn begins_later(&self) -> Option<i64> {
        self.from.filter(|from| self.is_there() && *from >= 0)
    }

    fn is_there(&self) -> bool {
        self.enabled && self.deleted.is_none()
    }
}

#[derive(Debug, Clone)]
struct Secret {
    id: usize,
    key: usize,
    is_live: bool,
    /// By environment; the version at 0 has the number 1.
    versions: BTreeMap<usize, Vec<Version>>,
}

#[derive(Debug, Clone)]
struct Environment {
    id: usize,
    name: usize,
    is_live: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    id: usize,
    environment: usize,
    key: usize,
    revision: usize,
    value: String,
    is_live: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Versions { secret: usize, environment: usize },
    Secret(usize),
    Environment(usize),
    Entry(usize),
}

/// A caller as the model knows it.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Another one for each account that was in this place.
    id: usize,
    pub is_live: bool,
    pub rules: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub struct Model {
    start: Time,
    count: usize,
    passed: i64,
    /// Whether the project has the second of its names.
    pub is_renamed: bool,
    environments: Vec<Environment>,
    secrets: Vec<Secret>,
    entries: Vec<Entry>,
    /// What can be undone, oldest first.
    trash: Vec<(usize, What)>,
    pub accounts: Vec<Account>,
}

fn in_order((from, to): Window) -> bool {
    from.zip(to).is_none_or(|(from, to)| from < to)
}

impl Model {
    pub fn new() -> Self {
        let mut model = Self {
            start: Time::now(),
            count: 0,
            passed: 0,
            is_renamed: false,
            environments: vec![],
            secrets: vec![],
            entries: vec![],
            trash: vec![],
            accounts: QUESTIONS.iter().map(|_| Account::default()).collect(),
        };
        for environment in 0..ENVIRONMENTS.len() {
            model.take(&Step::CreateEnvironment { environment }, "");
        }
        model
    }

    /// A quarter of an hour off, so that no window of whole hours begins or ends while the test runs.
    pub fn moment(&self, moment: i64) -> Time {
        self.start.plus_seconds(moment / 1_000 * 3_600 + 900)
    }

    /// A moment that is over when the server is looked at, behind all that were before.
    fn passing(&mut self) -> i64 {
        self.passed += 1;
        self.passed - 1_000
    }

    /// The number of the version that counts.
    pub fn active(&self, environment: usize, key: usize) -> Option<usize> {
        let environment = self.environment(environment)?;
        let mut live = self.secrets.iter().filter(|secret| secret.is_live);
        let versions = live.find(|secret| secret.key == key)?.versions.get(&environment)?;
        Some(versions.iter().rposition(Version::is_readable)? + 1)
    }

    fn fresh(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    fn environment(&self, name: usize) -> Option<usize> {
        let mut live = self.environments.iter().filter(|environment| environment.is_live);
        live.find(|environment| environment.name == name)
            .map(|environment| environment.id)
    }

    fn secret(&mut self, key: usize) -> Option<&mut Secret> {
        let mut live = self.secrets.iter_mut().filter(|secret| secret.is_live);
        live.find(|secret| secret.key == key)
    }

    fn versions(&mut self, environment: usize, key: usize) -> Option<&mut Vec<Version>> {
        let environment = self.environment(environment)?;
        Some(self.secret(key)?.versions.entry(environment).or_default())
    }

    fn visible(&mut self, environment: usize, key: usize, at: usize) -> Option<&mut Version> {
        let versions = self.versions(environment, key)?;
        versions.get_mut(at).filter(|version| version.deleted.is_none())
    }

    fn entry(&mut self, environment: usize, key: usize) -> Option<&mut Entry> {
        let environment = self.environment(environment)?;
        let mut live = self.entries.iter_mut().filter(|entry| entry.is_live);
        live.find(|entry| entry.key == key && entry.environment == environment)
    }

    fn append(&mut self, environment: usize, key: usize, value: String, enabled: bool, (from, to): Window) -> bool {
        if self.secret(key).is_none() {
            let id = self.fresh();
            let versions = BTreeMap::new();
            self.secrets.push(Secret {
                id,
                key,
                is_live: true,
                versions,
            });
        }
        let id = self.fresh();
        let versions = self.versions(environment, key).expect("both are live");
        let first = versions.iter().all(|version| version.deleted.is_some());
        versions.push(Version {
            id,
            value,
            enabled,
            from,
            to,
            deleted: None,
        });
        first
    }

    fn delete(&mut self, what: What, purge: bool) -> u16 {
        let id = self.fresh();
        match what {
            What::Versions { secret, environment } => {
                let secret = self
                    .secrets
                    .iter_mut()
                    .find(|one| one.id == secret)
                    .expect("it is there");
                let versions = secret.versions.entry(environment).or_default();
                for version in versions.iter_mut().filter(|version| version.deleted.is_none()) {
                    version.deleted = Some(id);
                }
            }
            What::Secret(_) | What::Environment(_) | What::Entry(_) => self.switch(what, false),
        }
        self.trash.push((id, what));
        if purge { self.purge(id) } else { 204 }
    }

    fn switch(&mut self, what: What, is_live: bool) {
        let secrets = self
            .secrets
            .iter_mut()
            .map(|one| (What::Secret(one.id), &mut one.is_live));
        let environments = self.environments.iter_mut();
        let environments = environments.map(|one| (What::Environment(one.id), &mut one.is_live));
        let entries = self
            .entries
            .iter_mut()
            .map(|one| (What::Entry(one.id), &mut one.is_live));
        let mut all = secrets.chain(environments).chain(entries);
        *all.find(|(one, _)| *one == what).expect("it is there").1 = is_live;
    }

    /// For good, with all that was deleted in it before.
    fn purge(&mut self, id: usize) -> u16 {
        let at = self.trash.iter().position(|(one, _)| *one == id).expect("it is there");
        let (_, what) = self.trash.remove(at);
        let of_entry = |entries: &[Entry], id: usize| {
            entries
                .iter()
                .find(|entry| entry.id == id)
                .map(|entry| entry.environment)
        };
        match what {
            What::Secret(gone) => {
                self.trash
                    .retain(|(_, what)| !matches!(what, What::Versions { secret, .. } if *secret == gone));
                self.secrets.retain(|secret| secret.id != gone);
            }
            What::Environment(gone) => {
                let entries = &self.entries;
                self.trash.retain(|(_, what)| match what {
                    What::Versions { environment, .. } => *environment != gone,
                    What::Entry(id) => of_entry(entries, *id) != Some(gone),
                    What::Secret(_) | What::Environment(_) => true,
                });
                self.entries.retain(|entry| entry.environment != gone);
                self.environments.retain(|environment| environment.id != gone);
            }
            What::Entry(gone) => self.entries.retain(|entry| entry.id != gone),
            // Their numbers are not used again.
            What::Versions { .. } => {}
        }
        204
    }

    fn restore(&mut self, id: usize) -> u16 {
        let at = self.trash.iter().position(|(one, _)| *one == id).expect("it is there");
        let what = self.trash[at].1;
        let is_environment = |model: &Self, id: usize| model.environments.iter().any(|one| one.is_live && one.id == id);
        let is_free = match what {
            What::Secret(id) => {
                let key = self.secrets.iter().find(|one| one.id == id).expect("it is there").key;
                self.secret(key).is_none()
            }
            What::Environment(id) => {
                let name = self
                    .environments
                    .iter()
                    .find(|one| one.id == id)
                    .expect("it is there")
                    .name;
                self.environment(name).is_none()
            }
            What::Entry(id) => {
                let own = self.entries.iter().find(|one| one.id == id).expect("it is there");
                let taken = self
                    .entries
                    .iter()
                    .any(|one| one.is_live && (one.environment, one.key) == (own.environment, own.key));
                is_environment(self, own.environment) && !taken
            }
            What::Versions { secret, environment } => {
                let secret = self.secrets.iter().find(|one| one.id == secret).expect("it is there");
                let mut versions = secret.versions.get(&environment).into_iter().flatten();
                secret.is_live && is_environment(self, environment) && versions.all(|version| version.deleted.is_some())
            }
        };
        if !is_free {
            return 409;
        }
        self.trash.remove(at);
        match what {
            What::Versions { secret, environment } => {
                let secret = self
                    .secrets
                    .iter_mut()
                    .find(|one| one.id == secret)
                    .expect("it is there");
                for version in secret.versions.entry(environment).or_default() {
                    version.deleted = version.deleted.filter(|deletion| *deletion != id);
                }
            }
            What::Secret(_) | What::Environment(_) | What::Entry(_) => self.switch(what, true),
        }
        200
    }

    /// The deletion of that number, counted from the newest, and how many there are.
    fn trashed(&self, back: usize) -> Option<usize> {
        let at = self.trash.len().checked_sub(back + 1)?;
        Some(self.trash[at].0)
    }

    pub fn trash_len(&self) -> usize {
        self.trash.len()
    }

    /// The step with objects with which it does something, where there are any.
    pub fn aimed(&self, step: &Step) -> Option<Step> {
        let does = |step: &Step| self.clone().take(step, "") < 300;
        (0..KEYS.len() * QUESTIONS.len()).map(|by| step.shifted(by)).find(does)
    }

    /// Does it, and says with which status the server does.
    pub fn take(&mut self, step: &Step, value: &str) -> u16 {
        let known = self
            .write(step, value)
            .or_else(|| self.remove(step))
            .or_else(|| self.admit(step));
        if let Some(status) = known {
            return status;
        }
        match *step {
            Step::SetEntry { environment, entry } => self.set_entry(environment, entry, value.to_owned()),
            Step::CreateEnvironment { environment } => {
                if self.environment(environment).is_some() {
                    return 409;
                }
                let id = self.fresh();
                self.environments.push(Environment {
                    id,
                    name: environment,
                    is_live: true,
                });
                201
            }
            Step::Rename => {
                self.is_renamed = !self.is_renamed;
                200
            }
            Step::Elsewhere => 200,
            _ => panic!("the model does not know {step:?}"),
        }
    }

    /// Versions, and what they are.
    fn write(&mut self, step: &Step, value: &str) -> Option<u16> {
        let value = value.to_owned();
        Some(match *step {
            Step::Put {
                environment,
                key,
                window,
            } => match self.environment(environment) {
                None => 404,
                Some(_) if !in_order(window) => 400,
                Some(_) if self.append(environment, key, value, true, window) => 201,
                Some(_) => 200,
            },
            Step::SetAll { key, enabled } => {
                let all = 0..ENVIRONMENTS.len();
                if self.secret(key).is_none() || all.clone().any(|one| self.environment(one).is_none()) {
                    return Some(404);
                }
                for environment in all {
                    self.append(environment, key, value.clone(), enabled, (None, None));
                }
                200
            }
            Step::Change {
                environment,
                key,
                at,
                enabled,
                from,
                to,
            } => {
                if self.environment(environment).is_none() {
                    return Some(404);
                }
                if let (Edit::To(from), Edit::To(to)) = (from, to)
                    && !in_order((from, to))
                {
                    return Some(400);
                }
                let Some(version) = self.visible(environment, key, at) else {
                    return Some(404);
                };
                let window = (from.over(version.from), to.over(version.to));
                if !in_order(window) {
                    return Some(400);
                }
                version.enabled = enabled.unwrap_or(version.enabled);
                (version.from, version.to) = window;
                200
            }
            Step::RollBack { environment, key, at } => match self.visible(environment, key, at) {
                None => 404,
                Some(version) => {
                    let value = version.value.clone();
                    self.append(environment, key, value, true, (None, None));
                    200
                }
            },
            Step::Begin { environment, key } => {
                let from = self.passing();
                let window = (Some(from), None);
                self.take(
                    &Step::Put {
                        environment,
                        key,
                        window,
                    },
                    &value,
                )
            }
            Step::End { environment, key } => {
                let (to, active) = (self.passing(), self.active(environment, key));
                let versions = self.versions(environment, key);
                match versions.zip(active) {
                    None => 404,
                    Some((versions, number)) => {
                        versions[number - 1].to = Some(to);
                        200
                    }
                }
            }
            _ => return None,
        })
    }

    /// Deletions and their ends.
    fn remove(&mut self, step: &Step) -> Option<u16> {
        Some(match *step {
            Step::Hide {
                environment,
                key,
                purge,
            } => {
                let place = self
                    .environment(environment)
                    .zip(self.secret(key).map(|secret| secret.id));
                let has_any = self
                    .versions(environment, key)
                    .is_some_and(|versions| versions.iter().any(|one| one.deleted.is_none()));
                match place.filter(|_| has_any) {
                    None => 404,
                    Some((environment, secret)) => self.delete(What::Versions { secret, environment }, purge),
                }
            }
            Step::DeleteSecret { key, purge } => match self.secret(key).map(|secret| secret.id) {
                None => 404,
                Some(id) => self.delete(What::Secret(id), purge),
            },
            Step::DeleteEntry {
                environment,
                entry,
                purge,
            } => match self.entry(environment, entry).map(|entry| entry.id) {
                None => 404,
                Some(id) => self.delete(What::Entry(id), purge),
            },
            Step::DeleteEnvironment { environment, purge } => match self.environment(environment) {
                None => 404,
                Some(id) => self.delete(What::Environment(id), purge),
            },
            Step::Restore { back } => self.trashed(back).map_or(404, |id| self.restore(id)),
            Step::Purge { back } => self.trashed(back).map_or(404, |id| self.purge(id)),
            _ => return None,
        })
    }

    /// Accounts and their rules.
    fn admit(&mut self, step: &Step) -> Option<u16> {
        Some(match *step {
            Step::Grant { caller, rule } => {
                let account = &mut self.accounts[caller];
                if !account.is_live {
                    404
                } else if account.rules.insert(rule) {
                    201
                } else {
                    200
                }
            }
            Step::Revoke { caller, rule } => {
                if self.accounts[caller].rules.remove(&rule) {
                    204
                } else {
                    404
                }
            }
            Step::Rotate { caller, .. } => {
                if self.accounts[caller].is_live {
                    200
                } else {
                    404
                }
            }
            Step::Leave { caller } => {
                let account = &mut self.accounts[caller];
                account.rules.clear();
                if std::mem::take(&mut account.is_live) { 204 } else { 404 }
            }
            Step::Enter { caller } if self.accounts[caller].is_live => 409,
            Step::Enter { caller } => {
                let id = self.fresh();
                let rules = BTreeSet::new();
                self.accounts[caller] = Account {
                    id,
                    is_live: true,
                    rules,
                };
                201
            }
            _ => return None,
        })
    }

    fn set_entry(&mut self, environment: usize, key: usize, value: String) -> u16 {
        let revision = self.fresh();
        if let Some(entry) = self.entry(environment, key) {
            (entry.revision, entry.value) = (revision, value);
            return 200;
        }
        let Some(environment) = self.environment(environment) else {
            return 404;
        };
        let id = self.fresh();
        self.entries.push(Entry {
            id,
            environment,
            key,
            revision,
            value,
            is_live: true,
        });
        201
    }
}
