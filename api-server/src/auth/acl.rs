//! What a caller of the organization plane may do with secrets and configurations: pure, and the only place that
//! decides it.
//!
//! Deny by default. A rule speaks of the projects, environments and keys that its three patterns match as whole,
//! case-sensitive names; of several that match the highest permission counts. An account with a project reaches only
//! that project, whatever its rules say. No permission lets a service account administer.

use sealpod_core::Pattern;
use sealpod_core::wire::org::Permission;
use uuid::Uuid;

/// What one rule grants its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub project: Pattern,
    pub environment: Pattern,
    pub key: Pattern,
    /// Whether it also covers the configurations of the environments it matches.
    pub configurations: bool,
    pub permission: Permission,
}

/// An environment, by the names that patterns are matched with.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub project_id: Uuid,
    pub project: &'a str,
    pub environment: &'a str,
}

/// Everything that a caller may do in one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// Superadmins need no rule.
    Everything,
    Granted {
        /// The one project that the caller may reach; none: all of the organization.
        only_project: Option<Uuid>,
        grants: Vec<Grant>,
    },
}

impl Rights {
    /// The rights in one environment; asking key by key then costs one match a rule.
    pub fn within(&self, place: Place<'_>) -> EnvironmentRights {
        match self {
            Self::Everything => EnvironmentRights::Everything,
            Self::Granted { only_project, grants } => EnvironmentRights::Granted(
                grants
                    .iter()
                    .filter(|_| only_project.is_none_or(|only| only == place.project_id))
                    .filter(|grant| {
                        grant.project.matches(place.project) && grant.environment.matches(place.environment)
                    })
                    .cloned()
                    .collect(),
            ),
        }
    }

    /// Whether lists may name the project: its own, or one that a rule speaks of.
    pub fn sees_project(&self, id: Uuid, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted {
                only_project: Some(only),
                ..
            } => *only == id,
            Self::Granted {
                only_project: None,
                grants,
            } => grants.iter().any(|grant| grant.project.matches(name)),
        }
    }

    /// Whether lists may name the environment.
    pub fn sees_environment(&self, place: Place<'_>) -> bool {
        match self {
            Self::Granted {
                only_project: Some(only),
                ..
            } if *only == place.project_id => true,
            _ => self.within(place).any(),
        }
    }
}

/// What a caller may do in one environment.
#[derive(Debug)]
pub enum EnvironmentRights {
    Everything,
    Granted(Vec<Grant>),
}

impl EnvironmentRights {
    /// Whether there is a right to anything here.
    pub fn any(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => !grants.is_empty(),
        }
    }

    /// The highest permission for a key.
    pub fn permission(&self, key: &str) -> Option<Permission> {
        match self {
            Self::Everything => Some(Permission::Admin),
            Self::Granted(grants) => grants
                .iter()
                .filter(|grant| grant.key.matches(key))
                .map(|grant| grant.permission)
                .max(),
        }
    }

    pub fn may(&self, permission: Permission, key: &str) -> bool {
        self.permission(key).is_some_and(|granted| granted >= permission)
    }

    pub fn configurations(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Granted(grants) => grants.iter().any(|grant| grant.configurations),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHOP: Uuid = Uuid::from_u128(1);
    const BANK: Uuid = Uuid::from_u128(2);

    fn grant(project: &str, environment: &str, key: &str, permission: Permission) -> Grant {
        Grant {
            project: project.parse().unwrap(),
            environment: environment.parse().unwrap(),
            key: key.parse().unwrap(),
            configurations: false,
            permission,
        }
    }

    fn rights(only_project: Option<Uuid>, grants: Vec<Grant>) -> Rights {
        Rights::Granted { only_project, grants }
    }

    fn place(project_id: Uuid, project: &'static str, environment: &'static str) -> Place<'static> {
        Place {
            project_id,
            project,
            environment,
        }
    }

    #[test]
    fn nothing_is_allowed_without_a_rule() {
        let none = rights(None, vec![]);
        let here = none.within(place(SHOP, "shop", "prod"));
        assert!(!here.any() && here.permission("a").is_none() && !here.configurations());
        assert!(!none.sees_project(SHOP, "shop") && !none.sees_environment(place(SHOP, "shop", "prod")));
        assert!(
            Rights::Everything
                .within(place(SHOP, "shop", "prod"))
                .may(Permission::Admin, "a")
        );
    }

    #[test]
    fn the_highest_matching_rule_wins_whatever_the_order() {
        let mut grants = vec![
            grant("*", "*", "*", Permission::Read),
            grant("shop", "{dev,staging}", "db-?", Permission::Write),
        ];
        for _ in 0..2 {
            let rights = rights(None, grants.clone());
            assert_eq!(
                rights.within(place(SHOP, "shop", "dev")).permission("db-1"),
                Some(Permission::Write)
            );
            assert_eq!(
                rights.within(place(SHOP, "shop", "dev")).permission("db-10"),
                Some(Permission::Read)
            );
            assert_eq!(
                rights.within(place(SHOP, "shop", "prod")).permission("db-1"),
                Some(Permission::Read)
            );
            assert_eq!(
                rights.within(place(BANK, "bank", "dev")).permission("db-1"),
                Some(Permission::Read)
            );
            grants.reverse();
        }
    }

    #[test]
    fn a_project_scoped_account_reaches_only_its_project() {
        let rights = rights(Some(SHOP), vec![grant("*", "*", "*", Permission::Write)]);
        assert!(rights.within(place(SHOP, "shop", "prod")).may(Permission::Write, "a"));
        assert!(
            !rights.within(place(BANK, "shop", "prod")).any(),
            "the id counts, not the name"
        );
        assert!(rights.sees_project(SHOP, "shop") && !rights.sees_project(BANK, "bank"));
    }

    #[test]
    fn configurations_need_a_rule_that_says_so() {
        let mut rule = grant("shop", "prod", "none-of-these", Permission::Read);
        rule.configurations = true;
        let rights = rights(None, vec![rule, grant("*", "*", "*", Permission::Admin)]);
        assert!(rights.within(place(SHOP, "shop", "prod")).configurations());
        assert!(!rights.within(place(SHOP, "shop", "dev")).configurations());
    }

    fn name() -> impl Strategy<Value = String> {
        "[ab]{1,3}"
    }

    fn any_grant() -> impl Strategy<Value = Grant> {
        let pattern = "[ab?*]{1,3}|\\{a,b\\*\\}";
        let permission = prop_oneof![Just(Permission::Read), Just(Permission::Write), Just(Permission::Admin)];
        (pattern, pattern, pattern, permission, any::<bool>()).prop_map(|(p, e, k, permission, configurations)| Grant {
            configurations,
            ..grant(&p, &e, &k, permission)
        })
    }

    proptest! {
        /// Against the definition, word by word; and fewer rules never give more.
        #[test]
        fn rights_are_what_the_rules_say(
            grants in prop::collection::vec(any_grant(), 0..5),
            (project, environment, key) in (name(), name(), name()),
            scoped in any::<bool>(),
            same in any::<bool>(),
        ) {
            let only_project = scoped.then_some(SHOP);
            let place = Place {
                project_id: if same { SHOP } else { BANK },
                project: &project,
                environment: &environment,
            };
            let mut expected = None;
            for grant in &grants {
                if (!scoped || same)
                    && grant.project.matches(&project)
                    && grant.environment.matches(&environment)
                    && grant.key.matches(&key)
                {
                    expected = expected.max(Some(grant.permission));
                }
            }
            let all = rights(only_project, grants.clone());
            prop_assert_eq!(all.within(place).permission(&key), expected);
            for gone in 0..grants.len() {
                let mut fewer = grants.clone();
                fewer.remove(gone);
                prop_assert!(rights(only_project, fewer).within(place).permission(&key) <= expected);
            }
        }
    }
}
