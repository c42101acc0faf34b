//! What the Secret of a binding shows in the cluster, without its values.
//!
//! Users can write all of it. Whoever can, can write the Secret itself, so that nothing is gained by it: what it decides
//! is whether this Secret of the binding's own namespace is written, and when the values are read again.

use std::collections::{BTreeMap, BTreeSet};

use kube::api::{GetParams, ObjectMeta};
use kube::core::Request;
use kube::{Client, Resource};
use sealpod_core::kubernetes::{
    COPY_BINDING, COPY_DELETION_POLICY, COPY_OF_LABEL, COPY_STATE, FIELD_MANAGER, MANAGED_BY, MANAGED_BY_LABEL,
};
use sealpod_crds::{DeletionPolicy, SecretBinding};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::target::Target;
use crate::controller::lookup;

/// What the Secret was made of, kept on the Secret itself, so that it is written in the same step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// The server's mark for the state that the values were read in; empty where something could not be written.
    pub etag: String,
    /// [`Target::digest`].
    pub spec: String,
    /// How often the bytes of each entry have changed, by its key: for restarts.
    pub revisions: BTreeMap<String, u64>,
    /// Where `revisions` is of all together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// Keys of the labels and annotations that the spec asked for, to take away those it no longer does.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub annotations: BTreeSet<String>,
}

/// The keys of entries that are too many to be named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Keys {
    pub count: usize,
    digest: String,
}

impl Keys {
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut count, mut hasher) = (0, Sha256::new());
        for key in keys {
            count += 1;
            // No key holds it.
            hasher.update(key);
            hasher.update([0]);
        }
        Self {
            count,
            digest: data_encoding::HEXLOWER.encode(&hasher.finalize()[..8]),
        }
    }
}

impl State {
    /// How many entries the Secret has.
    pub fn entries(&self) -> usize {
        self.keys.as_ref().map_or(self.revisions.len(), |keys| keys.count)
    }
}

/// The metadata of a Secret.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    pub metadata: ObjectMeta,
    /// `managedFields`, as far as they can be read.
    managers: Vec<Manager>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manager {
    #[serde(rename = "manager")]
    name: String,
    operation: String,
    subresource: String,
    fields_v1: Value,
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(deserializer)?;
        let mut metadata = raw.get_mut("metadata").map(Value::take).unwrap_or_default();
        // Their times may be any that users have written, which our types do not hold.
        let managers = metadata
            .as_object_mut()
            .and_then(|fields| fields.remove("managedFields"));
        let managers = managers.as_ref().and_then(Value::as_array).map(Vec::as_slice);
        let readable = |manager: &Value| Manager::deserialize(manager).ok();
        Ok(Self {
            managers: managers.unwrap_or_default().iter().filter_map(readable).collect(),
            metadata: serde_json::from_value(metadata).map_err(serde::de::Error::custom)?,
        })
    }
}

impl Held {
    /// Whether it is the copy of this very binding: one that was deleted and made again under its name is another.
    pub fn is_of(&self, binding: &SecretBinding) -> bool {
        is_of(&self.metadata, binding)
    }

    pub fn is_going(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn state(&self) -> State {
        let state = self
            .annotation(COPY_STATE)
            .and_then(|json| serde_json::from_str(json).ok());
        state.unwrap_or_default()
    }

    /// The policy that its binding had when it last wrote it.
    pub fn policy(&self) -> DeletionPolicy {
        policy(&self.metadata)
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it is as it was last written: for this spec, from this state of the server, and changed by nobody since.
    pub fn is(&self, target: &Target<'_>, binding: &str, etag: &str) -> bool {
        let state = self.state();
        state.etag == etag
            && state.spec == target.digest
            && self.is_labelled(target, binding)
            && self.is_untouched(&state)
    }

    /// Whether all labels and annotations are there, ours and those of the spec.
    pub fn is_labelled(&self, target: &Target<'_>, binding: &str) -> bool {
        self.label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
            && self.annotation(COPY_BINDING) == Some(binding)
            && self.annotation(COPY_DELETION_POLICY) == Some(written(target.policy))
            && target.labels.iter().all(|(key, value)| self.label(key) == Some(value))
            && target
                .annotations
                .iter()
                .all(|(key, value)| self.annotation(key) == Some(value))
    }

    /// Whether nobody has changed an entry since: who changes one takes it from us, as the API server keeps record.
    fn is_untouched(&self, state: &State) -> bool {
        let ours = |m: &&Manager| m.name == FIELD_MANAGER && m.operation == "Update" && m.subresource.is_empty();
        let mine: BTreeSet<&str> = self.managers.iter().filter(ours).flat_map(Manager::entries).collect();
        let everybodys: BTreeSet<&str> = self.managers.iter().flat_map(Manager::entries).collect();
        let is_wanted = match &state.keys {
            Some(keys) => *keys == Keys::of(mine.iter().copied()),
            None => mine.iter().copied().eq(state.revisions.keys().map(String::as_str)),
        };
        is_wanted && everybodys == mine
    }
}

impl Manager {
    /// The keys of `data` that it has written.
    fn entries(&self) -> impl Iterator<Item = &str> {
        let fields = self.fields_v1.get("f:data").and_then(Value::as_object);
        fields
            .into_iter()
            .flatten()
            .filter_map(|(field, _)| field.strip_prefix("f:"))
    }
}

/// As [`Held::is_of`].
pub fn is_of(metadata: &ObjectMeta, binding: &SecretBinding) -> bool {
    let of = metadata.labels.as_ref().and_then(|labels| labels.get(COPY_OF_LABEL));
    of.is_some() && of == binding.metadata.uid.as_ref()
}

/// As [`Held::policy`]; what cannot be read deletes nothing.
fn policy(metadata: &ObjectMeta) -> DeletionPolicy {
    let policy = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(COPY_DELETION_POLICY));
    match policy.map(String::as_str) {
        Some("Delete") => DeletionPolicy::Delete,
        _ => DeletionPolicy::Retain,
    }
}

pub fn written(policy: DeletionPolicy) -> &'static str {
    match policy {
        DeletionPolicy::Delete => "Delete",
        DeletionPolicy::Retain => "Retain",
    }
}

/// The metadata of any Secret, read now; without `data`, so that no value is transferred. What cannot be a name is none's.
pub async fn read(client: &Client, namespace: &str, name: &str) -> kube::Result<Option<Held>> {
    if !lookup::is_name(name) {
        return Ok(None);
    }
    let path = k8s_openapi::api::core::v1::Secret::url_path(&(), Some(namespace));
    let request = Request::new(path).get_metadata(name, &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    match client.request(request).await {
        Ok(held) => Ok(Some(held)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::world::object;
    use super::*;
    use crate::tolerant::tests::UNREADABLE_TIMES;
    use serde_json::json;

    fn target() -> Target<'static> {
        static NONE: std::collections::BTreeMap<String, String> = BTreeMap::new();
        Target {
            name: "copy",
            kind: sealpod_crds::KubernetesSecretType::Opaque,
            labels: &NONE,
            annotations: &NONE,
            policy: DeletionPolicy::Retain,
            entries: None,
            digest: "d".to_owned(),
        }
    }

    fn secret() -> Value {
        let state = json!({"etag": "e", "spec": "d", "revisions": {"a": 1, "b": 4}}).to_string();
        json!({
            "metadata": {
                "name": "copy", "uid": "secret-uid", "resourceVersion": "7",
                "labels": {COPY_OF_LABEL: "uid", MANAGED_BY_LABEL: MANAGED_BY},
                "annotations": {COPY_STATE: state, COPY_BINDING: "db", COPY_DELETION_POLICY: "Retain"},
                "managedFields": [{
                    "manager": FIELD_MANAGER, "operation": "Update", "apiVersion": "v1",
                    "fieldsV1": {"f:data": {".": {}, "f:a": {}, "f:b": {}}, "f:type": {}},
                }],
            },
        })
    }

    fn is(secret: &Value) -> bool {
        let held: Held = serde_json::from_value(secret.clone()).unwrap();
        held.is_of(&object()) && held.is(&target(), "db", "e")
    }

    #[test]
    fn a_secret_that_nobody_has_touched_is_known_without_its_values() {
        assert!(is(&secret()));
        let mut labelled = secret();
        labelled["metadata"]["labels"]["team"] = json!("a");
        labelled["metadata"]["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(json!({
                "manager": "kubectl", "operation": "Update", "time": UNREADABLE_TIMES[0],
                "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}},
            }));
        assert!(is(&labelled), "what others put beside our labels is theirs");
    }

    #[test]
    fn every_change_shows() {
        let edit = |edit: &dyn Fn(&mut Value)| {
            let mut secret = secret();
            edit(&mut secret["metadata"]);
            is(&secret)
        };
        let other = |fields: Value| json!({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields});
        assert!(!edit(&|m| m["labels"][COPY_OF_LABEL] = json!("other")));
        assert!(!edit(&|m| m["labels"][MANAGED_BY_LABEL] = json!("other")));
        assert!(!edit(&|m| m["annotations"][COPY_BINDING] = json!("other")));
        assert!(!edit(&|m| m["annotations"][COPY_DELETION_POLICY] = json!("Delete")));
        assert!(!edit(&|m| m["annotations"][COPY_STATE] = json!("{}")));
        assert!(!edit(&|m| m["annotations"][COPY_STATE] = json!("no JSON")));
        assert!(!edit(&|m| m["managedFields"] = json!(null)));
        // Somebody changed `b`, which took it from us.
        assert!(!edit(&|m| {
            m["managedFields"][0]["fieldsV1"]["f:data"] = json!({"f:a": {}});
            m["managedFields"]
                .as_array_mut()
                .unwrap()
                .push(other(json!({"f:data": {"f:b": {}}})));
        }));
        // Somebody took `b` out.
        assert!(!edit(
            &|m| m["managedFields"][0]["fieldsV1"]["f:data"] = json!({"f:a": {}})
        ));
        // Somebody put another one in.
        assert!(!edit(&|m| m["managedFields"]
            .as_array_mut()
            .unwrap()
            .push(other(json!({"f:data": {"f:c": {}}})))));
        // Another operation under our name is not ours.
        assert!(!edit(&|m| m["managedFields"][0]["operation"] = json!("Apply")));
    }

    #[test]
    fn only_a_readable_delete_deletes() {
        for (policy, want) in [
            (json!("Delete"), DeletionPolicy::Delete),
            (json!("delete"), DeletionPolicy::Retain),
            (json!(null), DeletionPolicy::Retain),
        ] {
            let mut secret = secret();
            secret["metadata"]["annotations"][COPY_DELETION_POLICY] = policy.clone();
            if policy.is_null() {
                secret["metadata"]["annotations"] = json!({});
            }
            assert_eq!(serde_json::from_value::<Held>(secret).unwrap().policy(), want);
        }
    }
}
