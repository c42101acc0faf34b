//! What the server says about a binding's secrets, asked with the binding's own key: names and versions, never values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::ResourceExt;
use sealpod_client::{BuildError, Error as ServerError, Fetched, Org};
use sealpod_core::wire::bundle::{Bundle, BundleRequest};
use sealpod_core::{SecretText, Time};
use sealpod_crds::{PodCounts, SecretBinding};
use uuid::Uuid;

use crate::controller::context::Context;
use crate::controller::error::Error;

/// Most keys of one binding that are made within [`MINTS_WITHIN`].
const MINTS: usize = 5;
const MINTS_WITHIN: Duration = Duration::from_mins(3);
/// Most missing secrets that are asked for their versions, and how many at a time.
const MOST_ASKED: usize = 50;
const ASKED_AT_A_TIME: usize = 5;

/// What was asked last and what came, and keys that are made but not stored yet; by the binding's UID.
#[derive(Debug, Default)]
pub struct Resolutions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, Answer>,
    minted: HashMap<String, Minted>,
    /// The accounts of bindings.
    accounts: HashMap<String, Uuid>,
    /// What was shown last, and since when.
    shown: HashMap<String, (Arc<Known>, Option<PodCounts>, Instant)>,
    /// When the latest keys were made, oldest first; at most [`MINTS`] for each binding.
    mints: HashMap<String, Vec<Instant>>,
}

#[derive(Debug, Clone)]
struct Answer {
    question: Question,
    etag: String,
    known: Arc<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    account: Uuid,
    project: String,
    environment: String,
    request: BundleRequest,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Versions by name.
    pub secrets: BTreeMap<String, u64>,
    pub missing: BTreeSet<String>,
    pub denied: BTreeSet<String>,
    /// Those of `missing` that have versions, of which none is active.
    pub inactive: BTreeSet<String>,
    /// When the clock alone changes something.
    pub next_change_at: Option<Time>,
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
        let mut state = self.state();
        state.answers.remove(uid);
        state.minted.remove(uid);
        state.accounts.remove(uid);
        state.shown.remove(uid);
        state.mints.remove(uid);
    }

    /// Whether one more key may be made for the binding now, and if so, counts it. The server keeps the eight newest
    /// keys: a fault that outlives a new key would otherwise push out, one by one, those that pods still use. Within the
    /// time that is counted pods hear of the newest, so five are never too many.
    pub fn may_mint(&self, uid: &str, now: Instant) -> bool {
        let mut state = self.state();
        let mints = state.mints.entry(uid.to_owned()).or_default();
        mints.retain(|at| now.duration_since(*at) < MINTS_WITHIN);
        let may = mints.len() < MINTS;
        if may {
            mints.push(now);
        }
        may
    }

    /// How long these have been shown.
    pub fn unchanged_for(&self, uid: &str, known: &Arc<Known>, pods: Option<PodCounts>) -> Duration {
        let mut state = self.state();
        let now = Instant::now();
        match state.shown.get(uid) {
            Some((shown, counted, since)) if shown == known && *counted == pods => now.duration_since(*since),
            _ => {
                state.shown.insert(uid.to_owned(), (Arc::clone(known), pods, now));
                Duration::ZERO
            }
        }
    }

    /// The account that the binding was seen with last; only to find the binding by it.
    pub fn account(&self, uid: &str) -> Option<Uuid> {
        self.state().accounts.get(uid).copied()
    }

    pub fn has_account(&self, uid: &str, account: Uuid) {
        self.state().accounts.insert(uid.to_owned(), account);
    }

    pub fn keep_minted(&self, uid: &str, minted: Minted) {
        self.state().minted.insert(uid.to_owned(), minted);
    }

    pub fn minted(&self, uid: &str, account: Uuid) -> Option<Minted> {
        self.state()
            .minted
            .get(uid)
            .filter(|minted| minted.account == account)
            .cloned()
    }

    pub fn stored(&self, uid: &str) {
        self.state().minted.remove(uid);
    }

    /// The server's mark for what it said last.
    pub fn etag(&self, uid: &str) -> Option<String> {
        self.state().answers.get(uid).map(|answer| answer.etag.clone())
    }

    fn answer(&self, uid: &str, question: &Question) -> Option<Answer> {
        self.state()
            .answers
            .get(uid)
            .filter(|answer| answer.question == *question)
            .cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    let etag = before.as_ref().map(|answer| answer.etag.as_str());
    let organization = client.org(context.server.organization());
    let fetched = organization
        .bundle(project, &question.environment, &question.request, etag)
        .await;
    let (etag, known) = match (fetched, before) {
        (Ok(Fetched::NotModified), Some(answer)) => (answer.etag, answer.known),
        (Ok(Fetched::NotModified), None) => return Err(Error::NotNow("the server says that nothing has changed")),
        (Ok(Fetched::Bundle(bundle)), _) => (bundle.etag.clone(), Arc::new(known(&bundle))),
        (Err(ServerError::Unauthorized(_)), _) => return Ok(Resolution::KeyRejected),
        (Err(ServerError::Forbidden(_)), _) => return Ok(Resolution::Denied),
        (Err(error), _) => return Err(Error::server("asking for the state of the secrets")(error)),
    };
    let inactive = inactive(&organization, &question, &known).await;
    let known = if inactive == known.inactive {
        known
    } else {
        Arc::new(Known {
            inactive,
            ..Known::clone(&known)
        })
    };
    let answer = Answer {
        question,
        etag,
        known: Arc::clone(&known),
    };
    context.resolutions.state().answers.insert(uid, answer);
    Ok(Resolution::Known(known))
}

/// Which of the missing secrets have versions, asked with the binding's key as everything else. The state of a bundle is
/// the same before and after a version that is not active, so this is asked each time. What cannot be read counts as
/// missing.
async fn inactive(organization: &Org<'_>, question: &Question, known: &Known) -> BTreeSet<String> {
    let pinned = |name: &str| question.request.version.iter().find(|pinned| pinned.key == name);
    let mut inactive = BTreeSet::new();
    let missing: Vec<&String> = known.missing.iter().take(MOST_ASKED).collect();
    for some in missing.chunks(ASKED_AT_A_TIME) {
        let asked = some
            .iter()
            .map(|name| organization.secret_versions(&question.project, &question.environment, name));
        for (name, versions) in some.iter().zip(join_all(asked).await) {
            let versions = versions.unwrap_or_default();
            let exists = match pinned(name) {
                Some(pinned) => versions.iter().any(|version| version.version == pinned.version),
                None => !versions.is_empty(),
            };
            if exists {
                inactive.insert((*name).clone());
            }
        }
    }
    inactive
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
            assert!(resolutions.may_mint("a", start));
        }
        assert!(!resolutions.may_mint("a", start + MINTS_WITHIN / 2));
        assert!(resolutions.may_mint("b", start));
        assert!(resolutions.may_mint("a", start + MINTS_WITHIN));
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
}
