//! The chain of keyed hashes.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sealpod_core::Time;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::{By, Chain, Entry, MAX_TEXT};

/// What the first entry of a chain follows.
pub const GENESIS: [u8; 32] = [0; 32];
/// Where a walk along a chain is: the number and the hash of the entry that it came to.
pub type End = (u64, [u8; 32]);
/// Names the encoding of an entry; a later one gets another name.
const FORMAT: &[u8] = b"sealpod/audit/1";

/// An entry as it is stored, every part in the form that its hash covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    pub chain: Chain,
    /// 1, 2, 3 … without gaps in each chain.
    pub seq: u64,
    pub id: Uuid,
    pub created_at: Time,
    /// `<kind>.<verb>`
    pub action: String,
    pub actor_type: String,
    pub actor_id: Option<Uuid>,
    pub actor_name: String,
    pub resource_type: String,
    pub resource_id: Option<Uuid>,
    pub resource_name: Option<String>,
    pub project: Option<String>,
    pub environment: Option<String>,
    pub outcome: String,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    /// [`super::Metadata`] as JSON.
    pub metadata: String,
    pub hash: [u8; 32],
}

/// The end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub chain: Chain,
    pub seq: u64,
    pub hash: [u8; 32],
}

/// The key of the chain: who does not have it can neither forge nor alter an entry unseen.
#[derive(Clone)]
pub struct AuditKey(Hmac<Sha256>);

impl AuditKey {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// Makes the entry that follows the one with `previous` as its hash.
    pub(crate) fn seal(
        &self,
        chain: Chain,
        seq: u64,
        previous: &[u8; 32],
        at: Time,
        entry: Entry,
        by: &By,
    ) -> StoredEntry {
        let mut metadata = entry.metadata;
        metadata.on_behalf.clone_from(&by.on_behalf);
        let mut stored = StoredEntry {
            chain,
            seq,
            id: Uuid::now_v7(),
            created_at: at,
            action: format!("{}.{}", entry.kind, entry.verb),
            actor_type: by.actor.kind.to_string(),
            actor_id: by.actor.id,
            actor_name: by.actor.name.clone(),
            resource_type: entry.kind.to_string(),
            resource_id: entry.resource_id,
            resource_name: entry.resource_name,
            project: entry.project,
            environment: entry.environment,
            outcome: entry.outcome.to_string(),
            ip: by.source.ip.map(|ip| ip.to_string()),
            user_agent: by.source.user_agent.as_deref().map(short),
            request_id: by.source.request_id.as_deref().map(short),
            metadata: serde_json::to_string(&metadata).expect("metadata has text keys and plain values only"),
            hash: GENESIS,
        };
        stored.hash = self.hash(previous, &stored);
        stored
    }

    /// Of parts of fixed lengths, under a key of this format's own.
    pub(super) fn mac(&self, format: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut own = self.0.clone();
        own.update(format);
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&own.finalize().into_bytes()).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    fn hash(&self, previous: &[u8; 32], entry: &StoredEntry) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(previous);
        canonical(entry, &mut |bytes| mac.update(bytes));
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Where a chain is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {expected} is missing: entry {found} stands in its place")]
    Gap { expected: u64, found: u64 },
    #[error("entry {seq} was changed, or the one before it was")]
    Changed { seq: u64 },
    #[error("that the entries up to {seq} were exported was not written by this server")]
    Cut { seq: u64 },
    #[error("entry {seq} and all behind it are gone")]
    Gone { seq: u64 },
    #[error("entry {seq} and what follows it stand behind where it is said to end")]
    Beyond { seq: u64 },
}

impl Broken {
    /// The first `seq` that is not as it was written.
    pub fn seq(self) -> u64 {
        match self {
            Self::Gap { expected, .. } => expected,
            Self::Changed { seq } | Self::Cut { seq } | Self::Gone { seq } | Self::Beyond { seq } => seq,
        }
    }
}

/// Checks that `entry` follows the entry with the number and hash of `previous`; answers its own hash.
pub fn check(key: &AuditKey, previous: End, entry: &StoredEntry) -> Result<[u8; 32], Broken> {
    let expected = previous.0 + 1;
    if entry.seq != expected {
        return Err(Broken::Gap {
            expected,
            found: entry.seq,
        });
    }
    let hash = key.hash(&previous.1, entry);
    if bool::from(hash.ct_eq(&entry.hash)) {
        Ok(hash)
    } else {
        Err(Broken::Changed { seq: entry.seq })
    }
}

/// Every part in a fixed order, preceded by its length; an absent part has a mark of its own.
fn canonical(entry: &StoredEntry, write: &mut dyn FnMut(&[u8])) {
    let StoredEntry {
        chain,
        seq,
        id,
        created_at,
        action,
        actor_type,
        actor_id,
        actor_name,
        resource_type,
        resource_id,
        resource_name,
        project,
        environment,
        outcome,
        ip,
        user_agent,
        request_id,
        metadata,
        hash: _,
    } = entry;
    let mut part = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            write(&(bytes.len() as u64).to_be_bytes());
            write(bytes);
        }
        None => write(&u64::MAX.to_be_bytes()),
    };
    part(Some(FORMAT));
    part(Some(chain.id().as_bytes()));
    part(Some(&seq.to_be_bytes()));
    part(Some(id.as_bytes()));
    part(Some(&created_at.microseconds().to_be_bytes()));
    part(Some(action.as_bytes()));
    part(Some(actor_type.as_bytes()));
    part(actor_id.as_ref().map(|id| id.as_bytes().as_slice()));
    part(Some(actor_name.as_bytes()));
    part(Some(resource_type.as_bytes()));
    part(resource_id.as_ref().map(|id| id.as_bytes().as_slice()));
    for text in [resource_name, project, environment] {
        part(text.as_deref().map(str::as_bytes));
    }
    part(Some(outcome.as_bytes()));
    for text in [ip, user_agent, request_id] {
        part(text.as_deref().map(str::as_bytes));
    }
    part(Some(metadata.as_bytes()));
}

/// A caller's own words, at a length that nobody can fill a disk with.
fn short(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Kind, Verb};
    use crate::ids::OrganizationId;

    fn chain_of(key: &AuditKey, length: u64) -> Vec<StoredEntry> {
        let chain = Chain::Organization(OrganizationId::new());
        let mut previous = GENESIS;
        (1..=length)
            .map(|seq| {
                let entry = Entry::new(Kind::Secret, Verb::Set)
                    .resource(Uuid::now_v7(), "db-password")
                    .at("shop", Some("prod"));
                let stored = key.seal(chain, seq, &previous, Time::now(), entry, &By::system("test"));
                previous = stored.hash;
                stored
            })
            .collect()
    }

    fn walk(key: &AuditKey, entries: &[StoredEntry]) -> Result<(), Broken> {
        let mut previous = (0, GENESIS);
        for entry in entries {
            previous = (entry.seq, check(key, previous, entry)?);
        }
        Ok(())
    }

    #[test]
    fn a_chain_verifies_and_no_field_can_be_changed() {
        let key = AuditKey::new(&[7; 32]);
        let good = chain_of(&key, 3);
        assert_eq!(walk(&key, &good), Ok(()));
        let changes: [fn(&mut StoredEntry); 12] = [
            |it| it.chain = Chain::Instance,
            |it| it.id = Uuid::now_v7(),
            |it| it.created_at = it.created_at.plus_seconds(1),
            |it| it.action.push('x'),
            |it| it.actor_id = Some(Uuid::nil()),
            |it| it.resource_name = None,
            |it| it.project = it.environment.take(),
            |it| it.outcome = "denied".to_owned(),
            |it| it.ip = Some("10.0.0.1".to_owned()),
            |it| it.user_agent = Some(String::new()),
            |it| it.metadata = r#"{"version":2}"#.to_owned(),
            |it| it.hash[31] ^= 1,
        ];
        for change in changes {
            let mut entries = good.clone();
            change(&mut entries[1]);
            assert_eq!(walk(&key, &entries), Err(Broken::Changed { seq: 2 }));
        }
    }

    #[test]
    fn a_missing_or_swapped_entry_is_named() {
        let key = AuditKey::new(&[7; 32]);
        let good = chain_of(&key, 4);
        let mut missing = good.clone();
        missing.remove(2);
        assert_eq!(walk(&key, &missing), Err(Broken::Gap { expected: 3, found: 4 }));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(walk(&key, &swapped).unwrap_err().seq(), 2);
        assert_eq!(walk(&AuditKey::new(&[8; 32]), &good).unwrap_err().seq(), 1);
    }

    #[test]
    fn a_callers_words_are_cut_at_a_character() {
        let long = "é".repeat(MAX_TEXT);
        assert_eq!(short(&long).len(), MAX_TEXT);
        assert_eq!(short(&format!("a{long}")).len(), MAX_TEXT - 1);
    }
}
