//! How many pods have the files of a binding, and how many of them have loaded what is active now: as their sidecars say
//! of themselves, so for display only.

use kube::ResourceExt;
use sealpod_client::Page;
use sealpod_core::wire::consumers::{Consumer, MAX_REPORTED_KEYS};
use sealpod_crds::PodCounts;

use super::Delivery;
use crate::controller::context::Context;

const PAGE: u32 = 1_000;
/// The server keeps no more reports of one environment.
const MOST_PAGES: usize = 10;

/// Counts what the server has heard. Where that cannot be read, what was shown before stays.
pub async fn counted(delivery: Delivery<'_>, context: &Context) -> Option<PodCounts> {
    match consumers(delivery, context).await {
        Ok(consumers) => Some(count(&consumers, delivery)),
        Err(error) => {
            tracing::debug!(%error, "what pods have loaded cannot be read");
            delivery.object.status.as_ref().and_then(|status| status.pods)
        }
    }
}

async fn consumers(delivery: Delivery<'_>, context: &Context) -> sealpod_client::Result<Vec<Consumer>> {
    let client = context.server.admin_for(delivery.object);
    let organization = client.org(context.server.organization());
    let (project, environment) = (&delivery.plan.project, &delivery.object.spec.environment);
    let mut found: Vec<Consumer> = Vec::new();
    for _ in 0..MOST_PAGES {
        let after = found.last().map(|consumer| consumer.id.clone());
        let page = Page {
            limit: Some(PAGE),
            after: after.as_deref(),
        };
        let account = Some(delivery.granted.account);
        let page = organization.consumers(project, environment, account, page).await?;
        let is_last = page.len() < PAGE as usize;
        found.extend(page);
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// The server calls a pinned version stale once another is active; here it is what shall be loaded.
fn count(consumers: &[Consumer], delivery: Delivery<'_>) -> PodCounts {
    let namespace = delivery.object.namespace().unwrap_or_default();
    let active = &delivery.known.secrets;
    let files = delivery
        .plan
        .selection
        .files(&delivery.known.names(), &delivery.plan.layout);
    let delivered = || active.keys().filter(|name| !files.needs_path.contains(*name));
    // What a report cannot hold is not missed in it.
    let whole = active.len() <= MAX_REPORTED_KEYS;
    let up_to_date = |consumer: &Consumer| {
        let loaded = &consumer.versions;
        loaded.iter().all(|(name, version)| active.get(name) == Some(version))
            && (!whole || delivered().all(|name| loaded.contains_key(name)))
    };
    let of_pods = || consumers.iter().filter(|consumer| consumer.namespace == namespace);
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let injected = number(of_pods().count());
    let up_to_date = number(of_pods().filter(|consumer| up_to_date(consumer)).count());
    PodCounts {
        injected,
        up_to_date,
        stale: injected - up_to_date,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Granted, Known, Plan};
    use super::*;
    use crate::controller::binding::evaluate::{Account, Key};
    use crate::controller::binding::layout::Layout;
    use crate::controller::binding::selection::Selection;
    use crate::controller::binding::world::object;
    use sealpod_core::{SecretText, Time};
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn consumer(namespace: &str, versions: &Value) -> Consumer {
        let consumer = json!({
            "id": "x", "actor_type": "service_account", "actor_id": null, "actor_name": "a", "namespace": namespace,
            "pod": "p", "node": "n", "agent_version": "1", "versions": versions, "stale": ["a"],
            "last_seen_at": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(consumer).unwrap()
    }

    #[test]
    fn a_pod_is_up_to_date_with_exactly_what_is_active_or_pinned() {
        let known = Known {
            secrets: [("a", 2), ("b", 1), ("no/file", 1)]
                .map(|(name, version)| (name.to_owned(), version))
                .into(),
            ..Known::default()
        };
        let plan = Plan {
            configurations: false,
            project: "shop".to_owned(),
            selection: Selection(None),
            layout: Layout::default(),
            account: Account::Keep(Uuid::nil()),
            grant: vec![],
            revoke: vec![],
            key: Key::Keep,
            rotate_every: std::time::Duration::from_hours(24),
            overlap: 0,
            binding: String::new(),
        };
        let granted = Granted {
            account: Uuid::nil(),
            key: SecretText::new("k"),
            rotated_at: Time::from_microseconds(0).unwrap(),
        };
        let object = object();
        let delivery = Delivery {
            object: &object,
            plan: &plan,
            granted: &granted,
            known: &known,
        };
        for (versions, up_to_date) in [
            (json!({"a": 2, "b": 1}), 1),
            (json!({"a": 2, "b": 1, "no/file": 1}), 1),
            (json!({"a": 1, "b": 1}), 0),
            (json!({"a": 2}), 0),
            (json!({"a": 2, "b": 1, "deleted": 1}), 0),
            (json!({}), 0),
        ] {
            let counts = count(&[consumer("shop", &versions), consumer("other", &versions)], delivery);
            let want = PodCounts {
                injected: 1,
                up_to_date,
                stale: 1 - up_to_date,
            };
            assert_eq!(counts, want, "{versions}");
        }
    }
}
