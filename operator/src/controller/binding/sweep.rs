//! Accounts whose binding is gone: left behind when a finalizer was let go, or removed by force, while the server was
//! away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use sealpod_core::kubernetes::service_account_name;
use sealpod_core::wire::org::ServiceAccount;
use sealpod_crds::SecretBinding;

use super::apply::revoke_account;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::scope::Scope;
use crate::tolerant::Tolerant;

const INTERVAL: Duration = Duration::from_mins(10);
const RETRY: Duration = Duration::from_secs(30);

/// Sweeps at once and then every ten minutes.
pub async fn run(context: Arc<Context>) {
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
/// second list has, or is not in the first.
async fn sweep(context: &Context) -> Result<(), Error> {
    let client = context.server.admin();
    let accounts = client.org(context.server.organization()).service_accounts(None).await;
    let accounts = accounts.map_err(Error::server("listing the service accounts"))?;
    let bindings = context.scope.list::<Tolerant<SecretBinding>>(&context.kube).await;
    let bindings = bindings.map_err(Error::kubernetes("listing the SecretBindings"))?;
    let names = bindings
        .iter()
        .map(|b| (b.namespace().unwrap_or_default(), b.name_any()));
    let mut failed = Ok(());
    for account in orphans(&accounts, &context.cluster_id, &context.scope, names) {
        match revoke_account(&client, account.id, context).await {
            Ok(()) => tracing::info!(account = account.name, "an account without a SecretBinding is revoked"),
            // One that cannot be revoked keeps no other alive.
            Err(error) => failed = Err(error),
        }
    }
    failed
}

/// The accounts of this cluster, and of the namespaces that are watched, that belong to none of these bindings.
fn orphans<'a>(
    accounts: &'a [ServiceAccount],
    cluster_id: &str,
    scope: &Scope,
    bindings: impl Iterator<Item = (String, String)>,
) -> impl Iterator<Item = &'a ServiceAccount> {
    let wanted: HashSet<_> = bindings
        .map(|(ns, name)| service_account_name(cluster_id, &ns, &name))
        .collect();
    let prefix = format!("k8s/{cluster_id}/");
    accounts.iter().filter(move |account| {
        let place = account
            .name
            .strip_prefix(&prefix)
            .and_then(|place| place.split_once('/'));
        place.is_some_and(|(namespace, _)| scope.covers(namespace)) && !wanted.contains(&account.name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::world::world;
    use super::*;
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

    #[test]
    fn only_accounts_of_this_cluster_without_a_binding_are_orphans() {
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
        let bindings = [("shop".to_owned(), "db".to_owned())];
        let found = |scope: &Scope| -> Vec<_> {
            let orphans = orphans(&accounts, "c1", scope, bindings.clone().into_iter());
            orphans.map(|a| a.name.as_str()).collect()
        };
        assert_eq!(found(&Scope::default()), ["k8s/c1/shop/gone"]);
        assert_eq!(found(&Scope::new(vec!["shop".to_owned()])), ["k8s/c1/shop/gone"]);
        let elsewhere = Scope::new(vec!["other".to_owned()]);
        assert_eq!(
            found(&elsewhere),
            [""; 0],
            "another controller's accounts are none of ours"
        );
    }
}
