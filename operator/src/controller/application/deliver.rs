//! Gives an application's own key to the namespace that asks for it, replaces it, and ends it.
//!
//! In this order, each step safe to be the last before a crash: the keys of an earlier object end; the server
//! remembers whom the next one is for; the key is made; the Secret is written; an earlier Secret goes. A key that never
//! reached the Secret is replaced by the next run, and the one that is in use lives through the overlap meanwhile.

use std::time::Instant;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use sealpod_client::{BuildError, Client, Error as ServerError};
use sealpod_core::kubernetes::{API_KEY_SECRET_LABEL, FIELD_MANAGER};
use sealpod_core::wire::management::{self as wire, UpdateApplication};
use sealpod_core::{SecretText, Time};
use sealpod_crds::Application;

use super::key::{self, Deliver, Found, Given, Plan, Source, Step};
use crate::controller::binding::Minted;
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::kind::name;
use crate::controller::lookup;
use crate::tolerant::Tolerant;

/// How long an earlier key lives on, in seconds: as long as the default of bindings.
const OVERLAP: u64 = 3_600;
/// What is asked for to find out whether a key works: reading a configuration that hardly exists. It shows no value,
/// and costs no entry of the audit log.
const PROBE: (&str, &str) = ("sealpod.dev", "local");

/// What the Secrets of this object are, and whether the server takes the keys in them.
pub async fn observe(
    object: &Application,
    application: Option<&wire::Application>,
    context: &Context,
) -> Result<key::Observed, Error> {
    let given = application.and_then(|a| Given::of(&a.labels));
    let wanted = object.spec.api_key_secret_name.as_ref();
    let here = given.as_ref().filter(|given| Some(&given.uid) == object.uid().as_ref());
    let former = here.map(|given| &given.secret).filter(|name| Some(*name) != wanted);
    Ok(key::Observed {
        secret: look(object, wanted, context).await?,
        former: look(object, former, context).await?,
        given,
    })
}

async fn look(object: &Application, secret: Option<&String>, context: &Context) -> Result<Found, Error> {
    let Some(name) = secret else { return Ok(Found::Absent) };
    let secret = lookup::find(&secrets(object, context), name).await;
    let secret = secret.map_err(Error::kubernetes("reading the Secret of the application's key"))?;
    let mut found = key::found(secret.map(|s| s.0), object);
    if let Found::Ours(contents) = &mut found
        && let Some(key) = &contents.key
    {
        contents.accepted = accepted(key, context).await?;
    }
    Ok(found)
}

/// Whether the server takes the key. Only its own word says that it does not.
async fn accepted(key: &SecretText, context: &Context) -> Result<bool, Error> {
    let client = match context.server.with_application_key(key.clone()) {
        Ok(client) => client,
        // Somebody edited the key into what no header can carry.
        Err(BuildError::Credential) => return Ok(false),
        Err(_) => return Err(Error::NotNow("the connection to the server cannot be set up")),
    };
    match client.consumer().configuration(PROBE.0, PROBE.1).await {
        Ok(_) | Err(ServerError::NotFound(_)) => Ok(true),
        Err(ServerError::Unauthorized(_) | ServerError::Forbidden(_)) => Ok(false),
        Err(error) => Err(Error::server("asking whether the application's key works")(error)),
    }
}

/// `made` is the key that came with a new application.
pub async fn apply(
    object: &Application,
    application: &wire::Application,
    plan: &Plan,
    observed: &key::Observed,
    made: Option<SecretText>,
    context: &Context,
) -> Result<(), Error> {
    let client = context.server.admin_for(object);
    let uid = object.uid().unwrap_or_default();
    if plan.ends_earlier {
        end(object, &client, &application.slug, 0, context).await?;
    }
    if let Some(made) = made {
        keep(object, application, made, context);
    }
    match &plan.step {
        Step::Nothing if plan.ends_earlier => remember(&client, application, None).await,
        Step::Nothing => Ok(()),
        Step::Deliver(deliver) => {
            let given = Given {
                uid,
                secret: deliver.name.clone(),
            };
            let here = observed.given.as_ref().filter(|_| !plan.ends_earlier);
            if here.is_none() {
                remember(&client, application, Some(&given)).await?;
            }
            write(object, application, deliver, &observed.secret, &client, context).await?;
            if here.is_some_and(|here| *here != given) {
                delete(object, here, &observed.former, context).await?;
                remember(&client, application, Some(&given)).await?;
            }
            Ok(())
        }
        Step::Withdraw => {
            end(object, &client, &application.slug, OVERLAP, context).await?;
            delete(object, observed.given.as_ref(), &observed.former, context).await?;
            tracing::info!(application = %name(object), "the application's key is withdrawn");
            remember(&client, application, None).await
        }
    }
}

/// Every key so far ends: a new one is made, which nobody gets.
pub async fn end(
    object: &Application,
    client: &Client,
    application: &str,
    overlap: u64,
    context: &Context,
) -> Result<(), Error> {
    // Also one that waits for its way into the Secret.
    context.resolutions.stored(&object.uid().unwrap_or_default());
    let ended = client.management().rotate_application_key(application, overlap).await;
    ended.map(drop).map_err(Error::server("ending the application's key"))
}

/// Writes it on the server whom a key has been given to, and leaves everything else of the application as it is.
async fn remember(client: &Client, application: &wire::Application, given: Option<&Given>) -> Result<(), Error> {
    let doing = || Error::server("noting who has the application's key");
    let now = client
        .management()
        .tagged_application(&application.slug)
        .await
        .map_err(doing())?;
    let mut labels = now.value.labels;
    let before = labels.get(API_KEY_SECRET_LABEL).cloned();
    if before == given.map(Given::label) {
        return Ok(());
    }
    labels.remove(API_KEY_SECRET_LABEL);
    labels.extend(given.map(|given| (API_KEY_SECRET_LABEL.to_owned(), given.label())));
    let body = UpdateApplication {
        name: now.value.name,
        description: now.value.description,
        labels: Some(labels),
    };
    // Whoever has changed the application in between has not done it in vain.
    let client = client.if_match(&now.tag);
    let updated = client.management().update_application(&application.slug, &body).await;
    updated.map(drop).map_err(doing())
}

/// Writes the Secret. A new one is created and never applied over one that appeared in the meantime; an old one is
/// replaced by its UID.
async fn write(
    object: &Application,
    application: &wire::Application,
    deliver: &Deliver,
    found: &Found,
    client: &Client,
    context: &Context,
) -> Result<(), Error> {
    let object_uid = object.uid().unwrap_or_default();
    let (key, made_at) = match &deliver.key {
        Source::Keep => return Ok(()),
        Source::Write(key) => (key.clone(), now()),
        Source::Mint(because) => mint(object, application, because, client, context).await?,
    };
    let api = secrets(object, context);
    let written = if let Some(contents) = found.ours() {
        let secret = Tolerant(key::build(object, deliver, &key, made_at, contents.uid.clone()));
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&deliver.name, &parameters, &Patch::Apply(&secret)).await;
        applied.map_err(Error::kubernetes("writing the Secret of the application's key"))?
    } else {
        let secret = Tolerant(key::build(object, deliver, &key, made_at, None));
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let made = api.create(&parameters, &secret).await;
        made.map_err(Error::kubernetes("making the Secret of the application's key"))?
    };
    context.echoes.wrote_secret(&object_uid, written.resource_version());
    context.resolutions.stored(&object_uid);
    Ok(())
}

async fn mint(
    object: &Application,
    application: &wire::Application,
    because: &str,
    client: &Client,
    context: &Context,
) -> Result<(SecretText, Time), Error> {
    let uid = object.uid().unwrap_or_default();
    // One that is made and not stored is newer than any in the Secret.
    if let Some(minted) = context.resolutions.minted(&uid, application.id) {
        return Ok((minted.key, minted.at));
    }
    if let Err(within) = context.resolutions.may_mint(&uid, Instant::now()) {
        let what = "the application had five new keys within three minutes, none of which worked or stayed";
        return Err(Error::Later { what, within });
    }
    let rotated = client
        .management()
        .rotate_application_key(&application.slug, OVERLAP)
        .await;
    let rotated = rotated.map_err(Error::server("making a new key of the application"))?;
    tracing::info!(application = %name(object), because, "the application has a new key");
    Ok(keep(object, application, rotated.plain_api_key, context))
}

/// Keeps a new key in memory until it is in the Secret.
fn keep(
    object: &Application,
    application: &wire::Application,
    key: SecretText,
    context: &Context,
) -> (SecretText, Time) {
    let minted = Minted {
        account: application.id,
        key: key.clone(),
        at: now(),
    };
    let at = minted.at;
    context
        .resolutions
        .keep_minted(&object.uid().unwrap_or_default(), minted);
    (key, at)
}

/// Deletes the Secret that the key was in before: that very one, and only if it is this object's.
async fn delete(object: &Application, given: Option<&Given>, former: &Found, context: &Context) -> Result<(), Error> {
    let (Some(given), Some(contents)) = (given, former.ours()) else {
        return Ok(());
    };
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: contents.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match secrets(object, context).delete(&given.secret, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other
            .map(drop)
            .map_err(Error::kubernetes("deleting the Secret of the application's key")),
    }
}

fn secrets(object: &Application, context: &Context) -> Api<Tolerant<Secret>> {
    Api::namespaced(context.kube.clone(), &object.namespace().unwrap_or_default())
}

/// To the second, as the annotation shows it.
fn now() -> Time {
    let seconds = Time::now().microseconds() / 1_000_000;
    Time::from_microseconds(seconds * 1_000_000).expect("the second of a time is a time")
}
