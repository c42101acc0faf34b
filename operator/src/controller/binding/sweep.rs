//! Accounts whose binding is gone: left behind when a finalizer was let go, or removed by force, while the server was
//! away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use sealpod_core::kubernetes::{FINALIZER, service_account_name};
use sealpod_core::wire::org::ServiceAccount;
use sealpod_crds::SecretBinding;

use super::apply::revoke_account;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::streams::metadata_only;
use crate::tolerant::Tolerant;

const INTERVAL: Duration = Duration::from_mins(10);
const RETRY: Duration = Duration::from_secs(30);
/// Most accounts that one sweep revokes: should it ever be wrong, somebody has the time to see it.
const MOST: usize = 100;
/// Bindings of one page.
const PAGE: u32 = 500;

/// Sweeps once the bindings are known and then every ten minutes.
pub async fn run(context: Arc<Context>) {
    // It ends with the queues if it never is.
    drop(context.bindings.wait_until_ready().await);
    loop {
        let pause = match sweep(&context).await {
            Ok(()) => INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "accounts without a binding could not be looked for");
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The accounts are listed before the bindings: an account that is made in between belongs to a binding that the
/// second list has, or is not in the first. Where the watch knows a binding for each account, there is no second list.
async fn sweep(context: &Context) -> Result<(), Error> {
    let client = context.server.admin();
    let accounts = client.org(context.server.organization()).service_accounts(None).await;
    let accounts = accounts.map_err(Error::server("listing the service accounts"))?;
    let watched = context.bindings.state();
    let watched = watched
        .iter()
        .filter(|b| keeps_its_account(b.meta()))
        .map(|b| (b.namespace().unwrap_or_default(), b.name_any()));
    let suspects = orphans(accounts, context, watched);
    if suspects.is_empty() {
        return Ok(());
    }
    let bindings = bindings(context).await;
    let bindings = bindings.map_err(Error::kubernetes("listing the SecretBindings"))?;
    let mut failed = Ok(());
    for account in orphans(suspects, context, bindings.into_iter()).iter().take(MOST) {
        match revoke_account(&client, account.id, context).await {
            Ok(()) => tracing::info!(account = account.name, "an account without a SecretBinding is revoked"),
            // One that cannot be revoked keeps no other alive.
            Err(error) => failed = Err(error),
        }
    }
    failed
}

/// One that goes and that we have let go is none any more, for however long the finalizers of others hold it: nobody
/// looks at it again, so nothing else would ever end its rights.
fn keeps_its_account(binding: &ObjectMeta) -> bool {
    let finalizers = binding.finalizers.as_deref().unwrap_or_default();
    binding.deletion_timestamp.is_none() || finalizers.iter().any(|f| f == FINALIZER)
}

/// Namespaces and names of all bindings that are watched, by quorum lists: without a resource version they are never a
/// cache's. Only the metadata is asked for, and not all at once.
async fn bindings(context: &Context) -> kube::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    let kube = metadata_only(context.kube.clone());
    for api in context.scope.apis::<Tolerant<PartialObjectMeta<SecretBinding>>>(&kube) {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let some = api.list(&page).await?;
            let some_left = some.iter().filter(|b| keeps_its_account(b.meta()));
            all.extend(some_left.map(|b| (b.namespace().unwrap_or_default(), b.name_any())));
            match some.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(all)
}

/// The accounts of this cluster, and of the namespaces that are watched, that belong to none of these bindings.
fn orphans(
    accounts: Vec<ServiceAccount>,
    context: &Context,
    bindings: impl Iterator<Item = (String, String)>,
) -> Vec<ServiceAccount> {
    let cluster_id = &context.cluster_id;
    let wanted: HashSet<_> = bindings
        .map(|(ns, name)| service_account_name(cluster_id, &ns, &name))
        .collect();
    let prefix = format!("k8s/{cluster_id}/");
    let is_orphan = |account: &ServiceAccount| {
        let place = account.name.strip_prefix(&prefix);
        let namespace = place
            .and_then(|place| place.split_once('/'))
            .map(|(namespace, _)| namespace);
        namespace.is_some_and(|namespace| context.scope.covers(namespace)) && !wanted.contains(&account.name)
    };
    accounts.into_iter().filter(is_orphan).collect()
}

#[cfg(test)]
mod tests {
    use super::super::world::world;
    use super::*;
    use crate::controller::scope::Scope;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use sealpod_core::Time;
    use serde_json::json;
    use uuid::Uuid;

    const BINDINGS: &str = "/apis/sealpod.dev/v1alpha1/secretbindings";
    /// Ends of ids.
    const STUCK: u128 = 1;
    const GONE: u128 = 2;

    /// A server with two accounts, the first of which it cannot revoke.
    async fn with_two_accounts() -> super::super::world::World {
        let world = world().await;
        let account = |name: &str, id: u128| {
            json!({
                "id": Uuid::from_u128(id), "name": format!("k8s/cluster/shop/{name}"), "project": "shop",
                "key_prefix": "cr_sa_", "expires_at": null, "labels": {}, "created_at": "2026-01-01T00:00:00Z",
                "last_used_at": null,
            })
        };
        let accounts = json!([account("a", STUCK), account("b", GONE)]);
        world.answers("GET", "/service-accounts$", 200, accounts).await;
        let stuck = format!("/service-accounts/{}$", Uuid::from_u128(STUCK));
        world.answers("DELETE", &stuck, 500, json!({})).await;
        let gone = format!("/service-accounts/{}$", Uuid::from_u128(GONE));
        world.answers("DELETE", &gone, 204, json!({})).await;
        world
    }

    #[tokio::test]
    async fn an_account_that_cannot_be_revoked_keeps_no_other_alive() {
        let world = with_two_accounts().await;
        world.kube.put(BINDINGS, json!({"metadata": {}, "items": []}));
        assert!(sweep(&world.context).await.is_err(), "it has to be tried again soon");
        let gone = format!("DELETE /service-accounts/{}", Uuid::from_u128(GONE));
        assert!(world.asked().await.contains(&gone), "{:?}", world.asked().await);
    }

    #[tokio::test]
    async fn without_the_list_of_bindings_no_account_is_revoked() {
        let world = with_two_accounts().await;
        assert!(sweep(&world.context).await.is_err());
        assert_eq!(world.asked().await, ["GET /service-accounts"]);
    }

    #[tokio::test]
    async fn a_binding_that_others_hold_after_we_let_it_go_keeps_no_account() {
        let going = "2026-01-01T00:00:00Z";
        for (binding, is_swept) in [
            (json!({"name": "b"}), false),
            (json!({"name": "b", "finalizers": ["example.com/mine"]}), false),
            (
                json!({"name": "b", "deletionTimestamp": going, "finalizers": ["example.com/mine", FINALIZER]}),
                false,
            ),
            (
                json!({"name": "b", "deletionTimestamp": going, "finalizers": ["example.com/mine"]}),
                true,
            ),
        ] {
            let mut world = with_two_accounts().await;
            let mut metadata = binding.clone();
            metadata["namespace"] = json!("shop");
            let other = json!({"metadata": {"name": "a", "namespace": "shop"}});
            let list = json!({"metadata": {}, "items": [other.clone(), {"metadata": metadata}]});
            world.kube.put(BINDINGS, list.clone());
            // The watch knows it, too.
            let (store, mut writer) = reflector::store();
            let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
            for metadata in [other["metadata"].clone(), metadata] {
                let object = json!({"metadata": metadata, "spec": spec});
                writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).unwrap()));
            }
            Arc::get_mut(&mut world.context).unwrap().bindings = store;
            sweep(&world.context).await.unwrap();
            let gone = format!("DELETE /service-accounts/{}", Uuid::from_u128(GONE));
            assert_eq!(world.asked().await.contains(&gone), is_swept, "{binding}");
        }
    }

    fn account(name: &str) -> ServiceAccount {
        ServiceAccount {
            id: Uuid::nil(),
            name: name.to_owned(),
            project: None,
            key_prefix: String::new(),
            expires_at: None,
            labels: sealpod_core::wire::Labels::new(),
            created_at: Time::from_microseconds(0).unwrap(),
            last_used_at: None,
        }
    }

    #[tokio::test]
    async fn only_accounts_of_this_cluster_without_a_binding_are_orphans() {
        let accounts: Vec<_> = [
            "k8s/c1/shop/db",
            "k8s/c1/shop/gone",
            "k8s/c10/shop/db",
            "k8s/c2/shop/db",
            "ci",
            "k8s/c1",
        ]
        .map(account)
        .into();
        let mut world = world().await;
        let mut found = |scope: Scope| -> Vec<String> {
            let context = Arc::get_mut(&mut world.context).unwrap();
            context.cluster_id = "c1".to_owned();
            context.scope = scope;
            let bindings = [("shop".to_owned(), "db".to_owned())];
            let orphans = orphans(accounts.clone(), context, bindings.into_iter());
            orphans.into_iter().map(|a| a.name).collect()
        };
        assert_eq!(found(Scope::default()), ["k8s/c1/shop/gone"]);
        assert_eq!(found(Scope::new(vec!["shop".to_owned()])), ["k8s/c1/shop/gone"]);
        let elsewhere = Scope::new(vec!["other".to_owned()]);
        assert_eq!(
            found(elsewhere),
            [""; 0],
            "another controller's accounts are none of ours"
        );
    }
}
