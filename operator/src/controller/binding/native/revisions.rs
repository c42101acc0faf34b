//! How often the entries of a copy have changed. It is counted on the copy itself; where that is gone, or somebody has
//! taken the count off, it goes on from what workloads were last rolled out for.

use std::collections::BTreeMap;

use kube::ResourceExt;
use sealpod_crds::SecretBinding;

use super::contents::Data;
use super::held::{Keys, State};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::restart;

/// Longest record of single entries, in bytes: an object's annotations have 256 KiB together, and those of the key Secret
/// hold as much again of versions.
const MAX_RECORD: usize = 96 * 1024;

/// The last copy of which something is known.
#[derive(Debug, Default)]
pub struct Former {
    /// [`made_of`]
    pub made_of: String,
    pub revisions: BTreeMap<String, u64>,
    /// Whether the Secret that is there now is that copy; the bytes of another one tell nothing.
    is_there: bool,
}

/// All that decides what a copy holds, in a few bytes.
pub fn made_of(etag: &str, spec: &str) -> String {
    format!("{spec} {etag}")
}

/// `held` is what the Secret says of itself, `name` its name.
pub async fn former(
    object: &SecretBinding,
    name: &str,
    held: Option<State>,
    context: &Context,
) -> Result<Former, Error> {
    if let Some(state) = held.filter(|state| !state.revisions.is_empty()) {
        return Ok(Former {
            made_of: made_of(&state.etag, &state.spec),
            revisions: state.revisions,
            is_there: true,
        });
    }
    let last = context.copies.compared.get(&object.uid().unwrap_or_default());
    if let Some(last) = last.filter(|last| last.secret == name && !last.revisions.is_empty()) {
        return Ok(Former {
            made_of: last.made_of,
            revisions: last.revisions,
            is_there: true,
        });
    }
    let recorded = restart::recorded(object, context).await?;
    let copy = recorded.and_then(|state| state.copy).filter(|copy| copy.secret == name);
    let former = copy.map(|copy| Former {
        made_of: copy.made_of,
        revisions: copy.revisions,
        is_there: false,
    });
    Ok(former.unwrap_or_default())
}

/// An entry counts as changed where its bytes differ and the server or the spec has moved: what somebody has edited in
/// the Secret, and what is put back, is no change. Too many entries are counted as one, with their keys beside.
pub fn revisions(
    former: &Former,
    made_of: &str,
    data: &Data,
    old: Option<&Data>,
) -> (BTreeMap<String, u64>, Option<Keys>) {
    let moved = former.made_of != made_of;
    let old = old.filter(|_| former.is_there);
    let differs = |key: &String, bytes| moved && old.is_none_or(|old| old.get(key) != Some(bytes));
    // Who may write the record may write any number into it.
    let next = |last: u64, differs: bool| last.wrapping_add(u64::from(last == 0 || differs));
    if data.keys().map(|key| key.len() + 8).sum::<usize>() > MAX_RECORD {
        let last = former.revisions.values().copied().max().unwrap_or_default();
        let any = data.iter().any(|(key, bytes)| differs(key, bytes));
        let all = BTreeMap::from([(restart::ALL.to_owned(), next(last, any))]);
        return (all, Some(Keys::of(data.keys().map(String::as_str))));
    }
    let together = former.revisions.get(restart::ALL).copied().unwrap_or_default();
    let each = data.iter().map(|(key, bytes)| {
        let last = former.revisions.get(key).copied().unwrap_or(together);
        (key.clone(), next(last, differs(key, bytes)))
    });
    (each.collect(), None)
}
