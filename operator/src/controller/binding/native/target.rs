//! `spec.kubernetesSecret` as what is to be made: pure.

use std::collections::{BTreeMap, BTreeSet};

use sealpod_core::injection::{Decode, SecretFile, Select};
use sealpod_core::kubernetes::{GROUP, KEY_SECRET_SUFFIX, MANAGED_BY_LABEL};
use sealpod_core::names::check_dns_name;
use sealpod_crds::{DeletionPolicy, KubernetesSecret, KubernetesSecretEntry, KubernetesSecretType, SecretBindingSpec};
use sha2::{Digest, Sha256};

use super::super::selection::Selection;
use crate::controller::verdict::{Refusal, reasons};

/// Changes when what is written for the same spec does.
const FORMAT: &str = "1";

/// Most that the annotations of the spec take, in bytes: an object's have 256 KiB together, and ours need some of it.
const MAX_ANNOTATIONS: usize = 144 * 1024;

/// The Secret that the spec asks for, but for the values.
#[derive(Debug, PartialEq)]
pub struct Target<'a> {
    pub name: &'a str,
    pub kind: KubernetesSecretType,
    pub labels: &'a BTreeMap<String, String>,
    pub annotations: &'a BTreeMap<String, String>,
    pub policy: DeletionPolicy,
    /// None: each secret that the binding names, under its own name.
    pub entries: Option<Vec<Entry<'a>>>,
    /// Of all of the spec that decides what the Secret holds.
    pub digest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub key: &'a str,
    pub source: Source<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    Secret(&'a str),
    Template(&'a str),
}

impl<'a> Target<'a> {
    /// Nothing where the spec asks for no Secret.
    pub fn parse(spec: &'a SecretBindingSpec, selection: &Selection) -> Result<Option<Self>, Refusal> {
        let Some(wanted) = &spec.kubernetes_secret else {
            return Ok(None);
        };
        let invalid =
            |text: String| Refusal::until_edited(reasons::INVALID_SPEC, format!("spec.kubernetesSecret{text}"));
        // The schema refuses it, but for objects that are older than that.
        if let Err(error) = check_dns_name(&wanted.name) {
            return Err(invalid(format!(".name {error}")));
        }
        if wanted.name.ends_with(KEY_SECRET_SUFFIX) {
            return Err(invalid(format!(
                ".name must not end with `{KEY_SECRET_SUFFIX}`: such are the Secrets with the keys of bindings"
            )));
        }
        for (field, keys) in [("labels", &wanted.labels), ("annotations", &wanted.annotations)] {
            for (key, value) in keys {
                check_pair(field, key, value).map_err(|why| invalid(format!(".{field}: `{key}` {why}")))?;
            }
        }
        let size: usize = wanted
            .annotations
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MAX_ANNOTATIONS {
            return Err(invalid(format!(
                ".annotations have {size} bytes together: at most {MAX_ANNOTATIONS} fit beside Sealpod's own"
            )));
        }
        let entries = wanted.data.as_ref().map(|data| entries(data, selection));
        let entries = entries.transpose().map_err(invalid)?;
        if let Some(entries) = &entries {
            let keys: BTreeSet<&str> = entries.iter().map(|entry| entry.key).collect();
            let lacking = lacking(wanted.type_, |key| keys.contains(key));
            if let Some(lacking) = lacking {
                return Err(invalid(format!(".data has no {lacking}")));
            }
        }
        Ok(Some(Self {
            name: &wanted.name,
            kind: wanted.type_,
            labels: &wanted.labels,
            annotations: &wanted.annotations,
            policy: wanted.deletion_policy,
            entries,
            digest: digest(wanted, spec),
        }))
    }
}

fn entries<'a>(data: &'a [KubernetesSecretEntry], selection: &Selection) -> Result<Vec<Entry<'a>>, String> {
    let mut seen = BTreeSet::new();
    let parse = |(at, entry): (usize, &'a KubernetesSecretEntry)| {
        let key = entry.key.as_str();
        if !is_key(key) {
            return Err(format!(
                ".data[{at}].key must be 1 to 253 letters, digits, `-`, `_` and `.`, and not begin with `..`"
            ));
        }
        if !seen.insert(key) {
            return Err(format!(".data[{at}].key `{key}` is there twice"));
        }
        let source = match (&entry.secret, &entry.template) {
            (Some(name), None) if entry_of(selection, name).is_none() && selection.0.is_some() => {
                return Err(format!(
                    ".data[{at}].secret `{name}` is not one of spec.secrets: add it there"
                ));
            }
            (Some(name), None) => Source::Secret(name),
            (None, Some(template)) => Source::Template(template),
            _ => return Err(format!(".data[{at}] must have either secret or template")),
        };
        Ok(Entry { key, source })
    };
    data.iter().enumerate().map(parse).collect()
}

/// The entry of `spec.secrets` that a secret is taken by: one that names it, else the first that matches it.
fn entry_of<'s>(selection: &'s Selection, name: &str) -> Option<&'s SecretFile> {
    let entries = selection.0.as_deref()?;
    let named = |entry: &&SecretFile| matches!(&entry.select, Select::Name(other) if other == name);
    let matched = |entry: &&SecretFile| matches!(&entry.select, Select::Pattern(pattern) if pattern.matches(name));
    entries.iter().find(named).or_else(|| entries.iter().find(matched))
}

/// What a value is turned into before it is written.
pub fn decode_of(selection: &Selection, name: &str) -> Option<Decode> {
    entry_of(selection, name)?.decode
}

/// Whether the Secret does without this one.
pub fn is_optional(selection: &Selection, name: &str) -> bool {
    entry_of(selection, name).is_some_and(|entry| entry.optional)
}

/// What a Secret of this type lacks, as Kubernetes has it.
pub fn lacking(kind: KubernetesSecretType, has: impl Fn(&str) -> bool) -> Option<String> {
    let all = |keys: &[&str]| {
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| !has(key))
            .map(|key| format!("`{key}`"))
            .collect();
        (!missing.is_empty()).then(|| missing.join(" and "))
    };
    let missing = match kind {
        KubernetesSecretType::Opaque => None,
        KubernetesSecretType::Tls => all(&["tls.crt", "tls.key"]),
        KubernetesSecretType::DockerConfigJson => all(&[".dockerconfigjson"]),
        KubernetesSecretType::BasicAuth if has("username") || has("password") => None,
        KubernetesSecretType::BasicAuth => Some("`username` or `password`".to_owned()),
        KubernetesSecretType::SshAuth => all(&["ssh-privatekey"]),
    }?;
    Some(format!("{missing}, which a Secret of type {} must have", kind.as_str()))
}

/// Whether it can be a key in a Secret's data.
pub fn is_key(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(plain) && key != "." && !key.starts_with("..")
}

/// The rules of Kubernetes for labels and annotations, told here because its own answer is never shown: it might quote
/// a value.
fn check_pair(field: &str, key: &str, value: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.rsplit_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let ours = prefix.is_some_and(|p| p == GROUP || p.strip_suffix(GROUP).is_some_and(|rest| rest.ends_with('.')));
    if ours || key == MANAGED_BY_LABEL {
        return Err("is Sealpod's own: leave it out");
    }
    let part = |text: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let end = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        text.len() <= 63 && text.bytes().all(inner) && end(text.bytes().next()) && end(text.bytes().last())
    };
    let label = |label: &str| sealpod_core::names::check_label(label).is_ok();
    if !part(name) || prefix.is_some_and(|prefix| prefix.len() > 253 || !prefix.split('.').all(label)) {
        return Err("is no valid name: an optional domain and `/`, then at most 63 letters, digits, `-`, `_` and `.`");
    }
    if field == "labels" && !value.is_empty() && !part(value) {
        return Err("has no valid value: at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends");
    }
    Ok(())
}

fn digest(wanted: &KubernetesSecret, spec: &SecretBindingSpec) -> String {
    let all = serde_json::to_vec(&(FORMAT, wanted, &spec.secrets, &spec.configurations));
    let hash = Sha256::digest(all.expect("a spec is plain data"));
    data_encoding::HEXLOWER.encode(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(secrets: &Value, native: &Value) -> SecretBindingSpec {
        let mut spec = json!({"applicationRef": {"name": "shop"}, "environment": "prod", "kubernetesSecret": native});
        if !secrets.is_null() {
            spec["secrets"] = secrets.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn refused(secrets: &Value, native: &Value) -> String {
        let spec = spec(secrets, native);
        let selection = Selection::parse(&spec).unwrap();
        Target::parse(&spec, &selection).unwrap_err().message
    }

    fn accepted(secrets: &Value, native: &Value) -> bool {
        let spec = spec(secrets, native);
        Target::parse(&spec, &Selection::parse(&spec).unwrap())
            .unwrap()
            .is_some()
    }

    #[test]
    fn each_type_says_which_key_is_missing() {
        for (kind, keys, missing) in [
            ("Opaque", vec!["any"], None),
            ("kubernetes.io/tls", vec!["tls.crt"], Some("`tls.key`")),
            ("kubernetes.io/tls", vec!["other"], Some("`tls.crt` and `tls.key`")),
            ("kubernetes.io/tls", vec!["tls.crt", "tls.key", "ca.crt"], None),
            ("kubernetes.io/dockerconfigjson", vec!["x"], Some("`.dockerconfigjson`")),
            ("kubernetes.io/basic-auth", vec!["x"], Some("`username` or `password`")),
            ("kubernetes.io/basic-auth", vec!["password"], None),
            ("kubernetes.io/ssh-auth", vec!["x"], Some("`ssh-privatekey`")),
        ] {
            let data: Vec<_> = keys.iter().map(|key| json!({"key": key, "template": "x"})).collect();
            let native = json!({"name": "copy", "type": kind, "data": data});
            match missing {
                Some(missing) => {
                    let said = refused(&Value::Null, &native);
                    assert!(said.contains(missing) && said.contains(kind), "{said}");
                }
                None => assert!(accepted(&Value::Null, &native), "{kind} {keys:?}"),
            }
        }
    }

    #[test]
    fn our_labels_and_what_kubernetes_would_refuse_are_named() {
        for (field, key, value, why) in [
            ("labels", "sealpod.dev/copy-of", "x", "Sealpod's own"),
            ("annotations", "sealpod.dev/copy-state", "x", "Sealpod's own"),
            ("annotations", "restart.sealpod.dev/x", "x", "Sealpod's own"),
            ("labels", "app.kubernetes.io/managed-by", "helm", "Sealpod's own"),
            ("labels", "team", "two words", "no valid value"),
            ("labels", "-team", "x", "no valid name"),
            ("annotations", "Example.com/a", "x", "no valid name"),
            ("annotations", "", "x", "no valid name"),
        ] {
            let said = refused(&Value::Null, &json!({"name": "copy", field: {key: value}}));
            assert!(said.contains(field) && said.contains(why), "{said}");
        }
        let large = refused(
            &Value::Null,
            &json!({"name": "copy", "annotations": {"a": "x".repeat(MAX_ANNOTATIONS)}}),
        );
        assert!(large.contains(".annotations have 147457 bytes together"), "{large}");
        let fine = json!({
            "name": "copy", "labels": {"team": "a", "example.com/x": "", "notsealpod.dev/x": "y"},
            "annotations": {"a": "two words"},
        });
        assert!(accepted(&Value::Null, &fine));
    }

    #[test]
    fn entries_name_secrets_of_the_binding() {
        let secrets = json!([{"name": "a"}, {"pattern": "tls-*"}]);
        let entry = |entry: Value| json!({"name": "copy", "data": [entry]});
        assert!(accepted(&secrets, &entry(json!({"key": "k", "secret": "a"}))));
        assert!(accepted(&secrets, &entry(json!({"key": "k", "secret": "tls-key"}))));
        assert!(accepted(
            &Value::Null,
            &entry(json!({"key": "k", "secret": "whatever"}))
        ));
        let said = refused(&secrets, &entry(json!({"key": "k", "secret": "b"})));
        assert!(said.contains("data[0].secret `b` is not one of spec.secrets"), "{said}");
        for key in ["..", "..x", "a/b", ".", ""] {
            assert!(
                refused(&secrets, &entry(json!({"key": key, "secret": "a"}))).contains("data[0].key"),
                "{key}"
            );
        }
        let twice = json!({"name": "copy", "data": [{"key": "k", "secret": "a"}, {"key": "k", "template": "x"}]});
        assert!(refused(&secrets, &twice).contains("data[1].key `k` is there twice"));
    }

    #[test]
    fn what_cannot_be_a_name_is_no_target() {
        for name in ["", "a b", "?watch=true", "../configmaps/a", "A"] {
            let said = refused(&Value::Null, &json!({"name": name}));
            assert!(said.starts_with("spec.kubernetesSecret.name "), "{said}");
        }
    }

    #[test]
    fn the_key_secret_of_a_binding_is_no_target() {
        let said = refused(&Value::Null, &json!({"name": "db-sealpod-key"}));
        assert!(said.contains("must not end with `-sealpod-key`"), "{said}");
    }

    #[test]
    fn the_digest_moves_with_all_that_decides_the_contents() {
        let digest = |secrets: Value, native: Value| {
            let spec = spec(&secrets, &native);
            Target::parse(&spec, &Selection::parse(&spec).unwrap())
                .unwrap()
                .unwrap()
                .digest
        };
        let base = digest(json!([{"name": "a"}]), json!({"name": "copy"}));
        assert_eq!(base, digest(json!([{"name": "a"}]), json!({"name": "copy"})));
        assert_ne!(
            base,
            digest(json!([{"name": "a", "decode": "base64"}]), json!({"name": "copy"}))
        );
        assert_ne!(
            base,
            digest(json!([{"name": "a"}]), json!({"name": "copy", "labels": {"a": "b"}}))
        );
    }
}
