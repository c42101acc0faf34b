//! What anybody can do.

use proptest::prelude::*;
use sealpod_core::wire::Edit;

use super::questions::{QUESTIONS, RULES};

pub const KEYS: [&str; 4] = ["a", "db-1", "db-2", "x.y"];
pub const ENVIRONMENTS: [&str; 2] = ["local", "prod"];
pub const ENTRIES: [&str; 2] = ["Flag", "Level"];

/// First and last moment, in thousandths of hours from the start of the walk and a quarter of an hour.
pub type Window = (Option<i64>, Option<i64>);

#[derive(Debug, Clone)]
pub enum Step {
    Put {
        environment: usize,
        key: usize,
        window: Window,
    },
    /// A value for every environment, in one transaction of the management plane.
    SetAll {
        key: usize,
        enabled: bool,
    },
    Change {
        environment: usize,
        key: usize,
        at: usize,
        enabled: Option<bool>,
        from: Edit<Option<i64>>,
        to: Edit<Option<i64>>,
    },
    RollBack {
        environment: usize,
        key: usize,
        at: usize,
    },
    /// A deletion in one environment.
    Hide {
        environment: usize,
        key: usize,
        purge: bool,
    },
    DeleteSecret {
        key: usize,
        purge: bool,
    },
    SetEntry {
        environment: usize,
        entry: usize,
    },
    DeleteEntry {
        environment: usize,
        entry: usize,
        purge: bool,
    },
    CreateEnvironment {
        environment: usize,
    },
    DeleteEnvironment {
        environment: usize,
        purge: bool,
    },
    /// The deletion of that number, counted from the newest.
    Restore {
        back: usize,
    },
    Purge {
        back: usize,
    },
    Grant {
        caller: usize,
        rule: usize,
    },
    Revoke {
        caller: usize,
        rule: usize,
    },
    Rotate {
        caller: usize,
        overlap: bool,
    },
    /// The account goes, with its keys and rules.
    Leave {
        caller: usize,
    },
    /// Another account takes its place.
    Enter {
        caller: usize,
    },
    /// A value that begins to count in a moment.
    Begin {
        environment: usize,
        key: usize,
    },
    /// The value that counts ends in a moment.
    End {
        environment: usize,
        key: usize,
    },
    /// The project gets another name.
    Rename,
    /// Something of another project.
    Elsewhere,
}

impl Step {
    /// The same with other objects.
    pub fn shifted(&self, by: usize) -> Self {
        let mut step = self.clone();
        let shift = |index: &mut usize, count: usize| *index = (*index + by) % count;
        match &mut step {
            Self::Put { key, .. }
            | Self::Begin { key, .. }
            | Self::End { key, .. }
            | Self::SetAll { key, .. }
            | Self::Hide { key, .. }
            | Self::DeleteSecret { key, .. } => {
                shift(key, KEYS.len());
            }
            Self::Change { key, at, .. } | Self::RollBack { key, at, .. } => {
                shift(key, KEYS.len());
                shift(at, 3);
            }
            Self::SetEntry { entry, .. } | Self::DeleteEntry { entry, .. } => shift(entry, ENTRIES.len()),
            Self::CreateEnvironment { environment } | Self::DeleteEnvironment { environment, .. } => {
                shift(environment, ENVIRONMENTS.len());
            }
            Self::Restore { back } | Self::Purge { back } => shift(back, 3),
            Self::Grant { caller, rule } | Self::Revoke { caller, rule } => {
                shift(caller, QUESTIONS.len());
                shift(rule, RULES.len());
            }
            Self::Rotate { caller, .. } | Self::Leave { caller } | Self::Enter { caller } => {
                shift(caller, QUESTIONS.len());
            }
            Self::Rename | Self::Elsewhere => {}
        }
        step
    }
}

/// One of them.
pub fn step() -> impl Strategy<Value = Step> {
    // Most of it happens where most look.
    let environment = || prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let (key, at, entry) = (|| 0..KEYS.len(), || 0..4_usize, || 0..ENTRIES.len());
    let (caller, rule) = (|| 0..QUESTIONS.len(), || 0..RULES.len());
    let hour = || prop_oneof![3 => Just(None), 1 => (-4..4_i64).prop_map(|hour| Some(hour * 1_000))];
    let edit = || prop_oneof![2 => Just(Edit::Keep), 1 => hour().prop_map(Edit::To)];
    let rarely = || prop::bool::weighted(0.25);
    prop_oneof![
        8 => (environment(), key(), (hour(), hour()))
            .prop_map(|(environment, key, window)| Step::Put { environment, key, window }),
        3 => (key(), any::<bool>()).prop_map(|(key, enabled)| Step::SetAll { key, enabled }),
        10 => (environment(), key(), at(), any::<Option<bool>>(), edit(), edit()).prop_map(
            |(environment, key, at, enabled, from, to)| Step::Change { environment, key, at, enabled, from, to }
        ),
        3 => (environment(), key(), at()).prop_map(|(environment, key, at)| Step::RollBack { environment, key, at }),
        3 => (environment(), key(), rarely()).prop_map(|(environment, key, purge)| Step::Hide { environment, key, purge }),
        3 => (key(), rarely()).prop_map(|(key, purge)| Step::DeleteSecret { key, purge }),
        3 => (environment(), entry()).prop_map(|(environment, entry)| Step::SetEntry { environment, entry }),
        2 => (environment(), entry(), rarely())
            .prop_map(|(environment, entry, purge)| Step::DeleteEntry { environment, entry, purge }),
        5 => environment().prop_map(|environment| Step::CreateEnvironment { environment }),
        1 => (environment(), rarely()).prop_map(|(environment, purge)| Step::DeleteEnvironment { environment, purge }),
        5 => (0..3_usize).prop_map(|back| Step::Restore { back }),
        1 => (0..3_usize).prop_map(|back| Step::Purge { back }),
        3 => (caller(), rule()).prop_map(|(caller, rule)| Step::Grant { caller, rule }),
        3 => (caller(), rule()).prop_map(|(caller, rule)| Step::Revoke { caller, rule }),
        2 => (caller(), any::<bool>()).prop_map(|(caller, overlap)| Step::Rotate { caller, overlap }),
        1 => caller().prop_map(|caller| Step::Leave { caller }),
        3 => caller().prop_map(|caller| Step::Enter { caller }),
        2 => (environment(), key()).prop_map(|(environment, key)| Step::Begin { environment, key }),
        2 => (environment(), key()).prop_map(|(environment, key)| Step::End { environment, key }),
        1 => Just(Step::Rename),
        1 => Just(Step::Elsewhere),
    ]
}
