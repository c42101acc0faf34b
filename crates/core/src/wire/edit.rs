//! A field of a partial change, where leaving it out and sending null are two things.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a `PATCH` says about one field. Written with `skip_serializing_if = "Edit::is_keep"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Edit<T> {
    /// Left out: the field stays what it is.
    #[default]
    Keep,
    To(T),
}

impl<T> Edit<T> {
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The field's value behind the change, where it had `before`.
    pub fn over(self, before: T) -> T {
        match self {
            Self::Keep => before,
            Self::To(value) => value,
        }
    }
}

impl<T: Serialize> Serialize for Edit<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Keep => serializer.serialize_none(),
            Self::To(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Edit<T> {
    /// Runs only for a field that is there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::To)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Body {
        #[serde(default, skip_serializing_if = "Edit::is_keep")]
        field: Edit<Option<u8>>,
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        for (json, field) in [
            ("{}", Edit::Keep),
            (r#"{"field":null}"#, Edit::To(None)),
            (r#"{"field":7}"#, Edit::To(Some(7))),
        ] {
            let body = Body { field };
            assert_eq!(serde_json::from_str::<Body>(json).unwrap(), body);
            assert_eq!(serde_json::to_string(&body).unwrap(), json);
        }
        assert_eq!(Edit::Keep.over(Some(1)), Some(1));
        assert_eq!(Edit::To(None).over(Some(1)), None);
    }
}
