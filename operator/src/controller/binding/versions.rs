//! What only the versions of secrets say, asked with the binding's own key: which of the missing ones exist, and what it
//! is that the clock will change.

use std::collections::BTreeSet;

use futures::future::join_all;
use sealpod_client::Org;
use sealpod_core::Time;
use sealpod_core::wire::org::SecretVersion;
use sealpod_crds::{ChangeKind, NextChange, SecretChange};

use super::resolve::{Known, Question};

/// Most secrets of one binding that are asked for their versions, and how many at a time.
const MOST_ASKED: usize = 50;
const ASKED_AT_A_TIME: usize = 5;

/// A secret and those of its versions that the binding may get; none where they cannot be read.
struct Asked<'a> {
    name: &'a String,
    versions: Option<Vec<SecretVersion>>,
}

/// Completes what a bundle said. The state of a bundle is the same before and after a version that is not active, so
/// which of the missing secrets exist is asked each time; what changes next once for each change, within the hour before.
pub(super) async fn completed(organization: &Org<'_>, question: &Question, known: Known, now: Time) -> Known {
    let missing = asked(organization, question, &known.missing).await;
    let inactive = missing.iter().filter(|secret| secret.exists());
    let inactive: BTreeSet<String> = inactive.map(|secret| secret.name.clone()).collect();
    let next_change = match known.next_change_at.filter(|at| is_near(*at, now)) {
        Some(at) if known.next_change.is_none() => {
            let present = asked(organization, question, known.secrets.keys()).await;
            changing(at, present.iter().chain(&missing), &known)
        }
        Some(_) => known.next_change.clone(),
        None => None,
    };
    Known {
        inactive,
        next_change,
        ..known
    }
}

/// What was found to change next, where it is still so: of a binding whose values change all the time, 50 secrets are not
/// asked for their versions each time.
pub(super) fn still(before: Known, known: &Known) -> Option<NextChange> {
    let of_then = |secret: &SecretChange| before.secrets.get(&secret.name) == known.secrets.get(&secret.name);
    before
        .next_change
        .filter(|change| before.next_change_at == known.next_change_at && change.secrets.iter().all(of_then))
}

async fn asked<'a>(
    organization: &Org<'_>,
    question: &Question,
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<Asked<'a>> {
    let names: Vec<&String> = names.into_iter().take(MOST_ASKED).collect();
    let mut all = Vec::with_capacity(names.len());
    for some in names.chunks(ASKED_AT_A_TIME) {
        let asked = some
            .iter()
            .map(|name| organization.secret_versions(&question.project, &question.environment, name));
        for (name, versions) in some.iter().copied().zip(join_all(asked).await) {
            let pinned = question.request.version.iter().find(|pinned| pinned.key == *name);
            // One that nobody has made has none.
            let mut versions = match versions {
                Err(error) if error.is_not_found() => Some(Vec::new()),
                versions => versions.ok(),
            };
            if let (Some(versions), Some(pinned)) = (&mut versions, pinned) {
                versions.retain(|version| version.version == pinned.version);
            }
            all.push(Asked { name, versions });
        }
    }
    all
}

fn is_near(at: Time, now: Time) -> bool {
    let left = at.microseconds().saturating_sub(now.microseconds());
    u64::try_from(left).is_ok_and(|left| u128::from(left) <= NextChange::AHEAD.as_micros())
}

/// None where one of them could not be asked and the others do not change: then it is asked again.
fn changing<'a>(at: Time, secrets: impl Iterator<Item = &'a Asked<'a>>, known: &Known) -> Option<NextChange> {
    let mut found = NextChange::default();
    let mut is_whole = true;
    for secret in secrets {
        is_whole &= secret.versions.is_some();
        let Some(change) = secret.changes(at, known.secrets.get(secret.name).copied()) else {
            continue;
        };
        if found.secrets.len() < NextChange::MOST_NAMED {
            let name = secret.name.clone();
            found.secrets.push(SecretChange { name, change });
        } else {
            found.more += 1;
        }
    }
    (is_whole || !found.secrets.is_empty()).then_some(found)
}

impl Asked<'_> {
    /// What cannot be read counts as missing.
    fn exists(&self) -> bool {
        self.versions.as_ref().is_some_and(|versions| !versions.is_empty())
    }

    /// The highest version whose window is open counts, and both ends belong to the window.
    fn changes(&self, at: Time, active: Option<u64>) -> Option<ChangeKind> {
        let of = |is: &dyn Fn(&&SecretVersion) -> bool| self.versions.iter().flatten().any(|version| is(&version));
        let begins = |version: &&SecretVersion| {
            version.is_enabled && version.not_before == Some(at) && active.is_none_or(|active| version.version > active)
        };
        let ends = |version: &&SecretVersion| {
            let after = version.expires_at.map(|end| end.microseconds().saturating_add(1));
            Some(version.version) == active && after == Some(at.microseconds())
        };
        if of(&begins) {
            Some(ChangeKind::Begins)
        } else {
            of(&ends).then_some(ChangeKind::Ends)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: i64) -> Time {
        Time::from_microseconds(microseconds).unwrap()
    }

    /// Its number and its window, of which both ends belong to it.
    fn version(number: u64, not_before: Option<i64>, expires_at: Option<i64>) -> SecretVersion {
        SecretVersion {
            version: number,
            is_enabled: true,
            not_before: not_before.map(at),
            expires_at: expires_at.map(at),
            created_at: at(0),
            created_by: "a".to_owned(),
        }
    }

    fn change(versions: Vec<SecretVersion>, active: Option<u64>) -> Option<ChangeKind> {
        let (name, versions) = (&"a".to_owned(), Some(versions));
        Asked { name, versions }.changes(at(100), active)
    }

    #[test]
    fn what_ends_and_what_begins_at_an_instant_is_what_the_server_counts_by() {
        let (ends, begins) = (Some(ChangeKind::Ends), Some(ChangeKind::Begins));
        let off = SecretVersion {
            is_enabled: false,
            ..version(2, Some(100), None)
        };
        for (what, versions, active, want) in [
            (
                "the last instant is the one before",
                vec![version(1, None, Some(99))],
                Some(1),
                ends,
            ),
            ("one that ends later", vec![version(1, None, Some(100))], Some(1), None),
            (
                "one that pods do not get",
                vec![version(1, None, Some(99)), version(2, None, None)],
                Some(2),
                None,
            ),
            ("the first", vec![version(1, Some(100), None)], None, begins),
            (
                "a newer one",
                vec![version(1, None, None), version(2, Some(100), None)],
                Some(1),
                begins,
            ),
            (
                "one for the other",
                vec![version(1, None, Some(99)), version(2, Some(100), None)],
                Some(1),
                begins,
            ),
            (
                "an older one",
                vec![version(1, Some(100), None), version(2, None, None)],
                Some(2),
                None,
            ),
            ("one that is off", vec![version(1, None, None), off], Some(1), None),
            ("nothing", vec![], None, None),
        ] {
            assert_eq!(change(versions, active), want, "{what}");
        }
    }

    #[test]
    fn three_are_named_and_the_others_counted() {
        let names: Vec<String> = (0..5).map(|number| format!("s{number}")).collect();
        let known = Known {
            secrets: names.iter().map(|name| (name.clone(), 1)).collect(),
            ..Known::default()
        };
        let of = |name| Asked {
            name,
            versions: Some(vec![version(1, None, Some(99))]),
        };
        let all: Vec<Asked<'_>> = names.iter().map(of).collect();
        let found = changing(at(100), all.iter(), &known).unwrap();
        let shown: Vec<_> = found.secrets.iter().map(|secret| secret.name.as_str()).collect();
        assert_eq!((shown, found.more), (vec!["s0", "s1", "s2"], 2));
    }

    #[test]
    fn what_could_not_be_asked_is_asked_again_unless_the_change_was_found() {
        let names = ["a", "b"].map(str::to_owned);
        let known = Known {
            secrets: [("a".to_owned(), 1)].into(),
            ..Known::default()
        };
        let asked = |found: bool, unread: bool| {
            let end = if found { 99 } else { 7 };
            let versions = [Some(vec![version(1, None, Some(end))]), (!unread).then(Vec::new)];
            let all = [&names[0], &names[1]].into_iter().zip(versions);
            let all: Vec<_> = all.map(|(name, versions)| Asked { name, versions }).collect();
            changing(at(100), all.iter(), &known).map(|change| change.secrets.len())
        };
        assert_eq!([asked(true, false), asked(true, true)], [Some(1), Some(1)]);
        assert_eq!([asked(false, false), asked(false, true)], [Some(0), None]);
    }

    #[test]
    fn what_was_found_holds_for_its_instant_and_for_the_versions_it_was_found_of() {
        let known = |version: u64, next: i64, other: u64| Known {
            secrets: [("a".to_owned(), version), ("b".to_owned(), other)].into(),
            next_change_at: Some(at(next)),
            ..Known::default()
        };
        let change = SecretChange {
            name: "a".to_owned(),
            change: ChangeKind::Ends,
        };
        let before = Known {
            next_change: Some(NextChange {
                secrets: vec![change],
                more: 0,
            }),
            ..known(1, 100, 1)
        };
        let holds = |now: &Known| still(before.clone(), now).is_some();
        assert!(holds(&known(1, 100, 2)), "another secret has changed");
        assert!(!holds(&known(2, 100, 1)), "this one has");
        assert!(!holds(&known(1, 101, 1)), "another change is the next");
    }

    #[test]
    fn it_is_asked_within_the_hour_before() {
        let hour = i64::try_from(NextChange::AHEAD.as_micros()).unwrap();
        let near = |left: i64| is_near(at(2 * hour + left), at(2 * hour));
        assert!(near(0) && near(hour));
        assert!(!near(hour + 1) && !near(-1));
    }
}
