//! Files of several values: which values, and what is made of them.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::SecretValue;
use sealpod_core::injection::{BindingFile, CombinedContent, CombinedFile, Format, Select};
use sealpod_core::wire::bundle::Bundle;
use sealpod_render::{Error, Values};
use zeroize::Zeroizing;

use super::Trouble;

/// What files of several values are made of.
pub(super) struct Members<'a> {
    /// Every secret of the answer that the binding names. As it is stored: `decode` is about the file of its own.
    values: Values<'a>,
    /// Named by the binding and not in the answer.
    absent: BTreeMap<&'a str, Absent>,
    /// Named by the binding as they are, and not by a pattern.
    literal: BTreeSet<&'a str>,
}

#[derive(Debug, Clone, Copy)]
struct Absent {
    required: bool,
    denied: bool,
}

/// Why a file cannot be made of the answer.
#[derive(Debug)]
pub(super) struct Unmade {
    /// Whether a right is missing.
    pub(super) denied: bool,
    /// Whose trouble it is, and which; none where a secret's own finding says it.
    pub(super) finding: Option<(String, Trouble)>,
}

/// The values of an answer's secrets, by key.
pub(super) fn values(bundle: &Bundle) -> BTreeMap<&str, SecretValue> {
    let read = bundle.secrets.iter().filter_map(|(key, secret)| {
        let text = secret.value.as_ref()?;
        let value = SecretValue::from_wire(text, secret.encoding.unwrap_or_default()).ok()?;
        Some((key.as_str(), value))
    });
    read.collect()
}

impl<'a> Members<'a> {
    pub(super) fn of(binding: &'a BindingFile, bundle: &'a Bundle, values: &'a BTreeMap<&'a str, SecretValue>) -> Self {
        let entries = || binding.secrets.iter().flatten();
        let selected = |key: &str| binding.secrets.is_none() || entries().any(|entry| selects(&entry.select, key));
        let mut absent = BTreeMap::new();
        for entry in entries() {
            if let Select::Name(name) = &entry.select
                && !values.contains_key(name.as_str())
            {
                let denied = bundle.denied.iter().any(|denied| denied == name);
                let known = absent.entry(name.as_str()).or_insert(Absent {
                    required: false,
                    denied,
                });
                known.required |= !entry.optional;
            }
        }
        let secrets = values.iter().filter(|(key, _)| selected(key));
        let texts = bundle.configurations.iter();
        let mut literal: BTreeSet<_> = entries().filter_map(|entry| name(&entry.select)).collect();
        for file in &binding.files {
            if let CombinedContent::Values { include, .. } = &file.content {
                literal.extend(include.iter().flatten().filter_map(name));
            }
        }
        Self {
            values: Values {
                secrets: secrets.map(|(key, value)| (*key, value)).collect(),
                configurations: texts.map(|(key, text)| (key.as_str(), text.as_str())).collect(),
            },
            absent,
            literal,
        }
    }

    /// The keys of what the files are made of.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.values.secrets.keys().copied()
    }

    pub(super) fn make(&self, file: &CombinedFile) -> Result<Zeroizing<Vec<u8>>, Unmade> {
        let unmade = |error: &Error| {
            let key = if let Error::NoKey { key, .. } = error {
                Some(key)
            } else {
                None
            };
            let absent = key.and_then(|key| self.absent.get(key.as_str()));
            Unmade {
                denied: absent.is_some_and(|absent| absent.denied),
                finding: Some((file.path.to_string(), Trouble::Unmade(error.to_string()))),
            }
        };
        match &file.content {
            CombinedContent::Template(source) => {
                sealpod_render::template(source, &self.values).map_err(|error| unmade(&error))
            }
            CombinedContent::Values { format, include } => {
                let values = self.included(include.as_deref())?;
                sealpod_render::format(*format, &values, &self.literal).map_err(|error| unmade(&error))
            }
        }
    }

    /// The values of a file; an app that gets the file without one that it requires is worse off than with the old file.
    fn included(&self, include: Option<&[Select]>) -> Result<BTreeMap<&'a str, &'a SecretValue>, Unmade> {
        let is_included = |key: &str| include.is_none_or(|include| include.iter().any(|select| selects(select, key)));
        let missing = self
            .absent
            .iter()
            .find(|(key, absent)| absent.required && is_included(key));
        if let Some((_, absent)) = missing {
            return Err(Unmade {
                denied: absent.denied,
                finding: None,
            });
        }
        let secrets = &self.values.secrets;
        let is_known = |name: &&str| secrets.contains_key(name) || self.absent.contains_key(name);
        let stranger = include
            .into_iter()
            .flatten()
            .filter_map(name)
            .find(|name| !is_known(name));
        if let Some(stranger) = stranger {
            return Err(Unmade {
                denied: false,
                finding: Some((stranger.to_owned(), Trouble::NotSelected)),
            });
        }
        let included = secrets.iter().filter(|(key, _)| is_included(key));
        Ok(included.map(|(key, value)| (*key, *value)).collect())
    }
}

/// Every configuration in one file.
pub(super) fn configurations(format: Format, bundle: &Bundle) -> Result<Zeroizing<Vec<u8>>, Error> {
    let texts = bundle.configurations.iter();
    let texts = texts.map(|(key, text)| (key.as_str(), text.as_str())).collect();
    sealpod_render::format_text(format, &texts, &BTreeSet::new())
}

fn selects(select: &Select, key: &str) -> bool {
    match select {
        Select::Name(name) => name == key,
        Select::Pattern(pattern) => pattern.matches(key),
    }
}

fn name(select: &Select) -> Option<&str> {
    match select {
        Select::Name(name) => Some(name),
        Select::Pattern(_) => None,
    }
}
