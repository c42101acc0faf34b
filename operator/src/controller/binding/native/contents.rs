//! From the server's answer to the entries of the Secret: pure.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::SecretValue;
use sealpod_core::injection::Decode;
use sealpod_core::wire::bundle::{Bundle, BundleSecret};
use sealpod_crds::KubernetesSecretType;
use sealpod_render::Values;
use zeroize::Zeroizing;

use super::super::selection::Selection;
use super::target::{Entry, Source, Target, decode_of, is_key, is_optional, lacking};
use crate::controller::verdict::reasons;

/// Most that a Secret holds, in bytes: Kubernetes' own limit for the sum of its values.
const MAX_BYTES: usize = 1024 * 1024;

pub type Data = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// What the Secret shall hold.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub data: Data,
    /// What is not as the spec wants it, the first of it; the Secret is written all the same.
    pub problem: Option<Problem>,
}

/// A reason, and a message that says what to do. Quotes no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub reason: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// `old` is what the Secret holds now, if it is ours. What cannot be made keeps its last value, and nothing is written
/// at all where that would leave an entry out that never was there, or leave none: a server that has lost what it had
/// takes nothing from pods that run.
pub fn contents(
    target: &Target<'_>,
    selection: &Selection,
    bundle: &Bundle,
    old: Option<&Data>,
) -> Result<Contents, Problem> {
    let secrets = read(bundle);
    let (entries, problem) = match &target.entries {
        Some(entries) => (entries.clone(), None),
        None => every(selection, &secrets),
    };
    let mut made = Contents {
        data: Data::new(),
        problem,
    };
    for entry in entries {
        let found = match entry.source {
            Source::Secret(name) => one(name, &secrets, selection, bundle),
            Source::Template(source) => rendered(entry.key, source, &secrets, bundle).map(Some),
        };
        match (found, old.and_then(|old| old.get(entry.key))) {
            (Ok(Some(bytes)), _) => {
                made.data.insert(entry.key.to_owned(), bytes);
            }
            // It may be absent, and is.
            (Ok(None), _) => {}
            (Err(problem), Some(last)) => {
                made.data.insert(entry.key.to_owned(), last.clone());
                let message = format!("{}; its last value stays in the Secret", problem.message);
                made.problem = Some(Problem::new(problem.reason, message));
            }
            (Err(problem), None) => return Err(problem),
        }
    }
    checked(target.kind, made)
}

/// Each secret under its own name, and what is told of those whose name is no key.
fn every<'a>(selection: &'a Selection, secrets: &Read<'a>) -> (Vec<Entry<'a>>, Option<Problem>) {
    let named = selection.names().map(|(name, _)| name);
    let all: BTreeSet<&str> = secrets.keys().copied().chain(named).collect();
    let (keys, others): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| is_key(name));
    let problem = others.first().map(|first| {
        let message = format!(
            "{} left out, because a key of a Secret cannot be so named, such as `{first}`: name the entries in \
             spec.kubernetesSecret.data",
            if others.len() == 1 {
                "1 name is".to_owned()
            } else {
                format!("{} names are", others.len())
            }
        );
        Problem::new(reasons::NEEDS_KEY, message)
    });
    let entry = |name| Entry {
        key: name,
        source: Source::Secret(name),
    };
    (keys.into_iter().map(entry).collect(), problem)
}

fn checked(kind: KubernetesSecretType, made: Contents) -> Result<Contents, Problem> {
    if made.data.is_empty() {
        let message = "the binding has no value to write now; a Secret that is there stays as it is";
        return Err(Problem::new(reasons::SECRETS_MISSING, message));
    }
    if let Some(lacking) = lacking(kind, |key| made.data.contains_key(key)) {
        let message = format!(
            "there is no {lacking}: set the secret of that name, or name the entries in spec.kubernetesSecret.data"
        );
        return Err(Problem::new(reasons::SECRETS_MISSING, message));
    }
    if kind == KubernetesSecretType::DockerConfigJson {
        let config = made.data.get(".dockerconfigjson").map(|bytes| bytes.as_slice());
        let is_json = config.is_some_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok());
        if !is_json {
            let message =
                "the value of `.dockerconfigjson` is not JSON, which a Secret of its type must hold: set it anew";
            return Err(Problem::new(reasons::INVALID_VALUE, message));
        }
    }
    if made.data.values().map(|bytes| bytes.len()).sum::<usize>() > MAX_BYTES {
        let message = "the values are more than 1 MiB together, which is the most that a Secret of Kubernetes holds: name \
                       fewer in spec.secrets, or only those that are needed in spec.kubernetesSecret.data";
        return Err(Problem::new(reasons::TOO_LARGE, message));
    }
    Ok(made)
}

type Read<'a> = BTreeMap<&'a str, Result<SecretValue, Problem>>;

/// The values as the server has them.
fn read(bundle: &Bundle) -> Read<'_> {
    let value = |name: &str, secret: &BundleSecret| {
        let text = secret.value.as_ref();
        let text = text.ok_or_else(|| unreadable(name, "was not in the answer"))?;
        let value = SecretValue::from_wire(text, secret.encoding.unwrap_or_default());
        value.map_err(|error| unreadable(name, &error.to_string()))
    };
    let secrets = bundle.secrets.iter();
    secrets
        .map(|(name, secret)| (name.as_str(), value(name, secret)))
        .collect()
}

fn unreadable(name: &str, what: &str) -> Problem {
    Problem::new(reasons::INVALID_VALUE, format!("the value of `{name}` {what}"))
}

/// The bytes that are written for a value.
fn decoded(name: &str, value: &SecretValue, decode: Option<Decode>) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let Some(Decode::Base64) = decode else {
        return Ok(Zeroizing::new(value.expose().to_vec()));
    };
    // Tools that encode break their lines.
    let text = value.expose().iter().copied().filter(|b| !b.is_ascii_whitespace());
    let text = Zeroizing::new(text.collect::<Vec<u8>>());
    let bytes = data_encoding::BASE64.decode(&text).map(Zeroizing::new);
    bytes.map_err(|_| unreadable(name, "is not base64 text, as its `decode` in spec.secrets says"))
}

/// The value of one secret; none where it is absent and may be.
fn one(
    name: &str,
    secrets: &Read<'_>,
    selection: &Selection,
    bundle: &Bundle,
) -> Result<Option<Zeroizing<Vec<u8>>>, Problem> {
    match secrets.get(name) {
        Some(Ok(value)) => decoded(name, value, decode_of(selection, name)).map(Some),
        Some(Err(problem)) => Err(problem.clone()),
        None if is_optional(selection, name) => Ok(None),
        None if bundle.denied.iter().any(|denied| denied == name) => Err(Problem::new(
            reasons::SECRETS_DENIED,
            format!("the binding's key may not read `{name}` yet"),
        )),
        None => Err(Problem::new(
            reasons::SECRETS_MISSING,
            format!("no active version of `{name}`: set a value, or make it optional in spec.secrets"),
        )),
    }
}

/// Over the values as they are stored: `decode` is about the entry of its own, as it is about the file of its own in pods.
fn rendered(key: &str, source: &str, secrets: &Read<'_>, bundle: &Bundle) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let values = Values {
        secrets: secrets
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_ref().ok()?)))
            .collect(),
        configurations: bundle
            .configurations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect(),
    };
    let failed = |error| Problem::new(reasons::TEMPLATE_FAILED, format!("the template of `{key}`: {error}"));
    sealpod_render::template(source, &values).map_err(failed)
}

#[cfg(test)]
mod tests;
