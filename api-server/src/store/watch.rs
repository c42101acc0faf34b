//! Waking those who wait for a change.
//!
//! A watcher is one wake-up permit, filed under each of its topics. A change leaves a permit with every watcher of its
//! topic that cares for that part of it, whether or not that one waits right now, so a change between two waits is not
//! lost, and any number of changes costs one permit. A topic exists while somebody watches it.
//!
//! What a watcher cares for is often known only once something was read, and may change under that very read. So changes
//! are numbered, and the last ones are kept for a while: a watcher says since when it wants to hear of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use super::Interest;
use crate::ids::{EnvironmentId, OrganizationId, ProjectId};

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The organization itself.
    Organization(OrganizationId),
    /// The project itself, its environments, its keys, or a secret in all of its environments.
    Project(ProjectId),
    /// Values and configurations of the environment, or the environment itself.
    Environment(EnvironmentId),
    /// Anything in the organization, at any depth.
    Changes(OrganizationId),
    /// The rights or keys of a service account or user.
    Subject(Uuid),
    /// Something that is to be purged now.
    Trash,
}

/// What of a topic changed: what a watcher with an [`Interest`] is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// What everybody who waits in it goes by: its path, or whether it is there.
    Itself,
    /// What no bundle shows.
    Aside,
    /// Versions of the secret of that name, first and last; all of them: [`EVERY_VERSION`].
    Secret(String, [u64; 2]),
    Configurations,
}

pub(super) const EVERY_VERSION: [u64; 2] = [0, u64::MAX];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    topic: Topic,
    part: Part,
}

impl Topic {
    pub(super) fn part(self, part: Part) -> Change {
        Change { topic: self, part }
    }
}

impl From<Topic> for Change {
    fn from(topic: Topic) -> Self {
        topic.part(Part::Itself)
    }
}

/// A number of the changes that were made; those with a higher one came behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(u64);

/// Most changes that are kept for watchers that come late. One that comes later still is woken to look for itself.
const KEPT: usize = 1024;

struct Waiter {
    wake: Notify,
    /// The number of the last change that woke it, or that it need not be woken for.
    last: AtomicU64,
    /// Everything, without one.
    interest: Option<Arc<Interest>>,
}

#[derive(Default)]
struct Inner {
    topics: HashMap<Topic, HashMap<u64, Arc<Waiter>>>,
    /// One of each, however many share it: most of those who wait are copies of a few.
    interests: HashSet<Arc<Interest>>,
    /// The last changes, each with its number.
    kept: VecDeque<(u64, Change)>,
    next: u64,
    watchers: usize,
}

#[derive(Default)]
pub(super) struct Hub {
    inner: Mutex<Inner>,
    /// The number of the last change.
    last: AtomicU64,
    wakes: AtomicU64,
}

impl Hub {
    /// Watches for all changes of the topics from now on.
    pub(super) fn watch(self: &Arc<Self>, topics: &[Topic]) -> Watcher {
        self.begin(&mut self.lock(), topics, None, self.sequence())
    }

    /// Watches for what is of interest of the changes since then.
    pub(super) fn watch_for(self: &Arc<Self>, topics: &[Topic], interest: &Arc<Interest>, since: Sequence) -> Watcher {
        let mut inner = self.lock();
        let interest = inner.shared(interest);
        let missed = inner.missed(topics, &interest, since);
        let last = self.sequence();
        let watcher = self.begin(&mut inner, topics, Some(interest), since);
        drop(inner);
        if missed {
            self.wake(&watcher.waiter, last);
        }
        watcher
    }

    fn begin(
        self: &Arc<Self>,
        inner: &mut Inner,
        topics: &[Topic],
        interest: Option<Arc<Interest>>,
        since: Sequence,
    ) -> Watcher {
        let id = inner.next;
        inner.next += 1;
        inner.watchers += 1;
        let waiter = Arc::new(Waiter {
            wake: Notify::new(),
            last: AtomicU64::new(since.0),
            interest,
        });
        for topic in topics {
            inner.topics.entry(*topic).or_default().insert(id, Arc::clone(&waiter));
        }
        Watcher {
            hub: Arc::clone(self),
            id,
            topics: topics.into(),
            waiter,
        }
    }

    pub(super) fn publish(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let mut woken = HashMap::new();
        for change in changes {
            inner.find(change, &mut woken);
            let number = self.last.fetch_add(1, Ordering::AcqRel) + 1;
            inner.keep(number, change);
        }
        let last = self.sequence();
        drop(inner);
        // Not under the lock, which those who wake up take next.
        for waiter in woken.values() {
            self.wake(waiter, last);
        }
    }

    /// Wakes everybody: the store is gone, and they should find out.
    pub(super) fn wake_all(&self) {
        for waiters in self.lock().topics.values() {
            for waiter in waiters.values() {
                waiter.wake.notify_one();
            }
        }
    }

    fn wake(&self, waiter: &Waiter, last: Sequence) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        waiter.last.fetch_max(last.0, Ordering::Release);
        waiter.wake.notify_one();
    }

    pub(super) fn sequence(&self) -> Sequence {
        Sequence(self.last.load(Ordering::Acquire))
    }

    pub(super) fn watchers(&self) -> usize {
        self.lock().watchers
    }

    /// How often a change has woken a watcher.
    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that runs under this lock leaves the maps half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Adds those who are to hear of the change.
    fn find(&self, change: &Change, woken: &mut HashMap<u64, Arc<Waiter>>) {
        let Some(waiters) = self.topics.get(&change.topic) else {
            return;
        };
        // By the address of the interest, which many share.
        let mut asked: HashMap<*const Interest, bool> = HashMap::new();
        for (id, waiter) in waiters {
            let concerned = match &waiter.interest {
                None => true,
                Some(interest) if interest.is_slow() => *asked
                    .entry(Arc::as_ptr(interest))
                    .or_insert_with(|| change.concerns(interest)),
                Some(interest) => change.concerns(interest),
            };
            if concerned {
                woken.insert(*id, Arc::clone(waiter));
            }
        }
    }

    fn keep(&mut self, number: u64, change: &Change) {
        // Of the feed's topic there is one beside every change, and nobody comes late to it.
        if let Topic::Changes(_) = change.topic {
            return;
        }
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((number, change.clone()));
    }

    fn missed(&self, topics: &[Topic], interest: &Interest, since: Sequence) -> bool {
        let behind = self.kept.partition_point(|(number, _)| *number <= since.0);
        // Where the first one that is kept came behind, there may have been others before it.
        (behind == 0 && self.kept.len() >= KEPT)
            || self
                .kept
                .range(behind..)
                .any(|(_, change)| topics.contains(&change.topic) && change.concerns(interest))
    }

    fn shared(&mut self, interest: &Arc<Interest>) -> Arc<Interest> {
        if let Some(shared) = self.interests.get(interest) {
            return Arc::clone(shared);
        }
        // Its own, so that the hub can tell when nobody has it any more.
        let interest = Arc::new(Interest::clone(interest));
        self.interests.insert(Arc::clone(&interest));
        interest
    }
}

impl Change {
    fn concerns(&self, interest: &Interest) -> bool {
        match &self.part {
            Part::Itself => true,
            Part::Aside => false,
            Part::Secret(name, versions) => interest.of_secret(name, *versions),
            Part::Configurations => interest.of_configurations(),
        }
    }
}

/// Waits for changes of its topics since it was made.
pub struct Watcher {
    hub: Arc<Hub>,
    id: u64,
    topics: Box<[Topic]>,
    waiter: Arc<Waiter>,
}

impl Watcher {
    /// Returns when something changed since the last return, or since the watcher was made. May return without a
    /// change; may be dropped and called again without missing one.
    pub async fn changed(&self) {
        self.waiter.wake.notified().await;
    }

    /// The last change that this has told of, or behind which it began.
    pub fn last(&self) -> Sequence {
        Sequence(self.waiter.last.load(Ordering::Acquire))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inner = self.hub.lock();
        inner.watchers -= 1;
        for topic in &self.topics {
            if let Some(waiters) = inner.topics.get_mut(topic) {
                waiters.remove(&self.id);
                if waiters.is_empty() {
                    inner.topics.remove(topic);
                }
            }
        }
        // The hub's own, this one's, and nobody else's.
        if let Some(interest) = &self.waiter.interest
            && Arc::strong_count(interest) == 2
        {
            inner.interests.remove(interest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;
    use crate::store::Selection;

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let watcher = hub.watch(&[topic]);
        hub.publish(&[topic.into()]);
        hub.publish(&[topic.into()]);
        watcher.changed().await;
        assert!(
            watcher.changed().now_or_never().is_none(),
            "two changes are one wake-up"
        );
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_loses_nothing() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Project(ProjectId::new());
        let watcher = hub.watch(&[topic]);
        let given_up = tokio::time::timeout(Duration::from_millis(1), watcher.changed()).await;
        assert!(given_up.is_err());
        hub.publish(&[topic.into()]);
        watcher.changed().await;
    }

    #[tokio::test]
    async fn only_watchers_of_the_topic_are_woken() {
        let hub = Arc::new(Hub::default());
        let (mine, other) = (EnvironmentId::new(), EnvironmentId::new());
        let watcher = hub.watch(&[Topic::Environment(mine), Topic::Subject(Uuid::nil())]);
        hub.publish(&[Topic::Environment(other).into()]);
        assert!(watcher.changed().now_or_never().is_none());
        hub.publish(&[Topic::Subject(Uuid::nil()).into()]);
        assert!(watcher.changed().now_or_never().is_some());
        hub.wake_all();
        assert!(watcher.changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn topics_vanish_with_their_last_watcher() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let watchers: Vec<_> = (0..10_000).map(|_| hub.watch(&[topic])).collect();
        assert_eq!(hub.watchers(), 10_000);
        hub.publish(&[topic.into()]);
        assert!(
            watchers
                .iter()
                .all(|watcher| watcher.changed().now_or_never().is_some())
        );
        drop(watchers);
        assert!(hub.lock().topics.is_empty());
        assert_eq!(hub.watchers(), 0);
    }

    fn interest(keys: &[&str]) -> Arc<Interest> {
        let selection = Selection::Named {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            patterns: vec![],
            pinned: [].into(),
        };
        Arc::new(Interest::new(&selection, None, false))
    }

    fn secret(topic: Topic, name: &str) -> Change {
        topic.part(Part::Secret(name.to_owned(), [1, 1]))
    }

    #[tokio::test]
    async fn only_what_is_of_interest_wakes_and_each_watcher_once_a_commit() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let project = Topic::Project(ProjectId::new());
        let all = hub.watch(&[topic]);
        let some = hub.watch_for(&[topic, project], &interest(&["a", "b"]), hub.sequence());
        let woken = |watcher: &Watcher| watcher.changed().now_or_never().is_some();
        for (changes, of_all, of_some) in [
            (vec![secret(topic, "c")], true, false),
            (vec![topic.part(Part::Aside), project.part(Part::Aside)], true, false),
            (vec![topic.part(Part::Configurations)], true, false),
            (
                vec![secret(topic, "a"), secret(topic, "b"), secret(project, "a")],
                true,
                true,
            ),
            (vec![secret(project, "b")], false, true),
            (vec![project.into()], false, true),
        ] {
            let before = hub.wakes();
            hub.publish(&changes);
            assert_eq!(
                hub.wakes() - before,
                u64::from(of_all) + u64::from(of_some),
                "{changes:?}"
            );
            assert_eq!((woken(&all), woken(&some)), (of_all, of_some), "{changes:?}");
            assert!(!of_some || some.last() == hub.sequence());
        }
    }

    #[tokio::test]
    async fn whoever_comes_late_hears_of_what_it_missed_and_of_nothing_else() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let since = hub.sequence();
        hub.publish(&[secret(topic, "a")]);
        let behind = hub.sequence();
        hub.publish(&[secret(topic, "b")]);
        let woken = |keys: &[&str], since| {
            let watcher = hub.watch_for(&[topic], &interest(keys), since);
            watcher.changed().now_or_never().is_some()
        };
        assert!(woken(&["a"], since) && woken(&["b"], since) && woken(&["b"], behind));
        assert!(!woken(&["a"], behind) && !woken(&["c"], since) && !woken(&["b"], hub.sequence()));
        for _ in 0..KEPT {
            hub.publish(&[Topic::Trash.into()]);
        }
        assert!(woken(&["c"], since), "nobody knows any more what it missed");
        assert!(!woken(&["c"], hub.sequence()));
    }

    #[tokio::test]
    async fn an_interest_that_many_share_is_kept_once_and_for_no_longer_than_they_wait() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let many: Vec<_> = (0..100)
            .map(|_| hub.watch_for(&[topic], &interest(&["a"]), hub.sequence()))
            .collect();
        let other = hub.watch_for(&[topic], &interest(&["b"]), hub.sequence());
        assert_eq!(hub.lock().interests.len(), 2);
        drop(other);
        assert_eq!(hub.lock().interests.len(), 1);
        drop(many);
        assert!(hub.lock().interests.is_empty() && hub.lock().topics.is_empty());
    }
}
