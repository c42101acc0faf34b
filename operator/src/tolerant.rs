//! Objects of other people, read so that no one of them can stop the reading of the rest.
//!
//! A list or a watch that meets one object it cannot read fails as a whole, for every namespace. What the API server
//! lets people write is more than our types hold: in `metadata.managedFields`, and in a `date-time` of a status, the
//! last day of the year 9999 and offsets that do not exist. Nothing of either is ever an input to a decision.

use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// An object without `managedFields`, and without what of its status cannot be read. Every kind that users can write is
/// read as this, wherever it is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Tolerant<K>(pub K);

impl<K> Deref for Tolerant<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.0
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Tolerant<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut raw = Value::deserialize(deserializer)?;
        if let Some(metadata) = raw.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        let error = match K::deserialize(&raw) {
            Ok(object) => return Ok(Self(object)),
            Err(error) => error,
        };
        match raw.get_mut("status").and_then(Value::as_object_mut) {
            Some(status) => keep_readable(status),
            None => return Err(D::Error::custom(error)),
        }
        K::deserialize(raw).map(Self).map_err(|_| D::Error::custom(error))
    }
}

/// Leaves the conditions that can be read, and nothing else. Without them each look would take the object for a new
/// one, and write its status again with a new time.
fn keep_readable(status: &mut Map<String, Value>) {
    status.retain(|field, _| field == "conditions");
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|condition| Condition::deserialize(condition).is_ok());
    }
}

/// Within an `impl Resource`: what the API server calls it is what it calls `K`.
macro_rules! as_kind {
    ($kind:ty) => {
        type DynamicType = <$kind as ::kube::Resource>::DynamicType;
        type Scope = <$kind as ::kube::Resource>::Scope;

        fn kind(dynamic: &Self::DynamicType) -> ::std::borrow::Cow<'_, str> {
            <$kind as ::kube::Resource>::kind(dynamic)
        }

        fn group(dynamic: &Self::DynamicType) -> ::std::borrow::Cow<'_, str> {
            <$kind as ::kube::Resource>::group(dynamic)
        }

        fn version(dynamic: &Self::DynamicType) -> ::std::borrow::Cow<'_, str> {
            <$kind as ::kube::Resource>::version(dynamic)
        }

        fn plural(dynamic: &Self::DynamicType) -> ::std::borrow::Cow<'_, str> {
            <$kind as ::kube::Resource>::plural(dynamic)
        }
    };
}
pub(crate) use as_kind;

impl<K: Resource> Resource for Tolerant<K> {
    as_kind!(K);

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::ObjectList;
    use sealpod_crds::SecretBinding;
    use serde_json::json;

    /// What the API server of Kubernetes 1.35 takes from a user, and our types do not hold.
    pub const UNREADABLE_TIMES: [&str; 3] = [
        "9999-12-31T23:59:59Z",
        "2026-01-01T00:00:00+99:99",
        "2026-01-01T00:00:00x5z",
    ];

    /// A list of two bindings, `bad` and `good`; the first with `time` wherever a user may write one.
    pub fn list(time: &str) -> Value {
        let binding = |name: &str| {
            json!({
                "metadata": {"name": name, "namespace": "shop", "uid": name},
                "spec": {"applicationRef": {"name": "shop"}, "environment": "prod"},
            })
        };
        let mut bad = binding("bad");
        let entry = json!({"manager": "x", "operation": "Update", "apiVersion": "v1", "time": time});
        bad["metadata"]["managedFields"] = json!([entry]);
        let condition = |kind: &str, time: &str| json!({"type": kind, "status": "True", "reason": "r", "message": "m", "lastTransitionTime": time});
        let conditions = json!([condition("Forged", time), condition("Ready", "2026-01-01T00:00:00Z")]);
        bad["status"] = json!({"conditions": conditions, "keyRotatedAt": time});
        json!({
            "apiVersion": "sealpod.dev/v1alpha1", "kind": "SecretBindingList", "metadata": {"resourceVersion": "1"},
            "items": [bad, binding("good")],
        })
    }

    #[test]
    fn what_users_write_into_one_object_never_stops_the_reading_of_the_others() {
        for time in UNREADABLE_TIMES {
            assert!(
                serde_json::from_value::<ObjectList<SecretBinding>>(list(time)).is_err(),
                "{time} needs no tolerance"
            );
            let read: ObjectList<Tolerant<SecretBinding>> = serde_json::from_value(list(time)).unwrap();
            let names: Vec<_> = read.iter().map(|b| b.meta().name.as_deref().unwrap()).collect();
            assert_eq!(names, ["bad", "good"], "{time}");
            let status = read.items[0].status.as_ref().unwrap();
            let kinds: Vec<_> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
            assert_eq!((kinds, &status.key_rotated_at), (vec!["Ready"], &None));
        }
    }

    #[test]
    fn a_status_that_can_be_read_is() {
        let mut object = list("2026-01-01T00:00:00Z")["items"][0].clone();
        let read: Tolerant<SecretBinding> = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(read.status.as_ref().unwrap().conditions.len(), 2);
        object["spec"]["environment"] = json!(7);
        let error = serde_json::from_value::<Tolerant<SecretBinding>>(object).unwrap_err();
        assert!(error.to_string().contains("integer `7`"), "{error}");
    }

    #[test]
    fn a_secret_is_read_whatever_its_managers_say() {
        let mut raw = json!({"metadata": {"name": "s"}, "data": {"a": "Yg=="}});
        raw["metadata"]["managedFields"] = json!([{"time": UNREADABLE_TIMES[0]}]);
        let read: Tolerant<Secret> = serde_json::from_value(raw).unwrap();
        assert_eq!(read.data.as_ref().unwrap()["a"].0, b"b");
    }
}
