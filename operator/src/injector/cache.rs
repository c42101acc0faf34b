//! What a decision needs of the cluster, kept by watches, so that it needs no call.

mod binding;
mod rules;
mod slim;
mod table;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use sealpod_runtime::admin::Readiness;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub use rules::{Bounds, Rules};
use rules::{ReadQuota, ReadRange, Ruling};
pub use slim::Slim;
use table::{Entry, Filler, Placed, Table};

use super::select::Binding;

/// Objects of one list call. The library holds a page as text twice, and whoever may write objects makes each as large as
/// etcd takes, 1.5 MiB: this is 30 MiB at the worst. Each page is a call, one after the other, and until the last the
/// injector is not ready.
const PAGE: u32 = 10;
/// Between two tries after a failure. Two or three replicas are no burden, and one that starts is not ready before its lists.
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the watches have brought so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    bindings: Arc<Table<Binding>>,
    ranges: Arc<Table<Ruling>>,
    quotas: Arc<Table<Ruling>>,
}

/// What of it is of one namespace.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// By their names.
    pub bindings: Arc<Vec<Arc<Binding>>>,
    pub rules: Rules,
    /// When that was asked.
    pub now: Timestamp,
}

impl Known {
    /// Whether nothing has changed about its bindings.
    pub fn has_bindings_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bindings, &other.bindings) || (self.bindings.is_empty() && other.bindings.is_empty())
    }
}

impl Cache {
    pub fn of(&self, namespace: &str) -> Known {
        let (ranges, quotas) = (self.ranges.of(namespace), self.quotas.of(namespace));
        let rulings = ranges.iter().chain(quotas.iter());
        Known {
            bindings: self.bindings.of(namespace),
            rules: rulings.fold(Rules::default(), |all, ruling| all.and(&ruling.rules)),
            now: Timestamp::now(),
        }
    }

    /// SecretBindings of all namespaces.
    pub fn bindings(&self) -> usize {
        self.bindings.len()
    }
}

/// A cache and the task that fills it until `shutdown`. Not ready until each first list is complete; after that a watch
/// that breaks is taken up again, and decisions go on with what is known.
///
/// Across all namespaces, because pods of any may ask; a decision sees those of its own namespace only.
pub fn follow(
    client: &Client,
    readiness: &Readiness,
    shutdown: CancellationToken,
) -> (Cache, impl Future<Output = ()> + Send + use<>) {
    let cache = Cache::default();
    let turns = Turns::default();
    let bindings = fill::<binding::Read, _>(client, &cache.bindings, &turns, readiness, "SecretBindings");
    let ranges = fill::<ReadRange, _>(client, &cache.ranges, &turns, readiness, "LimitRanges");
    let quotas = fill::<ReadQuota, _>(client, &cache.quotas, &turns, readiness, "ResourceQuotas");
    let all = async move {
        let filling = futures::future::join3(bindings, ranges, quotas);
        let _ = shutdown.run_until_cancelled(filling).await;
    };
    (cache, all)
}

/// Who lists holds it, so that there are pages of one list in memory, and not of three.
type Turns = Arc<Mutex<()>>;

fn fill<K, T>(
    client: &Client,
    table: &Arc<Table<T>>,
    turns: &Turns,
    readiness: &Readiness,
    what: &'static str,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Into<Placed<T>> + 'static,
    T: Entry + Send + Sync + 'static,
{
    readiness.block(what, "not listed yet");
    let (readiness, turns) = (readiness.clone(), Arc::clone(turns));
    let mut filler = Filler::new(Arc::clone(table));
    let config = watcher::Config::default().page_size(PAGE);
    let events = watcher(Api::<K>::all(client.clone()), config).backoff(Soon::default());
    // Boxed: a watch in the middle of a list is tens of KiB.
    async move {
        let mut events = std::pin::pin!(events);
        let mut turn = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // The first page is asked for when the next event is.
                    if matches!(event, Event::Init) && turn.is_none() {
                        turn = Some(turns.lock().await);
                    }
                    if filler.take(event) {
                        turn = None;
                        readiness.clear(what);
                    }
                }
                Err(error) => {
                    turn = None;
                    tracing::warn!(%error, "cannot watch {what}; trying again");
                }
            }
        }
    }
    .boxed()
}

/// The library's delays, which grow to half a minute, up to [`LONGEST_RETRY`].
#[derive(Default)]
struct Soon(watcher::DefaultBackoff);

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|delay| delay.min(LONGEST_RETRY))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
pub mod tests;
