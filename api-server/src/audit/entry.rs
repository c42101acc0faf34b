//! What an entry may say.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::idempotency::Claim;
use crate::ids::OrganizationId;

/// Longest text that a caller's own words may take in an entry (user agent, request id), in bytes.
pub const MAX_TEXT: usize = 256;

/// A word of the log that this version of the server does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a word of the audit log")]
pub struct UnknownWord(pub String);

macro_rules! words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)* })*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
            }
        }
    )* };
}

words! {
    /// The kind of object that an entry is about: the first half of its action.
    Kind {
        Org = "org",
        Member = "member",
        Project = "project",
        Env = "env",
        Secret = "secret",
        Config = "config",
        Acl = "acl",
        ServiceAccount = "service_account",
        Session = "session",
        Backup = "backup",
        Key = "key",
    }
    /// What was done: the second half of an action.
    Verb {
        Create = "create",
        Rename = "rename",
        Update = "update",
        Delete = "delete",
        Set = "set",
        Read = "read",
        List = "list",
        Grant = "grant",
        Revoke = "revoke",
        Rotate = "rotate",
        Login = "login",
        LoginFailed = "login_failed",
        Logout = "logout",
        Restore = "restore",
        Rewrap = "rewrap",
    }
    Outcome {
        Success = "success",
        /// Refused by a role or an ACL rule.
        Denied = "denied",
        Failure = "failure",
    }
    ActorKind {
        User = "user",
        ServiceAccount = "service_account",
        /// Whoever holds the admin key.
        AdminKey = "admin_key",
        /// An application with its own key.
        Application = "application",
        /// The server itself.
        System = "system",
        Anonymous = "anonymous",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub kind: ActorKind,
    pub id: Option<Uuid>,
    /// An e-mail address, an account's name, an application's slug.
    pub name: String,
}

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub ip: Option<IpAddr>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
}

/// Who acts, and from where: what every change and every record needs beside itself.
///
/// Clones share the parts: each request makes several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub actor: Arc<Actor>,
    pub source: Arc<Source>,
    /// `<kind>/<namespace>/<name>` of the Kubernetes object that the operator acted for.
    pub on_behalf: Option<String>,
    /// The request is to be done once: noted in the transaction of its change.
    pub once: Option<Claim>,
}

impl By {
    /// The server itself; `name` says which part of it.
    pub fn system(name: &str) -> Self {
        Self {
            actor: Arc::new(Actor {
                kind: ActorKind::System,
                id: None,
                name: name.to_owned(),
            }),
            source: Arc::default(),
            on_behalf: None,
            once: None,
        }
    }
}

/// Which chain an entry goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// What belongs to no organization: sessions, failed logins, backups, master keys, organizations made and deleted.
    Instance,
    Organization(OrganizationId),
}

impl Chain {
    /// Its id in storage: that of the organization, or the nil UUID.
    pub fn id(self) -> Uuid {
        match self {
            Self::Instance => Uuid::nil(),
            Self::Organization(id) => id.0,
        }
    }

    pub fn of_id(id: Uuid) -> Self {
        if id.is_nil() {
            Self::Instance
        } else {
            Self::Organization(OrganizationId(id))
        }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance => f.write_str("the instance"),
            Self::Organization(id) => write!(f, "organization {id}"),
        }
    }
}

/// What an action was about, beyond its object. Names, numbers and versions only; what is absent is not written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The version that was made, read or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Keys and the versions of them that were given out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, u64>,
    /// Keys of configurations that were given out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub configurations: Vec<String>,
    /// Keys that were refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// How many names were listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The fields that a change touched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The name that was given up for another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_name: Option<String>,
    /// First and last of the versions that were restored or purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<[u64; 2]>,
    /// Deleted for good, not to the trash.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub purged: bool,
    /// The version whose value a rollback set again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_version: Option<u64>,
    /// The environments that were made along with a project.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// The first characters of a key that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// How long earlier keys live on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap_seconds: Option<u64>,
    /// The rule that was granted or revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleMetadata>,
    /// The role that a member was given, or had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How many rules went with a service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules_revoked: Option<u64>,
    /// The Kubernetes object that the operator acted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMetadata {
    pub subject_type: String,
    pub subject_id: Uuid,
    pub project_pattern: String,
    pub env_pattern: String,
    pub key_pattern: String,
    pub configurations: bool,
    pub permission: String,
}

/// One thing that happened. [`By`] says who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub verb: Verb,
    pub outcome: Outcome,
    pub resource_id: Option<Uuid>,
    pub resource_name: Option<String>,
    /// Slug of the project that the resource is in.
    pub project: Option<String>,
    /// Slug of the environment that the resource is in.
    pub environment: Option<String>,
    pub metadata: Metadata,
}

impl Entry {
    /// A success without an object; the other parts are added.
    pub fn new(kind: Kind, verb: Verb) -> Self {
        Self {
            kind,
            verb,
            outcome: Outcome::Success,
            resource_id: None,
            resource_name: None,
            project: None,
            environment: None,
            metadata: Metadata::default(),
        }
    }

    /// Whether it tells of a change, and not of a look or a refusal.
    pub fn is_change(&self) -> bool {
        self.outcome == Outcome::Success && !matches!(self.verb, Verb::Read | Verb::List)
    }

    /// Whether what it tells of took something away, or an access: nothing that a full disk should hold up.
    pub fn takes_away(&self) -> bool {
        self.metadata.purged || matches!(self.verb, Verb::Delete | Verb::Revoke | Verb::Logout)
    }

    #[must_use]
    pub fn resource(mut self, id: impl Into<Option<Uuid>>, name: &str) -> Self {
        self.resource_id = id.into();
        self.resource_name = Some(name.to_owned());
        self
    }

    #[must_use]
    pub fn at(mut self, project: &str, environment: Option<&str>) -> Self {
        self.project = Some(project.to_owned());
        self.environment = environment.map(str::to_owned);
        self
    }

    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        assert!(Kind::ALL.iter().all(|it| it.as_str().parse() == Ok(*it)));
        assert!(Verb::ALL.iter().all(|it| it.as_str().parse() == Ok(*it)));
        assert!(Outcome::ALL.iter().all(|it| it.as_str().parse() == Ok(*it)));
        assert!(ActorKind::ALL.iter().all(|it| it.as_str().parse() == Ok(*it)));
        assert_eq!("root".parse::<ActorKind>(), Err(UnknownWord("root".to_owned())));
    }

    #[test]
    fn metadata_that_says_nothing_is_empty() {
        assert_eq!(serde_json::to_string(&Metadata::default()).unwrap(), "{}");
    }

    #[test]
    fn a_chain_reads_back_from_its_id() {
        for chain in [Chain::Instance, Chain::Organization(OrganizationId::new())] {
            assert_eq!(Chain::of_id(chain.id()), chain);
        }
    }
}
