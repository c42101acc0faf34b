//! Which events only tell of what this process has just written itself. A queue that takes them for news works on every
//! object twice.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::core::object::HasStatus;
use sealpod_core::kubernetes::FINALIZER;
use serde::Serialize;
use uuid::Uuid;

use super::uid::Uid;

/// An event may be here before the answer to the write that it tells of; so long it waits for that.
pub const SETTLING: Duration = Duration::from_millis(150);
/// How long a change of the server's, or an earlier version of a Secret, is expected back.
const EXPECTED_WITHIN: Duration = Duration::from_mins(1);

/// How many of these are kept without a look at how old they are.
const MANY: usize = 1_024;

/// What this process wrote last, by the object's UID.
#[derive(Debug, Default)]
pub struct Echoes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    objects: HashMap<Uid, Seen>,
    /// Versions of key Secrets that a later one of ours has followed, and when: their events may still be on their way.
    followed: HashMap<(Uid, Hashed), Instant>,
    /// Changes that were made on the server: the object's id and whether it was deleted.
    server: HashMap<(Uuid, bool), Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Of all but the status, as it was looked at last.
    wanted: Option<Hashed>,
    /// Of the status, as it was written or looked at last.
    status: Option<Hashed>,
    /// Of the resource version in which the object's key Secret was written last.
    secret: Option<Hashed>,
}

/// A hash that leaves room for there being none: there is one of these for each object.
type Hashed = NonZeroU64;

impl Echoes {
    /// To be told before the status is written, because the event may be faster than the answer.
    pub fn writes_status<S: Serialize>(&self, uid: &str, status: &S) {
        let hash = hash_of(status);
        self.state().objects.entry(Uid::of(uid)).or_default().status = Some(hash);
    }

    /// Whether the object differs, in what anybody may have meant by it, from what was looked at or written last.
    pub fn is_news<K>(&self, object: &K) -> bool
    where
        K: ResourceExt + HasStatus,
        K::Status: Serialize,
    {
        let Some(uid) = object.meta().uid.as_deref().map(Uid::of) else {
            return true;
        };
        let now = (Some(wanted(object)), object.status().map(hash_of));
        let ours = object.finalizers().iter().any(|f| f == FINALIZER);
        let mut state = self.state();
        if !ours && object.meta().deletion_timestamp.is_some() {
            // Let go, and forgotten: the finalizers of others hold it.
            state.objects.remove(&uid);
            return true;
        }
        let seen = state.objects.entry(uid).or_default();
        let news = (seen.wanted, seen.status) != now;
        (seen.wanted, seen.status) = now;
        // The finalizer is added while the object is worked on; without it, nobody has.
        news || !ours
    }

    /// `uid` is that of the object whose key is in the Secret.
    pub fn wrote_secret(&self, uid: &str, resource_version: Option<String>) {
        let Some(version) = resource_version else { return };
        let (uid, now) = (Uid::of(uid), Instant::now());
        let mut state = self.state();
        let seen = state.objects.entry(uid).or_default();
        let Some(earlier) = seen.secret.replace(hashed(version.as_str())) else {
            return;
        };
        drop_old(&mut state.followed, now);
        state.followed.insert((uid, earlier), now);
    }

    pub fn is_own_secret(&self, uid: &str, resource_version: Option<&str>) -> bool {
        let Some(version) = resource_version.map(hashed) else {
            return false;
        };
        let uid = Uid::of(uid);
        let state = self.state();
        let is_last = state.objects.get(&uid).is_some_and(|seen| seen.secret == Some(version));
        let followed = state.followed.get(&(uid, version));
        is_last || followed.is_some_and(|at| at.elapsed() < EXPECTED_WITHIN)
    }

    /// A rule or an account that was made, changed or ended.
    pub fn changed_on_server(&self, id: Uuid, deleted: bool) {
        let now = Instant::now();
        let mut state = self.state();
        drop_old(&mut state.server, now);
        state.server.insert((id, deleted), now);
    }

    /// Whether this change was made here; asked once for each.
    pub fn is_own_change(&self, id: Uuid, deleted: bool) -> bool {
        let at = self.state().server.remove(&(id, deleted));
        at.is_some_and(|at| at.elapsed() < EXPECTED_WITHIN)
    }

    pub fn forget(&self, uid: &str) {
        self.state().objects.remove(&Uid::of(uid));
    }

    /// Of which something is remembered.
    pub fn uids(&self) -> HashSet<Uid> {
        self.state().objects.keys().copied().collect()
    }

    pub fn forget_all(&self, gone: &HashSet<Uid>) {
        let mut state = self.state();
        state.objects.retain(|uid, _| !gone.contains(uid));
        let room = 2 * state.objects.len();
        state.objects.shrink_to(room);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where there are many, those go that are expected no more.
fn drop_old<K: Eq + Hash>(expected: &mut HashMap<K, Instant>, now: Instant) {
    if expected.len() >= MANY {
        expected.retain(|_, at| now.duration_since(*at) < EXPECTED_WITHIN);
    }
}

fn wanted<K: ResourceExt>(object: &K) -> Hashed {
    let mut hasher = DefaultHasher::new();
    let meta = object.meta();
    meta.generation.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    object.labels().hash(&mut hasher);
    object.annotations().hash(&mut hasher);
    nonzero(&hasher)
}

fn hash_of<S: Serialize>(status: &S) -> Hashed {
    hashed(&serde_json::to_vec(status).unwrap_or_default())
}

fn hashed<T: Hash + ?Sized>(value: &T) -> Hashed {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    nonzero(&hasher)
}

fn nonzero(hasher: &DefaultHasher) -> Hashed {
    NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::binding::world::object;
    use sealpod_crds::SecretBinding;

    fn known() -> SecretBinding {
        let mut object = object();
        object.metadata.generation = Some(1);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object
    }

    #[test]
    fn an_event_is_news_unless_it_tells_of_our_own_status() {
        let echoes = Echoes::default();
        let mut object = known();
        assert!(echoes.is_news(&object), "never seen");
        assert!(!echoes.is_news(&object), "listed again");
        let written = sealpod_crds::SecretBindingStatus {
            service_account_id: Some("ours".to_owned()),
            ..Default::default()
        };
        echoes.writes_status("uid", &written);
        object.status = Some(written);
        assert!(!echoes.is_news(&object), "our own");
        object.status.as_mut().unwrap().service_account_id = Some("forged".to_owned());
        assert!(echoes.is_news(&object), "somebody edited the status");
        object.metadata.generation = Some(2);
        assert!(echoes.is_news(&object), "the spec");
        object.metadata.annotations = Some([("sealpod.dev/reconcile-at".to_owned(), "now".to_owned())].into());
        assert!(echoes.is_news(&object), "an annotation");
        object.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            k8s_openapi::jiff::Timestamp::now(),
        ));
        assert!(echoes.is_news(&object), "the deletion");
        assert!(!echoes.is_news(&object));
        object.metadata.finalizers = None;
        assert!(echoes.is_news(&object), "the finalizer is gone");
        assert!(echoes.state().objects.is_empty(), "and nothing is kept of it");
    }

    #[test]
    fn of_the_servers_changes_our_own_are_known_once() {
        let echoes = Echoes::default();
        let rule = Uuid::from_u128(1);
        echoes.changed_on_server(rule, false);
        assert!(!echoes.is_own_change(rule, true), "somebody deleted what we made");
        assert!(echoes.is_own_change(rule, false));
        assert!(!echoes.is_own_change(rule, false), "somebody changed it");
    }

    #[test]
    fn a_key_secret_is_ours_in_each_version_that_we_wrote() {
        let echoes = Echoes::default();
        for version in ["4", "5", "7"] {
            echoes.wrote_secret("uid", Some(version.to_owned()));
        }
        // The first was written over before its event was here.
        for version in ["4", "5", "7"] {
            assert!(echoes.is_own_secret("uid", Some(version)), "{version}");
        }
        for (uid, version) in [("uid", Some("6")), ("other", Some("5")), ("uid", None), ("other", None)] {
            assert!(!echoes.is_own_secret(uid, version), "{uid} {version:?}");
        }
    }
}
