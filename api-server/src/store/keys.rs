//! Who holds an API key.

use std::sync::Arc;

use sealpod_core::Time;
use sealpod_core::wire::Labels;

use super::{Account, AclRule, Organization, Project, Result, Store};
use crate::crypto::KeyDigest;

/// Clones share what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHolder {
    Account(Arc<AccountKey>),
    Application(Arc<ApplicationKey>),
}

impl KeyHolder {
    /// When the key dies by the clock.
    pub(super) fn expires_at(&self) -> Option<Time> {
        match self {
            Self::Account(key) => key.expires_at,
            Self::Application(key) => key.expires_at,
        }
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let labels =
            |labels: &Labels| -> usize { labels.iter().map(|(key, value)| key.len() + value.len() + 64).sum() };
        match self {
            Self::Account(key) => {
                let rules = key.rules.iter().map(|rule| {
                    let patterns = [&rule.project_pattern, &rule.env_pattern, &rule.key_pattern];
                    // Parsed, a pattern has three sets of its steps, and one for each different character.
                    let patterns = patterns.map(|pattern| 320 + 80 * pattern.as_str().len());
                    size_of::<AclRule>() + patterns.iter().sum::<usize>()
                });
                size_of::<AccountKey>() + rules.sum::<usize>() + labels(&key.account.labels) + 256
            }
            Self::Application(key) => {
                let description = key.project.description.as_ref().map_or(0, String::len);
                size_of::<ApplicationKey>() + description + labels(&key.project.labels) + 256
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountKey {
    pub organization: Organization,
    pub account: Account,
    /// The account's live rules.
    pub rules: Vec<AclRule>,
    /// When the key dies: at its own deadline or the account's, whichever is sooner.
    pub expires_at: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationKey {
    pub project: Project,
    pub expires_at: Option<Time>,
}

impl Store {
    /// Whose key this is; `None` where it is unknown, or it, its account, project or organization is dead. Notes down
    /// when the account was last used, without waiting for that to reach the disk.
    pub async fn find_key(&self, digest: KeyDigest) -> Result<Option<KeyHolder>> {
        let clock = self.engine.credential_clock();
        let holder = self.engine.find_key(digest, clock).await?;
        if let Some(KeyHolder::Account(key)) = &holder {
            self.engine.note_use(key.account.id);
        }
        Ok(holder)
    }
}
