//! Who holds an API key.

use sealpod_core::Time;

use super::{Account, AclRule, Organization, Project, Result, Store, sqlite};
use crate::crypto::KeyDigest;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyHolder {
    Account(AccountKey),
    Application(ApplicationKey),
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
        let holder = self
            .engine
            .read(move |view| sqlite::keys::find(view.conn, &digest, clock))
            .await?;
        if let Some(KeyHolder::Account(key)) = &holder {
            self.engine.note_use(key.account.id);
        }
        Ok(holder)
    }
}
