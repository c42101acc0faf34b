//! What a SecretBinding shows once it may read: pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sealpod_crds::{NextChange, SecretBindingStatus, SecretState, SecretStatus};

use super::Beside;
use super::layout::Layout;
use super::resolve::{Known, Resolution};
use super::selection::Selection;
use crate::controller::conditions::{READY, Status, Wanted, seconds};
use crate::controller::kind::Outcome;
use crate::controller::retries::Again;
use crate::controller::verdict::reasons;

pub const ACCESS_GRANTED: &str = "AccessGranted";
pub const SECRETS_RESOLVED: &str = "SecretsResolved";
pub const KEY_FRESH: &str = "KeyFresh";

/// Most secrets in a status, which is kept in etcd.
const MAX_SHOWN: usize = 500;
/// Most names in a message.
const MAX_NAMED: usize = 5;

/// `status` is that of account and Secret; the secrets and all conditions are added, and what `beside` says.
pub fn outcome(
    mut status: SecretBindingStatus,
    (selection, layout): (&Selection, &Layout),
    resolution: &Resolution,
    beside: Beside,
) -> Outcome<SecretBindingStatus> {
    let granted = Wanted::new(
        ACCESS_GRANTED,
        Status::True,
        "Granted",
        "the binding's key may read what the spec names",
    );
    let fresh = match resolution {
        Resolution::KeyRejected => {
            let message = "the server does not take the binding's key; a new one follows within a minute";
            Wanted::new(KEY_FRESH, Status::False, reasons::KEY_REJECTED, message)
        }
        Resolution::Known(_) | Resolution::Denied => Wanted::new(
            KEY_FRESH,
            Status::True,
            "Fresh",
            "the key works and is not due for rotation",
        ),
    };
    let resolved = match resolution {
        Resolution::Known(known) => {
            status.secrets = secrets(known, selection, layout);
            status.next_change_at = known.next_change_at.map(|at| seconds(at.timestamp()));
            let found = |change: &NextChange| !change.secrets.is_empty();
            status.next_change = known.next_change.clone().filter(found);
            resolved(known, selection, layout)
        }
        Resolution::Denied => {
            let message = "the binding's key may read nothing of the environment yet";
            Wanted::new(SECRETS_RESOLVED, Status::False, reasons::SECRETS_DENIED, message)
        }
        Resolution::KeyRejected => {
            let message = "nothing can be asked without a key that works";
            Wanted::new(SECRETS_RESOLVED, Status::Unknown, reasons::KEY_REJECTED, message)
        }
    };
    // Secrets that only lack a path are told by their own condition; the others are delivered.
    let blocking = [&fresh, &resolved]
        .into_iter()
        .chain(&beside.conditions)
        .find(|c| c.status != Status::True && ![reasons::NEEDS_PATH, reasons::NEEDS_KEY].contains(&c.reason));
    let ready = match blocking {
        Some(condition) => Wanted::new(READY, Status::False, condition.reason, condition.message.clone()),
        None => Wanted::ready(resolved.message.clone()),
    };
    // A value that is missing is told when it comes.
    let again = match resolution {
        Resolution::Known(_) => Again::Settled,
        Resolution::KeyRejected | Resolution::Denied => Again::Waiting,
    };
    let mut conditions = vec![ready, granted, resolved, fresh];
    conditions.extend(beside.conditions);
    Outcome {
        status,
        conditions,
        again,
    }
}

fn secrets(known: &Known, selection: &Selection, layout: &Layout) -> Vec<SecretStatus> {
    let files = selection.files(&known.names(), layout);
    let mut states: BTreeMap<&str, (Option<i64>, SecretState)> = BTreeMap::new();
    for (name, version) in &known.secrets {
        let state = if files.needs_path.contains(name) {
            SecretState::NeedsPath
        } else {
            SecretState::Active
        };
        states.insert(name, (i64::try_from(*version).ok(), state));
    }
    for (name, _) in selection.names() {
        // What the server does not mention at all is not there.
        states.entry(name).or_insert((None, SecretState::Missing));
    }
    for name in &known.missing {
        let state = if known.inactive.contains(name) {
            SecretState::Inactive
        } else {
            SecretState::Missing
        };
        states.insert(name, (None, state));
    }
    for name in &known.denied {
        states.insert(name, (None, SecretState::Denied));
    }
    let shown = states.into_iter().take(MAX_SHOWN);
    shown
        .map(|(name, (version, state))| SecretStatus {
            name: name.to_owned(),
            version,
            state,
        })
        .collect()
}

fn resolved(known: &Known, selection: &Selection, layout: &Layout) -> Wanted {
    let no = |reason, message| Wanted::new(SECRETS_RESOLVED, Status::False, reason, message);
    let files = selection.files(&known.names(), layout);
    if let Some((one, other, path)) = files.collision {
        let message = format!("`{one}` and `{other}` would both be written to `{path}`: give one of them another path");
        return no(reasons::PATH_COLLISION, message);
    }
    let required = || {
        selection
            .names()
            .filter(|(_, optional)| !optional)
            .map(|(name, _)| name)
    };
    let denied: Vec<_> = required().filter(|name| known.denied.contains(*name)).collect();
    if !denied.is_empty() {
        return no(
            reasons::SECRETS_DENIED,
            format!("the binding's key may not read {} yet", named(&denied)),
        );
    }
    let without: Vec<_> = required().filter(|name| !known.secrets.contains_key(*name)).collect();
    let (inactive, missing): (Vec<_>, Vec<_>) = without.into_iter().partition(|name| known.inactive.contains(*name));
    if !missing.is_empty() {
        let message = format!("there is no {}: set a value, or make it optional", named(&missing));
        return no(reasons::SECRETS_MISSING, message);
    }
    if !inactive.is_empty() {
        let message = format!(
            "no version of {} that the binding may take is enabled and within its time: enable one, set a new value, or \
             make it optional",
            named(&inactive)
        );
        return no(reasons::SECRETS_INACTIVE, message);
    }
    let matched = |pattern: &sealpod_core::Pattern| known.secrets.keys().any(|name| pattern.matches(name));
    if let Some(pattern) = selection.required_patterns().find(|pattern| !matched(pattern)) {
        let message = format!("no secret with an active version matches `{pattern}`: set one, or make it optional");
        return no(reasons::SECRETS_MISSING, message);
    }
    if !files.needs_path.is_empty() {
        let names: Vec<_> = files.needs_path.iter().map(String::as_str).collect();
        let message = format!(
            "no file name, and so left out: {}; give a path in spec.secrets",
            named(&names)
        );
        return no(reasons::NEEDS_PATH, message);
    }
    let message = match known.secrets.len() {
        1 => "1 secret is delivered".to_owned(),
        count => format!("{count} secrets are delivered"),
    };
    Wanted::new(SECRETS_RESOLVED, Status::True, "Resolved", message)
}

fn named(names: &[&str]) -> String {
    let mut text = names
        .iter()
        .take(MAX_NAMED)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MAX_NAMED {
        let _ = write!(text, " and {} more", names.len() - MAX_NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn selection(secrets: &Value) -> Selection {
        let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod", "secrets": secrets});
        Selection::parse(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn known(secrets: &[(&str, u64)], missing: &[&str], denied: &[&str]) -> Resolution {
        Resolution::Known(Arc::new(Known {
            secrets: secrets
                .iter()
                .map(|(name, version)| ((*name).to_owned(), *version))
                .collect(),
            missing: missing.iter().map(|name| (*name).to_owned()).collect(),
            denied: denied.iter().map(|name| (*name).to_owned()).collect(),
            ..Known::default()
        }))
    }

    #[test]
    fn the_documentation_names_every_condition() {
        let documentation = include_str!("../../../../docs/OPERATOR.md");
        let beside = super::super::native::KUBERNETES_SECRET_SYNCED;
        let outcome = of(&selection(&json!([])), &known(&[], &[], &[]));
        let own = outcome.conditions.iter().map(|condition| condition.kind);
        for condition in own.chain([beside]).filter(|kind| *kind != READY) {
            assert!(documentation.contains(&format!("| `{condition}` |")), "{condition}");
        }
    }

    fn of(selection: &Selection, resolution: &Resolution) -> Outcome<SecretBindingStatus> {
        outcome(
            SecretBindingStatus::default(),
            (selection, &Layout::default()),
            resolution,
            Beside::default(),
        )
    }

    fn condition<'a>(outcome: &'a Outcome<SecretBindingStatus>, kind: &str) -> &'a Wanted {
        outcome.conditions.iter().find(|c| c.kind == kind).unwrap()
    }

    #[test]
    fn ready_means_that_every_required_secret_is_delivered() {
        let a_and_b = selection(&json!([{"name": "a"}, {"name": "b", "optional": true}]));
        let pattern = selection(&json!([{"pattern": "tls-*", "optional": false}]));
        let all = Selection(None);
        for (selection, resolution, ready, reason) in [
            (&a_and_b, known(&[("a", 1), ("b", 2)], &[], &[]), Status::True, "Synced"),
            (&a_and_b, known(&[("a", 1)], &["b"], &[]), Status::True, "Synced"),
            (
                &a_and_b,
                known(&[("b", 1)], &["a"], &[]),
                Status::False,
                reasons::SECRETS_MISSING,
            ),
            (
                &a_and_b,
                known(&[("b", 1)], &[], &["a"]),
                Status::False,
                reasons::SECRETS_DENIED,
            ),
            (&a_and_b, known(&[], &[], &[]), Status::False, reasons::SECRETS_MISSING),
            (&pattern, known(&[("tls-key", 1)], &[], &[]), Status::True, "Synced"),
            (
                &pattern,
                known(&[("other", 1)], &[], &[]),
                Status::False,
                reasons::SECRETS_MISSING,
            ),
            (&all, known(&[], &[], &[]), Status::True, "Synced"),
            (&all, known(&[("a/b", 1)], &[], &[]), Status::True, "Synced"),
            (&all, Resolution::Denied, Status::False, reasons::SECRETS_DENIED),
            (&all, Resolution::KeyRejected, Status::False, reasons::KEY_REJECTED),
        ] {
            let outcome = of(selection, &resolution);
            let condition = condition(&outcome, READY);
            assert_eq!((condition.status, condition.reason), (ready, reason), "{resolution:?}");
            let is_told = matches!(resolution, Resolution::Known(_));
            assert_eq!(outcome.again == Again::Settled, is_told);
        }
    }

    #[test]
    fn a_secret_without_a_file_name_is_told_but_does_not_block_the_others() {
        let outcome = of(&Selection(None), &known(&[("a", 3), ("b/c", 1)], &[], &[]));
        let resolved = condition(&outcome, SECRETS_RESOLVED);
        assert_eq!((resolved.status, resolved.reason), (Status::False, reasons::NEEDS_PATH));
        assert!(resolved.message.contains("`b/c`"), "{}", resolved.message);
        let states: Vec<_> = outcome
            .status
            .secrets
            .iter()
            .map(|s| (s.name.as_str(), s.version, s.state))
            .collect();
        assert_eq!(
            states,
            [
                ("a", Some(3), SecretState::Active),
                ("b/c", Some(1), SecretState::NeedsPath)
            ]
        );
    }

    #[test]
    fn every_named_secret_has_a_state() {
        let selection = selection(&json!([{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]));
        let outcome = of(&selection, &known(&[("a", 1)], &["b"], &["c"]));
        let states: Vec<_> = outcome.status.secrets.iter().map(|s| s.state).collect();
        assert_eq!(
            states,
            [
                SecretState::Active,
                SecretState::Missing,
                SecretState::Denied,
                SecretState::Missing
            ]
        );
    }

    #[test]
    fn a_secret_whose_versions_are_all_inactive_is_told_from_one_that_is_not_there() {
        let selection =
            selection(&json!([{"name": "a"}, {"name": "b", "optional": true}, {"name": "c", "optional": true}]));
        let known = Known {
            missing: ["a", "b", "c"].map(str::to_owned).into(),
            inactive: ["a", "b"].map(str::to_owned).into(),
            ..Known::default()
        };
        let outcome = of(&selection, &Resolution::Known(Arc::new(known)));
        let states: Vec<_> = outcome.status.secrets.iter().map(|s| s.state).collect();
        assert_eq!(
            states,
            [SecretState::Inactive, SecretState::Inactive, SecretState::Missing]
        );
        let ready = condition(&outcome, READY);
        assert_eq!((ready.status, ready.reason), (Status::False, reasons::SECRETS_INACTIVE));
        assert!(
            ready.message.contains("`a`") && !ready.message.contains("`b`"),
            "{}",
            ready.message
        );
    }

    #[test]
    fn messages_and_lists_stay_short() {
        let names: Vec<_> = (0..600).map(|n| json!({"name": format!("k{n}")})).collect();
        let outcome = of(&selection(&json!(names)), &known(&[], &[], &[]));
        assert_eq!(outcome.status.secrets.len(), MAX_SHOWN);
        assert!(condition(&outcome, READY).message.contains("`k4` and 595 more"));
    }

    #[test]
    fn two_keys_on_one_path_are_not_ready() {
        let selection = selection(&json!([{"pattern": "db-*"}, {"pattern": "*-password"}]));
        let outcome = of(&selection, &known(&[("db-password", 1)], &[], &[]));
        assert_eq!(condition(&outcome, READY).reason, reasons::PATH_COLLISION);
    }
}
