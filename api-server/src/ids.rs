//! Identities of everything that is stored, one type each, so that no id can stand where another belongs.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident)*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh one; ids made later sort behind it.
            #[allow(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}

ids! {
    OrganizationId
    /// A project, which the management plane calls an application.
    ProjectId
    EnvironmentId
    /// A secret slot: (project, name).
    SecretId
    /// One value of a secret in one environment.
    VersionId
    ConfigurationId
    /// One value of a configuration: new at every change.
    RevisionId
    /// A service account.
    AccountId
    /// An ACL rule.
    RuleId
    /// An API key, of an account or of an application.
    KeyId
    /// A person who may sign in.
    UserId
    SessionId
    /// One deletion that can be undone.
    TrashId
}
