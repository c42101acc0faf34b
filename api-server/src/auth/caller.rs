//! The callers of the three planes, as handlers see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use sealpod_core::Time;
use sealpod_core::wire::people::Role;

use super::credential::{Presented, Principal};
use super::member::{Member, Standing};
use crate::app::App;
use crate::audit::{Actor, ActorKind, By, Source};
use crate::error::ApiError;
use crate::idempotency::Claim;
use crate::limits::{CredentialId, Limits};
use crate::store::{AccountKey, ApplicationKey, Grantor, Organization, Page, Project, Session, StoreError};

/// The name under which the admin key acts.
const ADMIN_NAME: &str = "admin-key";

/// A caller of the management plane: the admin key.
#[derive(Debug, Clone)]
pub struct Admin {
    by: By,
    presented: Presented,
}

impl Admin {
    pub(super) fn new(presented: Presented, source: Arc<Source>, on_behalf: Option<String>) -> Self {
        Self {
            by: admin(source, on_behalf),
            presented,
        }
    }

    /// The count that this caller's key has.
    pub fn credential(&self, limits: &Limits) -> CredentialId {
        limits.credential(self.presented.text())
    }

    /// 401 if the key is not valid any more.
    pub async fn still(&self, app: &App) -> Result<(), ApiError> {
        match self.presented.resolve(app).await? {
            Some(Principal::AdminKey) => Ok(()),
            _ => Err(ApiError::Unauthorized),
        }
    }

    /// What this caller changes is to be done once.
    pub fn claim(&mut self, claim: Claim) {
        self.by.once = Some(claim);
    }

    /// Who is named in the audit entry.
    pub fn by(&self) -> By {
        self.by.clone()
    }
}

fn admin(source: Arc<Source>, on_behalf: Option<String>) -> By {
    By {
        actor: Arc::new(Actor {
            kind: ActorKind::AdminKey,
            id: None,
            name: ADMIN_NAME.to_owned(),
        }),
        source,
        on_behalf,
        once: None,
    }
}

/// A caller of the consumer plane: one application.
#[derive(Debug, Clone)]
pub struct Application {
    key: Arc<ApplicationKey>,
    by: By,
}

impl Application {
    pub(super) fn new(source: Arc<Source>, key: Arc<ApplicationKey>) -> Self {
        let by = By {
            actor: Arc::new(Actor {
                kind: ActorKind::Application,
                id: Some(key.project.id.0),
                name: key.project.slug.clone(),
            }),
            source,
            on_behalf: None,
            once: None,
        };
        Self { key, by }
    }

    pub fn project(&self) -> &Project {
        &self.key.project
    }

    pub fn by(&self) -> By {
        self.by.clone()
    }
}

/// A caller of the organization plane: a superadmin, a user or a service account.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) who: Who,
    by: By,
    /// What the caller showed, to be checked again while it is being answered.
    pub(super) presented: Presented,
}

#[derive(Debug, Clone)]
pub(super) enum Who {
    AdminKey,
    User { session: Arc<Session>, is_superadmin: bool },
    Account(Arc<AccountKey>),
}

impl Caller {
    pub(super) fn admin_key(presented: Presented, source: Arc<Source>, on_behalf: Option<String>) -> Self {
        Self {
            who: Who::AdminKey,
            by: admin(source, on_behalf),
            presented,
        }
    }

    pub(super) fn user(app: &App, presented: Presented, source: Arc<Source>, session: Session) -> Self {
        let by = By {
            actor: Arc::new(Actor {
                kind: ActorKind::User,
                id: Some(session.user.id.0),
                name: session.user.email.clone(),
            }),
            source,
            on_behalf: None,
            once: None,
        };
        Self {
            who: Who::of_session(app, session),
            by,
            presented,
        }
    }

    pub(super) fn account(presented: Presented, source: Arc<Source>, key: Arc<AccountKey>) -> Self {
        let by = By {
            actor: Arc::new(Actor {
                kind: ActorKind::ServiceAccount,
                id: Some(key.account.id.0),
                name: key.account.name.clone(),
            }),
            source,
            on_behalf: None,
            once: None,
        };
        Self {
            who: Who::Account(key),
            by,
            presented,
        }
    }

    pub fn by(&self) -> By {
        self.by.clone()
    }

    /// What this caller changes is to be done once.
    pub fn claim(&mut self, claim: Claim) {
        self.by.once = Some(claim);
    }

    /// The session of somebody who signed in.
    pub fn session(&self) -> Option<&Session> {
        match &self.who {
            Who::User { session, .. } => Some(session),
            Who::AdminKey | Who::Account(_) => None,
        }
    }

    pub fn is_superadmin(&self) -> bool {
        match &self.who {
            Who::AdminKey => true,
            Who::User { is_superadmin, .. } => *is_superadmin,
            Who::Account(_) => false,
        }
    }

    /// 403 unless the caller may do everything.
    pub fn superadmin(&self) -> Result<(), ApiError> {
        if self.is_superadmin() {
            Ok(())
        } else {
            Err(ApiError::Forbidden(
                "only superadmins may do this: the admin key, or somebody named in SEALPOD_SUPERADMINS".into(),
            ))
        }
    }

    /// 403 for service accounts: what they may do lies within one organization.
    pub fn person(&self) -> Result<(), ApiError> {
        match &self.who {
            Who::AdminKey | Who::User { .. } => Ok(()),
            Who::Account(_) => Err(no_service_account()),
        }
    }

    /// A name for the caller that no other caller has, and that outlives the rotation of its key.
    pub fn identity(&self) -> [u8; 16] {
        match &self.who {
            Who::AdminKey => [0; 16],
            Who::User { session, .. } => *session.user.id.0.as_bytes(),
            Who::Account(key) => *key.account.id.0.as_bytes(),
        }
    }

    /// The count that this caller's credential has.
    pub fn credential(&self, limits: &Limits) -> CredentialId {
        limits.credential(self.presented.text())
    }

    /// When this caller's credential ends by the clock.
    pub fn expires_at(&self) -> Option<Time> {
        match &self.who {
            Who::AdminKey => None,
            Who::User { session, .. } => Some(session.expires_at),
            Who::Account(key) => key.expires_at,
        }
    }

    /// In whose name the caller grants and takes roles.
    pub fn grantor(&self) -> Result<Grantor, ApiError> {
        match &self.who {
            Who::User {
                session,
                is_superadmin: false,
            } => Ok(Grantor::Member(session.user.id)),
            Who::AdminKey | Who::User { .. } => Ok(Grantor::Superadmin),
            Who::Account(_) => Err(no_service_account()),
        }
    }

    /// The organizations that the caller may know of, each with the caller's role.
    pub async fn organizations(&self, app: &App, page: Page) -> Result<Vec<(Organization, Option<Role>)>, ApiError> {
        match &self.who {
            Who::AdminKey => {
                let all = app.store().organizations(page).await?;
                Ok(all.into_iter().map(|organization| (organization, None)).collect())
            }
            Who::User { session, is_superadmin } => {
                if !is_superadmin {
                    let own = app.store().memberships(session.user.id, page).await?;
                    return Ok(own
                        .into_iter()
                        .map(|(organization, role)| (organization, Some(role)))
                        .collect());
                }
                let own = app.store().memberships(session.user.id, Page::default()).await?;
                let roles: BTreeMap<_, _> = own.into_iter().map(|(one, role)| (one.id, role)).collect();
                let all = app.store().organizations(page).await?;
                Ok(all
                    .into_iter()
                    .map(|one| (roles.get(&one.id).copied(), one))
                    .map(|(role, one)| (one, role))
                    .collect())
            }
            Who::Account(key) => Ok(vec![(key.organization.clone(), None)]),
        }
    }

    /// The caller as one of the organization of that name; one that it does not belong to is as good as none.
    pub async fn within(&self, app: &App, organization: &str) -> Result<Member, ApiError> {
        let unknown = || ApiError::not_found("no organization with this name that you belong to");
        let (organization, standing) = match &self.who {
            Who::AdminKey => (
                app.store().organization(organization).await?,
                Standing::Superadmin(None),
            ),
            Who::User { session, is_superadmin } => match app.store().membership(session.user.id, organization).await {
                Ok(found) if *is_superadmin => (found.organization, Standing::Superadmin(Some(found.role))),
                Ok(found) => (found.organization, Standing::Role(found.role, found.rules.into())),
                Err(StoreError::NotFound(_)) if *is_superadmin => (
                    app.store().organization(organization).await?,
                    Standing::Superadmin(None),
                ),
                Err(StoreError::NotFound(_)) => return Err(unknown()),
                Err(error) => return Err(error.into()),
            },
            Who::Account(key) if key.organization.name == organization => {
                (key.organization.clone(), Standing::Account(Arc::clone(key)))
            }
            Who::Account(_) => return Err(unknown()),
        };
        Ok(Member {
            organization,
            caller: self.clone(),
            standing,
        })
    }

    /// This caller as of now; an error if its credential is not valid any more.
    pub async fn again(&self, app: &App) -> Result<Self, ApiError> {
        let principal = self.presented.resolve(app).await?.ok_or(ApiError::Unauthorized)?;
        let who = match principal {
            Principal::AdminKey => Who::AdminKey,
            Principal::User(session) => Who::of_session(app, *session),
            Principal::Account(key) => Who::Account(key),
            Principal::Application(_) => return Err(ApiError::Unauthorized),
        };
        Ok(Self { who, ..self.clone() })
    }
}

impl Who {
    fn of_session(app: &App, session: Session) -> Self {
        Self::User {
            is_superadmin: app.superadmins().contain(&session.user.email),
            session: Arc::new(session),
        }
    }
}

fn no_service_account() -> ApiError {
    ApiError::Forbidden(
        "service accounts read and write secrets and nothing else; this needs somebody who signed in, or the admin key"
            .into(),
    )
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
