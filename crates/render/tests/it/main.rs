#![forbid(unsafe_code)]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod formats;
mod templates;

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::SecretValue;

/// Values by key, and what tests ask of them.
struct Given(BTreeMap<String, SecretValue>);

impl Given {
    fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::bytes(pairs.into_iter().map(|(key, text)| (key, text.as_bytes())))
    }

    fn bytes<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let value = |bytes: &[u8]| SecretValue::from_bytes(bytes.to_vec()).unwrap();
        Self(
            pairs
                .into_iter()
                .map(|(key, bytes)| (key.to_owned(), value(bytes)))
                .collect(),
        )
    }

    fn texts_map(&self) -> BTreeMap<&str, &str> {
        let texts = self.0.iter();
        texts
            .map(|(key, value)| (key.as_str(), std::str::from_utf8(value.expose()).unwrap()))
            .collect()
    }

    fn map(&self) -> BTreeMap<&str, &SecretValue> {
        self.0.iter().map(|(key, value)| (key.as_str(), value)).collect()
    }
}

fn literal<'a>(keys: &[&'a str]) -> BTreeSet<&'a str> {
    keys.iter().copied().collect()
}
