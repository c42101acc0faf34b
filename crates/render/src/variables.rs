//! Variables of an environment.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::SecretValue;
use sealpod_core::names::variable_name;

use crate::Error;
use crate::refused::is_refused;

/// Each text with its name as a variable, by name. `literal` are the keys that somebody named as they are; only those may
/// change how programs start.
pub fn variables<'v>(
    texts: &BTreeMap<&str, &'v str>,
    literal: &BTreeSet<&str>,
) -> Result<BTreeMap<String, &'v str>, Error> {
    let named = named(texts)?;
    refuse(&named, literal)?;
    named.into_iter().map(without_nul).collect()
}

/// The values as text.
pub(crate) fn texts<'k, 'v>(values: &BTreeMap<&'k str, &'v SecretValue>) -> Result<BTreeMap<&'k str, &'v str>, Error> {
    values
        .iter()
        .map(|(key, value)| match std::str::from_utf8(value.expose()) {
            Ok(text) => Ok((*key, text)),
            Err(_) => Err(Error::NotText { key: (*key).to_owned() }),
        })
        .collect()
}

/// Names of variables, with the key and text of each.
pub(crate) type Named<'k, 'v> = BTreeMap<String, (&'k str, &'v str)>;

pub(crate) fn named<'k, 'v>(texts: &BTreeMap<&'k str, &'v str>) -> Result<Named<'k, 'v>, Error> {
    let mut named = Named::new();
    for (key, text) in texts {
        let variable = variable_name(key);
        if let Some((first, _)) = named.get(&variable) {
            return Err(Error::Collision {
                variable,
                first: (*first).to_owned(),
                second: (*key).to_owned(),
            });
        }
        named.insert(variable, (key, text));
    }
    Ok(named)
}

pub(crate) fn refuse(named: &Named<'_, '_>, literal: &BTreeSet<&str>) -> Result<(), Error> {
    match named
        .iter()
        .find(|(variable, (key, _))| is_refused(variable) && !literal.contains(key))
    {
        None => Ok(()),
        Some((variable, (key, _))) => Err(Error::Refused {
            variable: variable.clone(),
            key: (*key).to_owned(),
        }),
    }
}

pub(crate) fn without_nul<'v>((variable, (key, text)): (String, (&str, &'v str))) -> Result<(String, &'v str), Error> {
    if text.contains('\0') {
        Err(Error::Nul { key: key.to_owned() })
    } else {
        Ok((variable, text))
    }
}
