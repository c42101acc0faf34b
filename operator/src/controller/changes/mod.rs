//! What moves on the server: one long poll, in place of a look at every object a minute.
//!
//! 1. A cursor is taken before anything is looked at, so that nothing falls between a look and the poll.
//! 2. Each answer names what moved; the objects that it concerns are looked at again. It says where to look, never what
//!    to find there.
//! 3. Where the server cannot tell any more what moved (a cursor too old, or of a database from before a restore), a new
//!    cursor is taken, and then everything is looked at once, one behind the other.
//! 4. When the server was away and is back, what has failed meanwhile is looked at again, however long it would still
//!    have waited.
//! 5. The same as 3 where it is a watch of Kubernetes that cannot tell what went while it was away.

mod concerned;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use sealpod_client::backoff::Backoff;
use sealpod_client::{Code, Error};
use sealpod_core::wire::management::{Change, ChangeKind};
use sealpod_crds::{Application, Environment};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::context::Context;
use super::echo::SETTLING;
use super::kept::KeptBinding;
use crate::tolerant::Tolerant;
use concerned::{Concerned, Objects};

/// Seconds that one poll waits.
const WAIT: u64 = 60;
/// How long the first cursor may take, before the work begins without it.
const FIRST: Duration = Duration::from_secs(3);
const BASE: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(30);
/// When what looked like our own doing is looked at after all.
const LATER: Duration = Duration::from_secs(30);
/// How long those that ring for the same cause are waited for: all watches of an API server that was away list anew.
const TOGETHER: Duration = Duration::from_secs(1);
/// Between two objects when all are looked at.
const STEP: Duration = Duration::from_millis(10);

/// All objects, as the queues know them.
pub struct Stores {
    pub applications: Store<Tolerant<Application>>,
    pub environments: Store<Tolerant<Environment>>,
    pub bindings: Store<KeptBinding>,
}

/// Makes the queues look at an object.
#[derive(Clone)]
pub struct Wakes {
    applications: UnboundedSender<ObjectRef<Tolerant<Application>>>,
    environments: UnboundedSender<ObjectRef<Tolerant<Environment>>>,
    bindings: UnboundedSender<ObjectRef<KeptBinding>>,
    /// Rings when everything is to be looked at.
    all: Arc<Notify>,
}

/// The ends of [`Wakes`] that the queues listen to.
pub struct Woken {
    pub applications: UnboundedReceiver<ObjectRef<Tolerant<Application>>>,
    pub environments: UnboundedReceiver<ObjectRef<Tolerant<Environment>>>,
    pub bindings: UnboundedReceiver<ObjectRef<KeptBinding>>,
}

pub fn wakes() -> (Wakes, Woken) {
    let (applications, woken_applications) = unbounded();
    let (environments, woken_environments) = unbounded();
    let (bindings, woken_bindings) = unbounded();
    let wakes = Wakes {
        applications,
        environments,
        bindings,
        all: Arc::default(),
    };
    let woken = Woken {
        applications: woken_applications,
        environments: woken_environments,
        bindings: woken_bindings,
    };
    (wakes, woken)
}

impl Wakes {
    /// A queue that has ended needs no waking.
    fn wake(&self, concerned: Concerned) {
        for object in concerned.applications {
            drop(self.applications.unbounded_send(object));
        }
        for object in concerned.environments {
            drop(self.environments.unbounded_send(object));
        }
        for object in concerned.bindings {
            self.binding(object);
        }
    }

    /// What a watch rings that cannot tell what has gone.
    pub fn all(&self) -> &Arc<Notify> {
        &self.all
    }

    pub fn binding(&self, binding: ObjectRef<KeptBinding>) {
        drop(self.bindings.unbounded_send(binding));
    }
}

/// The feed and how far it was heard.
pub struct Feed {
    cursor: Option<String>,
    backoff: Backoff,
}

impl Feed {
    /// To be called before the queues begin: whatever moves from then on is told.
    pub async fn begin(context: &Context) -> Self {
        let admin = context.server.admin();
        let first = tokio::time::timeout(FIRST, admin.management().changes(None, 0)).await;
        Self {
            cursor: first.ok().and_then(Result::ok).map(|answer| answer.cursor),
            backoff: Backoff::new(BASE, CAP),
        }
    }

    /// Listens for ever.
    pub async fn run(self, context: &Context, stores: &Stores, wakes: &Wakes) {
        let Self {
            mut cursor,
            mut backoff,
        } = self;
        let all = wakes.all();
        let echoed = Echoed::default();
        let listen = async {
            // Until the server answers again, it is asked to do so at once.
            let mut away = false;
            loop {
                match step(&mut cursor, if away { 0 } else { WAIT }, all, context).await {
                    Ok(changes) => {
                        backoff.reset();
                        if std::mem::take(&mut away) {
                            look_at_failed(context, stores, wakes);
                        }
                        if !changes.is_empty() {
                            tell(changes, &echoed, context, stores, wakes).await;
                        }
                    }
                    Err(error) => {
                        if backoff.failures() == 0 {
                            tracing::warn!(%error, "what moves on the server cannot be heard; trying again");
                        }
                        away = is_away(&error);
                        let delay = backoff.next_delay() + error.retry_after().unwrap_or_default();
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        };
        // Every key Secret holds the CA.
        let follow = async {
            loop {
                context.server.replaced().await;
                all.notify_one();
            }
        };
        let later = async {
            loop {
                tokio::time::sleep(LATER).await;
                echoed.tell(context, stores, wakes);
            }
        };
        tokio::join!(listen, follow, later, look_at_all(stores, wakes));
    }
}

/// One poll, or the first cursor.
async fn step(cursor: &mut Option<String>, wait: u64, all: &Notify, context: &Context) -> Result<Vec<Change>, Error> {
    // Made anew each time: the admin key or the CA may have been replaced.
    let admin = context.server.admin();
    let Some(since) = cursor.as_deref() else {
        *cursor = Some(admin.management().changes(None, 0).await?.cursor);
        all.notify_one();
        return Ok(vec![]);
    };
    let started = Instant::now();
    match admin.management().changes(Some(since), wait).await {
        Ok(answer) if answer.changes.is_empty() && started.elapsed() < Duration::from_secs(wait) / 2 => {
            Err(Error::BadAnswer {
                status: 200,
                reason: "nothing had moved, and it did not wait".to_owned(),
            })
        }
        Ok(answer) => {
            *cursor = Some(answer.cursor);
            Ok(answer.changes)
        }
        Err(error) => {
            if error.kind() == Some(Code::CursorGone) {
                *cursor = None;
            }
            Err(error)
        }
    }
}

async fn tell(changes: Vec<Change>, echoed: &Echoed, context: &Context, stores: &Stores, wakes: &Wakes) {
    // What moved may be our own doing, the answer to which is still on its way.
    tokio::time::sleep(SETTLING).await;
    let is_own = |change: &Change| {
        let may_be_ours = matches!(change.kind, ChangeKind::Grant | ChangeKind::Account);
        may_be_ours && context.echoes.is_own_change(change.id, change.deleted)
    };
    let (own, foreign): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_own);
    echoed.keep(own);
    wake(&foreign, context, stores, wakes);
}

fn wake(changes: &[Change], context: &Context, stores: &Stores, wakes: &Wakes) {
    if changes.is_empty() {
        return;
    }
    let objects = Objects {
        applications: stores.applications.state(),
        environments: stores.environments.state(),
        bindings: stores.bindings.state(),
    };
    let account_of = |uid: &str| context.resolutions.account(uid);
    let changes: Vec<&Change> = changes.iter().collect();
    wakes.wake(concerned::concerned(
        &changes,
        &objects,
        &context.cluster_id,
        account_of,
    ));
}

/// Changes that we made ourselves. An answer has each object once, however often it moved, so an administrator's edit
/// right behind ours is in the same entry: each is looked at once more, together and when it is quiet.
#[derive(Default)]
struct Echoed(Mutex<Vec<Change>>);

impl Echoed {
    fn keep(&self, own: Vec<Change>) {
        self.changes().extend(own);
    }

    fn tell(&self, context: &Context, stores: &Stores, wakes: &Wakes) {
        let changes = std::mem::take(&mut *self.changes());
        wake(&changes, context, stores, wakes);
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Change>> {
        // Whole after each single step, so a panic elsewhere cannot have broken it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is the server that cannot be heard, and not what it says that cannot be understood.
fn is_away(error: &Error) -> bool {
    matches!(
        error,
        Error::Unreachable { .. } | Error::Timeout { .. } | Error::Unavailable { .. } | Error::Untrusted { .. }
    )
}

fn look_at_failed(context: &Context, stores: &Stores, wakes: &Wakes) {
    let failed = |uid: Option<String>| uid.is_some_and(|uid| context.retries.count(&uid) > 0);
    wakes.wake(Concerned {
        applications: refs(&stores.applications, |object| failed(object.uid())),
        environments: refs(&stores.environments, |object| failed(object.uid())),
        bindings: refs(&stores.bindings, |object| failed(object.uid())),
    });
}

fn refs<K>(store: &Store<K>, which: impl Fn(&K) -> bool) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let found = store.state_filter(which);
    found.iter().map(|object| ObjectRef::from_obj(&**object)).collect()
}

/// Each object once, and slowly, whenever it rings. Applications come first, because bindings rest on them.
async fn look_at_all(stores: &Stores, wakes: &Wakes) {
    loop {
        wakes.all().notified().await;
        tokio::time::sleep(TOGETHER).await;
        tracing::info!("every object is looked at once");
        for object in stores.applications.state() {
            drop(wakes.applications.unbounded_send(ObjectRef::from_obj(&*object)));
            tokio::time::sleep(STEP).await;
        }
        for object in stores.environments.state() {
            drop(wakes.environments.unbounded_send(ObjectRef::from_obj(&*object)));
            tokio::time::sleep(STEP).await;
        }
        for object in stores.bindings.state() {
            wakes.binding(ObjectRef::from_obj(&*object));
            tokio::time::sleep(STEP).await;
        }
    }
}

#[cfg(test)]
mod tests;
