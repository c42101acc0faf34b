//! A caller inside one organization: what its role, its rules or its scope let it do there.

use std::sync::Arc;

use sealpod_core::wire::org::Permission;
use sealpod_core::wire::people::Role;

use super::Caller;
use super::acl::{Grant, Place, Rights};
use crate::audit::By;
use crate::error::ApiError;
use crate::ids::AccountId;
use crate::store::{AccountKey, AclRule, Organization, Subject};

/// A caller in an organization that it belongs to, as of the request.
#[derive(Debug, Clone)]
pub struct Member {
    pub organization: Organization,
    pub(super) caller: Caller,
    pub(super) standing: Standing,
}

#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// With the role that a superadmin has beside.
    Superadmin(Option<Role>),
    Role(Role, Arc<[AclRule]>),
    Account(Arc<AccountKey>),
}

impl Member {
    pub fn by(&self) -> By {
        self.caller.by()
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn identity(&self) -> [u8; 16] {
        self.caller.identity()
    }

    /// The role that the caller has by membership.
    pub fn role(&self) -> Option<Role> {
        match &self.standing {
            Standing::Superadmin(role) => *role,
            Standing::Role(role, _) => Some(*role),
            Standing::Account(_) => None,
        }
    }

    /// The service account that calls.
    pub fn account(&self) -> Option<AccountId> {
        match &self.standing {
            Standing::Account(key) => Some(key.account.id),
            Standing::Superadmin(_) | Standing::Role(..) => None,
        }
    }

    /// Whose rules, keys and role decide about this caller.
    pub fn subject(&self) -> Option<Subject> {
        match &self.standing {
            Standing::Account(key) => Some(Subject::ServiceAccount(key.account.id)),
            Standing::Superadmin(_) | Standing::Role(..) => {
                self.caller.session().map(|session| Subject::User(session.user.id))
            }
        }
    }

    /// 403 unless the caller has this role or a higher one; superadmins need none, and service accounts have none.
    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        match &self.standing {
            Standing::Superadmin(_) => Ok(()),
            Standing::Role(own, _) if *own >= role => Ok(()),
            Standing::Role(own, _) => Err(ApiError::Forbidden(
                format!(
                    "this needs the role `{}` in this organization, and yours is `{}`; ask one of its owners",
                    role.as_str(),
                    own.as_str()
                )
                .into(),
            )),
            Standing::Account(_) => self.caller.person(),
        }
    }

    /// The caller's rights by the rules that were read with its credential.
    pub fn rights(&self) -> Rights {
        match &self.standing {
            Standing::Superadmin(_) => Rights::Everything,
            Standing::Role(_, rules) => self.rights_by(rules),
            Standing::Account(key) => self.rights_by(&key.rules),
        }
    }

    /// The caller's rights by `rules`, which are its own as of another moment.
    pub fn rights_by(&self, rules: &[AclRule]) -> Rights {
        match &self.standing {
            Standing::Superadmin(_) | Standing::Role(Role::Owner | Role::Admin, _) => Rights::Everything,
            Standing::Role(role, _) => Rights::Granted {
                only_project: None,
                grants: rules.iter().map(|rule| Grant::of(rule, most(*role))).collect(),
            },
            Standing::Account(key) => Rights::Granted {
                only_project: key.account.project.as_ref().map(|scope| scope.id.0),
                grants: rules.iter().map(|rule| Grant::of(rule, Permission::Admin)).collect(),
            },
        }
    }

    /// Whether lists may name the project: members see all of them, a service account those that its scope or a rule
    /// names.
    pub fn sees_project(&self, id: uuid::Uuid, name: &str) -> bool {
        self.account().is_none() || self.rights().sees_project(id, name)
    }

    /// Whether lists may name the environment.
    pub fn sees_environment(&self, place: Place<'_>) -> bool {
        self.account().is_none() || self.rights().sees_environment(place)
    }

    /// What stands in the way of `permission`, for the caller's eyes.
    pub fn why_not(&self, permission: Permission) -> &'static str {
        match (&self.standing, permission) {
            (Standing::Role(Role::Member, _), Permission::Write | Permission::Admin) => {
                "the role `member` never writes, whatever the rules say; ask an owner for the role `developer`"
            }
            (_, Permission::Read) => "no rule lets you read this key here; an admin can grant one with POST …/acl",
            (_, Permission::Write | Permission::Admin) => {
                "no rule lets you write this key here; an admin can grant one with POST …/acl"
            }
        }
    }
}

/// The most that rules can give to a role that needs them.
fn most(role: Role) -> Permission {
    match role {
        Role::Member => Permission::Read,
        Role::Developer | Role::Admin | Role::Owner => Permission::Admin,
    }
}

impl Grant {
    fn of(rule: &AclRule, most: Permission) -> Self {
        Self {
            project: rule.project_pattern.clone(),
            environment: rule.env_pattern.clone(),
            key: rule.key_pattern.clone(),
            configurations: rule.configurations,
            permission: rule.permission.min(most),
        }
    }
}
