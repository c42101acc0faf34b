//! The Secret that an application's own key is written to: what is in it, and what is to be done about it (pure).
//!
//! Users can write the Secret. What is in it decides only whether it gets a new key: a key that the server does not
//! take, or an annotation of the object that differs from the one remembered on the Secret. To whom a key has been
//! given is remembered on the server, in a label that only administrators can write; so an object that is made again,
//! in a namespace that is made again, ends the keys of the one before.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use sealpod_core::injection::API_KEY_FILE;
use sealpod_core::kubernetes::{
    API_KEY_SECRET_LABEL, APPLICATION_UID_LABEL, KEY_ROTATED_AT, MANAGED_BY, MANAGED_BY_LABEL, controls,
};
use sealpod_core::names::check_dns_name;
use sealpod_core::wire::Labels;
use sealpod_core::{SecretText, Time};
use sealpod_crds::Application;

use crate::controller::owned::{self, Owned};
use crate::controller::verdict::{Refusal, reasons};

/// What every key of an application begins with.
const PREFIX: &str = "grm_";

/// What is known about the key before it is decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Whom the server remembers to have been given a key.
    pub given: Option<Given>,
    /// The Secret of the wanted name.
    pub secret: Found,
    /// The Secret that this object was given a key in, if it has another name, or if none is wanted any more.
    pub former: Found,
}

/// The label's value on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// UID of an Application.
    pub uid: String,
    pub secret: String,
}

pub type Found = Owned<Contents>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    pub uid: Option<String>,
    pub key: Option<SecretText>,
    /// Whether the server takes the key.
    pub accepted: bool,
    /// The value of the rotation annotation that the key was made for.
    pub rotated_for: Option<String>,
    /// Whether the labels are there by which the controller finds it.
    pub labelled: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Every key so far ends at once: an object that is gone was given one.
    pub ends_earlier: bool,
    pub step: Step,
    /// Why no key is written.
    pub refusal: Option<Refusal>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum Step {
    #[default]
    Nothing,
    Deliver(Deliver),
    /// No Secret is wanted any more: the key ends after its overlap, and the Secret goes.
    Withdraw,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Deliver {
    pub name: String,
    pub key: Source,
    /// The value of the rotation annotation to remember.
    pub rotated_for: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The Secret is as it should be.
    Keep,
    /// This key, which the server takes, is to be written.
    Write(SecretText),
    /// Why a new one is needed, for the log.
    Mint(&'static str),
}

impl Given {
    pub fn of(labels: &Labels) -> Option<Self> {
        let (uid, secret) = labels.get(API_KEY_SECRET_LABEL)?.split_once('/')?;
        Some(Self {
            uid: uid.to_owned(),
            secret: secret.to_owned(),
        })
    }

    pub fn label(&self) -> String {
        format!("{}/{}", self.uid, self.secret)
    }
}

pub fn plan(object: &Application, observed: &Observed) -> Plan {
    let uid = object.uid().unwrap_or_default();
    let here = observed.given.as_ref().is_some_and(|given| given.uid == uid);
    let mut plan = Plan {
        ends_earlier: observed.given.is_some() && !here,
        ..Plan::default()
    };
    let Some(name) = object.spec.api_key_secret_name.as_ref() else {
        plan.step = if here { Step::Withdraw } else { Step::Nothing };
        return plan;
    };
    // The schema refuses it, but for objects that are older than that.
    if let Err(error) = check_dns_name(name) {
        let message = format!("spec.apiKeySecretName {error}; everything else is as the spec says");
        plan.refusal = Some(Refusal::until_edited(reasons::INVALID_SPEC, message));
        return plan;
    }
    if observed.secret == Found::NotOurs {
        let message = format!(
            "Secret `{name}` exists and does not belong to this Application, so it is left alone: delete it, or give \
             another name in spec.apiKeySecretName; everything else is as the spec says"
        );
        plan.refusal = Some(Refusal::until_it_appears(reasons::SECRET_NOT_OWNED, message));
        return plan;
    }
    let asked = object.annotations().get(controls::ROTATE_KEY);
    let before = observed.secret.ours().or(observed.former.ours());
    let key = if plan.ends_earlier {
        Source::Mint("an object that is gone was given the last one")
    } else {
        source(before, asked, observed.secret.ours().is_some())
    };
    let is_known = observed.given.as_ref().is_some_and(|given| given.secret == *name) && here;
    if key == Source::Keep && is_known {
        return plan;
    }
    plan.step = Step::Deliver(Deliver {
        name: name.clone(),
        key,
        rotated_for: asked.or(before.and_then(|b| b.rotated_for.as_ref())).cloned(),
    });
    plan
}

/// `in_place`: whether `before` is in the wanted Secret, and not in the one of its earlier name.
fn source(before: Option<&Contents>, asked: Option<&String>, in_place: bool) -> Source {
    let Some(before) = before else {
        return Source::Mint("there is no Secret");
    };
    let Some(key) = &before.key else {
        return Source::Mint("the Secret has no key");
    };
    if !before.accepted {
        return Source::Mint("the server does not take the key in the Secret");
    }
    if asked.is_some() && asked != before.rotated_for.as_ref() {
        return Source::Mint("its rotation was asked for");
    }
    if in_place && before.labelled {
        Source::Keep
    } else {
        Source::Write(key.clone())
    }
}

/// What a Secret of that name is to the object; whether the server takes its key is not known yet.
pub fn found(secret: Option<Secret>, object: &Application) -> Found {
    Owned::observe(secret, object, |secret| Contents {
        uid: secret.uid(),
        key: owned::text(secret, API_KEY_FILE)
            .filter(|key| key.starts_with(PREFIX))
            .map(SecretText::from),
        accepted: false,
        rotated_for: secret.annotations().get(controls::ROTATE_KEY).cloned(),
        labelled: owned::is_labelled(secret, APPLICATION_UID_LABEL, object),
    })
}

/// The object for the API: with `uid`, it replaces that very Secret and no other.
pub fn build(object: &Application, deliver: &Deliver, key: &SecretText, made_at: Time, uid: Option<String>) -> Secret {
    let mut annotations = BTreeMap::from([(KEY_ROTATED_AT.to_owned(), made_at.to_string())]);
    if let Some(value) = &deliver.rotated_for {
        annotations.insert(controls::ROTATE_KEY.to_owned(), value.clone());
    }
    Secret {
        metadata: ObjectMeta {
            name: Some(deliver.name.clone()),
            namespace: object.namespace(),
            uid,
            labels: Some(BTreeMap::from([
                (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
                (APPLICATION_UID_LABEL.to_owned(), object.uid().unwrap_or_default()),
            ])),
            annotations: Some(annotations),
            owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(
            API_KEY_FILE.to_owned(),
            ByteString(key.expose().as_bytes().to_vec()),
        )])),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
