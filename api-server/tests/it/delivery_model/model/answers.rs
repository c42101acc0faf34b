//! What a caller is to get.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::Time;
use serde_json::{Value, json};

use super::super::questions::{QUESTIONS, RULES, Rule};
use super::super::steps::{ENTRIES, ENVIRONMENTS, KEYS};
use super::{Model, Version};

/// What a caller is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Refused(u16),
    Bundle(State),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of two states that differ in this, every caller has to hear.
    pub identity: String,
    /// Windows of what is given out: a change of one that changes nothing else may be told.
    pub windows: String,
    /// The answer without its tag.
    pub body: Value,
}

impl Model {
    /// What a caller gets to its question now.
    pub fn answer(&self, caller: usize) -> Answer {
        let (account, question) = (&self.accounts[caller], &QUESTIONS[caller]);
        if !account.is_live {
            return Answer::Refused(401);
        }
        let Some(environment) = self.environment(question.environment) else {
            return Answer::Refused(404);
        };
        let place = ENVIRONMENTS[question.environment];
        let rules: Vec<&Rule> = account.rules.iter().map(|rule| &RULES[*rule]).collect();
        let here = |rule: &&&Rule| KEYS.iter().any(|key| (rule.covers)(self.is_renamed, place, key));
        let may = |key: &str| rules.iter().any(|rule| (rule.covers)(self.is_renamed, place, key));
        let is_for_all = question.is_for_all();
        let no_right = is_for_all && !rules.iter().any(|rule| here(&rule));
        let no_configurations = question.configurations && !rules.iter().any(|rule| here(&rule) && rule.configurations);
        if no_right || no_configurations {
            return Answer::Refused(403);
        }
        let pinned: BTreeMap<_, _> = question.pinned.iter().copied().collect();
        let named: BTreeSet<_> = question.keys.iter().copied().chain(pinned.keys().copied()).collect();
        let (mut found, mut next) = (BTreeMap::new(), None);
        for secret in self.secrets.iter().filter(|secret| secret.is_live) {
            let key = KEYS[secret.key];
            let is_asked_for = named.contains(key) || question.asks_for(key);
            if !is_asked_for || !may(key) {
                continue;
            }
            let (version, change) = self.look(secret.versions.get(&environment), pinned.get(key).copied());
            found.extend(version.map(|(number, version)| (key, (number, version))));
            next = next.into_iter().chain(change).min();
        }
        let missing: Vec<_> = named
            .iter()
            .filter(|key| may(key) && !found.contains_key(**key))
            .collect();
        let denied: Vec<_> = named.iter().filter(|key| !may(key)).collect();
        let entries = self
            .entries
            .iter()
            .filter(|entry| question.configurations && entry.is_live && entry.environment == environment);
        let entries: BTreeMap<_, _> = entries.map(|entry| (ENTRIES[entry.key], entry)).collect();
        let ids: Vec<_> = found.iter().map(|(key, (_, version))| (key, version.id)).collect();
        let revisions: Vec<_> = entries.values().map(|entry| (entry.id, entry.revision)).collect();
        let windows: Vec<_> = found.values().map(|(_, version)| (version.from, version.to)).collect();
        let secrets: BTreeMap<_, _> = found
            .iter()
            .map(|(key, (number, version))| {
                let mut shown = json!({"version": number});
                if question.values {
                    shown["value"] = json!(version.value);
                    shown["encoding"] = json!("utf8");
                }
                (key, shown)
            })
            .collect();
        let configurations: BTreeMap<_, _> = entries.iter().map(|(key, entry)| (key, &entry.value)).collect();
        Answer::Bundle(State {
            identity: format!(
                "{:?}",
                (account.id, environment, ids, revisions, next, &missing, &denied)
            ),
            windows: format!("{windows:?}"),
            body: json!({
                "next_change_at": next, "secrets": secrets, "configurations": configurations, "missing": missing,
                "denied": denied,
            }),
        })
    }

    /// The version that is read, with its number, and when time alone makes it another one.
    fn look<'v>(
        &self,
        versions: Option<&'v Vec<Version>>,
        pinned: Option<usize>,
    ) -> (Option<(usize, &'v Version)>, Option<Time>) {
        let numbered = || {
            versions
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(at, version)| (at + 1, version))
        };
        let wanted = |number: usize| pinned.is_none_or(|pinned| pinned == number);
        let found = numbered()
            .filter(|(number, version)| wanted(*number) && version.is_readable())
            .last();
        let above = found.map_or(0, |(number, _)| number);
        let begins = numbered()
            .filter(|(number, _)| *number > above && wanted(*number))
            .filter_map(|(_, version)| version.begins_later())
            .map(|moment| self.moment(moment));
        // The last instant belongs to the window.
        let ends = found.and_then(|(_, version)| version.to).map(|moment| {
            let end = self.moment(moment).microseconds() + 1;
            Time::from_microseconds(end).expect("it is not the end of time")
        });
        (found, begins.chain(ends).min())
    }
}
