//! Which version of a secret counts at an instant: the one rule that every read on every plane follows.

use sealpod_core::Time;

/// What decides whether a version is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub number: u64,
    pub is_enabled: bool,
    /// First instant at which it may be read; `None`: from the start.
    pub not_before: Option<Time>,
    /// Last instant at which it may be read; `None`: for ever.
    pub expires_at: Option<Time>,
    /// Hidden by a deletion in its environment.
    pub hidden: bool,
}

impl State {
    /// Enabled, not hidden, and inside its window, whose both ends belong to it.
    pub fn is_readable(&self, now: Time) -> bool {
        self.is_enabled
            && !self.hidden
            && self.not_before.is_none_or(|from| from <= now)
            && self.expires_at.is_none_or(|to| to >= now)
    }
}

/// The number of the active version: the highest that is readable.
pub fn active<'a>(versions: impl IntoIterator<Item = &'a State>, now: Time) -> Option<u64> {
    versions
        .into_iter()
        .filter(|version| version.is_readable(now))
        .map(|version| version.number)
        .max()
}

/// The first instant after `now` at which another version is active, or one instead of none, if nothing is written
/// until then.
pub fn next_change(versions: &[State], now: Time) -> Option<Time> {
    let before = active(versions, now);
    let mut instants: Vec<Time> = versions
        .iter()
        .flat_map(|version| [version.not_before, version.expires_at.and_then(just_after)])
        .flatten()
        .filter(|instant| *instant > now)
        .collect();
    instants.sort_unstable();
    instants
        .into_iter()
        .find(|instant| active(versions, *instant) != before)
}

/// The first instant behind the last one of a window.
pub(super) fn just_after(end: Time) -> Option<Time> {
    end.microseconds().checked_add(1).and_then(Time::from_microseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(microseconds: i64) -> Time {
        Time::from_microseconds(microseconds).unwrap()
    }

    fn version(number: u64) -> State {
        State {
            number,
            is_enabled: true,
            not_before: None,
            expires_at: None,
            hidden: false,
        }
    }

    #[test]
    fn the_highest_enabled_version_is_active() {
        let disabled = State {
            is_enabled: false,
            ..version(3)
        };
        assert_eq!(active(&[version(2), disabled, version(1)], at(0)), Some(2));
        assert_eq!(active(&[disabled], at(0)), None);
        assert_eq!(active(&[], at(0)), None);
    }

    #[test]
    fn both_ends_of_a_window_belong_to_it() {
        let window = State {
            not_before: Some(at(10)),
            expires_at: Some(at(20)),
            ..version(2)
        };
        let readable: Vec<i64> = (8..=22).filter(|t| window.is_readable(at(*t))).collect();
        assert_eq!(readable, (10..=20).collect::<Vec<_>>());
        assert_eq!(active(&[version(1), window], at(21)), Some(1));
    }

    #[test]
    fn a_hidden_version_is_never_active() {
        let hidden = State {
            hidden: true,
            ..version(2)
        };
        assert_eq!(active(&[version(1), hidden], at(0)), Some(1));
    }

    #[test]
    fn the_next_change_is_when_another_version_becomes_active() {
        let ending = State {
            expires_at: Some(at(20)),
            ..version(1)
        };
        let coming = State {
            not_before: Some(at(30)),
            ..version(2)
        };
        let never = State {
            is_enabled: false,
            not_before: Some(at(15)),
            ..version(3)
        };
        let behind = State {
            not_before: Some(at(15)),
            ..version(1)
        };
        assert_eq!(next_change(&[ending], at(0)), Some(at(21)));
        assert_eq!(next_change(&[ending], at(20)), Some(at(21)));
        assert_eq!(next_change(&[ending], at(21)), None);
        assert_eq!(next_change(&[coming, never], at(0)), Some(at(30)));
        assert_eq!(next_change(&[behind, version(2)], at(0)), None);
        assert_eq!(next_change(&[ending, coming], at(0)), Some(at(21)));
        assert_eq!(next_change(&[version(1)], at(0)), None);
    }
}
