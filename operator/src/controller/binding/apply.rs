//! Gives a binding its rights and its key, and takes them back.

use std::time::Instant;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use sealpod_client::{Client, Error as ServerError};
use sealpod_core::kubernetes::{FIELD_MANAGER, key_secret_name};
use sealpod_core::wire::org::{CreateAclRule, CreateServiceAccount, Permission, SubjectType};
use sealpod_core::{Pattern, SecretText, Time};
use sealpod_crds::SecretBinding;
use uuid::Uuid;

use super::evaluate::{Account, Key, Plan};
use super::observe::Observed;
use super::resolve::Minted;
use super::secret;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::kind::name;
use crate::tolerant::Tolerant;

/// Rules that are made at a time.
const GRANTS: usize = 8;

/// The account and the key that the pods of the binding use.
pub struct Granted {
    pub account: Uuid,
    pub key: SecretText,
    pub rotated_at: Time,
}

/// In this order, each step safe to be the last before a crash: the account; new rules, then the end of unwanted ones;
/// the key; the Secret. A key that never reached the Secret is replaced by the next run.
pub async fn grant(
    object: &SecretBinding,
    plan: &Plan,
    observed: &Observed,
    context: &Context,
) -> Result<Granted, Error> {
    let client = context.server.admin_for(object);
    let uid = object.uid().unwrap_or_default();
    let account = account(&client, &plan.account, &uid, context).await?;
    context.resolutions.has_account(&uid, account);
    let contents = observed.secret.ours();
    let kept = contents
        .and_then(|c| Some((c.key.clone()?, c.rotated_at?)))
        .filter(|_| plan.key == Key::Keep);
    let rights = async {
        grant_rules(&client, account, object, plan, context).await?;
        revoke(object, &plan.revoke, context).await
    };
    let delivery = async {
        // A key of this account that is made and not stored goes first: it is newer than any in the Secret.
        let (key, rotated_at) = match (context.resolutions.minted(&uid, account), kept) {
            (Some(minted), _) => (minted.key, minted.at),
            (None, Some(kept)) => kept,
            (None, None) => mint(object, account, plan, context).await?,
        };
        store(object, plan, contents, &key, rotated_at, context).await?;
        Ok((key, rotated_at))
    };
    // Where there was no Secret, no pod reads by it yet, and one write need not wait for the other.
    let (key, rotated_at) = if contents.is_none() {
        // Both to their ends: who can keep the Secret from being made may not keep rights alive by it.
        let (rights, delivery) = tokio::join!(rights, delivery);
        rights?;
        delivery?
    } else {
        rights.await?;
        delivery.await?
    };
    Ok(Granted {
        account,
        key,
        rotated_at,
    })
}

async fn grant_rules(
    client: &Client,
    account: Uuid,
    object: &SecretBinding,
    plan: &Plan,
    context: &Context,
) -> Result<(), Error> {
    let rule = |pattern| {
        rule(
            account,
            &plan.project,
            &object.spec.environment,
            pattern,
            plan.configurations,
        )
    };
    let rules: Vec<_> = plan.grant.iter().map(rule).collect();
    for some in rules.chunks(GRANTS) {
        try_join_all(some.iter().map(|rule| grant_rule(client, rule, context))).await?;
    }
    Ok(())
}

async fn grant_rule(client: &Client, rule: &CreateAclRule, context: &Context) -> Result<(), Error> {
    let made = client.org(context.server.organization()).grant(rule).await;
    let made = made.map_err(Error::server("granting access"))?;
    context.echoes.changed_on_server(made.id, false);
    Ok(())
}

/// A new key for an account whose key the server does not take.
pub async fn renew(object: &SecretBinding, plan: &Plan, account: Uuid, context: &Context) -> Result<Granted, Error> {
    let (key, rotated_at) = mint(object, account, plan, context).await?;
    // Read again: the Secret may just have been made.
    let api: Api<Tolerant<Secret>> = Api::namespaced(context.kube.clone(), &object.namespace().unwrap_or_default());
    let secret = api.get_opt(&key_secret_name(&object.name_any())).await;
    let secret = secret.map_err(Error::kubernetes("reading the key Secret"))?;
    let secret::Observed::Ours(contents) = secret::observe(secret.map(|s| s.0), object) else {
        return Err(Error::NotNow("the key Secret is gone"));
    };
    store(object, plan, Some(&contents), &key, rotated_at, context).await?;
    Ok(Granted {
        account,
        key,
        rotated_at,
    })
}

/// Ends these rules. What is already gone need not be deleted.
pub async fn revoke(object: &SecretBinding, rules: &[Uuid], context: &Context) -> Result<(), Error> {
    let client = context.server.admin_for(object);
    for rule in rules {
        gone(client.org(context.server.organization()).revoke_acl_rule(*rule).await)
            .map_err(Error::server("revoking access"))?;
        context.echoes.changed_on_server(*rule, true);
    }
    if !rules.is_empty() {
        tracing::info!(binding = %name(object), rules = rules.len(), "access rules are revoked");
    }
    Ok(())
}

/// Ends the account with its keys and rules.
pub async fn revoke_account(client: &Client, account: Uuid, context: &Context) -> Result<(), Error> {
    gone(
        client
            .org(context.server.organization())
            .revoke_service_account(account)
            .await,
    )
    .map_err(Error::server("revoking the service account"))?;
    context.echoes.changed_on_server(account, true);
    Ok(())
}

async fn account(client: &Client, plan: &Account, uid: &str, context: &Context) -> Result<Uuid, Error> {
    match plan {
        Account::Keep(id) => Ok(*id),
        Account::Create(body) => create(client, body, uid, context).await,
        Account::Replace(old, body) => {
            revoke_account(client, *old, context).await?;
            create(client, body, uid, context).await
        }
    }
}

async fn create(client: &Client, body: &CreateServiceAccount, uid: &str, context: &Context) -> Result<Uuid, Error> {
    let made = client
        .org(context.server.organization())
        .create_service_account(body)
        .await;
    let made = made.map_err(Error::server("making the service account"))?;
    let minted = Minted {
        account: made.id,
        key: made.api_key,
        at: now(),
    };
    context.echoes.changed_on_server(made.id, false);
    context.resolutions.keep_minted(uid, minted);
    Ok(made.id)
}

fn rule(account: Uuid, project: &str, environment: &str, key: &Pattern, configurations: bool) -> CreateAclRule {
    let literal = |slug: &str| Pattern::escape(slug).parse().expect("an escaped slug is a pattern");
    CreateAclRule {
        subject_type: SubjectType::ServiceAccount,
        subject_id: Some(account),
        email: None,
        project_pattern: literal(project),
        env_pattern: literal(environment),
        key_pattern: key.clone(),
        configurations,
        permission: Permission::Read,
    }
}

async fn mint(
    object: &SecretBinding,
    account: Uuid,
    plan: &Plan,
    context: &Context,
) -> Result<(SecretText, Time), Error> {
    let uid = object.uid().unwrap_or_default();
    if let Err(within) = context.resolutions.may_mint(&uid, Instant::now()) {
        let what = "the binding had five new keys within three minutes, none of which worked or stayed";
        return Err(Error::Later { what, within });
    }
    let client = context.server.admin_for(object);
    let organization = client.org(context.server.organization());
    let rotated = organization.rotate_service_account(account, plan.overlap).await;
    let rotated = rotated.map_err(Error::server("making a new key"))?;
    context.echoes.changed_on_server(account, false);
    let because = match plan.key {
        Key::Mint(because) => because,
        Key::Keep => "the server does not take the old one",
    };
    tracing::info!(binding = %name(object), because, "the binding has a new key");
    let minted = Minted {
        account,
        key: rotated.api_key,
        at: now(),
    };
    context.resolutions.keep_minted(&uid, minted.clone());
    Ok((minted.key, minted.at))
}

/// To the second, as the annotation shows it.
fn now() -> Time {
    let seconds = Time::now().microseconds() / 1_000_000;
    Time::from_microseconds(seconds * 1_000_000).expect("the second of a time is a time")
}

/// Writes the Secret if it differs. A new one is created and never applied over one that appeared in the meantime; an
/// old one is replaced by its UID.
async fn store(
    object: &SecretBinding,
    plan: &Plan,
    contents: Option<&secret::Contents>,
    key: &SecretText,
    rotated_at: Time,
    context: &Context,
) -> Result<(), Error> {
    let uid = object.uid().unwrap_or_default();
    let wanted = secret::Wanted {
        key: key.clone(),
        rotated_at,
        ca: context.server.ca(),
        binding: plan.binding.clone(),
    };
    let api: Api<Tolerant<Secret>> = Api::namespaced(context.kube.clone(), &object.namespace().unwrap_or_default());
    match contents {
        Some(contents) if contents.is(&wanted) => {}
        Some(contents) => {
            let secret = Tolerant(secret::build(object, &wanted, contents.uid.clone()));
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let applied = api.patch(&secret.name_any(), &parameters, &Patch::Apply(&secret)).await;
            let applied = applied.map_err(Error::kubernetes("writing the key Secret"))?;
            context.echoes.wrote_secret(&uid, applied.resource_version());
        }
        None => {
            let secret = Tolerant(secret::build(object, &wanted, None));
            let parameters = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            let made = api.create(&parameters, &secret).await;
            let made = made.map_err(Error::kubernetes("making the key Secret"))?;
            context.echoes.wrote_secret(&uid, made.resource_version());
        }
    }
    context.resolutions.stored(&uid);
    Ok(())
}

fn gone(result: Result<(), ServerError>) -> Result<(), ServerError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
