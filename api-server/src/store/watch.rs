//! Waking those who wait for a change.
//!
//! A watcher is one wake-up permit, filed under each of its topics. A change leaves a permit with every watcher of its
//! topic, whether or not that one waits right now, so a change between two waits is not lost, and any number of
//! changes costs one permit. A topic exists while somebody watches it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

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

type Waiters = HashMap<u64, Arc<Notify>>;

#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<HashMap<Topic, Waiters>>,
    next: AtomicU64,
    watchers: AtomicUsize,
}

impl Hub {
    pub(super) fn watch(self: &Arc<Self>, topics: &[Topic]) -> Watcher {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.watchers.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        let mut all = self.lock();
        for topic in topics {
            all.entry(*topic).or_default().insert(id, Arc::clone(&wake));
        }
        drop(all);
        Watcher {
            hub: Arc::clone(self),
            id,
            topics: topics.to_vec(),
            wake,
        }
    }

    pub(super) fn publish(&self, topics: &[Topic]) {
        if topics.is_empty() {
            return;
        }
        let all = self.lock();
        for waiters in topics.iter().filter_map(|topic| all.get(topic)) {
            waiters.values().for_each(Self::wake);
        }
    }

    /// Wakes everybody: the store is gone, and they should find out.
    pub(super) fn wake_all(&self) {
        for waiters in self.lock().values() {
            waiters.values().for_each(Self::wake);
        }
    }

    fn wake(wake: &Arc<Notify>) {
        wake.notify_one();
    }

    pub(super) fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Topic, Waiters>> {
        // Nothing that runs under this lock leaves the map half changed.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for changes of its topics since it was made.
pub struct Watcher {
    hub: Arc<Hub>,
    id: u64,
    topics: Vec<Topic>,
    wake: Arc<Notify>,
}

impl Watcher {
    /// Returns when something changed since the last return, or since the watcher was made. May return without a
    /// change; may be dropped and called again without missing one.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.hub.watchers.fetch_sub(1, Ordering::Relaxed);
        let mut all = self.hub.lock();
        for topic in &self.topics {
            if let Some(waiters) = all.get_mut(topic) {
                waiters.remove(&self.id);
                if waiters.is_empty() {
                    all.remove(topic);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::default());
        let topic = Topic::Environment(EnvironmentId::new());
        let watcher = hub.watch(&[topic]);
        hub.publish(&[topic]);
        hub.publish(&[topic]);
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
        hub.publish(&[topic]);
        watcher.changed().await;
    }

    #[tokio::test]
    async fn only_watchers_of_the_topic_are_woken() {
        let hub = Arc::new(Hub::default());
        let (mine, other) = (EnvironmentId::new(), EnvironmentId::new());
        let watcher = hub.watch(&[Topic::Environment(mine), Topic::Subject(Uuid::nil())]);
        hub.publish(&[Topic::Environment(other)]);
        assert!(watcher.changed().now_or_never().is_none());
        hub.publish(&[Topic::Subject(Uuid::nil())]);
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
        hub.publish(&[topic]);
        assert!(
            watchers
                .iter()
                .all(|watcher| watcher.changed().now_or_never().is_some())
        );
        drop(watchers);
        assert!(hub.lock().is_empty());
        assert_eq!(hub.watchers(), 0);
    }
}
