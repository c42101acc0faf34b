//! What somebody who waits for a bundle cares about: small enough to keep for thousands of them, and quick enough to be
//! asked at every change of their environment.
//!
//! Names are kept as hashes. Two names with one hash would only make somebody look who need not have.

use std::hash::{DefaultHasher, Hash, Hasher};

use sealpod_core::Pattern;

use super::Selection;

/// Most texts that one pattern is replaced by.
const MAX_TEXTS: usize = 64;
/// Most bytes of patterns that are tried as they are. The change waits while they are tried, and their author may be
/// anybody: of the others only beginning and end are looked at, so that at worst somebody looks who need not have.
const MAX_TRIED: usize = 128;

/// Which changes of an environment somebody wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Versions that are read instead of the active one, by the hash of the name.
    pins: Box<[(u64, u64)]>,
    wanted: Names,
    permitted: Names,
    configurations: bool,
}

impl Interest {
    /// Of what is asked for that which the patterns of the caller's rules permit; no patterns: everything.
    pub fn new(selection: &Selection, permitted: Option<&[&Pattern]>, configurations: bool) -> Self {
        let (wanted, pins) = match selection {
            Selection::All => (Names::All, Box::default()),
            Selection::Named { keys, patterns, pinned } => {
                let mut pins: Box<[_]> = pinned.iter().map(|(name, number)| (hash(name), *number)).collect();
                pins.sort_unstable();
                (Names::of(keys, patterns.iter()), pins)
            }
        };
        Self {
            pins,
            wanted,
            permitted: permitted.map_or(Names::All, |patterns| Names::of(&[], patterns.iter().copied())),
            configurations,
        }
    }

    /// Whether a change of these versions of the secret, first and last, is one of what is asked for.
    pub(super) fn of_secret(&self, name: &str, [from, to]: [u64; 2]) -> bool {
        let hash = hash(name);
        let mut pins = self.pins.iter().filter(|(pinned, _)| *pinned == hash).peekable();
        let is_wanted = match pins.peek() {
            Some(_) => pins.any(|(_, number)| (from..=to).contains(number)),
            None => self.wanted.have(hash, name),
        };
        is_wanted && self.permitted.have(hash, name)
    }

    pub(super) fn of_configurations(&self) -> bool {
        self.configurations
    }

    /// Whether asking it takes long enough to remember the answer for the next one with the same interest.
    pub(super) fn is_slow(&self) -> bool {
        self.wanted.is_slow() || self.permitted.is_slow()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Names {
    All,
    Some {
        /// In order.
        hashes: Box<[u64]>,
        shapes: Box<[Shape]>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Affixes(Box<str>, Box<str>),
    Pattern(Box<Pattern>),
}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Affixes(prefix, suffix) => (prefix, suffix).hash(state),
            Self::Pattern(pattern) => pattern.as_str().hash(state),
        }
    }
}

impl Names {
    fn of<'a>(keys: &[String], patterns: impl Iterator<Item = &'a Pattern>) -> Self {
        let mut hashes: Vec<u64> = keys.iter().map(|key| hash(key)).collect();
        let (mut shapes, mut tried) = (Vec::new(), 0);
        for pattern in patterns {
            if let Some(texts) = pattern.texts(MAX_TEXTS) {
                hashes.extend(texts.iter().map(|text| hash(text)));
                continue;
            }
            let affixes = pattern.affixes();
            if affixes.is_all && affixes.prefix.is_empty() && affixes.suffix.is_empty() {
                return Self::All;
            }
            let length = pattern.as_str().len();
            shapes.push(if !affixes.is_all && tried + length <= MAX_TRIED {
                tried += length;
                Shape::Pattern(Box::new(pattern.clone()))
            } else {
                Shape::Affixes(affixes.prefix.into(), affixes.suffix.into())
            });
        }
        hashes.sort_unstable();
        hashes.dedup();
        Self::Some {
            hashes: hashes.into(),
            shapes: shapes.into(),
        }
    }

    fn have(&self, hash: u64, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some { hashes, shapes } => {
                hashes.binary_search(&hash).is_ok()
                    || shapes.iter().any(|shape| match shape {
                        Shape::Affixes(prefix, suffix) => name
                            .strip_prefix(&**prefix)
                            .is_some_and(|rest| rest.ends_with(&**suffix)),
                        Shape::Pattern(pattern) => pattern.matches(name),
                    })
            }
        }
    }

    fn is_slow(&self) -> bool {
        matches!(self, Self::Some { shapes, .. } if !shapes.is_empty())
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: [u64; 2] = [1, 1];

    fn named(keys: &[&str], patterns: &[&str], pinned: &[(&str, u64)]) -> Selection {
        Selection::Named {
            keys: keys.iter().map(|it| (*it).to_owned()).collect(),
            patterns: patterns.iter().map(|it| it.parse().unwrap()).collect(),
            pinned: pinned.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect(),
        }
    }

    fn interest(selection: &Selection, rules: Option<&[&str]>) -> Interest {
        let rules: Option<Vec<Pattern>> = rules.map(|rules| rules.iter().map(|rule| rule.parse().unwrap()).collect());
        let rules: Option<Vec<&Pattern>> = rules.as_ref().map(|rules| rules.iter().collect());
        Interest::new(selection, rules.as_deref(), false)
    }

    #[test]
    fn only_what_is_asked_for_and_permitted_is_of_interest() {
        for (selection, rules, yes, no) in [
            (Selection::All, None, &["a", "b"][..], &[][..]),
            (Selection::All, Some(&[][..]), &[], &["a", "b"]),
            (
                Selection::All,
                Some(&["db-*", "{a,b}"]),
                &["db-1", "a", "b"],
                &["c", "db", "{a,b}"],
            ),
            (named(&["a", "b"], &[], &[]), None, &["a", "b"], &["c", ""]),
            (named(&["a", "b"], &[], &[]), Some(&["b"]), &["b"], &["a", "c"]),
            (
                named(&["a"], &["*-x", "y?z"], &[]),
                None,
                &["a", "b-x", "yyz"],
                &["yz", "b-y", "b"],
            ),
            (named(&[], &["*"], &[]), Some(&["a*"]), &["a", "ab"], &["b"]),
        ] {
            let interest = interest(&selection, rules);
            for name in yes {
                assert!(interest.of_secret(name, ONE), "{selection:?} {rules:?} {name}");
            }
            for name in no {
                assert!(!interest.of_secret(name, ONE), "{selection:?} {rules:?} {name}");
            }
        }
    }

    #[test]
    fn of_a_pinned_secret_only_that_version_is_of_interest() {
        let interest = interest(&named(&["a"], &["*"], &[("a", 3), ("secret", 1)]), Some(&["a", "b"]));
        for (name, versions, want) in [
            ("a", [3, 3], true),
            ("a", [1, 9], true),
            ("a", [4, 4], false),
            ("a", [1, 2], false),
            ("b", [4, 4], true),
            ("secret", [1, 1], false),
        ] {
            assert_eq!(interest.of_secret(name, versions), want, "{name} {versions:?}");
        }
    }

    #[test]
    fn costly_patterns_are_not_tried_while_a_change_waits() {
        let costly = "{a,*}".repeat(50);
        let interest = interest(&named(&[], &[&costly, "x?"], &[]), None);
        assert!(interest.of_secret("xy", ONE) && interest.is_slow());
        let Names::Some { shapes, .. } = &interest.wanted else {
            panic!()
        };
        let tried = shapes.iter().filter(|shape| matches!(shape, Shape::Pattern(_)));
        assert_eq!(tried.count(), 1);
    }

    proptest! {
        /// Nothing is missed, whatever the patterns; and nothing is heard of in vain, where they are few.
        #[test]
        fn what_a_read_would_look_at_is_of_interest(
            keys in prop::collection::vec("[ab]{1,3}", 0..3),
            patterns in prop::collection::vec("[ab?*]{1,3}|\\{a,b\\*\\}[ab]?", 0..12),
            rules in prop::option::of(prop::collection::vec("[ab?*]{1,2}|\\{a,b\\}\\*", 0..3)),
            name in "[ab]{1,3}",
        ) {
            let parsed = |all: &[String]| all.iter().map(|it| it.parse().unwrap()).collect::<Vec<Pattern>>();
            let (patterns, rules) = (parsed(&patterns), rules.map(|rules| parsed(&rules)));
            let wanted = keys.contains(&name) || patterns.iter().any(|pattern| pattern.matches(&name));
            let permitted = rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.matches(&name)));
            let is_exact = patterns.iter().map(|it| it.as_str().len()).sum::<usize>() <= MAX_TRIED;
            let selection = Selection::Named { keys, patterns, pinned: [].into() };
            let rules: Option<Vec<&Pattern>> = rules.as_ref().map(|rules| rules.iter().collect());
            let found = Interest::new(&selection, rules.as_deref(), false).of_secret(&name, ONE);
            prop_assert!(found || !(wanted && permitted));
            prop_assert!(!is_exact || found == (wanted && permitted));
        }
    }
}
