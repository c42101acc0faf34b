//! What the server says about a binding's secrets, asked with the binding's own key: names and versions, never values.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use sealpod_client::{BuildError, Error as ServerError, Fetched};
use sealpod_core::wire::bundle::{Bundle, BundleRequest};
use sealpod_core::{SecretText, Time};
use sealpod_crds::{NextChange, PodCounts, SecretBinding};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::versions;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::uid::{Uid, digest};

/// Most keys of one binding that are made within [`MINTS_WITHIN`].
const MINTS: usize = 5;
const MINTS_WITHIN: Duration = Duration::from_mins(3);

/// What was asked last and what came, and keys that are made but not stored yet; by the binding's UID.
#[derive(Debug, Default)]
pub struct Resolutions(Mutex<HashMap<Uid, Remembered>>);

/// What is remembered of one binding. There are thousands of them: what is only compared is kept as its hash.
#[derive(Debug, Default)]
struct Remembered {
    answer: Option<Answer>,
    /// The binding's account.
    account: Option<Uuid>,
    minted: Option<Box<Minted>>,
    /// What was shown last, and since when.
    shown: Option<([u8; 16], Instant)>,
    /// When the latest keys were made, oldest first; at most [`MINTS`].
    mints: Vec<Instant>,
}

#[derive(Debug)]
struct Answer {
    /// [`Question::digest`].
    question: [u8; 16],
    etag: Box<str>,
    /// [`Known`] in JSON: a few dozen bytes, and half a kilobyte otherwise.
    known: Box<[u8]>,
}

pub(super) struct Question {
    account: Uuid,
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) request: BundleRequest,
}

impl Question {
    fn digest(&self) -> [u8; 16] {
        let Self {
            account,
            project,
            environment,
            request,
        } = self;
        digest_of(&(account, project, environment, request))
    }
}

fn digest_of<T: Serialize>(value: &T) -> [u8; 16] {
    digest(&serde_json::to_vec(value).expect("names, numbers and times are plain data"))
}

/// A key whose way into the Secret failed. Kept in memory and used by the next try, because each new key pushes out
/// the oldest that still works.
#[derive(Debug, Clone)]
pub struct Minted {
    pub account: Uuid,
    pub key: SecretText,
    pub at: Time,
}

/// The state of the secrets of one binding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    /// Versions by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub denied: BTreeSet<String>,
    /// Those of `missing` that have versions, of which none is active.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub inactive: BTreeSet<String>,
    /// When the clock alone changes something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change_at: Option<Time>,
    /// What that is, once it is known; names none where it was asked and not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_change: Option<NextChange>,
}

impl Known {
    pub fn names(&self) -> Vec<&str> {
        self.secrets.keys().map(String::as_str).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    Known(Arc<Known>),
    /// The server does not take the key.
    KeyRejected,
    /// The key is good and may read nothing here.
    Denied,
}

impl Resolutions {
    pub fn forget(&self, uid: &str) {
        self.bindings().remove(&Uid::of(uid));
    }

    /// Of which something is remembered.
    pub fn uids(&self) -> HashSet<Uid> {
        self.bindings().keys().copied().collect()
    }

    /// Forgets these, and of the others what has no meaning any more.
    pub fn forget_all(&self, gone: &HashSet<Uid>) {
        let now = Instant::now();
        let mut bindings = self.bindings();
        bindings.retain(|uid, _| !gone.contains(uid));
        let room = 2 * bindings.len();
        bindings.shrink_to(room);
        for remembered in bindings.values_mut() {
            remembered.forget_mints(now);
        }
    }

    /// Counts one more key that is made for the binding; or how long to wait before it may be. The server keeps the eight newest
    /// keys: a fault that outlives a new key would otherwise push out, one by one, those that pods still use. Within the
    /// time that is counted pods hear of the newest, so five are never too many.
    pub fn may_mint(&self, uid: &str, now: Instant) -> Result<(), Duration> {
        let mut bindings = self.bindings();
        let remembered = bindings.entry(Uid::of(uid)).or_default();
        remembered.forget_mints(now);
        if let (Some(oldest), true) = (remembered.mints.first(), remembered.mints.len() >= MINTS) {
            return Err(MINTS_WITHIN.saturating_sub(now.duration_since(*oldest)));
        }
        remembered.mints.reserve_exact(1);
        remembered.mints.push(now);
        Ok(())
    }

    /// How long these have been shown.
    pub fn unchanged_for(&self, uid: &str, known: &Known, pods: Option<PodCounts>) -> Duration {
        // What is only told beforehand changes nothing for pods.
        let Known {
            secrets,
            missing,
            denied,
            inactive,
            next_change_at,
            next_change: _,
        } = known;
        let shown = digest_of(&(secrets, missing, denied, inactive, next_change_at, pods));
        let now = Instant::now();
        let mut bindings = self.bindings();
        let remembered = bindings.entry(Uid::of(uid)).or_default();
        match remembered.shown {
            Some((before, since)) if before == shown => now.duration_since(since),
            _ => {
                remembered.shown = Some((shown, now));
                Duration::ZERO
            }
        }
    }

    /// The account that the binding was seen with last; only to find the binding by it.
    pub fn account(&self, uid: &str) -> Option<Uuid> {
        self.bindings().get(&Uid::of(uid))?.account
    }

    pub fn has_account(&self, uid: &str, account: Uuid) {
        self.bindings().entry(Uid::of(uid)).or_default().account = Some(account);
    }

    pub fn keep_minted(&self, uid: &str, minted: Minted) {
        self.bindings().entry(Uid::of(uid)).or_default().minted = Some(Box::new(minted));
    }

    pub fn minted(&self, uid: &str, account: Uuid) -> Option<Minted> {
        let bindings = self.bindings();
        let minted = bindings.get(&Uid::of(uid))?.minted.as_deref();
        minted.filter(|minted| minted.account == account).cloned()
    }

    pub fn stored(&self, uid: &str) {
        if let Some(remembered) = self.bindings().get_mut(&Uid::of(uid)) {
            remembered.minted = None;
        }
    }

    /// The server's mark for what it said last.
    pub fn etag(&self, uid: &str) -> Option<String> {
        let bindings = self.bindings();
        let answer = bindings.get(&Uid::of(uid))?.answer.as_ref()?;
        Some(answer.etag.to_string())
    }

    /// What the server said last to this question, and its mark for it.
    fn answer(&self, uid: &str, question: &Question) -> Option<(String, Known)> {
        let bindings = self.bindings();
        let answer = bindings.get(&Uid::of(uid))?.answer.as_ref()?;
        if answer.question != question.digest() {
            return None;
        }
        Some((answer.etag.to_string(), serde_json::from_slice(&answer.known).ok()?))
    }

    fn answered(&self, uid: &str, question: &Question, etag: &str, known: &Known) {
        let answer = Answer {
            question: question.digest(),
            etag: etag.into(),
            known: serde_json::to_vec(known)
                .expect("names, versions and times are plain data")
                .into_boxed_slice(),
        };
        self.bindings().entry(Uid::of(uid)).or_default().answer = Some(answer);
    }

    fn bindings(&self) -> MutexGuard<'_, HashMap<Uid, Remembered>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn forget_mints(&mut self, now: Instant) {
        self.mints.retain(|at| now.duration_since(*at) < MINTS_WITHIN);
        if self.mints.is_empty() {
            self.mints = Vec::new();
        }
    }
}

/// Asks. An unchanged state costs the server no audit entry: it is asked with the `ETag` of the last answer.
pub async fn resolve(
    object: &SecretBinding,
    key: &SecretText,
    account: Uuid,
    project: &str,
    request: BundleRequest,
    context: &Context,
) -> Result<Resolution, Error> {
    let client = match context.server.with_key(key.clone()) {
        Ok(client) => client,
        // Somebody edited the key into what no header can carry.
        Err(BuildError::Credential) => return Ok(Resolution::KeyRejected),
        Err(_) => return Err(Error::NotNow("the connection to the server cannot be set up")),
    };
    let uid = object.uid().unwrap_or_default();
    let question = Question {
        account,
        project: project.to_owned(),
        environment: object.spec.environment.clone(),
        request,
    };
    let before = context.resolutions.answer(&uid, &question);
    let etag = before.as_ref().map(|(etag, _)| etag.as_str());
    let organization = client.org(context.server.organization());
    let fetched = organization
        .bundle(project, &question.environment, &question.request, etag)
        .await;
    let (etag, known) = match (fetched, before) {
        (Ok(Fetched::NotModified), Some(answer)) => answer,
        (Ok(Fetched::NotModified), None) => return Err(Error::NotNow("the server says that nothing has changed")),
        (Ok(Fetched::Bundle(bundle)), before) => {
            let known = known(&bundle);
            let next_change = before.and_then(|(_, before)| versions::still(before, &known));
            (bundle.etag.clone(), Known { next_change, ..known })
        }
        (Err(ServerError::Unauthorized(_)), _) => return Ok(Resolution::KeyRejected),
        (Err(ServerError::Forbidden(_)), _) => return Ok(Resolution::Denied),
        (Err(error), _) => return Err(Error::server("asking for the state of the secrets")(error)),
    };
    let known = versions::completed(&organization, &question, known, Time::now()).await;
    context.resolutions.answered(&uid, &question, &etag, &known);
    Ok(Resolution::Known(Arc::new(known)))
}

fn known(bundle: &Bundle) -> Known {
    Known {
        secrets: bundle
            .secrets
            .iter()
            .map(|(name, secret)| (name.clone(), secret.version))
            .collect(),
        missing: bundle.missing.iter().cloned().collect(),
        denied: bundle.denied.iter().cloned().collect(),
        inactive: BTreeSet::new(),
        next_change_at: bundle.next_change_at,
        next_change: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_outlives_new_keys_makes_only_a_few() {
        let resolutions = Resolutions::default();
        let start = Instant::now();
        for _ in 0..MINTS {
            assert_eq!(resolutions.may_mint("a", start), Ok(()));
        }
        let third = MINTS_WITHIN / 3;
        assert_eq!(resolutions.may_mint("a", start + third), Err(2 * third));
        assert_eq!(resolutions.may_mint("b", start), Ok(()));
        assert_eq!(resolutions.may_mint("a", start + MINTS_WITHIN), Ok(()));
    }

    #[test]
    fn a_key_that_is_not_stored_yet_belongs_to_its_account() {
        let resolutions = Resolutions::default();
        let account = Uuid::from_u128(1);
        let minted = Minted {
            account,
            key: SecretText::new("key"),
            at: Time::from_microseconds(0).unwrap(),
        };
        resolutions.keep_minted("a", minted);
        assert!(resolutions.minted("a", account).is_some());
        assert!(resolutions.minted("a", Uuid::from_u128(2)).is_none());
        resolutions.stored("a");
        assert!(resolutions.minted("a", account).is_none());
    }

    #[test]
    fn what_was_answered_is_known_again_to_the_same_question_alone() {
        let question = |environment: &str| Question {
            account: Uuid::from_u128(1),
            project: "shop".to_owned(),
            environment: environment.to_owned(),
            request: BundleRequest::default(),
        };
        let known = Known {
            secrets: [("a".to_owned(), 7), ("b".to_owned(), 1)].into(),
            missing: ["c".to_owned(), "d".to_owned()].into(),
            denied: ["e".to_owned()].into(),
            inactive: ["d".to_owned()].into(),
            next_change_at: Time::from_microseconds(1_700_000_000_000_001),
            next_change: Some(NextChange::default()),
        };
        let resolutions = Resolutions::default();
        for known in [Known::default(), known] {
            resolutions.answered("a", &question("prod"), "etag", &known);
            assert_eq!(
                resolutions.answer("a", &question("prod")),
                Some(("etag".to_owned(), known))
            );
        }
        assert_eq!(resolutions.answer("a", &question("dev")), None);
        assert_eq!(resolutions.answer("b", &question("prod")), None);
        resolutions.forget_all(&HashSet::from([Uid::of("a")]));
        assert_eq!(resolutions.etag("a"), None, "it is gone");
    }
}
