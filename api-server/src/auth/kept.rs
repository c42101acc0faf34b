//! A caller who waits: what is kept of it meanwhile, and who it turns out to be afterwards.

use std::sync::Arc;

use super::Caller;
use super::credential::Presented;
use super::member::{Member, Standing};
use crate::app::App;
use crate::audit::{By, Source};
use crate::crypto::{ApiKey, SessionToken};
use crate::store::{Asker, Credential};

/// As little as there must be of it: thousands wait. Who it is and what it may is looked up again in the read that is
/// answered.
#[derive(Debug, Clone)]
pub struct Kept {
    presented: Presented,
    source: Arc<Source>,
    on_behalf: Option<String>,
}

impl Kept {
    pub fn of(caller: &Caller) -> Self {
        let By { source, on_behalf, .. } = caller.by();
        Self {
            presented: caller.presented.clone(),
            source,
            on_behalf,
        }
    }

    /// The credential itself.
    pub fn text(&self) -> &str {
        self.presented.text()
    }

    pub fn is_admin_key(&self) -> bool {
        matches!(&self.presented, Presented::Bearer(text) if SessionToken::parse(text.expose()).is_none())
    }

    /// What the caller showed, as the store looks it up; `None` where it is nobody's any more.
    pub fn credential(&self, app: &App) -> Option<Credential> {
        let pepper = app.store().pepper();
        match &self.presented {
            Presented::Key(text) => ApiKey::parse(text.expose()).map(|key| Credential::Key(pepper.digest(&key))),
            Presented::Bearer(text) => match SessionToken::parse(text.expose()) {
                Some(token) => Some(Credential::Session(token.digest(pepper))),
                None => app.admin_keys().accept(text.expose()).then_some(Credential::AdminKey),
            },
        }
    }

    /// The caller as a member of its organization, by what was found; none where it is none of the caller's.
    pub fn member(self, app: &App, asker: Asker) -> Option<Member> {
        let Self {
            presented,
            source,
            on_behalf,
        } = self;
        let (caller, organization, standing) = match asker {
            Asker::Account(key) => {
                let organization = key.organization.clone();
                let caller = Caller::account(presented, source, Arc::clone(&key));
                let standing = Standing::Account(key);
                (caller, organization, standing)
            }
            Asker::User {
                session,
                organization,
                membership,
            } => {
                let caller = Caller::user(app, presented, source, session);
                let standing = match membership {
                    Some((role, _)) if caller.is_superadmin() => Standing::Superadmin(Some(role)),
                    Some((role, rules)) => Standing::Role(role, rules.into()),
                    None if caller.is_superadmin() => Standing::Superadmin(None),
                    None => return None,
                };
                (caller, organization, standing)
            }
            Asker::AdminKey(organization) => {
                let caller = Caller::admin_key(presented, source, on_behalf);
                (caller, organization, Standing::Superadmin(None))
            }
        };
        Some(Member {
            organization,
            caller,
            standing,
        })
    }

    /// In whose name this caller is answered what was found for another one with the same credential.
    pub fn by(&self, other: &Member) -> By {
        By {
            source: Arc::clone(&self.source),
            on_behalf: self.on_behalf.clone(),
            ..other.by()
        }
    }
}
