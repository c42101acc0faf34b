//! A JSON document as it came, read with bounds. Kept apart from `serde`'s derived readers, whose messages quote what
//! they read and which stop at the first fault.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 32;
/// Most values of one document, so that a small body cannot become a large tree.
const MAX_VALUES: usize = 100_000;

/// A JSON value. Text is wiped when it is dropped, for it may be a secret; so there is no `Debug` either.
pub enum Json {
    Null,
    Bool(bool),
    /// A number that is a whole one of 0 or more.
    Whole(u64),
    /// Any other number; no field takes one.
    OtherNumber,
    Text(Zeroizing<String>),
    Array(Vec<Json>),
    /// Fields in the order in which they came, doubles included.
    Object(Vec<(String, Json)>),
}

/// Why a document was not read. Tells the place and never the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the body is not valid JSON: see line {line}, column {column}")]
    Syntax { line: usize, column: usize },
    #[error("the body is cut off: it ends before its JSON does")]
    CutOff,
    #[error("the body is nested deeper than 32 levels, or has more than 100000 values")]
    TooMuch,
}

impl Json {
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let budget = Budget {
            values: Cell::new(MAX_VALUES),
            exceeded: Cell::new(false),
        };
        let seed = Seed {
            budget: &budget,
            depth: 0,
        };
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        seed.deserialize(&mut deserializer)
            .and_then(|json| deserializer.end().map(|()| json))
            .map_err(|error| match error {
                _ if budget.exceeded.get() => JsonError::TooMuch,
                error if error.is_eof() => JsonError::CutOff,
                error => JsonError::Syntax {
                    line: error.line(),
                    column: error.column(),
                },
            })
    }
}

struct Budget {
    values: Cell<usize>,
    exceeded: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Seed<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl Seed<'_> {
    fn inner(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self.budget.values.get().checked_sub(1) {
            Some(left) if self.depth <= MAX_DEPTH => self.budget.values.set(left),
            _ => {
                self.budget.exceeded.set(true);
                return Err(D::Error::custom("too much"));
            }
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Whole(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::OtherNumber)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(whole(value).map_or(Json::OtherNumber, Json::Whole))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(Zeroizing::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner())? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(name) = entries.next_key()? {
            object.push((name, entries.next_value_seed(self.inner())?));
        }
        Ok(Json::Object(object))
    }
}

/// `3.0` and `3e0` are whole numbers too, and some languages write them so; those behind 2⁵³ are not exact.
fn whole(value: f64) -> Option<u64> {
    const INEXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole and in range"
    )]
    let number = value as u64;
    ((0.0..INEXACT).contains(&value) && value.fract() == 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    fn fault(text: &str) -> JsonError {
        match Json::parse(text.as_bytes()) {
            Err(error) => error,
            Ok(_) => panic!("{text} was taken"),
        }
    }

    #[test]
    fn a_document_is_read_as_it_came() {
        let Ok(Json::Object(fields)) =
            Json::parse(br#" {"a": [1, -1, 1.5, null, true, "x\n", 3.0, 3e0, 1e300, -0.5], "a": {}} "#)
        else {
            panic!("not an object")
        };
        assert_eq!(fields.len(), 2, "doubles are kept for the reader to refuse");
        let Json::Array(items) = &fields[0].1 else {
            panic!("not an array")
        };
        assert!(matches!(items[0], Json::Whole(1)));
        assert!(matches!(items[1], Json::OtherNumber));
        assert!(matches!(items[2], Json::OtherNumber));
        assert!(items[6..8].iter().all(|three| matches!(three, Json::Whole(3))));
        assert!(items[8..].iter().all(|other| matches!(other, Json::OtherNumber)));
        assert!(matches!(&items[5], Json::Text(text) if **text == "x\n"));
    }

    #[test]
    fn faults_tell_the_place_and_not_the_text() {
        assert_eq!(fault("{\"a\": canary}"), JsonError::Syntax { line: 1, column: 7 });
        assert_eq!(fault("{} canary"), JsonError::Syntax { line: 1, column: 4 });
        assert_eq!(fault("\"canary"), JsonError::CutOff);
        assert_eq!(fault(""), JsonError::CutOff);
        assert!(matches!(fault("\"\u{7}canary\""), JsonError::Syntax { .. }));
        assert!(!fault("{\"a\": canary}").to_string().contains("canary"));
    }

    #[test]
    fn depth_and_size_are_bounded() {
        assert!(Json::parse(format!("{}{}", "[".repeat(32), "]".repeat(32)).as_bytes()).is_ok());
        assert_eq!(
            fault(&format!("{}{}", "[".repeat(34), "]".repeat(34))),
            JsonError::TooMuch
        );
        assert_eq!(fault(&"[".repeat(1_000_000)), JsonError::TooMuch);
        assert_eq!(fault(&format!("[{}0]", "0,".repeat(MAX_VALUES))), JsonError::TooMuch);
    }

    /// As the other reader has it, which keeps the last of equal names.
    fn plain(json: &Json) -> serde_json::Value {
        use serde_json::Value;
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Whole(value) => Value::from(*value),
            Json::OtherNumber => Value::from("another number"),
            Json::Text(text) => Value::from(text.as_str()),
            Json::Array(items) => items.iter().map(plain).collect(),
            Json::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect(),
        }
    }

    fn masked(value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Number(number) if !number.is_u64() => {
                let number = number.as_f64().and_then(whole);
                number.map_or_else(|| Value::from("another number"), Value::from)
            }
            Value::Array(items) => items.into_iter().map(masked).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, masked(value))).collect(),
            other => other,
        }
    }

    fn any_document() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "\\PC{0,8}|[\u{0}-\u{1f}\"\\\\]{0,4}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..6)
                    .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    /// The same verdict and the same content as the library's own reader.
    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        match (Json::parse(bytes), serde_json::from_slice::<serde_json::Value>(bytes)) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(plain(&ours), masked(theirs)),
            (Ok(_), Err(error)) => return Err(TestCaseError::fail(format!("taken, though {error}"))),
            (Err(JsonError::TooMuch), _) | (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) => return Err(TestCaseError::fail(format!("refused: {error}"))),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn a_document_is_read_as_any_reader_reads_it(document in any_document()) {
            agrees(&serde_json::to_vec(&document).unwrap())?;
        }

        #[test]
        fn what_is_almost_json_gets_the_same_verdict(document in any_document(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = serde_json::to_vec(&document).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            agrees(&bytes)?;
            bytes.truncate(at);
            agrees(&bytes)?;
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"0-9eE+. a-u-]{0,60}") {
            agrees(&bytes)?;
            agrees(text.as_bytes())?;
        }
    }
}
