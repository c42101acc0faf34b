//! Forgets what is remembered of objects that are there no more.
//!
//! One that this controller lets go is forgotten with that. Others go without it: somebody takes the finalizer off, or a
//! reconciliation that was under way remembers what was forgotten. Nothing tells of all of these.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::Store;
use sealpod_crds::{Application, Environment, SecretBinding};
use tokio::time::sleep;

use super::changes::Stores;
use super::context::Context;
use super::kind::{Kind, name};
use super::uid::Uid;

const INTERVAL: Duration = Duration::from_mins(1);

/// Looks after it, for ever.
pub async fn run(context: Arc<Context>, stores: &Stores) {
    let Stores {
        applications,
        environments,
        bindings,
    } = stores;
    // It ends with the queues if one never is.
    drop(applications.wait_until_ready().await);
    drop(environments.wait_until_ready().await);
    drop(bindings.wait_until_ready().await);
    loop {
        forget(&context, stores);
        sleep(INTERVAL).await;
    }
}

fn forget(context: &Context, stores: &Stores) {
    // What is remembered comes first: an object that comes in between is in the second alone.
    let mut gone = context.echoes.uids();
    gone.extend(context.resolutions.uids());
    let mut shown = context.metrics.objects();
    let Stores {
        applications,
        environments,
        bindings,
    } = stores;
    each::<Application>(applications, &mut gone, &mut shown);
    each::<Environment>(environments, &mut gone, &mut shown);
    each::<SecretBinding>(bindings, &mut gone, &mut shown);
    context.echoes.forget_all(&gone);
    context.resolutions.forget_all(&gone);
    context.restarts.forget_all(&gone);
    context.copies.forget_all(&gone);
    context.retries.forget_all(&gone);
    context.metrics.forget_all(&shown);
}

/// Takes out those that are there.
fn each<K: Kind>(store: &Store<K::Kept>, gone: &mut HashSet<Uid>, shown: &mut HashSet<[u8; 16]>) {
    for object in store.state() {
        gone.remove(&Uid::of(object.meta().uid.as_deref().unwrap_or_default()));
        shown.remove(&super::metrics::key(K::NAME, &name(object.as_ref())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::binding::world::{object, world};
    use crate::controller::conditions::Wanted;
    use crate::tolerant::Tolerant;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use uuid::Uuid;

    fn binding(name: &str) -> SecretBinding {
        let mut binding = object();
        binding.metadata.name = Some(name.to_owned());
        binding.metadata.uid = Some(format!("uid-{name}"));
        binding
    }

    #[tokio::test]
    async fn of_a_binding_whose_finalizer_somebody_took_off_nothing_is_kept() {
        let world = world().await;
        let context = &world.context;
        let (bindings, mut writer) = reflector::store();
        let stores = Stores {
            applications: reflector::store().0,
            environments: reflector::store().0,
            bindings,
        };
        for name in ["stays", "goes"] {
            let (binding, uid) = (binding(name), format!("uid-{name}"));
            context.echoes.is_news(&binding);
            context.resolutions.has_account(&uid, Uuid::nil());
            context.retries.failed(&uid);
            context.retries.failed(&format!("{uid}/deletion"));
            context
                .metrics
                .shows("SecretBinding", &format!("shop/{name}"), &[Wanted::ready("fine")]);
            writer.apply_watcher_event(&Event::Apply(Tolerant(binding).into()));
        }
        forget(context, &stores);
        assert_eq!(context.echoes.uids().len(), 2, "both are there");
        writer.apply_watcher_event(&Event::Delete(Tolerant(binding("goes")).into()));
        forget(context, &stores);
        let stays = HashSet::from([Uid::of("uid-stays")]);
        assert_eq!(
            (context.echoes.uids(), context.resolutions.uids()),
            (stays.clone(), stays)
        );
        assert_eq!(context.metrics.objects().len(), 1);
        for (row, count) in [("uid-stays", 1), ("uid-goes", 0), ("uid-goes/deletion", 0)] {
            assert_eq!(context.retries.count(row), count, "{row}");
        }
    }
}
