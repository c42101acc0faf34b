//! SecretBinding: an account on the server that may read what the spec names, and its key for the pods.

mod apply;
mod evaluate;
mod layout;
mod looks;
pub mod native;
mod observe;
mod pods;
mod resolve;
mod secret;
mod selection;
mod status;
pub mod sweep;
#[cfg(test)]
mod tests;
mod versions;
#[cfg(test)]
pub mod world;

use kube::ResourceExt;
use sealpod_core::Time;
use sealpod_core::kubernetes::{key_secret_name, service_account_name};
use sealpod_crds::{SecretBinding, SecretBindingStatus};

use super::conditions::{Status, Wanted, seconds};
use super::context::Context;
use super::error::Error;
use super::kept::KeptBinding;
use super::kind::{Kind, Outcome};
use super::verdict::Refusal;
use evaluate::{Access, Rights};
use looks::Pending;
use resolve::Resolution;

pub use apply::Granted;
pub use evaluate::Plan;
pub use native::Copies;
pub use resolve::{Known, Minted, Resolutions};

impl Kind for SecretBinding {
    const NAME: &'static str = "SecretBinding";

    type Kept = KeptBinding;

    async fn reconcile(object: &Self, context: &Context) -> Result<Outcome<SecretBindingStatus>, Error> {
        let observed = observe::observe(object, context).await?;
        match evaluate::evaluate(object, &observed, context.server.organization(), Time::now()) {
            Access::Grant(plan) => {
                let granted = apply::grant(object, &plan, &observed, context).await?;
                let is_recorded = observed.secret.ours().is_some_and(|secret| secret.has_record);
                deliver(object, &plan, granted, is_recorded, context).await
            }
            Access::Refuse {
                refusal,
                revoke,
                rights,
            } => {
                apply::revoke(object, &revoke, context).await?;
                Ok(refused(object, refusal, rights))
            }
            Access::Wait => Ok(Outcome::unchanged(object)),
        }
    }

    /// Rights end although the binding is paused: its Application's owner, who ends them, did not pause it.
    async fn while_paused(object: &Self, context: &Context) -> Result<(), Error> {
        let observed = observe::observe(object, context).await?;
        let access = evaluate::evaluate(object, &observed, context.server.organization(), Time::now());
        apply::revoke(object, &evaluate::ended(&access, &observed), context).await
    }

    fn forget(uid: &str, context: &Context) {
        context.restarts.forget(uid);
        context.copies.forget(uid);
    }

    async fn clean_up(object: &Self, context: &Context) -> Result<(), Error> {
        // First, because it does not need the server; and whatever comes of it, the rights end.
        let copies = native::clean_up(object, context).await;
        context.restarts.forget(&object.uid().unwrap_or_default());
        let client = context.server.admin_for(object);
        let namespace = object.namespace().unwrap_or_default();
        let name = service_account_name(&context.cluster_id, &namespace, &object.name_any());
        if let Some(account) = observe::account(&client, context, &name).await? {
            apply::revoke_account(&client, account.id, context).await?;
        }
        // The key Secret goes by its owner reference.
        copies
    }
}

/// What is known of a binding once its rights and its key are in place: whatever else is made of it begins here.
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    pub object: &'a SecretBinding,
    pub plan: &'a Plan,
    /// The account and the key that its pods use, and by which alone values are read.
    pub granted: &'a Granted,
    /// Names and versions of what the key may read.
    pub known: &'a Known,
}

/// What is made of a binding beside its key Secret.
#[derive(Debug, Default)]
pub struct Beside {
    /// One for each thing that is made; `Ready` sums them up with the binding's own.
    pub conditions: Vec<Wanted>,
}

/// Uses the key once, as the pods will, and says what that shows. A key that the server does not take (after a
/// restore, say) is replaced. `is_recorded` is [`secret::Contents::has_record`] of the key Secret.
async fn deliver(
    object: &SecretBinding,
    plan: &Plan,
    mut granted: Granted,
    is_recorded: bool,
    context: &Context,
) -> Result<Outcome<SecretBindingStatus>, Error> {
    let ask = async |granted: &Granted| {
        let request = native::request(object, plan);
        resolve::resolve(object, &granted.key, granted.account, &plan.project, request, context).await
    };
    let mut resolution = ask(&granted).await?;
    if resolution == Resolution::KeyRejected {
        granted = apply::renew(object, plan, granted.account, context).await?;
        resolution = ask(&granted).await?;
    }
    let mut status = SecretBindingStatus {
        service_account_id: Some(granted.account.to_string()),
        key_secret_name: Some(key_secret_name(&object.name_any())),
        key_rotated_at: Some(seconds(granted.rotated_at.timestamp())),
        ..SecretBindingStatus::default()
    };
    let mut made = Beside::default();
    let mut looks = None;
    if let Resolution::Known(known) = &resolution {
        let delivery = Delivery {
            object,
            plan,
            granted: &granted,
            known,
        };
        status.pods = pods::counted(delivery, context).await;
        made = beside(delivery, is_recorded, context).await?;
        let uid = object.uid().unwrap_or_default();
        let pending = Pending {
            rotated_at: granted.rotated_at,
            rotate_every: plan.rotate_every,
            next_change_at: known.next_change_at,
            pods: status.pods,
            unchanged_for: context.resolutions.unchanged_for(&uid, known, status.pods),
            awaits_kubernetes: made.conditions.iter().any(|c| native::waits(c.reason)),
        };
        looks = Some(looks::next(pending, Time::now()));
    }
    let mut outcome = status::outcome(status, (&plan.selection, &plan.layout), &resolution, made);
    outcome.again = looks.unwrap_or(outcome.again);
    Ok(outcome)
}

/// Makes what the binding asks for beside its key Secret, in this order: pods that are replaced find the new values.
async fn beside(delivery: Delivery<'_>, is_recorded: bool, context: &Context) -> Result<Beside, Error> {
    let native = native::sync(delivery, context).await?;
    let (condition, copy) = native.map(|made| (made.condition, made.copy)).unzip();
    context
        .restarts
        .consider(delivery.object, delivery.known, copy.flatten(), is_recorded);
    Ok(Beside {
        conditions: condition.into_iter().collect(),
    })
}

fn refused(object: &SecretBinding, refusal: Refusal, rights: Rights) -> Outcome<SecretBindingStatus> {
    let mut status = object.status.clone().unwrap_or_default();
    let (reason, message) = (refusal.reason, refusal.message.clone());
    if rights == Rights::Revoke {
        status.secrets.clear();
    }
    let mut outcome = refusal.outcome(status);
    if rights == Rights::Revoke {
        let unknown = "the binding may not read";
        outcome
            .conditions
            .push(Wanted::new(status::ACCESS_GRANTED, Status::False, reason, message));
        outcome
            .conditions
            .push(Wanted::new(status::SECRETS_RESOLVED, Status::Unknown, reason, unknown));
    }
    outcome
}
