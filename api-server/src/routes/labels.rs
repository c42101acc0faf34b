//! The filter `?label=key=value` of lists.

use sealpod_core::wire::Labels;

use crate::body::QueryFields;

/// Labels that everything listed must have.
pub fn labels(query: &mut QueryFields) -> Option<Labels> {
    let mut labels = Labels::new();
    for pair in query.all("label") {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            query.fault("label", "must be `key=value`");
            return None;
        };
        if labels
            .insert(key.to_owned(), value.to_owned())
            .is_some_and(|before| before != value)
        {
            query.fault("label", "asks for two values of one label; nothing has both");
            return None;
        }
    }
    Some(labels)
}
