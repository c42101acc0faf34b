//! The key Secret: what the sidecars of a binding's pods mount.
//!
//! Users can write it, so nothing in it selects an account, an application or a rule. Its annotation with the time of
//! the rotation decides only when the next one comes; whoever edits that could as well read the key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use sealpod_core::injection::{API_KEY_FILE, BINDING_FILE, CA_FILE};
use sealpod_core::kubernetes::{
    BINDING_UID_LABEL, KEY_ROTATED_AT, MANAGED_BY, MANAGED_BY_LABEL, ROLLED_OUT_FOR, key_secret_name,
};
use sealpod_core::{SecretText, Time};
use sealpod_crds::SecretBinding;

use crate::controller::owned::{self, Owned};

/// What stands where the key Secret belongs.
pub type Observed = Owned<Contents>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    pub uid: Option<String>,
    pub key: Option<SecretText>,
    pub ca: Option<String>,
    pub binding: Option<String>,
    /// When the key was made; nothing if that cannot be read.
    pub rotated_at: Option<Time>,
    /// Whether the labels are there by which the controller finds it.
    pub labelled: bool,
    /// Whether it says for which versions workloads were rolled out.
    pub has_record: bool,
}

/// What the Secret shall hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub key: SecretText,
    pub rotated_at: Time,
    pub ca: Option<String>,
    /// [`sealpod_core::injection::BindingFile`] as JSON.
    pub binding: String,
}

pub fn observe(secret: Option<Secret>, binding: &SecretBinding) -> Observed {
    Owned::observe(secret, binding, |secret| Contents {
        uid: secret.uid(),
        key: owned::text(secret, API_KEY_FILE)
            .filter(|key| !key.is_empty())
            .map(SecretText::from),
        ca: owned::text(secret, CA_FILE),
        binding: owned::text(secret, BINDING_FILE),
        rotated_at: secret
            .annotations()
            .get(KEY_ROTATED_AT)
            .and_then(|time| time.parse().ok()),
        labelled: owned::is_labelled(secret, BINDING_UID_LABEL, binding),
        has_record: secret.annotations().contains_key(ROLLED_OUT_FOR),
    })
}

impl Contents {
    pub fn is(&self, wanted: &Wanted) -> bool {
        self.labelled
            && self.key.as_ref() == Some(&wanted.key)
            && self.rotated_at == Some(wanted.rotated_at)
            && self.ca == wanted.ca
            && self.binding.as_ref() == Some(&wanted.binding)
    }
}

/// The object for the API: with `uid`, it replaces that very Secret and no other.
pub fn build(binding: &SecretBinding, wanted: &Wanted, uid: Option<String>) -> Secret {
    let file = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    let mut data = BTreeMap::from([
        file(API_KEY_FILE, wanted.key.expose()),
        file(BINDING_FILE, &wanted.binding),
    ]);
    data.extend(wanted.ca.as_deref().map(|ca| file(CA_FILE, ca)));
    let labels = BTreeMap::from([
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
        (BINDING_UID_LABEL.to_owned(), binding.uid().unwrap_or_default()),
    ]);
    Secret {
        metadata: ObjectMeta {
            name: Some(key_secret_name(&binding.name_any())),
            namespace: binding.namespace(),
            uid,
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                KEY_ROTATED_AT.to_owned(),
                wanted.rotated_at.to_string(),
            )])),
            owner_references: binding.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(uid: &str) -> SecretBinding {
        let spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod"});
        let mut binding = SecretBinding::new("db", serde_json::from_value(spec).unwrap());
        binding.metadata.uid = Some(uid.to_owned());
        binding.metadata.namespace = Some("shop".to_owned());
        binding
    }

    fn wanted() -> Wanted {
        Wanted {
            key: SecretText::new("cr_sa_canary"),
            rotated_at: Time::from_microseconds(1_000_000).unwrap(),
            ca: Some("pem".to_owned()),
            binding: "{}".to_owned(),
        }
    }

    #[test]
    fn what_is_built_is_what_is_read() {
        let secret = build(&binding("u1"), &wanted(), None);
        assert_eq!(secret.name_any(), "db-sealpod-key");
        let Observed::Ours(contents) = observe(Some(secret), &binding("u1")) else {
            panic!("not ours")
        };
        assert!(contents.is(&wanted()));
    }

    #[test]
    fn every_edit_is_noticed() {
        let mut base = build(&binding("u1"), &wanted(), None);
        let edit = |edit: &dyn Fn(&mut Secret)| {
            let mut secret = base.clone();
            edit(&mut secret);
            match observe(Some(secret), &binding("u1")) {
                Observed::Ours(contents) => contents.is(&wanted()),
                _ => panic!("not ours"),
            }
        };
        for file in [API_KEY_FILE, CA_FILE, BINDING_FILE] {
            let changed = |secret: &mut Secret| {
                secret
                    .data
                    .as_mut()
                    .unwrap()
                    .insert(file.to_owned(), ByteString(b"x".to_vec()));
            };
            assert!(!edit(&changed), "{file}");
            assert!(
                !edit(&|secret: &mut Secret| drop(secret.data.as_mut().unwrap().remove(file))),
                "{file}"
            );
        }
        assert!(!edit(&|secret: &mut Secret| secret.metadata.labels = None));
        assert!(!edit(&|secret: &mut Secret| secret.metadata.annotations = None));
        base.data = None;
        assert!(matches!(
            observe(Some(base), &binding("u1")),
            Observed::Ours(Contents { key: None, .. })
        ));
    }

    #[test]
    fn a_secret_of_another_owner_is_not_ours() {
        let mut secret = build(&binding("u1"), &wanted(), None);
        assert_eq!(observe(Some(secret.clone()), &binding("u2")), Observed::NotOurs);
        secret.metadata.owner_references.as_mut().unwrap()[0].controller = None;
        assert_eq!(observe(Some(secret.clone()), &binding("u1")), Observed::NotOurs);
        secret.metadata.owner_references = None;
        assert_eq!(observe(Some(secret), &binding("u1")), Observed::NotOurs);
    }
}
