//! The callers of the three planes, as handlers see them.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::acl::{Grant, Rights};
use super::credential::{Presented, Principal};
use crate::app::App;
use crate::audit::{Actor, ActorKind, By, Source};
use crate::error::ApiError;
use crate::store::{AccountKey, AclRule, ApplicationKey, Organization, Project, Subject};

/// The name under which the admin key acts.
const ADMIN_NAME: &str = "admin-key";

/// A caller of the management plane: the admin key.
#[derive(Debug, Clone)]
pub struct Admin {
    by: By,
}

impl Admin {
    pub(super) fn new(source: Source, on_behalf: Option<String>) -> Self {
        Self {
            by: admin(source, on_behalf),
        }
    }

    /// Who is named in the audit entry.
    pub fn by(&self) -> By {
        self.by.clone()
    }
}

fn admin(source: Source, on_behalf: Option<String>) -> By {
    By {
        actor: Actor {
            kind: ActorKind::AdminKey,
            id: None,
            name: ADMIN_NAME.to_owned(),
        },
        source,
        on_behalf,
    }
}

/// A caller of the consumer plane: one application.
#[derive(Debug, Clone)]
pub struct Application {
    pub project: Arc<Project>,
    by: By,
}

impl Application {
    pub(super) fn new(source: Source, key: ApplicationKey) -> Self {
        let by = By {
            actor: Actor {
                kind: ActorKind::Application,
                id: Some(key.project.id.0),
                name: key.project.slug.clone(),
            },
            source,
            on_behalf: None,
        };
        Self {
            project: Arc::new(key.project),
            by,
        }
    }

    pub fn by(&self) -> By {
        self.by.clone()
    }
}

/// A caller of the organization plane: the admin key as a superadmin, or a service account.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None`: superadmin.
    account: Option<Arc<AccountKey>>,
    by: By,
    /// What the caller showed, to be checked again while a poll is open.
    presented: Presented,
}

impl Caller {
    pub(super) fn superadmin(presented: Presented, source: Source, on_behalf: Option<String>) -> Self {
        Self {
            account: None,
            by: admin(source, on_behalf),
            presented,
        }
    }

    pub(super) fn account(presented: Presented, source: Source, key: AccountKey) -> Self {
        let by = By {
            actor: Actor {
                kind: ActorKind::ServiceAccount,
                id: Some(key.account.id.0),
                name: key.account.name.clone(),
            },
            source,
            on_behalf: None,
        };
        Self {
            account: Some(Arc::new(key)),
            by,
            presented,
        }
    }

    pub fn by(&self) -> By {
        self.by.clone()
    }

    /// Whose rules count for this caller.
    pub fn subject(&self) -> Option<Subject> {
        self.account.as_ref().map(|key| Subject::ServiceAccount(key.account.id))
    }

    /// A name for the caller that no other caller has, and that outlives the rotation of its key.
    pub fn identity(&self) -> [u8; 16] {
        self.account
            .as_ref()
            .map_or([0; 16], |key| *key.account.id.0.as_bytes())
    }

    /// When this caller's key ends by the clock.
    pub fn expires_at(&self) -> Option<sealpod_core::Time> {
        self.account.as_ref().and_then(|key| key.expires_at)
    }

    /// The organization of the path; one that the caller does not belong to is as good as none.
    pub async fn organization(&self, app: &App, name: &str) -> Result<Organization, ApiError> {
        match &self.account {
            None => Ok(app.store().organization(name).await?),
            Some(key) if key.organization.name == name => Ok(key.organization.clone()),
            Some(_) => Err(ApiError::not_found("no organization with this name that you belong to")),
        }
    }

    /// Whether this caller may manage accounts and rules; a service account never may.
    pub fn administer(&self) -> Result<(), ApiError> {
        match &self.account {
            None => Ok(()),
            Some(_) => Err(ApiError::Forbidden(
                "service accounts cannot administer; this needs the admin key".into(),
            )),
        }
    }

    /// The caller's rights by the rules that came with its key.
    pub fn rights(&self) -> Rights {
        match &self.account {
            None => Rights::Everything,
            Some(key) => self.rights_by(&key.rules),
        }
    }

    /// The caller's rights by `rules`, which are its own as of another moment.
    pub fn rights_by(&self, rules: &[AclRule]) -> Rights {
        match &self.account {
            None => Rights::Everything,
            Some(key) => Rights::Granted {
                only_project: key.account.project.as_ref().map(|scope| scope.id.0),
                grants: rules.iter().map(Grant::from).collect(),
            },
        }
    }

    /// This caller as of now; an error if its credential is not valid any more.
    pub async fn again(&self, app: &App) -> Result<Self, ApiError> {
        let principal = self.presented.resolve(app).await?.ok_or(ApiError::Unauthorized)?;
        let account = match principal {
            Principal::AdminKey => None,
            Principal::Account(key) => Some(Arc::new(*key)),
            Principal::Application(_) => return Err(ApiError::Unauthorized),
        };
        Ok(Self {
            account,
            by: self.by.clone(),
            presented: self.presented.clone(),
        })
    }
}

impl From<&AclRule> for Grant {
    fn from(rule: &AclRule) -> Self {
        Self {
            project: rule.project_pattern.clone(),
            environment: rule.env_pattern.clone(),
            key: rule.key_pattern.clone(),
            configurations: rule.configurations,
            permission: rule.permission,
        }
    }
}

/// Takes a caller that [`super::check`] left.
macro_rules! extract {
    ($($caller:ty)*) => { $(
        impl<S: Send + Sync> FromRequestParts<S> for $caller {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
                // A route outside its plane's prefix: a fault of ours, and closed.
                parts
                    .extensions
                    .get()
                    .cloned()
                    .ok_or_else(|| ApiError::internal("a route asks for a caller of another plane than its path's"))
            }
        }
    )* };
}

extract! { Admin Application Caller }
